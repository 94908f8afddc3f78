"""`moai-plan validate` and result files: the JSON contract, exit codes, tools' formats."""

import json
import os
from pathlib import Path
from statistics import median

import pytest
from typer.testing import CliRunner

from moai_planner.accuracy.result_files import Setup, read_any
from moai_planner.cli.main import app
from moai_planner.domain.errors import InputError

SMALL = Path(__file__).parent / "small.csv"
SETUP = Setup(model="meta-llama/Llama-3.3-70B-Instruct", accelerator="h100_sxm", precision="fp8", tp=4)


def run(*arguments: str):
    return CliRunner().invoke(app, ["validate", *arguments])


def test_json_contract():
    """Groups, rows and unsupported, with the fields that others rely on."""
    outcome = run(str(SMALL), "--json")
    assert outcome.exit_code == 0
    answer = json.loads(outcome.stdout)
    assert {"source", "model", "accelerator", "metric", "n", "mape", "median_ape", "bias"} <= set(
        answer["groups"][0]
    )
    for row in answer["rows"]:
        assert set(row) == {"id", "metric", "measured", "predicted", "low", "high", "basis"}
        assert row["low"] <= row["predicted"] <= row["high"]
    assert answer["unsupported"] == []


def test_intervals_know_what_cannot_be(tmp_path):
    """No throughput above what arrives, no tail that begins below its mean."""
    table = tmp_path / "runs.csv"
    head = "id,model,precision,engine,topology,accelerator,n_accelerators,tp,isl,osl,length_spread,"
    row = "a,meta-llama/Llama-3.1-8B-Instruct,bf16,vllm,colocated,h100_sxm,1,1,1000,200,fixed,"
    load = "request_rate,n_requests,ttft_ms_mean,ttft_ms_p99,output_tps\n", "5,500,100,200,900\n"
    table.write_text(head + load[0] + row + load[1], encoding="utf-8")
    rows = {row["metric"]: row for row in json.loads(run(str(table), "--json").stdout)["rows"]}
    offered = 5 * 200
    assert rows["output_tps"]["high"] == pytest.approx(1.05 * offered, rel=0.01)
    assert rows["ttft_ms_p99"]["low"] >= rows["ttft_ms_mean"]["low"] * 0.999


def test_same_input_same_bytes():
    """Two runs print the same document."""
    assert run(str(SMALL), "--json").stdout == run(str(SMALL), "--json").stdout


def test_tolerance_decides_the_exit_code():
    """3 only when a tolerance is given and missed."""
    assert run(str(SMALL), "--tolerance", "0.01%").exit_code == 3
    assert run(str(SMALL), "--tolerance", "1000%").exit_code == 0


def test_held_out_rows_are_near():
    """Longer prompts and outputs than the fit has seen stay within a tenth (median)."""
    rows = json.loads(run(str(SMALL), "--json", "--split", "validate").stdout)["rows"]
    errors = [
        abs(row["predicted"] / row["measured"] - 1) for row in rows if row["metric"] == "tpot_ms_median"
    ]
    assert median(errors) < 0.1


BENCH = {
    "request_rate": "inf",
    "max_concurrency": 16,
    "completed": 160,
    "duration": 100.0,
    "total_input_tokens": 160000,
    "total_output_tokens": 80000,
    "output_throughput": 800.0,
    "total_token_throughput": 2400.0,
    "mean_ttft_ms": 150.0,
    "mean_tpot_ms": 18.0,
    "mean_e2el_ms": 9150.0,
}
GUIDE = {
    "benchmarks": [
        {
            "metrics": {
                "requests_per_second": {"successful": {"mean": 1.6}},
                "request_latency": {"successful": {"mean": 9.1, "count": 160, "percentiles": {"p50": 9.0}}},
                "prompt_token_count": {"successful": {"mean": 1000}},
                "output_token_count": {"successful": {"mean": 500}},
                "inter_token_latency_ms": {"successful": {"mean": 18.0, "percentiles": {"p99": 60.0}}},
            }
        }
    ]
}
AIPERF = {
    "request_latency": {"unit": "ms", "avg": 9100.0, "count": 160},
    "request_throughput": {"avg": 1.6},
    "output_token_throughput": {"avg": 800.0},
    "input_sequence_length": {"avg": 1000},
    "output_sequence_length": {"avg": 500},
    "inter_token_latency": {"avg": 18.0},
}
PERF = {
    "load_summary": {"requested_rate": 1.6},
    "successes": {
        "count": 160,
        "prompt_len": {"mean": 1000},
        "output_len": {"mean": 500},
        "latency": {"request_latency": {"mean": 9.1, "median": 9.0}, "inter_token_latency": {"mean": 0.018}},
        "throughput": {"output_tokens_per_sec": 800.0},
    },
}


@pytest.mark.parametrize(
    "document", [BENCH, GUIDE, AIPERF, PERF], ids=["vllm", "guidellm", "aiperf", "inference-perf"]
)
def test_result_files_are_read(tmp_path, document):
    """The same run written by four tools gives the same load."""
    path = tmp_path / "result.json"
    path.write_text(json.dumps(document))
    found = read_any(path, SETUP).runs[0]
    assert (found.isl_tokens, found.osl_tokens, found.requests) == (1000, 500, 160)
    assert found.metrics["output_tps" if "output_tps" in found.metrics else "itl_ms_mean"] in (800.0, 18.0)
    assert found.metrics["e2el_s_mean"] == pytest.approx(9.1, rel=0.01)


def test_result_file_needs_to_know_where_it_ran(tmp_path):
    """Without the accelerator the input is wrong, and the remedy says so."""
    path = tmp_path / "result.json"
    path.write_text(json.dumps(BENCH))
    with pytest.raises(InputError, match="--on"):
        read_any(path, Setup(model="m"))


SHARED = Path(os.environ.get("MOAI_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.mark.shared
def test_whole_table_is_predicted():
    """Every row is answered or has a reason, and is near on the devices most measured."""
    table = SHARED / "measurements" / "serving_runs.csv.gz"
    if not table.exists():
        pytest.skip("no shared measurements")
    answer = json.loads(run(str(table), "--json").stdout)
    assert len({row["id"] for row in answer["rows"]} | {row["id"] for row in answer["unsupported"]}) == 8998
    held = json.loads(run(str(table), "--json", "--split", "validate").stdout)["rows"]
    tpot = [abs(row["predicted"] / row["measured"] - 1) for row in held if row["metric"] == "tpot_ms_median"]
    assert median(tpot) < 0.2
