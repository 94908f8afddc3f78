"""BurstGPT: seconds since the start, model, and token counts in each line; failures have no response.

    Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
    5,ChatGPT,472,18,490,Conversation log

Later releases add `Session ID` and `Elapsed time`; a session groups requests.
"""

from __future__ import annotations

from moai_planner.catalog.trace_formats.requests import Source, build
from moai_planner.catalog.trace_formats.table import header_of, read_columns
from moai_planner.domain.workload import Trace

NAME = "burstgpt-csv"
HEADER = ("Timestamp", "Request tokens", "Response tokens")


def recognises(head: str) -> bool:
    """The time and both token counts are there."""
    return set(HEADER) <= set(header_of(head))


def read(source: Source) -> Trace:
    """Requests that failed have a response of zero tokens; they are set aside and counted."""
    columns, lines = read_columns(
        source, {"arrival": "Timestamp", "isl": "Request tokens", "osl": "Response tokens"}
    )
    return build(source, columns["arrival"], columns["isl"], columns["osl"], lines)
