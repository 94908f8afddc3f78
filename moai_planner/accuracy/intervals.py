"""80 % intervals from residuals of rows whose group was left out of the fit (grouped split conformal).

intervals_of(fit.residuals, rows)["tpot_s"]     # (low, high) factors on a prediction
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from moai_planner.accuracy.fit import Residuals

CONFIDENCE = 0.8
GROUPING = "cell"
FEWEST = 12
"""Residuals below which a kind takes the family's pool."""
NARROWEST = 0.02
"""Half-width (log) that no interval goes below: repeated runs differ by that."""
WIDEST = 1.6
"""Half-width (log) that none goes above: a factor of five either way is not knowing."""
FURTHEST = 0.95
"""Quantile that no end goes beyond: a handful of groups says nothing about the far tail."""
KINDS = {
    "ttft": "ttft_s",
    "tpot": "tpot_s",
    "itl": "tpot_s",
    "e2el": "e2el_s",
    "output": "tokens_per_s",
    "total": "tokens_per_s",
}
"""First word of a metric's name → the kind its residuals are pooled under."""


def kind_of(metric: str) -> str:
    """`tpot_ms_mean` → `tpot_s`."""
    return KINDS[metric.split("_")[0]]


def factors(errors: np.ndarray, groups: int) -> tuple[float, float]:
    """Low and high factors on a prediction from log(predicted / measured).

    The finite-sample correction of conformal prediction counts groups, not rows: rows of one engine
    configuration err together.

    >>> low, high = factors(np.array([-0.1, 0.0, 0.1] * 20), 20)
    >>> round(low, 3), round(high, 3)
    (0.905, 1.105)
    """
    tail = (1.0 - CONFIDENCE) / 2.0
    reach = min(FURTHEST, (1.0 - tail) * (groups + 1) / groups)
    low = np.clip(np.quantile(-errors, 1.0 - reach), -WIDEST, -NARROWEST)
    high = np.clip(np.quantile(-errors, reach), NARROWEST, WIDEST)
    return float(np.exp(low)), float(np.exp(high))


def intervals_of(residuals: Residuals, rows: np.ndarray) -> dict[str, tuple[float, float]]:
    """Kind → factors, from the given rows; kinds with few of them use all rows of the family."""
    errors = residuals.held_out[GROUPING]
    kinds = np.array([kind_of(name) for name in residuals.metric])
    found: dict[str, tuple[float, float]] = {}
    for kind in sorted(set(kinds.tolist())):
        every = kinds == kind
        own = every & rows
        chosen = own if own.sum() >= FEWEST else every
        if chosen.sum() >= FEWEST:
            found[kind] = factors(errors[chosen], len(np.unique(residuals.cell[chosen])))
    return found


def ends(
    metric: str,
    value: float,
    intervals: Mapping[str, tuple[float, float]],
    low_frac: float,
    high_frac: float,
) -> tuple[float, float]:
    """Low and high of one predicted metric; a rate without residuals of its own turns the step's round."""
    kind = kind_of(metric)
    if kind in intervals:
        low, high = intervals[kind]
    elif kind == "tokens_per_s":
        low, high = 1.0 / high_frac, 1.0 / low_frac
    else:
        low, high = low_frac, high_frac
    return value * low, value * high
