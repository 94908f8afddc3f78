"""The cost model's front door: configurations in, step times, memory, transfers, power out.

>>> from moai_planner.costmodel.example import llama_on_h100
>>> times = step_times(llama_on_h100())
>>> bool(0.004 < times.decode_step_s(1, 1024) < 0.012)
True
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from moai_planner.costmodel import launch, step
from moai_planner.costmodel import operations as op
from moai_planner.costmodel.arrays import (
    Work,
    columns,
    parameter_columns,
    parameter_rows,
    rows,
    stack,
    work_of,
)
from moai_planner.costmodel.breakdown import breakdown
from moai_planner.costmodel.configuration import Configuration
from moai_planner.costmodel.measured import MeasuredSteps, measured_steps
from moai_planner.costmodel.memory import memory_budget
from moai_planner.costmodel.operators import operator_times
from moai_planner.costmodel.power import power_w
from moai_planner.costmodel.transfer import kv_transfer
from moai_planner.domain.measured import MeasuredPoint, StepShape
from moai_planner.domain.model import APPROXIMATED_ARCHITECTURES
from moai_planner.domain.operators import OperatorTable
from moai_planner.domain.parameters import Parameters
from moai_planner.domain.step import StepTimes, to_one_width

__all__ = [
    "Configuration",
    "Work",
    "breakdown",
    "collectives_s",
    "kv_transfer",
    "measured_steps_of",
    "memory_budget",
    "parameter_columns",
    "power_w",
    "stack",
    "step_times",
    "step_times_many",
    "step_times_of",
    "timed",
    "work_of",
]

POINTS_PER_OCTAVE = 3
"""Token counts at which mixed steps are tabled; between them the time is taken as linear."""
PASSES = 4
"""Passes through experts whose beginning is tabled exactly; further ones are small beside the step."""
CHUNK = 64
"""Configurations evaluated together: their intermediates stay in cache."""


def step_times(c: Configuration) -> StepTimes:
    """Step times of one configuration."""
    return step_times_many([c])[0]


def step_times_many(configurations: Sequence[Configuration]) -> list[StepTimes]:
    """Step times of many configurations at once."""
    if not configurations:
        return []
    work, parameters = columns(configurations)
    modelled = step_times_of(configurations, work, parameters)
    return timed(configurations, modelled)


def timed(configurations: Sequence[Configuration], modelled: Sequence[StepTimes]) -> list[StepTimes]:
    """What was timed in place of what the model says, for the configurations that have timings."""
    return [
        _timed(c, times) if c.measured else times for c, times in zip(configurations, modelled, strict=True)
    ]


def _timed(c: Configuration, modelled: StepTimes) -> StepTimes:
    if isinstance(c.measured, OperatorTable):
        return operator_times(c, c.measured, modelled, work_of(c), c.parameters)
    return _measured(c, modelled).step_times()


def measured_steps_of(c: Configuration) -> MeasuredSteps | None:
    """The measured points beside the model, step by step; None where no whole step was measured."""
    if not c.measured or isinstance(c.measured, OperatorTable):
        return None
    return _measured(c, step_times_of([c], *columns([c]))[0])


def _measured(c: Configuration, modelled: StepTimes) -> MeasuredSteps:
    shapes = [point.shape for point in c.measured]
    errors = [max(point.noise_frac, point.held_out_frac) for point in c.measured]
    return measured_steps(
        modelled,
        {point.shape: point.seconds - _hidden_s(c, point) for point in c.measured},
        dict(zip(shapes, collectives_s(c, shapes), strict=True)),
        float(np.median(errors)),
    )


def _hidden_s(c: Configuration, point: MeasuredPoint) -> float:
    """Profiles step synchronously; served, a GPU computes while the next step is prepared."""
    if c.accelerator.platform == "cpu" or not c.engine.async_scheduling:
        return 0.0
    return min(point.overhead_s, point.seconds / 2) * c.parameters.step_hidden_frac


def collectives_s(c: Configuration, shapes: Sequence[StepShape]) -> list[float]:
    """What a rank timed alone lacks: sums and gathers of tensor ranks, exchange between experts' ranks.

    >>> from moai_planner.costmodel.example import llama_on_h100
    >>> collectives_s(llama_on_h100(), [StepShape("decode", 0, 8, 512)])
    [0.0]
    """
    w, p = work_of(c), c.parameters
    gather_s = w.gather_s_per_row / p.collective_bandwidth_frac
    return [
        float(op.all_reduce_s(w, p, s.step_tokens) + op.exchange_s(w, p, s.step_tokens))
        + gather_s * (s.batch + (s.tokens > 0))
        for s in shapes
    ]


def step_times_of(
    configurations: Sequence[Configuration], work: Work, parameters: Parameters
) -> list[StepTimes]:
    """What the model says, from loads that were read before: a fit changes the parameter columns alone.

    `parameters` are columns; basis and interval come from each configuration.
    """
    found: list[StepTimes] = []
    for start in range(0, len(configurations), CHUNK):
        part = configurations[start : start + CHUNK]
        stop = start + len(part)
        found.extend(_tables(part, rows(work, start, stop), parameter_rows(parameters, start, stop)))
    return found


@lru_cache(maxsize=1024)
def token_grid(max_num_batched_tokens: int, max_num_seqs: int, jumps: tuple[float, ...] = ()) -> np.ndarray:
    """Increasing token counts from 1 to the largest step; read-only, since the same for all who ask.

    `jumps` are counts after which a step's time changes at once.

    >>> token_grid(8, 4).tolist()
    [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0]
    >>> token_grid(64, 4, (40.0,)).tolist()[-5:]
    [32.0, 40.0, 41.0, 51.0, 64.0]
    """
    largest = max(max_num_batched_tokens, max_num_seqs, 2)
    octaves = np.log2(largest)
    points = 2.0 ** np.linspace(0.0, octaves, int(np.ceil(octaves * POINTS_PER_OCTAVE)) + 1)
    edges = [count for jump in jumps for count in (jump, jump + 1.0) if 1.0 <= count < largest]
    grid = np.unique(np.concatenate((np.round(points), edges, [float(largest)])))
    grid.setflags(write=False)
    return grid


def _tables(part: Sequence[Configuration], w: Work, p: Parameters) -> list[StepTimes]:
    """Evaluate every table of a chunk on common grids, then hand each configuration its own."""
    engines = [c.engine for c in part]
    decode = _decode_tables(w, p, engines)
    passes = [w.expert_chunk_tokens * full for full in range(1, PASSES + 1)]
    jumps = np.column_stack((w.captured_tokens, w.one_shot_tokens, w.quick_tokens, *passes))
    grids = [
        token_grid(e.max_num_batched_tokens, e.max_num_seqs, tuple(jump))
        for e, jump in zip(engines, jumps.tolist(), strict=True)
    ]
    mixed = _mixed_tables(w, p, grids)
    row = np.broadcast_to(step.mixed_row_s(w, p), (len(part), 1))
    pair = np.broadcast_to(op.pair_s(w, p), (len(part), 1))
    group = np.broadcast_to(op.group_s_per_token(w, p), (len(part), 1))
    kv = np.broadcast_to(op.kv_s_per_token(w, p), (len(part), 1))
    return [
        StepTimes(
            decode_s=decode[i],
            tokens=grids[i],
            mixed_s=mixed[i],
            pair_s=float(pair[i, 0]),
            kv_s=float(kv[i, 0]),
            stages=c.layout.pp,
            request_s=float(p.request_s[i, 0]),
            prompt_token_s=float(p.prompt_token_s[i, 0]),
            basis=c.parameters.basis,
            low_frac=low,
            high_frac=high,
            mixed_row_s=float(row[i, 0]),
            group_token_s=float(group[i, 0]),
            padded_ranks=launch.pads_ranks(c.engine),
        )
        for i, (c, (low, high)) in enumerate(zip(part, map(_step_interval, part), strict=True))
    ]


def _step_interval(c: Configuration) -> tuple[float, float]:
    """A step's interval; wider for models whose attention is only approximated, and for models not fitted."""
    low, high = c.parameters.low_frac, c.parameters.high_frac
    if c.model.architecture in APPROXIMATED_ARCHITECTURES:
        wide_low, wide_high = c.parameters.intervals.get("tpot_s", (low, high))
        low, high = min(low, wide_low), max(high, wide_high)
    power = c.parameters.power_for(c.model.id, "tpot_s")
    return low**power, high**power


@lru_cache(maxsize=1024)
def _decode_grid(max_num_seqs: int, graphs: bool, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The sizes that decode batches really run as, and which of them each batch does; read-only."""
    sizes, place = np.unique(step.padded_sizes(max_num_seqs, graphs, rows), return_inverse=True)
    sizes.setflags(write=False)
    place.setflags(write=False)
    return sizes, place


def _decode_tables(w: Work, p: Parameters, engines) -> list[np.ndarray]:
    """Decode steps are evaluated at the sizes that really run, and the sequences' own cost added."""
    grids = [_decode_grid(e.max_num_seqs, e.graphs, e.rows_per_sequence) for e in engines]
    padded = to_one_width([ran for ran, _ in grids])
    largest = np.array(
        [[step.largest_captured(e.max_num_seqs, e.graphs, e.rows_per_sequence)] for e in engines]
    )
    base = step.decode_base_s(w, p, 0.0, padded, padded <= largest)
    per_sequence = step.bounded_s_per_sequence(w, p) + op.engine_s_per_sequence(w, p)
    tables = []
    for i, (_, place) in enumerate(grids):
        table = base[i, place] + per_sequence[i, 0] * np.arange(len(place))
        table[0] = 0.0
        tables.append(table)
    return tables


def _mixed_tables(w: Work, p: Parameters, grids) -> list[np.ndarray]:
    """Steps with prompt tokens; `mixed_row_s` adds what each sampled sequence costs."""
    table = step.mixed_base_s(w, p, to_one_width(grids))
    return [table[i, : len(grid)].copy() for i, grid in enumerate(grids)]
