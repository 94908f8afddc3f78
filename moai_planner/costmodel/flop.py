"""Work of attention and of everything that is not a weight product. [flop, bytes]

Weight products are 2·parameters flop a token (`weights`); attention's two products, QKᵀ and AV, cost
2·H_q·(d_k + d_v) flop for each pair of a query and a key.

>>> decode_flop_per_context_token(Attention("gqa", 1, 64, 8, 128, 128), tp=1)
32768.0
>>> deepseek = Attention("mla", 1, 128, 1, 192, 128, kv_lora_rank=512, qk_rope_head_size=64)
>>> decode_flop_per_context_token(deepseek, tp=1), prompt_flop_per_pair(deepseek, tp=1)
(278528.0, 81920.0)
"""

from __future__ import annotations

from moai_planner.costmodel import kv, narrow_kv
from moai_planner.costmodel.configuration import Configuration
from moai_planner.domain.model import Attention, Model
from moai_planner.domain.precision import bytes_per_element

RESIDUAL_PASSES = 8
"""Times a layer moves the residual stream: two fused add-norms read two and write two each."""


def decode_flop_per_context_token(part: Attention, tp: int) -> float:
    """One query against one cached token. MLA decodes in the latent space: 2·H_q·(2·r_kv + d_rope)."""
    if part.kind == "linear":
        return 0.0
    if part.kind == "mla":
        return 2.0 * part.query_heads / tp * (2 * part.kv_lora_rank + part.qk_rope_head_size)
    return 2.0 * part.query_heads / tp * (part.head_size + part.value_head_size)


def prompt_flop_per_pair(part: Attention, tp: int) -> float:
    """One prompt token against one earlier token. MLA expands its keys unless it reads sparsely."""
    if part.kind == "linear":
        return 0.0
    if part.kind == "mla" and part.sparse_top_k_tokens:
        return decode_flop_per_context_token(part, tp)
    return 2.0 * part.query_heads / tp * (part.head_size + part.value_head_size)


def index_flop_per_pair(part: Attention) -> float:
    """Scores of the sparse indexer; it runs in 8-bit at twice the bf16 rate, so counted half."""
    return float(part.index_heads * part.index_head_size)


def state_flop_per_token(part: Attention, tp: int) -> float:
    """Linear attention: decay, update and read of the state, about 6 flop an element."""
    return 6.0 * part.state_elements / tp if part.kind == "linear" else 0.0


def element_bytes_per_token(model: Model, tp: int) -> float:
    """Activations that all layers move between products, per token on one rank.

    The residual stream is whole on every rank; queries, keys and the MLP's inner activations are split.
    """
    inner = sum(p.layers * 3 * p.query_heads * p.head_size for p in model.attention)
    for part in model.feed_forward:
        width = part.intermediate_size * max(part.experts_per_token, 1) + part.shared_intermediate_size
        inner += part.layers * 3 * width
    residual = model.layers * RESIDUAL_PASSES * model.residual_size
    return (residual + inner / tp) * bytes_per_element("bf16")


def attention_limit_tokens(part: Attention, max_context_tokens: int) -> int:
    """Most context tokens a layer reads; 0 = all that a request may have."""
    limits = [n for n in (part.window_tokens, part.sparse_top_k_tokens) if 0 < n < max_context_tokens]
    return min(limits, default=0)


def attention_work(c: Configuration, fullest: float) -> dict[str, float]:
    """Attention of all layers: what grows with the whole context, and what stops at a window.

    Layers with different windows count as one of their byte-weighted mean.
    """
    tp = c.layout.tp
    total = dict.fromkeys(
        (
            "kv_bytes_per_token",
            "window_bytes_per_token",
            "kv_flop_per_token",
            "window_flop_per_token",
            "pair_flop",
            "window_pair_flop",
            "state_bytes",
            "state_flop",
        ),
        0.0,
    )
    window_bytes = 0.0
    for part in c.model.attention:
        layers = fullest * part.layers
        limit = attention_limit_tokens(part, c.engine.max_model_len)
        read_as = narrow_kv.read_as(c.accelerator.architecture, part.kind, c.precision.kv, c.engine.name)
        bytes_per_token = layers * kv.layer_kv_bytes_per_token(part, read_as, tp)
        reach = "window_" if limit else ""
        total[(reach or "kv_") + "bytes_per_token"] += bytes_per_token
        total[(reach or "kv_") + "flop_per_token"] += layers * decode_flop_per_context_token(part, tp)
        total[reach + "pair_flop"] += layers * prompt_flop_per_pair(part, tp)
        total["kv_bytes_per_token"] += layers * kv.layer_index_bytes_per_token(part)
        total["kv_flop_per_token"] += layers * index_flop_per_pair(part)
        total["pair_flop"] += layers * index_flop_per_pair(part)
        total["state_bytes"] += 2 * layers * kv.layer_state_bytes(part, tp)
        total["state_flop"] += layers * state_flop_per_token(part, tp)
        window_bytes += limit * bytes_per_token
    total["window_tokens"] = window_bytes / total["window_bytes_per_token"] if window_bytes else 0.0
    return total
