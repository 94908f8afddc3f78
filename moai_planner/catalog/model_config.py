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
from moai_planner.domain.units import GIGA

LARGEST = int(GIGA)
"""No size of a model is larger."""

_TEXT_PARTS = ("text_config", "llm_config", "language_config")
_CLASS_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "gemma3": {
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "sliding_window_pattern": 6,
    },
}
"""What published files leave out because the class in transformers has it as default."""
_DBRX_NAMES = {
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "d_model": "hidden_size",
    "max_seq_len": "max_position_embeddings",
    "kv_n_heads": "num_key_value_heads",
    "ffn_hidden_size": "intermediate_size",
    "moe_num_experts": "num_local_experts",
    "moe_top_k": "num_experts_per_tok",
}


@dataclass(frozen=True)
class Config:
    """The language model's keys of one `config.json`."""

    file: str
    values: Mapping[str, Any]
    problems: list[Problem] = field(default_factory=list)
    place: str = ""
    "Where `values` stand in the file, with a final dot; empty at the top."

    @staticmethod
    def from_document(file: str, document: Mapping[str, Any]) -> Config:
        """Lift the language model's part out of a wrapper."""
        values = dict(document)
        for name in _TEXT_PARTS:
            if isinstance(document.get(name), Mapping):
                values |= {key: value for key, value in document[name].items() if value is not None}
        model_type = str(values.get("model_type", "")).removesuffix("_text")
        if model_type == "dbrx":
            values = _dbrx(values)
        return Config(file, {**_CLASS_DEFAULTS.get(model_type, {}), **values})

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

    def integer(self, *names: str, default: int | None = None, most: int = LARGEST) -> int:
        """A count of one or more; a default of zero allows zero. 1 stands in when it is a problem."""
        name, value = self._first(names)
        if value is None:
            if default is None:
                remedy = f"add `{names[0]}`; a Hugging Face config.json of a language model has it"
                self.problems.append(Problem(self.file, self.place + names[0], "is missing", remedy))
                return 1
            return default
        least = 0 if default == 0 else 1
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.add(name, value, f"write a whole number from {least} to {most}")
            return 1
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.values.get(name)
        return default if value is None else bool(value)

    def text(self, *names: str) -> str:
        """Empty when it is not there."""
        value = self._first(names)[1]
        return str(value) if value is not None else ""

    def sequence(self, *names: str, length: int, of: type) -> tuple[Any, ...] | None:
        """A list with at least one entry per layer, cut to `length`; None when it is not there."""
        name, value = self._first(names)
        if value is None:
            return None
        entries = list(value) if isinstance(value, str) else value
        if not isinstance(entries, list) or len(entries) < length:
            found = f"{len(entries)} entries" if isinstance(entries, list) else value
            self.add(name, found, f"give one entry for each of {length} layers")
            return None
        odd = next((entry for entry in entries[:length] if not isinstance(entry, of)), None)
        if odd is not None or None in entries[:length]:
            self.add(name, odd, f"each entry is a {of.__name__}")
            return None
        return tuple(entries[:length])

    def part(self, name: str) -> Config:
        """A mapping below this one; its problems are ours."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, Mapping):
            self.add(name, value, "write a mapping of keys")
        inner = value if isinstance(value, Mapping) else {}
        return Config(self.file, inner, self.problems, f"{self.place}{name}.")

    def add(self, name: str, found: Any, remedy: str) -> None:
        """Note a problem of one key."""
        text = found if isinstance(found, str) and " entries" in found else repr(found)
        self.problems.append(Problem(self.file, self.place + name, text[:60], remedy))

    def raise_problems(self) -> None:
        if self.problems:
            raise InputError(dict.fromkeys(self.problems))

    def _first(self, names: tuple[str, ...]) -> tuple[str, Any]:
        return next(
            ((name, self.values[name]) for name in names if self.values.get(name) is not None),
            (names[0], None),
        )


def _dbrx(values: Mapping[str, Any]) -> dict[str, Any]:
    """DBRX keeps sizes under names of its own, some in `attn_config` and `ffn_config`."""
    parts = [values.get(name) for name in ("attn_config", "ffn_config")]
    inner = {key: value for part in parts if isinstance(part, Mapping) for key, value in part.items()}
    return {_DBRX_NAMES.get(key, key): value for key, value in ({**inner, **values}).items()}
