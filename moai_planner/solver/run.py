"""The only place that calls a solver: PuLP hands the programme to HiGHS, one thread, fixed seed.

PuLP reports a run that stopped early with an incumbent as optimal, so status, bound and gap are read
from HiGHS itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import highspy
import pulp

from moai_planner.solver.build import build
from moai_planner.solver.notation import Answer, Problem, cost_usd_per_h, power_w
from moai_planner.solver.objective import total_rate_req_per_s
from moai_planner.solver.variables import Variables

FEASIBILITY = 1e-7
"""How far the solver may miss a row or a whole number; `recheck` asks for ten times as much."""
RELATIVE_NOISE = 1e-9
"""Shares below this are solver noise."""

_STOPPED = {
    highspy.HighsModelStatus.kTimeLimit,
    highspy.HighsModelStatus.kIterationLimit,
    highspy.HighsModelStatus.kSolutionLimit,
    highspy.HighsModelStatus.kInterrupt,
    highspy.HighsModelStatus.kObjectiveBound,
    highspy.HighsModelStatus.kObjectiveTarget,
}
_INFEASIBLE = {
    highspy.HighsModelStatus.kInfeasible,
    highspy.HighsModelStatus.kUnboundedOrInfeasible,
}


def run(
    problem: Problem,
    relaxed: bool = False,
    gap_frac: float = 0.0,
    time_limit_s: float = 60.0,
    seed: int = 0,
) -> Answer:
    """Solve; ratios by Dinkelbach's steps. `relaxed` answers carry duals."""
    if problem.objective.startswith("goodput"):
        return _run_ratio(problem, relaxed, gap_frac, time_limit_s, seed)
    return _run_linear(problem, relaxed, gap_frac, time_limit_s, seed, 0.0)


def _run_ratio(problem: Problem, relaxed: bool, gap_frac: float, time_limit_s: float, seed: int) -> Answer:
    cheapest = _least_denominator(problem)
    ratio, answer = 0.0, Answer("unsolved", "not started")
    for _ in range(20):
        found = _run_linear(problem, relaxed, gap_frac, time_limit_s, seed, ratio)
        if not found.found:
            return found if not answer.found else answer
        below = _denominator(problem, found)
        if below <= 0:
            return found
        better = total_rate_req_per_s(problem) * found.factor / below
        # f·R − q·cost <= B for all plans, and each costs at least the relaxed minimum: ratio <= q + B / cost.
        bound = max(better, ratio + max(found.bound, 0.0) / cheapest) if ratio > 0 else math.inf
        gap = abs(bound - better) / better if math.isfinite(bound) else math.inf
        answer = replace(found, value=better, bound=bound, gap_frac=gap)
        if ratio > 0 and better <= ratio * (1 + max(gap_frac, RELATIVE_NOISE)):
            break
        ratio = better
    return answer


def _least_denominator(problem: Problem) -> float:
    """Least that any plan with f = 1 costs (or draws): the relaxed minimum of the denominator."""
    columns = problem.columns
    if problem.objective == "goodput-per-watt":
        columns = tuple(replace(c, price_usd_per_h=c.power_w) for c in columns)
    simplicity = problem.simplicity_usd_per_h if problem.objective == "goodput-per-dollar" else 0.0
    least = replace(problem, columns=columns, objective="least-cost", simplicity_usd_per_h=simplicity)
    return max(_run_linear(least, True, 0.0, math.inf, 0, 0.0).value, RELATIVE_NOISE)


def _denominator(problem: Problem, answer: Answer) -> float:
    if problem.objective == "goodput-per-dollar":
        used = sum(count > 0 for count in answer.counts.values())
        return cost_usd_per_h(problem, answer.counts) + problem.simplicity_usd_per_h * used
    return power_w(problem, answer.counts)


def _run_linear(
    problem: Problem, relaxed: bool, gap_frac: float, time_limit_s: float, seed: int, ratio: float
) -> Answer:
    programme, variables = build(problem, relaxed, ratio)
    call_solver(programme, relaxed, gap_frac, time_limit_s, seed)
    return _read(problem, programme, variables, relaxed)


def call_solver(
    programme: pulp.LpProblem,
    relaxed: bool = False,
    gap_frac: float = 0.0,
    time_limit_s: float = 60.0,
    seed: int = 0,
) -> None:
    """One thread, fixed seed; the solver's model stays on the programme for reading."""
    solver = pulp.HiGHS(
        mip=not relaxed,
        msg=False,
        threads=1,
        gapRel=gap_frac,
        gapAbs=0.0,
        timeLimit=min(time_limit_s, highspy.kHighsInf),
        random_seed=seed,
        mip_feasibility_tolerance=FEASIBILITY,
        primal_feasibility_tolerance=FEASIBILITY / 10,
    )
    solver.createAndConfigureSolver(programme)
    solver.buildSolverModel(programme)
    solver.callSolver(programme)


def run_with_counts(problem: Problem, counts: Mapping[str, int], seed: int = 0) -> Answer:
    """Most load that given counts can serve, and how: a linear programme."""
    fixed = replace(problem, objective="most-load", simplicity_usd_per_h=0.0)
    programme, variables = build(fixed, relaxed=True)
    for column_id, n in variables.n.items():
        n.bounds(counts.get(column_id, 0), counts.get(column_id, 0))
    call_solver(programme, relaxed=True, seed=seed)
    return _read(fixed, programme, variables, relaxed=True)


def _read(problem: Problem, programme: pulp.LpProblem, v: Variables, relaxed: bool) -> Answer:
    model = programme.solverModel
    status, info = model.getModelStatus(), model.getInfo()
    termination = model.modelStatusToString(status)
    has_point = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    if status in _INFEASIBLE:
        return Answer("infeasible", termination)
    if status == highspy.HighsModelStatus.kUnbounded:
        return Answer("unbounded", termination)
    if not has_point or status not in _STOPPED | {highspy.HighsModelStatus.kOptimal}:
        return Answer("unsolved", termination)
    solution = model.getSolution()
    values = solution.col_value
    sign = -1.0 if programme.sense == pulp.LpMaximize else 1.0
    value = sign * info.objective_function_value
    bound = value if relaxed else sign * info.mip_dual_bound
    rows = list(programme.constraints)
    return Answer(
        status="optimal" if status == highspy.HighsModelStatus.kOptimal else "feasible",
        termination=termination,
        value=value,
        bound=bound,
        gap_frac=abs(value - bound) / abs(value) if value else 0.0,
        counts={c: _count(values[n.index], relaxed) for c, n in v.n.items()},
        shares=_nonzero({key: values[x.index] for key, x in v.x.items()}),
        lane_shares=_nonzero({(k, problem.lanes[j]): values[y.index] for (k, j), y in v.y.items()}),
        factor=v.f if isinstance(v.f, float) else values[v.f.index],
        duals={row: solution.row_dual[i] for i, row in enumerate(rows)} if relaxed else {},
    )


def _count(value: float, relaxed: bool) -> int | float:
    return value if relaxed else round(value)


def _nonzero(values: dict) -> dict:
    return {key: value for key, value in values.items() if value > RELATIVE_NOISE}
