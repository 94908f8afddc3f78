r"""Costs of operators from step times: non-negative least squares on relative errors, robust to outliers.

.. math:: \min_{x \ge 0} \sum_i w_i \left(\frac{(A x)_i - t_i}{t_i}\right)^2

A: work of each step by operator (`features`). t: measured seconds. w: 1 for small residuals, falling as
1/|r| beyond 1.345 standard deviations (Huber 1964), so that a disturbed point does not bend the others.

Which points inform which cost: decode at short contexts `step`, `request` and dense@small; decode at long
contexts `decode_kv` and `decode_flop`; long prompts dense@large and `prefill_flop`; prompts on cached context
`prefill_flop` apart from the products. One model cannot tell `layer` from `step`, or `decode_kv` from
`decode_flop`: configurations that vary layers and heads do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moai_planner.domain.measured import StepShape
from moai_planner.domain.model import Model
from moai_planner.profile.features import COLUMNS, work
from moai_planner.profile.interpolate import interpolate

_HUBER = 1.345
_ROUNDS = 8


@dataclass(frozen=True)
class Observations:
    """Measured step times of one model."""

    model: Model
    precision: str
    seconds: Mapping[StepShape, float]


@dataclass(frozen=True, eq=False)
class Costs:
    """Seconds per unit of work, by column; a column without work in the data is not known (NaN)."""

    seconds: np.ndarray
    residual_frac: float
    "Median absolute relative residual of the points fitted."
    points: int

    def by_name(self) -> dict[str, float]:
        """The costs that are not zero."""
        return {
            name: float(cost)
            for name, cost in zip(COLUMNS, self.seconds, strict=True)
            if np.isfinite(cost) and cost > 0
        }


def fit(observations: Sequence[Observations]) -> Costs:
    """Fit the costs to the points of one or several models."""
    table = np.vstack([work(o.model, o.precision, list(o.seconds)) for o in observations])
    seconds = np.concatenate([list(o.seconds.values()) for o in observations])
    from scipy.optimize import nnls

    relative = table / seconds[:, None]
    present = relative.any(axis=0)
    scale = np.linalg.norm(relative[:, present], axis=0)
    system = relative[:, present] / scale
    weights = np.ones(len(seconds))
    for _ in range(_ROUNDS):
        root = np.sqrt(weights)
        solution, _ = nnls(system * root[:, None], root)
        residuals = system @ solution - 1
        spread = 1.4826 * np.median(np.abs(residuals)) + 1e-12
        weights = np.minimum(1.0, _HUBER * spread / np.maximum(np.abs(residuals), 1e-12))
    costs = np.full(len(COLUMNS), np.nan)
    costs[present] = solution / scale
    return Costs(costs, float(np.median(np.abs(residuals))), len(seconds))


def modelled_s(costs: Costs, model: Model, precision: str, shapes: Sequence[StepShape]) -> np.ndarray:
    """Step times [len(shapes)] by operator costs alone: for a model that was not measured."""
    return work(model, precision, shapes) @ np.nan_to_num(costs.seconds)


def predicted_s(costs: Costs, measured: Observations, shapes: Sequence[StepShape]) -> np.ndarray:
    """Step times [len(shapes)] of a measured model: the operators' time, times measured over modelled.

    The ratio is interpolated in log between the points, so a measured point comes back exactly.
    """
    known = list(measured.seconds)
    base = modelled_s(costs, measured.model, measured.precision, known)
    ratios = np.log(np.array(list(measured.seconds.values())) / base)
    ratio = interpolate(dict(zip(known, ratios, strict=True)), shapes)
    return modelled_s(costs, measured.model, measured.precision, shapes) * np.exp(ratio)


def errors(costs: Costs, fitted: Observations, truth: Mapping[StepShape, float]) -> dict[StepShape, float]:
    """Relative error at points that are not among the fitted ones."""
    shapes = list(truth)
    predicted = predicted_s(costs, fitted, shapes)
    return {shape: float(p / truth[shape] - 1) for shape, p in zip(shapes, predicted, strict=True)}
