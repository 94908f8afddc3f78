"""`capacity.yaml`, or the same as flags → CapacityRequest: resolved, checked, with what was assumed.

    request = read_capacity(Path("capacity.yaml"))
    request = capacity_from_flags("openai/gpt-oss-120b", "h100:1x8,mi300x:2x8", "azure_2023_conv",
                                  "ttft_p95<=2s,tpot_p95<=40ms")

Prices, networks and hosts that the user left out come from the accelerator's profile or are invented;
each is listed in `assumptions`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from moai_planner.catalog.accelerators import FOLDER, SHORT_NAMES, accelerator, accelerator_ids
from moai_planner.catalog.capacity_file import (
    CapacityFile,
    DeploymentEntry,
    OptionsEntry,
    PoolEntry,
    cached_trace,
    find_duplicates,
    longest_request_tokens,
)
from moai_planner.catalog.capacity_flags import document_from_flags
from moai_planner.catalog.models import model, model_names, shipped_path
from moai_planner.catalog.paths import data_root
from moai_planner.catalog.profiled_models import profiled_file
from moai_planner.catalog.traces import trace_files, trace_names
from moai_planner.catalog.validation import validate
from moai_planner.catalog.workload import DEFAULT_CELLS, summarise
from moai_planner.catalog.yaml_file import read_yaml
from moai_planner.domain import units
from moai_planner.domain.cluster import CapacityRequest, Deployment, Options, Pool
from moai_planner.domain.errors import InputError
from moai_planner.domain.model import Model
from moai_planner.domain.precision import precision
from moai_planner.domain.slo import Slo, objective

CONTEXT_STEP_TOKENS = 1024
"""A context window that nobody asked for is the trace's longest request, rounded up to this."""

FLAGS = "command line"
"""What problems call the flags."""


def read_capacity(path: Path | str) -> CapacityRequest:
    """A capacity file, resolved. InputError with every problem at once."""
    path = Path(path)
    document = read_yaml(path)
    return _request(document, str(path), path.parent, (path,))


def capacity_from_flags(
    model: str,
    cluster: str,
    trace: str,
    slo: str,
    *,
    deployment: Mapping[str, Any] | None = None,
    objective: str = "least-cost",
    options: Mapping[str, Any] | None = None,
) -> CapacityRequest:
    """One deployment from flags. `cluster`: `h100:1x8,mi300x:2x8@1.30`, or a YAML file with pools.

    `deployment` and `options` hold further keys of `capacity.yaml` (rate, rate_scale, precision …;
    confidence, gap …); None values count as absent.
    """
    document, read = document_from_flags(
        model, cluster, trace, slo, deployment or {}, objective, options or {}
    )
    return _request(document, FLAGS, None, read)


def _request(
    document: Mapping[str, Any], file: str, folder: Path | None, read: Iterable[Path]
) -> CapacityRequest:
    entry = _check(document, file, folder)
    pools = tuple(_pool(pool, number) for number, pool in enumerate(entry.cluster.pools))
    deployments = tuple(_deployment(each) for each in entry.deployments)
    return CapacityRequest(
        pools=pools,
        deployments=deployments,
        objective=entry.objective,
        options=_options(entry.options),
        inputs=tuple(_digests(entry, read)),
        assumptions=tuple(_assumptions(entry, pools, deployments)),
    )


def _check(document: Mapping[str, Any], file: str, folder: Path | None) -> CapacityFile:
    problems = list(find_duplicates(document, file))
    try:
        entry = validate(CapacityFile, document, file, context={"folder": folder})
    except InputError as error:
        problems = [*error.problems, *problems]
    if problems:
        raise InputError(dict.fromkeys(problems))
    return entry


def _pool(entry: PoolEntry, number: int) -> Pool:
    device = accelerator(entry.accelerator)
    absent = tuple(name for name in ("network", "price", "hosts") if getattr(entry, name) is None)
    return Pool(
        name=entry.name,
        accelerator=device,
        nodes=entry.nodes,
        devices_per_node=entry.devices_per_node,
        network_bytes_per_s=entry.network or device.scale_out_bytes_per_s * entry.devices_per_node,
        price_usd_per_h=entry.price or device.price_usd_per_h,
        hosts=tuple(entry.hosts) if entry.hosts else _invented_hosts(number, entry.nodes),
        assumed=absent,
    )


def _invented_hosts(pool: int, nodes: int) -> tuple[str, ...]:
    """`10.<high>.<pool>.<n>`, a private range; 250 nodes before the second number counts up.

    >>> _invented_hosts(1, 2)
    ('10.0.1.1', '10.0.1.2')
    """
    return tuple(f"10.{node // 250}.{pool}.{node % 250 + 1}" for node in range(nodes))


def _deployment(entry: DeploymentEntry) -> Deployment:
    served, requests = model(entry.model), replace(cached_trace(entry.trace), name=entry.trace)
    scale = entry.rate_scale or 1.0
    if entry.rate is not None:
        scale = entry.rate / requests.rate_req_per_s
    formats = precision(entry.precision or served.native_precision)
    return Deployment(
        name=entry.name,
        model=served,
        precision=formats if entry.kv_dtype == "auto" else formats.with_kv(entry.kv_dtype),
        trace=requests,
        workload=summarise(
            requests,
            scale,
            cells=tuple(entry.cells) if entry.cells else DEFAULT_CELLS,
            windows=entry.windows,
        ),
        rate_scale=scale,
        slo=Slo(tuple(objective(key, limit) for key, limit in entry.slo.items())),
        max_model_len=entry.max_model_len or _context_tokens(entry, served),
        prefix_caching=entry.prefix_caching,
        roles=tuple(entry.roles),
    )


def _context_tokens(entry: DeploymentEntry, served: Model) -> int:
    longest = longest_request_tokens(cached_trace(entry.trace))
    return min(-(-longest // CONTEXT_STEP_TOKENS) * CONTEXT_STEP_TOKENS, served.max_context_tokens)


def _options(entry: OptionsEntry) -> Options:
    return Options(
        confidence=entry.confidence,
        gap_frac=entry.gap,
        time_limit_s=entry.time_limit,
        cross_vendor_kv=entry.cross_vendor_kv,
        simplicity_usd_per_h=entry.simplicity,
        engine=entry.engine,
        seed=entry.seed,
    )


def _assumptions(
    entry: CapacityFile, pools: tuple[Pool, ...], deployments: tuple[Deployment, ...]
) -> Iterator[str]:
    for pool in pools:
        device = pool.accelerator
        if "price" in pool.assumed:
            source = device.sources["price_usd_per_h"]
            price = units.show(pool.price_usd_per_h, "usd_per_h", 4)
            origin = f"{source.title}: {source.where}, {source.date}"
            yield f"pool {pool.name}: price {price} per device ({origin})"
        if "network" in pool.assumed:
            rate = units.show(pool.network_bytes_per_s, "bytes_per_s")
            yield f"pool {pool.name}: network {rate} per node, from the profile of {device.id}"
        if "hosts" in pool.assumed:
            yield f"pool {pool.name}: host addresses are invented ({pool.hosts[0]} …); replace them"
        if device.confidence == "low":
            yield f"accelerator {device.id}: low confidence, announced or assumed numbers"
    for written, deployment in zip(entry.deployments, deployments, strict=True):
        if deployment.model.read_as:
            sizes = f"{deployment.model.id} has the sizes of {deployment.model.read_as}"
            yield f"deployment {deployment.name}: {sizes}"
        if written.precision is None:
            yield f"deployment {deployment.name}: precision {deployment.precision.id}, as its checkpoint"
        if written.max_model_len is None:
            yield (
                f"deployment {deployment.name}: max_model_len {deployment.max_model_len}, "
                f"from the longest request of {written.trace}"
            )
        if written.kv_dtype == "auto":
            yield f"deployment {deployment.name}: KV cache in {deployment.precision.kv}"


def _digests(entry: CapacityFile, read: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """(name, sha256) of every file that decided the request, each once."""
    named = {str(path): path for path in read}
    for pool in entry.cluster.pools:
        device = accelerator(pool.accelerator).id
        if pool.accelerator in (*SHORT_NAMES, *accelerator_ids()):
            named[f"{FOLDER}/{device}.yaml"] = data_root() / FOLDER / f"{device}.yaml"
        else:
            named[pool.accelerator] = Path(pool.accelerator)
    for deployment in entry.deployments:
        served = model(deployment.model)
        named |= _model_files(served.read_as or served.id) | _trace_files(deployment.trace)
    for name, path in named.items():
        yield name, hashlib.sha256(path.read_bytes()).hexdigest()


def _model_files(model_id: str) -> dict[str, Path]:
    if model_id in model_names():
        return {f"models/{model_id}": shipped_path(model_id)}
    path = Path(model_id)
    path = path / "config.json" if path.is_dir() else path
    measured = None if path.exists() else profiled_file(model_id)
    if measured:
        return {str(measured.relative_to(data_root())): measured}
    return {str(path): path}


def _trace_files(reference: str) -> dict[str, Path]:
    shipped = reference in trace_names()
    return {f"workload_traces/{path.name}" if shipped else str(path): path for path in trace_files(reference)}
