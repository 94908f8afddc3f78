"""Some requests of a trace, as a trace.

Block ids and conversations travel with their requests; what is left of a shared prefix is still shared.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

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
