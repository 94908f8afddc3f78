"""All calibration runs as one regression: corrections in, logarithmic errors and their derivatives out.

problem = JointProblem(prepared, assumed_of)
errors = problem.errors(theta)               # [values] log(predicted / measured)
problem.jacobian(theta)                      # [values, columns]

A column of `theta` is one field of one part (`domain/corrections`). Since a set's parameters are a sum of
parts, one derivative by the set's own fields serves all columns: the cost is one evaluation a field.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from moai_planner.accuracy.families import BASE_FIELDS, LENGTH_FIELDS, SEVERAL_LENGTHS, spread_of
from moai_planner.accuracy.pace import SPREAD, nearest, period_of, periods_of, power_of
from moai_planner.accuracy.predict import Predictor, metrics_of
from moai_planner.accuracy.prepare import ParametersOf, Prepared, subset
from moai_planner.accuracy.run import Run
from moai_planner.costmodel.configuration import Configuration
from moai_planner.domain.corrections import Part, is_native, measured_as, pace_name, parts_of
from moai_planner.domain.model import APPROXIMATED_ARCHITECTURES
from moai_planner.domain.parameters import Parameters, from_vector, to_vector
from moai_planner.domain.units import MILLI, NANO

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
TIMES = np.array([power_of(name) for name in FITTED_METRICS])
"""Power of a pace in each of them."""
PERIOD, PACE = "period", "pace"
NUDGE = MILLI
"""Step of the numerical derivative, in real form."""
CROWD = 20
CROWD_POWER = 0.25
"""Rows of a (model, device) with n > `CROWD` count (CROWD/n)^`CROWD_POWER` each: no model speaks for all."""


class JointProblem:
    """Runs, targets and the layout of the columns. A fit starts from `first`: no corrections, but a cost per
    context token large enough to be seen (from almost none its derivative is none as well)."""

    def __init__(self, prepared: Prepared, assumed_of: ParametersOf, frozen: Sequence[str] = ()):
        self.prepared, self.runs = prepared, prepared.runs
        self.sets = tuple(dict.fromkeys(prepared.groups))
        number = {group: i for i, group in enumerate(self.sets)}
        self._set_of = np.array([number[group] for group in prepared.groups])
        first = [prepared.groups.index(group) for group in self.sets]
        owners = [prepared.configurations[i] for i in first]
        self.assumed = [assumed_of(c.accelerator, c.engine.name, c.precision) for c in owners]
        self.start = np.array([to_vector(assumed, BASE_FIELDS) for assumed in self.assumed])
        self.parts = [_parts(c) for c in owners]
        self._decoder = self._set_of[prepared.records["decode"]]
        varied = _several_lengths(self.runs, [self.parts[s][-1] for s in self._decoder])
        self.columns, self.spread, self._design = _columns(self.parts, frozenset(frozen), varied)
        seen = [name in LENGTH_FIELDS for _, name in self.columns]
        self.first = np.where(seen, self.spread, 0.0)
        self._add_paces()
        represented = [c.model.architecture not in APPROXIMATED_ARCHITECTURES for c in prepared.decoders]
        self.run, self.metric, self.measured, self.weight = _targets(self.runs, represented)
        self._predictor = Predictor(prepared)
        self._mixed = np.flatnonzero(self._set_of[prepared.records["prefill"]] != self._decoder)
        self._part = _Part(subset(prepared, self._mixed), number) if len(self._mixed) else None

    def _add_paces(self) -> None:
        """Columns of their own: a factor on the times of the runs of a period."""
        keys = [pace_name(_library(c), c.accelerator.architecture) for c in self.prepared.decoders]
        first = len(self.columns)
        paces = [(key, period) for key, own in periods_of(self.runs, keys).items() for period in own]
        place = {label: first + i for i, label in enumerate(paces)}
        made_in = [period_of(run) for run in self.runs]
        known = [self.assumed[s].paces for s in self._decoder]
        self._known_pace = np.log([nearest(*each) for each in zip(known, made_in, strict=True)])
        labels = zip(keys, made_in, strict=True)
        self._pace_of = np.array([place.get(label, -1) for label in labels], dtype=int)
        self.columns += tuple(((PERIOD, f"{key} {period}"), PACE) for key, period in paces)
        self.spread = np.append(self.spread, np.full(len(paces), SPREAD))
        self.first = np.append(self.first, np.zeros(len(paces)))
        self._design = np.pad(self._design, ((0, 0), (0, 0), (0, len(paces))))

    def paces(self, theta: np.ndarray) -> dict[str, dict[str, float]]:
        """Engine and architecture → period → factor on times."""
        found: dict[str, dict[str, float]] = {}
        for ((level, label), _), real in zip(self.columns, theta, strict=True):
            if level == PERIOD:
                key, period = label.rsplit(" ", 1)
                found.setdefault(key, {})[period] = float(np.exp(real))
        return found

    def parameters(self, theta: np.ndarray) -> list[Parameters]:
        """Parameters of every set."""
        return self._made(self._reals(theta))

    def errors(self, theta: np.ndarray) -> np.ndarray:
        """log(predicted / measured) of every value."""
        paces = (np.append(theta, 0.0)[self._pace_of] + self._known_pace)[self.run] * TIMES[self.metric]
        return self._logs(self._reals(theta))[self.metric, self.run] + paces - self.measured

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        """Derivatives of `errors` by the columns."""
        reals = self._reals(theta)
        found = np.zeros((len(self.run), len(self.columns)))
        split = np.isin(self.run, self._mixed)
        slopes = self._slopes(reals, range(len(self.sets)), self._logs)[self.metric, self.run]
        for s in range(len(self.sets)):
            rows = np.flatnonzero((self._decoder[self.run] == s) & ~split)
            found[rows] = slopes[rows] @ self._design[s]
        if self._part is not None:
            rows = np.flatnonzero(split)
            place = np.searchsorted(self._mixed, self.run[rows])
            for s in self._part.sets:
                slopes = self._slopes(reals, [s], self._part_logs)
                found[rows] += slopes[self.metric[rows], place] @ self._design[s]
        rows = np.flatnonzero(self._pace_of[self.run] >= 0)
        found[rows, self._pace_of[self.run[rows]]] = TIMES[self.metric[rows]]
        return found

    def _slopes(self, reals: np.ndarray, sets: Sequence[int], logs) -> np.ndarray:
        """[metric, run, field] derivatives by the fields of these sets."""
        before = logs(reals)
        slopes = []
        for k in range(len(BASE_FIELDS)):
            moved = reals.copy()
            moved[list(sets), k] += NUDGE
            slopes.append((logs(moved) - before) / NUDGE)
        return np.stack(slopes, axis=-1)

    def _reals(self, theta: np.ndarray) -> np.ndarray:
        return self.start + self._design @ theta

    def _made(self, reals: np.ndarray) -> list[Parameters]:
        return [from_vector(v, assumed, BASE_FIELDS) for v, assumed in zip(reals, self.assumed, strict=True)]

    def _logs(self, reals: np.ndarray) -> np.ndarray:
        return _logs(self.prepared, self._predictor, self._set_of, self._made(reals))

    def _part_logs(self, reals: np.ndarray) -> np.ndarray:
        part = self._part
        return _logs(part.prepared, part.predictor, part.set_of, self._made(reals))


class _Part:
    """Runs whose prefill and decode engines have different parameters."""

    def __init__(self, prepared: Prepared, number: dict):
        self.prepared, self.predictor = prepared, Predictor(prepared)
        self.set_of = np.array([number[group] for group in prepared.groups])
        self.sets = sorted(set(self.set_of.tolist()))


def _library(c: Configuration) -> str:
    return measured_as(c.engine.name, c.accelerator.platform)


def _parts(c: Configuration) -> tuple[Part, ...]:
    device, number_format = c.accelerator, c.precision.kernels
    native = is_native(device, number_format)
    return parts_of(device.platform, device.architecture, _library(c), number_format, native)


def _logs(prepared: Prepared, predictor: Predictor, set_of: np.ndarray, made) -> np.ndarray:
    """[metric, run] logarithms of the predictions; none counts as next to nothing."""
    values = metrics_of(prepared, predictor.outcomes([made[s] for s in set_of]))
    return np.log(np.fmax(np.array([values[name] for name in FITTED_METRICS]), NANO))


def _several_lengths(runs: Sequence[Run], families: Sequence[Part]) -> frozenset[Part]:
    """Families whose runs decode contexts of several lengths."""
    lengths: dict[Part, list[float]] = {}
    for run, family in zip(runs, families, strict=True):
        lengths.setdefault(family, []).append(run.isl_tokens + run.osl_tokens / 2.0)
    return frozenset(part for part, own in lengths.items() if max(own) >= SEVERAL_LENGTHS * min(own))


def _columns(parts: Sequence[Sequence[Part]], frozen: frozenset[str], varied: frozenset[Part]):
    """Column labels, their spreads, and [set, field, column] which columns move which field."""
    numbers: dict[tuple[Part, str], int] = {}
    entries = []
    for s, own in enumerate(parts):
        for part in own:
            for k, name in enumerate(BASE_FIELDS):
                unknown = name in LENGTH_FIELDS and part not in varied
                if name not in frozen and not unknown and spread_of(part, name) > 0:
                    entries.append((s, k, numbers.setdefault((part, name), len(numbers))))
    spread = np.array([spread_of(part, name) for part, name in numbers])
    design = np.zeros((len(parts), len(BASE_FIELDS), len(numbers)))
    for entry in entries:
        design[entry] = 1.0
    return tuple(numbers), spread, design


def _targets(
    runs: Sequence[Run], represented: Sequence[bool]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Every value of every run: run index, metric index, log of the measurement, weight. Runs of a model that
    is only approximated move no parameter; their errors still count in the intervals."""
    crowd = Counter((run.model, run.accelerator) for run in runs)
    rows = []
    for i, run in enumerate(runs):
        share = (CROWD / max(CROWD, crowd[run.model, run.accelerator])) ** CROWD_POWER
        for k, (name, weight) in enumerate(FITTED_METRICS.items()):
            if name in run.metrics:
                rows.append((i, k, np.log(run.metrics[name]), weight * share * represented[i]))
    table = np.array(rows)
    return table[:, 0].astype(int), table[:, 1].astype(int), table[:, 2], table[:, 3]
