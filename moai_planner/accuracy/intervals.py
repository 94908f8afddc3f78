"""80 % intervals from residuals of rows that were left out of the fit (grouped split conformal, pooled).

A parameter set has its own residuals, its family's and everybody's: each pool weighs as its independent
groups, the wider pools only up to a few, so that what has few rows borrows and what has many speaks for
itself. Residuals are those of an engine configuration left out. Something newer (a model, a device, an
engine) widens by what leaving such groups out widened.
"""

from __future__ import annotations

import numpy as np

from moai_planner.accuracy.kinds import FIRST, RATE, STEP, WHOLE, kind_of, plain_of
from moai_planner.accuracy.leave_out import CELL, FAMILY
from moai_planner.accuracy.residuals import Residuals
from moai_planner.domain.corrections import LIBRARY_FAMILIES
from moai_planner.domain.parameters import Parameters

CONFIDENCE = 0.8
NARROWEST = 0.02
"""Half-width (log) that no interval goes below: repeated runs differ by that."""
WIDEST = 1.6
"""Half-width (log) that none goes above: a factor of five either way is not knowing."""
FURTHEST = 0.95
"""Quantile that no end goes beyond: a handful of groups says nothing about the far tail."""
FAMILY_CELLS, OTHER_CELLS = 6.0, 2.0
"""Independent groups that the family's rows, and those of other families, weigh at most. So, intervals made
without an engine configuration hold about 80 % of its calibration rows."""
FEW_CELLS, UNKNOWN = 6.0, (0.5, 2.0)
"""Fewer groups than so many do not show how far errors go: ends are at least this share of what was thought
before, or of a factor of two either way."""
UNTESTED_POWER = 1.6
"""How much wider an interval gets for something new where no such group could be left out: what published
rows say of the steps of a new model."""
PARTS_CORRELATION = 0.5
"""Of the errors of TTFT and TPOT, where E2E latency has no residuals of its own."""


def measured(residuals: Residuals, kind: str, family: str) -> bool:
    """The family has rows of this kind."""
    return bool(((residuals.kinds == kind) & (residuals.labels.family == family)).any())


def interval(
    residuals: Residuals,
    rows: np.ndarray,
    family: str,
    own: np.ndarray | None = None,
    before: tuple[float, float] = UNKNOWN,
) -> tuple[float, float] | None:
    """Factors for the set `own` of a family from `rows` of one kind; None when there are none. Where groups
    are few, what was thought `before` holds in part."""
    if not rows.any():
        return None
    labels = residuals.labels
    mine = rows & (labels.family == family)
    near = mine & own if own is not None else np.zeros(len(rows), bool)
    weights, total = np.zeros(len(rows)), 0.0
    for pool, most in ((rows & ~mine, OTHER_CELLS), (mine & ~near, FAMILY_CELLS), (near, np.inf)):
        groups = len(np.unique(labels.cell[pool]))
        if groups:
            weights[pool] = min(groups, most) / pool.sum()
            total += min(groups, most)
    chosen = weights > 0
    low, high = factors(residuals.errors[CELL][chosen], weights[chosen], total)
    unseen = float(np.clip((FEW_CELLS - total) / (FEW_CELLS - 1.0), 0.0, 1.0))
    return min(low, before[0] ** unseen), max(high, before[1] ** unseen)


def factors(errors: np.ndarray, weights: np.ndarray, groups: float) -> tuple[float, float]:
    """Low and high factors on a prediction from log(predicted / measured).

    The finite-sample correction of conformal prediction counts groups, not rows: rows of one engine
    configuration err together.

    >>> low, high = factors(np.array([-0.1, 0.0, 0.1] * 20), np.ones(60), 20)
    >>> round(low, 3), round(high, 3)
    (0.905, 1.105)
    """
    tail = (1.0 - CONFIDENCE) / 2.0
    reach = min(FURTHEST, (1.0 - tail) * (groups + 1) / groups)
    low = np.clip(weighted_quantile(-errors, weights, 1.0 - reach), -WIDEST, -NARROWEST)
    high = np.clip(weighted_quantile(-errors, weights, reach), NARROWEST, WIDEST)
    return float(np.exp(low)), float(np.exp(high))


def weighted_quantile(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """The value below which this share of the weight lies, linear between the middles of the weights.

    >>> round(weighted_quantile(np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 2.0]), 0.5), 4)
    2.3333
    """
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order]) - 0.5 * weights[order]
    return float(np.interp(share * weights.sum(), below, values[order]))


def widening(residuals: Residuals, grouping: str) -> dict[str, float]:
    """Plain kind → how much wider errors are with such a group left out than with a configuration (≥ 1).

    Counted on groups that leave others behind in their family, platforms with a library of their own aside (a
    few rows of many models each); each group weighs the same. A whole request and a rate widen no more than
    the parts that they are made of.
    """
    labels = residuals.labels
    names = getattr(labels, grouping)
    several = ~np.isin(labels.family, LIBRARY_FAMILIES)
    if grouping != FAMILY:
        count = {f: len(np.unique(names[labels.family == f])) for f in np.unique(labels.family)}
        several &= np.array([count[f] > 1 for f in labels.family])
    plain = np.array([plain_of(kind) for kind in residuals.kinds])
    powers = {
        kind: _ratio(residuals, several & (plain == kind), grouping) for kind in (STEP, FIRST, WHOLE, RATE)
    }
    most = max(powers[STEP], powers[FIRST])
    return powers | {kind: min(powers[kind], most) for kind in (WHOLE, RATE)}


def _ratio(residuals: Residuals, rows: np.ndarray, grouping: str) -> float:
    if not rows.any():
        return UNTESTED_POWER
    labels = residuals.labels
    names = getattr(labels, grouping)
    keys = np.array([f"{f} {n}" for f, n in zip(labels.family[rows], names[rows], strict=True)])
    _, place, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    far, near = (
        weighted_quantile(
            np.minimum(np.abs(residuals.errors[g][rows]), WIDEST), 1.0 / sizes[place], CONFIDENCE
        )
        for g in (grouping, CELL)
    )
    return float(max(1.0, far / near))


def widened(pair: tuple[float, float], power: float) -> tuple[float, float]:
    """Ends to a power, no wider than not knowing."""
    low, high = np.exp(np.clip(power * np.log(pair), -WIDEST, WIDEST))
    return float(low), float(high)


def ends(
    metric: str,
    value: float,
    parameters: Parameters,
    model: str,
    first_share: float = 0.0,
) -> tuple[float, float]:
    """Low and high of one predicted metric of a model.

    `first_share`: TTFT over E2E latency, for E2E latencies without residuals of their own. A rate without
    any turns the step's round.
    """
    kind = kind_of(metric)
    found = stated(parameters, kind, first_share)
    found = widened(found, parameters.power_for(model, plain_of(kind)))
    return value * found[0], value * found[1]


def stated(parameters: Parameters, kind: str, first_share: float = 0.0) -> tuple[float, float]:
    """Factors that a set gives for a kind, else for its parts, else for a step."""
    intervals = parameters.intervals
    found = intervals.get(kind) or intervals.get(plain_of(kind))
    if found is None and plain_of(kind) == WHOLE and STEP in intervals and FIRST in intervals:
        statistic = kind.removeprefix(WHOLE)
        parts = [intervals.get(part + statistic) or intervals[part] for part in (FIRST, STEP)]
        found = summed(*parts, first_share)
    if found is None:
        low, high = parameters.low_frac, parameters.high_frac
        found = (1.0 / high, 1.0 / low) if plain_of(kind) == RATE else (low, high)
    return found


def summed(first: tuple[float, float], rest: tuple[float, float], first_share: float) -> tuple[float, float]:
    """Factors of a sum from those of its parts, whose errors go together in part.

    >>> summed((0.5, 2.0), (0.9, 1.1), 0.0)
    (0.9, 1.1)
    """
    ends_found = []
    for a, b in zip(first, rest, strict=True):
        x, y = first_share * (a - 1.0), (1.0 - first_share) * (b - 1.0)
        size = np.sqrt(x * x + y * y + 2.0 * PARTS_CORRELATION * x * y)
        ends_found.append(float(1.0 + np.sign(x + y) * size))
    return ends_found[0], ends_found[1]
