r"""The load one instance carries within its promises: where a candidate's numbers come from.

Decode and mixed instances. With B sequences in flight of mean context c a step takes

    tau(B) = d(B) + kv_s·c·B + B·t_p / osl                (t_p = 0 for decode instances)

d(B) the captured step, t_p what a prompt adds to steps, and by Little's law an instance then serves
X(B) = B / (osl·tau(B)) requests per second. The point is the B of greatest X where

    P(tau(B) + noise_i <= tpot limit) >= p,    noise_i^2 = (tau'·sqrt(v·B/m))^2 + E[t_p^2]·X·tau/osl_i
    (B + z·sqrt(v·B/m))·tokens held <= KV capacity,    B + z·sqrt(v·B/m) <= max_num_seqs

v the dispersion of arrivals, m the ranks that share the load, i a sample of the trace's requests. Prefill
instances carry the greatest utilisation at which wait + prefill + transfer + first step meet the TTFT
objectives. Written for any load x[k] the point gives rows that are linear in x (`use`), exact at the point,
safe below it:

    (osl_k·kv_s·c_k + t_p,k)·tau / (tau - d(B))   time        osl_k·tau / B   batch
    osl_k·tau·tokens_k / KV capacity              memory      bytes_k / nic   nic
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from moai_planner.domain.layout import Engine
from moai_planner.domain.slo import Slo
from moai_planner.domain.step import KvTransfer, MemoryBudget, StepTimes
from moai_planner.solver.queueing import (
    deviate,
    holds,
    normal_attainment,
    wait_probability,
    wait_scale_s,
)
from moai_planner.solver.traffic import Traffic

MOST_UTILISATION = 0.92
"""Utilisation that no prefill queue is planned above, whatever the objectives allow."""
MOST_KV_FRAC = 0.95
"""Share of KV blocks that a plan fills; the rest absorbs block rounding."""
PROMPTS_A_STEP = 2
"""Prompts of mean length that share a prefill step under load, where the token budget allows."""
LEAST_DISPERSION = 1.0
"""Batches stray at least as Poisson arrivals make them: answer lengths differ."""
E2EL_PREFILL_SHARE = 0.2
"""Of an end-to-end objective, what a disaggregated lane's prefill side may take; decode keeps the rest."""


@dataclass(frozen=True, eq=False)
class Point:
    """An instance at work."""

    step_s: float
    batch: int
    "Mean sequences in flight per rank."
    use: dict[str, np.ndarray]
    "Resource → [cells] instances per request/s."
    ttft_s: float
    "Mean."
    tpot_s: float
    req_per_s: float


@dataclass(frozen=True, eq=False)
class Setting:
    """What a point is searched for."""

    times: StepTimes
    "Already pessimistic."
    memory: MemoryBudget
    engine: Engine
    ranks: int
    "Data-parallel ranks of one instance."
    traffic: Traffic
    slo: Slo
    transfer: KvTransfer | None
    cap: float = 1.0
    "Repair: share of the load at the point that the plan may use."


def prefill_alone_s(s: Setting, tokens: np.ndarray, pairs: np.ndarray, beside: float = 0.0) -> np.ndarray:
    """Steps of one prompt by itself, `beside` decode tokens in each. tokens [..] → [..] s"""
    budget = s.engine.max_num_batched_tokens - beside
    full = np.floor(tokens / budget)
    rest = tokens - full * budget
    base = full * s.times.mixed_step_s(budget + beside, sequences=1 + beside)
    last = s.times.mixed_step_s(rest + beside, sequences=1 + beside)
    return base + np.where(rest > 0, last, 0.0) + s.times.pair_s * pairs


def prefill_under_load_s(s: Setting, tokens: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Time a prompt takes from a prefill rank when steps hold several prompts. [..] s"""
    t = s.traffic
    step = min(s.engine.max_num_batched_tokens, max(PROMPTS_A_STEP * t.mean(t.new_tokens), 1.0))
    per_token = float(s.times.mixed_step_s(step, sequences=PROMPTS_A_STEP)) / step
    return (tokens * per_token + s.times.pair_s * pairs) / s.times.stages


def outside_s(s: Setting, isl: np.ndarray) -> np.ndarray:
    """HTTP and tokenising, once per request. [..] s"""
    return s.times.request_s + s.times.prompt_token_s * isl


def transfer_s(s: Setting, isl: np.ndarray) -> np.ndarray:
    """One request's KV over an idle path. [..] s"""
    if s.transfer is None:
        return np.zeros_like(isl)
    return s.transfer.latency_s + isl * s.transfer.bytes_per_token / s.transfer.bytes_per_s


def prefill_point(s: Setting, decode_step_s: float, most_instances: int) -> Point | str:
    """Greatest utilisation of a prefill instance within the TTFT objectives, or why there is none.

    `decode_step_s`: the first token leaves with a decode step; the shortest of the partners is counted, so
    that a looser TPOT objective cannot lengthen it here. What it adds beyond is for the simulation to find.
    """
    t = s.traffic
    service = prefill_under_load_s(s, t.new_tokens, t.pairs)
    mean_s = t.mean(service)
    spread = np.sqrt(max(t.mean(service**2) / mean_s**2 - 1, 0.0)) if mean_s > 0 else 0.0
    sample_pairs = s.traffic.sample_isl * s.traffic.sample_new_tokens / 2
    unloaded = (
        outside_s(s, t.sample_isl)
        + prefill_alone_s(s, t.sample_new_tokens, sample_pairs)
        + transfer_s(s, t.sample_isl)
        + decode_step_s
    )
    grid = np.linspace(0.02, MOST_UTILISATION, 46)
    servers = _servers(t.peak_req_per_s * mean_s / 0.7, s.ranks, most_instances)
    probability = wait_probability(grid, servers / max(1.0, t.dispersion))
    scale = wait_scale_s(grid, servers, np.array(mean_s), t.dispersion, float(spread) ** 2)
    good = np.ones(len(grid), bool)
    for objective in s.slo.objectives:
        if objective.metric == "ttft":
            good &= holds(objective, unloaded, probability, scale)
        elif objective.metric == "e2el":
            ours = replace(objective, limit_s=objective.limit_s * E2EL_PREFILL_SHARE)
            good &= holds(ours, unloaded, probability, scale)
    if not good.any():
        return "ttft" if _fails(s, unloaded, "ttft") else "ttft under load"
    at = int(np.flatnonzero(good).max())
    utilisation = grid[at] * s.cap
    use = {"time": service / (s.ranks * utilisation)}
    if s.transfer is not None:
        use["nic"] = t.isl * s.transfer.bytes_per_token / s.transfer.nic_bytes_per_s
    wait = probability[at] * scale[at]
    use = _with_surge(use, t)
    return Point(0.0, 1, use, float(unloaded.mean() + wait), 0.0, 1 / _most(use, t))


def decode_point(s: Setting, mixed: bool, most_instances: int) -> Point | str:
    """Batch of greatest throughput within the objectives, or why there is none."""
    t = s.traffic
    batch = _batch_grid(s.engine.max_num_seqs)
    osl, tokens = t.mean(t.osl), t.mean(t.osl * t.context) / t.mean(t.osl)
    slow = 1.0 + (s.transfer.decode_slowdown_frac if s.transfer is not None and not mixed else 0.0)
    captured = s.times.decode_s[batch] * slow
    added = (
        _added_by_prompts(s, t.new_tokens, t.pairs, batch) if mixed else np.zeros((len(batch), len(t.isl)))
    )
    added_mean = added @ t.weight
    kv_s = s.times.kv_s * slow
    step = captured + kv_s * tokens * batch + _prompt_time_a_step_s(s, batch, added_mean, osl)
    per_rank = batch / (osl * step) * s.times.stages
    servers = _servers(t.peak_req_per_s / per_rank[-1], s.ranks, most_instances)
    stray = np.sqrt(max(t.dispersion, LEAST_DISPERSION) * batch / servers)
    slope = np.gradient(step, batch) if len(batch) > 1 else np.zeros(1)
    z = max((deviate(o.percentile) for o in s.slo.objectives), default=deviate(95.0))
    held = (batch + z * stray) * tokens * s.times.stages
    good = (held <= MOST_KV_FRAC * s.memory.kv_tokens) & (batch + z * stray <= s.engine.max_num_seqs)
    if not good.any():
        return "memory"
    # Prompts fall into an answer's life as a compound Poisson stream, from all ranks that step together.
    prompts = (added**2) @ t.weight * s.ranks * per_rank * step
    noise = np.sqrt((slope * stray)[:, None] ** 2 + prompts[:, None] / t.sample_osl)
    good &= _meets_tpot(s, step, noise, added_mean, captured)
    if not good.any():
        return "tpot"
    ttft = np.zeros(len(batch))
    if mixed:
        fine, ttft = _meets_ttft(s, batch, step, added, per_rank, servers)
        good &= fine
        if not good.any():
            return "ttft"
    else:
        for objective in s.slo.objectives:
            if objective.metric == "e2el":
                ours = replace(objective, limit_s=objective.limit_s * (1 - E2EL_PREFILL_SHARE))
                whole = step[:, None] * t.sample_osl
                good &= _each_holds(ours, whole, np.zeros(len(batch)), np.ones(len(batch)))
    if not good.any():
        return "e2el"
    at = int(np.argmax(np.where(good, per_rank, -1.0)))
    use = _with_surge(
        _decode_use(s, int(batch[at]), float(step[at]), float(captured[at]), added[at], kv_s, mixed), t
    )
    return Point(float(step[at]), int(batch[at]), use, float(ttft[at]), float(step[at]), 1 / _most(use, t))


def _prompt_time_a_step_s(s: Setting, batch: np.ndarray, added: np.ndarray, osl: float) -> np.ndarray:
    """Time that prompts add to a mean step. [B] s

    Alone, a rank takes B / osl prompts a step. Data-parallel ranks step together and wait for whoever has
    a chunk: with k = ranks·chunks·B / osl chunks a step in all, a share 1 - exp(-k) of steps has one.
    """
    own = batch * added / osl
    if s.ranks == 1:
        return own
    chunks = np.ceil(s.traffic.mean(s.traffic.new_tokens) / s.engine.max_num_batched_tokens)
    return np.maximum(own, added / chunks * (1 - np.exp(-s.ranks * chunks * batch / osl)))


def _decode_use(
    s: Setting, batch: int, step_s: float, captured_s: float, added: np.ndarray, kv_s: float, mixed: bool
) -> dict[str, np.ndarray]:
    t = s.traffic
    share = s.ranks * s.times.stages * s.cap
    left = max(step_s - captured_s, 1e-12)
    use = {
        "time": (t.osl * kv_s * t.context + added) * step_s / left / share,
        "batch": t.osl * step_s / batch / share,
        "memory": t.osl * step_s * t.context / (MOST_KV_FRAC * s.memory.kv_tokens) / (s.ranks * s.cap),
    }
    if s.transfer is not None and not mixed:
        use["nic"] = t.isl * s.transfer.bytes_per_token / s.transfer.nic_bytes_per_s
    return use


def _batch_grid(most: int) -> np.ndarray:
    grid = np.unique(
        np.concatenate(([1, 2, 4], np.arange(8, 129, 8), np.arange(144, 257, 16), np.arange(288, 2049, 32)))
    )
    return grid[grid <= most]


def _added_by_prompts(s: Setting, tokens: np.ndarray, pairs: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """Time that a prompt adds to the steps it shares with decodes. tokens [..], batch [B] → [B, ..] s"""
    beside = batch[:, None].astype(float)
    budget = np.maximum(s.engine.max_num_batched_tokens - beside, 1.0)
    steps = np.ceil(tokens / budget)
    chunk = tokens / np.maximum(steps, 1.0)
    decode_only = s.times.decode_s[batch][:, None]
    one = np.maximum(s.times.mixed_step_s(chunk + beside, sequences=1 + beside) - decode_only, 0.0)
    return steps * one + s.times.pair_s * pairs


def _meets_tpot(
    s: Setting, step: np.ndarray, noise: np.ndarray, added: np.ndarray, captured: np.ndarray
) -> np.ndarray:
    good = np.ones(len(step), bool)
    for objective in s.slo.objectives:
        limit = objective.limit_s
        if objective.metric == "tpot":
            if objective.percentile is None:
                good &= step <= limit
            else:
                share = normal_attainment(limit, step[:, None], noise).mean(axis=1)
                good &= share >= objective.percentile / 100
        elif objective.metric == "itl":
            # Steps with a prompt chunk are a share of all steps; where that share reaches into the
            # percentile, the longest such step must meet it.
            longest = captured + (
                float(s.times.mixed_step_s(s.engine.max_num_batched_tokens, sequences=1))
                if added.any()
                else 0
            )
            share = np.where(added > 0, np.maximum(step - captured, 0) / np.maximum(step, 1e-12), 0.0)
            tail = 1 - (objective.percentile or 50.0) / 100
            good &= np.where(share > tail, np.maximum(longest, step), step) <= limit
    return good


def _meets_ttft(
    s: Setting, batch: np.ndarray, step: np.ndarray, added: np.ndarray, per_rank: np.ndarray, servers: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mixed instances: a prompt waits for the step under way, then for prompts before it."""
    t = s.traffic
    sample_pairs = t.sample_isl * t.sample_new_tokens / 2
    beside = batch[:, None].astype(float)
    budget = np.maximum(s.engine.max_num_batched_tokens - beside, 1.0)
    own_steps = np.ceil(t.sample_new_tokens / budget)
    own = own_steps * s.times.decode_s[batch][:, None] + _added_by_prompts(
        s, t.sample_new_tokens, sample_pairs, batch
    )
    unloaded = outside_s(s, t.sample_isl) + step[:, None] / 2 + own
    service = (added + s.times.decode_s[batch][:, None]) @ t.weight
    spread2 = np.maximum((added**2) @ t.weight / np.maximum((added @ t.weight) ** 2, 1e-30) - 1, 0.0)
    busy = np.minimum(per_rank * (added @ t.weight), 0.98)
    probability = wait_probability(busy, servers / max(1.0, t.dispersion))
    scale = wait_scale_s(busy, servers, service, t.dispersion, spread2)
    good = busy <= MOST_UTILISATION
    for objective in s.slo.objectives:
        if objective.metric == "ttft":
            good &= _each_holds(objective, unloaded, probability, scale)
        elif objective.metric == "e2el":
            good &= _each_holds(objective, unloaded + step[:, None] * t.sample_osl, probability, scale)
    return good, unloaded.mean(axis=1) + probability * scale


def _each_holds(objective, unloaded: np.ndarray, probability: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.array(
        [
            holds(objective, unloaded[b], probability[b : b + 1], scale[b : b + 1])[0]
            for b in range(len(scale))
        ]
    )


def _servers(needed: float, ranks: int, most_instances: int) -> float:
    """Ranks that share the load if this candidate serves it all, within the stock."""
    return float(min(max(ranks, needed), ranks * max(most_instances, 1)))


def _with_surge(use: dict[str, np.ndarray], t: Traffic) -> dict[str, np.ndarray]:
    """The point is for the rate of a busy spell; use is per mean rate."""
    return {resource: rows * t.surge for resource, rows in use.items()}


def _most(use: dict[str, np.ndarray], t: Traffic) -> float:
    return max(t.mean(rows) for rows in use.values())


def _fails(s: Setting, unloaded: np.ndarray, metric: str) -> bool:
    nothing = np.zeros(1)
    return not all(
        holds(o, unloaded, nothing, np.ones(1)).all() for o in s.slo.objectives if o.metric == metric
    )
