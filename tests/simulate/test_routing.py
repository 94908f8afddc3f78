"""Routing truth on the Mooncake conversation trace: sending prefixes home saves prefill work and time."""

from __future__ import annotations

import numpy as np

from moai_planner.catalog.traces import trace
from moai_planner.simulate.serve import Requests, serve
from moai_planner.simulate.system import System, build_machine, colocated
from moai_planner.simulate.traffic import requests_of
from tests.simulate.builders import plain_instance

REPLICAS = 8


def _serve(router, blocks):
    model = plain_instance(64, blocks, max_model_len=200_000)
    system = System(colocated(model, REPLICAS).lanes, router=router)
    requests, _ = requests_of(trace("mooncake_conversation"), system, 1.0)
    return requests, serve(build_machine(system), system, requests)


def test_turns_go_round_the_instances_first():
    """Law: what comes at once is spread over instances before it fills the ranks of one."""
    model = plain_instance(dp=4)
    for router in ("round-robin", "least-outstanding"):
        system = colocated(model, 3, router)
        requests = Requests(np.zeros(6), np.full(6, 64), np.full(6, 64))
        served = serve(build_machine(system), system, requests)
        assert np.bincount(served.rank // 4).tolist() == [2, 2, 2]


def test_prefix_aware_beats_random():
    """Law: with the same memory, prefix-aware routing has a lower TTFT and computes fewer prompt tokens."""
    _, random = _serve("random", 40_000)
    _, aware = _serve("prefix-aware", 40_000)
    assert aware.ttft_s.mean() < random.ttft_s.mean()
    assert aware.hit_tokens.sum() > 1.1 * random.hit_tokens.sum()


def test_hits_agree_with_ideal_reuse_when_all_fits():
    """Law: one cache that holds everything finds what an ideal cache finds, and never more."""
    model = plain_instance(64, 10_000_000, max_model_len=200_000)
    system = colocated(model)
    requests, _ = requests_of(trace("mooncake_conversation"), system, 0.05)
    served = serve(build_machine(system), system, requests)
    seen: set[int] = set()
    ideal = np.zeros(len(requests.isl_tokens), np.int64)
    for i, (start, isl) in enumerate(zip(requests.starts, requests.isl_tokens, strict=True)):
        own = requests.hashes[start : start + isl // 512].tolist()
        found = 0
        while found < min(len(own), (isl - 1) // 512) and own[found] in seen:
            found += 1
        ideal[i] = 512 * found
        seen.update(own)
    assert served.hit_tokens.sum() <= ideal.sum()
    assert served.hit_tokens.sum() > 0.99 * ideal.sum()
