"""The split is sacred, the fit is deterministic and resumable, left-out errors are what a refit gives."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from moai_planner.accuracy import fit as fitting
from moai_planner.accuracy import leave_out
from moai_planner.accuracy.calibrate import Sources, advance, outcome_of, plan_of, resumed, stored
from moai_planner.accuracy.compare import pairs_of
from moai_planner.accuracy.families import spread_of
from moai_planner.accuracy.fit import CalibrationRuns, Solution, calibration_runs, errors_without_each
from moai_planner.accuracy.intervals import ends
from moai_planner.accuracy.leave_out import excluded, members, refit
from moai_planner.accuracy.measurements import parse_measurements, read_measurements
from moai_planner.accuracy.noise import noise_floor
from moai_planner.accuracy.prepare import prepare
from moai_planner.catalog.accelerators import accelerator
from moai_planner.catalog.models import model
from moai_planner.catalog.parameters import FOLDER, assumed_for, clear_cache, parameters_for
from moai_planner.catalog.paths import data_root
from moai_planner.cli.main import app
from moai_planner.domain.precision import precision

SMALL = Path(__file__).parent / "small.csv"
SOURCES = Sources(model, accelerator, assumed_for)


def plan(measurements=None):
    return plan_of(calibration_runs(measurements or read_measurements(SMALL)), SOURCES)


def files(measurements) -> dict[str, str]:
    made = plan(measurements)
    *_, done = advance(made)
    return outcome_of(made, done, "small.csv").files


def test_only_calibrate_rows_can_be_fitted():
    """The type that a fit accepts has one maker, and that one filters."""
    measurements = read_measurements(SMALL)
    assert {run.split for run in calibration_runs(measurements).runs} == {"calibrate"}
    with pytest.raises(TypeError):
        CalibrationRuns(measurements.runs, object())


def test_validate_rows_do_not_touch_the_fit(monkeypatch):
    """Corrupting every validate row leaves every byte of the parameter files as it was."""
    monkeypatch.setattr(fitting, "FULL_ITERATIONS", 3)
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


def test_resuming_anywhere_gives_the_same_bytes(monkeypatch):
    """After any number of steps, through JSON, the rest gives the files of a run never stopped."""
    monkeypatch.setattr(leave_out, "FEWEST_REFITTED", 1)
    made = plan()
    states = [json.dumps(stored(made, done)) for done in advance(made)]
    *_, last = advance(made)
    expected = outcome_of(made, last, "small.csv").files
    for state in (states[0], states[len(states) // 2], states[-1]):
        again = plan()
        *_, done = advance(again, resumed(again, json.loads(state)))
        assert outcome_of(again, done, "small.csv").files == expected


def test_a_state_of_other_rows_is_not_used():
    """Dropping one row changes the digest."""
    runs = calibration_runs(read_measurements(SMALL))
    made, dropped = plan_of(runs, SOURCES), runs.runs[0].id
    state = stored(made, next(advance(made)))
    other = plan_of(runs.keep(lambda run: run.id != dropped), SOURCES)
    assert resumed(made, state).theta is not None and resumed(other, state).theta is None


PLAIN = """
from moai_planner.accuracy import leave_out
from moai_planner.cli.main import app

leave_out.FEWEST_REFITTED = 1
app()
"""
KILLED = """
import os, signal
from moai_planner.accuracy import calibrate, leave_out
from moai_planner.cli.main import app

leave_out.FEWEST_REFITTED = 1
left = [3]
real = calibrate.refit

def refit(*given):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*given)

calibrate.refit = refit
app()
"""


def test_killed_calibration_goes_on_where_it_was(tmp_path):
    """SIGKILL in the third refit, then the plain command: same files as a run never killed."""
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    killed.mkdir(), whole.mkdir()
    arguments = ["calibrate", str(SMALL), "--out"]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    command = [sys.executable, "-c", KILLED, *arguments, str(killed)]
    first = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert first.returncode == -signal.SIGKILL, first.stderr
    assert [path.name for path in killed.iterdir()] == [".calibration.json"]
    plain = [sys.executable, "-c", PLAIN, *arguments]
    second = subprocess.run([*plain, str(killed)], env=environment, capture_output=True, text=True)
    assert second.returncode == 0 and "3 steps done before" in second.stderr
    assert subprocess.run([*plain, str(whole)], env=environment, capture_output=True).returncode == 0
    assert {p.name: p.read_bytes() for p in killed.iterdir()} == {
        p.name: p.read_bytes() for p in whole.iterdir()
    }


def test_small_groups_are_left_out_to_first_order(monkeypatch):
    """Without a refit a group's errors are near those of its refit: nearer than the fit's own."""
    monkeypatch.setattr(leave_out, "FEWEST_REFITTED", 1)
    made = plan()
    *_, done = advance(made)
    solution = Solution(done.theta, made.problem.errors(done.theta))
    slopes = made.problem.jacobian(done.theta)
    refitted, linear = (
        leave_out.left_out(made.problem, made.labels, solution, slopes, found).errors
        for found in (dict(done.refitted), {})
    )
    for group in made.groups:
        own = members(made.labels, group)
        errors = refitted[group.grouping][own]
        off = np.abs(linear[group.grouping][own] - errors).mean()
        assert off < 0.5 * np.abs(solution.errors[own] - errors).mean() + 0.005, group


def test_derivatives_are_those_of_the_errors():
    """Oracle: the errors themselves, moved along a random direction."""
    problem = plan().problem
    rng = np.random.default_rng(2)
    theta = 0.1 * rng.normal(size=len(problem.columns))
    direction = problem.spread * rng.normal(size=len(theta))
    step = 1e-3
    found = problem.jacobian(theta) @ direction
    expected = (
        (problem.errors(theta + step * direction) - problem.errors(theta - step * direction)) / step / 2
    )
    assert found == pytest.approx(expected, rel=0.05, abs=0.02)


def test_refit_never_sees_the_group():
    """Corrupting the measurements of a left-out group leaves its refit where it was."""
    made = plan()
    problem, labels = made.problem, made.labels
    solution = Solution(next(advance(made)).theta, None)
    solution = replace(solution, errors=problem.errors(solution.theta))
    slopes = problem.jacobian(solution.theta)
    group = made.groups[0]
    before = refit(problem, labels, solution, slopes, group).theta
    problem.measured = problem.measured + np.where(excluded(labels, group), 3.0, 0.0)
    moved = replace(solution, errors=problem.errors(solution.theta))
    assert refit(problem, labels, moved, slopes, group).theta == pytest.approx(before)
    assert members(labels, group).any()


def test_software_is_shared_by_engine_and_silicon_by_architecture():
    """An architecture moves no engine time, a number format no bandwidth of the KV cache."""
    assert spread_of(("architecture", "Hopper"), "step_s") == 0
    for part in (("number_format", "fp8-cuda"), ("format_kernels", "fp8-Hopper")):
        assert spread_of(part, "kv_bandwidth_frac") == spread_of(part, "kernel_s") == 0
        assert spread_of(part, "weight_bandwidth_frac") > 0
    assert spread_of(("engine", "vllm"), "step_s") > 0


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
    problem = SimpleNamespace(weight=np.ones(rows), spread=np.ones(fields))
    found = errors_without_each(problem, Solution(x, design @ x - target), design, groups)
    for group in range(4):
        own = np.array(groups) == group
        expected = design[own] @ solve(~own) - target[own]
        assert found[own] == pytest.approx(expected, rel=1e-3, abs=1e-9)


def test_noise_counts_true_repeats_only():
    """A row listed twice is no repeat; another date or another figure is."""
    run = read_measurements(SMALL).runs[0]
    name, value = next((n, v) for n, v in run.metrics.items() if n == "tpot_ms_median")
    again = replace(run, id="again", date="2026-08-01", metrics={**run.metrics, name: 1.1 * value})
    assert [row.cells for row in noise_floor([run, replace(run, id="copy")])] == [0]
    row = next(row for row in noise_floor([run, again]) if row.metric == name)
    assert row.cells == 1 and row.spread == pytest.approx(0.05 / 1.05)


def test_a_cost_per_context_token_needs_several_lengths():
    """One length cannot tell it from a cost per sequence: no column then, and one of the family otherwise."""
    measurements = read_measurements(SMALL)
    one = tuple(run for run in measurements.runs if run.isl_tokens == measurements.runs[0].isl_tokens)
    longer = replace(one[0], id="longer", isl_tokens=8.0 * one[0].isl_tokens)

    def columns(runs):
        return [
            c for c in plan(replace(measurements, runs=runs)).problem.columns if c[1] == "context_token_s"
        ]

    assert columns(one) == []
    assert columns((*one, longer)) == [(("family", "vllm-cuda"), "context_token_s")]


ROWS_HEAD = (
    "id,model,precision,engine,topology,accelerator,n_accelerators,tp,isl,osl,concurrency,tpot_ms_mean,split"
)


def test_own_rows_correct_their_own_sets_and_no_others(tmp_path):
    """`calibrate --own`: nearer on the rows' device, everything else as it was; the same bytes again."""
    rows = [
        f"c{c},meta-llama/Llama-3.1-8B-Instruct,bf16,vllm,colocated,l40s,1,1,1024,256,{c},{tpot},calibrate"
        for c, tpot in ((1, 44.0), (4, 46.0), (8, 49.0), (16, 54.0), (32, 66.0))
    ]
    texts = [own_set(tmp_path, (ROWS_HEAD, *rows)) for _ in range(2)]
    assert list(texts[0]) == ["l40s_vllm_bf16.yaml"] and texts[0] == texts[1]
    runs = read_measurements(tmp_path / "own.csv").runs
    before, after = (
        np.mean([abs(pair.error) for pair in pairs_of(prepare(runs, model, accelerator, parameters))])
        for parameters in (parameters_for, lambda *of: parameters_for(*of, folder=tmp_path))
    )
    assert after < 0.3 * before
    for device, number_format in (("a100_sxm_80gb", "bf16"), ("l40s", "fp8"), ("mi300x", "fp8")):
        of = accelerator(device), "vllm", precision(number_format)
        assert parameters_for(*of, folder=tmp_path) == parameters_for(*of)


def own_set(folder: Path, lines) -> dict[str, str]:
    """Own sets of a table in a folder beside the shipped ones: file name → text."""
    table, out = folder / "own.csv", folder / "own"
    out.mkdir(exist_ok=True)
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    answer = CliRunner().invoke(app, ["calibrate", str(table), "--own", "--out", str(out)])
    assert answer.exit_code == 0, answer.stderr
    for name in ("assumed", "calibrated"):
        if not (folder / name).exists():
            (folder / name).symlink_to(data_root() / FOLDER / name)
    clear_cache()
    return {path.name: path.read_text() for path in out.glob("*.yaml")}


def test_what_own_rows_do_not_measure_keeps_its_interval(tmp_path):
    """A throughput says nothing of first answers, and one row little of anything; known models stay known."""
    head = ROWS_HEAD.replace("tpot_ms_mean", "total_tps_per_accel")
    row = "a,openai/gpt-oss-120b,mxfp4,vllm,colocated,h100_sxm,2,2,1024,1024,16,1650,calibrate"
    assert list(own_set(tmp_path, (head, row))) == ["h100_sxm_vllm_mxfp4.yaml"]
    of = accelerator("h100_sxm"), "vllm", precision("mxfp4")
    before, after = parameters_for(*of), parameters_for(*of, folder=tmp_path)
    for metric in ("ttft_ms_median", "ttft_ms_p99", "tpot_ms_p99"):
        assert ends(metric, 1.0, after, "openai/gpt-oss-120b") == pytest.approx(
            ends(metric, 1.0, before, "openai/gpt-oss-120b"), rel=0.01
        )
    assert (after.low_frac, after.high_frac) == pytest.approx((before.low_frac, before.high_frac), rel=0.1)
    assert set(before.models) <= set(after.models)
    for kind, power in before.new_model_power.items():
        assert after.new_model_power[kind] >= power


def test_own_rows_of_an_earlier_month_leave_today_alone(tmp_path):
    """Rows that are exactly what is predicted as of their date correct nothing."""
    head = ROWS_HEAD.replace("id,", "id,date,")
    row = "{0},{1},deepseek-ai/DeepSeek-R1,fp8,sglang,colocated,mi355x,8,8,1024,1024,{0},{2},calibrate"
    loads = (4, 16, 64)

    def predicted(date: str, parameters=parameters_for) -> list[float]:
        text = "\n".join((head, *(row.format(c, date, 1.0) for c in loads))) + "\n"
        runs = parse_measurements(text, "t.csv").runs
        return [pair.predicted for pair in pairs_of(prepare(runs, model, accelerator, parameters))]

    then, today = predicted("2025-12-10"), predicted("")
    assert then[0] > 1.1 * today[0]
    own_set(tmp_path, (head, *(row.format(c, "2025-12-10", ms) for c, ms in zip(loads, then, strict=True))))
    after = predicted("", lambda *of: parameters_for(*of, folder=tmp_path))
    assert after == pytest.approx(today, rel=0.02)


def test_rows_that_no_fit_can_use_are_counted(tmp_path):
    """An unknown device, a row faster than the device, an unknown engine: each is said."""
    row = "{},meta-llama/Llama-3.1-8B-Instruct,bf16,{},colocated,{},1,1,1024,256,4,{},calibrate\n"
    cells = (("a", "vllm", "l40x", 26), ("b", "vllm", "l40s", 0.02), ("c", "vlm", "l40s", 26))
    table = tmp_path / "rows.csv"
    table.write_text(ROWS_HEAD + "\n" + "".join(row.format(*each) for each in cells), encoding="utf-8")
    answer = CliRunner().invoke(app, ["calibrate", str(table), "--dry-run"])
    said = " ".join(answer.stderr.split())
    assert answer.exit_code == 0, said
    assert "left out of the fit: 1 row, unknown accelerator" in said
    assert "faster than the device's peaks" in said and "(for example b)" in said
    assert "engine vlm is not known" in said
