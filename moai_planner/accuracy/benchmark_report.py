"""Reader of the llm-d benchmark report, schema 0.1, 0.2 and 0.2.1 (YAML or JSON).

It wraps the result of any load generator, states the unit of every number, and may say on what the model
ran; flags of the user go before that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from moai_planner.accuracy.result_tools import recognises_guidellm
from moai_planner.accuracy.result_values import (
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
from moai_planner.accuracy.run import Workers

Boards = Callable[[str], str]
"""Product name of a board → accelerator id; empty = not known."""
ENGINES = ("vllm", "sglang", "trtllm", "tensorrt-llm")
_LATENCIES = {
    "ttft_ms": "time_to_first_token",
    "tpot_ms": "time_per_output_token",
    "itl_ms": "inter_token_latency",
    "e2el_s": "request_latency",
}


def recognises_report(document: Mapping[str, Any]) -> bool:
    reports = part(document, "metrics", "latency") or part(document, "results", "request_performance")
    return "version" in document and bool(reports) and not recognises_guidellm(document)


def read_report(document: Mapping[str, Any], boards: Boards) -> Iterator[Result]:
    """One result a report."""
    version = str(document.get("version"))
    read = _read_first if version.startswith("0.1") else _read_second
    yield read(document, boards)


@dataclass(frozen=True)
class _Pod:
    """One entry of a stack."""

    role: str
    workers: Workers


def _read_first(document: Mapping[str, Any], boards: Boards) -> Result:
    metrics, scenario = part(document, "metrics"), part(document, "scenario")
    requests, throughput = part(metrics, "requests"), part(metrics, "throughput")
    load = part(scenario, "load")
    arguments = part(load, "args")
    concurrency, rate = _load(
        arguments, "max_concurrency", "request_rate", throughput.get("requests_per_sec")
    )
    return Result(
        tool="llm-d benchmark report",
        requests=max(0.0, number(requests.get("total")) - number(requests.get("failures"))),
        input_tokens=number(part(requests, "input_length").get("mean")),
        output_tokens=number(part(requests, "output_length").get("mean")),
        input_cv=deviation(part(requests, "input_length"), "stddev"),
        output_cv=deviation(part(requests, "output_length"), "stddev"),
        concurrency=concurrency,
        rate_req_per_s=rate,
        metrics={
            "output_tps": number(throughput.get("output_tokens_per_sec")),
            "total_tps": number(throughput.get("total_tokens_per_sec")),
            **_times(part(metrics, "latency")),
        },
        model=model_name(part(scenario, "model").get("name")),
        workers=_instances(_first_pods(scenario, boards)),
    )


def _read_second(document: Mapping[str, Any], boards: Boards) -> Result:
    results = part(document, "results", "request_performance", "aggregate")
    requests, throughput = part(results, "requests"), part(results, "throughput")
    load = part(document, "scenario", "load", "standardized")
    prompt_tokens = number(part(requests, "input_length").get("mean"))
    reached = part(throughput, "request_rate").get("mean")
    concurrency, rate = _load(load, "concurrency", "rate_qps", reached)
    shared = number(part(load, "prefix", "prefix_len").get("value"))
    stack = part(document, "scenario").get("stack")
    entries = [part(one, "standardized") for one in stack] if isinstance(stack, list) else []
    engines = [one for one in entries if one.get("kind") == "inference_engine"]
    turns = part(load, "multi_turn").get("enabled") is True
    return Result(
        tool="llm-d benchmark report",
        requests=max(0.0, number(requests.get("total")) - number(requests.get("failures"))),
        input_tokens=prompt_tokens,
        output_tokens=number(part(requests, "output_length").get("mean")),
        input_cv=deviation(part(requests, "input_length"), "stddev"),
        output_cv=deviation(part(requests, "output_length"), "stddev"),
        concurrency=concurrency,
        rate_req_per_s=rate,
        metrics={
            "output_tps": number(part(throughput, "output_token_rate").get("mean")),
            "total_tps": number(part(throughput, "total_token_rate").get("mean")),
            **_times(part(results, "latency")),
        },
        model=next(filter(None, (model_name(part(one, "model").get("name")) for one in engines)), ""),
        workers=_instances([_pod(one, boards) for one in engines]),
        prefix_hit_frac=shared / prompt_tokens if prompt_tokens else 0.0,
        reason="conversations of several turns are not predicted" if turns else "",
    )


def _load(stated: Mapping[str, Any], limit: str, rate: str, reached: Any) -> tuple[float, float]:
    """(concurrency, requests a second); the rate that was reached where the file states neither."""
    concurrency, req_per_s = number(stated.get(limit)), number(stated.get(rate))
    if concurrency or req_per_s:
        return concurrency, req_per_s
    if text(stated.get(rate)) == "inf" or stated.get(rate) == UNLIMITED:
        return UNLIMITED, 0.0
    return 0.0, number(reached)


def _times(latency: Mapping[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for metric, name in _LATENCIES.items():
        entry = part(latency, name)
        found |= distribution(metric, entry, seconds_of(entry.get("units"), "s"))
    return found


def _first_pods(scenario: Mapping[str, Any], boards: Boards) -> list[_Pod | None]:
    """Lists of equal length: what each host is, its accelerator, its engine."""
    roles, devices = part(scenario, "host").get("type"), part(scenario, "host").get("accelerator")
    engines = part(scenario, "platform").get("engine")
    if not isinstance(roles, list) or not isinstance(devices, list) or len(roles) != len(devices):
        return []
    names = [part({"e": one}, "e").get("name") for one in engines] if isinstance(engines, list) else []
    names += [""] * (len(roles) - len(names))
    return [
        _pod({"role": role, "accelerator": device, "tool": name}, boards)
        for role, device, name in zip(roles, devices, names, strict=False)
    ]


def _pod(entry: Mapping[str, Any], boards: Boards) -> _Pod | None:
    device = part(entry, "accelerator")
    board = boards(text(device.get("model")))
    if not board:
        return None
    degrees = part(device, "parallelism")

    def degree(name: str) -> int:
        return max(1, int(number(degrees.get(name))))

    role = text(entry.get("role")).lower()
    tool = f"{text(entry.get('tool'))} {text(entry.get('tool_version'))}".lower()
    engine = next((name for name in ENGINES if re.search(rf"\b{name}\b", tool)), "vllm")
    return _Pod(
        role if role in ("prefill", "decode") else "mixed",
        Workers(
            accelerator=board,
            engine="trtllm" if engine == "tensorrt-llm" else engine,
            count=max(1, int(number(entry.get("replicas")))),
            tp=degree("tp"),
            pp=degree("pp"),
            dp=degree("dp"),
            ep=degree("ep"),
        ),
    )


def _instances(pods: list[_Pod | None]) -> tuple[Workers, ...]:
    """Equal pods of a role together; nothing where a pod is not known or a role has two kinds."""
    if not pods or None in pods:
        return ()
    groups: dict[str, list[Workers]] = {}
    for pod in pods:
        groups.setdefault(pod.role, []).append(pod.workers)
    if set(groups) == {"decode"}:  # a stack without prefill pods serves both
        groups = {"mixed": groups["decode"]}
    if set(groups) not in ({"mixed"}, {"prefill", "decode"}):
        return ()
    found = []
    for role in ("prefill", "decode", "mixed"):
        members = groups.get(role, [])
        kinds = {(w.accelerator, w.engine, w.tp, w.pp, w.dp, w.ep) for w in members}
        if len(kinds) > 1:
            return ()
        if members:
            accelerator, engine, tp, pp, dp, ep = kinds.pop()
            found.append(Workers(accelerator, engine, sum(w.count for w in members), tp, pp, dp, ep))
    return tuple(found)
