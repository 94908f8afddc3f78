"""What is best: least cost, most load, most goodput per dollar or per watt.

    least-cost            minimise  sum_c price[c]·n[c] + simplicity·sum_c u[c]
    most-load             maximise  f
    goodput-per-dollar    maximise  f·R / sum_c price[c]·n[c]       with f >= 1
    goodput-per-watt      maximise  f·R / sum_c power[c]·n[c]       with f >= 1

R is the streams' total rate, averaged over windows. The ratios are solved as a sequence of linear
programmes: maximise f·R - q·cost for a guess q of the best ratio, set q to the ratio found, and stop when
the maximum is zero (W. Dinkelbach, On nonlinear fractional programming, Management Science 13, 1967).
"""

from __future__ import annotations

from pulp import LpAffineExpression, lpSum

from moai_planner.solver.notation import Problem
from moai_planner.solver.variables import Variables


def total_rate_req_per_s(problem: Problem) -> float:
    """R: the streams' mean rate over windows, summed."""
    return sum(sum(s.rate_req_per_s) / len(s.rate_req_per_s) for s in problem.streams)


def cost(problem: Problem, v: Variables) -> LpAffineExpression:
    """sum_c price[c]·n[c] + simplicity·sum_c u[c] [USD per hour]"""
    price = lpSum(c.price_usd_per_h * v.n[c.id] for c in problem.columns)
    return price + problem.simplicity_usd_per_h * lpSum(v.u.values())


def denominator(problem: Problem, v: Variables) -> LpAffineExpression:
    """What goodput is divided by: dollars per hour, or watts."""
    if problem.objective == "goodput-per-dollar":
        return cost(problem, v)
    return lpSum(c.power_w * v.n[c.id] for c in problem.columns)


def objective(problem: Problem, v: Variables, ratio: float = 0.0) -> tuple[LpAffineExpression, int]:
    """The expression and its sense (1 = minimise, -1 = maximise); `ratio` is q of the parametric step."""
    if problem.objective == "least-cost":
        return cost(problem, v), 1
    if problem.objective == "most-load":
        return 1.0 * v.f, -1
    return total_rate_req_per_s(problem) * v.f - ratio * denominator(problem, v), -1
