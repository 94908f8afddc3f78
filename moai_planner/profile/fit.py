r"""Costs of operators from step times: non-negative least squares on relative errors, robust to outliers.

.. math:: \min_{x \ge 0} \sum_i w_i \left(\frac{(A x)_i - t_i}{t_i}\right)^2

A: work of each step by operator (`features`). t: measured seconds. w: 1 for small residuals, falling as
1/|r| beyond 1.345 standard deviations (Huber 1964), so that a disturbed point does not bend the others.

Which points inform which cost: decode at short contexts `step`, `request` and dense@small; decode at long
contexts `decode_kv` and `decode_flop`; long prompts dense@large and `prefill_flop`; prompts on cached context
`prefill_flop` apart from the products.

`step` and `request` are fitted to the part of each step that was timed outside the model, the others to the
rest. One model cannot tell `layer` from dense@1, `rows` from dense@m or `decode_flop` from `decode_kv`: a fit
to one model leaves the former out. Configurations that vary layers, hidden size and heads tell them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from moai_planner.domain.measured import MeasuredPoint, StepShape
from moai_planner.domain.model import Model
from moai_planner.profile.features import COLUMNS, work
from moai_planner.profile.interpolate import interpolate

_HUBER = 1.345
_ENGINE = ("step", "request")
_NEED_SEVERAL_MODELS = ("layer", "rows", "decode_flop")
_ROUNDS = 8


@dataclass(frozen=True)
class Observations:
    """Measured step times of one model."""

    model: Model
    precision: str
    seconds: Mapping[StepShape, float]
    overhead_s: Mapping[StepShape, float] = field(default_factory=dict)
    "Part of each step outside the model, where it was timed apart."

    def without(self, shapes: frozenset[StepShape]) -> Observations:
        """The same model with some points hidden."""
        kept = {shape: value for shape, value in self.seconds.items() if shape not in shapes}
        return Observations(self.model, self.precision, kept, self.overhead_s)


def observe(model: Model, precision: str, points: Sequence[MeasuredPoint]) -> Observations:
    """Measured points as observations."""
    return Observations(
        model,
        precision,
        {point.shape: point.seconds for point in points},
        {point.shape: point.overhead_s for point in points},
    )


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
    costs = np.full(len(COLUMNS), np.nan)
    timed_apart = np.isin(COLUMNS, _ENGINE)
    present = table.any(axis=0)
    if len({o.model for o in observations}) == 1:
        present &= ~np.isin(COLUMNS, _NEED_SEVERAL_MODELS)
    target = seconds
    if all(shape in o.overhead_s for o in observations for shape in o.seconds):
        overhead = np.concatenate([[o.overhead_s[shape] for shape in o.seconds] for o in observations])
        costs[timed_apart] = _robust(table[:, timed_apart], overhead, seconds)
        target = np.maximum(seconds - table[:, timed_apart] @ costs[timed_apart], seconds / 2)
        present &= ~timed_apart
    costs[present] = _robust(table[:, present], target, seconds)
    residuals = table @ np.nan_to_num(costs) / seconds - 1
    return Costs(costs, float(np.median(np.abs(residuals))), len(seconds))


def _robust(table: np.ndarray, target: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Non-negative costs [columns] with table · costs ≈ target, errors relative to the whole step."""
    from scipy.optimize import nnls

    system, goal = table / seconds[:, None], target / seconds
    scale = np.maximum(np.linalg.norm(system, axis=0), 1e-300)
    weights = np.ones(len(seconds))
    for _ in range(_ROUNDS):
        root = np.sqrt(weights)
        solution, _ = nnls(system / scale * root[:, None], goal * root)
        residuals = system / scale @ solution - goal
        spread = 1.4826 * np.median(np.abs(residuals)) + 1e-12
        weights = np.minimum(1.0, _HUBER * spread / np.maximum(np.abs(residuals), 1e-12))
    return solution / scale


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
