"""Measure a sweep on a running engine: coarse, refine, repeat, until the budget ends.

    for each shard: start the engine, warm up, then visit shapes; every visit goes to the journal first.

A visit is one prefill or mixed step, or a few decode steps (their median). Visits to a shape are spread over
the whole run, so that a disturbance of a few seconds does not land on one shape alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from moai_planner.domain.measured import MeasuredPoint, Shard, StepShape
from moai_planner.profile import engine as vllm_engine
from moai_planner.profile import statistics, sweep, torch_engine
from moai_planner.profile.engine import EngineSettings, OutOfMemory, ShapeMismatch, StepRecord
from moai_planner.profile.interpolate import interpolate
from moai_planner.profile.journal import Journal, Visit


class Engine(Protocol):
    """A started engine."""

    kv_tokens: int

    def stop(self) -> None: ...


class Runner(Protocol):
    """What starts an engine and runs one shape on it: the module `engine` or `torch_engine`."""

    def start(self, settings: EngineSettings) -> Engine: ...

    def run_shape(self, engine: Any, shape: StepShape, steps: int) -> list[StepRecord]: ...


RUNNERS: dict[str, Runner] = {"vllm": vllm_engine, "torch": torch_engine}

Advance = Callable[[float, str], None]
"""Told after each visit: seconds left of the budget, what was visited."""

_REFINE_SHARE = 0.75
"New points are added until this part of the budget is gone; the rest narrows intervals."
_REFINE_ERROR_FRAC = 0.03


@dataclass(frozen=True)
class Task:
    """One shard to measure."""

    shard: Shard
    settings: EngineSettings
    limits: sweep.Limits
    time_basis: str
    budget_s: float
    "Of the whole run up to the end of this shard: engine starts, earlier shards and killed runs included."
    seed: int
    runner: Runner = vllm_engine


def measure(task: Task, journal: Journal, advance: Advance) -> None:
    """Fill the journal with the shard's points."""
    began = time.monotonic()
    engine = task.runner.start(task.settings)
    try:
        limits = _within_kv(task.limits, engine.kv_tokens)
        _warm_up(engine, task.runner, limits)
        facts = {"kv_tokens": engine.kv_tokens, "start_s": round(time.monotonic() - began, 2)}
        journal.add_engine(task.shard, facts, time.monotonic() - began)
        grid = sweep.coarse_grid(task.limits)
        for shape in grid:
            if not sweep.fits(shape, limits) and (task.shard, shape) not in journal.edges:
                journal.add_edge(task.shard, shape, f"KV cache holds {engine.kv_tokens} tokens", 0.0)
        deadline = _Deadline(task.budget_s, journal.spent_s)
        _coarse(engine, task, journal, grid, deadline, advance)
        _refine(engine, task, journal, limits, deadline, advance)
        _repeat(engine, task, journal, deadline, advance)
    finally:
        engine.stop()


@dataclass
class _Deadline:
    """The budget against what all runs on the journal spent."""

    budget_s: float
    spent_s: float

    def __post_init__(self) -> None:
        self.began = time.monotonic()

    def left_s(self) -> float:
        return self.budget_s - self.spent_s - (time.monotonic() - self.began)


def _within_kv(limits: sweep.Limits, kv_tokens: int) -> sweep.Limits:
    return sweep.Limits(
        limits.tokens,
        limits.batch,
        limits.context_tokens,
        min(limits.kv_tokens, kv_tokens),
        limits.graphs,
    )


def _warm_up(engine: Engine, runner: Runner, limits: sweep.Limits) -> None:
    """First steps allocate, compile and load kernels: none of them counts."""
    for shape in (
        StepShape("prefill", min(128, limits.tokens), 0, 0),
        StepShape("prefill", limits.tokens, 0, 0),
        StepShape("decode", 0, 1, 64),
        StepShape("decode", 0, min(8, limits.batch), 64),
    ):
        runner.run_shape(engine, shape, 2)


def _coarse(
    engine: Engine,
    task: Task,
    journal: Journal,
    grid: tuple[StepShape, ...],
    deadline: _Deadline,
    advance: Advance,
) -> None:
    generator = np.random.default_rng(task.seed)
    for visits in range(1, sweep.MIN_VISITS + 1):
        for index in generator.permutation(len(grid)):
            shape = grid[index]
            if len(journal.visits[task.shard, shape]) < visits:
                _visit(engine, task, journal, shape, deadline, advance)


def _refine(
    engine: Engine,
    task: Task,
    journal: Journal,
    limits: sweep.Limits,
    deadline: _Deadline,
    advance: Advance,
) -> None:
    while deadline.left_s() > (1 - _REFINE_SHARE) * task.budget_s:
        seconds = {shape: point.seconds for shape, point in points(journal, task.shard).items()}
        errors = sweep.leave_one_out(seconds, _interpolate_log)
        worst = max(errors.values(), default=0.0)
        excluded = [shape for shard, shape in journal.edges if shard == task.shard]
        shape = sweep.refine(seconds, errors, excluded, limits)
        if shape is None or worst < _REFINE_ERROR_FRAC:
            return
        for _ in range(sweep.MIN_VISITS):
            _visit(engine, task, journal, shape, deadline, advance)


def _interpolate_log(known: Mapping[StepShape, float], shape: StepShape) -> float:
    logs = {other: float(np.log(value)) for other, value in known.items()}
    return float(np.exp(interpolate(logs, [shape])[0]))


def _repeat(engine: Engine, task: Task, journal: Journal, deadline: _Deadline, advance: Advance) -> None:
    while deadline.left_s() > 0:
        wide = {
            shape: statistics.median([v.seconds for v in visits]).width_frac
            for (shard, shape), visits in journal.visits.items()
            if shard == task.shard and visits and (shard, shape) not in journal.edges
        }
        wide = {shape: width for shape, width in wide.items() if width > sweep.NARROW_FRAC}
        affordable = [
            shape for shape in wide if journal.visits[task.shard, shape][-1].wall_s * 2 < deadline.left_s()
        ]
        if not affordable:
            return
        # the widest first, but a shape that stays noisy must not take all the time
        key = {s: wide[s] / len(journal.visits[task.shard, s]) for s in affordable}
        for shape in sorted(affordable, key=lambda s: (-key[s], s))[:8]:
            _visit(engine, task, journal, shape, deadline, advance)
            if deadline.left_s() <= 0:
                return


def _visit(
    engine: Engine,
    task: Task,
    journal: Journal,
    shape: StepShape,
    deadline: _Deadline,
    advance: Advance,
) -> None:
    if (task.shard, shape) in journal.edges:
        return
    began = time.monotonic()
    try:
        if not journal.visits[task.shard, shape]:
            task.runner.run_shape(engine, shape, 2)  # the first time a shape is seen it warms up: dropped
        records = task.runner.run_shape(engine, shape, sweep.DECODE_STEPS)
    except (OutOfMemory, ShapeMismatch) as error:
        reason = "out of memory" if isinstance(error, OutOfMemory) else str(error)
        journal.add_edge(task.shard, shape, reason, time.monotonic() - began)
        return
    visit = Visit(
        *(
            float(f"{np.median(values):.6g}")
            for values in (
                [record.seconds(task.time_basis) for record in records],
                [record.wall_s for record in records],
                [record.overhead_s(task.time_basis) for record in records],
            )
        )
    )
    journal.add_visit(task.shard, shape, visit, time.monotonic() - began)
    advance(deadline.left_s(), f"{shape.phase} {shape.tokens or shape.batch}")


def points(journal: Journal, shard: Shard) -> dict[StepShape, MeasuredPoint]:
    """The shard's points as the journal has them now."""
    found = {}
    for (of, shape), visits in journal.visits.items():
        if of == shard and visits and (of, shape) not in journal.edges:
            found[shape] = _point(shape, visits)
    return found


def _point(shape: StepShape, visits: list[Visit]) -> MeasuredPoint:
    middle = statistics.median([visit.seconds for visit in visits])
    overhead = statistics.quantile(sorted(visit.overhead_s for visit in visits), 0.5)
    wall = statistics.quantile(sorted(visit.wall_s for visit in visits), 0.5)
    return MeasuredPoint(
        shape, middle.value, middle.low, middle.high, middle.noise_frac, middle.samples, overhead, wall
    )
