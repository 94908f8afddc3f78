"""What a step is made of: one column an operator, in units of its work, so that time = work · cost.

    t(shape) = Σ_columns work(model, shape, column) · cost(column),   cost ≥ 0

| column | work of one step | cost means |
| --- | --- | --- |
| step | 1 | the engine's time per step |
| request | requests in the step | scheduling, sampling set-up, output |
| layer | layers | launches of a layer |
| rows | rows · hidden · layers | norms, residuals, activations |
| dense@m | hat_m(rows) · weights of dense products (head: its own rows) | seconds a weight at m rows |
| expert@m | hat_m(rows an expert) · weights of experts touched | seconds an expert weight at m rows |
| decode_kv | context tokens read · KV bytes a token | reading the KV cache |
| decode_flop | 2 · context tokens · query heads · (key + value size) · layers | decode attention's products |
| prefill_flop | 2 · token pairs · query heads · (key + value size) · layers | prompt attention |
| latent | cached tokens · up-projection weights (MLA prompts) | unpacking cached latents |
| sample | sampled rows · vocabulary | logits in full precision, sampler |

hat_m is 1 at m rows, 0 at the next knots, linear between: the cost of a matrix product is a curve over its
rows (few rows read weights, many multiply), and its values at the knots are what the fit finds. Past the last
knot it is proportional to rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moai_planner.domain.measured import StepShape
from moai_planner.domain.model import Attention, Model
from moai_planner.domain.precision import bytes_per_element, precision

KNOTS = (1, 4, 16, 64, 256, 1024, 4096, 16384)
"""Rows at which the cost of a matrix product is fitted; those past the largest step measured stay unused."""
_PLAIN = (
    "step", "request", "layer", "rows", "decode_kv", "decode_flop", "prefill_flop", "latent", "sample",
)  # fmt: skip
COLUMNS = (*_PLAIN, *(f"dense@{knot}" for knot in KNOTS), *(f"expert@{knot}" for knot in KNOTS))


def work(model: Model, precision_id: str, shapes: Sequence[StepShape]) -> np.ndarray:
    """Work [len(shapes), len(COLUMNS)] of one rank that holds the whole of `model`."""
    return np.array([_step_work(model, precision_id, shape) for shape in shapes])


def hats(rows: float) -> np.ndarray:
    """Weights [len(KNOTS)] of the knots at a number of rows.

    >>> hats(10)[:4]
    array([0. , 0.5, 0.5, 0. ])
    """
    knots = np.array(KNOTS, dtype=float)
    if rows <= knots[0]:
        return np.eye(len(knots))[0]
    if rows >= knots[-1]:
        return np.eye(len(knots))[-1] * rows / knots[-1]
    above = int(np.searchsorted(knots, rows, side="right"))
    share = (rows - knots[above - 1]) / (knots[above] - knots[above - 1])
    weights = np.zeros(len(knots))
    weights[above - 1], weights[above] = 1 - share, share
    return weights


def _step_work(model: Model, precision_id: str, shape: StepShape) -> np.ndarray:
    rows, sampled = shape.step_tokens, shape.batch + (shape.tokens > 0)
    plain = dict.fromkeys(_PLAIN, 0.0)
    plain["step"], plain["request"], plain["layer"] = 1.0, float(sampled), float(model.layers)
    plain["rows"] = float(rows) * model.hidden_size * model.layers
    plain["sample"] = float(sampled) * model.vocabulary_size
    dense = hats(sampled) * model.hidden_size * model.vocabulary_size
    expert = np.zeros(len(KNOTS))
    for part in model.attention:
        dense = dense + hats(rows) * projection_weights(model, part) * part.layers
        for name, value in _attention_work(precision_id, part, shape).items():
            plain[name] += value
    for part in model.feed_forward:
        if part.experts:
            touched = experts_touched(part.experts, part.experts_per_token, rows)
            each = part.matrices * model.hidden_size * part.intermediate_size
            expert += hats(rows * part.experts_per_token / touched) * touched * each * part.layers
            always = part.experts * model.hidden_size  # the router
            always += part.shared_matrices * model.hidden_size * part.shared_intermediate_size
        else:
            always = part.matrices * model.hidden_size * part.intermediate_size
        dense = dense + hats(rows) * always * part.layers
    return np.concatenate([[plain[name] for name in _PLAIN], dense, expert])


def experts_touched(experts: int, per_token: int, rows: float) -> float:
    r"""Distinct experts that rows choose, when they choose evenly and independently.

    .. math:: E (1 - (1 - k/E)^n)

    >>> round(experts_touched(16, 4, 2), 6)
    7.0
    """
    return experts * (1 - (1 - per_token / experts) ** rows)


def projection_weights(model: Model, part: Attention) -> float:
    """Weights of one attention layer's matrix products."""
    hidden = model.hidden_size
    output = part.query_heads * part.value_head_size * hidden
    if part.kind == "linear" and part.projection_parameters:
        return float(part.projection_parameters)
    if part.kind == "mla":
        queries = part.query_heads * part.head_size
        query = hidden * queries
        if part.q_lora_rank:
            query = hidden * part.q_lora_rank + part.q_lora_rank * queries
        down = hidden * (part.kv_lora_rank + part.qk_rope_head_size)
        return float(query + down + _up_projection_weights(part) + output)
    keys_values = part.kv_heads * (part.head_size + part.value_head_size)
    gates = part.query_heads * part.head_size if part.gated_output else 0
    return float(hidden * (part.query_heads * part.head_size + keys_values + gates) + output)


def _up_projection_weights(part: Attention) -> int:
    unrotated = part.head_size - part.qk_rope_head_size
    return part.kv_lora_rank * part.query_heads * (unrotated + part.value_head_size)


def _attention_work(precision_id: str, part: Attention, shape: StepShape) -> dict[str, float]:
    if part.kind == "linear":
        return {}
    window = part.window_tokens or 1 << 62
    kv_bytes = bytes_per_element(precision(precision_id).kv)
    context = float(shape.batch) * min(shape.context_tokens, window) if shape.phase != "prefill" else 0.0
    cached = min(shape.context_tokens, window) if shape.phase == "prefill" else 0
    pairs = shape.tokens * cached + min(shape.tokens, window) * (shape.tokens - min(shape.tokens, window) / 2)
    if part.kind == "mla":  # decode works on the latent itself, shared by all heads
        token_elements = part.kv_lora_rank + part.qk_rope_head_size
        decode_sizes = 2 * part.kv_lora_rank + part.qk_rope_head_size
        latent = float(cached) * _up_projection_weights(part) * part.layers
    else:
        token_elements = part.kv_heads * (part.head_size + part.value_head_size)
        decode_sizes = part.head_size + part.value_head_size
        latent = 0.0
    return {
        "decode_kv": context * token_elements * kv_bytes * part.layers,
        "decode_flop": 2 * context * part.query_heads * decode_sizes * part.layers,
        "prefill_flop": 2 * pairs * part.query_heads * (part.head_size + part.value_head_size) * part.layers,
        "latent": latent,
    }


def flop_and_bytes(model: Model, precision_id: str, shape: StepShape) -> tuple[float, float]:
    """Work of a step for the roofline: products of weights and of attention, weights and KV read once."""
    rows, sampled = shape.step_tokens, shape.batch + (shape.tokens > 0)
    head = float(model.hidden_size * model.vocabulary_size)
    flop, weights, kv_bytes = 2 * sampled * head, head, 0.0
    for part in model.attention:
        each = projection_weights(model, part) * part.layers
        attention = _attention_work(precision_id, part, shape)
        flop += 2 * rows * each + attention.get("decode_flop", 0) + attention.get("prefill_flop", 0)
        weights += each
        kv_bytes += attention.get("decode_kv", 0)
    for part in model.feed_forward:
        one = part.matrices * model.hidden_size * part.intermediate_size * part.layers
        active, read = 1.0, 1.0
        if part.experts:
            active, read = part.experts_per_token, experts_touched(part.experts, part.experts_per_token, rows)
        shared = part.shared_matrices * model.hidden_size * part.shared_intermediate_size * part.layers
        flop += 2 * rows * (one * active + shared)
        weights += one * read + shared
    weight_bytes = bytes_per_element(precision(precision_id).feed_forward_weights)
    return flop, weights * weight_bytes + kv_bytes
