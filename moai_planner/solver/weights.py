"""Shares → small integers, for routers that know nothing finer."""

from __future__ import annotations

from collections.abc import Sequence

MOST_ERROR = 0.005
"""Of the whole: what a lane's traffic may differ from its exact share."""
LARGEST_DENOMINATOR = 1000


def integer_weights(shares: Sequence[float], most_error: float = MOST_ERROR) -> tuple[int, ...]:
    """Weights of the smallest sum whose every share is within `most_error`; none is zero.

    Largest remainder at each denominator in turn.

    >>> integer_weights([0.7, 0.3]), integer_weights([1.0]), integer_weights([0.334, 0.333, 0.333])
    ((7, 3), (1,), (1, 1, 1))
    >>> integer_weights([0.6667, 0.3333])
    (2, 1)
    """
    total = sum(shares)
    exact = [share / total for share in shares]
    best: tuple[float, tuple[int, ...]] = (float("inf"), (1,) * len(exact))
    for denominator in range(len(exact), LARGEST_DENOMINATOR + 1):
        weights = _largest_remainder(exact, denominator)
        if min(weights) == 0:
            continue
        error = max(abs(w / denominator - share) for w, share in zip(weights, exact, strict=True))
        if error < most_error:
            return weights
        best = min(best, (error, weights))
    return best[1]


def _largest_remainder(exact: Sequence[float], denominator: int) -> tuple[int, ...]:
    scaled = [share * denominator for share in exact]
    weights = [int(value) for value in scaled]
    by_remainder = sorted(range(len(exact)), key=lambda i: (weights[i] - scaled[i], i))
    for i in by_remainder[: denominator - sum(weights)]:
        weights[i] += 1
    return tuple(weights)
