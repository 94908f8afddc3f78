"""Our own client files: one JSON object a line, a client's windows and its length histograms.

    {"client": 3, "windows": [[600, 1200, 0.42, "gamma", 0.99]],
     "input": [[0, [45, 1, 1], [28, 34, 11]]], "output": [[0, [64, 13], [1, 1]]]}

A window is start s, end s, requests/s, distribution of the gaps, its shape. A histogram is the time from
which it holds, then lengths (each as the difference to the one before) and counts. Times, start and
seed of the sample come from the description; without a start, the busiest span of the duration
(an hour unless said) is drawn.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from moai_planner.catalog.trace_formats import clients
from moai_planner.catalog.trace_formats.clients import Client, ClientWindow, Histogram
from moai_planner.catalog.trace_formats.json_lines import Row, read_objects
from moai_planner.catalog.trace_formats.requests import LONGEST_TOKENS, Source, build, refuse
from moai_planner.domain import units
from moai_planner.domain.errors import Problem
from moai_planner.domain.workload import Trace

NAME = "moai-clients"
DEFAULT_SAMPLE_S = units.HOUR_S
LEAST_SHAPE = {clients.GAMMA: 0.001, clients.WEIBULL: 0.05}
"Below it nearly every gap is zero and time does not advance."


def recognises(head: str) -> bool:
    """The first key is ours."""
    return head.lstrip("\ufeff ").startswith('{"client":')


def read(source: Source) -> Trace:
    """Sample requests from the clients of the file."""
    return sample_trace(source, read_clients(source, parse_client))


def write(population: Sequence[Client]) -> bytes:
    """Clients as a gzip file of this format, the same bytes each time."""

    def histograms(parts: tuple[tuple[float, Histogram], ...]) -> list:
        return [
            [_short(start), np.diff(h.lengths, prepend=0).tolist(), [_short(count) for count in h.counts]]
            for start, h in parts
        ]

    def window(w: ClientWindow) -> list:
        return [_short(w.start_s), _short(w.end_s), _short(w.rate_req_per_s), w.distribution, _short(w.shape)]

    rows = [
        {
            "client": client.id,
            "windows": [window(w) for w in client.windows],
            "input": histograms(client.inputs),
            "output": histograms(client.outputs),
        }
        for client in population
    ]
    text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
    return gzip.compress(text.encode(), compresslevel=9, mtime=0)


def sample_trace(source: Source, population: Sequence[Client]) -> Trace:
    """Requests of the span and seed that the description asks for; a session is a client."""
    options = source.options
    duration_s = options.sample_duration_s or DEFAULT_SAMPLE_S
    start_s = options.sample_start_s
    if start_s is None:
        start_s = clients.busiest_start_s(population, duration_s)
    drawn = clients.sample(population, start_s, duration_s, options.sample_seed)
    return build(
        source,
        drawn.arrival_s,
        drawn.isl_tokens,
        drawn.osl_tokens,
        np.arange(1, len(drawn.arrival_s) + 1),
        fixed_span_s=duration_s,
        session_ids=drawn.client_ids,
        line_word="sampled request",
    )


def read_clients(source: Source, parse: Callable[[Row], Client]) -> tuple[Client, ...]:
    """One client a line; every malformed one is named."""
    rows, lines = read_objects(source)
    found, problems = [], []
    for row, line in zip(rows, lines, strict=True):
        try:
            found.append(check(parse(row)))
        except (KeyError, IndexError, TypeError, ValueError, OverflowError, AttributeError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)[:100]
            remedy = "write a client as docs/traces.md shows"
            problems.append(Problem(source.file, f"line {line}", reason, remedy))
    if not problems and not any(client.windows for client in found):
        problems.append(
            Problem(source.file, "windows", "no client sends", "give a rate above zero in some window")
        )
    if problems:
        refuse(source.file, problems)
    return tuple(found)


def check(client: Client) -> Client:
    """The client, when its numbers can be sampled; ValueError names the first that cannot."""
    for window in client.windows:
        numbers = (window.start_s, window.end_s, window.rate_req_per_s, window.shape)
        if not np.isfinite(numbers).all() or window.start_s < 0 or window.end_s <= window.start_s:
            raise ValueError(f"window {window.start_s:g} to {window.end_s:g} s is not a span")
        if window.distribution not in LEAST_SHAPE:
            raise ValueError(f"distribution {window.distribution!r} is neither gamma nor weibull")
        if window.rate_req_per_s < 0 or window.shape < LEAST_SHAPE[window.distribution]:
            raise ValueError(f"rate {window.rate_req_per_s:g} or shape {window.shape:g} is too small")
    for _, histogram in client.inputs + client.outputs:
        lengths, counts = histogram.lengths, histogram.counts
        if len(lengths) == 0 or len(lengths) != len(counts):
            raise ValueError("a histogram needs as many lengths as counts, one at least")
        if not np.isfinite(counts).all() or (counts < 0).any() or counts.sum() <= 0:
            raise ValueError("histogram counts must be zero or more, with a sum above zero")
        if (lengths < 0).any() or (lengths > LONGEST_TOKENS).any():
            raise ValueError("histogram lengths must be token counts")
    if client.windows and not (client.inputs and client.outputs):
        raise ValueError("a client that sends needs input and output histograms")
    return client


def parse_client(row: Row) -> Client:
    return Client(
        id=_whole(row["client"]),
        windows=tuple(
            ClientWindow(float(start), float(end), float(rate), str(distribution), float(shape))
            for start, end, rate, distribution, shape in row["windows"]
        ),
        inputs=_histograms(row["input"]),
        outputs=_histograms(row["output"]),
    )


def _histograms(parts: list) -> tuple[tuple[float, Histogram], ...]:
    return tuple(
        (float(start), Histogram(np.cumsum(np.array(gaps, dtype=np.int64)), np.array(counts, dtype=float)))
        for start, gaps, counts in parts
    )


def _short(value: float) -> int | float:
    """Whole numbers without a point."""
    return int(value) if value == int(value) else float(value)


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"client {value!r} is not a whole number, zero or more")
    return value
