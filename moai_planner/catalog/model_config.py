"""A Hugging Face `config.json` as checked fields: where the value is, under which of its many names.

    config = Config("config.json", {"num_hidden_layers": 2, ...})
    config.integer("num_hidden_layers", "n_layer")     # the first of these names that is there

Multimodal wrappers keep the language model in `text_config` (or `llm_config`, `language_config`); its keys
win over the wrapper's. Whatever is missing or wrong is collected in `problems` and raised once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moai_planner.domain.errors import InputError, Problem

_TEXT_PARTS = ("text_config", "llm_config", "language_config")


@dataclass(frozen=True)
class Config:
    """The language model's keys of one `config.json`."""

    file: str
    values: Mapping[str, Any]
    problems: list[Problem] = field(default_factory=list)

    @staticmethod
    def from_document(file: str, document: Mapping[str, Any]) -> Config:
        """Lift the language model's part out of a wrapper."""
        values = dict(document)
        for name in _TEXT_PARTS:
            if isinstance(document.get(name), Mapping):
                values |= {key: value for key, value in document[name].items() if value is not None}
        return Config(file, values)

    @property
    def architecture(self) -> str:
        names = self.values.get("architectures")
        if isinstance(names, list) and names and isinstance(names[0], str):
            return names[0]
        return str(self.values.get("model_type", "unknown"))

    @property
    def model_type(self) -> str:
        """`qwen3_moe` for both `qwen3_moe` and a wrapper's `qwen3_moe_text`."""
        return str(self.values.get("model_type", "")).removesuffix("_text")

    def has(self, *names: str) -> bool:
        return any(self.values.get(name) is not None for name in names)

    def integer(self, *names: str, default: int | None = None) -> int:
        """A count of one or more; a default of zero allows zero. 1 stands in when it is a problem."""
        name, value = self._first(names)
        if value is None:
            if default is None:
                remedy = f"add `{names[0]}`; a Hugging Face config.json of a language model has it"
                self.problems.append(Problem(self.file, names[0], "is missing", remedy))
                return 1
            return default
        least = 0 if default == 0 else 1
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self.problems.append(
                Problem(self.file, name, repr(value)[:60], f"write a whole number, {least} or more")
            )
            return 1
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.values.get(name)
        return default if value is None else bool(value)

    def text(self, *names: str) -> str:
        """Empty when it is not there."""
        value = self._first(names)[1]
        return str(value) if value is not None else ""

    def sequence(self, *names: str, length: int) -> tuple[Any, ...] | None:
        """A list with at least one entry per layer, cut to `length`; None when it is not there."""
        name, value = self._first(names)
        if value is None:
            return None
        if isinstance(value, str):
            value = list(value)
        if not isinstance(value, list) or len(value) < length:
            found = f"{len(value)} entries" if isinstance(value, list) else repr(value)[:60]
            self.problems.append(
                Problem(self.file, name, found, f"give one entry for each of {length} layers")
            )
            return None
        return tuple(value[:length])

    def mapping(self, name: str) -> Mapping[str, Any]:
        value = self.values.get(name)
        return value if isinstance(value, Mapping) else {}

    def raise_problems(self) -> None:
        if self.problems:
            raise InputError(dict.fromkeys(self.problems))

    def _first(self, names: tuple[str, ...]) -> tuple[str, Any]:
        return next(
            ((name, self.values[name]) for name in names if self.values.get(name) is not None),
            (names[0], None),
        )
