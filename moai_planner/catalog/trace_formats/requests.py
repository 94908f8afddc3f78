"""What every reader shares: the file as it was given, and the way from raw columns to a Trace.

    source = Source(name="chat", file="chat.csv", content=b"...", options=Options())
    trace = build(source, arrival_s, isl_tokens, osl_tokens, line_numbers)

`build` refuses what cannot be a request (negative, NaN, fractional lengths: each with its line), sets
aside requests that ask for or produced nothing, sorts by arrival and counts all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NoReturn

import numpy as np

from moai_planner.catalog.trace_part import take
from moai_planner.domain import units
from moai_planner.domain.errors import InputError, Problem
from moai_planner.domain.workload import Trace

SHOWN_PROBLEMS = 20
LONGEST_TOKENS = 100 * units.MEGA
"A length above this is a mistake, not a prompt."
LATEST_S = units.PETA * units.MEGA
"A time above this is a mistake; nanoseconds since 1970 read as seconds stay below."


@dataclass(frozen=True)
class Options:
    """What a YAML beside the data may settle."""

    format: str = ""
    source: str = ""
    duration_s: float | None = None
    block_tokens: int | None = None
    time_unit_s: float | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    sample_start_s: float | None = None
    sample_duration_s: float | None = None
    sample_seed: int = 0


@dataclass(frozen=True)
class Source:
    """One trace file in memory, unpacked."""

    name: str
    file: str
    content: bytes
    options: Options = Options()


def refuse(file: str, problems: Iterable[Problem]) -> NoReturn:
    """Raise the first problems and say how many more there are."""
    problems = list(problems)
    shown = problems[:SHOWN_PROBLEMS]
    if len(problems) > len(shown):
        more = len(problems) - len(shown)
        shown.append(Problem(file, f"{more} more lines", "", "they are wrong as well; mend or remove them"))
    raise InputError(shown)


def build(
    source: Source,
    arrival_s: np.ndarray,
    isl_tokens: np.ndarray,
    osl_tokens: np.ndarray,
    lines: np.ndarray,
    *,
    block_hashes: np.ndarray | None = None,
    block_offsets: np.ndarray | None = None,
    block_tokens: int = 0,
    session_ids: np.ndarray | None = None,
    fallback_duration_s: float | None = None,
    fixed_span_s: float | None = None,
    left_out: tuple[tuple[str, int], ...] = (),
    line_word: str = "line",
) -> Trace:
    """Raw columns of one file → Trace. `lines` are the line numbers to name when something is wrong.

    Time is counted from the first arrival, unless the file covers a known span (`fixed_span_s`): then
    arrivals stay where they are in it.
    """
    if len(arrival_s) == 0:
        refuse(
            source.file, [Problem(source.file, "", "no requests", "give a file with at least one request")]
        )
    check_values(source, arrival_s, isl_tokens, osl_tokens, lines, line_word)
    raw = Trace(
        name=source.name,
        arrival_s=arrival_s,
        isl_tokens=isl_tokens.astype(np.int64),
        osl_tokens=osl_tokens.astype(np.int64),
        duration_s=0.0,
        block_hashes=block_hashes,
        block_offsets=block_offsets,
        block_tokens=block_tokens,
        session_ids=session_ids,
        source=source.options.source or source.file,
    )
    kept, set_aside = _set_aside_empty(raw)
    if len(kept) == 0:
        problem = Problem(
            source.file, "", "every request is empty", "give requests with a prompt and an output"
        )
        refuse(source.file, [problem])
    ordered, moved = _sort_by_arrival(kept)
    start_s = 0.0 if fixed_span_s else float(arrival_s.min())
    return replace(
        ordered,
        arrival_s=ordered.arrival_s - start_s,
        duration_s=fixed_span_s or _duration_s(source, arrival_s, start_s, fallback_duration_s),
        left_out=left_out + set_aside + moved,
    )


def check_values(
    source: Source,
    arrival_s: np.ndarray,
    isl_tokens: np.ndarray,
    osl_tokens: np.ndarray,
    lines: np.ndarray,
    line_word: str = "line",
) -> None:
    """Refuse what no request can have: NaN, infinity, below zero, fractions of tokens, absurd sizes."""
    found: list[tuple[int, Problem]] = []
    columns = (("arrival", arrival_s), ("prompt length", isl_tokens), ("output length", osl_tokens))
    for what, values in columns:
        with np.errstate(invalid="ignore"):
            wrong = ~np.isfinite(values) | (values < 0)
            wrong |= values > (LATEST_S if what == "arrival" else LONGEST_TOKENS)
            if what != "arrival":
                wrong |= values != np.floor(values)
        remedy = (
            "a finite time, zero or more" if what == "arrival" else "a whole number of tokens, zero or more"
        )
        for at in np.flatnonzero(wrong):
            line = int(lines[at])
            found.append(
                (
                    line,
                    Problem(source.file, f"{line_word} {line}, {what}", f"{values[at]:g}", f"write {remedy}"),
                )
            )
    if found:
        refuse(source.file, [problem for _, problem in sorted(found, key=lambda pair: pair[0])])


def _set_aside_empty(raw: Trace) -> tuple[Trace, tuple[tuple[str, int], ...]]:
    no_prompt = raw.isl_tokens == 0
    no_output = (raw.osl_tokens == 0) & ~no_prompt
    counted = (
        ("prompt of zero tokens", int(no_prompt.sum())),
        ("output of zero tokens", int(no_output.sum())),
    )
    kept = raw if not (no_prompt.any() or no_output.any()) else take(raw, ~(no_prompt | no_output))
    return kept, tuple((reason, count) for reason, count in counted if count)


def _sort_by_arrival(raw: Trace) -> tuple[Trace, tuple[tuple[str, int], ...]]:
    late = int((np.diff(raw.arrival_s) < 0).sum())
    if not late:
        return raw, ()
    ordered = take(raw, np.argsort(raw.arrival_s, kind="stable"))
    return ordered, (("arrival before the line above: kept, sorted", late),)


def _duration_s(
    source: Source, arrival_s: np.ndarray, start_s: float, fallback_duration_s: float | None
) -> float:
    """The span the requests stand for: n gaps for n requests, one more than lie between them."""
    span_s = float(arrival_s.max()) - start_s
    given = source.options.duration_s
    if given is not None:
        if given < span_s or given <= 0:
            problem = Problem(
                source.file, "duration", f"{given:g} s", f"the requests span {span_s:g} s; give at least that"
            )
            refuse(source.file, [problem])
        return given
    if span_s > 0:
        return span_s * len(arrival_s) / (len(arrival_s) - 1)
    if fallback_duration_s:
        return fallback_duration_s
    problem = Problem(
        source.file,
        "arrivals",
        "all at one time",
        "say in a YAML beside the file how long it lasts (duration: 60 s)",
    )
    refuse(source.file, [problem])
