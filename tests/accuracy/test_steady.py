"""The steady state against a plain token-by-token loop, and its laws."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moai_planner.accuracy import steady
from moai_planner.domain.provenance import Basis
from moai_planner.domain.step import StepTimes
from moai_planner.simulate.bench import BenchSettings, simulate_bench
from moai_planner.simulate.system import colocated, disaggregated
from tests.simulate.builders import instance, transfer

BATCHES = np.arange(513)
TIMES = StepTimes(
    decode_s=0.010 + 20e-6 * BATCHES,
    tokens=np.array([1.0, 256.0, 8192.0]),
    mixed_s=np.array([0.010, 0.016, 0.260]),
    pair_s=1e-10,
    kv_s=2e-8,
    stages=1,
    request_s=0.005,
    prompt_token_s=0.0,
    basis=Basis.ASSUMED,
    low_frac=0.8,
    high_frac=1.2,
)


def record(**changes) -> np.ndarray:
    values = dict.fromkeys(steady.RUN.names, 0) | {
        "concurrency": 16,
        "requests": 160,
        "isl_tokens": 1000,
        "osl_tokens": 200,
        "prefill_workers": 1,
        "prefill_ranks": 1,
        "decode_workers": 1,
        "decode_ranks": 1,
        "budget_tokens": 8192,
        "max_sequences": 512,
        "kv_tokens": 1e9,
        "accepted_tokens": 1,
        "receive_steps": 1,
    }
    return np.array([tuple((values | changes).values())], dtype=steady.RUN)


def solve(**changes):
    return steady.solve_steady(steady.pack([TIMES]), record(**changes))[0]


def token_loop(concurrency: int, isl: int, osl: int, requests: int) -> tuple[float, float]:
    """Closed loop, one step after the other: mean TPOT and requests per second."""
    rng = np.random.default_rng(0)
    waiting, started = [0.0] * concurrency, concurrency
    running: list[list[float]] = []  # [tokens made, target, time of the first token]
    now, tpots = 0.0, []
    while len(tpots) < requests:
        fresh = []
        room = 8192 - len(running)
        while waiting and waiting[0] <= now and room >= isl:
            waiting.pop(0)
            fresh.append([0, int(osl * rng.uniform(0.8, 1.2)), 0.0])
            room -= isl
        if not running and not fresh:
            now = waiting[0]
            continue
        context = sum(isl + one[0] for one in running)
        if fresh:
            pairs = len(fresh) * isl**2 / 2
            now += float(TIMES.mixed_step_s(len(fresh) * isl + len(running), pairs, context))
        else:
            now += float(TIMES.decode_step_s(len(running), context))
        for one in running:
            one[0] += 1
        for one in fresh:
            one[0], one[2] = 1, now
        running += fresh
        for one in [one for one in running if one[0] >= one[1]]:
            running.remove(one)
            tpots.append((now - one[2]) / (one[1] - 1))
            if started < requests:
                waiting.append(now + TIMES.request_s)
                started += 1
    return float(np.mean(tpots)), requests / now


@pytest.mark.parametrize(
    ("concurrency", "isl", "osl"), [(1, 1000, 200), (8, 1000, 200), (32, 500, 400), (64, 2000, 300)]
)
def test_agrees_with_a_token_by_token_loop(concurrency, isl, osl):
    """Oracle: the plain loop, whose steps have the same times."""
    tpot_s, req_per_s = token_loop(concurrency, isl, osl, requests=10 * concurrency)
    found = solve(
        concurrency=concurrency, isl_tokens=isl, osl_tokens=osl, requests=10 * concurrency, length_cv=0.115
    )
    assert found["tpot_s"] == pytest.approx(tpot_s, rel=0.08)
    assert found["req_per_s"] == pytest.approx(req_per_s, rel=0.12)


def test_one_request_alone_meets_no_other_prompt():
    """With one request in flight TPOT is the plain decode step."""
    context = 1000 + 100
    assert solve(concurrency=1)["tpot_s"] == pytest.approx(float(TIMES.decode_step_s(1, context)), rel=0.01)


@settings(max_examples=30, deadline=None)
@given(
    concurrency=st.integers(1, 256),
    isl=st.integers(16, 4000),
    osl=st.integers(8, 2000),
    faster=st.sampled_from(("isl_tokens", "osl_tokens")),
)
def test_little_holds_and_more_load_is_not_faster(concurrency, isl, osl, faster):
    """Little's law inside a closed loop; TPOT does not fall when concurrency doubles."""
    one = solve(concurrency=concurrency, isl_tokens=isl, osl_tokens=osl, requests=1e6)
    two = solve(concurrency=2 * concurrency, isl_tokens=isl, osl_tokens=osl, requests=1e6)
    in_flight = one["req_per_s"] * (one["ttft_median_s"] + (osl - 1) * one["tpot_s"])
    assert in_flight == pytest.approx(concurrency, rel=0.05)
    assert two["tpot_s"] >= 0.995 * one["tpot_s"]
    assert two["req_per_s"] >= 0.97 * one["req_per_s"]


def test_slow_arrivals_are_all_served():
    """An open loop far below its capacity serves its rate."""
    found = solve(arrivals=steady.OPEN, concurrency=0, rate_req_per_s=1.0, requests=10000)
    assert found["req_per_s"] == pytest.approx(1.0, rel=0.01)


def test_transfer_limits_disaggregated_throughput():
    """No more requests pass than the network between the pools lets through."""
    found = solve(disaggregated=1, concurrency=256, transfer_token_s=1e-3, requests=1e6)
    assert found["req_per_s"] <= 1.0 + 1e-6


def test_a_queue_of_short_prompts_is_computed_together():
    """Law: where a step's fixed time dominates, many short prompts take less than one by one."""
    fields = {"disaggregated": 1, "isl_tokens": 256.0, "osl_tokens": 2.0, "concurrency": 4096.0}
    one_by_one = solve(**fields, budget_tokens=256.0)["req_per_s"]
    together = solve(**fields, budget_tokens=8192.0)["req_per_s"]
    assert together > 1.2 * one_by_one


def test_idle_expert_ranks_do_not_count_as_full():
    """Law: two requests over eight ranks that share experts are no slower than sixteen."""
    fields = {"disaggregated": 1, "decode_ranks": 8.0, "isl_tokens": 256.0, "osl_tokens": 512.0}
    assert solve(**fields, concurrency=2.0)["tpot_s"] < solve(**fields, concurrency=16.0)["tpot_s"]


def test_first_requests_of_a_closed_loop_wait_for_each_other():
    """Law: with ten requests a slot a tenth of them comes at once; more slots, more waiting."""
    fields = {"disaggregated": 1, "isl_tokens": 2048.0, "osl_tokens": 1024.0}
    few = solve(**fields, concurrency=8.0, requests=80.0)
    many = solve(**fields, concurrency=64.0, requests=640.0)
    assert many["last_s"] > few["last_s"]
    assert many["ttft_s"] >= many["ttft_median_s"]


@pytest.mark.parametrize(
    ("concurrency", "isl", "osl"), [(8, 1024, 512), (64, 1024, 1024), (64, 8192, 1024), (32, 4096, 256)]
)
def test_p99_between_tokens_agrees_with_the_simulator(concurrency, isl, osl):
    """Oracle: the event simulator, which counts every step, within 15 %."""
    one = instance(TIMES, 10_000_000, max_num_batched_tokens=8192)
    run = BenchSettings(
        num_prompts=10 * concurrency,
        max_concurrency=concurrency,
        input_tokens=isl,
        output_tokens=osl,
        range_low_frac=0.8,
    )
    counted_s = simulate_bench(colocated(one), run)["p99_itl_ms"] / 1e3
    found = solve(
        concurrency=concurrency,
        requests=10 * concurrency,
        isl_tokens=0.9 * isl,
        osl_tokens=0.9 * osl,
        length_cv=0.064,
    )
    assert found["late_step_s"] == pytest.approx(counted_s, rel=0.15)


def test_a_prompt_on_one_rank_is_cheaper_than_one_on_each():
    """Law: what experts spend on the other ranks' tokens is spared when these have none."""
    fields = {"decode_ranks": 8.0, "isl_tokens": 4096.0, "concurrency": 16.0}
    shared = replace(TIMES, group_token_s=1e-5)
    alone = steady.solve_steady(steady.pack([shared]), record(**fields))[0]
    assert alone["tpot_s"] < solve(**fields)["tpot_s"]


def test_ranks_padded_alike_spare_nothing():
    """Law: where every rank runs as many rows as the fullest, a prompt on one costs what one on each does."""
    fields = {"decode_ranks": 8.0, "isl_tokens": 4096.0, "concurrency": 16.0}
    padded = replace(TIMES, group_token_s=1e-5, padded_ranks=True)
    assert steady.solve_steady(steady.pack([padded]), record(**fields))[0] == solve(**fields)


@pytest.mark.parametrize(
    ("workers", "rate", "isl", "osl", "limit"),
    [(1, 4, 8192, 512, 32), (1, 4, 8192, 2048, 32), (5, 2, 8192, 1024, 32), (5, 4, 4096, 1024, 64)],
)
def test_the_median_request_of_a_finite_run_meets_the_most(workers, rate, isl, osl, limit):
    """Oracle: the event simulator, two requests a slot, a router that sees some of the loads: mean TPOT
    within 6 %, the median, which is up to 15 % above it, within 3 %."""
    ranks = instance(TIMES, 10_000_000, 8, True, max_num_batched_tokens=8192)
    fields = {"isl_tokens": isl, "osl_tokens": osl, "concurrency": limit * workers}
    fields |= {"requests": 2 * limit * workers, "rate_req_per_s": rate * workers}
    run = BenchSettings(
        fields["requests"],
        rate * workers,
        max_concurrency=limit * workers,
        input_tokens=isl,
        output_tokens=osl,
    )
    router = "power-of-two" if workers > 1 else "least-outstanding"
    counted = simulate_bench(colocated(ranks, workers, router), run)
    found = solve(**fields, arrivals=steady.OPEN, decode_workers=workers, decode_ranks=8.0)
    assert found["tpot_median_s"] > found["tpot_s"]
    assert found["tpot_s"] == pytest.approx(counted["mean_tpot_ms"] / 1e3, rel=0.06)
    assert found["tpot_median_s"] == pytest.approx(counted["median_tpot_ms"] / 1e3, rel=0.03)


@pytest.mark.parametrize(("rate", "limit"), [(4, 0), (8, 96), (16, 96)])
def test_decoding_at_a_rate_meets_the_crowd_as_simulated(rate, limit):
    """Oracle: the event simulator, one prefill and one decode instance, within 4 %. The mean in flight over
    the whole run, ramps included, would be 9 to 15 % too fast."""
    steep = replace(TIMES, decode_s=0.010 + 200e-6 * BATCHES)
    one = instance(steep, 10_000_000, max_num_batched_tokens=8192)
    run = BenchSettings(192, rate, max_concurrency=limit, input_tokens=512, output_tokens=512)
    counted = simulate_bench(disaggregated(one, 1, one, 1, transfer(bytes_per_s=1e12)), run)
    found = steady.solve_steady(
        steady.pack([steep]),
        record(
            disaggregated=1, arrivals=steady.OPEN, rate_req_per_s=rate, concurrency=limit, requests=192,
            isl_tokens=512, osl_tokens=512,
        ),
    )[0]  # fmt: skip
    assert found["tpot_s"] == pytest.approx(counted["median_tpot_ms"] / 1e3, rel=0.04)


@pytest.mark.parametrize(
    ("rate", "isl", "osl", "limit", "within"),
    [(2, 1024, 512, 0, 0.02), (4, 4096, 1024, 0, 0.08), (4, 8192, 512, 0, 0.25), (4, 8192, 512, 32, 0.08)],
)
def test_prompts_at_a_rate_start_together_as_simulated(rate, isl, osl, limit, within):
    """Oracle: the event simulator, eight ranks in lockstep. Prompts one a step: 95 % off at the third."""
    ranks = instance(TIMES, 10_000_000, 8, True, max_num_batched_tokens=8192)
    requests = 64 if limit else 2000
    run = BenchSettings(requests, rate, max_concurrency=limit, input_tokens=isl, output_tokens=osl)
    simulated_s = simulate_bench(colocated(ranks), run)["mean_tpot_ms"] / 1e3
    fields = {"isl_tokens": isl, "osl_tokens": osl, "concurrency": limit, "requests": requests}
    found = solve(**fields, arrivals=steady.OPEN, rate_req_per_s=rate, decode_ranks=8.0)
    assert found["tpot_s"] == pytest.approx(simulated_s, rel=within)


def test_prompts_held_back_for_balance():
    """A lone prompt runs; few of long answers wait about the limit; many a fraction of a step."""
    assert solve(decode_ranks=2, concurrency=1, hold_steps=60) == solve(decode_ranks=2, concurrency=1)
    few = {"decode_ranks": 2, "concurrency": 16, "osl_tokens": 8000}
    waits = solve(**few, hold_steps=60)["ttft_s"] - solve(**few)["ttft_s"]
    assert 0.8 * 60 * 0.010 < waits < 1.1 * 60 * 0.0105
    many = {"decode_ranks": 2, "concurrency": 400, "osl_tokens": 100, "requests": 400_000}
    held, free = solve(**many, hold_steps=60), solve(**many)
    assert held["ttft_s"] - free["ttft_s"] < held["tpot_s"]


def test_prompts_held_back_enter_together():
    """Long prompts on eight ranks cost what a prompt on each rank at once does: a step with prompts serves
    several ranks, so throughput comes near that of ranks that never wait for another's prompt."""
    fields = {"isl_tokens": 4000.0, "osl_tokens": 500.0, "concurrency": 128, "requests": 1e6}
    apart = solve(**fields, decode_ranks=8)["req_per_s"]
    held = solve(**fields, decode_ranks=8, hold_steps=60)["req_per_s"]
    alone = solve(**fields | {"concurrency": 16})["req_per_s"] * 8
    assert apart < 0.75 * alone
    assert 0.9 * alone < held <= 1.001 * alone


def test_requests_looked_for_every_thirty_steps():
    """A new request waits for half of thirty steps; those that meet share a step: TPOT does not rise."""
    fields = {"separate": 1, "concurrency": 32, "requests": 1e6}
    often, seldom = solve(**fields), solve(**fields, receive_steps=30)
    waits = seldom["ttft_median_s"] - often["ttft_median_s"]
    assert 13.0 * often["tpot_s"] < waits < 20.0 * often["tpot_s"]
    assert seldom["tpot_s"] <= often["tpot_s"]


def test_first_requests_count_in_throughput():
    """Little's law over the whole run: concurrency = rate · mean end-to-end time, burst included."""
    for fields in ({}, {"disaggregated": 1}):
        found = solve(**fields, concurrency=64, requests=640, osl_tokens=1000)
        assert found["ttft_s"] > 1.02 * found["ttft_median_s"]
        assert found["req_per_s"] * found["e2el_s"] == pytest.approx(64, rel=0.02)


def prompts_first_loop(concurrency: int, isl: int, osl: int, room: int = 512) -> dict[str, float]:
    """Closed loop of equal requests where prompts run before decoding, ten a slot."""
    now, started, ended, ttft, gaps = 0.0, concurrency, [], [], []
    waiting, running = [0.0] * concurrency, []  # arrivals; [tokens made, time of the last]
    while len(ended) < 10 * concurrency:
        if waiting and len(running) < room:
            take = min(max(1, 8192 // isl), room - len(running))
            taken, waiting = waiting[:take], waiting[take:]
            tokens = isl * len(taken)
            now += np.interp(tokens, TIMES.tokens, TIMES.mixed_s) + TIMES.pair_s * len(taken) * isl**2 / 2
            running += [[1, now] for _ in taken]
            ttft += [now - arrived for arrived in taken]
            continue
        now += TIMES.decode_s[len(running)] + TIMES.kv_s * sum(isl + made for made, _ in running)
        for one in running:
            gaps.append(now - one[1])
            one[:] = one[0] + 1, now
        done = sum(one[0] == osl for one in running)
        ended += [now] * done
        more = min(done, 10 * concurrency - started)
        waiting, started = waiting + [now] * more, started + more
        running = [one for one in running if one[0] < osl]
    return {
        "ttft_s": np.mean(ttft),
        "last_s": np.percentile(ttft, 99),
        "tpot_s": np.sum(gaps) / len(ended) / (osl - 1),
        "gap_s": np.percentile(gaps, 99),
        "req_per_s": len(ended) / now,
    }


def test_warming_up_delays_the_first_requests_alone():
    """A tenth of the requests wait 5 s more: the mean by half a second, the median and a token not at all."""
    for fields in ({}, {"separate": 1, "waves": 1}, {"disaggregated": 1}):
        cold, warm = solve(**fields, warmup_s=5.0), solve(**fields)
        assert cold["ttft_s"] - warm["ttft_s"] == pytest.approx(0.5)
        assert cold["e2el_s"] - warm["e2el_s"] == pytest.approx(0.5)
        assert cold["last_s"] - warm["last_s"] == pytest.approx(5.0)
        assert cold["ttft_median_s"] == warm["ttft_median_s"] and cold["tpot_s"] == warm["tpot_s"]
        assert cold["req_per_s"] / warm["req_per_s"] == pytest.approx(warm["e2el_s"] / cold["e2el_s"])
    served = [solve(arrivals=steady.OPEN, rate_req_per_s=2.0, concurrency=0, warmup_s=s) for s in (0.0, 5.0)]
    assert served[0] == served[1]


@pytest.mark.parametrize(
    ("concurrency", "isl", "osl"),
    [(1, 1024, 128), (4, 1024, 128), (64, 1024, 80), (64, 1024, 512), (64, 4096, 16), (64, 1024, 2)],
)
def test_equal_requests_come_in_waves_where_prompts_run_first(concurrency, isl, osl):
    """Oracle: a plain loop, within 3 %. One by one, the first token would be up to 20 times too early."""
    counted = prompts_first_loop(concurrency, isl, osl)
    fields = {"concurrency": concurrency, "requests": 10 * concurrency, "isl_tokens": isl, "osl_tokens": osl}
    found = solve(**fields, separate=1, waves=1)
    assert found["ttft_s"] - TIMES.request_s == pytest.approx(counted["ttft_s"], rel=0.03)
    assert found["last_s"] - TIMES.request_s == pytest.approx(counted["last_s"], rel=0.03)
    assert found["tpot_s"] == pytest.approx(counted["tpot_s"], rel=0.03)
    assert found["late_step_s"] == pytest.approx(counted["gap_s"], rel=0.03)
    assert found["req_per_s"] == pytest.approx(counted["req_per_s"], rel=0.03)


def test_waves_wait_for_room():
    """Oracle: the same loop with room for half of the requests, the rest of which wait for a whole wave."""
    counted = prompts_first_loop(64, 1024, 512, room=32)
    fields = {"concurrency": 64, "requests": 640, "isl_tokens": 1024, "osl_tokens": 512}
    found = solve(**fields, separate=1, waves=1, max_sequences=32)
    assert found["batch"] == 32
    assert found["tpot_s"] == pytest.approx(counted["tpot_s"], rel=0.03)
    assert found["req_per_s"] == pytest.approx(counted["req_per_s"], rel=0.03)


@given(st.sampled_from([0.5, 1, 3, 16, 100]), st.sampled_from([1, 8]), st.sampled_from([1, 4]))
@settings(max_examples=20, deadline=None)
def test_little_holds_in_waves(concurrency, ranks, workers):
    fields = {"decode_ranks": ranks, "decode_workers": workers, "accepted_tokens": 2.5, "draft_tokens": 3}
    found = solve(concurrency=concurrency, requests=1e4, separate=1, waves=1, **fields)
    assert found["req_per_s"] * found["e2el_s"] == pytest.approx(concurrency)
    assert found["batch"] * ranks * workers <= concurrency * 1.001


@pytest.mark.parametrize(("isl", "osl"), [(1024, 128), (8192, 512), (30000, 256)])
def test_one_equal_request_on_each_rank_in_lockstep_comes_in_waves(isl, osl):
    """Oracle: the event simulator, within 3 %. Prompts one after the other would take up to 8 times."""
    ranks = instance(TIMES, 10_000_000, 8, True, max_num_batched_tokens=8192)
    run = BenchSettings(80, np.inf, max_concurrency=8, input_tokens=isl, output_tokens=osl)
    counted = simulate_bench(colocated(ranks), run)
    fields = {"isl_tokens": isl, "osl_tokens": osl, "concurrency": 8, "requests": 80, "decode_ranks": 8.0}
    found = solve(**fields, waves=1)
    assert found["ttft_s"] == pytest.approx(counted["mean_ttft_ms"] / 1e3, rel=0.03)
    assert found["tpot_s"] == pytest.approx(counted["mean_tpot_ms"] / 1e3, rel=0.03)
    assert found["req_per_s"] == pytest.approx(counted["request_throughput"], rel=0.03)


@pytest.mark.parametrize("requests", [1, 32])
def test_prompts_one_by_one_are_timed_for_one(requests):
    """Law: the first token is that of one prompt whatever the batch; the batch waits for all of them."""
    fields = {"arrivals": steady.STATIC, "isl_tokens": 128, "osl_tokens": 2, "concurrency": requests}
    alone = solve(**fields, requests=1)
    found = solve(**fields, requests=requests, one_by_one=1)
    assert found["ttft_s"] == pytest.approx(alone["ttft_s"])
    waited = found["e2el_s"] - found["tpot_s"] - TIMES.request_s
    assert waited == pytest.approx(requests * (alone["ttft_s"] - TIMES.request_s))
