"""Candidates that another makes superfluous in every plan.

A is dominated by B of the same deployment, pool and role when q = devices(A) / devices(B) copies of B do at
least A's work in every window, draw no more power, and B may exchange KV with all that A may: replace each
A by q copies of B in any plan; the nodes still hold them (B's size divides A's), the cost is the same, and
there are no more kinds than before.
"""

from __future__ import annotations

from collections import Counter

from moai_planner.solver.notation import Column, Lane, Problem


def without_dominated(problem: Problem, rejected: Counter) -> Problem:
    """The problem with dominated columns and their lanes left out, counted in `rejected`."""
    partners = _partners(problem)
    dropped: set[str] = set()
    for a in problem.columns:
        if any(
            b.id not in dropped and dominates(problem, b, a, partners) for b in problem.columns if b is not a
        ):
            dropped.add(a.id)
            rejected[f"{a.deployment}: {a.role}: another layout of the pool is never worse"] += 1
    return _without(problem, dropped)


def without_lonely(problem: Problem, rejected: Counter) -> Problem:
    """Prefill without decode, or decode without prefill, cannot serve."""
    partners = _partners(problem)
    lonely = {c.id for c in problem.columns if c.role != "mixed" and not partners.get(c.id)}
    for column in problem.columns:
        if column.id in lonely:
            rejected[f"{column.deployment}: {column.role}: nothing to exchange KV with"] += 1
    return _without(problem, lonely)


def dominates(problem: Problem, b: Column, a: Column, partners: dict[str, frozenset[str]]) -> bool:
    """Whether q copies of b can stand in for each a in any plan."""
    if (a.deployment, a.pool, a.role) != (b.deployment, b.pool, b.role) or a.devices % b.devices:
        return False
    copies = a.devices // b.devices
    pool = next(p for p in problem.pools if p.name == a.pool)
    # An instance over part of its last node blocks all of it, so only sizes that pack are compared.
    if a.devices > pool.devices_per_node and (
        a.devices % pool.devices_per_node or pool.devices_per_node % b.devices
    ):
        return False
    if copies * b.price_usd_per_h > a.price_usd_per_h * (1 + 1e-12) or copies * b.power_w > a.power_w * (
        1 + 1e-9
    ):
        return False
    if not partners.get(b.id, frozenset()) >= partners.get(a.id, frozenset()):
        return False
    equal = copies == 1
    for stream in problem.streams:
        if stream.id not in a.use:
            continue
        if stream.id not in b.use:
            return False
        load_a, load_b = _peaks(problem, a, stream), _peaks(problem, b, stream)
        if any(y > copies * x * (1 + 1e-12) for x, y in zip(load_a, load_b, strict=True)):
            return False
        equal = equal and load_a == load_b
    return not (equal and b.id > a.id)


def _peaks(problem: Problem, column: Column, stream) -> tuple[float, ...]:
    """By window, the load of the busiest resource: with one stream that row is the capacity."""
    load = problem.load(column, stream)
    return tuple(
        max((value for (_, w), value in load.items() if w == window), default=0.0)
        for window in range(problem.windows)
    )


def _partners(problem: Problem) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for lane in problem.lanes:
        found.setdefault(lane.prefill, set()).add(lane.decode)
        found.setdefault(lane.decode, set()).add(lane.prefill)
    return {key: frozenset(value) for key, value in found.items()}


def _without(problem: Problem, dropped: set[str]) -> Problem:
    from dataclasses import replace

    lanes: tuple[Lane, ...] = tuple(
        lane for lane in problem.lanes if lane.prefill not in dropped and lane.decode not in dropped
    )
    return replace(problem, columns=tuple(c for c in problem.columns if c.id not in dropped), lanes=lanes)
