"""The command line starts without its heavy rooms and answers errors in one voice."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("numpy", "pandas", "scipy", "pulp", "numba", "pydantic", "yaml", "jinja2", "torch", "vllm")
VERBS = ("solve", "emit", "simulate", "estimate", "profile", "calibrate", "validate", "catalog")


def moai_plan(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "moai_planner.cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


def test_import_of_the_command_line_brings_no_heavy_package():
    """Law: `--help` costs no import that a verb could make itself."""
    code = f"import sys, moai_planner.cli.main; print([m for m in {HEAVY!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_json(verb):
    """Each verb explains itself and speaks JSON."""
    arguments = (verb, "accelerators", "--help") if verb == "catalog" else (verb, "--help")
    answer = moai_plan(*arguments)
    assert answer.returncode == 0, answer.stderr
    assert "--json" in answer.stdout


def test_unknown_verb_is_a_usage_error():
    answer = moai_plan("slove")
    assert answer.returncode == 2
    assert "Traceback" not in answer.stderr


def test_version_is_one_line():
    assert moai_plan("--version").stdout.startswith("moai-plan ")


def test_catalog_json_parses():
    answer = moai_plan("catalog", "accelerators", "--json")
    assert answer.returncode == 0, answer.stderr
    assert len(json.loads(answer.stdout)) >= 24


@pytest.mark.parametrize("before", ["signal.default_int_handler", "signal.SIG_IGN"])
def test_an_interrupt_while_modules_load_is_no_traceback(before):
    """The command takes over the interrupt only once it can answer it; one that is ignored stays so."""
    code = (
        "import signal, sys; from moai_planner.cli import entry, main;"
        f"signal.signal(signal.SIGINT, {before});"
        f"main.run = lambda: print(signal.getsignal(signal.SIGINT) is {before});"
        "entry.run()"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "True"


def test_very_many_problems_are_counted(tmp_path):
    path = tmp_path / "t.csv"
    head = "id,model,engine,topology,accelerator,isl\n"
    path.write_text(head + "".join(f"{i},m,vllm,colocated,h100,none\n" for i in range(1000)))
    answer = moai_plan("validate", str(path))
    assert answer.returncode == 2
    assert "1000 problems" in answer.stderr
    assert "and 900 more" in answer.stderr
