"""The closed-form event loop equals the token-by-token reference, to 1e-9, on random small cases."""

from __future__ import annotations

import numpy as np
import pytest

from moai_planner.simulate.serve import Requests, serve
from moai_planner.simulate.system import build_machine, colocated, disaggregated
from tests.simulate import reference
from tests.simulate.builders import instance, step_times, transfer

CASES = 150


def _random_times(rng):
    sequences = int(rng.integers(1, 9))
    padded = np.array([0, 1, 2, 4, 4, 8, 8, 8, 8])[: sequences + 1]
    tokens = np.array([1.0, 5.0, 17.0, 64.0])
    return step_times(
        rng.uniform(0.005, 0.02) + rng.uniform(0, 0.002) * padded, tokens,
        rng.uniform(0.005, 0.02) + rng.uniform(0.0002, 0.002) * tokens,
        rng.uniform(0, 1e-5), rng.choice([0.0, 1.0]) * rng.uniform(0, 1e-5),
    )  # fmt: skip


def _random_instance(rng, longest, dp, lockstep):
    times = _random_times(rng)
    block = int(rng.choice([1, 2, 4, 8]))
    spare = int(rng.integers(0, 60) if rng.random() < 0.7 else 10_000)
    return instance(
        times, blocks=-(-longest // block) + spare // block, dp=dp, lockstep=lockstep, block_size_tokens=block,  # noqa: E501
        max_num_batched_tokens=int(max(rng.integers(4, 40), len(times.decode_s) - 1)),
        long_prefill_token_threshold=int(rng.choice([0, 0, 3, 7])),
        prefix_caching=bool(rng.random() < 0.6),
    )  # fmt: skip


def _requests(rng, count):
    arrival = (
        np.cumsum(rng.exponential(rng.uniform(0.01, 0.4), count)) if rng.random() < 0.8 else np.zeros(count)
    )
    isl, osl = rng.integers(1, 50, count), rng.integers(1, 40, count)
    hashes = []
    for k in range(count):
        family, own = int(rng.integers(0, 3)), int(rng.integers(0, isl[k] // 8 + 1))
        whole = isl[k] // 8
        hashes.append([family * 100 + j if j < own else 1000 + 10 * k + j for j in range(whole)])
    return arrival, isl, osl, hashes


def _reference_ranks(model, granule, unit_instance, slowdown):
    engine = model.engine

    def rank():
        return reference.Rank(
            model.step_times, engine.max_num_seqs, engine.max_num_batched_tokens, engine.long_prefill_token_threshold,  # noqa: E501
            engine.block_size_tokens, model.memory.kv_blocks, granule if engine.prefix_caching else 0,
        )  # fmt: skip

    ranks = [rank() for _ in range(model.dp)]
    groups = [ranks] if model.lockstep else [[one] for one in ranks]
    return ranks, [reference.Unit(group, unit_instance, slowdown) for group in groups]


@pytest.mark.parametrize("kind", ["alone", "replicas", "lockstep", "disaggregated", "first from prefill"])
@pytest.mark.parametrize("chunk", range(3))
def test_equals_token_by_token_reference(kind, chunk):
    """Law: closed form and plain simulation are the same model."""
    seen_preemptions = seen_hits = 0
    for case in range(chunk * CASES // 3, (chunk + 1) * CASES // 3):
        rng = np.random.default_rng([case, len(kind)])
        arrival, isl, osl, hashes = _requests(rng, int(rng.integers(2, 40)))
        longest = int((isl + osl).max())
        separate = kind in ("disaggregated", "first from prefill")
        counts = {"replicas": (2, 0), "disaggregated": (2, 2), "first from prefill": (1, 2)}.get(kind, (1, 0))
        dp = int(rng.integers(2, 4)) if kind == "lockstep" else 1
        model = _random_instance(rng, longest, dp, kind == "lockstep")
        other = _random_instance(rng, longest, 1, False)
        link = transfer(bytes_per_token=float(rng.choice([1e5, 3e6])))
        limit = int(rng.choice([0, 0, 3, 10]))
        overhead = float(rng.choice([0.0, 0.013]))
        first = "prefill" if kind == "first from prefill" else "decode"
        if separate:
            system = disaggregated(model, counts[0], other, counts[1], link, first)
        else:
            system = colocated(model, counts[0])
        starts = np.cumsum([0] + [len(h) for h in hashes])[:-1]
        flat = np.array([h for each in hashes for h in each], np.int64)
        requests = Requests(arrival, isl, osl, None, flat, starts, 8)
        served = serve(
            build_machine(system), system, requests, limit=limit, overhead_s=np.full(len(isl), overhead)
        )
        units, entry, decode = [], [], []
        for k in range(counts[0]):
            ranks, new = _reference_ranks(model, 8, k, 0.0)
            entry += ranks
            units += new
        for k in range(counts[1]):
            ranks, new = _reference_ranks(other, 8, 10 + k, link.decode_slowdown_frac)
            decode += ranks
            units += new
        plain = reference.simulate(
            units, entry, decode, list(arrival), list(zip(isl.tolist(), osl.tolist(), strict=True)), hashes, link,  # noqa: E501
            limit, overhead, first,
        )  # fmt: skip
        label = f"{kind}, case {case}"
        close = {"rtol": 1e-9, "atol": 1e-9, "err_msg": label}
        np.testing.assert_allclose(served.start_s, [s.sent for s in plain], **close)
        np.testing.assert_allclose(served.admit_s, [s.admitted for s in plain], **close)
        np.testing.assert_allclose(served.first_s, [s.token_times[0] for s in plain], **close)
        np.testing.assert_allclose(served.finish_s, [s.token_times[-1] for s in plain], **close)
        assert served.hit_tokens.tolist() == [s.hit for s in plain], label
        assert served.preemptions.tolist() == [s.preemptions for s in plain], label
        assert all(len(s.token_times) == s.osl for s in plain), label
        gaps = reference.inter_token_times(plain)
        assert served.itl_count == len(gaps) == served.itl_histogram.sum(), label
        np.testing.assert_allclose(served.itl_sum_s, gaps.sum(), rtol=1e-9, atol=1e-9, err_msg=label)
        np.testing.assert_allclose(
            served.itl_squares_s2, (gaps**2).sum(), rtol=1e-8, atol=1e-9, err_msg=label
        )
        seen_preemptions += served.preemptions.sum()
        seen_hits += served.hit_tokens.sum()
    assert seen_preemptions > 0 and seen_hits > 0
