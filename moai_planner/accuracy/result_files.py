"""Result files of benchmark tools → runs: `vllm bench serve`, guidellm, aiperf, inference-perf.

They say what was measured, not on what it ran; `Setup` carries that. The measurements table goes through
too, so `read_any` takes whatever a user has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moai_planner.accuracy.measurements import read_measurements
from moai_planner.accuracy.run import Measurements, Run, Unsupported, Workers
from moai_planner.domain.errors import InputError, Problem
from moai_planner.domain.units import MILLI

_STATISTICS = {"mean": "mean", "median": "median", "p90": "p90", "p99": "p99"}


@dataclass(frozen=True)
class Setup:
    """What a result file leaves out."""

    model: str = ""
    accelerator: str = ""
    engine: str = "vllm"
    precision: str = ""
    tp: int = 1
    dp: int = 1
    replicas: int = 1


def read_any(path: Path, setup: Setup) -> Measurements:
    """A measurements table by its suffix, else the result file of a tool."""
    if path.name.endswith((".csv", ".csv.gz")):
        return read_measurements(path)
    documents = _documents(path)
    runs: list[Run] = []
    unsupported: list[Unsupported] = []
    for number, document in enumerate(documents):
        reader = next((one for one in READERS.values() if one.recognises(document)), None)
        if reader is None:
            known = ", ".join(READERS)
            remedy = f"give a measurements table or a result of {known}"
            raise InputError(Problem(str(path), f"document {number}", "unknown format", remedy))
        for outcome in reader.runs(document, f"{path.stem}-{number}", setup, str(path)):
            (runs if isinstance(outcome, Run) else unsupported).append(outcome)
    return Measurements(tuple(runs), tuple(unsupported))


def _documents(path: Path) -> list[Mapping[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(Problem(str(path), "", error.strerror or "", "give a readable file")) from error
    except UnicodeDecodeError as error:
        raise InputError(Problem(str(path), "", "not UTF-8 text", "give a JSON result file")) from error
    try:
        found = json.loads(text)
        documents = found if isinstance(found, list) else [found]
    except json.JSONDecodeError:
        documents = _lines(text, path)
    if not documents or not all(isinstance(one, Mapping) for one in documents):
        raise InputError(Problem(str(path), "", "", "give a JSON object, a list of them, or one a line"))
    return documents


def _lines(text: str, path: Path) -> list[Any]:
    documents = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            documents.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise InputError(Problem(str(path), f"line {number}", error.msg, "write valid JSON")) from error
    return documents


@dataclass(frozen=True)
class Load:
    """How a tool drove the engine, as far as its file says."""

    requests: int
    input_tokens: float
    output_tokens: float
    concurrency: int
    rate_req_per_s: float


def _run(run_id: str, source: str, setup: Setup, load: Load, metrics: dict[str, float], file: str):
    if not setup.accelerator:
        raise InputError(Problem(file, "", "", "say what it ran on: --on h100_sxm (and --tp, --model)"))
    if not setup.model:
        raise InputError(Problem(file, "model", "", "say which model was served: --model"))
    metrics = {name: value for name, value in metrics.items() if value and value > 0}
    if not load.input_tokens or not load.output_tokens:
        return Unsupported(run_id, source, "", "the file does not say how long prompts and outputs were")
    if not load.concurrency and not load.rate_req_per_s:
        return Unsupported(run_id, source, "", "the file says neither concurrency nor request rate")
    workers = Workers(setup.accelerator, setup.engine, setup.replicas, setup.tp, 1, setup.dp, 1)
    return Run(
        id=run_id,
        source=source,
        date="",
        model=setup.model,
        precision=setup.precision,
        engine_version="",
        workers=(workers,),
        kv_connector="",
        spec_decode="none",
        arrivals="open" if load.rate_req_per_s else "closed",
        isl_tokens=load.input_tokens,
        osl_tokens=load.output_tokens,
        length_low_frac=1.0,
        concurrency=load.concurrency,
        request_rate=load.rate_req_per_s,
        requests=load.requests,
        prefix_hit_frac=0.0,
        max_num_seqs=0,
        max_num_batched_tokens=0,
        kv="",
        split="",
        notes="",
        assumed=("prefix_hit_frac 0",),
        metrics=metrics,
    )


class VllmBench:
    """`vllm bench serve --save-result`: one object, flat."""

    @staticmethod
    def recognises(document: Mapping) -> bool:
        return "total_token_throughput" in document and "completed" in document

    @staticmethod
    def runs(document: Mapping, run_id: str, setup: Setup, file: str):
        completed = int(document.get("completed") or 0)
        rate = document.get("request_rate")
        rate = 0.0 if rate in (None, "inf") or float(rate) == float("inf") else float(rate)
        concurrency = int(document.get("max_concurrency") or 0) or (0 if rate else completed)
        load = Load(
            requests=completed,
            input_tokens=_each(document.get("total_input_tokens"), completed),
            output_tokens=_each(document.get("total_output_tokens"), completed),
            concurrency=concurrency,
            rate_req_per_s=rate,
        )
        metrics = {
            "output_tps": document.get("output_throughput"),
            "total_tps": document["total_token_throughput"],
        }
        for name in ("ttft", "tpot", "itl"):
            for statistic in _STATISTICS:
                metrics[f"{name}_ms_{statistic}"] = document.get(f"{statistic}_{name}_ms")
        for statistic in ("mean", "median", "p99"):
            value = document.get(f"{statistic}_e2el_ms")
            metrics[f"e2el_s_{statistic}"] = value * MILLI if value else None
        model = setup.model or str(document.get("model_id", ""))
        setup = _with_model(setup, model)
        yield _run(run_id, "vllm bench serve", setup, load, _known(metrics), file)


class Guidellm:
    """guidellm `benchmarks.json`: a list of benchmarks, each with distributions."""

    @staticmethod
    def recognises(document: Mapping) -> bool:
        return isinstance(document.get("benchmarks"), list)

    @staticmethod
    def runs(document: Mapping, run_id: str, setup: Setup, file: str):
        for number, benchmark in enumerate(document["benchmarks"]):
            metrics = benchmark.get("metrics", {})

            def mean(name: str, metrics=metrics) -> float:
                return _number(_successful(metrics, name).get("mean"))

            done = _successful(metrics, "request_latency")
            rate, latency_s = mean("requests_per_second"), mean("request_latency")
            load = Load(
                requests=int(_number(done.get("count"))),
                input_tokens=mean("prompt_token_count"),
                output_tokens=mean("output_token_count"),
                concurrency=max(1, round(mean("request_concurrency") or rate * latency_s)),
                rate_req_per_s=0.0,
            )
            values = {
                "output_tps": mean("output_tokens_per_second"),
                "total_tps": mean("tokens_per_second"),
                **_distribution("ttft_ms", _successful(metrics, "time_to_first_token_ms"), 1.0),
                **_distribution("itl_ms", _successful(metrics, "inter_token_latency_ms"), 1.0),
                **_distribution("e2el_s", done, 1.0),
            }
            yield _run(f"{run_id}.{number}", "guidellm", setup, load, _known(values), file)


class Aiperf:
    """aiperf `profile_export_aiperf.json`: every metric an object with its unit."""

    @staticmethod
    def recognises(document: Mapping) -> bool:
        return isinstance(document.get("request_latency"), Mapping) and "output_token_throughput" in document

    @staticmethod
    def runs(document: Mapping, run_id: str, setup: Setup, file: str):
        def average(name: str) -> float:
            entry = document.get(name)
            return _number(entry.get("avg")) if isinstance(entry, Mapping) else 0.0

        latency = document["request_latency"]
        rate = average("request_throughput")
        load = Load(
            requests=int(average("request_count") or _number(latency.get("count"))),
            input_tokens=average("input_sequence_length"),
            output_tokens=average("output_sequence_length"),
            concurrency=max(1, round(rate * average("request_latency") * MILLI)),
            rate_req_per_s=0.0,
        )
        values = {
            "output_tps": average("output_token_throughput"),
            "total_tps": average("total_token_throughput"),
            **_distribution("ttft_ms", document.get("time_to_first_token", {}), 1.0, "avg"),
            **_distribution("itl_ms", document.get("inter_token_latency", {}), 1.0, "avg"),
            **_distribution("e2el_s", latency, MILLI, "avg"),
        }
        yield _run(run_id, "aiperf", setup, load, _known(values), file)


class InferencePerf:
    """inference-perf `summary_lifecycle_metrics.json`: seconds everywhere."""

    @staticmethod
    def recognises(document: Mapping) -> bool:
        return isinstance(document.get("successes"), Mapping) and "latency" in document["successes"]

    @staticmethod
    def runs(document: Mapping, run_id: str, setup: Setup, file: str):
        successes = document["successes"]
        latency, throughput = successes["latency"], successes.get("throughput", {})
        rate = _number(document.get("load_summary", {}).get("requested_rate"))
        rate = rate or _number(throughput.get("requests_per_sec"))
        load = Load(
            requests=int(_number(successes.get("count"))),
            input_tokens=_number(successes.get("prompt_len", {}).get("mean")),
            output_tokens=_number(successes.get("output_len", {}).get("mean")),
            concurrency=0,
            rate_req_per_s=rate,
        )
        values = {
            "output_tps": throughput.get("output_tokens_per_sec"),
            "total_tps": throughput.get("total_tokens_per_sec"),
            **_distribution("ttft_ms", latency.get("time_to_first_token") or {}, 1.0 / MILLI),
            **_distribution("tpot_ms", latency.get("time_per_output_token") or {}, 1.0 / MILLI),
            **_distribution("itl_ms", latency.get("inter_token_latency") or {}, 1.0 / MILLI),
            **_distribution("e2el_s", latency.get("request_latency") or {}, 1.0),
        }
        yield _run(run_id, "inference-perf", setup, load, _known(values), file)


READERS = {
    "vllm bench serve": VllmBench,
    "guidellm": Guidellm,
    "aiperf": Aiperf,
    "inference-perf": InferencePerf,
}
"""Tried in this order."""


def _with_model(setup: Setup, model: str) -> Setup:
    return Setup(model, setup.accelerator, setup.engine, setup.precision, setup.tp, setup.dp, setup.replicas)


def _each(total: Any, count: int) -> float:
    return _number(total) / count if count else 0.0


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def _successful(metrics: Mapping, name: str) -> Mapping:
    entry = metrics.get(name) or {}
    return entry.get("successful") or {}


def _distribution(name: str, entry: Mapping, scale: float, mean: str = "mean") -> dict[str, float]:
    """Mean and percentiles of one metric; percentiles sit beside the mean or in an object of their own."""
    inner = entry.get("percentiles") if isinstance(entry.get("percentiles"), Mapping) else entry
    median = entry.get("median", inner.get("p50"))
    found = {"mean": entry.get(mean), "median": median, "p90": inner.get("p90"), "p99": inner.get("p99")}
    return {f"{name}_{statistic}": _number(value) * scale for statistic, value in found.items()}


def _known(values: Mapping[str, Any]) -> dict[str, float]:
    """Only metrics that the measurements table has a column for."""
    from moai_planner.accuracy.run import METRICS

    return {name: _number(value) for name, value in values.items() if name in METRICS}
