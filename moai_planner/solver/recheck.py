"""Recompute every constraint from the answer with plain arithmetic; nothing here knows the solver.

Returns the rows that do not hold, worst first: an answer is only handed out when there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from moai_planner.solver.notation import DECODE, MIXED, PREFILL, Answer, Problem

TOLERANCE = 1e-6


@dataclass(frozen=True)
class Violation:
    """A constraint that the answer breaks."""

    constraint: str
    by: float


def recheck(problem: Problem, answer: Answer, tolerance: float = TOLERANCE) -> tuple[Violation, ...]:
    """Every constraint of the problem, from the counts and shares alone."""
    families = (_demand, _balance, _capacity, _stock, _domain)
    broken = [
        Violation(name, by)
        for family in families
        for name, by in family(problem, answer)
        if not by <= tolerance
    ]
    return tuple(sorted(broken, key=lambda v: -v.by))


def _demand(problem: Problem, answer: Answer) -> Iterator[tuple[str, float]]:
    for stream in problem.streams:
        out = sum(answer.shares.get((stream.id, c.id), 0.0) for c in problem.columns if c.role != PREFILL)
        yield f"demand of {stream.id}", abs(out - answer.factor)


def _balance(problem: Problem, answer: Answer) -> Iterator[tuple[str, float]]:
    for column in problem.columns:
        if column.role == MIXED:
            continue
        for stream in problem.streams:
            crossing = sum(
                answer.lane_shares.get((stream.id, lane), 0.0)
                for lane in problem.lanes
                if column.id == (lane.decode if column.role == DECODE else lane.prefill)
            )
            share = answer.shares.get((stream.id, column.id), 0.0)
            yield f"lane balance of {stream.id} at {column.id}", abs(crossing - share)


def _capacity(problem: Problem, answer: Answer) -> Iterator[tuple[str, float]]:
    for column in problem.columns:
        loads: dict[tuple[str, int], float] = {}
        for stream in problem.streams:
            share = answer.shares.get((stream.id, column.id), 0.0)
            for key, load in problem.load(column, stream).items():
                loads[key] = loads.get(key, 0.0) + load * share
        count = answer.counts.get(column.id, 0)
        kept_free = column.headroom if count > 0 else 0.0
        for (resource, window), load in loads.items():
            yield f"{resource} of {column.id} in window {window}", load + kept_free * (load > 0) - count


def _stock(problem: Problem, answer: Answer) -> Iterator[tuple[str, float]]:
    for pool in problem.pools:
        free = [pool.devices_per_node] * pool.nodes
        placed = sorted(
            (
                c.devices
                for c in problem.columns
                if c.pool == pool.name
                for _ in range(answer.counts.get(c.id, 0))
            ),
            reverse=True,
        )
        missing = sum(devices for devices in placed if not _place(devices, free, pool.devices_per_node))
        yield f"stock of {pool.name}", float(missing)


def _place(devices: int, free: list[int], per_node: int) -> bool:
    if devices > per_node:
        empty = [i for i, left in enumerate(free) if left == per_node][: -(-devices // per_node)]
        if len(empty) * per_node < devices:
            return False
        for i in empty:
            free[i] = 0
        return True
    for i, left in enumerate(free):
        if left >= devices:
            free[i] -= devices
            return True
    return False


def _domain(problem: Problem, answer: Answer) -> Iterator[tuple[str, float]]:
    columns = {c.id: c for c in problem.columns}
    for column_id, count in answer.counts.items():
        yield f"count of {column_id}", max(-count, abs(count - round(count)))
    for (stream_id, column_id), share in answer.shares.items():
        yield f"share of {stream_id} at {column_id}", -share
        if stream_id not in columns[column_id].use:
            yield f"{stream_id} not admissible at {column_id}", share
