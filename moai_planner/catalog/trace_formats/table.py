"""Comma-separated columns, fast: the C parser first, a patient look at each line only when it objects.

    columns, lines = read_columns(source, {"isl": "ContextTokens"}, times=("TIMESTAMP",))

A million rows take about a second. When a cell is not a number the file is read again line by line,
so that the problem names the line as an editor counts it.
"""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Mapping

import numpy as np
import pandas as pd

from moai_planner.catalog.trace_formats.requests import Source, refuse
from moai_planner.domain import units
from moai_planner.domain.errors import Problem

NANOSECONDS_PER_S = 1 / units.NANO


def header_of(head: str) -> tuple[str, ...]:
    """Names in the first line, stripped; empty when the line is not a header."""
    first_line = head.lstrip("\ufeff").split("\n", 1)[0].strip("\r")
    return tuple(name.strip().strip('"') for name in first_line.split(","))


def read_columns(
    source: Source, numbers: Mapping[str, str], times: Mapping[str, str] | None = None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Our name → float array for each column asked for, and the line number of each row.

    `numbers` and `times` map our names to the file's; times are dates and become seconds after the first.
    """
    times = times or {}
    text = source.content.decode("utf-8-sig", errors="replace")
    header = header_of(text[: text.find("\n")] if "\n" in text else text)
    places = {ours: header.index(theirs) for ours, theirs in {**numbers, **times}.items()}
    try:
        columns = _parse_fast(
            text, len(header), {n: places[n] for n in numbers}, {n: places[n] for n in times}
        )
        lines = np.arange(2, 2 + len(next(iter(columns.values()))))
        clean = all(np.isfinite(values).all() for values in columns.values())
    except (ValueError, pd.errors.ParserError, pd.errors.ParserWarning):
        clean = False
    if not clean:
        columns, lines = _parse_patiently(source, text, len(header), places, tuple(times))
    return columns, lines


def _parse_fast(
    text: str, width: int, numbers: Mapping[str, int], times: Mapping[str, int]
) -> dict[str, np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frame = pd.read_csv(
            io.StringIO(text),
            header=0,
            names=range(width),
            index_col=False,
            usecols=sorted({*numbers.values(), *times.values()}),
            dtype={**dict.fromkeys(numbers.values(), float), **dict.fromkeys(times.values(), str)},
            skip_blank_lines=False,
            engine="c",
            na_values=[],
        )
    columns = {name: frame[place].to_numpy(float) for name, place in numbers.items()}
    for name, place in times.items():
        columns[name] = _seconds(pd.to_datetime(frame[place], format="ISO8601", utc=True))
    return columns


def _seconds(moments: pd.Series) -> np.ndarray:
    """Dates → seconds after the first; NaN for no date. Subtracting before dividing keeps every digit."""
    nanoseconds = moments.to_numpy("datetime64[ns]")
    missing = np.isnat(nanoseconds)
    if missing.all():
        return np.full(len(nanoseconds), np.nan)
    since = (nanoseconds - nanoseconds[~missing].min()).astype(np.int64)
    return np.where(missing, np.nan, since / NANOSECONDS_PER_S)


def _parse_patiently(
    source: Source, text: str, width: int, places: Mapping[str, int], times: tuple[str, ...]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Read line by line; blank lines are skipped, every other line must hold what the header promises."""
    problems: list[Problem] = []
    cells: dict[str, list[str]] = {name: [] for name in places}
    lines: list[int] = []
    for number, line in enumerate(text.splitlines()[1:], start=2):
        if not line.strip():
            continue
        row = next(csv.reader([line]))
        if len(row) != width:
            remedy = f"give {width} fields, as in the header; there are {len(row)}"
            problems.append(Problem(source.file, f"line {number}", _short(line), remedy))
            continue
        wrong = [n for n in places if n not in times and not _is_number(row[places[n]])]
        problems += [
            Problem(source.file, f"line {number}, {name}", _short(row[places[name]]), "write a number")
            for name in wrong
        ]
        if not wrong:
            lines.append(number)
            for name, place in places.items():
                cells[name].append(row[place])
    columns = {name: np.array(cells[name], dtype=float) for name in places if name not in times}
    for name in times:
        moments = pd.to_datetime(
            pd.Series(cells[name], dtype=str), format="ISO8601", utc=True, errors="coerce"
        )
        columns[name] = _seconds(moments) if cells[name] else np.zeros(0)
        problems += [
            Problem(
                source.file,
                f"line {lines[at]}, time",
                _short(cells[name][at]),
                "write 2023-11-16 18:17:03.97",
            )
            for at in np.flatnonzero(np.isnan(columns[name]))
        ]
    if problems:
        refuse(source.file, problems)
    return columns, np.array(lines, dtype=np.int64)


def _is_number(text: str) -> bool:
    try:
        return np.isfinite(float(text))
    except ValueError:
        return False


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
