"""How much the default buckets cost, against planning every request by itself (docs/traces.md)."""

from __future__ import annotations

import numpy as np
import pytest

from moai_planner.catalog.traces import trace, trace_names
from moai_planner.catalog.workload import DEFAULT_CELLS, assign_cells
from moai_planner.domain.workload import Trace

PRICE_RATIOS = np.geomspace(0.05, 20, 25)


def split_error(found: Trace, cells: tuple[int, int]) -> float:
    """The most that splitting by cell costs above splitting by request.

    Two kinds of instance: A reads a prompt token at 1 and writes an output token at 2p, B at 2 and p. Every
    request may go where it is cheaper; p runs over ratios around the trace's own. Cells can only send
    all their requests to one.
    """
    isl, osl = found.isl_tokens.astype(float), found.osl_tokens.astype(float)
    _, member, count = np.unique(assign_cells(found, cells), return_inverse=True, return_counts=True)
    isl_mean, osl_mean = np.bincount(member, isl) / count, np.bincount(member, osl) / count
    worst = 0.0
    for price in PRICE_RATIOS * isl.sum() / osl.sum():
        by_cell = np.minimum(isl_mean + 2 * price * osl_mean, 2 * isl_mean + price * osl_mean) @ count
        by_request = np.minimum(isl + 2 * price * osl, 2 * isl + price * osl).sum()
        worst = max(worst, by_cell / by_request - 1)
    return worst


@pytest.mark.parametrize("name", trace_names())
def test_default_cells_lose_little_of_the_split(name):
    """The error stays below the predictions' own by far, and finer cells make it smaller."""
    found = trace(name)
    one, default, fine = (split_error(found, cells) for cells in ((1, 1), DEFAULT_CELLS, (8, 6)))
    assert fine < default < one
    assert default < 0.025
