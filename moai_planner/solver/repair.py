"""Solve, simulate on the plan's own trace, tighten what was too full, solve again.

The programme plans with queueing formulas; the simulation has the last word. Where an objective is missed
the utilisation cap of the candidate groups that serve it tightens (TTFT: those that prefill; TPOT and ITL:
those that decode; E2EL: both), until every objective holds, the stock is too small, or the rounds are used
up. Each round is kept in `plan.verification["rounds"]`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from moai_planner.domain.cluster import CapacityRequest
from moai_planner.domain.plan import Plan
from moai_planner.domain.report import OVERLOADED, Report
from moai_planner.solver.candidates import ParametersFor, ProfileFor, cap_key, no_profile
from moai_planner.solver.solve import Progress, solve

MOST_ROUNDS = 6
MOST_OVERRUN = 100.0
LEAST_CAP = 0.2
"""A group is not tightened below this share of its formula's load."""

_ROLES = {
    "ttft": ("prefill", "mixed"),
    "tpot": ("decode", "mixed"),
    "itl": ("decode", "mixed"),
    "e2el": ("prefill", "decode", "mixed"),
}


@dataclass(frozen=True)
class Miss:
    """An objective that the simulated plan does not keep."""

    deployment: str
    objective: str
    limit_s: float
    observed_s: float


def solve_and_verify(
    request: CapacityRequest,
    parameters_for: ParametersFor,
    simulate: Callable[[Plan], Report],
    progress: Progress | None = None,
    most_rounds: int = MOST_ROUNDS,
    profile_for: ProfileFor = no_profile,
) -> Plan:
    """A plan whose simulation keeps every objective, or the last one with what it misses."""
    say = progress or (lambda text: None)
    caps: dict[str, float] = {}
    held: dict[str, float] = {}
    rounds: list[dict[str, Any]] = []
    best: tuple[tuple[int, float], Plan, dict[str, Any]] | None = None
    for number in range(1, most_rounds + 1):
        say(f"round {number}: solving")
        plan = solve(request, parameters_for, caps=caps, explained=best is None, profile_for=profile_for)
        if plan.status not in ("optimal", "feasible"):
            rounds.append(_round(number, plan, (), caps))
            if best is None:
                return replace(plan, verification={"simulated": False, "holds": False, "rounds": rounds})
            # Too tight for the stock: halfway back to the caps that still had a plan.
            caps = _between(held, caps)
            continue
        held = caps
        say(f"round {number}: simulating")
        report = simulate(plan)
        missed = misses(plan, report)
        rounds.append(_round(number, plan, missed, caps))
        rank = (len(missed), sum(_overrun(miss) for miss in missed))
        if best is None or rank < best[0]:
            best = rank, plan, summary(plan, report)
        if not missed:
            break
        caps = tightened(plan, missed, caps)
        if caps == held:
            break
    assert best is not None
    rank, plan, shown = best
    verification = {
        "simulated": True,
        "holds": rank[0] == 0,
        "stock_too_small": rounds[-1]["status"] == "infeasible",
        **shown,
        "rounds": rounds,
    }
    return replace(plan, verification=verification)


def _between(loose: Mapping[str, float], tight: Mapping[str, float]) -> dict[str, float]:
    return {key: (loose.get(key, 1.0) * value) ** 0.5 for key, value in tight.items()}


def _overrun(miss: Miss) -> float:
    """How far above its limit, capped so that one hopeless objective does not hide the others."""
    return min(miss.observed_s / miss.limit_s, MOST_OVERRUN) if miss.limit_s > 0 else MOST_OVERRUN


def misses(plan: Plan, report: Report) -> tuple[Miss, ...]:
    """Objectives that the simulation does not keep; a queue that only grows keeps none."""
    found = []
    for shown in report.deployments:
        limits = next(d.slo for d in plan.deployments if d.name == shown.deployment)
        for key, limit_s in limits.items():
            estimate = shown.statistics.get(key)
            if shown.verdict == OVERLOADED:
                found.append(Miss(shown.deployment, key, limit_s, float("inf")))
            elif not shown.met.get(key, True):
                found.append(
                    Miss(shown.deployment, key, limit_s, estimate.value if estimate else float("inf"))
                )
    return tuple(found)


def tightened(plan: Plan, missed: tuple[Miss, ...], caps: Mapping[str, float]) -> dict[str, float]:
    """Caps for the next round: each group once, by its worst miss."""
    factors: dict[str, float] = {}
    for miss in missed:
        for instance in plan.instances:
            if (
                instance.deployment == miss.deployment
                and instance.role in _ROLES[miss.objective.split("_")[0]]
            ):
                key = cap_key(instance.deployment, instance.pool, instance.role)
                factors[key] = min(factors.get(key, 1.0), cap_step(miss))
    return {**caps, **{key: max(LEAST_CAP, caps.get(key, 1.0) * factor) for key, factor in factors.items()}}


def cap_step(miss: Miss) -> float:
    """How much less load to plan: a step time follows load about linearly, a wait much faster.

    >>> cap_step(Miss("a", "tpot_p95", 0.040, 0.044)), cap_step(Miss("a", "ttft_p95", 1.0, 8.0))
    (0.9, 0.7)
    """
    over = miss.observed_s / miss.limit_s if miss.limit_s > 0 else float("inf")
    if miss.objective.startswith("ttft"):
        return 0.92 if over < 1.2 else 0.85 if over < 2 else 0.7
    return 0.95 if over < 1.05 else 0.9 if over < 1.2 else 0.8 if over < 1.5 else 0.65


def _round(number: int, plan: Plan, missed: tuple[Miss, ...], caps: Mapping[str, float]) -> dict[str, Any]:
    return {
        "round": number,
        "status": plan.status,
        "cost_usd_per_h": plan.cost_usd_per_h,
        "objective": plan.objective.value,
        "caps": dict(sorted(caps.items())),
        "missed": [
            {
                "deployment": m.deployment,
                "objective": m.objective,
                "limit_s": m.limit_s,
                "observed_s": m.observed_s if m.observed_s < float("inf") else None,
            }
            for m in missed
        ],
    }


def summary(plan: Plan, report: Report) -> dict[str, Any]:
    """What the plan file keeps of a simulation."""
    return {
        "router": report.router,
        "attainment": {
            d.deployment: {"all": d.attainment_frac, **dict(d.attainment)} for d in report.deployments
        },
        "percentiles": {
            d.deployment: {key: value.value if value else None for key, value in d.statistics.items()}
            for d in report.deployments
        },
        "verdict": {d.deployment: d.verdict for d in report.deployments},
        "utilization": {u.instance: u.utilization_frac for d in report.deployments for u in d.usage},
        "notes": list(report.notes),
    }
