"""From measured points to what is kept and shown: the fit in meta.yaml, pictures, the family's transfer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moai_planner.domain.measured import MeasuredPoint, Shard
from moai_planner.domain.model import Model
from moai_planner.profile import features, fit, picture, report, table
from moai_planner.profile.session import Outcome, ReadModel
from moai_planner.profile.shard import divide


@dataclass(frozen=True, eq=False)
class Results:
    """Everything to write and print about one profile."""

    meta: dict[str, Any]
    assessments: Mapping[Shard, report.Assessment]
    pictures: Mapping[str, str]
    "File name → SVG."
    transfer: Mapping[str, Mapping[str, float]]
    "Model of the family → phase → median error, itself never fitted."


def assess_outcome(outcome: Outcome, read_model: ReadModel, seed: int) -> Results:
    """Fit each shard, hold a fifth out, predict each model of the family from the others."""
    stem = outcome.csv.stem
    entry = outcome.meta["models"][stem]
    ceilings = outcome.meta["ceilings"]
    assessments, pictures, fits = {}, {}, {}
    for shard, points in outcome.points.items():
        if len(points) < 5:
            continue
        model = read_model(divide(entry["config"], shard))
        found = report.assess(model, entry["precision"], points, seed)
        assessments[shard] = found
        fits[f"tp{shard.tp}-ep{shard.ep}"] = report.fit_entry(found, points, ceilings)
        name = stem if shard == Shard() else f"{stem}-tp{shard.tp}-ep{shard.ep}"
        pictures |= _pictures(name, model, entry["precision"], points, found, ceilings)
    family = _family(outcome, read_model)
    errors = report.transfer(family) if len(family) > 1 else {}
    meta = dict(outcome.meta)
    meta["models"] = {**meta["models"], stem: {**entry, "fit": fits}}
    if errors:
        costs = fit.fit(list(family.values()))
        kind = report.kind(family[stem].model)
        meta["families"] = {**meta.get("families", {}), kind: _family_entry(costs, errors, ceilings)}
    return Results(meta, assessments, pictures, errors)


def _pictures(
    name: str,
    model: Model,
    precision: str,
    points: tuple[MeasuredPoint, ...],
    found: report.Assessment,
    ceilings: Mapping[str, float],
) -> dict[str, str]:
    seconds = {point.shape: point.seconds for point in points}
    marks = [(shape, *features.flop_and_bytes(model, precision, shape)) for shape in seconds]
    drawn = {f"{name}-ratio.svg": picture.ratios(f"{name}: measured over modelled", points, found.modelled_s)}
    if "copy_bytes_per_s" in ceilings and "matrix_bf16_flop_per_s" in ceilings:
        drawn[f"{name}-roofline.svg"] = picture.roofline(f"{name}: roofline", marks, seconds, ceilings)
    return drawn


def _family(outcome: Outcome, read_model: ReadModel) -> dict[str, fit.Observations]:
    """This model and the others of its kind in the folder, whole (tp 1, ep 1)."""
    if Shard() not in outcome.points:
        return {}
    stem, models = outcome.csv.stem, outcome.meta["models"]
    own = _observations(models[stem], outcome.points[Shard()], read_model)
    family = {stem: own}
    for name, entry in models.items():
        path = Path(outcome.csv.parent) / f"{name}.csv"
        if name == stem or not path.exists() or entry["precision"] != models[stem]["precision"]:
            continue
        points = table.read_points(path)[0].get(Shard(), ())
        other = _observations(entry, points, read_model)
        if points and report.kind(other.model) == report.kind(own.model):
            family[name] = other
    return dict(sorted(family.items()))


def _observations(
    entry: Mapping[str, Any], points: tuple[MeasuredPoint, ...], read_model: ReadModel
) -> fit.Observations:
    return fit.observe(read_model(divide(entry["config"], Shard())), entry["precision"], points)


def _family_entry(
    costs: fit.Costs, errors: Mapping[str, Mapping[str, float]], ceilings: Mapping[str, float]
) -> dict[str, Any]:
    return {
        "points_fitted": costs.points,
        "median_residual_frac": round(costs.residual_frac, 5),
        "seconds_per_unit": {name: float(f"{cost:.4g}") for name, cost in costs.by_name().items()},
        "fraction_of_ceiling": report.efficiencies(costs, ceilings),
        "left_out_median_error_frac": {name: dict(row) for name, row in errors.items()},
    }
