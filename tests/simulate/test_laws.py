"""Laws of every run: conservation, causality, determinism, monotony, verdicts."""

from __future__ import annotations

import numpy as np
import pytest

from moai_planner.domain.report import OVERLOADED, STABLE
from moai_planner.simulate import fields as f
from moai_planner.simulate.bench import BenchSettings, bench_result, run_bench, simulate_bench
from moai_planner.simulate.serve import Requests, serve
from moai_planner.simulate.statistics import verdict
from moai_planner.simulate.system import (
    ROUTERS,
    Group,
    ServingLane,
    System,
    build_machine,
    colocated,
    disaggregated,
)
from tests.simulate.builders import plain_instance, transfer


def _requests(count=2_000, rate=15.0, seed=0):
    rng = np.random.default_rng(seed)
    isl, osl = rng.integers(50, 600, count), rng.integers(1, 300, count)
    whole = isl // 64
    starts = np.concatenate([[0], np.cumsum(whole)[:-1]])
    family = rng.integers(0, 20, count)
    hashes = np.concatenate([10 * each + np.arange(n) for each, n in zip(family, whole, strict=True)])
    return Requests(np.cumsum(rng.exponential(1 / rate, count)), isl, osl, None, hashes, starts, 64, family)


def _systems():
    model = plain_instance(32, 900)
    yield from (
        pytest.param(System(colocated(model, 3).lanes, router=name), id=name) for name in sorted(ROUTERS)
    )
    yield pytest.param(disaggregated(model, 2, model, 2, transfer()), id="disaggregated")
    yield pytest.param(colocated(plain_instance(32, 900, dp=4, lockstep=True)), id="lockstep")


@pytest.mark.parametrize("system", list(_systems()))
def test_conservation_and_causality(system):
    """Law: every request ends once, in order of cause, and all blocks come back."""
    requests = _requests()
    served = serve(build_machine(system), system, requests)
    assert np.all(served.start_s <= served.admit_s)
    assert np.all(served.admit_s < served.first_s)
    assert np.all(served.first_s <= served.finish_s)
    assert served.itl_count == int((requests.osl_tokens - 1).sum()) == served.itl_histogram.sum()
    assert np.all(served.ranks[:, [f.USED, f.REFERENCED, f.OUTSTANDING, f.RUNNING, f.WAITING]] == 0)
    assert np.all(served.ranks[:, f.PEAK_BLOCKS] <= served.ranks[:, f.BLOCKS])
    again = serve(build_machine(system), system, requests)
    assert again.finish_s.tobytes() == served.finish_s.tobytes()


@pytest.mark.parametrize("limit", [0, 60])
def test_requests_reach_a_lane_in_order_of_arrival(limit):
    """Law: however long each is outside, none passes another of its lane; lanes do not wait for each other.

    One is computed at a time, so requests are admitted as they came."""
    rng = np.random.default_rng(1)
    lane = np.arange(60) % 2
    requests = Requests(np.zeros(60), rng.integers(50, 4000, 60), np.full(60, 3), lane)
    one = ServingLane((Group(plain_instance(1, 900)),))
    outside = np.where(lane == 0, 0.02, 0.5) + 1e-5 * requests.isl_tokens
    system = System((one, one))
    served = serve(build_machine(system), system, requests, limit=limit, overhead_s=outside)
    for number in (0, 1):
        own = lane == number
        assert np.all(np.diff(served.admit_s[own]) > 0)
        assert served.admit_s[own][0] == pytest.approx(outside[own][0])
    assert np.all(served.admit_s >= outside - 1e-12)
    assert served.start_s == pytest.approx(np.zeros(60), abs=1e-12)


def test_a_prompt_waits_until_all_of_it_fits():
    """100 blocks of 16, chunks of 256: beside a prompt of 1,040 tokens one of 800 does not begin with its
    first chunk, for which there is room; one of 500 does."""
    model = plain_instance(8, 100, max_num_batched_tokens=256)
    for second, waits in ((800, True), (500, False)):
        requests = Requests(np.array([0.0, 0.01]), np.array([1040, second]), np.array([20, 5]))
        served = serve(build_machine(colocated(model)), colocated(model), requests)
        assert (served.admit_s[1] >= served.finish_s[0]) == waits


def test_more_instances_never_raise_p99_ttft():
    """Law: with the same requests, first come first served and no caches to split, one more replica never
    hurts."""
    base = _requests(rate=40.0)
    requests = Requests(base.arrival_s, base.isl_tokens, base.osl_tokens)
    p99 = []
    for replicas in (1, 2, 3, 4):
        system = colocated(plain_instance(32, 5000), replicas)
        p99.append(np.percentile(serve(build_machine(system), system, requests).ttft_s, 99))
    assert all(after <= before * (1 + 1e-9) for before, after in zip(p99, p99[1:], strict=False))  # noqa: RUF007


def test_p99_never_falls_when_load_rises():
    """Law: the same requests sent closer together wait no less."""
    system = colocated(plain_instance(32, 5000))
    p99 = []
    for rate in (2.0, 5.0, 10.0, 20.0, 40.0):
        base = _requests(rate=1.0)
        requests = Requests(base.arrival_s / rate, base.isl_tokens, base.osl_tokens)
        p99.append(np.percentile(serve(build_machine(system), system, requests).ttft_s, 99))
    assert all(after >= before for before, after in zip(p99, p99[1:], strict=False))  # noqa: RUF007


def test_verdicts():
    """Law: a queue that only grows is called so; a light load is stable."""
    system = colocated(plain_instance(32, 5000))
    machine = build_machine(system)
    for rate, expected in ((3.0, STABLE), (80.0, OVERLOADED)):
        base = _requests(rate=rate)
        served = serve(machine, system, Requests(base.arrival_s, base.isl_tokens, base.osl_tokens))
        assert verdict(served.start_s, served.admit_s, served.finish_s)[0] == expected


def test_benchmark_keys_and_concurrency():
    """Law: never more in flight than allowed; the figures are those of the requests."""
    system = colocated(plain_instance(64))
    settings = BenchSettings(300, 50.0, max_concurrency=8, output_tokens=20, range_low_frac=0.8)
    served = run_bench(system, settings)
    events = sorted([(t, 1) for t in served.start_s] + [(t, -1) for t in served.finish_s])
    assert max(np.cumsum([change for _, change in events])) == 8
    result = simulate_bench(system, settings)
    assert result == bench_result(served)
    assert result["mean_ttft_ms"] == pytest.approx(1e3 * served.ttft_s.mean())
    assert {"p99_itl_ms", "median_e2el_ms", "total_token_throughput", "std_tpot_ms"} <= set(result)


def test_lone_request_takes_its_steps():
    """Law: a request alone takes its prompt's step and one step a token."""
    model = plain_instance()
    system = colocated(model)
    served = serve(build_machine(system), system, Requests(np.zeros(1), np.array([256]), np.array([3])))
    prompt = float(model.step_times.mixed_step_s(256, 256 * 128, sequences=1))
    decode = sum(float(model.step_times.decode_step_s(1, context)) for context in (257, 258))
    assert served.ttft_s[0] == pytest.approx(prompt, rel=1e-12)
    assert served.e2el_s[0] == pytest.approx(prompt + decode, rel=1e-12)
