"""What a profile is worth: fitted costs, held-out errors beside the noise, transfer to a model not measured.

assess(observations, points, seed) → Assessment       one model: a fifth of its points never fitted
transfer({name: observations}) → {name: errors}        each model predicted from the others' operators
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from moai_planner.domain.measured import PHASES, MeasuredPoint, StepShape
from moai_planner.domain.model import Model
from moai_planner.profile import fit, sweep
from moai_planner.profile.features import COLUMNS


@dataclass(frozen=True, eq=False)
class Assessment:
    """A fitted profile and its test."""

    costs: fit.Costs
    "Fitted to the points that were not held out."
    modelled_s: Mapping[StepShape, float]
    "Every point by operator costs alone."
    predicted_s: Mapping[StepShape, float]
    "The held-out points, predicted by costs and neighbours."
    held_out: frozenset[StepShape]


def assess(model: Model, precision: str, points: Sequence[MeasuredPoint], seed: int) -> Assessment:
    """Hold a random fifth out, fit the rest, predict the fifth."""
    seconds = {point.shape: point.seconds for point in points}
    held = sweep.held_out(seconds, seed)
    kept = fit.observe(model, precision, points).without(held)
    costs = fit.fit([kept])
    shapes = list(seconds)
    modelled = fit.modelled_s(costs, model, precision, shapes)
    asked = sorted(held)
    predicted = fit.predicted_s(costs, kept, asked) if asked else np.empty(0)
    return Assessment(
        costs,
        dict(zip(shapes, map(float, modelled), strict=True)),
        dict(zip(asked, map(float, predicted), strict=True)),
        held,
    )


def held_out_errors(assessment: Assessment, points: Sequence[MeasuredPoint]) -> dict[str, dict[str, float]]:
    """Phase → median and largest error of the held-out points, beside the noise of the phase's points."""
    rows = {}
    for phase in PHASES:
        tested = [p for p in points if p.shape in assessment.held_out and p.shape.phase == phase]
        if tested:
            off = [abs(assessment.predicted_s[p.shape] / p.seconds - 1) for p in tested]
            noise = [p.noise_frac for p in points if p.shape.phase == phase]
            rows[phase] = {
                "points": len(tested),
                "median_error_frac": round(float(np.median(off)), 5),
                "largest_error_frac": round(float(max(off)), 5),
                "median_noise_frac": round(float(np.median(noise)), 5),
            }
    return rows


def transfer(family: Mapping[str, fit.Observations]) -> dict[str, dict[str, float]]:
    """Model → median error by phase when only the other models' points are fitted."""
    rows = {}
    for name, asked in family.items():
        others = [observations for other, observations in family.items() if other != name]
        if not others:
            continue
        costs = fit.fit(others)
        shapes = list(asked.seconds)
        predicted = fit.modelled_s(costs, asked.model, asked.precision, shapes)
        off = {shape: abs(p / asked.seconds[shape] - 1) for shape, p in zip(shapes, predicted, strict=True)}
        rows[name] = {
            phase: round(float(np.median([e for shape, e in off.items() if shape.phase == phase])), 5)
            for phase in PHASES
            if any(shape.phase == phase for shape in off)
        }
    return rows


def kind(model: Model) -> str:
    """Family within which operators carry over: attention form and dense or expert feed-forward."""
    forms = sorted({part.kind for part in model.attention})
    return "-".join([*forms, "moe" if model.moe else "dense"])


def efficiencies(costs: fit.Costs, ceilings: Mapping[str, float]) -> dict[str, float]:
    """Fitted costs as fractions of the device's measured ceilings (bf16 weights of two bytes).

    A matrix product at m rows does 2·m flop a weight; few rows are held against the copy rate, many against
    the matrix rate. Values above one mean that data stays in a cache.
    """
    copy, matrix = ceilings.get("copy_bytes_per_s"), ceilings.get("matrix_bf16_flop_per_s")
    if not copy or not matrix:
        return {}
    found = {}
    for name, cost in costs.by_name().items():
        if "@" in name:
            least_s = max(2 * int(name.partition("@")[2]) / matrix, 2 / copy)
        elif name in ("decode_flop", "prefill_flop"):
            least_s = 1 / matrix
        elif name == "decode_kv":
            least_s = 1 / copy
        else:
            continue
        found[name] = round(least_s / cost, 4)
    return found


def fit_entry(
    assessment: Assessment, points: Sequence[MeasuredPoint], ceilings: Mapping[str, float]
) -> dict[str, Any]:
    """The fit as it is kept in meta.yaml."""
    costs = assessment.costs
    unknown = [name for name, cost in zip(COLUMNS, costs.seconds, strict=True) if not np.isfinite(cost)]
    return {
        "points_fitted": costs.points,
        "median_residual_frac": round(costs.residual_frac, 5),
        "seconds_per_unit": {name: float(f"{cost:.4g}") for name, cost in costs.by_name().items()},
        "no_work_in_the_data": unknown,
        "fraction_of_ceiling": efficiencies(costs, ceilings),
        "held_out": held_out_errors(assessment, points),
    }
