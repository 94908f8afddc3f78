"""Deployments x pools → candidates: every layout and role that fits in memory and can keep the promises.

    options, rejected = find_candidates(request, parameters_for)

Each candidate sits at its best operating point (`operating_point`); what is left out is counted by reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby

from moai_planner.costmodel.configuration import Configuration
from moai_planner.costmodel.serving import kv_transfer, memory_budget, power_w, step_times_many
from moai_planner.domain.candidate import Candidate
from moai_planner.domain.cluster import CapacityRequest, Deployment, Options, Pool
from moai_planner.domain.layout import Engine, Layout, capture_sizes
from moai_planner.domain.measured import MeasuredPoint
from moai_planner.domain.operators import OperatorTable
from moai_planner.domain.parameters import Parameters
from moai_planner.domain.provenance import Interval
from moai_planner.domain.step import MemoryBudget, StepTimes
from moai_planner.solver.lane_rules import kv_group, latent_kv, may_transfer
from moai_planner.solver.layouts import layouts
from moai_planner.solver.operating_point import Point, Setting, decode_point, prefill_point
from moai_planner.solver.queueing import pessimism
from moai_planner.solver.traffic import Traffic, traffic

STEP_TOKENS = {"mixed": (2048, 8192), "prefill": (8192,), "decode": (2048,)}
"""Token budgets of a step that are tried; small ones keep decode steady beside prompts."""
GRAPH_PLATFORMS = ("cuda", "rocm")
"""Platforms whose decode steps replay captured graphs."""
BLOCK_TOKENS, LATENT_BLOCK_TOKENS, CPU_BLOCK_TOKENS = 16, 64, 128
SEQUENCE_LIMITS = (512, 256, 128)
"""Limits on a rank's sequences that are tried: what an engine sets aside to sample grows with its limit, and
is KV under a smaller one."""
PREFILL_SEQUENCES = 64
PLANNED_BUSY_FRAC = 0.8
"""Share of time that steps run, for the power of an instance."""

ParametersFor = Callable[..., Parameters]
ProfileFor = Callable[..., tuple[MeasuredPoint, ...] | OperatorTable]
"""(accelerator, engine name, model, precision, layout) → steps or operators that were measured of it."""


def no_profile(*_: object) -> tuple[MeasuredPoint, ...]:
    """Nothing was measured."""
    return ()


@dataclass(frozen=True, eq=False)
class Option:
    """A candidate with what the plan needs to know of it later."""

    candidate: Candidate
    configuration: Configuration
    point: Point
    traffic: Traffic
    pool: Pool
    power_w: float


@dataclass(frozen=True, eq=False)
class _Case:
    """A configuration to be judged in one role."""

    deployment: Deployment
    pool: Pool
    role: str
    configuration: Configuration


def find_candidates(
    request: CapacityRequest,
    parameters_for: ParametersFor,
    caps: Mapping[str, float] | None = None,
    profile_for: ProfileFor = no_profile,
) -> tuple[tuple[Option, ...], Counter]:
    """All candidates of all deployments and the reasons of those left out (`deployment: role: reason`)."""
    rejected: Counter = Counter()
    found: list[Option] = []
    cases = [
        case
        for d in request.deployments
        for pool in request.pools
        for case in _cases(d, pool, request, parameters_for, profile_for, rejected)
    ]
    times = _times_of(cases)
    budgets = [memory_budget(case.configuration) for case in cases]
    rows = list(zip(cases, times, budgets, strict=True))
    for deployment, group in groupby(rows, key=lambda row: row[0].deployment.name):
        found.extend(_judge(deployment, list(group), request.options, caps or {}, rejected))
    return tuple(found), rejected


def block_tokens(deployment: Deployment, platform: str) -> int:
    """KV block size that the platform's attention kernels take: vLLM 0.33 attention backends.

    The CPU kernels want 128, the latent-attention kernels of NVIDIA and AMD take 64, all others 16.
    """
    if platform == "cpu":
        return CPU_BLOCK_TOKENS
    return LATENT_BLOCK_TOKENS if latent_kv(deployment) else BLOCK_TOKENS


def engine_for(
    deployment: Deployment,
    role: str,
    step_tokens: int,
    options: Options,
    graphs: bool = True,
    platform: str = "cuda",
) -> Engine:
    """The engine settings a candidate is planned with; the batch limit is fixed at its point later."""
    return Engine(
        name=options.engine,
        max_num_seqs=PREFILL_SEQUENCES if role == "prefill" else SEQUENCE_LIMITS[0],
        max_num_batched_tokens=step_tokens,
        max_model_len=deployment.max_model_len,
        prefix_caching=deployment.prefix_caching,
        block_size_tokens=block_tokens(deployment, platform),
        graphs=graphs,
        prompts_only=role == "prefill",
    )


def _cases(
    deployment: Deployment,
    pool: Pool,
    request: CapacityRequest,
    parameters_for: ParametersFor,
    profile_for: ProfileFor,
    rejected: Counter,
) -> list[_Case]:
    counted: Counter = Counter()
    if not deployment.precision.read_on(pool.accelerator.platform):
        rejected[f"{deployment.name}: {pool.accelerator.id} does not read {deployment.precision.id}"] += 1
        return []
    parameters = parameters_for(pool.accelerator, request.options.engine, deployment.precision)
    found = []
    for layout in layouts(deployment, pool, counted):
        measured = profile_for(
            pool.accelerator, request.options.engine, deployment.model, deployment.precision, layout
        )
        for role in deployment.roles:
            if role != "mixed" and not may_transfer(pool.accelerator):
                rejected[f"{deployment.name}: {role}: the platform has no KV connector"] += 1
                continue
            if role != "mixed" and layout.pp > 1:
                rejected[f"{deployment.name}: {role}: pipeline stages do not exchange KV"] += 1
                continue
            for step_tokens in STEP_TOKENS[role]:
                graphs = pool.accelerator.platform in GRAPH_PLATFORMS
                engine = engine_for(
                    deployment, role, step_tokens, request.options, graphs, pool.accelerator.platform
                )
                c = _configuration(deployment, pool, layout, engine, parameters, measured)
                found.append(_Case(deployment, pool, role, c))
    for reason, count in counted.items():
        rejected[f"{deployment.name}: layout: {reason}"] += count
    return found


def _configuration(
    deployment: Deployment,
    pool: Pool,
    layout: Layout,
    engine: Engine,
    parameters: Parameters,
    measured: tuple[MeasuredPoint, ...],
) -> Configuration:
    return Configuration(
        accelerator=pool.accelerator,
        model=deployment.model,
        precision=deployment.precision,
        layout=layout,
        engine=engine,
        devices_per_node=pool.devices_per_node,
        network_bytes_per_s=pool.network_bytes_per_s,
        parameters=parameters,
        measured=measured,
    )


def _times_of(cases: list[_Case]) -> list[StepTimes]:
    return step_times_many([case.configuration for case in cases])


def _judge(
    name: str,
    rows: list[tuple[_Case, StepTimes, MemoryBudget]],
    options: Options,
    caps: Mapping[str, float],
    rejected: Counter,
) -> list[Option]:
    """Decode and mixed points first: a prefill instance's first token waits for a decode step."""
    seen = traffic(rows[0][0].deployment)
    found: list[Option] = []
    decode_step_s: dict[str, float] = {}
    for case, times, memory in sorted(rows, key=lambda row: row[0].role == "prefill"):
        group = kv_group(case.pool.accelerator, case.deployment, options.cross_vendor_kv)
        rest = seen, options, caps, decode_step_s.get(group)
        case, memory, point = _best_point(case, times, memory, *rest)
        if isinstance(point, str):
            rejected[f"{name}: {case.role}: {point}"] += 1
            continue
        if case.role == "decode":
            shortest = float(times.decode_s[1]) * pessimism(times.high_frac, options.confidence)
            decode_step_s[group] = min(shortest, decode_step_s.get(group, shortest))
        found.append(_option(len(found), case, times, memory, point, group, seen, options))
    return found


def _best_point(
    case: _Case, times: StepTimes, memory: MemoryBudget, *rest
) -> tuple[_Case, MemoryBudget, Point | str]:
    """The point that serves most under any limit on sequences, with the memory left under that one."""
    best = case, memory, _point(case, times, memory, *rest)
    for limit in SEQUENCE_LIMITS[1:] if case.role != "prefill" else ():
        c = replace(case.configuration, engine=replace(case.configuration.engine, max_num_seqs=limit))
        room = memory_budget(c)
        point = _point(replace(case, configuration=c), times, room, *rest)
        if not isinstance(point, str) and _served(point) > _served(best[-1]):
            best = replace(case, configuration=c), room, point
    return best


def _served(point: Point | str) -> float:
    return 0.0 if isinstance(point, str) else point.req_per_s


def _point(
    case: _Case,
    times: StepTimes,
    memory: MemoryBudget,
    seen: Traffic,
    options: Options,
    caps: Mapping[str, float],
    decode_step_s: float | None,
) -> Point | str:
    if not memory.fits:
        return "the weights do not fit"
    if memory.kv_tokens < case.deployment.max_model_len:
        return "no room for one request of full length"
    if seen.longest_tokens == 0:
        return "every request of the trace is longer than the context window"
    c = case.configuration
    factor = pessimism(times.high_frac, options.confidence)
    setting = Setting(
        times=times.slower(factor, factor),
        memory=memory,
        engine=c.engine,
        ranks=c.layout.dp,
        traffic=seen,
        slo=case.deployment.slo,
        transfer=kv_transfer(c, c) if case.role != "mixed" else None,
        cap=caps.get(cap_key(case.deployment.name, case.pool.name, case.role), 1.0),
    )
    most = case.pool.devices // c.layout.devices
    if case.role == "prefill":
        if decode_step_s is None:
            return "no decode instance to hand over to"
        return _explained(prefill_point(setting, decode_step_s, most))
    return _explained(decode_point(setting, case.role == "mixed", most))


_REASONS = {
    "ttft": "cannot meet the TTFT objective even alone",
    "ttft under load": "cannot meet the TTFT objective under any load",
    "tpot": "cannot meet the TPOT or ITL objective",
    "e2el": "cannot meet the E2EL objective",
    "memory": "too little KV memory for one sequence and its spread",
}


def _explained(point: Point | str) -> Point | str:
    return _REASONS.get(point, point) if isinstance(point, str) else point


def cap_key(deployment: str, pool: str, role: str) -> str:
    """Group of candidates that the repair loop tightens together."""
    return f"{deployment}/{pool}/{role}"


def _option(
    index: int,
    case: _Case,
    times: StepTimes,
    memory: MemoryBudget,
    point: Point,
    group: str,
    seen: Traffic,
    options: Options,
) -> Option:
    engine = case.configuration.engine
    if case.role != "prefill":
        engine = replace(engine, max_num_seqs=planned_sequences(point.batch, engine.max_num_seqs))
    configuration = replace(case.configuration, engine=engine)
    candidate = Candidate(
        id=f"{case.deployment.name}-{case.pool.name}-{case.role}-{configuration.layout}-t{engine.max_num_batched_tokens}",
        deployment=case.deployment.name,
        pool=case.pool.name,
        role=case.role,
        layout=configuration.layout,
        engine=engine,
        step_s=point.step_s,
        batch=point.batch,
        use=point.use,
        memory=memory,
        predicted=_predicted(case.role, point, times, seen, pessimism(times.high_frac, options.confidence)),
        kv_group="" if case.role == "mixed" else group,
    )
    power = power_w(configuration, PLANNED_BUSY_FRAC)
    return Option(candidate, configuration, point, seen, case.pool, power)


def planned_sequences(batch: int, most: int) -> int:
    """Batch limit to start the engine with: room above the mean batch for bursts, a captured size.

    Never above `most`: the memory was counted with it.

    >>> planned_sequences(100, 512), planned_sequences(1, 512), planned_sequences(100, 128)
    (152, 16, 128)
    """
    wanted = max(16, batch * 3 // 2)
    return min(most, next((size for size in capture_sizes(most) if size >= wanted), most))


def _predicted(
    role: str, point: Point, times: StepTimes, seen: Traffic, factor: float
) -> dict[str, Interval]:
    """Figures at the planned load; `factor` slows the plan's own point, so the middle is point / factor."""
    low, high = times.low_frac, times.high_frac

    def seconds(value: float) -> Interval:
        middle = value / factor
        return Interval(middle, middle * low, middle * high, times.basis)

    def per_second(value: float) -> Interval:
        middle = value * factor
        return Interval(middle, middle / high, middle / low, times.basis)

    rate = point.req_per_s
    found = {"req_per_s": per_second(rate)}
    if role != "decode":
        found["ttft_s"] = seconds(point.ttft_s)
        found["prefill_tokens_per_s"] = per_second(rate * seen.mean(seen.isl))
    if role != "prefill":
        found["tpot_s"] = seconds(point.tpot_s)
        found["decode_tokens_per_s"] = per_second(rate * seen.mean(seen.osl))
    return found
