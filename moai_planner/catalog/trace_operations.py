"""Traces from traces: take, cut, scale, resample, merge. Each returns a new value.

    two_hours = cut(trace, 0, 2 * units.HOUR_S)
    doubled = scale_rate(two_hours, 2.0)
    steady = resample_arrivals(doubled, rate_req_per_s=5.0, burstiness=1.0, seed=0)

Block ids and conversations travel with their requests; an id keeps its meaning, so what a cut or a
merge leaves of a shared prefix is still shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from moai_planner.domain.errors import InputError, Problem
from moai_planner.domain.workload import Trace


def take(trace: Trace, index: np.ndarray) -> Trace:
    """The requests at `index` (positions or a mask), in that order; the duration stays.

    >>> t = Trace("t", np.array([0., 1., 2.]), np.array([5, 6, 7]), np.array([1, 1, 1]), 3.0)
    >>> take(t, np.array([True, False, True])).isl_tokens.tolist()
    [5, 7]
    """
    index = np.asarray(index)
    if index.dtype == bool:
        index = np.flatnonzero(index)
    hashes, offsets = trace.block_hashes, trace.block_offsets
    if hashes is not None and offsets is not None:
        hashes, offsets = take_ragged(hashes, offsets, index)
    return replace(
        trace,
        arrival_s=trace.arrival_s[index],
        isl_tokens=trace.isl_tokens[index],
        osl_tokens=trace.osl_tokens[index],
        block_hashes=hashes,
        block_offsets=offsets,
        session_ids=None if trace.session_ids is None else trace.session_ids[index],
    )


def take_ragged(values: np.ndarray, offsets: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows `index` of a ragged table, again as values and offsets.

    >>> values, offsets = take_ragged(np.array([1, 2, 3, 4]), np.array([0, 2, 3, 4]), np.array([2, 0]))
    >>> values.tolist(), offsets.tolist()
    ([4, 1, 2], [0, 1, 3])
    """
    counts = np.diff(offsets)[index]
    new_offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    shift = np.repeat(offsets[:-1][index] - new_offsets[:-1], counts)
    return values[np.arange(new_offsets[-1]) + shift], new_offsets


def scale_rate(trace: Trace, factor: float) -> Trace:
    """The same requests `factor` times as fast: time is compressed, gaps keep their variation."""
    _positive("rate_scale", factor)
    return replace(trace, arrival_s=trace.arrival_s / factor, duration_s=trace.duration_s / factor)


def cut(trace: Trace, start_s: float, end_s: float) -> Trace:
    """Requests that arrive in [start, end), with time counted from `start_s`."""
    if not 0 <= start_s < end_s:
        raise InputError(
            Problem(
                trace.name, "window", f"{start_s:g} s to {end_s:g} s", "let the window end after its start"
            )
        )
    low, high = np.searchsorted(trace.arrival_s, (start_s, end_s))
    part = take(trace, np.arange(low, high))
    return replace(part, arrival_s=part.arrival_s - start_s, duration_s=end_s - start_s)


def first(trace: Trace, count: int) -> Trace:
    """The first `count` requests, standing for the time until the next one arrives."""
    _positive("count", count)
    if count >= len(trace):
        return trace
    end_s = float(trace.arrival_s[count])
    duration_s = end_s if end_s > 0 else trace.duration_s * count / len(trace)
    return replace(take(trace, np.arange(count)), duration_s=duration_s)


def resample_arrivals(trace: Trace, rate_req_per_s: float, burstiness: float = 1.0, seed: int = 0) -> Trace:
    """The same requests in the same order, at gamma-distributed gaps of mean 1 / rate.

    `burstiness` is the gamma shape, as in `vllm bench serve`: 1 is Poisson, below 1 burstier, above 1
    more regular; the gaps' coefficient of variation is 1/√burstiness. An infinite rate sends all at 0.
    """
    _positive("burstiness", burstiness)
    if np.isnan(rate_req_per_s) or rate_req_per_s <= 0:
        raise InputError(
            Problem(
                trace.name, "rate", f"{rate_req_per_s:g}", "give a rate above zero, in requests per second"
            )
        )
    if np.isinf(rate_req_per_s):
        return replace(trace, arrival_s=np.zeros(len(trace)))
    draws = np.random.default_rng(seed).gamma(burstiness, 1 / (burstiness * rate_req_per_s), len(trace))
    ends = np.cumsum(draws)
    return replace(trace, arrival_s=ends - ends[0], duration_s=float(ends[-1]))


def merge(traces: Sequence[Trace], name: str = "") -> Trace:
    """All requests of several traces on one clock; ids of different traces never meet.

    The duration is the longest one: a shorter trace is quiet after its end. Block ids survive only where
    every part has them with one block size.
    """
    if not traces:
        raise InputError(Problem("merge", "traces", "", "give at least one trace"))
    hashed = all(t.block_hashes is not None for t in traces) and len({t.block_tokens for t in traces}) == 1
    grouped = any(t.session_ids is not None for t in traces)
    joined = Trace(
        name=name or "+".join(t.name for t in traces),
        arrival_s=np.concatenate([t.arrival_s for t in traces]),
        isl_tokens=np.concatenate([t.isl_tokens for t in traces]),
        osl_tokens=np.concatenate([t.osl_tokens for t in traces]),
        duration_s=max(t.duration_s for t in traces),
        block_hashes=_apart([t.block_hashes for t in traces]) if hashed else None,
        block_offsets=_joined_offsets(traces) if hashed else None,
        block_tokens=traces[0].block_tokens if hashed else 0,
        session_ids=_apart([_sessions(t) for t in traces]) if grouped else None,
        source="; ".join(dict.fromkeys(t.source for t in traces if t.source)),
        left_out=tuple(reason for t in traces for reason in t.left_out),
    )
    return take(joined, np.argsort(joined.arrival_s, kind="stable"))


def _apart(ids: Sequence[np.ndarray]) -> np.ndarray:
    """Concatenate id arrays, renumbered from zero so that different parts share none."""
    parts, used = [], 0
    for part in ids:
        unique, renumbered = np.unique(part, return_inverse=True)
        parts.append(renumbered.astype(np.int64) + used)
        used += len(unique)
    return np.concatenate(parts)


def _joined_offsets(traces: Sequence[Trace]) -> np.ndarray:
    counts = np.concatenate([np.diff(t.block_offsets) for t in traces])
    return np.concatenate(([0], np.cumsum(counts))).astype(np.int64)


def _sessions(trace: Trace) -> np.ndarray:
    return np.arange(len(trace)) if trace.session_ids is None else trace.session_ids


def _positive(what: str, value: float) -> None:
    if not (np.isfinite(value) and value > 0):
        raise InputError(Problem("trace", what, f"{value}", "give a finite number above zero"))
