"""Fits → the files `catalog/parameters` reads: one for each (device, engine, number format) with rows.

Rounded to four significant digits and written in a fixed order: same measurements, same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import yaml

from moai_planner.accuracy.families import BASE_FIELDS
from moai_planner.accuracy.fit import FamilyFit
from moai_planner.accuracy.intervals import GROUPING, intervals_of, kind_of
from moai_planner.accuracy.prepare import AcceleratorOf, ModelOf, ParametersOf
from moai_planner.domain.model import APPROXIMATED_ARCHITECTURES
from moai_planner.domain.precision import PRECISIONS

DIGITS = 4
FORMAT = "moai-parameters/1"


def files_of(
    fit: FamilyFit, model_of: ModelOf, accelerator_of: AcceleratorOf, assumed_of: ParametersOf, about: str
) -> dict[str, str]:
    """File name → text. `about` says which measurements the fit is from."""
    return {
        f"{accelerator}_{fit.family.engine}_{number_format}.yaml": _text(
            fit, accelerator_of(accelerator), number_format, rows, assumed_of, model_of, about
        )
        for (accelerator, number_format), rows in sorted(_groups(fit, model_of).items())
    }


def _groups(fit: FamilyFit, model_of: ModelOf) -> dict[tuple[str, str], list[int]]:
    """(device, precision) → indices of the runs it decoded."""
    groups: dict[tuple[str, str], list[int]] = {}
    for i, run in enumerate(fit.runs):
        number_format = run.precision or model_of(run.model).native_precision
        groups.setdefault((run.workers[-1].accelerator, number_format), []).append(i)
    return groups


def _text(
    fit,
    accelerator,
    number_format: str,
    runs: list[int],
    assumed_of: ParametersOf,
    model_of: ModelOf,
    about: str,
) -> str:
    assumed = assumed_of(accelerator, fit.family.engine, PRECISIONS[number_format])
    found = fit.correct(assumed, accelerator.architecture, number_format)
    rows = np.isin(fit.residuals.run, runs)
    intervals = intervals_of(fit.residuals, rows)
    dates = sorted({fit.runs[i].date for i in runs if fit.runs[i].date})
    represented = rows & ~np.isin(fit.residuals.run, _approximated(fit, model_of))
    step = intervals_of(fit.residuals, represented).get("tpot_s", (assumed.low_frac, assumed.high_frac))
    document = {
        "format": FORMAT,
        "accelerator": accelerator.id,
        "architecture": accelerator.architecture,
        "platform": accelerator.platform,
        "engine": fit.family.engine,
        "number_format": number_format,
        "basis": "calibrated",
        "source": {"title": _sources(fit, runs), "where": about, "kind": "derived"},
        "date": dates[-1][:10] if dates else "",
        "rows": len(runs),
        "values": {name: _round(getattr(found, name)) for name in BASE_FIELDS},
        "interval": _ends(step),
        "intervals": {kind: _ends(pair) for kind, pair in intervals.items()},
        "residuals": _figures(fit, rows),
    }
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)


def _approximated(fit: FamilyFit, model_of: ModelOf) -> list[int]:
    """Runs of models whose attention the cost model only approximates.

    What it does not represent says little about a step that it does: their errors count in the intervals
    of metrics, and in a step's interval for such models alone.
    """
    return [
        i for i, run in enumerate(fit.runs) if model_of(run.model).architecture in APPROXIMATED_ARCHITECTURES
    ]


def _sources(fit: FamilyFit, runs: list[int]) -> str:
    return "own fit to " + "; ".join(sorted({fit.runs[i].source for i in runs if fit.runs[i].source}))


def _ends(pair: tuple[float, float]) -> Mapping[str, float]:
    return {"low_frac": _round(min(pair[0], 1.0)), "high_frac": _round(max(pair[1], 1.0))}


def _figures(fit: FamilyFit, rows: np.ndarray) -> dict[str, float]:
    """Median absolute error and bias of each kind, fitted and with the row's group left out."""
    kinds = np.array([kind_of(name) for name in fit.residuals.metric])
    figures: dict[str, float] = {}
    for kind in sorted(set(kinds[rows].tolist())):
        chosen = rows & (kinds == kind)
        error, held_out = fit.residuals.error[chosen], fit.residuals.held_out[GROUPING][chosen]
        figures[f"{kind}_median_error"] = _round(np.median(np.abs(np.expm1(error))))
        figures[f"{kind}_median_bias"] = _round(np.median(error))
        figures[f"{kind}_median_error_left_out"] = _round(np.median(np.abs(np.expm1(held_out))))
    return figures


def _round(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")
