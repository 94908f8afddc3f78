"""Azure's public inference traces: a date, the prompt's and the answer's tokens in each line.

TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
"""

from __future__ import annotations

from moai_planner.catalog.trace_formats.requests import Source, build
from moai_planner.catalog.trace_formats.table import header_of, read_columns
from moai_planner.domain.workload import Trace

NAME = "azure-csv"
HEADER = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


def recognises(head: str) -> bool:
    """All three columns are there."""
    return set(HEADER) <= set(header_of(head))


def read(source: Source) -> Trace:
    """Dates become seconds after the first request."""
    numbers = {"isl": "ContextTokens", "osl": "GeneratedTokens"}
    columns, lines = read_columns(source, numbers, {"arrival": "TIMESTAMP"})
    return build(source, columns["arrival"], columns["isl"], columns["osl"], lines)
