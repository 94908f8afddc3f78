"""Percentiles with batch-means intervals, and whether a queue is stable.

A percentile is only a property of the system when its queue does not grow for as long as requests arrive;
so every run
gets a verdict first. With W(t) the requests that wait for their first chunk and X the rate of completions,
W/X is
the time it would take to clear the queue:

* overloaded: at the last arrivals clearing takes over 5 % of the run, and the queue was still growing, or
  fewer than 95 % of the requests offered were completed by then;
* backlogged: clearing took over 5 % of the run at some time, but the queue drained;
* stable: otherwise.
"""

from __future__ import annotations

import math

import numpy as np

from moai_planner.domain.report import BACKLOGGED, OVERLOADED, STABLE, Estimate

BATCHES = 20
_T_975_19 = 2.093
"Student's t, 19 degrees of freedom, two-sided 95 %."
CLEAR_FRAC = 0.05
ACHIEVED_FRAC = 0.95
FEW = 10
"A queue shorter than this is never called a backlog."


def estimate(values: np.ndarray, statistic: str) -> Estimate | None:
    """`mean` or `p95` of values in order of arrival, with its interval; None when there are none."""
    if len(values) == 0:
        return None
    value = _statistic(values, statistic)
    if len(values) < 5 * BATCHES:
        return Estimate(value, float(np.min(values)), float(np.max(values)))
    usable = len(values) // BATCHES * BATCHES
    batches = np.array([_statistic(batch, statistic) for batch in values[:usable].reshape(BATCHES, -1)])
    half = _T_975_19 * float(batches.std(ddof=1)) / math.sqrt(BATCHES)
    return Estimate(value, max(value - half, 0.0), value + half)


def _statistic(values: np.ndarray, statistic: str) -> float:
    return float(values.mean() if statistic == "mean" else np.percentile(values, float(statistic[1:])))


def waiting_at(times_s: np.ndarray, start_s: np.ndarray, admit_s: np.ndarray) -> np.ndarray:
    """Requests sent but not yet admitted, at each time."""
    sent = np.searchsorted(np.sort(start_s), times_s, side="right")
    admitted = np.searchsorted(np.sort(admit_s), times_s, side="right")
    return sent - admitted


def verdict(start_s: np.ndarray, admit_s: np.ndarray, finish_s: np.ndarray) -> tuple[str, str]:
    """(verdict, reason) of a run; times of requests in order of arrival."""
    if len(start_s) < 2 or start_s[-1] <= start_s[0]:
        return STABLE, "one burst; there is no queue to follow over time"
    begin_s, end_s = float(start_s[0]), float(start_s[-1])
    span_s = end_s - begin_s
    samples = begin_s + span_s * (np.arange(400) + 0.5) / 400
    waiting = waiting_at(samples, start_s, admit_s).reshape(10, 40).mean(axis=1)
    completed = int(np.searchsorted(np.sort(finish_s), end_s, side="right"))
    rate = max(completed, 1) / span_s
    clear_frac = waiting / rate / span_s
    achieved = completed / len(start_s)
    last, middle = waiting[-1], waiting[4:6].mean()
    if last > FEW and clear_frac[-1] > CLEAR_FRAC and (last > 1.5 * middle or achieved < ACHIEVED_FRAC):
        return OVERLOADED, (
            f"{last:.0f} requests wait at the end of the arrivals, {middle:.0f} in the middle; {achieved:.1%} of the "  # noqa: E501
            "requests offered were completed by then"
        )
    worst = int(np.argmax(clear_frac))
    if waiting[worst] > FEW and clear_frac[worst] > CLEAR_FRAC:
        return BACKLOGGED, (
            f"up to {waiting[worst]:.0f} requests wait (tenth {worst + 1} of the run), {last:.0f} at its end"
        )
    return STABLE, f"at most {waiting.max():.0f} requests wait on average in any tenth of the run"
