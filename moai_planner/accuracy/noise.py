"""How much a measurement differs from itself: the floor under every error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from moai_planner.accuracy.run import Run

METRICS = ("tpot_ms_mean", "tpot_ms_median", "total_tps", "ttft_ms_mean")
LENGTH_STEP_TOKENS = 256


@dataclass(frozen=True)
class NoiseRow:
    """Repeats of one source."""

    source: str
    metric: str
    cells: int
    "Configurations measured more than once."
    spread: float
    "Median over them of (max - min) / 2 / mean."


def noise_floor(runs: Sequence[Run]) -> tuple[NoiseRow, ...]:
    """Spread of repeated configurations, by source and metric."""
    found: list[NoiseRow] = []
    for source in sorted({run.source for run in runs}):
        for metric in METRICS:
            cells: dict[tuple, list[float]] = {}
            for run in runs:
                if run.source == source and metric in run.metrics:
                    cells.setdefault(_cell(run), []).append(run.metrics[metric])
            spreads = [_spread(values) for values in cells.values() if len(values) > 1]
            if spreads:
                found.append(NoiseRow(source, metric, len(spreads), median(spreads)))
    return tuple(found)


def _cell(run: Run) -> tuple:
    lengths = (round(run.isl_tokens / LENGTH_STEP_TOKENS), round(run.osl_tokens / LENGTH_STEP_TOKENS))
    load = (run.concurrency, run.request_rate, run.arrivals)
    return (run.model, run.precision, run.workers, run.spec_decode, run.engine_version, *lengths, *load)


def _spread(values: Sequence[float]) -> float:
    """Half the range over the mean.

    >>> _spread([9.0, 11.0])
    0.1
    """
    return (max(values) - min(values)) / 2 / (sum(values) / len(values))
