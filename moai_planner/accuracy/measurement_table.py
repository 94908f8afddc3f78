"""The text of a measurements table → its rows, checked: everything that is wrong with it at once.

table = read_table(Path("runs.csv.gz"))
table.rows[0].line, table.rows[0].cells["model"]
table.ignored                       # columns that nothing here reads, for a note

Strict where silence would mislead (misspelt columns, broken numbers, times in the wrong unit), lenient where
nothing is lost (spaces, a byte-order mark, capitals, columns of one's own, tabs in a .tsv).
"""

from __future__ import annotations

import csv
import difflib
import io
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from moai_planner.accuracy.lengths import LEAST_CV, WIDEST_CV
from moai_planner.accuracy.run import LARGEST, METRICS, SPLITS
from moai_planner.accuracy.text_file import read_text
from moai_planner.domain.errors import InputError, Problem
from moai_planner.domain.units import MILLI

_ENGINE = ("tp", "ep", "dp", "pp")
_POOLS = tuple(
    f"{role}_{name}"
    for role in ("prefill", "decode")
    for name in ("accelerator", "workers", "tp", "ep", "dp")
)
_LOAD = ("isl", "osl", "isl_mean", "osl_mean", "length_spread", "concurrency", "request_rate", "n_requests")
_HEAD = ("id", "source", "date", "model", "precision", "engine", "engine_version", "topology", "accelerator")
COLUMNS = (
    *_HEAD,
    "n_accelerators",
    *_ENGINE,
    *_POOLS,
    "kv_connector",
    "spec_decode",
    *_LOAD,
    "prefix_hit_frac",
)
TAIL = ("notes", "split", "certainty", "licence", "url")
REQUIRED = ("id", "model", "engine", "topology", "accelerator")
TEXTS = (*_HEAD, "prefill_accelerator", "decode_accelerator", "kv_connector", "spec_decode", "length_spread")
NUMBERS = tuple(name for name in COLUMNS if name not in TEXTS)
_WHOLE = frozenset(
    name for name in NUMBERS if not name.startswith(("isl", "osl", "request", "prefix_hit", "concurrency"))
)
_KEYWORDS = (
    "topology",
    "split",
    "engine",
    "precision",
    "accelerator",
    *(f"{r}_accelerator" for r in ("prefill", "decode")),
)
"""Columns whose values are names in small letters."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\Z", re.ASCII)
_FRACTION = r"(\d+\.?\d*|\.\d+)"
_SPREAD = re.compile(rf"uniform ?{_FRACTION} ?- ?{_FRACTION}\Z", re.ASCII)
_DEVIATION = re.compile(rf"cv ?{_FRACTION}\Z", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
TOPOLOGIES = ("colocated", "disaggregated")
WRONG_UNITS = ((200.0, 5000.0), (2e5, 5e6))
"""Latencies that disagree by such factors, either way, are seconds beside milliseconds, some or all."""
SPREAD_ENDS = (0.2, 4.0)
"""What the two ends of a spread, in nominal lengths, may add up to: else they are no fractions."""
SHOWN = 40
"""Characters of a bad value that a message repeats."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    line: int
    cells: Mapping[str, str]
    numbers: Mapping[str, float]
    "The cells that are numbers, read."


@dataclass(frozen=True)
class Table:
    """Rows without a problem in them."""

    rows: tuple[Row, ...]
    ignored: tuple[str, ...]
    "Columns beside the known ones."


def read_table(path: Path) -> Table:
    """Read a file. InputError with every problem of it."""
    return parse_table(read_text(path, "a measurements table, .csv or .csv.gz"), str(path))


def parse_table(text: str, file: str) -> Table:
    """The same from text."""
    if not text.strip():
        raise InputError(Problem(file, "", "empty file", "give a measurements table with a header line"))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_separator(text, file))
    names = [name.strip().lower() for name in next(_lines(reader, file))]
    problems, ignored = _check_header(names, file)
    if problems:
        raise InputError(problems)
    rows: list[Row] = []
    first_line: dict[str, int] = {}
    for values in _lines(reader, file):
        if not any(value.strip() for value in values):
            continue
        row, found = _read_row(names, values, file, reader.line_num)
        if row is not None:
            found += _check_id(row, file, first_line)
            rows.append(row)
        problems += found
    if problems:
        raise InputError(problems)
    if not rows:
        raise InputError(Problem(file, "rows", "", "give at least one run below the header"))
    return Table(tuple(rows), ignored)


def _lines(reader, file: str) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:
        remedy = "close the quotes and keep cells short"
        raise InputError(Problem(file, f"line {reader.line_num}", str(error), remedy)) from error


def _separator(text: str, file: str) -> str:
    """A comma, or a tab where the header has none. Semicolons are refused: decimals may be commas there."""
    header = text.lstrip("\n\r").split("\n", 1)[0]
    if "," in header:
        return ","
    if ";" in header:
        remedy = "save the table with commas between the cells, points in the numbers"
        raise InputError(Problem(file, "line 1", "cells separated by ;", remedy))
    return "\t" if "\t" in header else ","


def _check_header(names: list[str], file: str) -> tuple[list[Problem], tuple[str, ...]]:
    """Problems of the header, and the columns that are ignored: those near no known name."""
    known = {*COLUMNS, *METRICS, *TAIL}
    problems, ignored = [], []
    for name in dict.fromkeys(names):
        near = difflib.get_close_matches(name, sorted(known - set(names)), n=1, cutoff=0.75)
        if name in known:
            if names.count(name) > 1:
                problems.append(Problem(file, "line 1", name, "name each column once"))
        elif near:
            remedy = f"did you mean {near[0]}? rename or remove this column"
            problems.append(Problem(file, "line 1", name[:SHOWN], remedy))
        else:
            ignored.append(name or "(without a name)")
    problems += [Problem(file, "line 1", "", f"add the column {n}") for n in REQUIRED if n not in names]
    return problems, tuple(ignored)


def _read_row(names: list[str], values: list[str], file: str, line: int) -> tuple[Row | None, list[Problem]]:
    where = f"line {line}"
    if len(values) != len(names):
        remedy = f"give as many cells as the header has ({len(names)}, not {len(values)})"
        return None, [Problem(file, where, "", remedy)]
    cells = {name: value.strip() for name, value in zip(names, values, strict=True)}
    for name in _KEYWORDS:
        if name in cells:
            cells[name] = cells[name].lower()
    if "length_spread" in cells:
        cells["length_spread"] = " ".join(cells["length_spread"].lower().split())
    numbers: dict[str, float] = {}
    problems = [Problem(file, f"{where}, {n}", "", "fill this cell") for n in REQUIRED if not cells[n]]
    for name in (*NUMBERS, *METRICS):
        text = cells.get(name, "")
        number = _number(text, name)
        if number is not None:
            numbers[name] = number
        elif text:
            problems.append(Problem(file, f"{where}, {name}", text[:SHOWN], _number_remedy(text, name)))
    problems += _check_words(cells, file, where)
    problems += _check_units(numbers, file, where)
    return Row(line, cells, numbers), problems


def _number(text: str, name: str) -> float | None:
    """The number in a cell; None when it is none, or not one that the column can hold."""
    if not _NUMBER.match(text):
        return None
    number = float(text)
    if name == "prefix_hit_frac":
        return number if 0 <= number <= 1 else None
    if not 1.0 / LARGEST <= number <= LARGEST or (name in _WHOLE and not number.is_integer()):
        return None
    return number


def _number_remedy(text: str, name: str) -> str:
    if _NUMBER.match(text) and math.isfinite(float(text)) and float(text) > LARGEST:
        return f"write a number up to {LARGEST:.0f}, or leave it empty"
    if name == "prefix_hit_frac":
        return "write a share from 0 to 1, or leave it empty"
    kind = "a whole number, 1 or more" if name in _WHOLE else "a finite number above 0"
    bare = text.replace(",", "").replace("_", "")
    if bare != text and _NUMBER.match(bare):
        return f"write {bare}: no separators inside a number"
    return f"write {kind}, without a unit, or leave it empty"


def _check_words(cells: Mapping[str, str], file: str, where: str) -> Iterator[Problem]:
    for name, choices in (("topology", TOPOLOGIES), ("split", ("", *SPLITS))):
        value = cells.get(name, choices[0])
        if value not in choices and (value or name != "topology"):
            remedy = f"write {' or '.join(filter(None, choices))}"
            yield Problem(file, f"{where}, {name}", value[:SHOWN], remedy)
    spread = cells.get("length_spread", "")
    if spread and length_range(spread) is None:
        yield Problem(
            file,
            f"{where}, length_spread",
            spread[:SHOWN],
            "write fixed, uniform 0.8-1.0 for fractions of isl and osl, or cv 0.8 (deviation over mean, "
            f"above 0 and up to {WIDEST_CV:g})",
        )
    for name, value in cells.items():
        if name in TEXTS and _CONTROL.search(value):
            yield Problem(file, f"{where}, {name}", repr(value)[:SHOWN], "remove the control characters")


def _check_units(numbers: Mapping[str, float], file: str, where: str) -> Iterator[Problem]:
    """End-to-end seconds beside milliseconds: the last token cannot come before the first, nor much later
    than the time per token explains."""
    for statistic in ("mean", "median"):
        e2el_s, ttft_ms = numbers.get(f"e2el_s_{statistic}"), numbers.get(f"ttft_ms_{statistic}")
        tpot_ms = numbers.get(f"tpot_ms_{statistic}")
        osl = numbers.get("osl_mean", numbers.get("osl"))
        if not (e2el_s and ttft_ms and tpot_ms and osl):
            continue
        factor = e2el_s / (MILLI * (ttft_ms + tpot_ms * max(osl - 1.0, 0.0)))
        if any(low < max(factor, 1.0 / factor) < high for low, high in WRONG_UNITS):
            remedy = (
                "e2el_s is in seconds, ttft_ms and tpot_ms in milliseconds: "
                f"ttft + tpot x (osl - 1) is {e2el_s / factor:.4g} s"
            )
            yield Problem(file, f"{where}, e2el_s_{statistic}", f"{e2el_s:g}", remedy)


def _check_id(row: Row, file: str, first_line: dict[str, int]) -> list[Problem]:
    run_id = row.cells["id"]
    if run_id in first_line:
        remedy = f"give each run an id of its own (line {first_line[run_id]} has it)"
        return [Problem(file, f"line {row.line}, id", run_id[:SHOWN], remedy)]
    first_line[run_id] = row.line
    return []


def length_range(spread: str) -> tuple[float, float] | None:
    """Shortest and longest length of a `length_spread` over the nominal one; None when it says neither.

    >>> length_range("uniform 0.8-1.0"), length_range(""), length_range("uniform 0-1"), length_range("normal")
    ((0.8, 1.0), (1.0, 1.0), (0.0, 1.0), None)
    """
    if spread in ("", "fixed") or stated_cv(spread):
        return 1.0, 1.0
    match = _SPREAD.match(spread)
    if match is None:
        return None
    shortest, longest = float(match[1]), float(match[2])
    return (
        (shortest, longest)
        if shortest <= longest and SPREAD_ENDS[0] <= shortest + longest <= SPREAD_ENDS[1]
        else None
    )


def stated_cv(spread: str) -> float:
    """Deviation over mean that a `length_spread` states, for prompts and answers alike; else 0.

    >>> stated_cv("cv 0.8"), stated_cv("uniform 0.8-1.0"), stated_cv("cv 80")
    (0.8, 0.0, 0.0)
    """
    match = _DEVIATION.match(spread)
    cv = float(match[1]) if match else 0.0
    return cv if LEAST_CV <= cv <= WIDEST_CV else 0.0
