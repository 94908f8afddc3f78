"""The split is sacred, the fit is deterministic, left-out errors are what a refit gives."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from moai_planner.accuracy import fit as fitting
from moai_planner.accuracy.calibrate import Sources, calibration_steps
from moai_planner.accuracy.families import FAMILIES
from moai_planner.accuracy.fit import CalibrationRuns, calibration_runs, held_out_errors
from moai_planner.accuracy.measurements import read_measurements
from moai_planner.catalog.accelerators import accelerator
from moai_planner.catalog.models import model
from moai_planner.catalog.parameters import assumed_for

SMALL = Path(__file__).parent / "small.csv"
SOURCES = Sources(model, accelerator, assumed_for)


def files(measurements) -> dict[str, str]:
    return {
        name: text
        for step in calibration_steps(calibration_runs(measurements), SOURCES, "small.csv")
        for name, text in step.files.items()
    }


def test_only_calibrate_rows_can_be_fitted():
    """The type that a fit accepts has one maker, and that one filters."""
    measurements = read_measurements(SMALL)
    assert {run.split for run in calibration_runs(measurements).runs} == {"calibrate"}
    with pytest.raises(TypeError):
        CalibrationRuns(measurements.runs, object())


def test_validate_rows_do_not_touch_the_fit(monkeypatch):
    """Corrupting every validate row leaves every byte of the parameter files as it was."""
    monkeypatch.setattr(fitting, "MAX_EVALUATIONS", 4)
    measurements = read_measurements(SMALL)
    corrupted = replace(
        measurements,
        runs=tuple(
            run
            if run.split == "calibrate"
            else replace(run, metrics={name: 1e6 * value for name, value in run.metrics.items()})
            for run in measurements.runs
        ),
    )
    first = files(measurements)
    assert first
    assert files(corrupted) == first


def test_every_parent_comes_before_its_child():
    """Families are fitted in order, each on top of one already fitted."""
    seen = set()
    for family in FAMILIES:
        assert family.parent is None or family.parent in seen
        seen.add(family.key)


def test_left_out_errors_equal_a_refit_of_a_linear_model():
    """Oracle: least squares solved again without the group (errors small, so the loss is quadratic)."""
    rng = np.random.default_rng(1)
    rows, fields = 40, 3
    design = rng.normal(size=(rows, fields))
    target = 1e-4 * rng.normal(size=rows)
    groups = [i % 4 for i in range(rows)]
    spread = fitting.RESIDUAL_SPREAD

    def solve(keep: np.ndarray) -> np.ndarray:
        top = design[keep] / spread
        return np.linalg.solve(top.T @ top + np.eye(fields), top.T @ target[keep] / spread)

    x = solve(np.ones(rows, bool))
    error = design @ x - target
    jacobian = np.vstack([design / spread, np.eye(fields)])
    residual = np.concatenate([error / spread, x])
    found = held_out_errors(jacobian, residual, error, np.ones(rows), groups)
    for group in range(4):
        own = np.array(groups) == group
        expected = design[own] @ solve(~own) - target[own]
        assert found[own] == pytest.approx(expected, rel=1e-3, abs=1e-9)
