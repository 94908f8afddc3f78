"""Plain CSV with a header: arrival, prompt length, output length, and perhaps a conversation.

    arrival_s,isl,osl,session
    0.0,512,64,a

Known names, in any case and order: arrival_s, arrival, timestamp, time; isl, input_tokens,
input_length, prompt_tokens; osl, output_tokens, output_length, generated_tokens, completion_tokens;
session, session_id, conversation_id. Others are named under `columns` in a YAML beside the file. Times
are numbers in seconds (`time_unit` for others) or dates.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from moai_planner.catalog.trace_formats.requests import Source, build, refuse
from moai_planner.catalog.trace_formats.table import first_cell, header_of, is_number, read_columns
from moai_planner.domain.errors import Problem
from moai_planner.domain.workload import Trace

NAME = "plain-csv"
NAMES: Mapping[str, tuple[str, ...]] = {
    "arrival": ("arrival_s", "arrival", "arrival_time_s", "arrival_time", "timestamp", "time_s", "time"),
    "isl": ("isl", "isl_tokens", "input_tokens", "input_length", "prompt_tokens", "num_prefill_tokens"),
    "osl": (
        "osl",
        "osl_tokens",
        "output_tokens",
        "output_length",
        "generated_tokens",
        "completion_tokens",
        "num_decode_tokens",
    ),
    "session": ("session", "session_id", "conversation_id"),
}
NEEDED = ("arrival", "isl", "osl")


def recognises(head: str) -> bool:
    """A comma-separated header with at least one length that we know."""
    found = _known_columns(header_of(head))
    return "isl" in found or "osl" in found


def read(source: Source) -> Trace:
    """Find the columns, then read them."""
    head = source.content.split(b"\n", 1)[0].decode("utf-8-sig", errors="replace")
    header = header_of(head)
    places = _known_columns(header) | dict(source.options.columns)
    _check_places(source, header, places)
    dated = not is_number(first_cell(source, header, places["arrival"]))
    numbers = {name: places[name] for name in ("isl", "osl")}
    times, labels = {}, {}
    if dated:
        times = {"arrival": places["arrival"]}
    else:
        numbers["arrival"] = places["arrival"]
    if "session" in places:
        labels = {"session": places["session"]}
    columns, lines = read_columns(source, numbers, times, labels)
    unit_s = 1.0 if dated else source.options.time_unit_s or 1.0
    return build(
        source,
        columns["arrival"] * unit_s,
        columns["isl"],
        columns["osl"],
        lines,
        session_ids=columns["session"].astype(np.int64) if labels else None,
    )


def _known_columns(header: tuple[str, ...]) -> dict[str, str]:
    spelled = {name.lower().replace(" ", "_"): name for name in reversed(header)}
    found = {}
    for ours, known in NAMES.items():
        match = next((spelled[name] for name in known if name in spelled), None)
        if match is not None:
            found[ours] = match
    return found


def _check_places(source: Source, header: tuple[str, ...], places: Mapping[str, str]) -> None:
    problems = []
    for ours in NEEDED:
        if ours not in places:
            remedy = f"name it {NAMES[ours][0]}, or say columns: {{{ours}: name}} in a YAML beside the file"
            problems.append(Problem(source.file, "header", f"no column for {ours}", remedy))
    for ours, theirs in places.items():
        if theirs not in header:
            remedy = f"the columns are {', '.join(header)}"
            problems.append(Problem(source.file, f"columns.{ours}", theirs, remedy))
    if problems:
        refuse(source.file, problems)
