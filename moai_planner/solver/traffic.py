"""A deployment's requests as arrays, the way the operating points read them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moai_planner.domain.cluster import Deployment

PREFIX_REUSE_FRAC = 0.5
"""Share of the trace's ideal prefix reuse that is counted on (assumed: caches are finite, routers spread)."""
MOST_PREFIX_HIT_FRAC = 0.95
SPELL_S = 30
"""Rates that last this long fill queues and batches; what is shorter is left to the queueing formulas."""
MOST_SURGE_PERCENTILE, LEAST_SURGE_PERCENTILE = 99.0, 90.0
SAMPLE = 192
"""Requests of the trace, evenly spaced after sorting by prompt length, that latencies are evaluated on."""


@dataclass(frozen=True, eq=False)
class Traffic:
    """Arrays run over cells, all windows one after another: [cells]."""

    rate_req_per_s: np.ndarray
    window: np.ndarray
    "Index of the cell's window."
    weight: np.ndarray
    "Share of requests over all windows; sums to 1."
    isl: np.ndarray
    osl: np.ndarray
    context: np.ndarray
    new_tokens: np.ndarray
    "Prompt tokens that must be computed."
    pairs: np.ndarray
    "Token pairs of prompt attention."
    windows: int
    peak_req_per_s: float
    "Rate that plans hold to: the busiest window's mean times `surge`."
    surge: float
    "Rate over mean rate in the busy spells that a percentile of requests meets."
    dispersion: float
    "Variance over mean of arrivals in a second, within a spell; 1 = Poisson."
    sample_new_tokens: np.ndarray
    "[sample]"
    sample_isl: np.ndarray
    sample_osl: np.ndarray
    longest_tokens: int
    too_long: int
    "Requests of the trace that the context window refuses."

    def mean(self, per_cell: np.ndarray) -> float:
        """Mean over requests."""
        return float(self.weight @ per_cell)

    def by_window(self, per_cell: np.ndarray) -> tuple[float, ...]:
        """Mean over the requests of each window."""
        rates = np.bincount(self.window, self.rate_req_per_s, self.windows)
        sums = np.bincount(self.window, self.rate_req_per_s * per_cell, self.windows)
        return tuple(np.divide(sums, rates, out=np.zeros_like(sums), where=rates > 0).tolist())

    def rates_by_window(self) -> tuple[float, ...]:
        return tuple(np.bincount(self.window, self.rate_req_per_s, self.windows).tolist())


def traffic(deployment: Deployment) -> Traffic:
    """Cells and a sample of a deployment's trace."""
    windows = deployment.workload.windows
    cells = [(w, cell) for w, window in enumerate(windows) for cell in window.cells]
    rate = np.array([cell.rate_req_per_s for _, cell in cells])
    isl = np.array([cell.isl_tokens for _, cell in cells])
    reuse = PREFIX_REUSE_FRAC if deployment.prefix_caching else 0.0
    hit = np.minimum(np.array([cell.cached_frac for _, cell in cells]), MOST_PREFIX_HIT_FRAC) * reuse
    osl = np.array([cell.osl_tokens for _, cell in cells])
    context = np.array([cell.context_tokens or cell.isl_tokens + cell.osl_tokens / 2 for _, cell in cells])
    pairs = np.array([cell.isl_squared_tokens for _, cell in cells]) / 2 * (1 - hit**2)
    weight = rate / rate.sum()
    trace = deployment.trace
    dispersion, surge = spells(trace.arrival_s / deployment.rate_scale, _percentile(deployment))
    # Windows follow the slow part of the surge already.
    busiest = max(window.rate_req_per_s for window in windows)
    surge = max(1.0, surge * trace.rate_req_per_s * deployment.rate_scale / busiest)
    total = trace.isl_tokens + trace.osl_tokens
    fits = total <= deployment.max_model_len
    order = np.argsort(trace.isl_tokens[fits], kind="stable")
    picked = order[((np.arange(SAMPLE) + 0.5) / SAMPLE * len(order)).astype(int)] if len(order) else order
    sample_isl = trace.isl_tokens[fits][picked].astype(float)
    return Traffic(
        rate_req_per_s=rate,
        window=np.array([w for w, _ in cells]),
        weight=weight,
        isl=isl,
        osl=osl,
        context=context,
        new_tokens=isl * (1 - hit),
        pairs=pairs,
        windows=len(windows),
        peak_req_per_s=surge * busiest,
        surge=surge,
        dispersion=dispersion,
        sample_new_tokens=sample_isl * (1 - float(weight @ hit)),
        sample_isl=sample_isl,
        sample_osl=trace.osl_tokens[fits][picked].astype(float),
        longest_tokens=int(total[fits].max()) if fits.any() else 0,
        too_long=int((~fits).sum()),
    )


def spells(arrival_s: np.ndarray, percentile: float) -> tuple[float, float]:
    """(dispersion within spells, surge between them) of arrivals.

    The surge is the request-weighted percentile of the spells' rates over their mean, with the share of the
    variance that the dispersion alone explains taken off.

    >>> spells(np.arange(0, 600, 0.1), 95.0)
    (0.0, 1.0)
    """
    seconds = np.bincount(arrival_s.astype(np.int64)) if len(arrival_s) else np.zeros(0)
    whole = len(seconds) // SPELL_S
    if whole < 2:
        return 1.0, 1.0
    counts = seconds[: whole * SPELL_S].reshape(whole, SPELL_S)
    mean = counts.mean()
    dispersion = float(counts.var(axis=1).mean() / mean)
    totals = np.sort(counts.sum(axis=1))
    reached = np.cumsum(totals) / totals.sum()
    busy = totals[np.searchsorted(reached, percentile / 100)] / totals.mean()
    slow = max(totals.var() - dispersion * totals.mean(), 0.0) / max(totals.var(), 1e-12)
    return dispersion, float(1 + max(busy - 1, 0.0) * np.sqrt(slow))


def _percentile(deployment: Deployment) -> float:
    """The strictest percentile of the latencies that queues and batches decide."""
    asked = [o.percentile for o in deployment.slo.objectives if o.percentile and o.metric != "e2el"]
    return min(max([LEAST_SURGE_PERCENTILE, *asked]), MOST_SURGE_PERCENTILE)
