"""Operations keep what they say they keep."""

from __future__ import annotations

import numpy as np
import pytest

from moai_planner.catalog.trace_operations import cut, first, merge, resample_arrivals, scale_rate
from moai_planner.catalog.traces import trace
from moai_planner.catalog.workload import burstiness_cv, cached_prefix_tokens
from moai_planner.domain.errors import InputError


@pytest.fixture(scope="module")
def mooncake():
    return trace("mooncake_synthetic")


def test_scaling_the_rate_keeps_requests_and_burstiness(mooncake):
    fast = scale_rate(mooncake, 4.0)
    assert fast.rate_req_per_s == pytest.approx(4 * mooncake.rate_req_per_s)
    assert burstiness_cv(fast.arrival_s) == pytest.approx(burstiness_cv(mooncake.arrival_s))
    assert fast.isl_tokens is mooncake.isl_tokens


def test_cuts_side_by_side_hold_every_request_once(mooncake):
    """Law: cutting is a partition, block ids included."""
    third = mooncake.duration_s / 3
    parts = [cut(mooncake, start * third, (start + 1) * third) for start in range(3)]
    assert sum(map(len, parts)) == len(mooncake)
    assert np.array_equal(np.concatenate([part.isl_tokens for part in parts]), mooncake.isl_tokens)
    assert np.array_equal(np.concatenate([part.block_hashes for part in parts]), mooncake.block_hashes)
    assert sum(part.duration_s for part in parts) == pytest.approx(mooncake.duration_s)


def test_first_requests_stand_for_the_time_to_the_next(mooncake):
    head = first(mooncake, 100)
    assert len(head) == 100 and head.duration_s == mooncake.arrival_s[100]
    assert first(mooncake, 10**9) is mooncake


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_resampled_gaps_have_the_rate_and_variation_asked_for(mooncake, burstiness):
    found = resample_arrivals(mooncake, 8.0, burstiness, seed=2)
    assert found.rate_req_per_s == pytest.approx(8, rel=0.1)
    assert burstiness_cv(found.arrival_s) == pytest.approx(burstiness**-0.5, rel=0.1)
    assert np.array_equal(found.arrival_s, resample_arrivals(mooncake, 8.0, burstiness, seed=2).arrival_s)
    assert (resample_arrivals(mooncake, np.inf).arrival_s == 0).all()


def test_merging_keeps_every_request_and_shares_nothing(mooncake):
    """Law: counts and tokens add up, and a trace merged with itself reuses no more than alone."""
    both = merge([mooncake, mooncake])
    assert len(both) == 2 * len(mooncake) and both.isl_tokens.sum() == 2 * mooncake.isl_tokens.sum()
    assert cached_prefix_tokens(both).sum() == 2 * cached_prefix_tokens(mooncake).sum()
    assert (np.diff(both.arrival_s) >= 0).all()
    assert merge([mooncake, trace("azure_2023_code")]).block_hashes is None


@pytest.mark.parametrize(
    "wrong",
    [
        lambda t: scale_rate(t, 0),
        lambda t: scale_rate(t, np.nan),
        lambda t: cut(t, 5, 5),
        lambda t: first(t, 0),
        lambda t: resample_arrivals(t, 0),
        lambda t: resample_arrivals(t, np.nan),
        lambda t: resample_arrivals(t, 1, burstiness=-1),
        lambda t: merge([]),
    ],
)
def test_meaningless_operations_are_refused(mooncake, wrong):
    with pytest.raises(InputError):
        wrong(mooncake)
