"""A benchmark run as `vllm bench serve` does it, and its result keys.

Settings → requests (rate, burstiness, lengths, all seeded) → `serve` → the figures that the tool prints.
Published
tables are finite runs that ramp up and drain, so a whole run is simulated and nothing is cut away.

    result = simulate_bench(colocated(instance), BenchSettings(num_prompts=640, max_concurrency=64))
    result["mean_ttft_ms"], result["output_throughput"]

Request i waits for a free slot when `max_concurrency` are in flight; its latencies count from when it got
one. Gaps between requests are gamma distributed with shape `burstiness` and, as in the tool since 0.9,
scaled so that the last request starts at num_prompts / request_rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from moai_planner.domain.units import MILLI
from moai_planner.domain.workload import Trace
from moai_planner.simulate.histogram import quantiles
from moai_planner.simulate.serve import Requests, Served, serve
from moai_planner.simulate.system import Machine, System, build_machine

PERCENTILES = (50.0, 90.0, 95.0, 99.0)


@dataclass(frozen=True, eq=False)
class BenchSettings:
    """Flags of `vllm bench serve`."""

    num_prompts: int = 1000
    request_rate: float = math.inf
    "Requests per second; infinity = all at once (or as slots allow)."
    burstiness: float = 1.0
    "Shape of the gamma gaps: 1 = Poisson, larger = more even; infinity = constant gaps."
    max_concurrency: int = 0
    "0 = no limit."
    input_tokens: int = 1024
    output_tokens: int = 128
    range_low_frac: float = 1.0
    "Lengths are drawn uniformly from [low, high] times nominal; 1 and 1 = fixed."
    range_high_frac: float = 1.0
    trace: Trace | None = None
    "Lengths (and shared prefixes) of these requests, in order, again from the start when they run out."
    seed: int = 0


def bench_requests(settings: BenchSettings) -> Requests:
    """Arrivals and lengths of a run; the same seed gives the same draws at every rate."""
    count = settings.num_prompts
    gaps, lengths = np.random.default_rng([settings.seed, 0]), np.random.default_rng([settings.seed, 1])
    arrival_s = _arrivals(gaps, count, settings.request_rate, settings.burstiness)
    if settings.trace is not None:
        return _from_trace(settings.trace, arrival_s)
    isl = _lengths(lengths, count, settings.input_tokens, settings)
    osl = _lengths(lengths, count, settings.output_tokens, settings)
    return Requests(arrival_s, isl, osl)


def _arrivals(rng: np.random.Generator, count: int, rate: float, burstiness: float) -> np.ndarray:
    if math.isinf(rate) or count == 0:
        return np.zeros(count)
    if math.isinf(burstiness):  # noqa: SIM108
        gaps = np.full(count, 1.0)
    else:
        gaps = rng.gamma(burstiness, 1.0 / burstiness, count)
    arrival = np.cumsum(gaps)
    if arrival[-1] == 0:  # bunched beyond what a number holds
        return np.zeros(count)
    return arrival * (count / rate / arrival[-1])


def _lengths(rng: np.random.Generator, count: int, nominal: int, settings: BenchSettings) -> np.ndarray:
    low = max(int(math.floor(nominal * settings.range_low_frac)), 1)  # noqa: RUF046
    high = max(int(math.ceil(nominal * settings.range_high_frac)), low)  # noqa: RUF046
    if low == high:
        return np.full(count, low, np.int64)
    return rng.integers(low, high + 1, count)


def _from_trace(trace: Trace, arrival_s: np.ndarray) -> Requests:
    rows = np.arange(len(arrival_s)) % len(trace)
    starts = None if trace.block_offsets is None else trace.block_offsets[:-1][rows]
    sessions = None if trace.session_ids is None else trace.session_ids[rows]
    return Requests(
        arrival_s, trace.isl_tokens[rows], trace.osl_tokens[rows], None,
        trace.block_hashes, starts, trace.block_tokens if trace.block_hashes is not None else 0, sessions,
    )  # fmt: skip


def overhead_of(system: System, requests: Requests) -> np.ndarray:
    """Seconds that each request spends outside the engines (HTTP, tokenising), before it reaches one."""
    times = [(lane.entry[0].instance.step_times) for lane in system.lanes]
    lane = np.zeros(len(requests.arrival_s), np.int64) if requests.lane is None else requests.lane
    fixed = np.array([time.request_s for time in times])[lane]
    by_token = np.array([time.prompt_token_s for time in times])[lane]
    return fixed + by_token * requests.isl_tokens


def simulate_bench(
    system: System, settings: BenchSettings, machine: Machine | None = None
) -> dict[str, float]:
    """One benchmark run → the keys of `vllm bench serve --save-result`. Reuse `machine` over many runs."""
    return bench_result(run_bench(system, settings, machine))


def run_bench(system: System, settings: BenchSettings, machine: Machine | None = None) -> Served:
    """One benchmark run, request by request."""
    return run_requests(system, bench_requests(settings), settings.max_concurrency, settings.seed, machine)


def run_requests(
    system: System, requests: Requests, limit: int = 0, seed: int = 0, machine: Machine | None = None
) -> Served:
    """The same for requests of one's own; `limit` in flight (0 = no limit)."""
    return serve(
        machine or build_machine(system),
        system,
        requests,
        limit=limit,
        seed=seed,
        overhead_s=overhead_of(system, requests),
    )


def bench_result(served: Served) -> dict[str, float]:
    """Figures of a run, named and scaled as `vllm bench serve` does."""
    count = len(served.start_s)
    duration_s = float(served.finish_s.max() - served.start_s.min()) if count else 0.0
    tokens_in, tokens_out = int(served.isl_tokens.sum()), int(served.osl_tokens.sum())
    result: dict[str, float] = {
        "completed": count,
        "failed": 0,
        "duration": duration_s,
        "total_input_tokens": tokens_in,
        "total_output_tokens": tokens_out,
        "request_throughput": count / duration_s if duration_s else 0.0,
        "output_throughput": tokens_out / duration_s if duration_s else 0.0,
        "total_token_throughput": (tokens_in + tokens_out) / duration_s if duration_s else 0.0,
    }
    for name, values in (("ttft", served.ttft_s), ("tpot", served.tpot_s), ("e2el", served.e2el_s)):
        result |= _summary(name, values)
    return result | _itl_summary(served)


def _summary(name: str, values_s: np.ndarray) -> dict[str, float]:
    if len(values_s) == 0:
        values_s = np.zeros(1)
    points = np.percentile(values_s, PERCENTILES) / MILLI
    named = {
        f"p{percent:g}_{name}_ms": float(point) for percent, point in zip(PERCENTILES, points, strict=True)
    }
    return {
        f"mean_{name}_ms": float(values_s.mean()) / MILLI,
        f"median_{name}_ms": float(points[0]),
        f"std_{name}_ms": float(values_s.std()) / MILLI,
    } | named


def _itl_summary(served: Served) -> dict[str, float]:
    count = max(served.itl_count, 1)
    mean = served.itl_sum_s / count
    spread = math.sqrt(max(served.itl_squares_s2 / count - mean * mean, 0.0))
    points = np.nan_to_num(quantiles(served.itl_histogram, np.array(PERCENTILES) / 100.0)) / MILLI
    named = {f"p{percent:g}_itl_ms": float(point) for percent, point in zip(PERCENTILES, points, strict=True)}
    return {
        "mean_itl_ms": mean / MILLI,
        "median_itl_ms": float(points[0]),
        "std_itl_ms": spread / MILLI,
    } | named
