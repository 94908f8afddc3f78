"""Speed and memory of the simulator, one core, after compilation. The last line is one JSON object.

    python benchmarks/simulate.py [--requests 1000000] [--big 10000000]

decode-heavy: 100-token prompts, 500-token answers, plain decode. chunked + prefix: 2,000-token prompts in
chunks of 2,048 tokens with three of four granules shared. azure: lengths of the shipped conversation trace
with
Poisson arrivals of 2 (one replica) and 8 requests/s (four replicas), per CPU second.
"""

from __future__ import annotations

import argparse
import json
import resource
import time

import numpy as np

from moai_planner.domain.layout import Engine
from moai_planner.domain.provenance import Basis
from moai_planner.domain.step import MemoryBudget, StepTimes
from moai_planner.simulate.instance import InstanceModel
from moai_planner.simulate.serve import Requests, serve
from moai_planner.simulate.system import build_machine, colocated


def instance(sequences: int = 256, blocks: int = 60_000, tokens: int = 8192) -> InstanceModel:
    """An invented engine: 8 ms a step and a bit for each sequence, prompt token and KV token."""
    batch, grid = np.arange(sequences + 1), np.array([1.0, 256.0, 1024.0, 8192.0])
    times = StepTimes(
        0.008 + 2e-5 * batch, grid, 0.008 + 2e-5 * grid, 1e-10, 1e-8, 1, 0.0, 0.0, Basis.ASSUMED, 0.9, 1.1
    )
    engine = Engine(max_num_seqs=sequences, max_num_batched_tokens=tokens)
    return InstanceModel(times, engine, MemoryBudget(0, 0, 0, 0, 1, 1, 0, blocks, 16 * blocks))


def poisson(count: int, rate: float, seed: int = 0) -> np.ndarray:
    return np.cumsum(np.random.default_rng(seed).exponential(1.0 / rate, count))


def rate_of(model: InstanceModel, requests: Requests, replicas: int = 1) -> float:
    """Requests simulated per CPU second."""
    system = colocated(model, replicas)
    machine = build_machine(system)
    begin_s = time.process_time()
    serve(machine, system, requests)
    return len(requests.arrival_s) / (time.process_time() - begin_s)


def decode_heavy(count: int) -> Requests:
    return Requests(poisson(count, 22.0), np.full(count, 100, np.int32), np.full(count, 500, np.int32))


def chunked_prefix(count: int) -> Requests:
    """Four granules of 512 tokens a prompt, three of them one of 50 system prompts."""
    rng = np.random.default_rng(1)
    family = rng.integers(0, 50, count)
    hashes = np.empty((count, 4), np.int64)
    hashes[:, :3] = family[:, None] * 3 + np.arange(3)
    hashes[:, 3] = 150 + np.arange(count)
    return Requests(
        poisson(count, 12.0), np.full(count, 2060, np.int32), np.full(count, 200, np.int32), None,
        hashes.ravel(), np.arange(count) * 4, 512,
    )  # fmt: skip


def azure(count: int, rate: float) -> Requests:
    from moai_planner.catalog.traces import trace

    lengths = trace("azure_2023_conv")
    rows = np.random.default_rng(2).integers(0, len(lengths), count)
    return Requests(poisson(count, rate), lengths.isl_tokens[rows], lengths.osl_tokens[rows])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--big", type=int, default=10_000_000, help="requests of the memory run; 0 = none")
    options = parser.parse_args()
    begin_s = time.perf_counter()
    rate_of(instance(), decode_heavy(100))
    result: dict[str, float] = {"first_call_s": time.perf_counter() - begin_s}
    result["decode_heavy_requests_per_s"] = rate_of(instance(), decode_heavy(options.requests))
    chunked = chunked_prefix(options.requests // 5)
    result["chunked_prefix_requests_per_s"] = rate_of(instance(tokens=2048), chunked)
    result["azure_conv_1_replica_requests_per_cpu_s"] = rate_of(instance(), azure(100_000, 2.0))
    result["azure_conv_4_replicas_requests_per_cpu_s"] = rate_of(instance(), azure(100_000, 8.0), 4)
    if options.big:
        result["big_run_requests"] = options.big
        result["big_run_requests_per_s"] = rate_of(instance(), decode_heavy(options.big))
    result["peak_rss_bytes"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({key: round(value, 3) for key, value in result.items()}))


if __name__ == "__main__":
    main()
