"""KV cache of one token, exact against the model's config. [bytes]

>>> llama_70b = Attention("gqa", layers=80, query_heads=64, kv_heads=8, head_size=128, value_head_size=128)
>>> layer_kv_bytes_per_token(llama_70b, "bf16", tp=1) * 80
327680.0
>>> deepseek = Attention("mla", 61, 128, 1, 192, 128, kv_lora_rank=512, qk_rope_head_size=64)
>>> layer_kv_bytes_per_token(deepseek, "bf16", tp=8) * 61
70272.0
"""

from __future__ import annotations

from moai_planner.costmodel.weights import kv_heads_per_rank
from moai_planner.domain.model import Attention, Model
from moai_planner.domain.precision import Precision, bytes_per_element

INDEX_KEY_SCALE_BYTES = 4.0
"""The sparse indexer's key is kept in fp8 with one fp32 scale (DeepSeek-V3.2 in vLLM)."""


def layer_kv_bytes_per_token(part: Attention, kv_format: str, tp: int) -> float:
    """Keys and values that one layer keeps of one token on one of `tp` ranks.

    GQA: ⌈H_kv / tp⌉ · (d_k + d_v) · w.  MLA: (r_kv + d_rope) · w, the same on every rank.
    """
    width = bytes_per_element(kv_format)
    if part.kind == "mla":
        return (part.kv_lora_rank + part.qk_rope_head_size) * width
    if part.kind == "linear":
        return 0.0
    return kv_heads_per_rank(part.kv_heads, tp) * (part.head_size + part.value_head_size) * width


def layer_index_bytes_per_token(part: Attention) -> float:
    """Key of the sparse indexer that one layer keeps of one token."""
    return part.index_head_size + INDEX_KEY_SCALE_BYTES if part.index_heads else 0.0


def layer_state_bytes(part: Attention, tp: int) -> float:
    """Recurrent state of one sequence in one linear layer, split over heads; kept in bf16."""
    return part.state_elements * bytes_per_element("bf16") / tp if part.kind == "linear" else 0.0


def is_capped(part: Attention, max_context_tokens: int) -> bool:
    """A sliding window, shorter than the longest context served, bounds what a sequence keeps and reads."""
    return 0 < part.window_tokens < max_context_tokens


def kv_bytes_per_token(model: Model, precision: Precision, tp: int = 1, max_context_tokens: int = 0) -> float:
    """KV that grows with the context: all layers of a rank, sliding windows left out when capped.

    `max_context_tokens` 0 = count every layer in full.
    """
    return sum(
        part.layers * (layer_kv_bytes_per_token(part, precision.kv, tp) + layer_index_bytes_per_token(part))
        for part in model.attention
        if not (max_context_tokens and is_capped(part, max_context_tokens))
    )


def bounded_bytes_per_sequence(model: Model, precision: Precision, tp: int, max_context_tokens: int) -> float:
    """What a sequence keeps however long it is: full windows of capped layers, and recurrent states."""
    windows = sum(
        part.layers * part.window_tokens * layer_kv_bytes_per_token(part, precision.kv, tp)
        for part in model.attention
        if is_capped(part, max_context_tokens)
    )
    return windows + sum(part.layers * layer_state_bytes(part, tp) for part in model.attention)
