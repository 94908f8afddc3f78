"""Names of checkpoints → the shipped model of the same architecture.

Who published a checkpoint, what it was trained for, when, and how its weights are stored does not change
its layers. Without the words for that, the names of one architecture are equal:

>>> stem("deepseek-ai/DeepSeek-R1-0528"), stem("RedHatAI/Meta-Llama-3.1-70B-Instruct-FP8-dynamic")
('deepseek-r1', 'llama-3.1-70b')
>>> number_format("nvidia/DeepSeek-R1-0528-FP4-v2"), number_format("Qwen/Qwen2.5-7B-GPTQ-Int8")
('nvfp4', 'int8')
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
_WIDTHS = {
    "fp8": "fp8",
    "fp4": "nvfp4",  # as NVIDIA names its uploads
    "nvfp4": "nvfp4",
    "mxfp4": "mxfp4",
    "int4": "int4",
    "4bit": "int4",
    "w4a16": "int4",
    "int8": "int8",
    "8bit": "int8",
    "bf16": "bf16",
    "fp16": "fp16",
}
_METHODS = {"awq": "awq", "gptq": "int4", "w8a8": "int8"}
"""What a method stores where no width is named."""
_NOT_A_CHECKPOINT = frozenset(("lora", "adapter", "medusa", "draft", "speculator", "gguf", "bnb", "mlx"))
_CONVERTERS = ("mlx-",)
"""Organisations whose uploads are in a format of their own."""
_QUANTIZED = "quantized."
_REPOSITORY = re.compile(r"(\w[\w.-]*/)?\w[\w.-]*\Z", re.ASCII)
"""A name with or without its organisation; anything else is a path that is not there."""


def stem(name: str) -> str:
    """The words of a name that say the architecture, in small letters; empty for what is no whole checkpoint
    of it."""
    words = _words(name)
    if name.lower().startswith(_CONVERTERS) or any(
        word in _NOT_A_CHECKPOINT or word.startswith("eagle") for word in words
    ):
        return ""
    ends = [i for i, word in enumerate(words) if word in _WIDTHS or word in _METHODS]
    left = [word for word in words[: min(ends, default=None)] if word not in _TRAINING | _MAKERS]
    if any(_sizes(word) for word in left):  # a release is told apart by its date where nothing else does
        left = [word for word in left if not _is_date(word)]
    return "-".join(left)


def number_format(name: str) -> str:
    """Precision that a name states; empty when it states none."""
    words = _words(name)
    width = next((_WIDTHS[word] for word in words if word in _WIDTHS), "")
    method = next((_METHODS[word] for word in words if word in _METHODS), "")
    return method if method == "awq" and width in ("", "int4") else width or method


def same_architecture(name: str, shipped: Iterable[str]) -> str:
    """The shipped name with the same stem and the most words in common, then one without a number format;
    empty when there is none."""
    wanted = stem(name) if _REPOSITORY.match(name) else ""
    found = [one for one in shipped if wanted and stem(one) == wanted]
    words = set(_words(name))
    order = [(-len(words & set(_words(one))), bool(number_format(one)), len(one), one) for one in found]
    return min(order)[-1] if order else ""


def _words(name: str) -> list[str]:
    words = name.rpartition("/")[2].lower().replace("_", "-").split("-")
    return [word.removeprefix(_QUANTIZED) for word in words]


def _is_date(word: str) -> bool:
    return len(word) in (4, 6) and bool(_DATE.match(word))


def _sizes(word: str) -> bool:
    return not _is_date(word) and any(letter.isdigit() for letter in word)
