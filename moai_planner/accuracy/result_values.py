"""What the readers of result files share: the result as every tool can say it, and careful access to JSON.

A reader turns one document into `Result`s; `run_of` joins a result with the `Setup` that the user gave and
makes the `Run` to predict, or says why it cannot.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moai_planner.accuracy.lengths import WIDEST_CV, listed_cv
from moai_planner.accuracy.run import LARGEST, METRICS, Run, Unsupported, Workers
from moai_planner.domain.units import MICRO, MILLI, NANO

SECONDS = {"s": 1.0, "ms": MILLI, "us": MICRO, "ns": NANO}
_UNIT_NAMES = {"seconds": "s", "sec": "s", "milliseconds": "ms", "microseconds": "us", "nanoseconds": "ns"}
UNLIMITED = float("inf")
"""Concurrency of a run that sends all its requests at once."""


@dataclass(frozen=True)
class Setup:
    """What a result file leaves out. Empty or 0: not given, so what the file says is used, or the default."""

    model: str = ""
    accelerator: str = ""
    engine: str = ""
    precision: str = ""
    tp: int = 0
    dp: int = 0
    replicas: int = 0
    ep: int = 0


@dataclass(frozen=True)
class Result:
    """One benchmark run as a tool reports it. Lengths are means; 0 = the file does not say."""

    tool: str
    requests: float
    input_tokens: float
    output_tokens: float
    concurrency: float
    rate_req_per_s: float
    metrics: Mapping[str, float]
    input_cv: float = 0.0
    "Deviation of the prompt lengths over their mean; 0 = the file does not say."
    output_cv: float = 0.0
    lengths: tuple[tuple[int, int], ...] = ()
    "(prompt, generated) tokens of every request that succeeded, where the file lists them."
    model: str = ""
    precision: str = ""
    workers: tuple[Workers, ...] = ()
    "Where the file names the devices and their layout."
    spec_decode: str = "none"
    prefix_hit_frac: float = 0.0
    burstiness: float = 1.0
    "Shape of the gaps of arrivals at a rate: 1 = Poisson, infinity = even."
    failed: float = 0.0
    "Requests that did not succeed."
    faults: tuple[tuple[str, str, str], ...] = ()
    "(field, value, remedy) of what cannot be as the file says."
    reason: str = ""
    "Why it cannot be predicted; empty = it can."
    assumed: tuple[str, ...] = field(default=())


def run_of(result: Result, run_id: str, setup: Setup) -> Run | Unsupported:
    """The run to predict. The setup must name model and accelerator, or the result must."""
    reason = result.reason or _lacking(result)
    if reason:
        return Unsupported(run_id, result.tool, "", reason)
    requests = max(1, round(result.requests))
    isl_cv, osl_cv = result.input_cv, result.output_cv
    if result.lengths:
        isl_cv, osl_cv = (listed_cv(column) for column in zip(*result.lengths, strict=True))
    failed = (f"{result.failed:g} requests failed and are left out",) if result.failed else ()
    hit_frac = min(result.prefix_hit_frac, 1.0)
    return Run(
        id=run_id,
        source=result.tool,
        date="",
        model=setup.model or result.model,
        precision=setup.precision or result.precision,
        engine_version="",
        workers=_workers(result, setup),
        kv_connector="unknown" if len(result.workers) > 1 and not setup.accelerator else "",
        spec_decode=result.spec_decode,
        arrivals="open" if result.rate_req_per_s else "closed",
        isl_tokens=result.input_tokens,
        osl_tokens=result.output_tokens,
        length_low_frac=1.0,
        isl_cv=isl_cv,
        osl_cv=osl_cv,
        lengths=result.lengths if isl_cv or osl_cv else (),
        equal_lengths=bool(result.lengths) and not (isl_cv or osl_cv),
        burstiness=result.burstiness,
        concurrency=max(1, round(min(result.concurrency, requests))) if result.concurrency else 0,
        request_rate=result.rate_req_per_s,
        requests=requests,
        prefix_hit_frac=hit_frac,
        max_num_seqs=0,
        max_num_batched_tokens=0,
        kv="",
        split="",
        notes="",
        assumed=(*result.assumed, *failed, f"prefix_hit_frac {hit_frac:g}"),
        metrics={
            name: value for name, value in result.metrics.items() if name in METRICS and _possible(value)
        },
    )


def _lacking(result: Result) -> str:
    if not result.requests:
        return "no request succeeded"
    if not result.input_tokens or not result.output_tokens:
        return "the file does not say how long prompts and outputs were"
    if not result.concurrency and not result.rate_req_per_s:
        return "the file says neither concurrency nor request rate"
    if result.output_tokens < 1.0:
        return "fewer than one token was generated a request"
    stated = {
        "requests": result.requests,
        "tokens a prompt": result.input_tokens,
        "tokens an answer": result.output_tokens,
        "requests in flight": result.concurrency,
        "requests a second": result.rate_req_per_s,
    }
    beyond = [f"{value:.4g} {name}" for name, value in stated.items() if not _possible(value, 0, UNLIMITED)]
    return f"no serving run has {' or '.join(beyond)}" if beyond else ""


def _possible(value: float, *others: float) -> bool:
    return 1.0 / LARGEST <= value <= LARGEST or value in others


def _workers(result: Result, setup: Setup) -> tuple[Workers, ...]:
    if result.workers and not setup.accelerator:
        return result.workers
    return (
        Workers(
            accelerator=setup.accelerator,
            engine=setup.engine or "vllm",
            count=setup.replicas or 1,
            tp=setup.tp or 1,
            pp=1,
            dp=setup.dp or 1,
            ep=setup.ep or 1,
        ),
    )


def part(document: Any, *path: str) -> Mapping[str, Any]:
    """The object at a path; empty when anything on the way is missing or of another kind.

    >>> part({"a": {"b": {"c": 1}}}, "a", "b"), part({"a": None}, "a", "b")
    ({'c': 1}, {})
    """
    for name in path:
        document = document.get(name) if isinstance(document, Mapping) else None
    return document if isinstance(document, Mapping) else {}


def number(value: Any) -> float:
    """A finite number of 0 or more; everything else is 0 (unknown).

    >>> number("16"), number(float("nan")), number(None), number(True)
    (16.0, 0.0, 0.0, 0.0)
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return 0.0
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return 0.0
    return found if math.isfinite(found) and found >= 0 else 0.0


def text(value: Any) -> str:
    """A name; empty when it is none."""
    return value.strip() if isinstance(value, str) else ""


def seconds_of(unit: Any, default: str) -> float:
    """Seconds in a unit of time ("ms", "s/token"); `default` where a file says nothing.

    >>> seconds_of("ms/token", "s"), seconds_of(None, "s")
    (0.001, 1.0)
    """
    name = text(unit).lower().partition("/")[0]
    return SECONDS.get(_UNIT_NAMES.get(name, name), SECONDS[default])


def distribution(metric: str, entry: Any, seconds: float, mean: str = "mean") -> dict[str, float]:
    """Mean and percentiles of one time metric, in the unit of its column.

    Percentiles sit beside the mean or in an object of their own.
    """
    if not isinstance(entry, Mapping):
        return {}
    scale = seconds / SECONDS[metric.rpartition("_")[2]]
    inner = part(entry, "percentiles") or entry
    found = {
        "mean": entry.get(mean),
        "median": entry.get("median", inner.get("p50")),
        "p90": inner.get("p90"),
        "p99": inner.get("p99"),
    }
    return {f"{metric}_{statistic}": number(value) * scale for statistic, value in found.items()}


def deviation(entry: Mapping[str, Any], name: str, mean: str = "mean") -> float:
    """Deviation over mean of a distribution of lengths, at most `WIDEST_CV`; 0 where it does not say.

    >>> deviation({"mean": 200.0, "std_dev": 150.0}, "std_dev"), deviation({"mean": 200.0}, "std_dev")
    (0.75, 0.0)
    """
    middle = number(entry.get(mean))
    return min(number(entry.get(name)) / middle, WIDEST_CV) if middle else 0.0


def model_name(value: Any) -> str:
    """A model's name; of a path on the server's disk the last part.

    >>> model_name("/root/model/meta-llama/Llama-3.1-8B-Instruct/"), model_name("Qwen/Qwen3-8B")
    ('Llama-3.1-8B-Instruct', 'Qwen/Qwen3-8B')
    """
    name = text(value)
    return name.rstrip("/").rpartition("/")[2] if name.startswith(("/", ".", "~")) else name
