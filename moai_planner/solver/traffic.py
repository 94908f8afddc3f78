"""A deployment's requests as arrays, the way the operating points read them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moai_planner.domain.cluster import Deployment

PREFIX_REUSE_FRAC = 0.5
"""Share of the trace's ideal prefix reuse that a plan counts on (assumed: caches are finite, routers spread)."""
MOST_PREFIX_HIT_FRAC = 0.95
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
    burstiness_cv: float
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
        peak_req_per_s=max(window.rate_req_per_s for window in windows),
        burstiness_cv=max(window.burstiness_cv for window in windows),
        sample_new_tokens=sample_isl * (1 - float(weight @ hit)),
        sample_isl=sample_isl,
        sample_osl=trace.osl_tokens[fits][picked].astype(float),
        longest_tokens=int(total[fits].max()) if fits.any() else 0,
        too_long=int((~fits).sum()),
    )
