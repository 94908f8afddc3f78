"""An instance gives no more than it has: time, memory, batch slots, network."""

from __future__ import annotations

from pulp import LpAffineExpression

from moai_planner.solver.constraints import Rows
from moai_planner.solver.notation import Column, Problem
from moai_planner.solver.variables import Variables


def capacity(problem: Problem, v: Variables) -> Rows:
    r"""The load on a column's instances stays within their number, for each resource and window.

        sum_k  use[c,k,r,w]·rate[k,w]·x[k,c] + headroom[c]·u[c]  <=  n[c]

    for all columns c, resources r, windows w.

    use carries 1 / utilisation cap.  A row that another of the same column implies (each coefficient
    at most as large) is left out.  Rows: capacity_<column index>_<resource>_<window>.
    """
    for i, column in enumerate(problem.columns):
        for (resource, w), coefficients in _needed_rows(problem, column).items():
            terms = [(v.x[stream, column.id], value) for stream, value in coefficients.items()]
            if column.headroom > 0:
                terms.append((v.u[column.id], column.headroom))
            terms.append((v.n[column.id], -1.0))
            yield f"capacity_{i}_{resource}_{w}", LpAffineExpression(terms) <= 0


def _needed_rows(problem: Problem, column: Column) -> dict[tuple[str, int], dict[str, float]]:
    rows: dict[tuple[str, int], dict[str, float]] = {}
    for stream in problem.streams:
        for key, value in problem.load(column, stream).items():
            rows.setdefault(key, {})[stream.id] = value
    kept: dict[tuple[str, int], dict[str, float]] = {}
    for key, row in rows.items():
        if any(_implies(other, row) for other in kept.values()):
            continue
        kept = {other_key: other for other_key, other in kept.items() if not _implies(row, other)}
        kept[key] = row
    return kept


def _implies(strong: dict[str, float], weak: dict[str, float]) -> bool:
    return all(strong.get(stream, 0.0) >= value for stream, value in weak.items())
