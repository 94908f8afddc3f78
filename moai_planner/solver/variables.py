"""Variables of the programme. Columns of the matrix get short unique ids; labels live in the plan.

n[c] >= 0 integer     x[k,c] in [0, 1]     y[k,l] in [0, 1]     u[c] in {0, 1}     f = 1 or free
"""

from __future__ import annotations

from dataclasses import dataclass

from pulp import LpAffineExpression, LpVariable

from moai_planner.solver.notation import DECODE, Problem

LOAD_FREE = ("most-load", "goodput-per-dollar", "goodput-per-watt")
"""Objectives that may serve more than the traces ask for."""


@dataclass(frozen=True)
class Variables:
    """The letters of `notation` as variables of the solver."""

    n: dict[str, LpVariable]
    x: dict[tuple[str, str], LpVariable]
    y: dict[tuple[str, int], LpVariable]
    u: dict[str, LpVariable]
    f: LpVariable | float


def make_variables(problem: Problem, relaxed: bool = False) -> Variables:
    """All variables; `relaxed` drops integrality (bounds and duals are read from that)."""
    free = problem.objective in LOAD_FREE
    whole = "Continuous" if relaxed else "Integer"
    top = None if free else 1.0
    n, x, y, u = {}, {}, {}, {}
    for i, column in enumerate(problem.columns):
        most = None if relaxed else problem.most_instances(column)
        n[column.id] = LpVariable(f"n{i}", 0, most, whole)
        if column.headroom > 0 or problem.simplicity_usd_per_h > 0:
            u[column.id] = LpVariable(f"u{i}", 0, 1, whole)
        for k, stream in enumerate(problem.streams):
            if stream.id in column.use:
                x[stream.id, column.id] = LpVariable(f"x{k}_{i}", 0, top)
    for j, lane in enumerate(problem.lanes):
        for k, stream in enumerate(problem.streams):
            if (stream.id, lane.prefill) in x and (stream.id, lane.decode) in x:
                y[stream.id, j] = LpVariable(f"y{k}_{j}", 0, top)
    least = 1.0 if problem.objective.startswith("goodput") else 0.0
    return Variables(n, x, y, u, LpVariable("f", least) if free else 1.0)


def served(problem: Problem, variables: Variables, stream_id: str) -> LpAffineExpression:
    """Share of a stream that leaves the cluster answered: what mixed and decode columns serve."""
    ends = [c.id for c in problem.columns if c.role in (DECODE, "mixed")]
    pairs = ((variables.x[stream_id, c], 1.0) for c in ends if (stream_id, c) in variables.x)
    return LpAffineExpression(list(pairs))
