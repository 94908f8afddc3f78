"""Queues with known answers: the engine is set up to be M/M/1, M/D/1, M/M/k and M/G/1-PS."""

from __future__ import annotations

import math

import numpy as np
import pytest

from moai_planner.simulate.serve import Requests, serve
from moai_planner.simulate.system import build_machine, colocated
from tests.simulate.builders import instance, step_times

SECONDS_PER_TOKEN = 1e-5
MEAN_TOKENS = 10_000


def _serve(model, arrival_s, isl, osl):
    system = colocated(model)
    return serve(build_machine(system), system, Requests(arrival_s, isl, osl))


def _one_at_a_time():
    """Prompts only, one at a time: a single first-come-first-served server."""
    largest = 40 * MEAN_TOKENS
    times = step_times([0.0, 0.0], [0.0, largest], [0.0, largest * SECONDS_PER_TOKEN])
    return instance(times, blocks=largest, max_num_batched_tokens=largest, max_model_len=largest)


def _lindley(arrival_s, service_s):
    """Waiting times of a single server by their recursion."""
    walk = np.concatenate([[0.0], np.cumsum(service_s[:-1] - np.diff(arrival_s))])
    return walk - np.minimum.accumulate(walk)


@pytest.mark.parametrize("load", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("law", ["M/M/1", "M/D/1"])
def test_single_server_waits(law, load):
    """Law: waits follow Lindley's recursion exactly and Pollaczek–Khinchine within 2 %."""
    count = {0.5: 200_000, 0.7: 400_000, 0.9: 6_000_000}[load]
    rng = np.random.default_rng(8)
    mean_s = MEAN_TOKENS * SECONDS_PER_TOKEN
    tokens = (
        np.maximum(np.ceil(rng.exponential(MEAN_TOKENS, count)), 1).astype(np.int64)
        if law == "M/M/1"
        else np.full(count, MEAN_TOKENS)
    )
    gaps = rng.exponential(mean_s / load, count)
    arrival = np.cumsum(gaps)
    served = _serve(_one_at_a_time(), arrival, tokens, np.ones(count, np.int64))
    wait = served.admit_s - served.start_s
    expected = _lindley(arrival, tokens * SECONDS_PER_TOKEN)
    np.testing.assert_allclose(wait, expected, atol=1e-6 * mean_s * 1e3)
    square = 2.0 if law == "M/M/1" else 1.0
    formula = load * square / (2.0 * (1.0 - load)) * mean_s
    assert wait.mean() == pytest.approx(formula, rel=0.02)


@pytest.mark.parametrize("load", [0.5, 0.7, 0.9])
def test_many_servers_wait_as_erlang_says(load):
    """Law: k sequences that decode at a constant step are k servers (M/M/k, Erlang C)."""
    servers, count, step_s, mean_steps = 4, {0.5: 400_000, 0.7: 1_000_000, 0.9: 6_000_000}[load], 1e-4, 2_000
    times = step_times(np.full(servers + 1, step_s), [1.0, 8192.0], [step_s, step_s])
    rng = np.random.default_rng(3)
    osl = rng.geometric(1.0 / mean_steps, count)
    arrival = np.cumsum(rng.exponential(mean_steps * step_s / servers / load, count))
    served = _serve(
        instance(times, blocks=100_000, block_size_tokens=64), arrival, np.ones(count, np.int64), osl
    )
    offered = servers * load
    last = offered**servers / math.factorial(servers) / (1.0 - load)
    erlang = last / (sum(offered**k / math.factorial(k) for k in range(servers)) + last)
    formula = erlang * mean_steps * step_s / (servers * (1.0 - load))
    wait = (served.admit_s - served.start_s).mean() - 0.5 * step_s * load
    assert wait == pytest.approx(formula, rel=0.02)


@pytest.mark.parametrize("load", [0.5, 0.7, 0.9])
def test_shared_processor(load):
    """Law: a step that takes B units of time shares one server between B sequences (M/G/1-PS)."""
    most, count, step_s, mean_steps = 400, {0.5: 200_000, 0.7: 200_000, 0.9: 3_000_000}[load], 1e-4, 1_000
    batch = np.arange(most + 1)
    times = step_times(step_s * batch, [1.0, 8192.0], [step_s, 8192 * step_s])
    rng = np.random.default_rng(5)
    osl = np.where(rng.random(count) < 0.5, mean_steps // 2, 3 * mean_steps // 2)
    arrival = np.cumsum(rng.exponential(mean_steps * step_s / load, count))
    served = _serve(instance(times, blocks=100_000), arrival, np.ones(count, np.int64), osl)
    assert served.e2el_s.mean() == pytest.approx(mean_steps * step_s / (1.0 - load), rel=0.02)
