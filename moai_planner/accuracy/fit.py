"""The joint fit: robust regression with pooled priors, and what it says about rows left out of it.

Residuals are logarithms of predicted over measured under a Cauchy loss, so that a run far off pulls less than
one ten percent off; every correction is pulled towards zero, its parent's value (`families`). Damped
Gauss–Newton steps with the loss's weights (iteratively reweighted least squares: Holland and Welsch 1977).

Only `CalibrationRuns` can be fitted, and `calibration_runs` alone makes them: it keeps `split == calibrate`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from moai_planner.accuracy.joint import JointProblem
from moai_planner.accuracy.run import Measurements, Run

SOFTNESS = 0.12
"""Residual (log) beyond which a run's pull shrinks again."""
RESIDUAL_SPREAD = 0.12
"""Standard deviation that the likelihood gives a residual; sets how much rows weigh against priors."""
FULL_ITERATIONS = 150
GAIN = 1e-5
"""Share of the objective below which an iteration's gain is idle."""
PATIENCE = 4
"""Idle iterations, one after the other, that end the fit."""
ANOTHER = 0.02
"""Share of the objective above which the same derivatives are used for another step."""
FIRST_DAMPING, LEAST_DAMPING, LARGEST_DAMPING = 1e-2, 1e-6, 1e4
EASIER, HARDER = 0.25, 6.0
LONGEST_STEP = 1.0
_SEAL = object()


@dataclass(frozen=True)
class CalibrationRuns:
    """Runs that may be fitted; made by `calibration_runs` and narrowed by `keep` only."""

    runs: tuple[Run, ...]
    seal: object = field(repr=False, compare=False)

    def __post_init__(self):
        if self.seal is not _SEAL:
            raise TypeError("CalibrationRuns are made by calibration_runs()")

    def keep(self, wanted: Callable[[Run], bool]) -> CalibrationRuns:
        """Some of them."""
        return CalibrationRuns(tuple(run for run in self.runs if wanted(run)), _SEAL)


def calibration_runs(measurements: Measurements) -> CalibrationRuns:
    """The runs whose split says `calibrate`, and no others."""
    return CalibrationRuns(tuple(run for run in measurements.runs if run.split == "calibrate"), _SEAL)


@dataclass(frozen=True, eq=False)
class Solution:
    """Where a fit ended."""

    theta: np.ndarray
    "[columns] corrections in real form."
    errors: np.ndarray
    "[values] log(predicted / measured), of rows left out too."


def fit(
    problem: JointProblem,
    start: np.ndarray | None = None,
    kept: np.ndarray | None = None,
    iterations: int = FULL_ITERATIONS,
    jacobian: np.ndarray | None = None,
) -> Solution:
    """Minimise over the rows `kept` (all when None) from `start`; `jacobian` there saves computing it."""
    theta = problem.first.copy() if start is None else start.copy()
    rows = np.arange(len(problem.run)) if kept is None else np.flatnonzero(kept)
    errors = problem.errors(theta)
    cost = objective(problem, theta, errors, rows)
    damping, idle = FIRST_DAMPING, 0
    for _ in range(iterations):
        slopes = problem.jacobian(theta) if jacobian is None else jacobian
        jacobian, before = None, cost
        while damping < LARGEST_DAMPING:
            step = _step(problem, theta, errors, slopes, rows, damping)
            tried = theta + step / max(1.0, np.abs(step).max() / LONGEST_STEP)
            tried_errors = problem.errors(tried)
            tried_cost = objective(problem, tried, tried_errors, rows)
            if tried_cost >= cost:
                damping *= HARDER
                continue
            gain, theta, errors, cost = cost - tried_cost, tried, tried_errors, tried_cost
            damping = max(damping * EASIER, LEAST_DAMPING)
            if gain < ANOTHER * cost:
                break
        idle = idle + 1 if before - cost < GAIN * cost else 0
        if idle >= PATIENCE:
            break
    return Solution(theta, errors)


def objective(problem: JointProblem, theta: np.ndarray, errors: np.ndarray, rows: np.ndarray) -> float:
    """Cauchy loss of the rows, and the priors."""
    loss = SOFTNESS**2 * np.log1p((errors[rows] / SOFTNESS) ** 2)
    data = (problem.weight[rows] ** 2 * loss).sum() / RESIDUAL_SPREAD**2
    return float(data + ((theta / problem.spread) ** 2).sum())


def precision(problem: JointProblem, errors: np.ndarray) -> np.ndarray:
    """[values] weight that a row has in the least-squares problem at these errors."""
    return (problem.weight / RESIDUAL_SPREAD) ** 2 / (1.0 + (errors / SOFTNESS) ** 2)


def normal_matrix(problem: JointProblem, slopes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """JᵀWJ and the priors."""
    return (slopes * weights[:, None]).T @ slopes + np.diag(problem.spread**-2.0)


def _step(problem, theta, errors, slopes, rows, damping: float) -> np.ndarray:
    weights = precision(problem, errors)[rows]
    normal = normal_matrix(problem, slopes[rows], weights)
    pull = slopes[rows].T @ (weights * errors[rows]) + theta / problem.spread**2
    return -np.linalg.solve(normal + damping * np.diag(np.diag(normal)), pull)


def errors_without_each(
    problem: JointProblem, solution: Solution, slopes: np.ndarray, groups: Sequence[object]
) -> np.ndarray:
    r"""Errors of each row had its group been left out of the fit, to first order.

    Dropping the rows G of a least-squares optimum moves it by
    :math:`\delta = (J^T W J - J_G^T W_G J_G)^{-1} J_G^T W_G e_G` (Cook and Weisberg 1982); exact for a linear
    model, and good for groups as small as an engine configuration. Larger ones are refitted (`leave_out`).
    """
    weights = precision(problem, solution.errors)
    normal = normal_matrix(problem, slopes, weights)
    moved = solution.errors.copy()
    labels = np.array([str(group) for group in groups])
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        own = slopes[rows] * weights[rows, None]
        shift = np.linalg.solve(normal - slopes[rows].T @ own, own.T @ solution.errors[rows])
        moved[rows] += slopes[rows] @ shift
    return moved
