"""Promises on latency.

>>> objective("ttft_p95", 2.0)
Objective(metric='ttft', statistic='p95', limit_s=2.0)
>>> objective("ttft_p95", 2.0).percentile
95.0
"""

from __future__ import annotations

import re
from dataclasses import dataclass

METRICS = ("ttft", "tpot", "itl", "e2el")


@dataclass(frozen=True)
class Objective:
    """`metric` at `statistic` must stay at or below `limit_s`."""

    metric: str
    "ttft | tpot | itl | e2el"
    statistic: str
    "`mean`, or `p50` … `p99.9` over requests (for itl over tokens)."
    limit_s: float

    @property
    def percentile(self) -> float | None:
        return None if self.statistic == "mean" else float(self.statistic[1:])

    @property
    def key(self) -> str:
        return f"{self.metric}_{self.statistic}"


_KEY = re.compile(r"(ttft|tpot|itl|e2el)_(mean|p\d{1,2}(?:\.\d+)?)\Z")


def objective(key: str, limit_s: float) -> Objective:
    """`ttft_p95` and a limit → Objective; ValueError for a key without meaning."""
    match = _KEY.match(key)
    if match is None or match[2] in ("p0", "p00"):
        raise ValueError("write metric_statistic, like ttft_p95, tpot_mean, itl_p99 or e2el_p99.9")
    return Objective(match[1], match[2], limit_s)


@dataclass(frozen=True)
class Slo:
    """All promises of one deployment; all hold together."""

    objectives: tuple[Objective, ...]

    def limit_s(self, metric: str) -> float:
        """The tightest limit on a metric; infinity when nothing is promised."""
        return min((o.limit_s for o in self.objectives if o.metric == metric), default=float("inf"))
