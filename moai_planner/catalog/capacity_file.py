"""`capacity.yaml`: what people write, checked field by field. `capacity` turns it into domain values.

Every check of a field runs even when another field is wrong, so that one run shows all problems.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from moai_planner.catalog.accelerators import SHORT_NAMES, accelerator, accelerator_ids
from moai_planner.catalog.models import model, model_names
from moai_planner.catalog.traces import trace, trace_names
from moai_planner.catalog.validation import Nested, Strict, quantity, shown
from moai_planner.catalog.yaml_file import near
from moai_planner.domain import units
from moai_planner.domain.candidate import ROLES
from moai_planner.domain.cluster import OBJECTIVES
from moai_planner.domain.errors import InputError, Problem
from moai_planner.domain.precision import PRECISIONS
from moai_planner.domain.slo import METRICS, objective
from moai_planner.domain.workload import Trace

FORMAT = "moai-capacity/1"
KV_FORMATS = ("auto", "bf16", "fp16", "fp8")
MOST_WINDOWS = 1000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?\Z")


def _check_name(value: str) -> str:
    if not _NAME.match(value):
        raise ValueError("use letters, digits, dot, dash and underscore, at most 63")
    return value


def _check_host(value: str) -> str:
    if not _HOST.match(value):
        raise ValueError("write an address or a host name, like 10.0.0.11")
    return value


def _check_accelerator(value: str, info: ValidationInfo) -> str:
    reference = locate(value, (*SHORT_NAMES, *accelerator_ids()), info)
    return _without_file(lambda: accelerator(reference, "", "")) and reference


def _check_model(value: str, info: ValidationInfo) -> str:
    reference = locate(value, model_names(), info)
    return _without_file(lambda: model(reference, "", "")) and reference


def _check_trace(value: str, info: ValidationInfo) -> str:
    reference = locate(value, trace_names(), info)
    return _without_file(lambda: cached_trace(reference)) and reference


@lru_cache(maxsize=16)
def cached_trace(reference: str) -> Trace:
    """A trace is looked at several times while a file is checked, and read once."""
    return trace(reference, file="", field="")


def locate(reference: str, shipped: tuple[str, ...], info: ValidationInfo) -> str:
    """A path is relative to the capacity file's folder; a shipped name stays as it is."""
    folder = (info.context or {}).get("folder")
    if reference in shipped or folder is None or Path(reference).is_absolute():
        return reference
    beside = str(Path(folder) / reference)
    # os.path answers no where pathlib raises: names too long, NUL bytes.
    return beside if reference and os.path.exists(beside) else reference


def _without_file(read: Any) -> bool:
    """Run a reader; what it finds wrong with the reference itself becomes a problem of this field."""
    try:
        read()
    except InputError as error:
        raise Nested(_as_field_problem(problem) for problem in error.problems) from error
    return True


def _as_field_problem(problem: Problem) -> Problem:
    if problem.file in ("", "trace") and not problem.field.startswith("line"):
        return Problem("", "", problem.value, problem.remedy)
    return problem


def _check_slo(value: Any) -> dict[str, float]:
    if not isinstance(value, Mapping) or not value:
        raise ValueError("promise at least one latency, like {ttft_p95: 2 s, tpot_p95: 40 ms}")
    problems, limits = [], {}
    for key, limit in value.items():
        try:
            limits[str(key)] = _limit_s(str(key), limit)
        except ValueError as error:
            problems.append(Problem("", str(key), shown(limit), str(error)))
    if problems:
        raise Nested(problems)
    return limits


def _limit_s(key: str, limit: Any) -> float:
    metric = key.partition("_")[0]
    if metric not in METRICS:
        raise ValueError(f"{metric!r} is not a latency; {near(metric, METRICS)}")
    seconds = units.parse(limit, "s")
    if seconds <= 0:
        raise ValueError("nothing is that fast; write a limit above zero, like 40 ms")
    return objective(key, seconds).limit_s


def _check_confidence(value: Any) -> float | None:
    if value is None or value == "none":
        return None
    number = units.parse(value if isinstance(value, str) else str(value), "frac")
    if not 0 < number < 1:
        raise ValueError("write a share between 0 and 1, like 0.8, or none for the middle of the interval")
    return number


def _check_gap(value: Any) -> float:
    number = units.parse(value if isinstance(value, str) else str(value), "frac")
    if not 0 <= number < 1:
        raise ValueError("write a share from 0 to below 1, like 0.5%")
    return number


def _check_roles(value: list[str]) -> list[str]:
    for role in value:
        if role not in ROLES:
            raise ValueError(f"{role!r} is not a role; {near(role, ROLES)}")
    if not value or ("prefill" in value) != ("decode" in value):
        raise ValueError("name mixed, or prefill together with decode")
    return value


def _check_cells(value: list[int]) -> list[int]:
    if len(value) != 2 or min(value) < 1 or value[0] * value[1] > 400:
        raise ValueError("write [prompt bins, output bins], like [4, 3], at most 400 cells in all")
    return value


def _check_windows(value: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if value is None or value == "auto" or (whole and 1 <= value <= MOST_WINDOWS):
        return value
    raise ValueError(f"write a whole number from 1 to {MOST_WINDOWS}, or auto")


def one_of(choices: tuple[str, ...]) -> Any:
    """A word out of a list, with a near name where it is misspelt."""

    def check(value: str) -> str:
        if value not in choices:
            raise ValueError(near(value, choices))
        return value

    return Annotated[str, AfterValidator(check), Field(json_schema_extra={"enum": list(choices)})]


Name = Annotated[str, AfterValidator(_check_name)]


class PoolEntry(Strict):
    """Nodes of one accelerator in one place."""

    name: Name
    accelerator: Annotated[str, AfterValidator(_check_accelerator)]
    nodes: int = Field(ge=1, le=100_000)
    devices_per_node: int = Field(ge=1, le=1024)
    network: quantity("bytes_per_s") | None = None
    "Per node, one direction; from the accelerator's profile when absent."
    price: quantity("usd_per_h") | None = None
    "Per device."
    hosts: list[Annotated[str, AfterValidator(_check_host)]] | None = None
    "One address a node."

    @model_validator(mode="after")
    def _check_together(self) -> PoolEntry:
        problems = []
        if self.hosts is not None and len(self.hosts) != self.nodes:
            problems.append(
                Problem("", "hosts", f"{len(self.hosts)} hosts", f"give one for each of {self.nodes} nodes")
            )
        if self.price is None and not accelerator(self.accelerator).price_usd_per_h:
            what = f"nobody publishes one for {self.accelerator}"
            remedy = "add it, like 1.30 USD/h; on the command line h100:1x8@1.30"
            problems.append(Problem("", "price", what, remedy))
        if problems:
            raise Nested(problems)
        return self


class ClusterEntry(Strict):
    """What the operator has."""

    pools: list[PoolEntry] = Field(min_length=1)


class DeploymentEntry(Strict):
    """A model to serve."""

    name: Name
    model: Annotated[str, AfterValidator(_check_model)]
    "A shipped name, or a path to a Hugging Face config.json."
    trace: Annotated[str, AfterValidator(_check_trace)]
    "A shipped name, or a path."
    slo: Annotated[dict[str, float], BeforeValidator(_check_slo)]
    precision: one_of(tuple(PRECISIONS)) | None = None
    "Of the weights; the checkpoint's own when absent."
    kv_dtype: one_of(KV_FORMATS) = "auto"
    rate_scale: float | None = Field(default=None, gt=0)
    rate: quantity("req_per_s") | None = None
    "Mean rate wanted, instead of rate_scale."
    max_model_len: int | None = Field(default=None, ge=1)
    roles: Annotated[list[str], AfterValidator(_check_roles)] = Field(default_factory=lambda: list(ROLES))
    prefix_caching: bool = True
    cells: Annotated[list[int], AfterValidator(_check_cells)] | None = None
    windows: Annotated[int | Literal["auto"] | None, BeforeValidator(_check_windows)] = None

    @model_validator(mode="after")
    def _check_together(self) -> DeploymentEntry:
        problems = tuple(_find_deployment_problems(self))
        if problems:
            raise Nested(problems)
        return self


def _find_deployment_problems(entry: DeploymentEntry) -> Iterator[Problem]:
    if entry.rate is not None and entry.rate_scale is not None:
        yield Problem("", "rate", "given beside rate_scale", "keep one of them")
    most, longest = model(entry.model).max_context_tokens, longest_request_tokens(cached_trace(entry.trace))
    if entry.max_model_len is not None and entry.max_model_len > most:
        yield Problem("", "max_model_len", str(entry.max_model_len), f"the model reads at most {most} tokens")
    limit = min(entry.max_model_len or most, most)
    if longest > limit:
        remedy = f"the longest request of {entry.trace} has {longest} tokens; choose shorter ones"
        field = "max_model_len" if entry.max_model_len and entry.max_model_len < longest <= most else "trace"
        yield Problem("", field, f"at most {limit} tokens fit", remedy)


def longest_request_tokens(requests: Trace) -> int:
    """Prompt and answer of the longest request together."""
    return int((requests.isl_tokens + requests.osl_tokens).max())


class OptionsEntry(Strict):
    """How to solve."""

    confidence: Annotated[float | None, BeforeValidator(_check_confidence)] = 0.8
    gap: Annotated[float, BeforeValidator(_check_gap)] = 0.005
    time_limit: quantity("s") = 60.0
    cross_vendor_kv: bool = False
    simplicity: quantity("usd_per_h", positive=False) = 0.05
    "Price of each distinct kind of instance used."
    engine: one_of(("vllm",)) = "vllm"
    seed: int = Field(default=0, ge=0)


class CapacityFile(Strict):
    """The whole file."""

    format: one_of((FORMAT,))
    cluster: ClusterEntry
    deployments: list[DeploymentEntry] = Field(min_length=1)
    objective: one_of(OBJECTIVES) = "least-cost"
    options: OptionsEntry = OptionsEntry()


def find_duplicates(document: Mapping[str, Any], file: str) -> Iterator[Problem]:
    """Names and hosts given twice; looks at the raw document, so that it works beside other problems."""
    cluster = document.get("cluster")
    pools = cluster.get("pools") if isinstance(cluster, Mapping) else None
    for field, entries in (("cluster.pools", pools), ("deployments", document.get("deployments"))):
        seen: set[str] = set()
        for index, entry in enumerate(entries if isinstance(entries, list) else ()):
            name = entry.get("name") if isinstance(entry, Mapping) else None
            if isinstance(name, str) and name in seen:
                yield Problem(
                    file, f"{field}[{index}].name", repr(name), "is used twice; choose another name"
                )
            seen.add(str(name))
    yield from _find_shared_hosts(pools, file)


def _find_shared_hosts(pools: Any, file: str) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, entry in enumerate(pools if isinstance(pools, list) else ()):
        hosts = entry.get("hosts") if isinstance(entry, Mapping) else None
        for host in hosts if isinstance(hosts, list) else ():
            if str(host) in seen:
                yield Problem(
                    file, f"cluster.pools[{index}].hosts", str(host), "stands twice; a node is in one pool"
                )
            seen.add(str(host))
