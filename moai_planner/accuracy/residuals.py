"""Left-out errors of everything that is predicted, fitted or not: what intervals are made of.

A run's metrics are predicted as for users (transients and tails simulated). How far leaving a group out moves
them is known for the fitted values; the others of the run, its tails say, move as the fitted value of their
kind does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from moai_planner.accuracy.fit import Solution
from moai_planner.accuracy.joint import FITTED_METRICS, JointProblem
from moai_planner.accuracy.kinds import kind_of, plain_of
from moai_planner.accuracy.leave_out import Labels, LeftOut, labels_of
from moai_planner.accuracy.predict import predict


@dataclass(frozen=True, eq=False)
class Residuals:
    """One row for each predicted metric of each calibration run."""

    labels: Labels
    run: np.ndarray
    kinds: np.ndarray
    errors: Mapping[str, np.ndarray]
    "What was left out (`cell`, `model` …) → [rows] log(predicted / measured)."


def residuals_of(problem: JointProblem, solution: Solution, left: LeftOut) -> Residuals:
    """Errors of the shipped predictions, moved by what each grouping's left-out fits move."""
    made = problem.parameters(solution.theta)
    number = {group: i for i, group in enumerate(problem.sets)}
    prepared = problem.prepared
    configurations = tuple(
        replace(c, parameters=made[number[group]])
        for c, group in zip(prepared.configurations, prepared.groups, strict=True)
    )
    values = predict(replace(prepared, configurations=configurations))
    rows = [
        (i, kind_of(name), np.log(values[name][i] / measured))
        for i, run in enumerate(problem.runs)
        for name, measured in run.metrics.items()
        if name in values and np.isfinite(values[name][i]) and values[name][i] > 0
    ]
    run = np.array([i for i, _, _ in rows])
    kinds = np.array([kind for _, kind, _ in rows])
    error = np.array([error for _, _, error in rows])
    errors = {
        grouping: error + _moves(problem, found - solution.errors, run, kinds)
        for grouping, found in left.errors.items()
    }
    return Residuals(labels_of(problem, run), run, kinds, errors)


def _moves(problem: JointProblem, moves: np.ndarray, run: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """[rows] how far the fitted values of the row's run and kind move, on average; else all of the run's."""
    plain = [plain_of(kind_of(name)) for name in FITTED_METRICS]
    sums: dict[tuple[int, str], list[float]] = {}
    for i, metric, move in zip(problem.run, problem.metric, moves, strict=True):
        sums.setdefault((i, plain[metric]), []).append(move)
        sums.setdefault((i, ""), []).append(move)
    return np.array(
        [
            float(np.mean(sums.get((i, plain_of(kind))) or sums[i, ""]))
            for i, kind in zip(run, kinds, strict=True)
        ]
    )
