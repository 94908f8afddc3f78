"""A trace → requests as the engines would take them, with a count of what they refuse or change."""

from __future__ import annotations

import numpy as np

from moai_planner.domain.workload import Trace
from moai_planner.simulate.serve import Requests
from moai_planner.simulate.system import System, largest_request_tokens, window_tokens


def requests_of(trace: Trace, system: System, rate_scale: float) -> tuple[Requests, dict[str, int]]:
    """Sort, clip and refuse as an engine does; arrivals come `rate_scale` times as fast."""
    arrival = np.asarray(trace.arrival_s, float) / rate_scale
    isl, osl = np.asarray(trace.isl_tokens, np.int64), np.asarray(trace.osl_tokens, np.int64)
    starts = None if trace.block_offsets is None else np.asarray(trace.block_offsets[:-1], np.int64)
    window, room = window_tokens(system), largest_request_tokens(system)
    left_out: dict[str, int] = {}
    late = int(np.sum(np.diff(arrival) < 0)) if len(arrival) > 1 else 0
    _count(left_out, "out of order in the trace (sorted)", late)
    order = np.argsort(arrival, kind="stable")
    empty = (isl < 1) | (osl < 1)
    _count(left_out, "no prompt or no output (left out: there is nothing to serve)", int(empty.sum()))
    too_long = ~empty & (isl >= window)
    _count(left_out, "prompt as long as the context window or longer (refused)", int(too_long.sum()))
    clipped = ~empty & ~too_long & (isl + osl > window)
    _count(left_out, "output cut at the context window", int(clipped.sum()))
    osl = np.where(clipped, window - isl, osl)
    no_room = ~empty & ~too_long & (isl + osl > room)
    _count(left_out, "longer than an instance's whole KV cache (refused)", int(no_room.sum()))
    kept = order[~(empty | too_long | no_room)[order]]
    return Requests(
        arrival[kept],
        isl[kept],
        osl[kept],
        lane=lanes_of(len(kept), [lane.weight for lane in system.lanes]),
        hashes=dense_ids(trace.block_hashes) if starts is not None else None,
        starts=None if starts is None else starts[kept],
        granule_tokens=trace.block_tokens if starts is not None else 0,
        sessions=None
        if trace.session_ids is None
        else np.unique(trace.session_ids, return_inverse=True)[1][kept],
    ), left_out


def _count(left_out: dict[str, int], reason: str, number: int) -> None:
    if number:
        left_out[reason] = number


def dense_ids(hashes: np.ndarray) -> np.ndarray:
    """Block hashes as ids 0, 1, … (left alone when they nearly are)."""
    if len(hashes) and hashes.min() >= 0 and hashes.max() < 2 * len(hashes):
        return hashes
    return np.unique(hashes, return_inverse=True)[1]


def lanes_of(count: int, weights: list[int]) -> np.ndarray:
    """Lane of each request in turn: smooth weighted round robin, as NGINX does it.

    >>> lanes_of(7, [5, 1, 1]).tolist()
    [0, 0, 1, 0, 2, 0, 0]
    """
    if len(weights) == 1:
        return np.zeros(count, np.int64)
    total = sum(weights)
    current, cycle = [0] * len(weights), []
    for _ in range(min(total, count)):
        current = [value + weight for value, weight in zip(current, weights, strict=True)]
        chosen = current.index(max(current))
        current[chosen] -= total
        cycle.append(chosen)
    return np.resize(np.array(cycle, np.int64), count)
