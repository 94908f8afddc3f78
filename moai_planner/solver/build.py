"""Notation → linear programme. The tuple below is the table of contents of the programme."""

from __future__ import annotations

from pulp import LpMaximize, LpMinimize, LpProblem

from moai_planner.solver.constraints.balance import lane_balance
from moai_planner.solver.constraints.capacity import capacity
from moai_planner.solver.constraints.demand import demand
from moai_planner.solver.constraints.simplicity import simplicity
from moai_planner.solver.constraints.stock import stock
from moai_planner.solver.notation import Problem
from moai_planner.solver.objective import objective
from moai_planner.solver.variables import Variables, make_variables

FAMILIES = (
    demand,
    lane_balance,
    capacity,
    stock,
    simplicity,
)
"""SLO admissibility is in the columns: a stream that cannot meet its objectives there has no x."""


def build(
    problem: Problem, relaxed: bool = False, ratio: float = 0.0, families: tuple = FAMILIES
) -> tuple[LpProblem, Variables]:
    """The programme and its variables."""
    variables = make_variables(problem, relaxed)
    expression, sense = objective(problem, variables, ratio)
    programme = LpProblem("plan", LpMinimize if sense > 0 else LpMaximize)
    programme.setObjective(expression)
    for family in families:
        for name, row in family(problem, variables):
            programme.addConstraint(row, name)
    return programme, variables
