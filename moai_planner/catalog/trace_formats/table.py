"""Comma-separated columns, fast: the C parser first, a patient look at each line only when it objects.

    columns, lines = read_columns(source, {"isl": "ContextTokens"}, times={"arrival": "TIMESTAMP"})

A million rows take about a second. When a cell is not a number the file is read again line by line,
so that the problem names the line as an editor counts it.
"""

from __future__ import annotations

import csv
import io
import math
import warnings
from collections.abc import Mapping

import numpy as np
import pandas as pd

from moai_planner.catalog.trace_formats.requests import Source, refuse
from moai_planner.domain import units
from moai_planner.domain.errors import Problem

NANOSECONDS_PER_S = 1 / units.NANO
LONGEST_SHOWN = 60

Columns = dict[str, np.ndarray]


def header_of(head: str) -> tuple[str, ...]:
    """The names in the first line, stripped."""
    first_line = head.lstrip("\ufeff").split("\n", 1)[0].strip("\r")
    return tuple(name.strip() for name in split_line(first_line))


def split_line(line: str) -> list[str]:
    """The fields of one line; none where it cannot be split."""
    try:
        return next(csv.reader([line.rstrip("\r\n")]), [])
    except csv.Error:
        return []


def first_cell(source: Source, header: tuple[str, ...], name: str) -> str:
    """The first value of a column, empty when there is none."""
    place = header.index(name)
    for line in io.BytesIO(source.content).readlines()[1:]:
        text = line.decode("utf-8", errors="replace")
        if text.strip():
            row = split_line(text)
            return row[place].strip() if place < len(row) else ""
    return ""


def is_number(text: str) -> bool:
    """A finite number in Python's spelling."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def read_columns(
    source: Source,
    numbers: Mapping[str, str],
    times: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> tuple[Columns, np.ndarray]:
    """Our name → array for each column asked for, and the line number of each row.

    `numbers`, `times` and `labels` map our names to the file's. Times are dates and become seconds after
    the earliest; labels are text and become numbers, equal where the text is equal.
    """
    times, labels = times or {}, labels or {}
    text = source.content.decode("utf-8-sig", errors="replace")
    header = header_of(text.split("\n", 1)[0])
    missing = [name for name in {**numbers, **times, **labels}.values() if name not in header]
    if missing:
        found = ", ".join(header)[:LONGEST_SHOWN]
        refuse(source.file, [Problem(source.file, "header", found, f"name a column {m}") for m in missing])
    places = {ours: header.index(theirs) for ours, theirs in {**numbers, **times, **labels}.items()}
    try:
        columns = _parse_fast(text, len(header), places, tuple(times), tuple(labels))
    except (ValueError, OverflowError, pd.errors.ParserError, pd.errors.ParserWarning):
        columns = None
    rows = 0 if columns is None else len(next(iter(columns.values())))
    # The C parser drops surplus fields without a word; the commas tell.
    even = text.count(",") == (len(header) - 1) * (rows + 1)
    if columns is None or not even or not all(np.isfinite(values).all() for values in columns.values()):
        return _parse_patiently(source, text, len(header), places, tuple(times), tuple(labels))
    return columns, np.arange(2, 2 + rows)


def _parse_fast(
    text: str, width: int, places: Mapping[str, int], times: tuple[str, ...], labels: tuple[str, ...]
) -> Columns:
    """A column with an empty or foreign cell comes back with NaN or raises ValueError."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frame = pd.read_csv(
            io.StringIO(text),
            header=0,
            names=list(range(width)),
            index_col=False,
            usecols=sorted(set(places.values())),
            dtype={place: str if name in times + labels else float for name, place in places.items()},
            skip_blank_lines=False,
            engine="c",
        )
    columns = {}
    for name, place in places.items():
        if name in times:
            columns[name] = _seconds(pd.to_datetime(frame[place], format="ISO8601", utc=True))
        elif name in labels:
            columns[name] = pd.factorize(frame[place].fillna(""))[0].astype(float)
        else:
            columns[name] = frame[place].to_numpy(float)
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
    source: Source,
    text: str,
    width: int,
    places: Mapping[str, int],
    times: tuple[str, ...],
    labels: tuple[str, ...],
) -> tuple[Columns, np.ndarray]:
    """Read line by line; blank lines are skipped, every other line must hold what the header promises."""
    rows, lines, problems = [], [], []
    for number, line in enumerate(text.split("\n")[1:], start=2):
        if not line.strip():
            continue
        row = split_line(line)
        wrong = _wrong_cells(row, width, [n for n in places if n not in times + labels], places)
        problems += [Problem(source.file, f"line {number}{where}", found, fix) for where, found, fix in wrong]
        if not wrong:
            rows.append(row)
            lines.append(number)
    columns: Columns = {}
    for name, place in places.items():
        cells = [row[place].strip() for row in rows]
        if name in times:
            moments = pd.Series(cells, dtype=str)
            columns[name] = _seconds(pd.to_datetime(moments, format="ISO8601", utc=True, errors="coerce"))
            problems += [
                Problem(
                    source.file, f"line {lines[at]}, time", _short(cells[at]), "write 2023-11-16 18:17:03.97"
                )
                for at in np.flatnonzero(np.isnan(columns[name]))
            ]
        elif name in labels:
            columns[name] = pd.factorize(pd.Series(cells, dtype=str))[0].astype(float)
        else:
            columns[name] = np.array(cells, dtype=float)
    if problems:
        refuse(source.file, problems)
    return columns, np.array(lines, dtype=np.int64)


def _wrong_cells(
    row: list[str], width: int, numeric: list[str], places: Mapping[str, int]
) -> list[tuple[str, str, str]]:
    """(where, found, remedy) of what is wrong in one line."""
    if len(row) != width:
        return [
            (
                "",
                _short(",".join(row)) or "not readable",
                f"give {width} fields, as in the header; there are {len(row)}",
            )
        ]
    cells = ((name, row[places[name]]) for name in numeric)
    return [
        (f", {name}", _short(cell) or "empty", "write a number")
        for name, cell in cells
        if not is_number(cell)
    ]


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 3] + "..."
