r"""Requests sampled from clients: each sends at its own rate and burstiness, with its own lengths.

    requests = sample(clients, start_s=0.0, duration_s=units.HOUR_S, seed=0)

In a window of rate r a client's gaps are gamma or Weibull with mean 1/r, begun in equilibrium: the
first gap is what is left of one already running, of density :math:`(1 - F(x)) r`. So the expected
number of requests in a window of length T is exactly r·T, however bursty the client (Cox, Renewal
Theory, 1962, section 5.1). Starting afresh instead would add (CV² − 1)/2 requests a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gamma

import numpy as np

from moai_planner.domain import units
from moai_planner.domain.errors import InputError, Problem

GAMMA, WEIBULL = "gamma", "weibull"
MOST_REQUESTS = 100 * units.MEGA
"More do not fit into memory."


@dataclass(frozen=True)
class ClientWindow:
    """A client's traffic over one span."""

    start_s: float
    end_s: float
    rate_req_per_s: float
    distribution: str
    "`gamma` or `weibull`."
    shape: float
    "Shape of that distribution; gamma's coefficient of variation is 1/√shape."


@dataclass(frozen=True, eq=False)
class Histogram:
    """Token lengths and how often each was seen."""

    lengths: np.ndarray
    counts: np.ndarray

    @property
    def mean_tokens(self) -> float:
        return float(self.lengths @ self.counts / self.counts.sum())


@dataclass(frozen=True, eq=False)
class Client:
    """One sender: windows in order, and length histograms that hold from a time on."""

    id: int
    windows: tuple[ClientWindow, ...]
    inputs: tuple[tuple[float, Histogram], ...]
    "(from when, prompt lengths), in order of time."
    outputs: tuple[tuple[float, Histogram], ...]


@dataclass(frozen=True, eq=False)
class Sampled:
    """Requests of all clients, in order of arrival."""

    arrival_s: np.ndarray
    isl_tokens: np.ndarray
    osl_tokens: np.ndarray
    client_ids: np.ndarray


def busiest_start_s(clients: Sequence[Client], duration_s: float) -> float:
    """Where a span of this length expects the most requests, among the starts of windows."""
    windows = [window for client in clients for window in client.windows]
    starts = np.unique([window.start_s for window in windows])
    end_s = max(window.end_s for window in windows)
    low = np.array([window.start_s for window in windows])
    high = np.array([window.end_s for window in windows])
    rate = np.array([window.rate_req_per_s for window in windows])
    candidates = starts[starts + duration_s <= end_s] if starts[0] + duration_s <= end_s else starts[:1]
    expected = [
        (rate * np.clip(np.minimum(high, s + duration_s) - np.maximum(low, s), 0, None)).sum()
        for s in candidates
    ]
    return float(candidates[int(np.argmax(expected))])


def sample(clients: Sequence[Client], start_s: float, duration_s: float, seed: int) -> Sampled:
    """Draw the requests of [start, start + duration); times are counted from the start.

    Every client draws from its own stream, so leaving one out does not change the others.
    """
    end_s = start_s + duration_s
    expected = sum(
        w.rate_req_per_s * max(0.0, min(w.end_s, end_s) - max(w.start_s, start_s))
        for client in clients
        for w in client.windows
    )
    if expected > MOST_REQUESTS:
        remedy = "choose a shorter duration, or correct the rates"
        raise InputError(Problem("sample", "duration", f"{expected:.3g} requests expected", remedy))
    parts = [_sample_client(client, start_s, end_s, seed) for client in clients]
    arrival_s = np.concatenate([part.arrival_s for part in parts]) if parts else np.zeros(0)
    if len(arrival_s) == 0:
        remedy = "choose a start and a duration in which a client sends"
        raise InputError(Problem("sample", f"{start_s:g} s + {duration_s:g} s", "no requests", remedy))
    order = np.argsort(arrival_s, kind="stable")
    return Sampled(
        arrival_s=arrival_s[order] - start_s,
        isl_tokens=np.concatenate([part.isl_tokens for part in parts])[order],
        osl_tokens=np.concatenate([part.osl_tokens for part in parts])[order],
        client_ids=np.concatenate([part.client_ids for part in parts])[order],
    )


def equilibrium_arrivals(
    rate_req_per_s: float, distribution: str, shape: float, duration_s: float, random: np.random.Generator
) -> np.ndarray:
    """Arrival times in [0, duration) of a renewal process in equilibrium."""
    scale_s = _scale_s(rate_req_per_s, distribution, shape)
    first_s = random.uniform() * _length_biased_gap_s(distribution, shape, scale_s, random)
    times = [np.array([first_s])]
    while times[-1][-1] < duration_s:
        block = int((duration_s - times[-1][-1]) * rate_req_per_s * 1.1) + 16
        gaps = (
            random.gamma(shape, scale_s, block)
            if distribution == GAMMA
            else (scale_s * random.weibull(shape, block))
        )
        times.append(times[-1][-1] + np.cumsum(gaps))
    joined = np.concatenate(times)
    return joined[joined < duration_s]


def _scale_s(rate_req_per_s: float, distribution: str, shape: float) -> float:
    """The scale that makes the mean gap 1 / rate."""
    unit_mean = shape if distribution == GAMMA else gamma(1 + 1 / shape)
    return 1 / (rate_req_per_s * unit_mean)


def _length_biased_gap_s(
    distribution: str, shape: float, scale_s: float, random: np.random.Generator
) -> float:
    """A gap as an outsider finds it: density x f(x) / mean."""
    if distribution == GAMMA:
        return random.gamma(shape + 1, scale_s)
    return scale_s * random.gamma(1 + 1 / shape) ** (1 / shape)


def _sample_client(client: Client, start_s: float, end_s: float, seed: int) -> Sampled:
    random = np.random.default_rng([seed, client.id])
    arrivals, isl, osl = [np.zeros(0)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for window in client.windows:
        low, high = max(window.start_s, start_s), min(window.end_s, end_s)
        if high <= low or window.rate_req_per_s == 0:
            continue
        times = low + equilibrium_arrivals(
            window.rate_req_per_s, window.distribution, window.shape, high - low, random
        )
        arrivals.append(times)
        isl.append(_draw(_at(client.inputs, window.start_s), len(times), random))
        osl.append(_draw(_at(client.outputs, window.start_s), len(times), random))
    arrival_s = np.concatenate(arrivals)
    return Sampled(arrival_s, np.concatenate(isl), np.concatenate(osl), np.full(len(arrival_s), client.id))


def _at(histograms: tuple[tuple[float, Histogram], ...], time_s: float) -> Histogram:
    """The histogram in force at a time: the last that began, else the first there is."""
    begun = [histogram for start_s, histogram in histograms if start_s <= time_s]
    return begun[-1] if begun else histograms[0][1]


def _draw(histogram: Histogram, count: int, random: np.random.Generator) -> np.ndarray:
    ends = np.cumsum(histogram.counts)
    return histogram.lengths[np.searchsorted(ends, random.uniform(0, ends[-1], count), side="right")]
