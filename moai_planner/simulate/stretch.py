r"""Decode steps in closed form.

While B sequences decode and nothing else happens, step j takes

.. math:: t_j = d_B + \gamma (H + B) + j \gamma B ,

H the KV tokens held before the first step (each sequence reads its context and its own new token). So n
steps take
:math:`n t_0 + \gamma B n(n-1)/2`, and the first step boundary at or after a moment solves a quadratic.
Ranks in lockstep take the slowest rank's time: the upper envelope of a few such lines, walked line by line.
"""

from __future__ import annotations

import math

from moai_planner.simulate.compiled import part, shared_part
from moai_planner.simulate.fields import (
    BASE_S,
    BLOCK_TOKENS,
    DECODING,
    END_RANK,
    FACTOR,
    FIRST_RANK,
    ITL_COUNT,
    ITL_SQUARES,
    ITL_SUM,
    SLOPE_S,
    STEP,
)
from moai_planner.simulate.histogram import add_series


@part
def interpolate(x, points, values, count):
    """values(x), linear between the points, held outside them."""
    if x <= points[0]:
        return values[0]
    if x >= points[count - 1]:
        return values[count - 1]
    low, high = 0, count - 1
    while high - low > 1:
        middle = (low + high) >> 1
        if points[middle] <= x:
            low = middle
        else:
            high = middle
    share = (x - points[low]) / (points[high] - points[low])
    return values[low] + (values[high] - values[low]) * share


@part
def series_s(first_s, slope_s, steps):
    """Time of `steps` steps. [s]"""
    return steps * first_s + slope_s * (0.5 * steps * (steps - 1))


@part
def steps_to(first_s, slope_s, limit_s, most):
    """Fewest steps (at least 1) that take `limit_s` or longer, or `most`."""
    half = first_s - 0.5 * slope_s
    guess = 2.0 * limit_s / (half + math.sqrt(half * half + 2.0 * slope_s * limit_s))
    if not guess < most:
        return most
    steps = max(int(math.ceil(guess)), 1)  # noqa: RUF046
    while steps > 1 and series_s(first_s, slope_s, steps - 1) >= limit_s:
        steps -= 1
    while steps < most and series_s(first_s, slope_s, steps) < limit_s:
        steps += 1
    return steps


@shared_part
def walk(unit_i, unit_f, rank, rank_f, u, most, limit_s, weight, histogram, totals_f, number, bits):
    """Take up to `most` steps of unit u until `limit_s` has passed; returns (steps, seconds).

    With weight > 0 each step also adds that many tokens to the histogram of inter-token times.
    """
    first_rank, end_rank, factor = unit_i[u, FIRST_RANK], unit_i[u, END_RANK], unit_f[u, FACTOR]
    done = 0
    passed_s = 0.0
    while done < most and passed_s < limit_s:
        value = -1.0
        slope = 0.0
        for r in range(first_rank, end_rank):
            candidate = rank_f[r, BASE_S] + rank_f[r, SLOPE_S] * done
            if candidate > value or (candidate == value and rank_f[r, SLOPE_S] > slope):
                value, slope = candidate, rank_f[r, SLOPE_S]
        steps = most - done
        for r in range(first_rank, end_rank):
            if rank_f[r, SLOPE_S] > slope:
                behind = value - (rank_f[r, BASE_S] + rank_f[r, SLOPE_S] * done)
                crossing = behind / (rank_f[r, SLOPE_S] - slope)
                if crossing < steps:
                    steps = max(int(math.ceil(crossing)), 1)  # noqa: RUF046
        first_s, slope_s = value * factor, slope * factor
        if limit_s < math.inf:
            steps = steps_to(first_s, slope_s, limit_s - passed_s, steps)
        duration_s = series_s(first_s, slope_s, steps)
        if weight > 0:
            add_series(histogram, weight, first_s, slope_s, steps, number, bits)
            totals_f[ITL_COUNT] += weight * steps
            totals_f[ITL_SUM] += weight * duration_s
            pairs = 0.5 * steps * (steps - 1)
            totals_f[ITL_SQUARES] += weight * (
                steps * first_s * first_s
                + 2.0 * first_s * slope_s * pairs
                + slope_s * slope_s * pairs * (2.0 * steps - 1.0) / 3.0
            )
        passed_s += duration_s
        done += steps
    return done, passed_s


@part
def new_blocks(rank, phase, r, steps):
    """Blocks that the decoding sequences take in the `steps` steps after the one already provided for."""
    block = rank[r, BLOCK_TOKENS]
    whole = steps // block
    blocks = whole * rank[r, DECODING]
    at = (rank[r, STEP] + 1) % block
    for _ in range(steps - whole * block):
        blocks += phase[r, at]
        at += 1
        if at == block:
            at = 0
    return blocks


@part
def steps_within(rank, phase, r, free, most):
    """How many of the next `most` steps the free blocks allow."""
    block = rank[r, BLOCK_TOKENS]
    if rank[r, DECODING] == 0 or rank[r, DECODING] * (most // block + 1) <= free:
        return most
    whole = free // rank[r, DECODING]
    steps = whole * block
    free -= whole * rank[r, DECODING]
    at = (rank[r, STEP] + 1) % block
    while steps < most and phase[r, at] <= free:
        free -= phase[r, at]
        steps += 1
        at += 1
        if at == block:
            at = 0
    return min(steps, most)
