"""Seconds of each operation of a pass: loads (`Work`) and efficiencies (`Parameters`) in, seconds out.

Every function takes floats or columns alike: [C, 1] configurations against [P] or [C, P] points.
`tokens` are rows of the weight products, `rows` are tokens whose logits are needed.
"""

from __future__ import annotations

import numpy as np

from moai_planner.costmodel.arrays import Work
from moai_planner.costmodel.comm import QUICK_HOPS, TWO_SHOT_HOPS
from moai_planner.costmodel.roofline import (
    Numbers,
    experts_touched,
    paid_rows,
    product_s,
    roofline_s,
    width_share,
)
from moai_planner.domain.parameters import Parameters


def projections_s(w: Work, p: Parameters, tokens: Numbers) -> Numbers:
    """Query, key, value and output products, and the sparse indexer's."""
    return _dense_s(w, p, tokens, w.projection_parameters, w.projection_bytes, w.projection_flop_per_s)


def dense_s(w: Work, p: Parameters, tokens: Numbers) -> Numbers:
    """Dense MLPs and shared experts."""
    return _dense_s(w, p, tokens, w.dense_parameters, w.dense_bytes, w.dense_flop_per_s)


def router_s(w: Work, p: Parameters, tokens: Numbers) -> Numbers:
    """Logits of the routed experts, in bf16."""
    return _dense_s(w, p, tokens, w.router_parameters, w.router_bytes, w.bf16_flop_per_s)


def head_s(w: Work, p: Parameters, rows: Numbers) -> Numbers:
    """Logits of the sampled rows, with their gather over tensor ranks."""
    product = _dense_s(w, p, rows, w.head_parameters, w.head_bytes, w.bf16_flop_per_s)
    return product + w.gather_s_per_row / p.collective_bandwidth_frac * rows


def head_s_per_row(w: Work, p: Parameters) -> Numbers:
    """What one more sampled row adds when there are few: its arithmetic hides behind the head's weights."""
    hidden = p.unoverlapped_frac * 2.0 * 2.0 * w.head_parameters / (w.bf16_flop_per_s * p.matmul_frac)
    return hidden + w.gather_s_per_row / p.collective_bandwidth_frac


def _dense_s(w: Work, p: Parameters, tokens, parameters, weight_bytes, flop_per_s) -> Numbers:
    compute = product_s(parameters, tokens, p.matmul_half_tokens, flop_per_s, p.matmul_frac)
    memory = weight_bytes / (w.memory_bytes_per_s * p.weight_bandwidth_frac)
    return roofline_s(compute, memory, p.unoverlapped_frac)


def touched_per_rank(w: Work, p: Parameters, tokens: Numbers) -> Numbers:
    """Distinct experts of one rank that the tokens of all data-parallel ranks choose."""
    chosen = experts_touched(w.experts, w.experts_per_token, w.group_ranks * tokens, p.expert_skew)
    return chosen / w.expert_ranks


def expert_rows_per_rank(w: Work, p: Parameters, tokens: Numbers) -> Numbers:
    """Token copies that the busiest rank multiplies; tensor-wise split experts are balanced."""
    imbalance = np.where(w.expert_ranks > 1, p.expert_imbalance, 1.0)
    return tokens * (w.group_ranks * w.experts_per_token / w.expert_ranks * imbalance)


def expert_passes(w: Work, tokens: Numbers) -> Numbers:
    """Times that the experts run one after the other, each on as many rows of a rank as they take at once."""
    return np.maximum(np.ceil(tokens / w.expert_chunk_tokens), 1.0)


def _expert_s_per_row(w: Work, p: Parameters) -> Numbers:
    """Grouped products of one row; slices of experts split over tensor ranks are narrow products."""
    reached = w.expert_flop_per_s * p.expert_matmul_frac * width_share(w.expert_width, p.expert_half_width)
    return 2.0 * w.expert_layers * w.expert_parameters / reached


def experts_s(w: Work, p: Parameters, tokens: Numbers) -> Numbers:
    """Routed experts: grouped products over the experts touched."""
    passes = expert_passes(w, tokens)
    touched = touched_per_rank(w, p, tokens / passes)
    token_rows = expert_rows_per_rank(w, p, tokens / passes)
    rows = paid_rows(token_rows, touched * p.expert_half_tokens)
    per_expert = w.expert_layers * w.expert_bytes / (w.memory_bytes_per_s * p.expert_bandwidth_frac)
    products = roofline_s(_expert_s_per_row(w, p) * rows, per_expert * touched, p.unoverlapped_frac)
    return passes * (w.expert_start_s + products)


def group_s_per_token(w: Work, p: Parameters) -> Numbers:
    """Expert products of one more token on every data-parallel rank, where these share experts."""
    return np.where(w.group_ranks > 1, _expert_s_per_row(w, p) * expert_rows_per_rank(w, p, 1.0), 0.0)


def elements_s(w: Work, p: Parameters, tokens: Numbers) -> Numbers:
    """Norms, rotary, activations, residual adds: bytes moved between products."""
    return w.element_bytes_per_token / (w.memory_bytes_per_s * p.weight_bandwidth_frac) * tokens


def kv_s_per_token(w: Work, p: Parameters) -> Numbers:
    """Decode attention per context token, layers that see all of it."""
    roofline = _decode_attention_s(w, p, w.kv_bytes_per_token, w.kv_flop_per_token)
    return roofline + w.per_token_attention * p.context_token_s


def window_s_per_token(w: Work, p: Parameters) -> Numbers:
    """Decode attention per context token inside the window, layers that see no more."""
    return _decode_attention_s(w, p, w.window_bytes_per_token, w.window_flop_per_token)


def _decode_attention_s(w: Work, p: Parameters, kv_bytes: Numbers, attention_flop: Numbers) -> Numbers:
    compute = attention_flop / (w.kv_flop_per_s * p.attention_frac)
    memory = kv_bytes / (w.memory_bytes_per_s * p.kv_bandwidth_frac)
    return roofline_s(compute, memory, p.unoverlapped_frac)


def pair_s(w: Work, p: Parameters) -> Numbers:
    """Prompt attention per token pair, layers that see the whole context."""
    return w.pair_flop / (w.pair_flop_per_s * p.attention_frac)


def window_pair_s(w: Work, p: Parameters) -> Numbers:
    """Prompt attention per token pair inside the window."""
    return w.window_pair_flop / (w.bf16_flop_per_s * p.attention_frac)


def state_s_per_sequence(w: Work, p: Parameters) -> Numbers:
    """Recurrent state read and written once a step."""
    return w.state_bytes / (w.memory_bytes_per_s * p.kv_bandwidth_frac)


def state_s_per_token(w: Work, p: Parameters) -> Numbers:
    """Linear attention's arithmetic."""
    return w.state_flop / (w.bf16_flop_per_s * p.attention_frac)


def all_reduce_s(w: Work, p: Parameters, tokens: Numbers) -> Numbers:
    """Sums over tensor ranks after attention and feed-forward, and of norms over all heads.

    Two shots are charged at least what the largest single shot takes, and quantised ones what the largest
    plain one takes, so that no step is shorter for a token more; engines do switch there.
    """
    plain = _plain_sums_s(w, p, np.minimum(tokens, w.quick_tokens))
    quick_s_per_token = w.quick_s_per_token / p.collective_bandwidth_frac + w.quick_packing_s_per_token
    quick = QUICK_HOPS * w.reduce_hops * p.collective_hop_s + quick_s_per_token * tokens
    inside = np.where(tokens <= w.quick_tokens, plain, np.maximum(plain, quick))
    network = w.reduce_network_s_per_token / p.network_bandwidth_frac * tokens
    return inside + w.reduce_network_hops * p.network_hop_s + network


def _plain_sums_s(w: Work, p: Parameters, tokens: Numbers) -> Numbers:
    small = np.minimum(tokens, w.one_shot_tokens)
    local_s = w.reduce_hops * p.collective_hop_s
    one_shot = local_s + w.one_shot_s_per_token / p.collective_bandwidth_frac * small
    two_shot = TWO_SHOT_HOPS * local_s + w.reduce_s_per_token / p.collective_bandwidth_frac * tokens
    return np.where(tokens <= w.one_shot_tokens, one_shot, np.maximum(one_shot, two_shot))


def all_reduce_latency_s(w: Work, p: Parameters, tokens: Numbers) -> Numbers:
    """The part of it that does not grow with bytes."""
    shots = np.where(tokens <= w.one_shot_tokens, 1.0, TWO_SHOT_HOPS)
    hops = w.reduce_hops * np.where(tokens <= w.quick_tokens, shots, QUICK_HOPS)
    return hops * p.collective_hop_s + w.reduce_network_hops * p.network_hop_s


def exchange_s(w: Work, p: Parameters, tokens: Numbers) -> Numbers:
    """Dispatch to and combine from the ranks that hold the experts."""
    per_token = (w.exchange_s_per_token + w.exchange_network_s_per_token) / p.all_to_all_bandwidth_frac
    return exchange_latency_s(w, p, tokens) + per_token * tokens


def exchange_latency_s(w: Work, p: Parameters, tokens: Numbers) -> Numbers:
    """The part of it that does not grow with bytes, once for each pass through the experts."""
    once = w.exchange_latencies * p.all_to_all_s + w.exchange_network_hops * p.exchange_network_s
    return expert_passes(w, tokens) * once


def send_s(w: Work, p: Parameters, tokens: Numbers) -> Numbers:
    """Activations handed to the next pipeline stage."""
    crossing = w.send_network_share
    latency = w.sends * (crossing * p.network_hop_s + (1 - crossing) * p.collective_hop_s)
    per_token = (
        w.send_s_per_token / p.collective_bandwidth_frac
        + w.send_network_s_per_token / p.network_bandwidth_frac
    )
    return latency + per_token * tokens


def kernels_s(w: Work, p: Parameters) -> Numbers:
    """Starts, ramps and tails of all kernels of a pass."""
    return w.kernels * p.kernel_s


def engine_s(w: Work, p: Parameters) -> Numbers:
    """Scheduling, input preparation, sampling and output of one step."""
    return p.step_s * (1.0 - w.asynchronous * p.step_hidden_frac)


def engine_s_per_sequence(w: Work, p: Parameters) -> Numbers:
    """The share of it that grows with the sequences of the step."""
    return p.sequence_s * (1.0 - w.asynchronous * p.step_hidden_frac)
