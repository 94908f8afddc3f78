"""Runs that no steady state describes, request by request through the simulator.

simulate_runs(prepared, times)        # index of a run → metric → value

- A run at a rate is its own transient: its queue grows and drains with the random gaps, so all of its
  metrics come from here.
- So is a closed loop that most requests enter at its start, where the row states their lengths, and any
  closed loop whose requests are too different to stand for each other. At its start every engine computes
  prompts first, so such a loop is simulated whatever the engine.
- A closed loop that the KV cache may not hold preempts, and the time away counts in a sequence's time per
  token.
- Any other closed loop agrees with the steady state (within 0.5 % in TPOT on the calibration rows), and
  loops of one length march in step here as vLLM's do not: only the tails are taken.

Seeds are fixed. The simulator schedules as vLLM does; it has no drafts, and disaggregated runs and waves of
prompts (`steady_waves`) stay with the steady state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from moai_planner.accuracy.lengths import differ_widely, draw_lengths, shared_tokens
from moai_planner.accuracy.prepare import Prepared
from moai_planner.accuracy.run import Run
from moai_planner.costmodel.configuration import Configuration
from moai_planner.domain.errors import InputError
from moai_planner.domain.step import StepTimes
from moai_planner.domain.units import MILLI
from moai_planner.simulate.bench import (
    BenchSettings,
    bench_requests,
    bench_result,
    run_requests,
)
from moai_planner.simulate.instance import InstanceModel, instance_of
from moai_planner.simulate.serve import Requests, with_own_blocks
from moai_planner.simulate.system import colocated

MOST_BLOCKS = 1 << 40
"""KV blocks of a rank whose room does not bind."""
MOST_REQUESTS, MOST_TOKENS = 50_000, 100_000_000
"""Runs beyond either stay with the steady state, for time and for memory (each KV block is kept)."""
MOST_KEPT_BLOCKS = 1 << 28
"""The same for the prompts' blocks, which every rank keeps a place for."""
PREEMPTING = ("vllm", "moreh-vllm", "atom")
"""Engines that admit while blocks are free and preempt when they run out."""
FEW = 16.0
"""In flight below which a mean that is no whole number is left to the steady state."""
FEWEST_TURNS = 2.0
"""Requests for each in flight from which most come one by one, each when another ends."""
SHORT_TOKENS = 2.0
"""Answers of fewer on average are of one and of two tokens."""
TAILS = ("ttft_ms_p90", "tpot_ms_p99", "e2el_s_p99", "itl_ms_median")
"""What the steady state does not know of a closed loop."""
NAMES = {
    **{f"{name}_ms_mean": f"mean_{name}_ms" for name in ("ttft", "tpot", "itl")},
    **{f"{name}_ms_median": f"median_{name}_ms" for name in ("ttft", "tpot", "itl")},
    **{f"{name}_ms_p99": f"p99_{name}_ms" for name in ("ttft", "tpot", "itl")},
    "ttft_ms_p90": "p90_ttft_ms",
    "output_tps": "output_throughput",
    "total_tps": "total_token_throughput",
}
"""Metric of the table → key of the benchmark's result."""


def simulate_runs(prepared: Prepared, times: Sequence[StepTimes]) -> dict[int, dict[str, float]]:
    """What the simulator says of each run it should be asked for; runs it cannot serve are left out."""
    found: dict[int, dict[str, float]] = {}
    for i, run in enumerate(prepared.runs):
        record = prepared.records[i]
        if run.disaggregated or record["draft_tokens"] > 0 or run.arrivals not in ("open", "closed"):
            continue
        if run.concurrency < FEW and run.concurrency != round(run.concurrency):
            continue
        wanted = None if transient(run) or may_preempt(run, record) else TAILS
        if wanted and (record["waves"] or not any(name in run.metrics for name in wanted)):
            continue
        if run.requests > MOST_REQUESTS or run.requests * (run.isl_tokens + run.osl_tokens) > MOST_TOKENS:
            continue
        j = record["decode"]
        blocks = run.requests * run.isl_tokens / prepared.configurations[j].engine.block_size_tokens
        if blocks * record["decode_workers"] * record["decode_ranks"] > MOST_KEPT_BLOCKS:
            continue
        try:
            values = _metrics(run, _simulate(run, record, prepared.configurations[j], times[j]))
        except InputError:
            continue
        found[i] = {name: value for name, value in values.items() if wanted is None or name in wanted}
    return found


def transient(run: Run) -> bool:
    """Whether the run is its own transient: arrivals at a rate, or a closed loop of very different requests,
    or one that most requests enter at its start. Of the last, where lengths are not stated, equal ones would
    leave out how it drains: the steady state is nearer. Ranks that wait for each other are its own (the
    simulator charges each the whole step) unless nothing but a rate holds requests back."""
    if run.arrivals != "closed":
        alone = run.workers[-1].dp == 1
        return run.arrivals == "open" and (alone or run.concurrency == 0)
    burst = run.requests < FEWEST_TURNS * run.concurrency
    as_simulated = run.engine in PREEMPTING
    if differ_widely(run):
        return burst or as_simulated
    return burst and (run.length_low_frac < 1.0 or (as_simulated and run.equal_lengths))


def may_preempt(run: Run, record: np.void) -> bool:
    """Whether the sequences in flight, each at its longest, would not fit."""
    each = run.concurrency / (record["decode_workers"] * record["decode_ranks"])
    longest = run.isl_tokens + run.osl_tokens
    return run.engine in PREEMPTING and bool(each * longest > record["kv_tokens"])


def _simulate(run: Run, record: np.void, c: Configuration, times: StepTimes) -> Mapping[str, float]:
    workers = run.workers[-1]
    longest = run.longest_frac
    settings = BenchSettings(
        num_prompts=round(run.requests),
        request_rate=run.request_rate or math.inf,
        burstiness=run.burstiness,
        max_concurrency=round(run.concurrency),
        input_tokens=round(run.isl_tokens),
        output_tokens=round(run.osl_tokens),
        range_low_frac=run.length_low_frac * longest,
        range_high_frac=longest,
    )
    requests, block = bench_requests(settings), c.engine.block_size_tokens
    if run.lengths or run.isl_cv or run.osl_cv or run.osl_tokens < SHORT_TOKENS:
        most = min(float(record["kv_tokens"]) - block, c.model.max_context_tokens)
        isl, osl = draw_lengths(run, np.random.default_rng(settings.seed), most)
        requests = replace(requests, isl_tokens=isl, osl_tokens=osl)
    if run.prefix_hit_frac > 0:
        requests = _with_prefixes(requests, run, block)
    elif run.engine in PREEMPTING:
        requests = with_own_blocks(requests, block)
    served_tokens = int((requests.isl_tokens + requests.osl_tokens).max()) if run.lengths else 0
    system = colocated(_instance(record, c, times, served_tokens), workers.count)
    return bench_result(run_requests(system, requests, settings.max_concurrency))


def _instance(record: np.void, c: Configuration, times: StepTimes, served_tokens: int) -> InstanceModel:
    """The engine with the KV and the limits that the steady state gives it; what it has served, it holds."""
    instance = instance_of(c, times)
    block = c.engine.block_size_tokens
    blocks = int(min(max(record["kv_tokens"] / block, served_tokens / block + 1), MOST_BLOCKS))
    sequences = int(min(record["max_sequences"], len(times.decode_s) - 1))
    return replace(
        instance,
        engine=replace(c.engine, max_num_seqs=sequences, prefix_caching=True),
        memory=replace(instance.memory, kv_blocks=blocks, kv_tokens=blocks * block),
    )


def _with_prefixes(requests: Requests, run: Run, block_tokens: int) -> Requests:
    """Prompts that begin alike: one granule of whole blocks holds what they share, the rest is their own.

    `distinct_prompts` beginnings take turns. Where lengths are listed, short prompts share less: every block
    counts.
    """
    shared = max(block_tokens, shared_tokens(run) // block_tokens * block_tokens)
    if run.lengths:
        return _with_shared_blocks(requests, run.distinct_prompts, shared // block_tokens, block_tokens)
    granules = requests.isl_tokens // shared
    starts = np.concatenate([[0], np.cumsum(granules)])
    hashes = np.arange(starts[-1], dtype=np.int64) + run.distinct_prompts
    whole = granules > 0
    hashes[starts[:-1][whole]] = (np.arange(len(granules)) % run.distinct_prompts)[whole]
    return replace(requests, hashes=hashes, starts=starts[:-1], granule_tokens=shared)


def _with_shared_blocks(requests: Requests, distinct: int, shared: int, block_tokens: int) -> Requests:
    own = with_own_blocks(requests, block_tokens)
    blocks = np.diff(np.append(own.starts, len(own.hashes)))
    place = np.arange(len(own.hashes)) - np.repeat(own.starts, blocks)
    beginning = np.repeat(np.arange(len(blocks)) % distinct, blocks)
    hashes = np.where(place < shared, beginning * shared + place, own.hashes + distinct * shared)
    return replace(own, hashes=hashes)


def _metrics(run: Run, result: Mapping[str, float]) -> dict[str, float]:
    """In the names and units of the table, as this client counted them."""
    values = {name: result[key] for name, key in NAMES.items()}
    if result["mean_tpot_ms"] == 0:  # nobody had a second token
        values |= {name: math.nan for name in values if name.startswith(("tpot", "itl"))}
    for statistic in ("mean", "median", "p99"):
        values[f"tpot_ms_{statistic}"] /= run.events_per_token
        values[f"itl_ms_{statistic}"] *= run.tokens_per_event
    for statistic in ("mean", "median"):  # a p99 is a token's gap, however many empty events follow
        values[f"itl_ms_{statistic}"] /= run.events_per_token
    for statistic in ("mean", "median", "p99"):
        values[f"e2el_s_{statistic}"] = result[f"{statistic}_e2el_ms"] * MILLI
    for name in ("output_tps", "total_tps"):
        values[f"{name}_per_accel"] = values[name] / run.devices
    return values
