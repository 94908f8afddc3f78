"""The YAML beside a trace: what it is, where it comes from, how to read it.

    data: monday.csv.gz
    format: plain-csv
    duration: 1 h
    columns: {arrival: t, isl: prompt, osl: answer, session: conversation}

Everything is optional beside a data file. Unknown keys are refused, all problems at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moai_planner.catalog.trace_formats.requests import Options
from moai_planner.catalog.yaml_file import read_yaml, unknown_key
from moai_planner.domain import units
from moai_planner.domain.errors import InputError, Problem

FACTS = ("title", "licence", "attribution", "url", "date", "requests", "notes")
"Keys for people; carried, not interpreted."
KEYS = (
    "name",
    "source",
    "data",
    "format",
    "duration",
    "block_tokens",
    "time_unit",
    "columns",
    "sample",
    *FACTS,
)
SAMPLE_KEYS = ("start", "duration", "seed")
COLUMN_KEYS = ("arrival", "isl", "osl", "session")
FORMAT_NAMES = (
    "moai-requests",
    "moai-clients",
    "azure-csv",
    "burstgpt-csv",
    "plain-csv",
    "mooncake-jsonl",
    "bailian-jsonl",
    "servegen-clients",
    "vllm-bench",
)


def describe(path: Path) -> tuple[str, Options]:
    """Name and reading options from a description; InputError with all problems."""
    value = read_yaml(path)
    problems = _unknown_keys(path, value, KEYS, "")
    options = Options(
        format=_choice(path, value, problems),
        source=str(value.get("attribution") or value.get("source") or ""),
        duration_s=_seconds(path, value, "duration", problems),
        block_tokens=_block_tokens(path, value, problems),
        time_unit_s=_seconds(path, value, "time_unit", problems),
        columns=_columns(path, value, problems),
        **_sample(path, value, problems),
    )
    name = value.get("name", "")
    if not isinstance(name, str):
        problems.append(Problem(str(path), "name", str(name), "write text"))
    if problems:
        raise InputError(problems)
    return name, options


def _unknown_keys(path: Path, value: Mapping, known: tuple[str, ...], prefix: str) -> list[Problem]:
    return [unknown_key(str(path), f"{prefix}{key}", str(key), known) for key in value if key not in known]


def _choice(path: Path, value: Mapping, problems: list[Problem]) -> str:
    name = value.get("format", "")
    if name and name not in FORMAT_NAMES:
        problems.append(Problem(str(path), "format", str(name), f"one of {', '.join(FORMAT_NAMES)}"))
    return str(name)


def _seconds(
    path: Path,
    value: Mapping,
    key: str,
    problems: list[Problem],
    prefix: str = "",
    zero_allowed: bool = False,
) -> float | None:
    if value.get(key) is None:
        return None
    try:
        seconds = units.parse(value[key], "s")
    except units.UnitError as error:
        problems.append(Problem(str(path), prefix + key, str(value[key]), str(error)))
        return None
    if seconds == 0 and not zero_allowed:
        problems.append(Problem(str(path), prefix + key, str(value[key]), "give a time above zero"))
        return None
    return seconds


def _block_tokens(path: Path, value: Mapping, problems: list[Problem]) -> int | None:
    size = value.get("block_tokens")
    if size is None:
        return None
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        problems.append(Problem(str(path), "block_tokens", str(size), "write a whole number, 1 or more"))
        return None
    return size


def _columns(path: Path, value: Mapping, problems: list[Problem]) -> Mapping[str, str]:
    columns = value.get("columns") or {}
    if not isinstance(columns, Mapping):
        problems.append(Problem(str(path), "columns", str(columns), "write arrival: name-in-the-file lines"))
        return {}
    problems += _unknown_keys(path, columns, COLUMN_KEYS, "columns.")
    return {str(ours): str(theirs) for ours, theirs in columns.items()}


def _sample(path: Path, value: Mapping, problems: list[Problem]) -> dict[str, Any]:
    sample = value.get("sample") or {}
    if not isinstance(sample, Mapping):
        problems.append(Problem(str(path), "sample", str(sample), "write start, duration and seed under it"))
        return {}
    problems += _unknown_keys(path, sample, SAMPLE_KEYS, "sample.")
    seed = sample.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        problems.append(Problem(str(path), "sample.seed", str(seed), "write a whole number, zero or more"))
        seed = 0
    return {
        "sample_start_s": _seconds(path, sample, "start", problems, "sample.", zero_allowed=True),
        "sample_duration_s": _seconds(path, sample, "duration", problems, "sample."),
        "sample_seed": seed,
    }
