r"""Step times summed from the timings of operators, for models whose layers were timed.

    t = L · (layer(T) + attention) + tail(T) + head(rows) + experts + collectives

Rows are padded to captured graphs in decode. Attention is linear in what `StepTimes` knows: its slope
over context is that of the largest batches, and each batch is exact at REFERENCE_TOKENS of context.
Beside a prompt attention takes longer than alone (the same kernel serves both), which each sampled
sequence pays. Collectives and the busiest expert rank are the cost model's, with the device's assumed
efficiencies: corrections found in service on other devices' links say nothing of its own. Where the
engine schedules asynchronously its host works behind the device; else a step pays for it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from moai_planner.costmodel import operations as op
from moai_planner.costmodel import step
from moai_planner.costmodel.arrays import Work
from moai_planner.costmodel.configuration import Configuration
from moai_planner.domain.operators import OperatorTable
from moai_planner.domain.parameters import Parameters
from moai_planner.domain.provenance import Basis
from moai_planner.domain.step import StepTimes

REFERENCE_TOKENS = 1024.0
"""Context at which every batch is exact (prompt and half the output of a chat request)."""
LOW_FRAC, HIGH_FRAC = 0.85, 1.2
"""Kernels timed one by one against a served step: launch gaps that a graph hides, clocks that drop under
load (assumed)."""


def operator_times(
    c: Configuration, table: OperatorTable, modelled: StepTimes, w: Work, p: Parameters
) -> StepTimes:
    """Step times of a configuration whose layers the table timed. `w`, `p`: its own, as scalars."""
    layers = float(c.model.layers)
    engine = op.engine_s(w, p) * (1.0 - w.asynchronous)
    sequences = np.arange(len(modelled.decode_s), dtype=float)
    padded = step.padded_sizes(len(sequences) - 1, c.engine.graphs).astype(float)
    kv_s = layers * _slope_s(table)
    batch = np.maximum(sequences, 1.0)
    attention = table.decode.at(batch, REFERENCE_TOKENS) * (1.0 + table.spread.at(batch))
    decode_s = _rows_s(c, table, w, padded) + table.head.at(padded) + engine
    decode_s = decode_s + np.maximum(layers * attention - kv_s * batch * REFERENCE_TOKENS, 0.0)
    decode_s[0] = 0.0
    pair_s = layers * _pair_s(table)
    tokens = modelled.tokens
    prompts = layers * table.prompt.at(np.minimum(tokens, table.prompt.axes[0][-1]), 0.0)
    reach = np.minimum(tokens, table.prompt.axes[0][-1])
    mixed_s = _rows_s(c, table, w, tokens) + table.head.at(1.0) + engine
    mixed_s = mixed_s + np.maximum(prompts - pair_s * reach**2 / 2, 0.0)
    return replace(
        modelled,
        decode_s=np.maximum.accumulate(decode_s),
        mixed_s=np.maximum.accumulate(mixed_s),
        pair_s=pair_s,
        kv_s=kv_s,
        mixed_row_s=layers * _beside_s(table) + _head_row_s(table),
        basis=Basis.INTERPOLATED,
        low_frac=LOW_FRAC,
        high_frac=HIGH_FRAC,
    )


def _rows_s(c: Configuration, table: OperatorTable, w: Work, tokens: np.ndarray) -> np.ndarray:
    """What depends on the rows of a step alone."""
    p = table.beside
    total = c.model.layers * table.layer.at(tokens) + table.tail.at(tokens)
    if table.experts is not None:
        per_token = max(part.experts_per_token for part in c.model.feed_forward)
        rows = op.expert_rows_per_rank(w, p, tokens) / per_token
        total = total + w.expert_layers * table.experts.at(rows, op.touched_per_rank(w, p, tokens))
    return total + op.all_reduce_s(w, p, tokens) + op.exchange_s(w, p, tokens)


def _slope_s(table: OperatorTable) -> float:
    """Seconds a context token of one layer: least squares over each batch's timings around the reference."""
    batches, contexts = table.decode.axes
    near = contexts[(contexts >= REFERENCE_TOKENS / 4) & (contexts <= REFERENCE_TOKENS * 4)]
    above = below = 0.0
    for batch in batches[batches >= batches[-1] / 16]:
        seconds = table.decode.at(batch, near) * (1.0 + table.spread.at(batch))
        held = batch * near
        above += float(((held - held.mean()) * (seconds - seconds.mean())).sum() / held.mean() ** 2)
        below += float(((held - held.mean()) ** 2).sum() / held.mean() ** 2)
    return above / below


def _pair_s(table: OperatorTable) -> float:
    """Seconds a token pair of one layer: the longest chunk over what is cached."""
    chunks, cached = table.prompt.axes
    near = cached[cached <= REFERENCE_TOKENS * 8]
    seconds = table.prompt.at(chunks[-1], near)
    pairs = chunks[-1] * near
    return float(np.polyfit(pairs, seconds, 1)[0])


def _beside_s(table: OperatorTable) -> float:
    """What a decoding sequence's attention takes beyond its share of `kv_s` when a prompt is in the step."""
    chunks, batches, _ = table.mixed.axes
    kv_s = _slope_s(table)
    more = [
        table.mixed.at(chunk, batch, REFERENCE_TOKENS) - table.prompt.at(chunk, 0.0)
        - kv_s * batch * REFERENCE_TOKENS
        for chunk in chunks for batch in batches
    ]  # fmt: skip
    each = np.array([float(seconds) for seconds in more]) / np.tile(batches, len(chunks))
    return max(0.0, float(np.median(each)))


def _head_row_s(table: OperatorTable) -> float:
    rows = table.head.axes[0]
    return float((table.head.at(rows[-1]) - table.head.at(1.0)) / (rows[-1] - 1.0))
