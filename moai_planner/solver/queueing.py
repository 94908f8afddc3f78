"""How long requests wait, and how far batches stray: the formulas behind utilisation caps."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, ndtri

from moai_planner.domain.slo import Objective


def wait_probability(utilisation: np.ndarray, servers: np.ndarray | float) -> np.ndarray:
    r"""Chance that an arrival finds all of m servers busy.

    .. math:: P_w = \rho^{\sqrt{2(m+1)} - 1}

    Bursty arrivals of peakedness z see as if m / z servers (Hayward; A. Fredericks, Bell System Tech. J.
    59, 1980). H. Sakasegawa, An approximation formula L_q = α·ρ^β/(1−ρ), Ann. Inst. Stat. Math. 29, 1977.
    Exact for m = 1.

    >>> [round(float(wait_probability(np.array(0.8), m)), 3) for m in (1, 8)]
    [0.8, 0.485]
    """
    return utilisation ** (np.sqrt(2 * (servers + 1)) - 1)


def wait_scale_s(
    utilisation: np.ndarray,
    servers: np.ndarray | float,
    service_s: np.ndarray,
    arrival_dispersion: float,
    service_cv2: np.ndarray | float,
) -> np.ndarray:
    r"""Mean wait of those who wait; their waits are taken as exponential.

    .. math:: \theta = \frac{v + c_s^2}{2} \, \frac{s}{m (1 - \rho)}, \qquad P(W > t) = P_w \, e^{-t/\theta}

    Allen–Cunneen for GI/G/m (A. Allen, Probability, Statistics and Queueing Theory, 2nd ed. 1990, eq. 5.60);
    v, the dispersion of arrival counts, stands for c_a²; the exponential tail as in W. Whitt,
    Approximations for the GI/G/m queue, POM 2, 1993. Exact for M/M/1:

    >>> round(float(wait_scale_s(np.array(0.8), 1, np.array(1.0), 1.0, 1.0)), 6)
    5.0
    """
    return (arrival_dispersion + service_cv2) / 2 * service_s / (servers * (1 - utilisation))


def attainment(
    limit_s: float, unloaded_s: np.ndarray, probability: np.ndarray, scale_s: np.ndarray
) -> np.ndarray:
    """Share of requests with unloaded + wait ≤ limit. unloaded [sample]; probability, scale [..] → [..]."""
    slack = limit_s - unloaded_s
    scale_s, room = np.broadcast_arrays(scale_s[..., None], np.maximum(slack, 0.0))
    waits = np.divide(room, scale_s, out=np.full(room.shape, np.inf), where=scale_s > 0)  # 0: nobody waits
    late = probability[..., None] * np.exp(-waits)
    return np.where(slack >= 0, 1.0 - late, 0.0).mean(axis=-1)


def holds(
    objective: Objective, unloaded_s: np.ndarray, probability: np.ndarray, scale_s: np.ndarray
) -> np.ndarray:
    """Whether the objective holds, [..] bool: means by means, percentiles by attainment."""
    if objective.percentile is None:
        return unloaded_s.mean(axis=-1) + probability * scale_s <= objective.limit_s
    share = attainment(objective.limit_s, unloaded_s, probability, scale_s)
    return share >= objective.percentile / 100


def deviate(percentile: float | None) -> float:
    """Standard deviations above the mean that a percentile lies (normal); 0 for a mean.

    >>> round(deviate(95.0), 3)
    1.645
    """
    return 0.0 if percentile is None else max(0.0, float(ndtri(percentile / 100)))


def normal_attainment(limit: float, mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """P(value ≤ limit) of normal values, mean and spread broadcast."""
    return ndtr((limit - mean) / np.maximum(spread, 1e-12))


def pessimism(high_frac: float, confidence: float | None) -> float:
    """Factor on step times so that a share of (1 + confidence)/2 of configurations is no slower.

    `high_frac` is the upper end of an 80 % interval (1.28 standard deviations of a log-normal).

    >>> pessimism(1.2, None), round(pessimism(1.2, 0.8), 3), round(pessimism(1.2, 0.9), 3)
    (1.0, 1.2, 1.264)
    """
    if confidence is None:
        return 1.0
    return high_frac ** (float(ndtri((1 + confidence) / 2)) / float(ndtri(0.9)))
