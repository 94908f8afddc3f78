"""A trace by name or path → Trace.

    trace("azure_2023_conv")            # shipped in workload_traces/
    trace("logs/monday.csv.gz")         # any known format, found out from the content
    trace("logs/monday.yaml")           # or described: {data: monday.csv.gz, format: plain-csv, …}

A YAML beside the data (`monday.csv.gz.yaml` or `monday.yaml`) is read as well and overrides what was
found out. Facts of a shipped trace: `trace_facts(name)`.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from moai_planner.catalog.paths import data_root
from moai_planner.catalog.trace_description import describe
from moai_planner.catalog.trace_formats import (
    azure,
    bailian,
    burstgpt,
    clients_file,
    mooncake,
    plain,
    servegen,
    shipped,
    vllm_bench,
)
from moai_planner.catalog.trace_formats.requests import Options, Source
from moai_planner.catalog.yaml_file import near, read_yaml
from moai_planner.domain.errors import InputError, Problem
from moai_planner.domain.workload import Trace

FORMATS = (
    shipped,
    clients_file,
    azure,
    burstgpt,
    bailian,
    mooncake,
    servegen,
    vllm_bench,
    plain,
)
"Tried in this order; the first that recognises the head of the file reads it."

GZIP_MAGIC = b"\x1f\x8b"
HEAD_CHARACTERS = 4096


def trace_names() -> tuple[str, ...]:
    """Traces that ship with the package, in alphabetical order."""
    return tuple(sorted(path.stem for path in _shipped_folder().glob("*.yaml")))


def trace_facts(name: str) -> Mapping[str, Any]:
    """The YAML of a shipped trace: title, source, licence, attribution, requests, duration, notes."""
    return read_yaml(_shipped_folder() / f"{name}.yaml")


def trace(reference: str, file: str = "", field: str = "trace", seed: int | None = None) -> Trace:
    """Read a shipped trace or a file. InputError names what is wrong, line by line.

    `file` and `field` say where the reference stood. `seed` replaces the one of a sampled trace.
    """
    path = _find(reference, file or "trace", field if file else "")
    yaml_path, data_path = _yaml_and_data(path)
    name, options = describe(yaml_path) if yaml_path else ("", Options())
    if seed is not None:
        options = replace(options, sample_seed=seed)
    source = Source(name or _stem(data_path), str(data_path), _content(data_path), options)
    return _format_of(source).read(source)


def trace_files(reference: str) -> tuple[Path, ...]:
    """The files that decide what `trace(reference)` is: the data, and the description where there is one."""
    yaml_path, data_path = _yaml_and_data(_find(reference, "trace", ""))
    return (data_path,) if yaml_path is None else (yaml_path, data_path)


def _find(reference: str, file: str, field: str) -> Path:
    if reference in trace_names():
        return _shipped_folder() / f"{reference}.yaml"
    # os.path answers no where pathlib raises: names too long, NUL bytes, unknown users.
    path = Path(os.path.expanduser(reference))
    if os.path.isfile(path):
        return path
    if reference and os.path.isdir(path):
        raise InputError(Problem(file, field, reference, "give a file; this is a directory"))
    remedy = f"give a path or a shipped name; {near(reference, trace_names())}"
    raise InputError(Problem(file, field, reference or "empty", remedy))


def _yaml_and_data(path: Path) -> tuple[Path | None, Path]:
    if path.suffix in (".yaml", ".yml"):
        named = read_yaml(path).get("data")
        if not isinstance(named, str) or not named:
            raise InputError(Problem(str(path), "data", "", "name the trace file, relative to this one"))
        data_path = path.parent / named
        if not os.path.isfile(data_path):
            raise InputError(
                Problem(str(path), "data", named, "name a file that exists, relative to this one")
            )
        return path, data_path
    beside = (path.with_name(path.name + ".yaml"), path.with_name(_stem(path) + ".yaml"))
    return next((candidate for candidate in beside if candidate.is_file()), None), path


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        if content.startswith(GZIP_MAGIC):
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            Problem(str(path), "", reason, "give a readable file, whole if it is a .gz")
        ) from error
    if not content.strip():
        raise InputError(Problem(str(path), "", "empty file", "give a file with at least one request"))
    return content


def _format_of(source: Source):
    wanted = source.options.format
    if wanted:
        return next(module for module in FORMATS if wanted == module.NAME)
    head = source.content[:HEAD_CHARACTERS].decode("utf-8", errors="replace")
    found = next((module for module in FORMATS if module.recognises(head)), None)
    if found is None:
        names = ", ".join(module.NAME for module in FORMATS)
        line = head.split("\n", 1)[0][:60]
        remedy = f"no known trace format begins like this; known: {names} (see docs/traces.md)"
        raise InputError(Problem(source.file, "line 1", repr(line), remedy))
    return found


def _stem(path: Path) -> str:
    name = path.name.removesuffix(".gz")
    return name.rsplit(".", 1)[0] if "." in name else name


def _shipped_folder() -> Path:
    return data_root() / "workload_traces"
