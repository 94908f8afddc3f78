"""Readers of the four load generators' result files, each `recognises_*` and `read_*`.

What each calls a thing (read from the tools' sources, 2025-02 to 2026-08):

| tool | file | times | mean time between tokens of a request | every gap |
| --- | --- | --- | --- | --- |
| `vllm bench serve` | `--save-result` | ms | tpot | itl |
| guidellm 0.2 to 0.7 | `benchmarks.json` | `_ms` in the name, latency in s | inter_token_latency_ms | – |
| aiperf, genai-perf | `profile_export_*.json` | by its unit | inter_token_latency | inter_chunk_latency |
| inference-perf 0.1 to 0.3 | `*_lifecycle_metrics.json` | s | time_per_output_token | inter_token_latency |

guidellm's `time_per_output_token_ms` counts the first token's wait in, so it is none of our metrics.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from moai_planner.accuracy.result_values import (
    SECONDS,
    UNLIMITED,
    Result,
    deviation,
    distribution,
    model_name,
    number,
    part,
    seconds_of,
    text,
)

MS, S = SECONDS["ms"], SECONDS["s"]
Lengths = tuple[tuple[int, int], ...]
Fault = tuple[str, str, str]
MOST_TOKENS = 10_000_000
"""Of one request: no context is longer."""
TOTALS_TOLERANCE = 0.05
"""Listed lengths may miss the totals by so much: some requests succeed without a token."""
MOST_FAULTS, SHOWN = 5, 40
"""Entries of a list that a message names, and characters of each."""


def recognises_vllm(document: Mapping[str, Any]) -> bool:
    return "total_token_throughput" in document and "completed" in document


def read_vllm(document: Mapping[str, Any]) -> Iterator[Result]:
    """`vllm bench serve --save-result`: one flat object."""
    completed = number(document.get("completed"))
    lengths, faults = _listed(document)
    rate = number(document.get("request_rate"))  # "inf" reads as 0
    metrics = {
        "output_tps": number(document.get("output_throughput")),
        "total_tps": number(document.get("total_token_throughput")),
    }
    for name in ("ttft", "tpot", "itl"):
        for statistic in ("mean", "median", "p90", "p99"):
            metrics[f"{name}_ms_{statistic}"] = number(document.get(f"{statistic}_{name}_ms"))
    for statistic in ("mean", "median", "p99"):
        metrics[f"e2el_s_{statistic}"] = number(document.get(f"{statistic}_e2el_ms")) * MS
    yield Result(
        tool="vllm bench serve",
        requests=completed,
        input_tokens=_each(document.get("total_input_tokens"), completed),
        output_tokens=_each(document.get("total_output_tokens"), completed),
        concurrency=number(document.get("max_concurrency")) or (0.0 if rate else UNLIMITED),
        rate_req_per_s=rate,
        metrics=metrics,
        model=model_name(document.get("model_id")),
        lengths=lengths,
        faults=faults,
        burstiness=number(document.get("burstiness")) or 1.0,
        failed=number(document.get("failed")),
        spec_decode=_drafted(document),
        reason="the request rate was ramped during the run" if document.get("ramp_up_strategy") else "",
    )


def _drafted(document: Mapping[str, Any]) -> str:
    drafts = number(document.get("spec_decode_num_drafts"))
    each = round(_each(document.get("spec_decode_draft_tokens"), drafts))
    return f"draft, {each} token{'s' if each > 1 else ''}" if each else "none"


def _listed(document: Mapping[str, Any]) -> tuple[Lengths, tuple[Fault, ...]]:
    """(prompt, generated) of the requests that succeeded, with `--save-detailed`; a request that failed
    generated nothing. And what contradicts the file's own totals."""
    lists = {name: document.get(name) for name in ("input_lens", "output_lens")}
    if not all(isinstance(entries, list) and entries for entries in lists.values()):
        return (), ()
    faults = [
        (f"{name}[{i}]", repr(entry)[:SHOWN], f"write whole tokens, 0 to {MOST_TOKENS}")
        for name, entries in lists.items()
        for i, entry in enumerate(entries)
        if isinstance(entry, bool) or not isinstance(entry, int) or not 0 <= entry <= MOST_TOKENS
    ]
    prompts, outputs = lists.values()
    if len(prompts) != len(outputs):
        faults.append(
            ("output_lens", f"{len(outputs)} entries", f"give as many as input_lens ({len(prompts)})")
        )
    if faults:
        return (), tuple(faults[:MOST_FAULTS])
    pairs = tuple((a, b) for a, b in zip(prompts, outputs, strict=True) if a and b)
    completed = number(document.get("completed"))
    if completed and abs(len(pairs) / completed - 1.0) > TOTALS_TOLERANCE:
        faults.append(
            ("output_lens", f"{len(pairs)} answers", f"completed is {completed:.0f}; give both of one run")
        )
    for name, column in (("input", 0), ("output", 1)):
        total, listed = number(document.get(f"total_{name}_tokens")), sum(pair[column] for pair in pairs)
        if total and abs(listed / total - 1.0) > TOTALS_TOLERANCE:
            remedy = f"total_{name}_tokens is {total:.0f}; give both of one run"
            faults.append((f"{name}_lens", f"{listed} tokens in all", remedy))
    return (() if faults else pairs), tuple(faults)


def _each(total: Any, count: float) -> float:
    return number(total) / count if count else 0.0


def recognises_guidellm(document: Mapping[str, Any]) -> bool:
    return isinstance(document.get("benchmarks"), list)


def read_guidellm(document: Mapping[str, Any]) -> Iterator[Result]:
    """guidellm: a list of benchmarks, each with distributions over the successful requests."""
    for benchmark in document["benchmarks"]:
        metrics = part(benchmark, "metrics")

        def successful(name: str, metrics=metrics) -> Mapping[str, Any]:
            return part(metrics, name, "successful")

        def mean(name: str, successful=successful) -> float:
            return number(successful(name).get("mean"))

        latency = successful("request_latency")
        concurrency, rate = _guidellm_load(benchmark, mean)
        gap = successful("inter_token_latency_ms")
        yield Result(
            tool="guidellm",
            requests=number(part(metrics, "request_totals").get("successful"))
            or number(latency.get("count")),
            failed=number(part(metrics, "request_totals").get("errored")),
            burstiness=_guidellm_burstiness(benchmark),
            input_tokens=mean("prompt_token_count"),
            output_tokens=mean("output_token_count"),
            input_cv=deviation(successful("prompt_token_count"), "std_dev"),
            output_cv=deviation(successful("output_token_count"), "std_dev"),
            concurrency=concurrency,
            rate_req_per_s=rate,
            metrics={
                "output_tps": mean("output_tokens_per_second"),
                "total_tps": mean("tokens_per_second"),
                "itl_ms_mean": number(gap.get("mean")),
                **distribution("ttft_ms", successful("time_to_first_token_ms"), MS),
                **distribution("tpot_ms", gap, MS),
                **distribution("e2el_s", latency, S),
            },
            model=_guidellm_model(document, benchmark),
        )


def _guidellm_load(benchmark: Any, mean) -> tuple[float, float]:
    """(concurrency, requests a second) of the strategy that ran; without one, what was in flight."""
    strategy = _guidellm_strategy(benchmark)
    kind = text(strategy.get("type_"))
    if kind in ("constant", "poisson", "async") and number(strategy.get("rate")):
        return 0.0, number(strategy.get("rate"))
    if kind == "synchronous":
        return 1.0, 0.0
    streams = number(strategy.get("streams")) if kind == "concurrent" else 0.0
    seen = mean("request_concurrency") or mean("requests_per_second") * mean("request_latency")
    return streams or max(1.0, seen), 0.0


def _guidellm_burstiness(benchmark: Any) -> float:
    return math.inf if text(_guidellm_strategy(benchmark).get("type_")) == "constant" else 1.0


def _guidellm_strategy(benchmark: Any) -> Mapping[str, Any]:
    return part(benchmark, "config", "strategy") or part(benchmark, "args", "strategy")


def _guidellm_model(document: Mapping[str, Any], benchmark: Any) -> str:
    places = (
        part(benchmark, "config", "backend").get("model"),
        part(document, "config", "spec", "backend").get("model"),
        part(document, "args").get("model"),
        part(benchmark, "worker").get("backend_model"),
    )
    return next(filter(None, map(model_name, places)), "")


def recognises_aiperf(document: Mapping[str, Any]) -> bool:
    return "output_token_throughput" in document and bool(part(document, "request_latency"))


def read_aiperf(document: Mapping[str, Any]) -> Iterator[Result]:
    """aiperf and its forerunner genai-perf: every metric an object with its unit."""

    def average(name: str) -> float:
        return number(part(document, name).get("avg"))

    def times(metric: str, name: str) -> dict[str, float]:
        entry = part(document, name)
        return distribution(metric, entry, seconds_of(entry.get("unit"), "ms"), "avg")

    latency, config = part(document, "request_latency"), part(document, "input_config")
    req_per_s, latency_s = average("request_throughput"), average("request_latency")
    latency_s *= seconds_of(latency.get("unit"), "ms")
    rate, concurrency = _stated(config, "request_rate"), _stated(config, "concurrency")
    yield Result(
        tool="aiperf",
        requests=average("request_count")
        or number(latency.get("count"))
        or average("benchmark_duration") * req_per_s,
        input_tokens=average("input_sequence_length"),
        output_tokens=average("output_sequence_length"),
        input_cv=deviation(part(document, "input_sequence_length"), "std", "avg"),
        output_cv=deviation(part(document, "output_sequence_length"), "std", "avg"),
        concurrency=concurrency or (0.0 if rate else req_per_s * latency_s),
        rate_req_per_s=rate,
        metrics={
            "output_tps": average("output_token_throughput"),
            "total_tps": average("total_token_throughput"),
            **times("ttft_ms", "time_to_first_token"),
            **times("tpot_ms", "inter_token_latency"),
            **times("itl_ms", "inter_chunk_latency"),
            **times("e2el_s", "request_latency"),
        },
        model=_aiperf_model(config),
    )


def _stated(config: Any, name: str) -> float:
    """The one number of that name anywhere in a configuration, warm-up phases left out."""
    if isinstance(config, list):
        return next(filter(None, (_stated(one, name) for one in config)), 0.0)
    if not isinstance(config, Mapping) or "warmup" in (text(config.get("name")), text(config.get("phase"))):
        return 0.0
    inner = (_stated(value, name) for key, value in config.items() if "warmup" not in str(key))
    return number(config.get(name)) or next(filter(None, inner), 0.0)


def _aiperf_model(config: Mapping[str, Any]) -> str:
    for names in (
        part(config, "endpoint").get("model_names"),
        config.get("model_names"),
        config.get("model"),
    ):
        if isinstance(names, list) and len(names) == 1:
            return model_name(names[0])
        if text(names):
            return model_name(names)
    return ""


def recognises_inference_perf(document: Mapping[str, Any]) -> bool:
    return "latency" in part(document, "successes")


def read_inference_perf(document: Mapping[str, Any]) -> Iterator[Result]:
    """inference-perf: one object a stage, or one for the whole run."""
    done = part(document, "successes")
    latency, throughput, load = (
        part(done, "latency"),
        part(done, "throughput"),
        part(document, "load_summary"),
    )
    prompts = part(done, "prompt_tokens") or part(done, "prompt_len")
    concurrency = number(load.get("concurrency"))
    rates = (load.get("requested_rate"), load.get("achieved_rate"), throughput.get("requests_per_sec"))
    yield Result(
        tool="inference-perf",
        requests=number(done.get("count")),
        input_tokens=number(prompts.get("mean")),
        output_tokens=number(part(done, "output_tokens").get("mean"))
        or number(part(done, "output_len").get("mean")),
        concurrency=concurrency,
        rate_req_per_s=0.0 if concurrency else next(filter(None, map(number, rates)), 0.0),
        metrics={
            "output_tps": number(throughput.get("output_tokens_per_sec")),
            "total_tps": number(throughput.get("total_tokens_per_sec")),
            **distribution("ttft_ms", latency.get("time_to_first_token"), S),
            **distribution("tpot_ms", latency.get("time_per_output_token"), S),
            **distribution("itl_ms", latency.get("inter_token_latency"), S),
            **distribution("e2el_s", latency.get("request_latency"), S),
        },
        prefix_hit_frac=_each(prompts.get("cached"), number(prompts.get("total"))),
    )
