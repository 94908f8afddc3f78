"""Runs beyond the device's peaks: listed when they must be, never when our own model made them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from typer.testing import CliRunner

from moai_planner.accuracy.compare import pairs_of
from moai_planner.accuracy.peaks import ALONE, MEMORY, PRODUCTS, beyond_peaks
from moai_planner.accuracy.report import accuracy_report
from moai_planner.cli.main import app
from tests.accuracy.test_prediction_laws import predicted, runs

LLAMA = {
    "id": "row", "model": "meta-llama/Llama-3.1-8B-Instruct", "precision": "bf16", "engine": "vllm",
    "topology": "colocated", "accelerator": "h100_sxm", "n_accelerators": 1, "tp": 1, "dp": 1, "pp": 1,
    "ep": 1, "spec_decode": "none", "isl": 1000, "osl": 1001, "concurrency": 1, "n_requests": 10,
}  # fmt: skip


def measured(row: dict, **metrics: float):
    """The prepared row as if these metrics had been measured."""
    prepared = predicted([row])[0]
    return replace(prepared, runs=(replace(prepared.runs[0], metrics=metrics),))


def limits(row: dict, **metrics: float) -> list[str]:
    return [one.limit for one in beyond_peaks(measured(row, **metrics))]


def test_one_sequence_needs_its_weights_and_context():
    """15.01 GB and 1500 tokens of 65.5 kB in 8 bits, at 3.35 TB/s: 4.51 ms."""
    assert limits(LLAMA, tpot_ms_mean=4.49) == [ALONE]
    assert limits(LLAMA, tpot_ms_mean=4.53) == []


def test_a_batch_needs_the_context_of_all():
    """256 sequences in flight read 256 contexts a step, 7.5 ms, and the weights: 12.0 ms. Half the time spent
    waiting, or a run that is all ramp, need half."""
    many = LLAMA | {"concurrency": 256, "n_requests": 10**6}
    assert limits(many, tpot_ms_mean=11.8, ttft_ms_mean=1.0) == [MEMORY]
    assert limits(many, tpot_ms_mean=11.8, ttft_ms_mean=11800.0) == []
    assert limits(many, tpot_ms_mean=12.2, ttft_ms_mean=1.0) == []
    assert limits(many | {"n_requests": 256}, tpot_ms_mean=11.8, ttft_ms_mean=1.0) == []


def test_prompts_need_their_products():
    """4000 prompt tokens take 60 ms at the peak: 16 requests a second at most, however they are batched."""
    prompts = LLAMA | {"isl": 4000, "osl": 11, "concurrency": 64}
    assert limits(prompts, tpot_ms_mean=50.0, output_tps=17.5 * 11) == [PRODUCTS]
    assert limits(prompts, tpot_ms_mean=50.0, total_tps_per_accel=17.5 * 4011) == [PRODUCTS]
    assert limits(prompts, tpot_ms_mean=50.0, output_tps=15.0 * 11) == []
    assert limits(prompts | {"prefix_hit_frac": 0.5}, tpot_ms_mean=50.0, output_tps=17.5 * 11) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"spec_decode": "mtp"},
        {"precision": "fp8"},
        {"tp": 2, "n_accelerators": 2},
        {"accelerator": "h200_sxm"},
        {"osl": 1},
    ],
)
def test_what_would_explain_it_is_not_listed(changes):
    """Drafts, narrower weights, more or faster devices, no second token."""
    assert limits(LLAMA | changes, tpot_ms_mean=4.4) == []


ALONE_ON_A_RANK = {
    "id": "row", "topology": "disaggregated", "accelerator": "b200_sxm+l40s", "kv_connector": "nixl",
    "prefill_accelerator": "b200_sxm", "prefill_workers": 1, "prefill_tp": 1, "prefill_dp": 1,
    "prefill_ep": 1,
    "decode_accelerator": "l40s", "decode_workers": 1, "decode_tp": 1, "decode_dp": 8, "decode_ep": 1,
    "concurrency": 1, "model": "meta-llama/Llama-3.3-70B-Instruct", "precision": "fp8", "engine": "vllm",
    "spec_decode": "none", "isl": 100000, "osl": 2, "length_spread": "",
}  # fmt: skip


@example(ALONE_ON_A_RANK)
@given(runs())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_prediction_is_beyond_the_peaks(row):
    """The model, whose efficiencies are below one, never predicts what the bound calls impossible.

    With its own throughput: a steady state's means obey Little's law to some percent only.
    """
    prepared, _, values = predicted([row])
    names = ("tpot_ms_mean", "ttft_ms_mean", "e2el_s_mean", "output_tps", "total_tps")
    found = {name: float(values[name][0]) for name in names if np.isfinite(values[name][0])}
    metrics = {name: value for name, value in found.items() if value > 0}
    assert not beyond_peaks(replace(prepared, runs=(replace(prepared.runs[0], metrics=metrics),)))


def test_validate_names_them_and_counts_them_all_the_same(tmp_path):
    """A note, a field, and the same pairs, errors and groups as ever."""
    small = Path(__file__).parent / "small.csv"
    plain = json.loads(CliRunner().invoke(app, ["validate", str(small), "--json"]).stdout)
    assert plain["beyond_peaks"] == []
    text = small.read_text().replace(",5.74825,1348.99,", ",0.284,1348.99,")
    (tmp_path / "fast.csv").write_text(text)
    outcome = CliRunner().invoke(app, ["validate", str(tmp_path / "fast.csv"), "--json"])
    answer = json.loads(outcome.stdout)
    assert [one["id"] for one in answer["beyond_peaks"]] == ["row-01"]
    assert answer["beyond_peaks"][0]["tpot_ms"] == 0.284 < answer["beyond_peaks"][0]["least_tpot_ms"]
    assert "as described: 1 row" in outcome.stderr
    assert len(answer["rows"]) == len(plain["rows"])


def test_the_report_lists_them():
    """Their number in the heading, one line each, with what was measured and what it takes at least."""
    prepared = measured(LLAMA, tpot_ms_mean=2.0)
    text, _ = accuracy_report(pairs_of(prepared), (), beyond_peaks(prepared), (), "", "t.csv")
    assert "as described: 1 row\n" in text
    assert f"| 2 ms | 4.51 ms | {ALONE} |" in text
