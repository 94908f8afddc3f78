"""Seconds of one engine step: the sum of its operations.

Decode and mixed steps share every formula; they differ in who launches the kernels (a captured graph
or the host) and in how attention is counted (context tokens or token pairs).
"""

from __future__ import annotations

import numpy as np

from moai_planner.costmodel import operations as op
from moai_planner.costmodel.arrays import Work
from moai_planner.costmodel.roofline import Numbers
from moai_planner.domain.layout import capture_sizes
from moai_planner.domain.parameters import Parameters


def products_s(w: Work, p: Parameters, tokens: Numbers, rows: Numbers) -> Numbers:
    """Everything of a pass that depends on its rows alone: products, exchanges, element-wise work."""
    return (
        op.projections_s(w, p, tokens)
        + op.dense_s(w, p, tokens)
        + op.router_s(w, p, tokens)
        + op.experts_s(w, p, tokens)
        + op.head_s(w, p, rows)
        + op.elements_s(w, p, tokens)
        + op.all_reduce_s(w, p, tokens)
        + op.exchange_s(w, p, tokens)
        + op.send_s(w, p, tokens)
        + op.kernels_s(w, p)
    )


def decode_base_s(w: Work, p: Parameters, sequences: Numbers, padded: Numbers, replayed: Numbers) -> Numbers:
    """A decode step of `sequences`, run as `padded` rows, without the part that grows with context.

    Layers with a window count it full: contexts shorter than a window are rare where windows are small.
    """
    device = products_s(w, p, padded, padded)
    device = device + sequences * bounded_s_per_sequence(w, p)
    device = device + np.where(replayed, 0.0, w.kernels * p.host_kernel_s)
    return device + op.engine_s(w, p) + sequences * op.engine_s_per_sequence(w, p)


def mixed_base_s(w: Work, p: Parameters, tokens: Numbers) -> Numbers:
    """A step with prompt tokens, without what grows with context and with the sequences sampled.

    The host launches what is longer than captured pieces, and not all of that hides behind the device. A
    prompt token pairs with a full window in layers that have one.
    """
    attention = tokens * (w.window_tokens * op.window_pair_s(w, p) + op.state_s_per_token(w, p))
    launched = np.where(tokens > w.captured_tokens, w.kernels * p.host_kernel_s + w.prompt_step_s, 0.0)
    return products_s(w, p, tokens, 1.0) + attention + launched + op.engine_s(w, p)


def mixed_row_s(w: Work, p: Parameters) -> Numbers:
    """Each sampled sequence of such a step: the engine's time, its logits, its windows and state."""
    return op.engine_s_per_sequence(w, p) + op.head_s_per_row(w, p) + bounded_s_per_sequence(w, p)


def bounded_s_per_sequence(w: Work, p: Parameters) -> Numbers:
    """Full windows and recurrent state that a decoding sequence reads, however long it is."""
    return w.window_tokens * op.window_s_per_token(w, p) + op.state_s_per_sequence(w, p)


def padded_sizes(max_num_seqs: int, graphs: bool, rows: int = 1) -> np.ndarray:
    """[max_num_seqs + 1] rows that a decode batch of each size runs as; sizes and captured ones in rows, of
    which a sequence has several where tokens are drafted.

    >>> padded_sizes(12, True).tolist()
    [1, 1, 2, 4, 4, 8, 8, 8, 8, 16, 16, 16, 16]
    >>> padded_sizes(12, True, 3).tolist()
    [3, 3, 3, 3, 6, 6, 6, 12, 12, 12, 12, 12, 12]
    """
    sizes = np.maximum(np.arange(max_num_seqs + 1), 1)
    if not graphs:
        return sizes
    captured = np.array(capture_sizes(max_num_seqs)) * rows
    position = np.searchsorted(captured, sizes)
    return np.where(position < len(captured), captured[np.minimum(position, len(captured) - 1)], sizes)


def largest_captured(max_num_seqs: int, graphs: bool, rows: int = 1) -> int:
    """Rows of the largest decode batch that is replayed from a graph; 0 without graphs."""
    return max(capture_sizes(max_num_seqs)) * rows if graphs else 0
