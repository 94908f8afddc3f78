"""What decode attention does with a KV cache of 8 bits: which devices gain time from it, not only room.

Blackwell's attention kernels multiply 8-bit keys and values as they are; older devices widen them first. On
Hopper the tensor cores take 8-bit operands in one memory order only, so values are transposed inside the
kernel (Shah et al. 2024, FlashAttention-3, section 3.3); steps of Llama-3.1-70B served with an 8-bit cache
there are as long as 16 bits would take. The latent of MLA is key and value in one and is not transposed, and
TensorRT-LLM has a decode kernel of its own for 8 bits (XQA).

>>> read_as("Hopper", "gqa", "fp8", "vllm"), read_as("Hopper", "mla", "fp8", "vllm")
('bf16', 'fp8')
>>> read_as("Hopper", "gqa", "fp8", "trtllm"), read_as("CDNA3", "gqa", "fp8", "vllm")
('fp8', 'fp8')
>>> attention_format("Blackwell", "fp8"), attention_format("CDNA4", "fp8")
('fp8', 'bf16')

Prompts are multiplied as 16 bits; SGLang multiplies those of MLA as 8 bits on CDNA4 when the cache has 8
(`aiter_backend.py`, since v0.5.9).

>>> prompt_format("CDNA4", "mla", "fp8", "sglang"), prompt_format("CDNA4", "mla", "fp8", "atom")
('fp8', 'bf16')
"""

from __future__ import annotations

from moai_planner.domain.precision import bytes_per_element, multiplied_as

WIDE = "bf16"
TRANSPOSING = ("Hopper",)
NARROW_ENGINES = ("trtllm",)
"""Engines with kernels that read 8 bits at the memory's rate also there."""
NARROW_PROMPTS = ("sglang", "CDNA4", "mla", "fp8")
"""Engine, architecture, kind and cache whose prompt attention multiplies 8 bits."""
MULTIPLYING = ("Blackwell", "Blackwell Ultra", "Rubin")


def read_as(architecture: str, kind: str, kv: str, engine: str) -> str:
    """KV format whose read a decode step takes the time of; `kind` of attention."""
    narrow = bytes_per_element(kv) < bytes_per_element(WIDE)
    transposed = architecture in TRANSPOSING and kind != "mla" and engine not in NARROW_ENGINES
    return WIDE if narrow and transposed else kv


def attention_format(architecture: str, kv: str) -> str:
    """Format that decode attention multiplies in."""
    return multiplied_as(kv) if architecture in MULTIPLYING else WIDE


def prompt_format(architecture: str, kind: str, kv: str, engine: str) -> str:
    """Format that prompt attention multiplies in."""
    return multiplied_as(kv) if (engine, architecture, kind, kv) == NARROW_PROMPTS else WIDE
