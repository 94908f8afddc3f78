"""Measurements → parameter files: one joint fit, then a refit for each group left out; resumable.

plan = plan_of(runs, sources)
for done in advance(plan, resumed(plan, document)):      # the fit, then group after group
    document = stored(plan, done)                        # enough to go on from here
outcome_of(plan, done, about).files                      # name → text, ready to write
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from moai_planner.accuracy.fit import CalibrationRuns, Solution, fit
from moai_planner.accuracy.joint import FITTED_METRICS, JointProblem
from moai_planner.accuracy.kinds import kind_of, plain_of
from moai_planner.accuracy.leave_out import (
    Group,
    Labels,
    LeftOut,
    groups_of,
    labels_of,
    left_out,
    members,
    refit,
)
from moai_planner.accuracy.parameter_files import files_of
from moai_planner.accuracy.prepare import AcceleratorOf, ModelOf, ParametersOf, prepare
from moai_planner.domain.errors import InputError, Problem

DIGEST_CHARACTERS = 16
CORRECTION_DIGITS = 6
FIGURE_DIGITS = 4
ALL = "all"
"""In place of a family's name: the rows of every family."""


@dataclass(frozen=True)
class Sources:
    """Where models, devices and assumed parameters come from."""

    model_of: ModelOf
    accelerator_of: AcceleratorOf
    assumed_of: ParametersOf


@dataclass(frozen=True, eq=False)
class Plan:
    """What is to be done."""

    problem: JointProblem
    labels: Labels
    groups: tuple[Group, ...]
    digest: str
    "Identity of the rows and of everything the fit starts from."
    sources: Sources

    @property
    def steps(self) -> int:
        """The fit and the refits."""
        return 1 + len(self.groups)


@dataclass(frozen=True, eq=False)
class Done:
    """What is done: the corrections, and errors of the groups refitted."""

    theta: np.ndarray | None = None
    refitted: Mapping[Group, np.ndarray] = field(default_factory=dict)
    last: str = ""


@dataclass(frozen=True)
class Figure:
    """Errors of one family's rows of one kind with something left out of the fit."""

    family: str
    "A family's name or `ALL`."
    left_out: str
    kind: str
    n: int
    median_ape: float
    bias: float
    transfers: bool
    "Other rows of the family stayed in the fit."


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a calibration found."""

    files: Mapping[str, str]
    figures: tuple[Figure, ...]
    left: LeftOut


def plan_of(runs: CalibrationRuns, sources: Sources, frozen: Sequence[str] = ()) -> Plan:
    """Prepare the rows; `frozen` fields keep their assumed value (ablations)."""
    prepared = prepare(runs.runs, sources.model_of, sources.accelerator_of, sources.assumed_of)
    if not prepared.runs:
        found = f"{len(runs.runs)} rows marked calibrate, none of them predictable"
        raise InputError(Problem("measurements", "split", found, "mark rows that `validate` can predict"))
    if not any(name in run.metrics for run in prepared.runs for name in FITTED_METRICS):
        remedy = f"measure one of {', '.join(FITTED_METRICS)}"
        raise InputError(Problem("measurements", "metrics", "none that a fit can use", remedy))
    problem = JointProblem(prepared, sources.assumed_of, frozen)
    labels = labels_of(problem, problem.run)
    return Plan(problem, labels, tuple(groups_of(labels)), _digest(problem), sources)


def _digest(problem: JointProblem) -> str:
    text = json.dumps([repr(run) for run in problem.runs] + [repr(problem.columns)])
    before = problem.errors(np.zeros(len(problem.columns)))
    numbers = np.concatenate([problem.spread, problem.start.ravel(), before])
    return hashlib.sha256(text.encode() + np.round(numbers, CORRECTION_DIGITS).tobytes()).hexdigest()[
        :DIGEST_CHARACTERS
    ]


def advance(plan: Plan, done: Done | None = None) -> Iterator[Done]:
    """Do what is not done yet, one piece at a time; the first answer is what is there already."""
    done = done or Done()
    if done.theta is None:
        # refits start from stored numbers, so fresh and resumed runs must see the same ones
        done = Done(np.round(fit(plan.problem).theta, CORRECTION_DIGITS), {}, "all rows")
    yield done
    solution = Solution(done.theta, plan.problem.errors(done.theta))
    slopes = plan.problem.jacobian(done.theta)
    for group in plan.groups:
        if group not in done.refitted:
            found = refit(plan.problem, plan.labels, solution, slopes, group)
            errors = found.errors[members(plan.labels, group)]
            name = f"without {group.grouping} {group.name}"
            done = Done(done.theta, {**done.refitted, group: errors}, name)
            yield done


def stored(plan: Plan, done: Done) -> dict:
    """What to keep so that nothing is fitted twice."""
    return {
        "digest": plan.digest,
        "theta": done.theta.tolist(),
        "refitted": [[g.grouping, g.name, errors.tolist()] for g, errors in done.refitted.items()],
    }


def resumed(plan: Plan, document: Mapping | None) -> Done:
    """The same read back; nothing when it belongs to other rows."""
    if not document or document.get("digest") != plan.digest:
        return Done()
    refitted = {Group(grouping, name): np.array(errors) for grouping, name, errors in document["refitted"]}
    return Done(np.array(document["theta"]), refitted)


def outcome_of(plan: Plan, done: Done, about: str) -> Outcome:
    """Files and figures, from the corrections and all refits."""
    problem, sources = plan.problem, plan.sources
    solution = Solution(done.theta, problem.errors(done.theta))
    slopes = problem.jacobian(done.theta)
    left = left_out(problem, plan.labels, solution, slopes, dict(done.refitted))
    files = files_of(problem, solution, left, sources.model_of, about)
    return Outcome(files, tuple(_figures(problem, solution, left)), left)


def _figures(problem: JointProblem, solution: Solution, left: LeftOut) -> Iterator[Figure]:
    """By family and kind, and for all families together: fitted, and with each grouping left out."""
    labels = left.labels
    kinds = np.array([plain_of(kind_of(name)) for name in FITTED_METRICS])[problem.metric]
    for family in (*sorted(set(labels.family.tolist())), ALL):
        own = (labels.family == family) | (family == ALL)
        for grouping, errors in (("nothing", solution.errors), *left.errors.items()):
            several = grouping == "nothing" or len(set(getattr(labels, grouping)[own].tolist())) > 1
            for kind in sorted(set(kinds[own].tolist())):
                chosen = errors[own & (kinds == kind)]
                size = float(np.median(np.abs(np.expm1(chosen))))
                yield Figure(
                    family,
                    grouping,
                    kind,
                    len(chosen),
                    round(size, FIGURE_DIGITS),
                    round(float(np.median(chosen)), FIGURE_DIGITS),
                    several,
                )
