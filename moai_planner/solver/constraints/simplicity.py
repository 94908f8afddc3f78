"""Each kind of instance in a plan is one more thing to operate."""

from __future__ import annotations

from moai_planner.solver.constraints import Rows
from moai_planner.solver.notation import Problem
from moai_planner.solver.variables import Variables


def simplicity(problem: Problem, v: Variables) -> Rows:
    r"""A column with instances is used, and pays its price in the objective.

        n[c]  <=  most[c]·u[c]        for all columns c

    most[c]: what the stock could hold of c alone.  Rows: used_<column index>.
    """
    for i, column in enumerate(problem.columns):
        if column.id in v.u:
            yield f"used_{i}", v.n[column.id] - problem.most_instances(column) * v.u[column.id] <= 0
