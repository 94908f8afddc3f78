"""What is prefilled is decoded, lane by lane."""

from __future__ import annotations

from pulp import lpSum

from moai_planner.solver.constraints import Rows
from moai_planner.solver.notation import MIXED, PREFILL, Problem
from moai_planner.solver.variables import Variables


def lane_balance(problem: Problem, v: Variables) -> Rows:
    r"""The share a prefill column takes in goes out over its lanes; a decode column gets its share from them.

        sum_{l : prefill(l) = c}  y[k,l]  =  x[k,c]        for all streams k, prefill columns c
        sum_{l : decode(l) = c}   y[k,l]  =  x[k,c]        for all streams k, decode columns c

    Together: prefill flow = decode flow for each stream in each lane.  Rows: balance_<k>_<column index>.
    """
    for i, column in enumerate(problem.columns):
        if column.role == MIXED:
            continue
        lanes = [
            j
            for j, lane in enumerate(problem.lanes)
            if column.id == (lane.prefill if column.role == PREFILL else lane.decode)
        ]
        for k, stream in enumerate(problem.streams):
            if (stream.id, column.id) in v.x:
                crossing = lpSum(v.y[stream.id, j] for j in lanes if (stream.id, j) in v.y)
                yield f"balance_{k}_{i}", crossing - v.x[stream.id, column.id] == 0
