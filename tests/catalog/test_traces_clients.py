"""Sampling from clients keeps rates, burstiness and lengths."""

from __future__ import annotations

import numpy as np
import pytest

from moai_planner.catalog.paths import data_root
from moai_planner.catalog.trace_formats import clients, clients_file
from moai_planner.catalog.trace_formats.requests import Source
from moai_planner.catalog.traces import _content


@pytest.fixture(scope="module")
def population():
    path = data_root() / "workload_traces" / "servegen_deepseek_r1.jsonl.gz"
    return clients_file.read_clients(Source("servegen", str(path), _content(path)), clients_file.parse_client)


def expected(population, start_s, end_s):
    """Requests, prompt tokens and output tokens that the windows promise."""
    requests = prompt = output = 0.0
    for client in population:
        for window in client.windows:
            span_s = max(0.0, min(window.end_s, end_s) - max(window.start_s, start_s))
            count = window.rate_req_per_s * span_s
            if count:
                requests += count
                prompt += count * clients._at(client.inputs, window.start_s).mean_tokens
                output += count * clients._at(client.outputs, window.start_s).mean_tokens
    return np.array([requests, prompt, output])


@pytest.mark.parametrize("start_s", [0, 43200, 78000])
def test_sampled_rates_and_lengths_are_the_windows(population, start_s):
    """Law: requests, prompt and output tokens within 2.5 % of rate × time × mean length in each hour."""
    drawn = clients.sample(population, start_s, 3600, seed=3)
    found = np.array([len(drawn.arrival_s), drawn.isl_tokens.sum(), drawn.osl_tokens.sum()])
    assert found / expected(population, start_s, start_s + 3600) == pytest.approx(1, abs=0.025)


def test_the_busiest_hour_is_the_one_described(population):
    assert clients.busiest_start_s(population, 3600) == 78000


@pytest.mark.parametrize(
    ("law", "shape", "cv"), [("gamma", 0.04, 5.0), ("gamma", 4.0, 0.5), ("weibull", 0.5, 5**0.5)]
)
def test_equilibrium_keeps_the_rate_of_short_windows(law, shape, cv):
    """Law: the mean count in any window is rate × length, even where few gaps fit into it."""
    random = np.random.default_rng(5)
    counts = [len(clients.equilibrium_arrivals(0.5, law, shape, 20.0, random)) for _ in range(8000)]
    assert np.mean(counts) == pytest.approx(10, abs=4 * np.std(counts) / np.sqrt(len(counts)))
    gaps = np.diff(clients.equilibrium_arrivals(50.0, law, shape, 8000.0, random))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05)


def test_a_client_draws_the_same_without_the_others(population):
    """Law: streams are independent of each other."""
    together = clients.sample(population, 78000, 3600, seed=0)
    one = next(client for client in population if client.id == together.client_ids[99])
    alone = clients.sample([one], 78000, 3600, seed=0)
    mine = together.client_ids == one.id
    assert np.array_equal(together.arrival_s[mine], alone.arrival_s)
    assert np.array_equal(together.isl_tokens[mine], alone.isl_tokens)
