"""Result files of load generators, one of now and one of before for each: loads, units, what is asked for.

The documents are of our own making, in the shape that each tool's sources write. All describe one run: 160
requests of 1,000 and 500 tokens, 16 at a time; 150 ms to the first token, 18 ms a token, 9.1 s in all.
"""

import gzip
import json
import math
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from moai_planner.accuracy.result_files import Setup, read_any
from moai_planner.accuracy.run import Run, Workers
from moai_planner.catalog.accelerators import accelerator_named
from moai_planner.cli.main import app
from moai_planner.domain.errors import InputError

MODEL = "meta-llama/Llama-3.3-70B-Instruct"
SETUP = Setup(accelerator="h100_sxm", tp=4)
NAMED = Setup(MODEL, "h100_sxm", tp=4)
"""inference-perf does not write the model's name."""
ISL, OSL, REQUESTS, CONCURRENCY, REQ_PER_S = 1000, 500, 160, 16, 1.6
TTFT_S, TPOT_S, E2EL_S, OUTPUT_TPS, TOTAL_TPS = 0.150, 0.018, 9.1, 800.0, 2400.0


def vllm(**changes) -> dict:
    """`vllm bench serve --save-result`; before 2025 without max_concurrency and end-to-end times."""
    latencies = {
        f"{statistic}_{name}_ms": seconds * 1000
        for name, seconds in (("ttft", TTFT_S), ("tpot", TPOT_S), ("itl", TPOT_S), ("e2el", E2EL_S))
        for statistic in ("mean", "median", "std", "p99")
    }
    return {
        "date": "20260701-120000",
        "backend": "openai",
        "model_id": MODEL,
        "num_prompts": REQUESTS,
        "request_rate": "inf",
        "burstiness": 1.0,
        "max_concurrency": CONCURRENCY,
        "duration": 100.0,
        "completed": REQUESTS,
        "failed": 0,
        "total_input_tokens": ISL * REQUESTS,
        "total_output_tokens": OSL * REQUESTS,
        "request_throughput": REQ_PER_S,
        "output_throughput": OUTPUT_TPS,
        "total_token_throughput": TOTAL_TPS,
        **latencies,
        **changes,
    }


def old_vllm() -> dict:
    document = vllm(request_rate=REQ_PER_S, tokenizer_id=MODEL)
    return {
        name: value for name, value in document.items() if "e2el" not in name and name != "max_concurrency"
    }


def spread(mean: float) -> dict:
    """A distribution as guidellm writes it."""
    return {
        "successful": {
            "mean": mean,
            "median": mean,
            "count": REQUESTS,
            "percentiles": {"p50": mean, "p99": mean},
        }
    }


def guidellm_metrics() -> dict:
    return {
        "request_totals": {"successful": REQUESTS, "errored": 3, "incomplete": 1, "total": REQUESTS + 4},
        "requests_per_second": spread(REQ_PER_S),
        "request_concurrency": spread(14.6),
        "request_latency": spread(E2EL_S),
        "prompt_token_count": spread(ISL),
        "output_token_count": spread(OSL),
        "time_to_first_token_ms": spread(TTFT_S * 1000),
        "time_per_output_token_ms": spread(E2EL_S / OSL * 1000),
        "inter_token_latency_ms": spread(TPOT_S * 1000),
        "output_tokens_per_second": spread(OUTPUT_TPS),
        "tokens_per_second": spread(TOTAL_TPS),
    }


def guidellm() -> dict:
    """Report schema 2 (0.7): the strategy that ran stands in the benchmark's config."""
    config = {"strategy": {"type_": "concurrent", "streams": CONCURRENCY}, "backend": {"model": MODEL}}
    return {
        "metadata": {"version": 2},
        "config": {"spec": {"backend": {"model": MODEL}}},
        "benchmarks": [{"type_": "generative_benchmark", "config": config, "metrics": guidellm_metrics()}],
    }


def old_guidellm() -> dict:
    """0.2: no totals in the metrics, the strategy in `args`, the model with the worker."""
    metrics = {name: value for name, value in guidellm_metrics().items() if name != "request_totals"}
    strategy = {"type_": "constant", "rate": REQ_PER_S}
    return {
        "benchmarks": [
            {"args": {"strategy": strategy}, "worker": {"backend_model": MODEL}, "metrics": metrics}
        ]
    }


def entry(average: float, unit: str, percentiles: bool = True) -> dict:
    return {"unit": unit, "avg": average} | ({"p50": average, "p99": average} if percentiles else {})


def aiperf(config: dict, **changes) -> dict:
    return {
        "request_throughput": entry(REQ_PER_S, "requests/sec", False),
        "request_latency": entry(E2EL_S * 1000, "ms"),
        "request_count": entry(REQUESTS, "requests", False),
        "time_to_first_token": entry(TTFT_S * 1000, "ms"),
        "inter_token_latency": entry(TPOT_S * 1000, "ms"),
        "output_token_throughput": entry(OUTPUT_TPS, "tokens/sec", False),
        "total_token_throughput": entry(TOTAL_TPS, "tokens/sec", False),
        "output_sequence_length": entry(OSL, "tokens"),
        "input_sequence_length": entry(ISL, "tokens"),
        "input_config": config,
        **changes,
    }


def new_aiperf() -> dict:
    """Phases, a warm-up before the one that counts, times in seconds."""
    phases = [{"name": "warmup", "concurrency": 4}, {"name": "profiling", "concurrency": CONCURRENCY}]
    config = {"endpoint": {"model_names": [MODEL]}, "phases": phases}
    seconds = {"request_latency": entry(E2EL_S, "s"), "inter_chunk_latency": entry(TPOT_S, "s")}
    return aiperf(config, schema_version="1.0", **seconds)


def old_aiperf() -> dict:
    """What genai-perf and the first releases write."""
    return aiperf({"endpoint": {"model_names": [MODEL]}, "loadgen": {"request_rate": REQ_PER_S}})


def summary(mean: float, median: str) -> dict:
    return {"mean": mean, "min": mean, "max": mean, median: mean, "p90": mean, "p99": mean}


def inference_perf(lengths: dict, load: dict, median: str) -> dict:
    times = {"request_latency": E2EL_S, "time_to_first_token": TTFT_S, "time_per_output_token": TPOT_S}
    return {
        "load_summary": {"count": REQUESTS, **load},
        "successes": {
            "count": REQUESTS,
            "latency": {name: summary(seconds, median) for name, seconds in times.items()},
            "throughput": {
                "output_tokens_per_sec": OUTPUT_TPS,
                "total_tokens_per_sec": TOTAL_TPS,
                "requests_per_sec": REQ_PER_S,
            },
            **lengths,
        },
        "failures": {"count": 0, "request_latency": None},
    }


def new_inference_perf() -> dict:
    prompts = {"total": ISL * REQUESTS, "cached": 0, "uncached": ISL * REQUESTS, **summary(ISL, "median")}
    lengths = {"prompt_tokens": prompts, "output_len": summary(OSL, "median")}
    load = {"requested_rate": REQ_PER_S, "achieved_rate": REQ_PER_S, "concurrency": CONCURRENCY}
    return inference_perf(lengths, load, "median")


def old_inference_perf() -> dict:
    lengths = {"prompt_len": summary(ISL, "p50"), "output_len": summary(OSL, "p50")}
    return inference_perf(lengths, {"requested_rate": REQ_PER_S}, "p50")


def statistics(mean: float, units: str) -> dict:
    return {"units": units, "mean": mean, "p50": mean, "p99": mean}


def report_latencies(scale: float, unit: str) -> dict:
    return {
        "request_latency": statistics(E2EL_S * scale, unit),
        "time_to_first_token": statistics(TTFT_S * scale, unit),
        "time_per_output_token": statistics(TPOT_S * scale, f"{unit}/token"),
    }


def report_requests() -> dict:
    lengths = {"input_length": statistics(ISL, "count"), "output_length": statistics(OSL, "count")}
    return {"total": REQUESTS + 2, "failures": 2, **lengths}


def first_report() -> dict:
    """llm-d benchmark report 0.1, milliseconds, two equal replicas."""
    degrees = {"tp": 4, "dp": 1, "pp": 1, "ep": 1}
    device = {"model": "NVIDIA-H100-80GB-HBM3", "memory": 80, "count": 4, "parallelism": degrees}
    throughput = {"output_tokens_per_sec": OUTPUT_TPS, "total_tokens_per_sec": TOTAL_TPS}
    return {
        "version": "0.1",
        "scenario": {
            "model": {"name": MODEL},
            "host": {"type": ["replica", "replica"], "accelerator": [device, device]},
            "platform": {"engine": [{"name": "vllm"}, {"name": "vllm"}]},
            "load": {
                "name": "vllm-benchmark",
                "args": {"request_rate": "inf", "max_concurrency": CONCURRENCY},
            },
        },
        "metrics": {
            "requests": report_requests(),
            "latency": report_latencies(1000, "ms"),
            "throughput": throughput,
        },
    }


def second_report(**load) -> dict:
    """llm-d benchmark report 0.2, seconds, prefill and decode apart."""

    def pods(role: str, replicas: int, tp: int) -> dict:
        device = {
            "model": "H100",
            "count": tp * replicas,
            "parallelism": {"tp": tp, "dp": 1, "ep": 1, "pp": 1},
        }
        engine = {
            "kind": "inference_engine",
            "tool": "llm-d",
            "tool_version": "ghcr.io/llm-d/llm-d-cuda:0.3.1",
        }
        return {
            "standardized": engine
            | {"role": role, "replicas": replicas, "model": {"name": MODEL}, "accelerator": device}
        }

    router = {"standardized": {"kind": "generic", "tool": "scheduler"}}
    rates = {"output_token_rate": OUTPUT_TPS, "total_token_rate": TOTAL_TPS, "request_rate": REQ_PER_S}
    aggregate = {
        "requests": report_requests(),
        "latency": report_latencies(1, "s"),
        "throughput": {name: statistics(rate, "tokens/s") for name, rate in rates.items()},
    }
    return {
        "version": "0.2.1",
        "run": {"uid": "1"},
        "scenario": {
            "stack": [pods("prefill", 1, 4), router, pods("decode", 2, 8)],
            "load": {"standardized": {"rate_qps": REQ_PER_S, "concurrency": None, **load}},
        },
        "results": {"request_performance": {"aggregate": aggregate}},
    }


DOCUMENTS = {
    "vllm": (vllm(), "closed"),
    "vllm of before": (old_vllm(), "open"),
    "guidellm": (guidellm(), "closed"),
    "guidellm of before": (old_guidellm(), "open"),
    "aiperf": (new_aiperf(), "closed"),
    "aiperf of before": (old_aiperf(), "open"),
    "inference-perf": (new_inference_perf(), "closed"),
    "inference-perf of before": (old_inference_perf(), "open"),
    "report 0.1": (first_report(), "closed"),
    "report 0.2": (second_report(), "open"),
}


def read(document, tmp_path: Path, setup: Setup = SETUP, name: str = "result.json") -> Run:
    path = tmp_path / name
    path.write_text(yaml.safe_dump(document) if name.endswith(".yaml") else json.dumps(document))
    measurements = read_any(path, setup, accelerator_named)
    assert not measurements.unsupported
    return measurements.runs[0]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_tool_tells_the_same_run(tmp_path, name):
    """The same load, the same metrics in the table's units, whoever measured and in whatever unit."""
    document, arrivals = DOCUMENTS[name]
    run = read(document, tmp_path, NAMED if "inference-perf" in name else SETUP)
    assert run.model == MODEL
    assert (run.isl_tokens, run.osl_tokens, run.requests) == (ISL, OSL, REQUESTS)
    assert run.arrivals == arrivals
    assert (run.concurrency, run.request_rate) == ((16, 0.0) if arrivals == "closed" else (0, REQ_PER_S))
    told = {
        "ttft_ms_mean": TTFT_S * 1000,
        "ttft_ms_median": TTFT_S * 1000,
        "ttft_ms_p99": TTFT_S * 1000,
        "tpot_ms_mean": TPOT_S * 1000,
        "tpot_ms_median": TPOT_S * 1000,
        "output_tps": OUTPUT_TPS,
        "total_tps": TOTAL_TPS,
    } | (
        {"e2el_s_mean": E2EL_S, "e2el_s_median": E2EL_S, "e2el_s_p99": E2EL_S}
        if name != "vllm of before"
        else {}
    )
    assert {metric: run.metrics.get(metric) for metric in told} == pytest.approx(told)


def test_a_report_says_on_what_it_ran(tmp_path):
    """Layouts of the stack are read; the user's flags go before them."""
    first = read(first_report(), tmp_path, Setup(), "report.yaml")
    assert first.workers == (Workers("h100_sxm", "vllm", 2, 4, 1, 1, 1),)
    second = read(second_report(), tmp_path, Setup(), "report.yaml")
    assert [(w.count, w.tp) for w in second.workers] == [(1, 4), (2, 8)]
    assert second.disaggregated
    assert read(second_report(), tmp_path, SETUP).workers == (Workers("h100_sxm", "vllm", 1, 4, 1, 1, 1),)


def test_everything_at_once_is_a_closed_loop_of_all_requests(tmp_path):
    run = read(vllm(max_concurrency=None), tmp_path)
    assert (run.arrivals, run.concurrency) == ("closed", REQUESTS)


def test_a_concurrency_above_the_requests_is_never_reached(tmp_path):
    assert read(vllm(max_concurrency=4096), tmp_path).concurrency == REQUESTS


def test_a_deviation_of_the_lengths_is_read(tmp_path):
    """Whoever measured, by whatever name; without one all requests are alike."""
    wide = guidellm()
    wide["benchmarks"][0]["metrics"]["prompt_token_count"]["successful"]["std_dev"] = ISL / 2
    counted = aiperf({"endpoint": {"model_names": [MODEL]}, "loadgen": {"concurrency": CONCURRENCY}})
    counted["input_sequence_length"]["std"] = ISL / 2
    report = first_report()
    report["metrics"]["requests"]["input_length"]["stddev"] = ISL / 2
    for document in (wide, counted, report):
        run = read(document, tmp_path)
        assert (run.isl_cv, run.osl_cv) == (0.5, 0.0)
    assert read(guidellm(), tmp_path).isl_cv == 0.0


def test_drafts_that_the_client_counted(tmp_path):
    run = read(vllm(spec_decode_num_drafts=1000, spec_decode_draft_tokens=3000), tmp_path)
    assert run.spec_decode == "draft, 3 tokens"


def test_cached_prompt_tokens_are_hits(tmp_path):
    document = new_inference_perf()
    document["successes"]["prompt_tokens"]["cached"] = ISL * REQUESTS / 4
    assert read(document, tmp_path, NAMED).prefix_hit_frac == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (vllm(completed=0), "no request succeeded"),
        (vllm(ramp_up_strategy="linear"), "ramped"),
        (vllm(total_input_tokens=None), "how long"),
        (vllm(total_output_tokens=math.nan), "how long"),
        (second_report(multi_turn={"enabled": True}), "several turns"),
        (inference_perf({"prompt_len": {"mean": 1.0}, "output_len": {"mean": 2.0}}, {}, "p50"), ""),
    ],
)
def test_what_cannot_be_predicted_has_a_reason(tmp_path, document, reason):
    if not reason:
        document["successes"]["throughput"], reason = {}, "neither concurrency nor request rate"
    path = tmp_path / "result.json"
    path.write_text(json.dumps(document))
    measurements = read_any(path, NAMED)
    assert not measurements.runs
    assert reason in measurements.unsupported[0].reason


def test_all_that_a_file_leaves_out_is_asked_for_at_once(tmp_path):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(vllm(model_id=None)))
    with pytest.raises(InputError) as caught:
        read_any(path, Setup())
    assert "--on" in str(caught.value)
    assert "--model" in str(caught.value)
    path.write_text(json.dumps([{"a": 1}, vllm(model_id=None), {"b": 2}]))
    with pytest.raises(InputError) as caught:
        read_any(path, Setup())
    assert [problem.field for problem in caught.value.problems] == [
        "document 1",
        "document 3",
        "accelerator",
        "model",
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"null",
        b'{"a": 1}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"benchmarks": []}',
        b'{"successes": {"latency": {}}}\n{"x"',
        b"\x1f\x8bbroken",
        b'{"completed": ' + b"9" * 5000 + b"}",
        b'{"a": 1}\n' + b"[" * 100_000,
        b"&a {input_config: {x: *a}, output_token_throughput: 1, request_latency: {avg: 1}}",
    ],
)
@pytest.mark.parametrize("name", ["result.json", "report.yaml"])
def test_broken_files_are_bad_input(tmp_path, content, name):
    """Never a traceback: exit 2 and what to give instead."""
    path = tmp_path / name
    path.write_bytes(content)
    outcome = CliRunner().invoke(app, ["validate", str(path), "--on", "h100", "--model", MODEL])
    assert isinstance(outcome.exception, InputError), outcome.exception


@pytest.mark.parametrize("odd", ["x", None, -1, True, [], {}, math.inf, math.nan, 10**400])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_odd_values_read_as_unknown(tmp_path, name, odd):
    """Every field in turn replaced: no crash, no number that is not one."""
    document = DOCUMENTS[name][0]
    for changed in _each_replaced(document, odd):
        path = tmp_path / "result.json"
        path.write_text(json.dumps(changed))
        try:
            measurements = read_any(path, Setup("m", "h100_sxm"), accelerator_named)
        except InputError:
            continue
        for run in measurements.runs:
            assert all(0 < value < math.inf for value in run.metrics.values())
            assert run.isl_tokens > 0
            assert run.osl_tokens >= 1


def _each_replaced(document, odd):
    if isinstance(document, dict):
        for key, value in document.items():
            yield {**document, key: odd}
            yield from ({**document, key: inner} for inner in _each_replaced(value, odd))
    elif isinstance(document, list):
        for i, value in enumerate(document):
            yield [*document[:i], odd, *document[i + 1 :]]
            yield from ([*document[:i], inner, *document[i + 1 :]] for inner in _each_replaced(value, odd))


def test_several_results_and_compressed_ones(tmp_path):
    """One a line, as `--append-result` leaves them; gzip by content, not by name."""
    path = tmp_path / "results.json"
    path.write_bytes(gzip.compress("\n".join([json.dumps(vllm())] * 2).encode()))
    assert [run.id for run in read_any(path, SETUP).runs] == ["results-0", "results-1"]
