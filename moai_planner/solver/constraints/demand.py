"""Every request is served."""

from __future__ import annotations

from moai_planner.solver.constraints import Rows
from moai_planner.solver.notation import Problem
from moai_planner.solver.variables import Variables, served


def demand(problem: Problem, v: Variables) -> Rows:
    r"""All of a stream leaves through mixed and decode columns, times the load factor.

        sum_{c mixed or decode}  x[k,c]  =  f        for all streams k

    Rows: demand_<stream index>.
    """
    for k, stream in enumerate(problem.streams):
        yield f"demand_{k}", served(problem, v, stream.id) - v.f == 0
