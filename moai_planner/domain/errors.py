"""Problems in what a user gave us, collected so that all of them are shown at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing wrong in one input, with the way out."""

    file: str
    "Path or name of the input (`capacity.yaml`, `--slo`)."
    field: str
    "Where in it (`cluster.pools[0].price`, `line 17`)."
    value: str
    "What was found there, as text; empty when something is missing."
    remedy: str
    "What to write instead."

    def __str__(self) -> str:
        where = f"{self.file}: {self.field}" if self.field else self.file
        found = f": {self.value}" if self.value else ""
        return f"{where}{found} ({self.remedy})"


class InputError(Exception):
    """The input is wrong; the command line prints every problem and exits with 2."""

    def __init__(self, problems: Problem | Iterable[Problem]):
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Infeasible(Exception):
    """The answer is no (a model that fits nowhere, a promise nothing can keep); exit code 3."""
