"""Try a plan: its instances, lanes and weights on the traces it was made for.

    report = simulate_plan(plan, {instance.id: InstanceModel(…)}, {"azure_2023_conv": trace}, seed=0)
    report.ok, report.deployments[0].statistics["ttft_p95"]

Deployments share no engine, so each is one run. Requests are spread over lanes by the plan's integer
weights and
inside a lane by the router's policy, as the emitted tables do.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from moai_planner.domain.errors import InputError, Problem
from moai_planner.domain.plan import DeploymentPlan, Instance, Lane, Plan
from moai_planner.domain.report import DeploymentReport, Report
from moai_planner.domain.workload import Trace
from moai_planner.simulate.bench import overhead_of
from moai_planner.simulate.instance import InstanceModel
from moai_planner.simulate.serve import Requests, Served, serve
from moai_planner.simulate.summary import summarise_run
from moai_planner.simulate.system import ROUTERS, Group, ServingLane, System, build_machine
from moai_planner.simulate.traffic import requests_of

TIMELINE_BINS = 100


def simulate_plan(
    plan: Plan,
    instance_models: Mapping[str, InstanceModel],
    traces: Mapping[str, Trace],
    seed: int = 0,
    router: str = "weighted",
    rate_scale: float = 1.0,
) -> Report:
    """Simulate every deployment of a plan. `rate_scale` comes on top of the plan's own."""
    if router not in ROUTERS:
        raise InputError(Problem("--router", "", router, "one of " + ", ".join(ROUTERS)))
    reports = tuple(
        _try_deployment(plan, deployment, instance_models, traces, seed, router, rate_scale)[0]
        for deployment in plan.deployments
    )
    return Report(seed=seed, router=router, rate_scale=rate_scale, deployments=reports)


def run_deployment(
    plan: Plan,
    deployment: DeploymentPlan,
    instance_models: Mapping[str, InstanceModel],
    trace: Trace,
    seed: int = 0,
    router: str = "weighted",
    rate_scale: float = 1.0,
) -> tuple[System, Requests, Served, dict[str, int]]:
    """One deployment, request by request."""
    system = system_of(plan, deployment.name, instance_models, router)
    requests, left_out = requests_of(trace, system, deployment.rate_scale * rate_scale)
    served = serve(
        build_machine(system),
        system,
        requests,
        seed=seed,
        overhead_s=overhead_of(system, requests),
        bins=TIMELINE_BINS,
    )
    return system, requests, served, left_out


def _try_deployment(
    plan, deployment, instance_models, traces, seed, router, rate_scale
) -> tuple[DeploymentReport, Served]:
    trace = traces.get(deployment.trace) or traces.get(deployment.name)
    if trace is None:
        raise InputError(
            Problem("plan", f"deployments.{deployment.name}.trace", deployment.trace,
                    "give this trace, by name or as a file")
        )  # fmt: skip
    system, _, served, left_out = run_deployment(
        plan, deployment, instance_models, trace, seed, router, rate_scale
    )
    lanes = tuple(lane for lane in plan.lanes if lane.deployment == deployment.name)
    groups = _groups(plan, lanes)
    return summarise_run(deployment, plan, lanes, groups, system, served, left_out), served


def system_of(
    plan: Plan, deployment: str, instance_models: Mapping[str, InstanceModel], router: str
) -> System:
    """Lanes of one deployment as the simulator runs them."""
    by_id = {instance.id: instance for instance in plan.instances}
    lanes = tuple(
        _serving_lane(lane, [by_id[member] for member in lane.members], instance_models)
        for lane in plan.lanes
        if lane.deployment == deployment
    )
    if not lanes:
        raise InputError(
            Problem("plan", "lanes", deployment, "a plan with a lane for each of its deployments")
        )
    inner = "least-outstanding" if router == "weighted" else router
    return System(
        lanes, router=router, decode_router="least-outstanding" if router == "prefix-aware" else inner
    )


def _serving_lane(lane: Lane, members: list[Instance], models: Mapping[str, InstanceModel]) -> ServingLane:
    entry = tuple(Group(models[each.id], each.count) for each in members if each.role != "decode")
    decode = tuple(Group(models[each.id], each.count) for each in members if each.role == "decode")
    return ServingLane(entry, decode, lane.transfer if decode else None, max(lane.weight, 1))


def _groups(plan: Plan, lanes: tuple[Lane, ...]) -> tuple[Instance, ...]:
    """Instances in the order in which `build_machine` numbers them."""
    by_id = {instance.id: instance for instance in plan.instances}
    ordered: list[Instance] = []
    for lane in lanes:
        members = [by_id[member] for member in lane.members]
        ordered += [each for each in members if each.role != "decode"]
        ordered += [each for each in members if each.role == "decode"]
    return tuple(ordered)


def rows_of(served: Served) -> dict[str, np.ndarray]:
    """Columns for a table with one row a request."""
    return {
        "start_s": served.start_s,
        "admit_s": served.admit_s,
        "first_token_s": served.first_s,
        "finish_s": served.finish_s,
        "isl_tokens": served.isl_tokens,
        "osl_tokens": served.osl_tokens,
        "hit_tokens": served.hit_tokens,
        "preemptions": served.preemptions,
        "lane": served.lane,
        "prefill_rank": served.prefill_rank,
        "rank": served.rank,
    }
