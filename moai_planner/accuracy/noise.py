"""How much a measurement differs from itself: the floor under every error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from statistics import median

from moai_planner.accuracy.run import Run

METRICS = ("tpot_ms_mean", "tpot_ms_median", "total_tps", "ttft_ms_mean")
OF_ONE_RUN = ("id", "date", "split", "metrics", "events_per_token", "tokens_per_event", "assumed")
"""Fields that repeats of a configuration may differ in: when it ran and what came out."""


@dataclass(frozen=True)
class NoiseRow:
    """Repeats of one source."""

    source: str
    metric: str
    cells: int
    "Configurations measured more than once; 0 = the source has no repeats of any metric."
    spread: float
    "Median over them of (max - min) / 2 / mean."


def noise_floor(runs: Sequence[Run]) -> tuple[NoiseRow, ...]:
    """Spread of repeated configurations, by source and metric."""
    found: list[NoiseRow] = []
    cells: dict[str, dict[tuple, dict[tuple, Run]]] = {}
    for run in runs:
        repeats = cells.setdefault(run.source, {}).setdefault(configuration_of(run), {})
        repeats[run.date, tuple(sorted(run.metrics.items()))] = run  # the same row listed twice counts once
    for source in sorted(cells):
        rows = [row for metric in METRICS if (row := _row(source, metric, cells[source]))]
        found += rows or [NoiseRow(source, "", 0, 0.0)]
    return tuple(found)


def _row(source: str, metric: str, cells: dict[tuple, dict[tuple, Run]]) -> NoiseRow | None:
    spreads = []
    for repeats in cells.values():
        values = [run.metrics[metric] for run in repeats.values() if metric in run.metrics]
        if len(values) > 1:
            spreads.append(_spread(values))
    return NoiseRow(source, metric, len(spreads), median(spreads)) if spreads else None


def configuration_of(run: Run, besides: Sequence[str] = ()) -> tuple:
    """What repeats of a run share: all but when it ran and what came out, and the fields `besides`."""
    apart = (*OF_ONE_RUN, *besides)
    return tuple(getattr(run, entry.name) for entry in fields(run) if entry.name not in apart)


def _spread(values: Sequence[float]) -> float:
    """Half the range over the mean.

    >>> _spread([9.0, 11.0])
    0.1
    """
    return (max(values) - min(values)) / 2 / (sum(values) / len(values))
