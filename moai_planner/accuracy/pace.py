"""How much slower an engine was when a run was made: the same runs, repeated for months, get faster.

SGLang on MI355X took twice as long a token in the first half of December 2025 as two weeks later. A run says
when it was made. So an engine on an architecture that was measured in several months has a pace for each
but the newest, a factor on all of its times; planning takes the newest.

>>> nearest({"2025-12": 1.4, "2026-02": 1.1, "mixed": 1.2}, "2026-01"), nearest({}, "2026-01")
(1.4, 1.0)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from moai_planner.accuracy.kinds import RATE, kind_of
from moai_planner.accuracy.prepare import Prepared
from moai_planner.accuracy.run import MONTH, Run

MIXED = "mixed"
"""Runs that are medians over all months."""
FEW_RUNS = 6
"""Runs of one model in a month from which the month counts."""
FEW_MONTHS = 3
NEWEST_MONTHS = 3
"""The last so many months are today's pace."""
SPREAD = 0.25
"""Standard deviation of the prior on the logarithm of a pace."""


def power_of(metric: str) -> float:
    """A pace multiplies times and divides throughput.

    >>> power_of("tpot_ms_mean"), power_of("total_tps_per_accel")
    (1.0, -1.0)
    """
    return -1.0 if kind_of(metric) == RATE else 1.0


def period_of(run: Run) -> str:
    """The month of a run, `mixed`, or nothing."""
    month = MONTH.match(run.date)
    return MIXED if "engine versions mixed" in run.notes else month[0] if month else ""


def periods_of(runs: Sequence[Run], keys: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Engine and architecture → the periods that have a pace of their own: those before the newest months,
    where one model was measured in several months."""
    counts = Counter((key, run.model, period_of(run)) for run, key in zip(runs, keys, strict=True))
    by_model: dict[tuple[str, str], set[str]] = {}
    for (key, name, period), count in counts.items():
        if count >= FEW_RUNS and period:
            by_model.setdefault((key, name), set()).add(period)
    found: dict[str, set[str]] = {}
    for (key, _), periods in by_model.items():
        found.setdefault(key, set()).update(_before(periods))
    return {key: tuple(sorted(found[key])) for key in sorted(found) if found[key]}


def _before(periods: set[str]) -> list[str]:
    months = sorted(periods - {MIXED})
    if len(months) < FEW_MONTHS:
        return []
    today = _number(months[-1]) - NEWEST_MONTHS
    return [month for month in months if _number(month) <= today] + [MIXED] * (MIXED in periods)


def _number(month: str) -> int:
    year, number = month.split("-")
    return 12 * int(year) + int(number)


def nearest(paces: Mapping[str, float], period: str) -> float:
    """Pace of a period: its own, else that of the last month before it, or the first after; 1 = today's."""
    if period in paces or not period or period == MIXED:
        return paces.get(period, 1.0)
    months = sorted(month for month in paces if month != MIXED)
    if not months or period > months[-1]:
        return 1.0
    before = [month for month in months if month < period]
    return paces[before[-1] if before else months[0]]


def paces_of(prepared: Prepared) -> np.ndarray:
    """[run] how much slower its engine was when it was made."""
    runs = zip(prepared.runs, prepared.decoders, strict=True)
    return np.array([nearest(c.parameters.paces, period_of(run)) for run, c in runs])
