"""Answer → `Plan`: named instances on named devices, lanes with integer weights, splits, utilisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from moai_planner import __version__
from moai_planner.costmodel.serving import kv_transfer, memory_budget
from moai_planner.domain.cluster import CapacityRequest, Deployment
from moai_planner.domain.cluster import Pool as DomainPool
from moai_planner.domain.plan import (
    FORMAT,
    Binding,
    DeploymentPlan,
    Instance,
    Lane,
    ObjectiveValue,
    Plan,
    PoolUse,
    Relaxation,
    Split,
)
from moai_planner.solver.assumptions import assumptions
from moai_planner.solver.candidates import Option
from moai_planner.solver.lanes import base_id, lanes_of_answer
from moai_planner.solver.notation import Answer, Problem, cost_usd_per_h
from moai_planner.solver.packing import place
from moai_planner.solver.weights import integer_weights


@dataclass(frozen=True, eq=False)
class _LaneOfColumns:
    id: str
    deployment: str
    members: tuple[tuple[str, str], ...]
    "(instance id, column id), prefill first."
    share: float


def assemble(
    request: CapacityRequest,
    options: tuple[Option, ...],
    problem: Problem,
    answer: Answer,
    rejected: Mapping[str, int],
    binding: tuple[Binding, ...],
) -> Plan:
    """The plan of an answer that was found."""
    by_id = {option.candidate.id: option for option in options}
    lanes = [lane for d in request.deployments for lane in _lanes(problem, answer, d.name)]
    instances = _instances(problem, answer, by_id, lanes)
    return Plan(
        format=FORMAT,
        tool_version=__version__,
        inputs=dict(request.inputs),
        status=answer.status,
        objective=ObjectiveValue(request.objective, answer.value, answer.bound, answer.gap_frac),
        cost_usd_per_h=cost_usd_per_h(problem, answer.counts),
        pools=tuple(_pool_use(pool, instances) for pool in request.pools),
        deployments=tuple(deployment_plan(d, answer.factor) for d in request.deployments),
        instances=tuple(instances),
        lanes=tuple(_weighted(lanes, by_id)),
        splits=tuple(_splits(request, answer, lanes)),
        windows=windows(request),
        binding=binding,
        assumptions=assumptions(request, [by_id[base_id(c)] for lane in lanes for _, c in lane.members]),
        rejected=dict(sorted(rejected.items())),
        options=options_of(request),
    )


def infeasible_plan(
    request: CapacityRequest, answer: Answer, rejected: Mapping[str, int], explanation: tuple[Relaxation, ...]
) -> Plan:
    """The plan file of an answer that is no."""
    return Plan(
        format=FORMAT,
        tool_version=__version__,
        inputs=dict(request.inputs),
        status="infeasible" if answer.status == "infeasible" else answer.status,
        objective=ObjectiveValue(request.objective, 0.0, 0.0, 0.0),
        cost_usd_per_h=0.0,
        pools=tuple(_pool_use(pool, []) for pool in request.pools),
        deployments=tuple(deployment_plan(d, 1.0) for d in request.deployments),
        instances=(),
        lanes=(),
        splits=(),
        windows=windows(request),
        binding=(),
        assumptions=assumptions(request, []),
        rejected=dict(sorted(rejected.items())),
        explanation=explanation,
        options=options_of(request),
    )


def windows(request: CapacityRequest) -> tuple[dict, ...]:
    """Spans of the traces and their rates; instances and weights are the same in all."""
    return tuple(
        {
            "deployment": d.name,
            "name": w.name,
            "start_s": w.start_s,
            "end_s": w.end_s,
            "rate_req_per_s": w.rate_req_per_s,
            "burstiness_cv": w.burstiness_cv,
        }
        for d in request.deployments
        for w in d.workload.windows
    )


def options_of(request: CapacityRequest) -> dict:
    """How the plan was solved."""
    return {**asdict(request.options), "objective": request.objective}


def deployment_plan(d: Deployment, factor: float) -> DeploymentPlan:
    """A deployment as plans keep it; most-load plans serve `factor` times its traffic."""
    mean = len(d.trace) / d.trace.duration_s * d.rate_scale
    return DeploymentPlan(
        name=d.name,
        model=d.model,
        model_reference=d.model.id,
        precision=d.precision,
        trace=d.trace.name,
        rate_scale=d.rate_scale * factor,
        rate_req_per_s=mean * factor,
        slo={o.key: o.limit_s for o in d.slo.objectives},
        max_model_len=d.max_model_len,
        prefix_caching=d.prefix_caching,
    )


def _pool_use(pool: DomainPool, instances: list[Instance]) -> PoolUse:
    return PoolUse(
        name=pool.name,
        accelerator=pool.accelerator.id,
        devices_used=sum(i.count * i.layout.devices for i in instances if i.pool == pool.name),
        devices_total=pool.devices,
        nodes=pool.nodes,
        devices_per_node=pool.devices_per_node,
        network_bytes_per_s=pool.network_bytes_per_s,
        price_usd_per_h=pool.price_usd_per_h,
        hosts=pool.hosts,
        platform=pool.accelerator.platform,
        vendor=pool.accelerator.vendor,
    )


def _lanes(problem: Problem, answer: Answer, deployment: str) -> list[_LaneOfColumns]:
    found = []
    for number, (_, members, share) in enumerate(lanes_of_answer(problem, answer, deployment), start=1):
        lane = f"{deployment}-l{number}"
        roles = [problem.column(c).role for c in members]
        named = [
            (f"{lane}-{role}" + (f"-{roles[: i + 1].count(role)}" if roles.count(role) > 1 else ""), column)
            for i, (role, column) in enumerate(zip(roles, members, strict=True))
        ]
        found.append(_LaneOfColumns(lane, deployment, tuple(named), share))
    return found


def _instances(
    problem: Problem, answer: Answer, by_id: Mapping[str, Option], lanes: list[_LaneOfColumns]
) -> list[Instance]:
    placements: dict = {}
    for pool in problem.pools:
        wanted = {
            instance: (problem.column(column).devices, answer.counts[column])
            for lane in lanes
            for instance, column in lane.members
            if problem.column(column).pool == pool.name
        }
        placements |= place(wanted, pool)
    return [
        _instance(problem, answer, by_id[base_id(column)], lane, instance, column, placements[instance])
        for lane in lanes
        for instance, column in lane.members
    ]


def _instance(
    problem: Problem,
    answer: Answer,
    option: Option,
    lane: _LaneOfColumns,
    instance: str,
    column_id: str,
    placed,
) -> Instance:
    column, count, candidate = problem.column(column_id), answer.counts[column_id], option.candidate
    stream = next(s for s in problem.streams if s.deployment == column.deployment)
    share = answer.shares.get((stream.id, column_id), 0.0)
    used: dict[str, float] = {}
    for (resource, _), load in problem.load(column, stream).items():
        used[resource] = max(used.get(resource, 0.0), load * share / count)
    return Instance(
        id=instance,
        deployment=column.deployment,
        role=column.role,
        pool=column.pool,
        accelerator=option.pool.accelerator.id,
        count=count,
        layout=candidate.layout,
        engine=candidate.engine,
        lane=lane.id,
        batch=candidate.batch,
        predicted=candidate.predicted,
        memory=asdict(memory_budget(option.configuration)),
        placements=placed,
        utilization=used,
        rate_req_per_s=share * max(stream.rate_req_per_s),
    )


def _weighted(lanes: list[_LaneOfColumns], by_id: Mapping[str, Option]) -> list[Lane]:
    found = []
    for deployment in dict.fromkeys(lane.deployment for lane in lanes):
        own = [lane for lane in lanes if lane.deployment == deployment]
        for lane, weight in zip(own, integer_weights([lane.share for lane in own]), strict=True):
            options = [by_id[base_id(column)] for _, column in lane.members]
            found.append(
                Lane(
                    id=lane.id,
                    deployment=deployment,
                    kind="mixed" if len(options) == 1 else "disaggregated",
                    weight=weight,
                    share=lane.share,
                    members=tuple(instance for instance, _ in lane.members),
                    transfer=_transfer(options),
                )
            )
    return found


def _transfer(options: list[Option]):
    """Of the lane's slowest prefill member."""
    if len(options) == 1:
        return None
    decode = options[-1].configuration
    ways = [kv_transfer(option.configuration, decode) for option in options[:-1]]
    return min(ways, key=lambda way: way.bytes_per_s)


def _splits(request: CapacityRequest, answer: Answer, lanes: list[_LaneOfColumns]):
    for d in request.deployments:
        for lane in (lane for lane in lanes if lane.deployment == d.name):
            (decode, decode_column), feeders = lane.members[-1], lane.members[:-1]
            paths = [(decode, decode, lane.share)] if not feeders else []
            for prefill, column in feeders:
                share = sum(
                    v
                    for (_, one), v in answer.lane_shares.items()
                    if (one.prefill, one.decode) == (column, decode_column)
                )
                paths.append((prefill, decode, share / answer.factor))
            for window in d.workload.windows:
                for cell in window.cells:
                    for prefill, decode_id, share in paths:
                        rate = cell.rate_req_per_s * answer.factor * share
                        yield Split(d.name, window.name, cell.id, lane.id, prefill, decode_id, rate)
