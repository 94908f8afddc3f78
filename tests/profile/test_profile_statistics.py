"""Medians and their intervals."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from moai_planner.profile.statistics import interval_rank, median


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=40))
def test_interval_holds_the_median(samples):
    """Law: low ≤ median ≤ high, all of them inside the samples."""
    found = median(samples)
    assert min(samples) <= found.low <= found.value <= found.high <= max(samples)


def test_interval_covers_the_true_median():
    """Law: of many 95 % intervals at least 94 % hold the truth (order statistics are conservative)."""
    generator = np.random.default_rng(1)
    hits = [
        (found := median(generator.lognormal(0, 1, size=12))).low <= 1.0 <= found.high for _ in range(2000)
    ]
    assert np.mean(hits) > 0.94


def test_rank_never_passes_the_middle():
    """Law: the two ranks of an interval never cross."""
    assert all(1 <= interval_rank(n) <= (n + 1) // 2 for n in range(1, 200))
