"""80 % intervals from residuals of rows that were left out of the fit (grouped split conformal, pooled).

A parameter set has its own residuals, its family's and everybody's: each pool weighs as its independent
groups, the wider pools only up to a few, so that what has few rows borrows and what has many speaks for
itself. Residuals are those of an engine configuration left out. Something newer (a model, a device, an
engine) widens by what leaving such groups out widened.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moai_planner.accuracy.leave_out import CELL, FAMILY, LeftOut
from moai_planner.domain.parameters import Parameters

CONFIDENCE = 0.8
NARROWEST = 0.02
"""Half-width (log) that no interval goes below: repeated runs differ by that."""
WIDEST = 1.6
"""Half-width (log) that none goes above: a factor of five either way is not knowing."""
FURTHEST = 0.95
"""Quantile that no end goes beyond: a handful of groups says nothing about the far tail."""
FAMILY_CELLS, OTHER_CELLS = 6.0, 2.0
"""Independent groups that the family's rows, and those of other families, weigh at most."""
PARTS_CORRELATION = 0.5
"""Of the errors of TTFT and TPOT, where E2E latency has no residuals of its own."""
STEP, FIRST, WHOLE, RATE = "tpot_s", "ttft_s", "e2el_s", "tokens_per_s"
KINDS = {"ttft": FIRST, "tpot": STEP, "itl": STEP, "e2el": WHOLE, "output": RATE, "total": RATE}
"""First word of a metric's name → the kind its residuals are pooled under."""
APART = ("mean", "p90", "p99")
"""Statistics that have residuals of their own: a run's mean is moved by its slowest requests."""


def kind_of(metric: str) -> str:
    """The kind of a metric; medians and rates have the plain one.

    >>> kind_of("tpot_ms_median"), kind_of("ttft_ms_mean"), kind_of("itl_ms_p99"), kind_of("total_tps")
    ('tpot_s', 'ttft_s_mean', 'itl_s_p99', 'tokens_per_s')
    """
    words = metric.split("_")
    plain, statistic = KINDS[words[0]], words[-1]
    if plain == RATE or statistic not in APART:
        return plain
    if (words[0], statistic) == ("itl", "p99"):
        return "itl_s_p99"
    return f"{plain}_{statistic}"


def plain_of(kind: str) -> str:
    """`ttft_s_mean` → `ttft_s`."""
    return KINDS[kind.split("_")[0]] if kind != RATE else RATE


@dataclass(frozen=True)
class Pools:
    """Left-out residuals, ready to ask for intervals."""

    left: LeftOut
    kinds: np.ndarray
    "[values]"

    def measured(self, kind: str, family: str) -> bool:
        """The family has rows of this kind."""
        return bool(((self.kinds == kind) & (self.left.labels.family == family)).any())

    def interval(self, kind: str, family: str, own: np.ndarray | None = None) -> tuple[float, float] | None:
        """Factors for rows `own` of a family; None when nobody measured the kind.

        A kind that the family lacks has the residuals of others alone.
        """
        labels, every = self.left.labels, self.kinds == kind
        if not every.any():
            return None
        mine = every & (labels.family == family)
        pools = [(every & ~mine, OTHER_CELLS), (mine, FAMILY_CELLS)]
        if own is not None:
            pools = [(every & ~mine, OTHER_CELLS), (mine & ~own, FAMILY_CELLS), (mine & own, np.inf)]
        weights, total = np.zeros(len(every)), 0.0
        for rows, most in pools:
            groups = len(np.unique(labels.cell[rows]))
            if groups:
                weights[rows] = min(groups, most) / rows.sum()
                total += min(groups, most)
        chosen = weights > 0
        return factors(self.left.errors[CELL][chosen], weights[chosen], total)


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
    """The value below which this share of the weight lies.

    >>> weighted_quantile(np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 2.0]), 0.5)
    2.0
    """
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order]) - 0.5 * weights[order]
    return float(np.interp(share * weights.sum(), below, values[order]))


def widening(left: LeftOut, kinds: np.ndarray, grouping: str) -> dict[str, float]:
    """Plain kind → how much wider errors are with such a group left out than with a configuration (≥ 1).

    Counted on groups that leave others behind in their family; each group weighs the same.
    """
    labels, errors = left.labels, left.errors
    names = getattr(labels, grouping)
    several = np.ones(len(names), bool)
    if grouping != FAMILY:
        count = {f: len(np.unique(names[labels.family == f])) for f in np.unique(labels.family)}
        several = np.array([count[f] > 1 for f in labels.family])
    plain = np.array([plain_of(kind) for kind in kinds])
    found = {}
    for kind in (STEP, FIRST, WHOLE, RATE):
        rows = several & (plain == kind)
        if not rows.any():
            found[kind] = 1.0
            continue
        keys = np.array([f"{f} {n}" for f, n in zip(labels.family[rows], names[rows], strict=True)])
        _, place, sizes = np.unique(keys, return_inverse=True, return_counts=True)
        weights = 1.0 / sizes[place]
        far, near = (
            weighted_quantile(np.minimum(np.abs(errors[g][rows]), WIDEST), weights, CONFIDENCE)
            for g in (grouping, CELL)
        )
        found[kind] = max(1.0, far / near)
    return found


def widened(pair: tuple[float, float], power: float) -> tuple[float, float]:
    """Ends to a power, no wider than not knowing."""
    far = float(np.exp(WIDEST))
    return max(pair[0] ** power, 1.0 / far), min(pair[1] ** power, far)


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
    kind, intervals = kind_of(metric), parameters.intervals
    found = intervals.get(kind) or intervals.get(plain_of(kind))
    if found is None and plain_of(kind) == WHOLE and STEP in intervals and FIRST in intervals:
        statistic = kind.removeprefix(WHOLE)
        parts = [intervals.get(part + statistic) or intervals[part] for part in (FIRST, STEP)]
        found = summed(*parts, first_share)
    if found is None:
        low, high = parameters.low_frac, parameters.high_frac
        found = (1.0 / high, 1.0 / low) if plain_of(kind) == RATE else (low, high)
    found = widened(found, parameters.power_for(model, plain_of(kind)))
    return value * found[0], value * found[1]


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
