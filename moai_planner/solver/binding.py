"""Rows with no slack, and what one unit more is worth: dual values of the relaxed programme."""

from __future__ import annotations

from moai_planner.domain.plan import Binding
from moai_planner.solver.constraints.stock import packing_sizes, slots
from moai_planner.solver.notation import Answer, Problem
from moai_planner.solver.run import run

NEARLY_FULL = 0.97
"""An instance count is whole, so a column this full is as good as binding."""


def binding_rows(problem: Problem, answer: Answer) -> tuple[Binding, ...]:
    """Stock first, then instances without room, then what traffic costs."""
    relaxed = run(problem, relaxed=True)
    return (*_stock(problem, answer, relaxed), *_columns(problem, answer), *_demand(problem, relaxed))


def _stock(problem: Problem, answer: Answer, relaxed: Answer):
    for a, pool in enumerate(problem.pools):
        columns = [c for c in problem.columns if c.pool == pool.name]
        for size in packing_sizes(pool, [c.devices for c in columns]):
            dual = relaxed.duals.get(f"stock_{a}_{size}", 0.0)
            full = pool.devices_per_node // size
            used = sum(
                slots(c.devices, size, pool.devices_per_node) * answer.counts.get(c.id, 0)
                for c in columns
                if c.devices >= size
            )
            if used < pool.nodes * full and abs(dual) < 1e-9:
                continue
            worth = abs(dual) * full
            if problem.objective == "most-load":
                added = f"{worth:.1%} of" if worth < 1 else f"{worth:.3g} times"
                meaning = f"one more {pool.name} node would add {added} the traffic"
                yield Binding(f"stock of {pool.name}", meaning, None)
            elif problem.objective == "least-cost":
                meaning = (
                    f"one more {pool.name} node saves ${worth:.2f}/h beyond its price"
                    if worth > 0
                    else f"all {pool.name} devices are in use; one more node would save nothing"
                )
                yield Binding(f"stock of {pool.name}", meaning, worth)
            else:
                yield Binding(f"stock of {pool.name}", f"all {pool.name} devices that help are in use", None)


def _columns(problem: Problem, answer: Answer):
    for column in problem.columns:
        count = answer.counts.get(column.id, 0)
        if not count:
            continue
        loads: dict[tuple[str, int], float] = {}
        for stream in problem.streams:
            for key, load in problem.load(column, stream).items():
                loads[key] = loads.get(key, 0.0) + load * answer.shares.get((stream.id, column.id), 0.0)
        (resource, _), load = max(loads.items(), key=lambda item: item[1])
        if load >= NEARLY_FULL * count:
            name = column.id.split("@")[0]
            copies = "1 copy is" if count == 1 else f"{count} copies are"
            yield Binding(f"{resource} of {name}", f"{copies} {load / count:.1%} full", None)


def _demand(problem: Problem, relaxed: Answer):
    if problem.objective != "least-cost":
        return
    for k, stream in enumerate(problem.streams):
        dual = relaxed.duals.get(f"demand_{k}", 0.0)
        peak = max(stream.rate_req_per_s)
        if abs(dual) > 1e-9 and peak > 0:
            worth = abs(dual) / peak
            yield Binding(
                f"demand of {stream.id}", f"one more request per second costs ${worth:.2f}/h", worth
            )
