"""ServeGen clients as JSON lines: windows of (start, rate, CV, distribution, two parameters), histograms.

    {"client_id": 0, "windows": [[2400.0, 0.085, 6.7, "Gamma", 0.022, 73.0]],
     "dataset_by_window": {"0": {"input_tokens": "{45: 0.01, 46: 0.02}", "output_tokens": "{64: 1.0}"}}}

Rate and shape are taken; the scale parameter is not, since the rate fixes it. A window lasts until the
client's next one, the last as long as the one before.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from moai_planner.catalog.trace_formats.clients import Client, ClientWindow, Histogram
from moai_planner.catalog.trace_formats.clients_file import read_clients, sample_trace
from moai_planner.catalog.trace_formats.json_lines import Row
from moai_planner.catalog.trace_formats.requests import Source
from moai_planner.domain import units
from moai_planner.domain.workload import Trace

NAME = "servegen-clients"
ONLY_WINDOW_S = 10 * units.MINUTE_S
"Length of a window that stands alone; ServeGen's are ten minutes."


def recognises(head: str) -> bool:
    """The first line is a client with windows."""
    line = head.split("\n", 1)[0]
    return line.lstrip("\ufeff ").startswith("{") and '"client_id"' in line and '"windows"' in line


def read(source: Source) -> Trace:
    """Sample requests from the clients of the file."""
    return sample_trace(source, read_clients(source, parse_client))


def parse_client(row: Row) -> Client:
    """One line → client; windows without traffic are left away."""
    starts = [float(window[0]) for window in row["windows"]]
    lasting = np.diff(starts).tolist() or [ONLY_WINDOW_S]
    ends = [start + length for start, length in zip(starts, [*lasting, lasting[-1]], strict=False)]
    windows = tuple(
        ClientWindow(start, end, float(rate), str(distribution).lower(), float(shape))
        for (_, rate, _, distribution, shape, *_), start, end in zip(
            row["windows"], starts, ends, strict=True
        )
        if rate != 0
    )
    parts = sorted((float(start), lengths) for start, lengths in row["dataset_by_window"].items())
    return Client(
        id=int(row["client_id"]),
        windows=windows,
        inputs=_histograms(parts, "input_tokens"),
        outputs=_histograms(parts, "output_tokens"),
    )


def _histograms(parts: list[tuple[float, dict[str, Any]]], key: str) -> tuple[tuple[float, Histogram], ...]:
    return tuple((start, _histogram(lengths[key])) for start, lengths in parts if _filled(lengths[key]))


def _filled(written: Any) -> bool:
    return bool(written) and written != "{}"


def _histogram(written: str | dict) -> Histogram:
    """A histogram written as `{length: share, …}`, as text or as an object."""
    if isinstance(written, str):
        pairs = [pair.split(":") for pair in written.strip().strip("{}").split(",")]
    else:
        pairs = list(written.items())
    lengths, shares = np.array(pairs, dtype=float).T
    if not np.isfinite(lengths).all():
        raise ValueError("a histogram's lengths must be numbers")
    return Histogram(lengths.astype(np.int64), shares)
