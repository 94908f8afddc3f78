"""Predicted beside measured: pairs, their groups, and the answer of `validate` as one JSON value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from moai_planner.accuracy.intervals import ends
from moai_planner.accuracy.kinds import RATE, kind_of
from moai_planner.accuracy.peaks import Beyond
from moai_planner.accuracy.predict import predict
from moai_planner.accuracy.prepare import Prepared
from moai_planner.accuracy.run import Run, Unsupported
from moai_planner.domain.operators import OperatorTable
from moai_planner.domain.parameters import Parameters
from moai_planner.domain.units import MILLI

DIGITS = 6
LUCKY = 1.05
"""Arrivals of a finite run may come this much faster than their rate."""


@dataclass(frozen=True)
class Pair:
    """One metric of one run."""

    run: Run
    metric: str
    measured: float
    predicted: float
    low: float
    high: float
    basis: str

    @property
    def error(self) -> float:
        """Relative: 0.1 = predicted ten percent above measured."""
        return self.predicted / self.measured - 1.0

    @property
    def covered(self) -> bool:
        return self.low <= self.measured <= self.high


@dataclass(frozen=True)
class Group:
    """Figures of the pairs that share a label."""

    labels: tuple[str, ...]
    n: int
    mape: float
    median_ape: float
    bias: float
    "Mean relative error, signed."
    coverage: float
    low: float
    "Median low end over the prediction."
    high: float


def pairs_of(prepared: Prepared) -> tuple[Pair, ...]:
    """Every measured metric that has a prediction."""
    values = predict(prepared)
    first_share = values["ttft_ms_mean"] * MILLI / values["e2el_s_mean"] if values else np.zeros(0)
    found: list[Pair] = []
    for i, (run, configuration) in enumerate(zip(prepared.runs, prepared.decoders, strict=True)):
        parameters = configuration.parameters
        timed = isinstance(configuration.measured, OperatorTable)
        basis = "measured operators" if timed else parameters.basis.value
        for metric, measured in run.metrics.items():
            predicted = float(values[metric][i]) if metric in values else np.nan
            if not (np.isfinite(predicted) and predicted > 0):
                continue
            low, high = ends(metric, predicted, parameters, run.model, first_share[i])
            if metric.endswith("_p99"):
                low = max(low, min(predicted, _low_of_mean(metric, values, i, parameters, run.model)))
            if kind_of(metric) == RATE and run.arrivals == "open":
                high = min(high, max(predicted, LUCKY * run.offered(metric)))
            found.append(Pair(run, metric, measured, predicted, low, high, basis))
    return tuple(found)


def _low_of_mean(metric: str, values, i: int, parameters: Parameters, model: str) -> float:
    """Low end of the mean that a p99 belongs to; 0 without one. A tail does not begin below it."""
    name = metric.replace("_p99", "_mean")
    middle = float(values[name][i]) if name in values and not metric.startswith("itl") else np.nan
    return ends(name, middle, parameters, model)[0] if np.isfinite(middle) else 0.0


def group(pairs: Sequence[Pair], label: Callable[[Pair], tuple[str, ...]]) -> tuple[Group, ...]:
    """Figures by label, in order of the label."""
    members: dict[tuple[str, ...], list[Pair]] = {}
    for pair in pairs:
        members.setdefault(label(pair), []).append(pair)
    return tuple(_figures(labels, members[labels]) for labels in sorted(members))


def _figures(labels: tuple[str, ...], pairs: Sequence[Pair]) -> Group:
    errors = [pair.error for pair in pairs]
    size = [abs(error) for error in errors]
    n = len(pairs)
    return Group(
        labels=labels,
        n=n,
        mape=sum(size) / n,
        median_ape=median(size),
        bias=sum(errors) / n,
        coverage=sum(pair.covered for pair in pairs) / n,
        low=median(pair.low / pair.predicted for pair in pairs),
        high=median(pair.high / pair.predicted for pair in pairs),
    )


GROUP_LABELS = ("source", "model", "accelerator", "topology", "metric")


def group_labels(pair: Pair) -> tuple[str, ...]:
    """What `validate` groups by."""
    run = pair.run
    return (run.source, run.model, run.accelerator, run.topology, pair.metric)


def as_json(
    pairs: Sequence[Pair],
    unsupported: Sequence[Unsupported],
    beyond: Sequence[Beyond] = (),
    runs: Sequence[Run] = (),
) -> dict[str, Any]:
    """The contract of `validate --json`; of `runs` what was assumed where they say nothing."""
    return {
        "groups": [
            dict(zip(GROUP_LABELS, g.labels, strict=True))
            | {
                "n": g.n,
                "mape": _round(g.mape),
                "median_ape": _round(g.median_ape),
                "bias": _round(g.bias),
                "coverage": _round(g.coverage),
            }
            for g in group(pairs, group_labels)
        ],
        "rows": [
            {
                "id": pair.run.id,
                "metric": pair.metric,
                "measured": pair.measured,
                "predicted": _round(pair.predicted),
                "low": _round(pair.low),
                "high": _round(pair.high),
                "basis": pair.basis,
            }
            for pair in pairs
        ],
        "unsupported": [{"id": row.id, "reason": row.reason} for row in unsupported],
        "beyond_peaks": [
            {
                "id": one.run.id,
                "tpot_ms": _round(one.tpot_s / MILLI),
                "least_tpot_ms": _round(one.least_s / MILLI),
                "limit": one.limit,
            }
            for one in beyond
        ],
        "assumed": [{"id": run.id, "assumed": list(run.assumed)} for run in runs if run.assumed],
    }


def unpredicted(prepared: Prepared, pairs: Sequence[Pair]) -> tuple[Unsupported, ...]:
    """Runs none of whose metrics has a prediction."""
    answered = {pair.run.id for pair in pairs}
    return tuple(
        Unsupported(run.id, run.source, run.split, _why_not(run))
        for run in prepared.runs
        if run.id not in answered
    )


def _why_not(run: Run) -> str:
    if not run.metrics:
        return "no metric was measured"
    return f"no metric of this row is predicted ({', '.join(run.metrics)})"


def _round(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")
