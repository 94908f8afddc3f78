"""Histogram of step durations with bins of equal relative width (within a factor of two), and its quantiles.

A bin is the exponent and the leading seven bits of the mantissa of the duration as a float64: 128 bins an
octave, each 0.54 to 0.78 % wide. A stretch of k decode steps, whose durations grow linearly, is added by
counting how many steps fall into each bin it crosses, not step by step.
"""

from __future__ import annotations

import math

import numpy as np

from moai_planner.simulate.compiled import part, shared_part

BINS_PER_OCTAVE = 128
_SHIFT = 45  # 52 mantissa bits − 7
_LOWEST = -26  # octave of the first bin: 15 ns
_OCTAVES = 52
_OFFSET = (1023 + _LOWEST) * BINS_PER_OCTAVE
BINS = _OCTAVES * BINS_PER_OCTAVE


def new_histogram() -> np.ndarray:
    """Weights of no durations at all."""
    return np.zeros(BINS, np.int64)


def new_scratch() -> tuple[np.ndarray, np.ndarray]:
    """One float64 and the same eight bytes as an integer."""
    number = np.zeros(1)
    return number, number.view(np.int64)


@part
def bin_of(duration_s, number, bits):
    """Bin that holds a duration; the ends take what is beyond them."""
    number[0] = duration_s
    index = (bits[0] >> _SHIFT) - _OFFSET
    return min(max(index, 0), BINS - 1)


@part
def upper_edge(index, number, bits):
    """Where the next bin begins. [s]"""
    bits[0] = (index + 1 + _OFFSET) << _SHIFT
    return number[0]


@shared_part
def add_series(histogram, weight, first_s, slope_s, steps, number, bits):
    """Add `weight` at each of first, first + slope, … (`steps` terms, slope ≥ 0)."""
    done = 0
    while done < steps:
        duration_s = first_s + slope_s * done
        index = bin_of(duration_s, number, bits)
        inside = steps - done
        if slope_s > 0.0 and index < BINS - 1:
            reach = (upper_edge(index, number, bits) - duration_s) / slope_s
            if reach < inside:
                inside = max(int(math.ceil(reach)), 1)  # noqa: RUF046
        histogram[index] += weight * inside
        done += inside


def edges() -> np.ndarray:
    """[BINS + 1] seconds: bin i holds edges[i] ≤ duration < edges[i + 1]."""
    return ((np.arange(BINS + 1, dtype=np.int64) + _OFFSET) << _SHIFT).view(np.float64)


_EDGES = edges()


def quantiles(histogram: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """Durations below which these fractions of the weight lie, linear inside a bin; NaN when empty. [s]

    >>> counts = new_histogram(); scratch = new_scratch()
    >>> add_series(counts, 1, 0.010, 0.0, 100, *scratch)
    >>> bool(abs(quantiles(counts, np.array([0.5]))[0] / 0.010 - 1) < 0.01)
    True
    """
    total = histogram.sum()
    if total == 0:
        return np.full(len(fractions), np.nan)
    cumulative = np.cumsum(histogram)
    wanted = np.asarray(fractions) * total
    index = np.minimum(np.searchsorted(cumulative, wanted, side="left"), BINS - 1)
    below = cumulative[index] - histogram[index]
    inside = (wanted - below) / np.maximum(histogram[index], 1)
    return _EDGES[index] + (_EDGES[index + 1] - _EDGES[index]) * np.clip(inside, 0.0, 1.0)
