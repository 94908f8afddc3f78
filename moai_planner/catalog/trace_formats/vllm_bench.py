"""The result of `vllm bench serve --save-result --save-detailed`: the requests it sent, as it sent them.

    {"duration": 30.9, "input_lens": [512, …], "output_lens": [64, …], "start_times": [81.2, …], …}

`output_lens` are the tokens that came back; a failed request has none and is set aside.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from moai_planner.catalog.trace_formats.json_lines import is_number
from moai_planner.catalog.trace_formats.requests import Source, build, refuse
from moai_planner.domain.errors import Problem
from moai_planner.domain.workload import Trace

NAME = "vllm-bench"
KEYS = ("start_times", "input_lens", "output_lens")
REMEDY = "save the run with --save-result --save-detailed"


def recognises(head: str) -> bool:
    """One JSON object that says what a benchmark run was."""
    start = head.lstrip("\ufeff \r\n\t")
    return start.startswith("{") and any(
        f'"{key}"' in head for key in ("endpoint_type", "num_prompts", *KEYS)
    )


def read(source: Source) -> Trace:
    """Lists by request; element i is request i, named as such when wrong."""
    try:
        result = json.loads(source.content)
    except (ValueError, RecursionError) as error:
        line = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        refuse(source.file, [Problem(source.file, line, str(error), "give the whole JSON file of one run")])
    if not isinstance(result, dict):
        refuse(
            source.file, [Problem(source.file, "", type(result).__name__, "give the JSON object of one run")]
        )
    columns = _columns(source, result)
    duration = result.get("duration")
    return build(
        source,
        columns["start_times"],
        columns["input_lens"],
        columns["output_lens"],
        np.arange(1, len(columns["start_times"]) + 1),
        line_word="request",
        fallback_duration_s=float(duration) if is_number(duration) and 0 < duration < float("inf") else None,
    )


def _columns(source: Source, result: dict[str, Any]) -> dict[str, np.ndarray]:
    problems = []
    for key in KEYS:
        values = result.get(key)
        if not isinstance(values, list):
            problems.append(Problem(source.file, key, "missing", REMEDY))
            continue
        problems += [
            Problem(source.file, f"{key}[{at}]", repr(value)[:60], "write a number")
            for at, value in enumerate(values)
            if not is_number(value)
        ]
    if not problems and len({len(result[key]) for key in KEYS}) > 1:
        counts = ", ".join(f"{key} {len(result[key])}" for key in KEYS)
        problems.append(Problem(source.file, "lists of unequal length", counts, "give one value a request"))
    if problems:
        refuse(source.file, problems)
    return {key: np.array(result[key], dtype=float) for key in KEYS}
