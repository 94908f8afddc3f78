"""Number formats: how wide weights and KV are stored, and at which rate they are multiplied.

>>> bytes_per_element("mxfp4")
0.53125
>>> precision("mxfp4").expert_weights, precision("mxfp4").attention_weights
('mxfp4', 'bf16')
"""

from __future__ import annotations

from dataclasses import dataclass, replace

WIDE_FORMAT = "bf16"
"""Its products are mostly the device vendor's library under every engine; narrower ones are the engine's."""

_BITS = {
    "fp32": 32.0,
    "bf16": 16.0,
    "fp16": 16.0,
    "fp8": 8.0,
    "int8": 8.0,
    "mxfp8": 8.25,  # one 8-bit scale per 32
    "bfp8": 8.5,  # one 8-bit exponent per 16
    "mxfp4": 4.25,  # one 8-bit scale per 32
    "nvfp4": 4.5,  # one 8-bit scale per 16
    "int4": 4.125,  # one 16-bit scale per 128
    "awq": 4.15625,  # 16-bit scale and 4-bit zero per 128
}
"""Bits an element takes with its share of block scales (OCP MX v1.0; NVFP4 and AWQ model cards; BFLOAT8_B of
Tenstorrent's tt-metal documentation)."""

_MULTIPLIED_AS = {
    "fp32": "fp32",
    "bf16": "bf16",
    "fp16": "bf16",
    "fp8": "fp8",
    "int8": "int8",
    "mxfp8": "fp8",
    "bfp8": "fp8",
    "mxfp4": "fp4",
    "nvfp4": "fp4",
    "int4": "bf16",
    "awq": "bf16",
}


_PLATFORM = {"bfp8": "tt"}
"""The only platform whose engines read a format."""


def bytes_per_element(number_format: str) -> float:
    """Storage of one element with its share of scales. [bytes]"""
    return _BITS[number_format] / 8


def multiplied_as(number_format: str) -> str:
    """Format of the matrix unit that a weight format is fed to; kernels widen the weights to bf16 where a
    device lacks it."""
    return _MULTIPLIED_AS[number_format]


@dataclass(frozen=True)
class Precision:
    """Storage formats of one deployment. Embeddings and the output head stay in bf16 unless said."""

    id: str
    attention_weights: str
    feed_forward_weights: str
    "Dense layers and shared experts."
    expert_weights: str
    kv: str = "bf16"
    embedding_weights: str = "bf16"

    @property
    def kernels(self) -> str:
        """The precision that shares its kernels and therefore its efficiencies: 16-bit formats run alike."""
        return "bf16" if self.id == "fp16" else self.id

    @property
    def made_on_load(self) -> bool:
        """The engine makes it of a 16-bit checkpoint; nobody publishes weights in it."""
        return self.id in _PLATFORM

    def read_on(self, platform: str) -> bool:
        """Whether engines of the platform take weights of this format."""
        return _PLATFORM.get(self.id, platform) == platform

    def with_kv(self, kv: str) -> Precision:
        """The same weights with another KV format."""
        return replace(self, kv=kv)


PRECISIONS: dict[str, Precision] = {
    "bf16": Precision("bf16", "bf16", "bf16", "bf16"),
    "fp16": Precision("fp16", "fp16", "fp16", "fp16"),
    "fp8": Precision("fp8", "fp8", "fp8", "fp8"),
    "bfp8": Precision("bfp8", "bfp8", "bfp8", "bfp8", "bfp8", "bfp8"),
    "int8": Precision("int8", "int8", "int8", "int8"),
    "int4": Precision("int4", "int4", "int4", "int4"),
    "awq": Precision("awq", "awq", "awq", "awq"),
    "mxfp4": Precision("mxfp4", "bf16", "bf16", "mxfp4"),
    "nvfp4": Precision("nvfp4", "bf16", "nvfp4", "nvfp4"),
    "fp4": Precision("fp4", "fp8", "fp8", "mxfp4"),
}
"""`mxfp4` and `nvfp4` checkpoints keep attention in bf16; `fp4` is fp4 experts with the rest fp8; `bfp8` is
what Tenstorrent's engine makes of weights and KV when it loads them."""


def precision(precision_id: str) -> Precision:
    """Look a precision up; KeyError for an unknown id (readers check first)."""
    return PRECISIONS[precision_id]
