"""Flags as a `capacity.yaml` document, so that both go through the same checks.

>>> parse_slo("ttft_p95<=2s, tpot_p95<=40ms")
{'ttft_p95': '2s', 'tpot_p95': '40ms'}
>>> parse_pools("h100:1x8,mi308x:2x8@1.10")[1]
{'name': 'mi308x', 'accelerator': 'mi308x', 'nodes': 2, 'devices_per_node': 8, 'price': '1.10 USD/h'}
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from moai_planner.catalog.yaml_file import read_yaml
from moai_planner.domain.errors import InputError, Problem

_POOL = re.compile(r"(?P<accelerator>[^:@\s]+):(?P<nodes>\d+)x(?P<devices>\d+)(?:@(?P<price>[\d.]+))?\Z")
_PROMISE = re.compile(r"(?P<key>[^<>=\s]+)\s*(?:<=|<|=|≤)\s*(?P<limit>\S.*)\Z")


def document_from_flags(
    model: str,
    cluster: str,
    trace: str,
    slo: str,
    deployment: Mapping[str, Any],
    objective: str,
    options: Mapping[str, Any],
) -> tuple[dict[str, Any], tuple[Path, ...]]:
    """The document, and the files that were read for it."""
    problems: list[Problem] = []
    promises = _collect(problems, parse_slo, slo)
    pools = _collect(problems, read_pools, cluster)
    if problems:
        raise InputError(problems)
    entry = {"name": _short(model), "model": model, "trace": trace, "slo": promises, **_given(deployment)}
    document = {
        "format": "moai-capacity/1",
        "cluster": {"pools": pools},
        "deployments": [entry],
        "objective": objective,
        "options": _given(options),
    }
    return document, ((Path(cluster),) if _is_file(cluster) else ())


def parse_slo(text: str) -> dict[str, str]:
    """`ttft_p95<=2s,tpot_p95<=40ms` → the mapping of a capacity file."""
    limits, problems = {}, []
    for part in (each.strip() for each in text.split(",")):
        match = _PROMISE.match(part)
        if match is None:
            problems.append(Problem("--slo", "", repr(part), "write it like ttft_p95<=2s,tpot_p95<=40ms"))
        elif match["key"] in limits:
            problems.append(Problem("--slo", match["key"], "is given twice", "keep one of them"))
        else:
            limits[match["key"]] = match["limit"].strip()
    if problems:
        raise InputError(problems)
    return limits


def read_pools(cluster: str) -> list[Any]:
    """Pools in short form, or out of a YAML file with `pools` (or a whole capacity file)."""
    if not _is_file(cluster):
        return parse_pools(cluster)
    document = read_yaml(Path(cluster))
    inner = document.get("cluster") if isinstance(document.get("cluster"), Mapping) else document
    if not isinstance(inner.get("pools"), list):
        raise InputError(Problem(cluster, "pools", "is missing", "add a list of pools, as in capacity.yaml"))
    return inner["pools"]


def parse_pools(text: str) -> list[dict[str, Any]]:
    """`accelerator:NODESxDEVICES[@USD_PER_H]`, separated by commas."""
    pools, problems = [], []
    for part in (each.strip() for each in text.split(",")):
        match = _POOL.match(part)
        if match is None:
            remedy = "accelerator:NODESxDEVICES[@USD_PER_H], like h100:1x8,mi300x:2x8@1.30, or a YAML file"
            problems.append(Problem("--cluster", "", repr(part), remedy))
            continue
        known = {pool["name"] for pool in pools}
        pool = {
            "name": _unused(_short(match["accelerator"]), known),
            "accelerator": match["accelerator"],
            "nodes": int(match["nodes"]),
            "devices_per_node": int(match["devices"]),
        }
        pools.append(pool | ({"price": f"{match['price']} USD/h"} if match["price"] else {}))
    if problems:
        raise InputError(problems)
    return pools


def _collect(problems: list[Problem], read: Callable[[str], Any], text: str) -> Any:
    try:
        return read(text)
    except InputError as error:
        problems.extend(error.problems)
        return None


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _is_file(cluster: str) -> bool:
    return cluster.endswith((".yaml", ".yml", ".json")) or os.path.exists(cluster)


def _short(reference: str) -> str:
    """A name for what a reference points at: `openai/gpt-oss-120b` → `gpt-oss-120b`."""
    last = Path(reference.removesuffix("/config.json")).name
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", last).strip("-._")[:63] or "model"


def _unused(name: str, known: set[str]) -> str:
    number = 2
    candidate = name
    while candidate in known:
        candidate, number = f"{name}-{number}", number + 1
    return candidate
