"""A solved plan, simulated: requests are conserved, the seed decides, the request file agrees."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from moai_planner.cli.main import app
from moai_planner.domain.errors import InputError

REQUESTS = 19_366
PLAN = [
    "solve",
    "--model",
    "meta-llama/Llama-3.1-8B-Instruct",
    "--cluster",
    "h100:1x8",
    "--trace",
    "azure_2023_conv",
    "--no-verify",
]


def run(*arguments: str) -> str:
    answer = CliRunner().invoke(app, [str(one) for one in arguments])
    assert answer.exit_code == 0, answer.output
    return answer.stdout


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    run(*PLAN, "--slo", "ttft_p95<=3s,tpot_p95<=100ms", "--out", path)
    return path


def test_requests_are_conserved_and_agree_with_the_file(plan, tmp_path):
    """Law: every request of the trace is served, left out or refused, and has one row."""
    table = tmp_path / "requests.parquet"
    report = json.loads(run("simulate", plan, "--requests-out", table, "--json"))
    (deployment,) = report["deployments"]
    assert deployment["completed"] + sum(deployment["left_out"].values()) == REQUESTS
    rows = pd.read_parquet(table)
    assert len(rows) == REQUESTS - sum(deployment["left_out"].values())
    assert deployment["verdict"] == "stable"
    assert 0 < deployment["statistics"]["ttft_p50"]["value"] <= deployment["statistics"]["ttft_p99"]["value"]


def test_requests_as_csv_are_those_of_parquet(plan, tmp_path):
    """The ending of the name chooses; compressed, the bytes are the same each time."""
    paths = [tmp_path / name for name in ("r.parquet", "r.csv", "r.csv.gz", "again.csv.gz")]
    for path in paths:
        run("simulate", plan, "--requests-out", path)
    whole, text, packed = pd.read_parquet(paths[0]), pd.read_csv(paths[1]), pd.read_csv(paths[2])
    assert len(whole) == len(text) == len(packed) == REQUESTS
    assert whole["finish_s"].to_numpy() == pytest.approx(packed["finish_s"].to_numpy())
    assert paths[2].read_bytes() == paths[3].read_bytes()


def test_a_wrong_trace_is_named_once(plan):
    with pytest.raises(InputError) as caught:
        CliRunner().invoke(app, ["simulate", str(plan), "--trace", "nope"], catch_exceptions=False)
    assert str(caught.value).startswith("--trace: nope (give a path")


def test_the_seed_decides(plan):
    """Law: same plan, trace and seed, same bytes, also where the router draws."""
    first, again, other = (
        run("simulate", plan, "--router", "random", "--seed", seed, "--json") for seed in (1, 1, 2)
    )
    assert first == again
    assert json.loads(other)["seed"] == 2


def test_overload_has_no_percentiles(plan):
    """Law: a queue that only grows has no percentile to report."""
    answer = CliRunner().invoke(app, ["simulate", str(plan), "--rate-scale", "60", "--json"])
    assert answer.exit_code == 3
    (deployment,) = json.loads(answer.stdout)["deployments"]
    assert deployment["verdict"] == "overloaded"
    assert all(value is None for value in deployment["statistics"].values())
