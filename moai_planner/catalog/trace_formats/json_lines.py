"""JSON lines: one object a line, decoded in one pass; line by line only to name what is wrong.

rows, lines = read_objects(source)
lengths = numbers(source, rows, lines, "input_length")
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain, count
from typing import Any

import numpy as np

from moai_planner.catalog.trace_formats.requests import Source, refuse
from moai_planner.domain.errors import Problem

Row = dict[str, Any]
LARGEST = int(np.finfo(float).max)


def read_objects(source: Source) -> tuple[list[Row], np.ndarray]:
    """All objects and the line number of each; blank lines are skipped."""
    texts = source.content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    lines = np.array([number for number, text in enumerate(texts, start=1) if text.strip()], dtype=np.int64)
    filled = [text for text in texts if text.strip()]
    try:
        rows = json.loads(b"[" + b",".join(filled) + b"]")
    except (ValueError, RecursionError):
        rows = None
    if rows is None or len(rows) != len(filled) or not all(type(row) is dict for row in rows):
        rows = _read_patiently(source, filled, lines)
    return rows, lines


def numbers(source: Source, rows: Sequence[Row], lines: np.ndarray, key: str) -> np.ndarray:
    """float [n]: the value of `key` in each row; every row must have a number there."""
    values = [row.get(key) for row in rows]
    if {type(value) for value in values} <= {int, float}:
        with suppress(OverflowError):
            return np.array(values, dtype=float)
    problems = [
        Problem(source.file, f"line {lines[at]}, {key}", _shown(value), "write a number")
        for at, value in enumerate(values)
        if not is_number(value)
    ]
    refuse(source.file, problems)


def is_number(value: Any) -> bool:
    """A JSON number that a float can hold (NaN is left to the checks on values)."""
    return type(value) is float or (type(value) is int and abs(value) <= LARGEST)


def id_lists(
    source: Source, rows: Sequence[Row], lines: np.ndarray, key: str
) -> tuple[np.ndarray, np.ndarray] | None:
    """Ragged lists of ids as values and offsets, renumbered from 0; None where no row has them."""
    lists = [row.get(key) for row in rows]
    if all(ids is None for ids in lists):
        return None
    wrong = [at for at, ids in enumerate(lists) if type(ids) is not list]
    flat = [] if wrong else list(chain.from_iterable(lists))
    if not set(map(type, flat)) <= {int, str}:
        wrong = [at for at, ids in enumerate(lists) if not set(map(type, ids)) <= {int, str}]
    if wrong:
        remedy = "write a list of block ids, in every line or in none"
        refuse(
            source.file,
            [Problem(source.file, f"line {lines[at]}, {key}", _shown(lists[at]), remedy) for at in wrong],
        )
    offsets = np.concatenate(([0], np.cumsum([len(ids) for ids in lists]))).astype(np.int64)
    return renumber(flat), offsets


def renumber(labels: Sequence[int | str]) -> np.ndarray:
    """int64 ids from 0 in order of first appearance, equal where the labels are equal.

    >>> renumber([7, 9, 7]).tolist()
    [0, 1, 0]
    """
    # dict.fromkeys keeps the order of first appearance, and both passes stay in C.
    ids = dict(zip(dict.fromkeys(labels), count()))
    return np.fromiter(map(ids.__getitem__, labels), dtype=np.int64, count=len(labels))


def _read_patiently(source: Source, texts: Sequence[bytes], lines: np.ndarray) -> list[Row]:
    rows, problems = [], []
    for text, line in zip(texts, lines, strict=True):
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "not readable as JSON"
            problems.append(Problem(source.file, f"line {line}", reason, "write one JSON object a line"))
            continue
        if type(row) is not dict:
            problems.append(Problem(source.file, f"line {line}", _shown(row), "write one JSON object a line"))
        rows.append(row)
    if problems:
        refuse(source.file, problems)
    return rows


def _shown(value: Any) -> str:
    text = "missing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
