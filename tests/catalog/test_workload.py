"""A workload is its trace, bucketed: nothing is lost, nothing is added, order does not matter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moai_planner.catalog.trace_part import take
from moai_planner.catalog.traces import trace, trace_names
from moai_planner.catalog.workload import burstiness_cv, cached_prefix_tokens, summarise
from moai_planner.domain.errors import InputError
from moai_planner.domain.workload import Trace

EXACT = 1e-9


@st.composite
def traces(draw) -> Trace:
    count = draw(st.integers(1, 60))
    lengths = st.lists(st.integers(1, 100_000), min_size=count, max_size=count)
    gaps = draw(st.lists(st.floats(0, 100), min_size=count, max_size=count))
    isl, arrival_s = np.array(draw(lengths)), np.cumsum(gaps) - gaps[0]
    hashes, offsets = None, None
    if draw(st.booleans()):
        counts = -(-isl // 20_000)
        offsets = np.concatenate(([0], np.cumsum(counts)))
        ids = st.lists(st.integers(0, 6), min_size=int(offsets[-1]), max_size=int(offsets[-1]))
        hashes = np.array(draw(ids), dtype=np.int64)
    duration_s = float(arrival_s[-1]) + draw(st.floats(0.1, 50))
    return Trace("t", arrival_s, isl, np.array(draw(lengths)), duration_s, hashes, offsets, 20_000)


shapes = st.tuples(st.integers(1, 6), st.integers(1, 5))


def totals(workload) -> np.ndarray:
    """Requests, prompt, output, squared prompt, cached and context tokens of the whole workload."""
    rows = [
        np.array([1, c.isl_tokens, c.osl_tokens, c.isl_squared_tokens, c.cached_frac * c.isl_tokens])
        * c.rate_req_per_s
        * (window.end_s - window.start_s)
        for window in workload.windows
        for c in window.cells
    ]
    return np.sum(rows, axis=0)


def totals_of_requests(found: Trace) -> np.ndarray:
    isl = found.isl_tokens.astype(float)
    return np.array(
        [len(found), isl.sum(), found.osl_tokens.sum(), (isl**2).sum(), cached_prefix_tokens(found).sum()]
    )


@settings(max_examples=60, deadline=None)
@given(traces(), shapes, st.sampled_from([None, 1, 2, 5, "auto"]), st.floats(0.1, 20))
def test_cells_conserve_requests_and_tokens(found, cells, windows, rate_scale):
    """Law: Σ rate · length over cells and windows is the trace's own sum, at any cell count."""
    workload = summarise(found, rate_scale, cells, windows)
    assert totals(workload) == pytest.approx(rate_scale * totals_of_requests(found), rel=EXACT)


@pytest.mark.parametrize("name", trace_names())
def test_shipped_traces_are_conserved(name):
    found = trace(name)
    for windows in (None, 7, "auto"):
        assert totals(summarise(found, windows=windows)) == pytest.approx(
            totals_of_requests(found), rel=EXACT
        )


@settings(max_examples=40, deadline=None)
@given(traces(), shapes)
def test_context_is_the_mean_over_decode_tokens(found, cells):
    """Law: Σ rate · osl · context = Σ osl · (isl + osl / 2) per second."""
    (window,) = summarise(found, cells=cells).windows
    isl, osl = found.isl_tokens.astype(float), found.osl_tokens.astype(float)
    mine = sum(c.rate_req_per_s * c.osl_tokens * c.context_tokens for c in window.cells)
    assert mine * found.duration_s == pytest.approx((osl * (isl + osl / 2)).sum(), rel=EXACT)


@settings(max_examples=40, deadline=None)
@given(traces(), shapes, st.randoms(use_true_random=False))
def test_order_of_requests_does_not_matter(found, cells, random):
    """Law: permuting lengths among arrivals leaves the one-window cells alone (caching aside)."""
    found = replace(found, block_hashes=None, block_offsets=None)
    order = list(range(len(found)))
    random.shuffle(order)
    mixed = replace(take(found, np.array(order)), arrival_s=found.arrival_s)
    for mine, theirs in zip(
        summarise(found, cells=cells).windows[0].cells,
        summarise(mixed, cells=cells).windows[0].cells,
        strict=True,
    ):
        assert mine.id == theirs.id
        for key in ("isl_tokens", "osl_tokens", "isl_squared_tokens", "rate_req_per_s", "context_tokens"):
            assert getattr(mine, key) == pytest.approx(getattr(theirs, key), rel=EXACT)
        assert (mine.isl_max_tokens, mine.osl_max_tokens) == (theirs.isl_max_tokens, theirs.osl_max_tokens)


@settings(max_examples=30, deadline=None)
@given(traces(), shapes, st.floats(0.01, 100))
def test_rate_scale_scales_rates_alone(found, cells, factor):
    before, after = summarise(found, cells=cells), summarise(found, factor, cells)
    for one, two in zip(before.windows[0].cells, after.windows[0].cells, strict=True):
        assert two.rate_req_per_s == pytest.approx(one.rate_req_per_s * factor, rel=EXACT)
        assert replace(two, rate_req_per_s=0) == replace(one, rate_req_per_s=0)


@settings(max_examples=60, deadline=None)
@given(traces())
def test_cached_tokens_equal_a_plain_replay(found):
    """Oracle: walk the requests with a set of blocks seen."""
    seen: set[int] = set()
    expected = []
    for i in range(len(found)):
        ids = [] if found.block_hashes is None else found.block_hashes[slice(*found.block_offsets[i : i + 2])]
        ids, leading = [int(one) for one in ids], 0
        while leading < len(ids) and ids[leading] in seen:
            leading += 1
        expected.append(min(leading * found.block_tokens, int(found.isl_tokens[i])))
        seen.update(ids)
    assert cached_prefix_tokens(found).tolist() == expected


def test_one_cell_holds_the_means():
    found = Trace("t", np.array([0.0, 1.0]), np.array([10, 30]), np.array([4, 8]), 4.0)
    (cell,) = summarise(found, 2.0, (1, 1)).windows[0].cells
    assert (cell.isl_tokens, cell.osl_tokens, cell.isl_squared_tokens) == (20, 6, 500)
    assert (cell.rate_req_per_s, cell.isl_max_tokens, cell.osl_max_tokens) == (1.0, 30, 8)
    assert cell.context_tokens == pytest.approx((4 * 12 + 8 * 34) / 12)


def test_equal_lengths_share_one_cell():
    found = Trace("t", np.arange(9.0), np.full(9, 7), np.full(9, 3), 9.0)
    assert len(summarise(found).windows[0].cells) == 1


def test_windows_follow_the_demand():
    """Quiet, busy, quiet: cut where the rate changes."""
    gaps = np.concatenate((np.full(1000, 1.0), np.full(8000, 0.125), np.full(1000, 1.0)))
    found = Trace("t", np.cumsum(gaps) - 1, np.full(10_000, 100), np.full(10_000, 10), 3000.0)
    starts = [window.start_s for window in summarise(found, windows="auto").windows]
    assert starts == pytest.approx([0, 1000, 2000], abs=3000 / 25)


def test_burstiness_of_known_gaps():
    random = np.random.default_rng(1)
    assert burstiness_cv(np.cumsum(random.exponential(1, 20_000))) == pytest.approx(1, abs=0.03)
    assert burstiness_cv(np.arange(100.0)) == pytest.approx(0)
    assert burstiness_cv(np.zeros(5)) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"rate_scale": 0},
        {"rate_scale": float("nan")},
        {"rate_scale": 1e308},
        {"cells": (0, 3)},
        {"cells": (4,)},
        {"windows": 0},
        {"windows": "monthly"},
        {"windows": [(0, 10**9)]},
        {"windows": [(5, 5)]},
        {"windows": []},
    ],
)
def test_a_meaningless_request_is_refused(arguments):
    with pytest.raises(InputError):
        summarise(trace("azure_2023_code"), **arguments)
