"""One golden programme for each family of constraints, as the solver reads it."""

from __future__ import annotations

from dataclasses import replace

import pulp
import pytest

from moai_planner.solver.constraints.balance import lane_balance
from moai_planner.solver.constraints.capacity import capacity
from moai_planner.solver.constraints.demand import demand
from moai_planner.solver.constraints.simplicity import simplicity
from moai_planner.solver.constraints.stock import packing_sizes, stock
from moai_planner.solver.notation import Column, Lane, Pool, Problem, Stream
from moai_planner.solver.variables import make_variables

PROBLEM = Problem(
    streams=(Stream("chat", "d", (10.0, 4.0)),),
    columns=(
        Column("p", "d", "a", "prefill", 1, 2.0, {"chat": {"time": (0.5, 0.5)}}),
        Column("d", "d", "a", "decode", 4, 8.0, {"chat": {"time": (0.2, 0.3), "memory": (0.1, 0.4)}}),
        Column("m", "d", "b", "mixed", 16, 16.0, {"chat": {"time": (0.25, 0.25)}}),
    ),
    pools=(Pool("a", 2, 6), Pool("b", 4, 8)),
    lanes=(Lane("p", "d"),),
    simplicity_usd_per_h=0.5,
    windows=2,
)

GOLDEN = {
    demand: ["demand_0: x0_1 + x0_2 = 1"],
    lane_balance: ["balance_0_0: -x0_0 + y0_0 = 0", "balance_0_1: -x0_1 + y0_0 = 0"],
    capacity: [
        "capacity_0_time_0: -n0 + 5*x0_0 <= 0",
        "capacity_1_time_0: -n1 + 2*x0_1 <= 0",
        "capacity_2_time_0: -n2 + 2.5*x0_2 <= 0",
    ],
    stock: [
        "stock_0_1: n0 + 4*n1 <= 12",
        "stock_0_4: n1 <= 2",
        "stock_1_8: 2*n2 <= 4",
    ],
    simplicity: [
        "used_0: n0 - 12*u0 <= 0",
        "used_1: n1 - 2*u1 <= 0",
        "used_2: n2 - 2*u2 <= 0",
    ],
}


@pytest.mark.parametrize("family", GOLDEN, ids=lambda family: family.__name__)
def test_golden_rows(family):
    """The rows of a family are those written here, letter by letter."""
    rows = family(PROBLEM, make_variables(PROBLEM))
    assert [f"{name}: {_written(row)}" for name, row in rows] == GOLDEN[family]


def _written(row) -> str:
    terms = sorted((variable.name, value) for variable, value in row.items())
    sense = {pulp.LpConstraintLE: "<=", pulp.LpConstraintGE: ">=", pulp.LpConstraintEQ: "="}[row.sense]
    text = " + ".join(_term(name, value) for name, value in terms).replace("+ -", "- ")
    return f"{text} {sense} {0.0 - row.constant:g}"


def _term(name: str, value: float) -> str:
    return name if value == 1 else f"-{name}" if value == -1 else f"{value:g}*{name}"


def test_capacity_keeps_rows_that_no_other_implies():
    """With two streams neither of two resources implies the other, so both rows stay."""
    streams = (Stream("s", "d", (1.0,)), Stream("t", "d", (1.0,)))
    use = {"s": {"time": (0.5,), "memory": (0.1,)}, "t": {"time": (0.1,), "memory": (0.5,)}}
    problem = Problem(streams, (Column("m", "d", "a", "mixed", 1, 1.0, use),), (Pool("a", 1, 1),))
    assert len(list(capacity(problem, make_variables(problem)))) == 2


def test_column_names_stay_unique_whatever_the_labels():
    """Labels that differ in a dash or a slash alone do not collide in the programme."""
    columns = tuple(
        replace(PROBLEM.columns[2], id=name) for name in ("Qwen/Qwen3-8B", "Qwen/Qwen3_8B", "Qwen Qwen3 8B")
    )
    variables = make_variables(replace(PROBLEM, columns=columns, lanes=()))
    names = [v.name for v in (*variables.n.values(), *variables.x.values(), *variables.u.values())]
    assert len(set(names)) == len(names) == 9


def test_sizes_that_divide_the_node_need_one_row():
    """The row of the smallest size implies the others when all divide the node."""
    assert packing_sizes(Pool("a", 2, 8), [1, 2, 4, 8, 16]) == [1]
    assert packing_sizes(Pool("a", 2, 8), [4, 8]) == [4]
    assert packing_sizes(Pool("a", 2, 6), [1, 2, 4]) == [1, 4]
