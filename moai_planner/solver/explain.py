"""Why the answer is no, and the smallest relaxations that would make it yes.

Three ways out, each found on its own: more nodes (an elastic re-solve that pays for every node beyond the
stock), less traffic (the greatest factor the stock serves), looser objectives (the smallest factor on the
limits that admits a plan).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

import highspy
import pulp

from moai_planner.domain.cluster import CapacityRequest
from moai_planner.domain.plan import Relaxation
from moai_planner.domain.slo import Slo
from moai_planner.domain.units import show
from moai_planner.solver.build import FAMILIES, build
from moai_planner.solver.constraints.stock import slots, stock
from moai_planner.solver.notation import Problem
from moai_planner.solver.run import call_solver, run

LOOSER = (1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
"""Factors on the limits that are tried."""
MORE_NODES = 16
"""Each pool may grow to this many times its nodes (and by as many) in the elastic re-solve."""

TRY_S = 2.0
"""Time for each re-solve here; one that takes longer counts as no help."""

MakeProblem = Callable[[CapacityRequest], tuple[Problem, Counter]]


def explain(
    request: CapacityRequest, problem: Problem, rejected: Mapping[str, int], make_problem: MakeProblem
) -> tuple[Relaxation, ...]:
    """Relaxations, cheapest idea first; never empty."""
    served = {c.deployment for c in problem.columns if c.role != "prefill"}
    hopeless = [d.name for d in request.deployments if d.name not in served]
    found: list[Relaxation] = []
    for name in hopeless:
        reasons = Counter({k: v for k, v in rejected.items() if k.startswith(f"{name}: ") and v})
        why = "left out: " + "; ".join(
            f"{n} {reason.split(': ', 1)[1]}" for reason, n in reasons.most_common(4)
        )
        if all(reason.endswith("the weights do not fit") for reason in reasons):
            why += "; take more or larger devices, or a narrower precision"
        found.append(
            Relaxation(f"{name}: any candidate", "one layout that fits and keeps the promises", "none", why)
        )
    if not hopeless:
        found += [*_more_nodes(problem), *_less_traffic(request, problem)]
    found += [*_less_caution(request, make_problem), *_looser_objectives(request, make_problem)]
    return tuple(found) or (
        Relaxation("unknown", "a plan", "none found", "no single kind of relaxation tried here helps"),
    )


def elastic(problem: Problem) -> dict[str, int] | None:
    """Fewest extra nodes by pool that make the problem feasible, or None."""
    grown = tuple(replace(p, nodes=MORE_NODES * (p.nodes + 1)) for p in problem.pools)
    larger = replace(problem, pools=grown, objective="least-cost", simplicity_usd_per_h=0.0)
    programme, variables = build(larger, families=tuple(family for family in FAMILIES if family is not stock))
    extra = [
        pulp.LpVariable(f"e{a}", 0, g.nodes - p.nodes, "Integer")
        for a, (p, g) in enumerate(zip(problem.pools, grown, strict=True))
    ]
    for name, row in stock(larger, variables):
        a, size = (int(part) for part in name.split("_")[1:])
        pool = problem.pools[a]
        a_node = slots(pool.devices_per_node, size, pool.devices_per_node)
        used = pulp.LpAffineExpression(list(row.items())) - a_node * extra[a]
        programme.addConstraint(used <= pool.nodes * a_node, name)
    programme.setObjective(pulp.lpSum(extra))
    call_solver(programme, gap_frac=0.02, time_limit_s=TRY_S)
    if (
        programme.solverModel.getInfo().primal_solution_status
        != highspy.SolutionStatus.kSolutionStatusFeasible
    ):
        return None
    values = programme.solverModel.getSolution().col_value
    return {
        p.name: round(values[e.index])
        for p, e in zip(problem.pools, extra, strict=True)
        if values[e.index] > 0.5
    }


def _more_nodes(problem: Problem):
    extra = elastic(problem)
    if not extra:
        return
    for pool in problem.pools:
        more = extra.get(pool.name, 0)
        if more:
            yield Relaxation(
                f"stock of {pool.name}",
                f"{pool.nodes + more} nodes",
                f"{pool.nodes} nodes",
                f"add {more} node{'s' if more > 1 else ''} to {pool.name}",
            )


def _less_traffic(request: CapacityRequest, problem: Problem):
    answer = run(
        replace(problem, objective="most-load", simplicity_usd_per_h=0.0), gap_frac=0.01, time_limit_s=TRY_S
    )
    if answer.found and 0 < answer.factor < 1:
        rate = sum(max(s.rate_req_per_s) for s in problem.streams)
        yield Relaxation(
            "demand",
            f"{show(rate, 'req_per_s')}",
            f"{show(rate * answer.factor, 'req_per_s')} fit the stock",
            f"serve {answer.factor:.1%} of the traffic (rate_scale x {answer.factor:.3g})",
        )


def _less_caution(request: CapacityRequest, make_problem: MakeProblem):
    """Wide intervals can be the reason: would the middle of the predictions do?"""
    level = request.options.confidence
    if level is None:
        return
    bold = replace(request, options=replace(request.options, confidence=None))
    if _feasible(make_problem(bold)[0]):
        yield Relaxation(
            "confidence of the step times",
            "confidence none",
            f"confidence {level:g}",
            "plan with the middle of the predicted step times, or measure them (narrower intervals)",
        )


def _looser_objectives(request: CapacityRequest, make_problem: MakeProblem) -> list[Relaxation]:
    """Each limit alone, then all together."""
    keys = sorted({(d.name, o.key) for d in request.deployments for o in d.slo.objectives})

    def helps(chosen: set[tuple[str, str]], factor: float) -> bool:
        return _feasible(make_problem(_with_looser(request, chosen, factor))[0])

    # The loosest first: where that does not help, nothing between does.
    if not helps(set(keys), LOOSER[-1]):
        return []
    chosen = next(({key} for key in keys if helps({key}, LOOSER[-1])), set(keys))
    factor = next(factor for factor in LOOSER if factor == LOOSER[-1] or helps(chosen, factor))
    return [
        Relaxation(
            f"objective {o.key} of {d.name}",
            f"at most {factor:g} times the limit",
            show(o.limit_s, "s"),
            f"loosen {o.key} to {show(o.limit_s * factor, 's')}",
        )
        for d in request.deployments
        for o in d.slo.objectives
        if (d.name, o.key) in chosen
    ]


def _feasible(problem: Problem) -> bool:
    able = {c.deployment for c in problem.columns if c.role != "prefill"}
    if not all(stream.deployment in able for stream in problem.streams):
        return False
    simple = replace(problem, objective="least-cost", simplicity_usd_per_h=0.0)
    # Any incumbent will do, and most that is infeasible is so without integers.
    return run(simple, relaxed=True).found and run(simple, gap_frac=1.0, time_limit_s=TRY_S).found


def _with_looser(request: CapacityRequest, chosen: set[tuple[str, str]], factor: float) -> CapacityRequest:
    deployments = tuple(
        replace(
            d,
            slo=Slo(
                tuple(
                    replace(o, limit_s=o.limit_s * factor) if (d.name, o.key) in chosen else o
                    for o in d.slo.objectives
                )
            ),
        )
        for d in request.deployments
    )
    return replace(request, deployments=deployments)
