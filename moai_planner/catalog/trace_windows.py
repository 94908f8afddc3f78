"""Where to cut a trace into windows: equal parts, or a few steps that follow the demand.

demand_windows(trace)  # e.g. [(0.0, 1200.0), (1200.0, 3500.0)]
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from moai_planner.domain.workload import Trace

BINS = 48
"The finest cut considered; half an hour of a day."
MOST_WINDOWS = 4
REQUESTS_PER_BIN = 400
"Below this, a bin's Poisson noise (5 % at 400) is as large as the steps worth following."
WORTH_FRAC = 0.05
"Another window must save this share of the capacity that the last one paid for."


def equal_windows(trace: Trace, count: int) -> list[tuple[float, float]]:
    """`count` windows of one length over the whole trace."""
    edges = np.linspace(0, trace.duration_s, count + 1).tolist()
    return list(pairwise(edges))


def demand_windows(trace: Trace) -> list[tuple[float, float]]:
    r"""Few windows whose peaks cover the demand with the least area.

        min over cuts  Σ_windows (end − start) · max token rate in it

    A window is paid for at its peak, so this area is what capacity costs. Solved exactly by dynamic
    programming over at most 48 bins; a cut is kept when it saves 5 %.
    """
    bins = int(np.clip(len(trace) // REQUESTS_PER_BIN, 1, BINS))
    edges = np.linspace(0, trace.duration_s, bins + 1)
    tokens = (trace.isl_tokens + trace.osl_tokens).astype(float)
    demand, _ = np.histogram(trace.arrival_s, bins=edges, weights=tokens)
    cuts, area = _least_area(demand, 1)
    for count in range(2, min(MOST_WINDOWS, bins) + 1):
        more_cuts, more_area = _least_area(demand, count)
        if more_area <= area * (1 - WORTH_FRAC):
            cuts, area = more_cuts, more_area
    return [(float(edges[low]), float(edges[high])) for low, high in pairwise(cuts)]


def _least_area(demand: np.ndarray, count: int) -> tuple[list[int], float]:
    """Cut positions (with both ends) and the area of `count` steps that cover `demand`.

    >>> _least_area(np.array([1.0, 1.0, 5.0, 5.0, 2.0]), 2)
    ([0, 2, 5], 17.0)
    """
    bins = len(demand)
    area = np.full((bins + 1, bins + 1), np.inf)
    for low in range(bins):
        area[low, low + 1 :] = np.arange(1, bins - low + 1) * np.maximum.accumulate(demand[low:])
    best, came_from = area[0], []
    for _ in range(count - 1):
        through = best[:, None] + area
        came_from.append(through.argmin(axis=0))
        best = through.min(axis=0)
    cuts = [bins]
    for step in reversed(came_from):
        cuts.append(int(step[cuts[-1]]))
    return [0, *reversed(cuts)], float(best[bins])
