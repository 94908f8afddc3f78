"""Requests that arrive together pass the server's front end one after the other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moai_planner.simulate.bench import FRONT_END_S, front_end_of, overhead_of, run_requests
from moai_planner.simulate.serve import Requests, queued_s, serve
from moai_planner.simulate.system import build_machine, colocated
from tests.simulate.builders import instance, step_times

REQUEST_S = 0.02


def _instance(sequences=400, **more):
    """A step takes 1 ms, whatever is in it."""
    times = step_times(np.full(sequences + 1, 1e-3), mixed_s=(1e-3, 1e-3), request_s=REQUEST_S)
    return instance(times, 200_000, max_num_batched_tokens=100_000, **more)


def _together(count, isl=100, osl=2):
    return Requests(np.zeros(count), np.full(count, isl), np.full(count, osl))


@pytest.mark.parametrize("limit", [0, 300])
def test_a_burst_waits_for_its_turn(limit):
    """Law: of 300 requests at once the k-th reaches the engine after k turns, with a limit as without."""
    served = run_requests(colocated(_instance()), _together(300), limit)
    turns = (np.arange(300) + 1) * FRONT_END_S + REQUEST_S - FRONT_END_S
    wait = np.sort(served.ttft_s) - turns
    assert np.all(wait >= 1e-3 - 1e-9)
    assert np.all(wait <= 2e-3 + 1e-9)  # the step under way and its own


def test_requests_apart_do_not_wait():
    requests = Requests(np.arange(50) * 0.1, np.full(50, 100), np.full(50, 2))
    served = run_requests(colocated(_instance()), requests)
    assert served.ttft_s == pytest.approx(np.full(50, REQUEST_S + 1e-3))


def test_every_rank_has_a_front_end():
    """Law: twice the instances, or the ranks of one, take half the time of a burst."""
    one = front_end_of(colocated(_instance()), _together(10))
    two = front_end_of(colocated(_instance(), 2), _together(10))
    ranks = front_end_of(colocated(_instance(dp=2)), _together(10))
    assert one == pytest.approx(2 * two)
    assert two == pytest.approx(ranks)


def test_short_time_outside_the_engine_is_all_it_keeps():
    """A measured time outside the engine below the front end's usual one stands for it."""
    quick = _instance()
    quick = replace(quick, step_times=replace(quick.step_times, request_s=0.001))
    system, requests = colocated(quick), _together(5)
    assert front_end_of(system, requests) == pytest.approx(overhead_of(system, requests))


def test_random_arrivals_wait_as_pollaczek_and_khinchine_say():
    """One server, Poisson arrivals, fixed service: a mean wait of rho / (2 (1 - rho)) services."""
    rng = np.random.default_rng(5)
    service, load = 0.003, 0.7
    arrival = np.cumsum(rng.exponential(service / load, 400_000))
    wait = queued_s(arrival, np.full(len(arrival), service)).mean()
    assert wait == pytest.approx(load / (2 * (1 - load)) * service, rel=0.03)


def test_lanes_do_not_wait_for_each_other():
    lane = np.array([0, 1, 0, 1])
    wait = queued_s(np.zeros(4), np.full(4, 1.0), lane)
    assert wait.tolist() == [0.0, 0.0, 1.0, 1.0]


def test_a_closed_loop_waits_only_at_its_start():
    """The first requests come together, each later one when another ends."""
    served = run_requests(colocated(_instance(40)), _together(200, osl=200), 40)
    assert served.ttft_s[:40].max() > 39 * FRONT_END_S
    assert np.median(served.ttft_s[80:]) < REQUEST_S + 2 * FRONT_END_S


def test_order_of_arrival_is_kept():
    """A long prompt that came first is read first: nobody is served by length."""
    isl = np.array([9000, 10, 20])
    requests = Requests(np.zeros(3), isl, np.full(3, 2))
    times = replace(_instance().step_times, prompt_token_s=2e-6)
    system = colocated(replace(_instance(), step_times=times))
    served = run_requests(system, requests, 3)
    assert served.admit_s.argmin() == 0
    bare = serve(build_machine(system), system, requests, limit=3, overhead_s=overhead_of(system, requests))
    assert bare.admit_s.argmin() == 1
