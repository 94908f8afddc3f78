"""`moai-plan catalog`: every list and every detail, as table and as JSON."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from moai_planner.cli.catalog import app
from moai_planner.domain.errors import InputError

LISTS = ("accelerators", "models", "traces", "targets")
DETAILS = (
    ("accelerators", "mi308x"),
    ("models", "openai/gpt-oss-120b"),
    ("traces", "azure_2023_code"),
    ("targets", "bash"),
)


def run(*arguments: str) -> str:
    answer = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert answer.exit_code == 0
    return answer.stdout


@pytest.mark.parametrize("name", LISTS)
def test_lists(name):
    found = json.loads(run(name, "--json"))
    assert found
    identity = next(key for key in ("id", "name", "target") if key in found[0])
    assert found[0][identity] in run(name)


@pytest.mark.parametrize(("name", "identity"), DETAILS)
def test_details(name, identity):
    assert isinstance(json.loads(run(name, identity, "--json")), dict)
    assert run(name, identity).strip()


def test_detail_shows_where_each_number_is_from():
    """Law: the detail view names the source of every number, assumed ones as such."""
    text = run("accelerators", "mi308x")
    for part in ("Moreh article", "assumed", "derived", "PCI Express"):
        assert part in text


@pytest.mark.parametrize(("name", "_"), DETAILS)
def test_unknown_names_are_input_errors(name, _):
    with pytest.raises(InputError):
        run(name, "nothing-like-it")
