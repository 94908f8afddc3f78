"""Fit the parameters of one family to its calibration runs: robust regression with priors.

Residuals are logarithms of predicted over measured, softened (Cauchy) so that a run far off pulls less
than one ten percent off; every parameter is also pulled towards where it started. Rows of a crowded (model,
device) count less each, so that no model speaks for all.

Only `CalibrationRuns` can be fitted, and `calibration_runs` alone makes them: it keeps `split == calibrate`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.optimize import least_squares

from moai_planner.accuracy.families import (
    ARCHITECTURE_FIELDS,
    BASE_FIELDS,
    BASE_SPREAD,
    CHILD_SPREAD,
    DEVIATION_SPREAD,
    FORMAT_FIELDS,
    PRIOR_FACTORS,
    Family,
    family_of,
)
from moai_planner.accuracy.predict import Predictor, metrics_of
from moai_planner.accuracy.prepare import AcceleratorOf, ModelOf, ParametersOf, prepare
from moai_planner.accuracy.run import Measurements, Run
from moai_planner.costmodel.configuration import Configuration
from moai_planner.domain.accelerator import Accelerator
from moai_planner.domain.parameters import Parameters, from_vector, to_vector
from moai_planner.domain.precision import Precision
from moai_planner.domain.units import NANO

FITTED_METRICS = {
    "tpot_ms_mean": 1.0,
    "tpot_ms_median": 1.0,
    "itl_ms_mean": 1.0,
    "total_tps_per_accel": 1.0,
    "output_tps_per_accel": 1.0,
    "ttft_ms_median": 0.2,
    "ttft_ms_mean": 0.2,
    "e2el_s_mean": 0.5,
    "e2el_s_median": 0.5,
}
"""Metric → weight of its residual."""
SOFTNESS = 0.12
"""Residual (log) beyond which a run's pull shrinks again."""
RESIDUAL_SPREAD = 0.08
"""Standard deviation that the likelihood gives a residual; sets how much rows weigh against priors."""
MAX_EVALUATIONS = 25
GROUPINGS: dict[str, Callable[[Run], object]] = {
    "model": lambda run: run.model,
    "accelerator": lambda run: run.accelerator,
    "cell": lambda run: (run.model, run.accelerator, run.workers),
}
"""What is left out together: a model, a device, an engine configuration."""
TOLERANCE = 1e-4
SMALLEST = NANO
_SEAL = object()


@dataclass(frozen=True)
class CalibrationRuns:
    """Runs that may be fitted; made by `calibration_runs` and narrowed by `without` only."""

    runs: tuple[Run, ...]
    seal: object = field(repr=False, compare=False)

    def __post_init__(self):
        if self.seal is not _SEAL:
            raise TypeError("CalibrationRuns are made by calibration_runs()")

    def keep(self, wanted: Callable[[Run], bool]) -> CalibrationRuns:
        """Some of them: a family's, or all but a left-out group."""
        return CalibrationRuns(tuple(run for run in self.runs if wanted(run)), _SEAL)


def calibration_runs(measurements: Measurements) -> CalibrationRuns:
    """The runs whose split says `calibrate`, and no others."""
    return CalibrationRuns(tuple(run for run in measurements.runs if run.split == "calibrate"), _SEAL)


@dataclass(frozen=True, eq=False)
class Residuals:
    """Every fitted value of every run: how far off it is, and how far when its group is left out."""

    run: np.ndarray
    "[n] index of the run."
    metric: tuple[str, ...]
    error: np.ndarray
    "[n] log(predicted / measured) with all rows."
    cell: np.ndarray
    "[n] number of the engine configuration, for counting independent groups."
    held_out: Mapping[str, np.ndarray]
    "Grouping (`model`, `accelerator`, `cell`) → [n] the same had the row's group not been fitted."


@dataclass(frozen=True, eq=False)
class Optimum:
    """The fit as a linear problem around its end, for questions that need no refit."""

    jacobian: np.ndarray
    "[rows and priors, columns]"
    residual: np.ndarray
    vector: np.ndarray
    fields: tuple[str, ...]
    "[columns] the field that a column moves."
    weight: np.ndarray


@dataclass(frozen=True, eq=False)
class FamilyFit:
    """What a fit adds to the assumed parameters of a device, engine and number format (real form)."""

    family: Family
    base: np.ndarray
    "[`BASE_FIELDS`] the correction that the whole family shares, its parent's included."
    architectures: dict[str, np.ndarray]
    "Architecture → [`ARCHITECTURE_FIELDS`] on top of it."
    formats: dict[str, np.ndarray]
    "Number format → [`FORMAT_FIELDS`] on top of both."
    runs: tuple[Run, ...]
    residuals: Residuals | None = None
    optimum: Optimum | None = None

    def correct(self, assumed: Parameters, architecture: str, number_format: str) -> Parameters:
        """The assumed parameters, moved by what is known about them."""
        moved = _moved(assumed, BASE_FIELDS, self.base)
        moved = _moved(moved, ARCHITECTURE_FIELDS, self.architectures.get(architecture))
        return _moved(moved, FORMAT_FIELDS, self.formats.get(number_format))


def _moved(start: Parameters, names: Sequence[str], correction: np.ndarray | None) -> Parameters:
    if correction is None:
        return start
    return from_vector(to_vector(start, names) + correction, start, names)


def corrected(fits: Mapping[tuple[str, str], FamilyFit], assumed_of: ParametersOf) -> ParametersOf:
    """Assumed parameters with the fits of their families; families without a fit pass the assumed ones on."""

    def found(accelerator: Accelerator, engine: str, precision: Precision) -> Parameters:
        assumed = assumed_of(accelerator, engine, precision)
        fit = fits.get(family_of(accelerator, engine).key)
        return fit.correct(assumed, accelerator.architecture, precision.id) if fit else assumed

    return found


def runs_of(family: Family, runs: CalibrationRuns, accelerator_of: AcceleratorOf) -> CalibrationRuns:
    """The runs that a family is fitted to: its engine decodes them."""

    def mine(run: Run) -> bool:
        last = run.workers[-1]
        return last.engine == family.engine and accelerator_of(last.accelerator).platform == family.platform

    return runs.keep(mine)


def fit_family(
    family: Family,
    runs: CalibrationRuns,
    known: Mapping[tuple[str, str], FamilyFit],
    model_of: ModelOf,
    accelerator_of: AcceleratorOf,
    assumed_of: ParametersOf,
    frozen: Sequence[str] = (),
) -> FamilyFit:
    """Fit one family on top of its parent. `frozen` fields keep their starting value (ablations)."""
    parent = known.get(family.parent) if family.parent else None
    start = parent.base if parent else np.zeros(len(BASE_FIELDS))
    prepared = prepare(runs.runs, model_of, accelerator_of, corrected(known, assumed_of))
    if not prepared.runs:
        return FamilyFit(family, start, {}, {}, ())
    predictor = Predictor(prepared)
    kinds = [
        _Kind(c, assumed_of(c.accelerator, c.engine.name, c.precision), family)
        for c in prepared.configurations
    ]
    shape = _Shape(family, start, kinds, frozenset(frozen), BASE_SPREAD if parent is None else CHILD_SPREAD)
    index, metric, log_measured, weight = _targets(prepared.runs)

    def residuals(vector: np.ndarray) -> np.ndarray:
        fit = shape.fit(vector, ())
        made: dict[tuple[str, str, str], Parameters] = {}
        chosen = [kind.parameters(fit, made) for kind in kinds]
        values = metrics_of(prepared, predictor.outcomes(chosen))
        table = np.array([values[name] for name in FITTED_METRICS])
        error = np.log(np.maximum(table[metric, index], SMALLEST)) - log_measured
        return np.concatenate([weight * _soft(error) / RESIDUAL_SPREAD, vector / shape.spread])

    found = least_squares(
        residuals, np.zeros(len(shape.spread)), max_nfev=MAX_EVALUATIONS, xtol=TOLERANCE, ftol=TOLERANCE
    )
    fit = shape.fit(found.x, prepared.runs)
    rows = len(index)
    error = _error_of(found.fun[:rows], weight)
    held_out = {
        name: held_out_errors(found.jac, found.fun, error, weight, [label(prepared.runs[i]) for i in index])
        for name, label in GROUPINGS.items()
    }
    names = tuple(FITTED_METRICS)
    cells = {key: number for number, key in enumerate(dict.fromkeys(map(GROUPINGS["cell"], prepared.runs)))}
    cell = np.array([cells[GROUPINGS["cell"](prepared.runs[i])] for i in index])
    residual_rows = Residuals(index, tuple(names[k] for k in metric), error, cell, held_out)
    optimum = Optimum(found.jac, found.fun, found.x, shape.fields, weight)
    return replace(fit, residuals=residual_rows, optimum=optimum)


class _Kind:
    """Parameters of one configuration while its family is fitted: shared by (device, engine, format)."""

    def __init__(self, c: Configuration, assumed: Parameters, family: Family):
        self.own = family_of(c.accelerator, c.engine.name).key == family.key
        self.key = (c.accelerator.id, c.engine.name, c.precision.id)
        self.architecture, self.number_format = c.accelerator.architecture, c.precision.id
        self.assumed, self.fixed = assumed, c.parameters

    def parameters(self, fit: FamilyFit, made: dict[tuple[str, str, str], Parameters]) -> Parameters:
        if not self.own:
            return self.fixed
        if self.key not in made:
            made[self.key] = fit.correct(self.assumed, self.architecture, self.number_format)
        return made[self.key]


class _Shape:
    """How the fitted vector is laid out: base fields, then each architecture, then each format.

    A single architecture or format has no deviation of its own: the base says it all.
    """

    def __init__(self, family, start, kinds, frozen, base_spread):
        self.family, self.start = family, start
        self.architectures = _several({kind.architecture for kind in kinds if kind.own})
        self.formats = _several({kind.number_format for kind in kinds if kind.own})
        parts = [_spreads(BASE_FIELDS, frozen, base_spread)]
        parts += [_spreads(ARCHITECTURE_FIELDS, frozen, DEVIATION_SPREAD) for _ in self.architectures]
        parts += [_spreads(FORMAT_FIELDS, frozen, DEVIATION_SPREAD) for _ in self.formats]
        self.full = np.concatenate(parts)
        self.free = self.full > 0
        self.spread = self.full[self.free]
        names = BASE_FIELDS
        names += ARCHITECTURE_FIELDS * len(self.architectures) + FORMAT_FIELDS * len(self.formats)
        self.fields = tuple(name for name, free in zip(names, self.free, strict=True) if free)

    def fit(self, vector: np.ndarray, runs: tuple[Run, ...]) -> FamilyFit:
        full = np.zeros(len(self.full))
        full[self.free] = vector
        n, a, f = len(BASE_FIELDS), len(ARCHITECTURE_FIELDS), len(FORMAT_FIELDS)
        by_architecture = full[n : n + a * len(self.architectures)].reshape(-1, a)
        by_format = full[n + a * len(self.architectures) :].reshape(-1, f)
        return FamilyFit(
            family=self.family,
            base=self.start + full[:n],
            architectures=dict(zip(self.architectures, by_architecture, strict=True)),
            formats=dict(zip(self.formats, by_format, strict=True)),
            runs=runs,
        )


def _several(names: set[str]) -> list[str]:
    return sorted(names) if len(names) > 1 else []


def _spreads(names: Sequence[str], frozen: frozenset[str], spread: float) -> np.ndarray:
    return np.array([0.0 if name in frozen else spread * PRIOR_FACTORS.get(name, 1.0) for name in names])


def _soft(error: np.ndarray) -> np.ndarray:
    """Square root of the Cauchy loss, so that plain least squares minimises the robust sum."""
    return np.sign(error) * SOFTNESS * np.sqrt(np.log1p((error / SOFTNESS) ** 2))


def _error_of(softened: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The logarithmic error behind a softened, weighted residual."""
    z = softened * RESIDUAL_SPREAD / weight / SOFTNESS
    return np.sign(z) * SOFTNESS * np.sqrt(np.expm1(z**2))


def _slope(error: np.ndarray) -> np.ndarray:
    """Derivative of `_soft`."""
    u = np.abs(error / SOFTNESS)
    level = np.sqrt(np.log1p(u**2))
    return np.where(u > SMALLEST, u / ((1 + u**2) * np.maximum(level, SMALLEST)), 1.0)


def errors_without(fit: FamilyFit, field_name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Jacobian, residuals and errors had a field and its deviations kept their assumed value.

    Holding the columns S of the optimum at zero moves the others by
    :math:`\delta = -N^{-1}_{:,S} (N^{-1}_{S,S})^{-1} \theta_S` with the normal matrix N (to first order).
    """
    o, error = fit.optimum, fit.residuals.error
    held = np.array([name == field_name for name in o.fields])
    inverse = np.linalg.inv(o.jacobian.T @ o.jacobian)
    shift = -inverse[:, held] @ np.linalg.solve(inverse[np.ix_(held, held)], o.vector[held])
    moved = o.jacobian @ shift
    slope = _slope(error) * o.weight / RESIDUAL_SPREAD
    return o.jacobian[:, ~held], o.residual + moved, error + moved[: len(error)] / slope


def held_out_errors(
    jacobian: np.ndarray, residual: np.ndarray, error: np.ndarray, weight: np.ndarray, groups: Sequence
) -> np.ndarray:
    r"""Errors of each row had its group been left out of the fit, to first order.

    Dropping the rows G of a least-squares optimum moves it by
    :math:`\delta = (J^T J - J_G^T J_G)^{-1} J_G^T z_G` (Cook and Weisberg 1982); exact for a linear
    model. Rows that are priors belong to no group.
    """
    slope = _slope(error) * weight / RESIDUAL_SPREAD
    normal = jacobian.T @ jacobian
    moved = error.copy()
    labels = np.array([str(group) for group in groups])
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        own = jacobian[rows]
        shift = np.linalg.solve(normal - own.T @ own, own.T @ residual[rows])
        moved[rows] = error[rows] + (own @ shift) / slope[rows]
    return moved


def _targets(runs: Sequence[Run]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Every fitted value of every run: run index, metric index, log of the measurement, weight."""
    crowd = Counter((run.model, run.accelerator) for run in runs)
    rows = []
    for i, run in enumerate(runs):
        share = (20.0 / max(20.0, crowd[run.model, run.accelerator])) ** 0.25
        for k, (name, weight) in enumerate(FITTED_METRICS.items()):
            if name in run.metrics:
                rows.append((i, k, np.log(run.metrics[name]), weight * share))
    table = np.array(rows)
    return table[:, 0].astype(int), table[:, 1].astype(int), table[:, 2], table[:, 3]
