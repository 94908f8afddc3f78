"""A run's date matters: what repeated runs say of an engine's progress, and who it is applied to."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from moai_planner.accuracy.fit import calibration_runs, fit
from moai_planner.accuracy.joint import PERIOD, JointProblem
from moai_planner.accuracy.measurements import read_measurements
from moai_planner.accuracy.pace import MIXED, nearest, period_of, periods_of
from moai_planner.accuracy.predict import predict
from moai_planner.accuracy.prepare import prepare
from moai_planner.catalog.accelerators import accelerator
from moai_planner.catalog.models import model
from moai_planner.catalog.parameters import assumed_for, parameters_for
from tests.accuracy.test_fit import SMALL

MONTHS = ("2025-11", "2025-12", "2026-01", "2026-06")


def repeated(factor: float):
    """Ten runs of one engine, each made in four months; all but the newest month `factor` times as slow."""
    runs = [run for run in calibration_runs(read_measurements(SMALL)).runs if run.engine == "vllm"]
    first = runs[0]
    alike = [run for run in runs if (run.model, run.accelerator) == (first.model, first.accelerator)]
    several = [alike[i % len(alike)] for i in range(10)]
    made = []
    for month in MONTHS:
        slower = 1.0 if month == MONTHS[-1] else factor
        for i, run in enumerate(several):
            metrics = {
                name: value / slower if "_tps" in name else value * slower
                for name, value in run.metrics.items()
            }
            notes = run.notes.replace("engine versions mixed", "")
            made.append(replace(run, id=f"{month}-{i}", date=f"{month}-03", notes=notes, metrics=metrics))
    return tuple(made)


def problem_of(runs) -> JointProblem:
    return JointProblem(prepare(runs, model, accelerator, assumed_for), assumed_for)


def test_a_pace_is_found_and_the_newest_months_have_none():
    """Law: runs 1.5 times as slow before the newest months give a pace near it; the prior takes a part."""
    problem = problem_of(repeated(1.5))
    found = problem.paces(fit(problem).theta)
    ((_, own),) = found.items()
    assert sorted(own) == list(MONTHS[:-1])
    assert all(1.3 < pace < 1.55 for pace in own.values())
    even = problem_of(repeated(1.0))
    ((_, own),) = even.paces(fit(even).theta).items()
    assert all(0.97 < pace < 1.03 for pace in own.values())


def test_derivatives_by_a_pace_are_those_of_the_errors():
    problem = problem_of(repeated(1.5))
    slopes = problem.jacobian(problem.first)
    columns = [i for i, ((level, _), _) in enumerate(problem.columns) if level == PERIOD]
    for i in columns:
        moved = problem.first.copy()
        moved[i] += 1e-4
        numeric = (problem.errors(moved) - problem.errors(problem.first)) / 1e-4
        assert slopes[:, i] == pytest.approx(numeric, abs=1e-6)


def test_few_months_have_no_pace():
    """One model in three months at least, so that a source or a model is not taken for a date."""
    runs = repeated(1.5)
    assert not periods_of([run for run in runs if run.date[:7] in MONTHS[-2:]], ["vllm Hopper"] * 20)
    apart = [replace(run, model=run.date[:7]) for run in runs]
    assert not periods_of(apart, ["vllm Hopper"] * len(runs))
    assert periods_of(runs, ["vllm Hopper"] * len(runs)) == {"vllm Hopper": MONTHS[:-1]}


@pytest.mark.parametrize(
    ("date", "notes", "period"),
    [
        ("2025-12-03", "", "2025-12"),
        ("2026-07-20", "engine versions mixed", MIXED),
        ("spring", "", ""),
        ("2025-13", "", ""),
        ("", "", ""),
    ],
)
def test_periods(date, notes, period):
    assert period_of(replace(repeated(1.0)[0], date=date, notes=notes)) == period


def test_months_without_a_pace_take_the_one_before():
    paces = {"2025-12": 1.4, "2026-02": 1.1, MIXED: 1.2}
    assert [nearest(paces, p) for p in ("2025-10", "2026-01", "2026-02", "2026-03", MIXED, "")] == [
        1.4,
        1.4,
        1.1,
        1.0,
        1.2,
        1.0,
    ]


def test_predictions_are_of_their_time():
    """Times are multiplied by the pace of the run's month, throughput divided; nothing else moves."""
    run = replace(repeated(1.0)[0], date="2025-12-03")
    later = replace(run, id="later", date="2026-06-03")

    def paced(*asked):
        return replace(parameters_for(*asked), paces={"2025-12": 1.25})

    values = predict(prepare((run, later), model, accelerator, paced))
    assert period_of(run) == "2025-12"
    assert values["tpot_ms_mean"][0] == pytest.approx(1.25 * values["tpot_ms_mean"][1])
    assert values["total_tps"][1] == pytest.approx(1.25 * values["total_tps"][0])
    assert np.isfinite(values["tpot_ms_mean"]).all()


def test_validate_says_which_rows_were_predicted_as_of_their_date(tmp_path):
    """An engine whose shipped parameters have a pace; the same run of today has none."""
    head = "id,date,model,precision,engine,topology,accelerator,n_accelerators,tp,isl,osl,concurrency,"
    head += "tpot_ms_mean"
    row = ",deepseek-ai/DeepSeek-R1,fp8,sglang,colocated,mi355x,8,8,1024,1024,8,12"
    file = tmp_path / "runs.csv"
    file.write_text(f"{head}\nold,2025-12-12{row}\nnew,2026-11-01{row}\n")
    command = [sys.executable, "-m", "moai_planner.cli.main", "validate", str(file), "--json"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    old, new = (row["predicted"] for row in json.loads(answer.stdout)["rows"])
    assert "predicted as of their date: 1 row" in answer.stderr
    stated = re.search(r"times of ([\d.]+) to ([\d.]+) of", answer.stderr)
    assert stated and [float(one) for one in stated.groups()] == pytest.approx([old / new] * 2, abs=0.01)
