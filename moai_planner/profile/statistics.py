"""Medians with confidence intervals, from few samples and without assuming a distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Median:
    """A median and how sure it is."""

    value: float
    low: float
    high: float
    noise_frac: float
    "Half the inter-quartile range over the median: the spread of one sample."
    samples: int

    @property
    def width_frac(self) -> float:
        """Half the confidence interval over the median; infinite for a single sample."""
        return math.inf if self.samples < 2 else (self.high - self.low) / 2 / self.value


def quantile(ordered: Sequence[float], frac: float) -> float:
    """Linear interpolation between order statistics.

    >>> quantile([1.0, 2.0, 3.0, 4.0], 0.5)
    2.5
    """
    place = frac * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def interval_rank(samples: int, confidence: float = _CONFIDENCE) -> int:
    r"""Rank k such that the k-th smallest and k-th largest sample enclose the median. [1-based]

    .. math:: P(B < k) \le (1 - c)/2, \quad B \sim \mathrm{Binomial}(n, 1/2)

    Source: David and Nagaraja, Order Statistics, 3rd ed., section 7.1. With fewer than six samples even
    the extremes enclose it with less than 95 %; they are taken all the same.

    >>> [interval_rank(n) for n in (3, 6, 10, 20)]
    [1, 1, 2, 6]
    """
    tail, rank = 0.0, 0
    while rank < (samples + 1) // 2:
        tail += math.comb(samples, rank) / 2**samples
        if tail > (1 - confidence) / 2:
            break
        rank += 1
    return max(1, rank)


def median(samples: Sequence[float]) -> Median:
    """Median, its 95 % interval and the noise of one sample.

    >>> median([1.0, 1.1, 0.9, 1.0, 5.0]).value
    1.0
    """
    ordered = sorted(samples)
    rank = interval_rank(len(ordered))
    middle = quantile(ordered, 0.5)
    spread = quantile(ordered, 0.75) - quantile(ordered, 0.25)
    return Median(middle, ordered[rank - 1], ordered[-rank], spread / 2 / middle, len(ordered))
