"""Names of checkpoints → the shipped model of the same architecture.

Who published a checkpoint, what it was trained for, when, and how its weights are stored does not change
its layers. Without the words for that, the names of one architecture are equal:

>>> stem("deepseek-ai/DeepSeek-R1-0528"), stem("RedHatAI/Meta-Llama-3.1-70B-Instruct-FP8-dynamic")
('deepseek-r1', 'llama-3.1-70b')
>>> number_format("nvidia/DeepSeek-R1-0528-FP4-v2"), number_format("Qwen/Qwen3-32B-AWQ"), number_format("a/b")
('nvfp4', 'awq', '')
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_TRAINING = frozenset(
    ("instruct", "chat", "it", "hf", "base", "pt", "thinking", "preview", "exp", "terminus")
)
_MAKERS = frozenset(("meta",))
_DATE = re.compile(r"(2[3-9])?(0[1-9]|1[0-2])([0-3]\d)?\Z")
"""2507, 0528 or 250528: year and month, month and day, or all of them; four digits or six."""
_FORMATS = {
    "fp8": "fp8",
    "fp4": "nvfp4",  # as NVIDIA names its uploads
    "nvfp4": "nvfp4",
    "mxfp4": "mxfp4",
    "awq": "awq",
    "gptq": "int4",
    "int4": "int4",
    "w4a16": "int4",
    "int8": "int8",
    "w8a8": "int8",
    "bf16": "bf16",
    "fp16": "fp16",
}
_QUANTIZED = "quantized."
_REPOSITORY = re.compile(r"(\w[\w.-]*/)?\w[\w.-]*\Z", re.ASCII)
"""A name with or without its organisation; anything else is a path that is not there."""


def stem(name: str) -> str:
    """The words of a name that say the architecture, in small letters."""
    words = _words(name)
    ends = [i for i, word in enumerate(words) if word in _FORMATS]
    return "-".join(word for word in words[: min(ends, default=None)] if not _says_nothing(word))


def number_format(name: str) -> str:
    """Precision that a name states; empty when it states none."""
    return next((_FORMATS[word] for word in _words(name) if word in _FORMATS), "")


def same_architecture(name: str, shipped: Iterable[str]) -> str:
    """The shipped name with the same stem, one without a number format first; empty when there is none."""
    wanted = stem(name) if _REPOSITORY.match(name) else ""
    found = [one for one in shipped if wanted and stem(one) == wanted]
    return min(found, key=lambda one: (bool(number_format(one)), len(one), one), default="")


def _words(name: str) -> list[str]:
    words = name.rpartition("/")[2].lower().replace("_", "-").split("-")
    return [word.removeprefix(_QUANTIZED) for word in words]


def _says_nothing(word: str) -> bool:
    return word in _TRAINING or word in _MAKERS or (len(word) in (4, 6) and bool(_DATE.match(word)))
