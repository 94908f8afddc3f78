"""The verb: a plan file in, files and a table out, and the right exits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from emit_plans import golden_plan, infeasible_plan
from regenerate_bash import GOLDEN
from typer.testing import CliRunner

from moai_planner.catalog.plan_file import dump_plan
from moai_planner.cli.emit import emit
from moai_planner.domain.errors import Infeasible, InputError

APP = typer.Typer()
APP.command()(emit)


@pytest.fixture
def plan_file(tmp_path) -> Path:
    """The golden plan as `solve` would leave it."""
    path = tmp_path / "plan.json"
    path.write_text(dump_plan(golden_plan()))
    return path


def run(*arguments):
    """The verb's result, without a shell."""
    return CliRunner().invoke(APP, [str(argument) for argument in arguments])


def test_a_plan_file_gives_the_golden_folder(plan_file, tmp_path):
    """Law: a plan means the same after a way through its file."""
    out = tmp_path / "out"
    result = run(plan_file, "--target", "bash", "--out", out, "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.output)
    assert {entry["path"] for entry in said["files"]} == {
        p.relative_to(GOLDEN).as_posix() for p in GOLDEN.rglob("*") if p.is_file()
    }
    for file in GOLDEN.rglob("*"):
        if file.is_file():
            assert (out / file.relative_to(GOLDEN)).read_bytes() == file.read_bytes()


def test_the_table_lists_files_and_warnings(plan_file, tmp_path):
    """Every file and every warning is shown."""
    result = run(plan_file, "--out", tmp_path / "out")
    assert result.exit_code == 0
    assert "front/nginx.conf" in result.output and "warning: N07" in result.output


def test_wrong_use_names_the_remedy(plan_file, tmp_path):
    """Unknown target, affinity, deployment, connector: problems with the known names."""
    for wrong, said in (
        (("--target", "compos"), "targets: bash"),
        (("--affinity", "sticky"), "none, session"),
        (("--model-path", "chatt=/m"), "chat, reason"),
        (("--connector", "pigeon"), "nixl"),
    ):
        result = run(plan_file, "--out", tmp_path / "out", *wrong)
        assert isinstance(result.exception, InputError) and said in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_an_infeasible_plan_writes_nothing(tmp_path):
    """The answer no is passed on, and no folder appears."""
    (tmp_path / "plan.json").write_text(dump_plan(infeasible_plan()))
    result = run(tmp_path / "plan.json", "--out", tmp_path / "out")
    assert isinstance(result.exception, Infeasible)
    assert not (tmp_path / "out").exists()


def test_model_path_of_one_deployment(plan_file, tmp_path):
    """NAME=PATH reaches that deployment alone."""
    out = tmp_path / "out"
    assert run(plan_file, "--out", out, "--model-path", "chat=/models/q").exit_code == 0
    assert "model: /models/q\n" in (out / "hosts/10-0-0-21/chat-mi300x-0/config.yaml").read_text()
    assert "deepseek-ai" in (out / "hosts/10-0-0-12/reason-h200-0-node0/config.yaml").read_text()


def test_help_is_light():
    """Law: the verb's module imports nothing heavy."""
    heavy = "('numpy', 'yaml', 'jinja2')"
    code = f"import sys, moai_planner.cli.emit; print([m for m in {heavy} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "[]"
