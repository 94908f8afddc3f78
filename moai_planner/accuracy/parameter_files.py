"""The fit → the files `catalog/parameters` reads.

One file for each (device, engine, number format) with rows: its values, intervals and residuals. And
`shared.yaml`: the corrections themselves, for everything that has no rows. Rounded to a few significant
digits and written in a fixed order: same measurements, same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import yaml

from moai_planner.accuracy.families import BASE_FIELDS
from moai_planner.accuracy.fit import Solution
from moai_planner.accuracy.intervals import UNKNOWN as UNKNOWN_ENDS
from moai_planner.accuracy.intervals import WIDEST, interval, measured, stated, widened, widening
from moai_planner.accuracy.joint import FITTED_METRICS, PERIOD, JointProblem
from moai_planner.accuracy.kinds import kind_of, plain_of
from moai_planner.accuracy.leave_out import CELL, DEVICE, FAMILY, MODEL, LeftOut
from moai_planner.accuracy.prepare import ModelOf
from moai_planner.accuracy.residuals import Residuals, residuals_of
from moai_planner.domain.corrections import LEVELS
from moai_planner.domain.model import APPROXIMATED_ARCHITECTURES
from moai_planner.domain.parameters import Parameters

DIGITS = 4
FORMAT = "moai-parameters/1"
SHARED_FORMAT = "moai-corrections/1"
SHARED_FILE = "shared.yaml"
STEP = "step"
"""Name of a step's own interval among those of metrics."""
LEAST_KNOWN = float(np.exp(WIDEST))
"""Ends of a step's interval where no row measured a step."""
UNKNOWN = "any"
"""The family that stands for engines and platforms without rows."""


def files_of(
    problem: JointProblem, solution: Solution, left: LeftOut, model_of: ModelOf, about: str
) -> dict[str, str]:
    """File name → text. `about` says which measurements the fit is from."""
    residuals = residuals_of(problem, solution, left)
    represented = _represented(problem, residuals, model_of)
    powers = {kind: _round(power) for kind, power in widening(residuals, MODEL).items()}
    found = _Found(problem, solution, left, residuals, represented, powers, about)
    made = problem.parameters(solution.theta)
    files = {SHARED_FILE: _shared(found)}
    for s, (accelerator, engine, number_format) in enumerate(problem.sets):
        if (left.labels.set == s).any():
            files[_file_name(accelerator, engine, number_format)] = _set(found, s, made[s])
    return dict(sorted(files.items()))


def _file_name(*names: str) -> str:
    return re.sub(r"[^\w.+-]", "-", "_".join(names)) + ".yaml"


@dataclass(frozen=True, eq=False)
class _Found:
    problem: JointProblem
    solution: Solution
    left: LeftOut
    residuals: Residuals
    represented: np.ndarray
    "[residuals] rows of models that the cost model represents."
    new_model_power: Mapping[str, float]
    about: str


def _represented(problem: JointProblem, residuals: Residuals, model_of: ModelOf) -> np.ndarray:
    """What the model does not represent says little about a step that it does: such errors count in the
    intervals of metrics, and in a step's interval for such models alone."""
    by_run = [model_of(run.model).architecture not in APPROXIMATED_ARCHITECTURES for run in problem.runs]
    return np.array(by_run)[residuals.run]


def _intervals(
    found: _Found, family: str, own: np.ndarray | None, start: Parameters | None = None
) -> dict[str, tuple[float, float]]:
    """Kind → factors, `step` among them. E2E latencies nobody measured in the family are left to their
    parts. `start`: the parameters before the fit, whose intervals count where rows are few."""
    residuals = found.residuals
    kinds = sorted(set(residuals.kinds.tolist()))
    steps = ("tpot_s", *(kind for kind in kinds if plain_of(kind) == "tpot_s"))
    power = {plain_of(kind): 1.0 for kind in kinds}
    if start and own is not None:
        models = set(residuals.labels.model[own].tolist())
        power = {kind: max(start.power_for(name, kind) for name in models) for kind in power}
    step = widened((start.low_frac, start.high_frac), power.get("tpot_s", 1.0)) if start else UNKNOWN_ENDS
    of_steps = (
        interval(residuals, (residuals.kinds == kind) & found.represented, family, own, step)
        for kind in steps
    )
    pairs = dict(start.intervals) if start else {}
    unmeasured = (start.low_frac, start.high_frac) if start else (1.0 / LEAST_KNOWN, LEAST_KNOWN)
    pairs[STEP] = next(filter(None, of_steps), unmeasured)
    for kind in kinds:
        if measured(residuals, kind, family) or family == UNKNOWN or plain_of(kind) != "e2el_s":
            before = widened(stated(start, kind), power[plain_of(kind)]) if start else UNKNOWN_ENDS
            pairs[kind] = interval(residuals, residuals.kinds == kind, family, own, before)
    return {kind: pair for kind, pair in pairs.items() if pair is not None}


def _shared(found: _Found) -> str:
    problem, theta = found.problem, found.solution.theta
    corrections: dict[str, dict[str, dict[str, float]]] = {level: {} for level in LEVELS}
    for ((level, name), field), real in zip(problem.columns, theta, strict=True):
        if level == PERIOD:
            continue
        fields = corrections[level].setdefault(name, {})
        if real:
            fields[field] = float(real)
    device = widening(found.residuals, DEVICE)
    family = widening(found.residuals, FAMILY)
    families = sorted(set(found.left.labels.family.tolist()))
    intervals = {
        name: _widened(_intervals(found, name, None), family if name == UNKNOWN else device)
        for name in (*families, UNKNOWN)
    }
    document = {
        "format": SHARED_FORMAT,
        "source": _source(found, range(len(problem.runs))),
        "date": _date(found, range(len(problem.runs))),
        "rows": len(problem.runs),
        "corrections": {level: dict(sorted(named.items())) for level, named in corrections.items()},
        "intervals": {
            name: {kind: _ends(pair) for kind, pair in pairs.items()} for name, pairs in intervals.items()
        },
        "models": _models(found, families),
        "new_model_power": dict(found.new_model_power),
        "paces": {
            name: {period: _round(pace) for period, pace in own.items()}
            for name, own in problem.paces(theta).items()
        },
    }
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)


def _models(found: _Found, families: Sequence[str]) -> dict[str, list[str]]:
    """Family → models of its rows; `any` has all."""
    labels = found.left.labels
    names = {name: sorted(set(labels.model[labels.family == name].tolist())) for name in families}
    return {**names, UNKNOWN: sorted(set(labels.model.tolist()))}


def _widened(pairs: Mapping[str, tuple[float, float]], powers: Mapping[str, float]):
    return {
        kind: widened(pair, powers["tpot_s" if kind == STEP else plain_of(kind)])
        for kind, pair in pairs.items()
    }


def _set(found: _Found, s: int, made: Parameters) -> str:
    problem, labels = found.problem, found.left.labels
    accelerator, engine, number_format = problem.sets[s]
    own = labels.set == s
    runs = sorted(set(problem.run[own].tolist()))
    parts = dict(problem.parts[s])
    start = problem.assumed[s]
    intervals = _intervals(found, parts["family"], found.residuals.labels.set == s, start)
    document = {
        "format": FORMAT,
        "accelerator": accelerator,
        "architecture": parts["architecture"],
        "platform": parts["platform"],
        "engine": engine,
        "number_format": number_format,
        "basis": "calibrated",
        "source": _source(found, runs),
        "date": _date(found, runs),
        "rows": len(runs),
        "models": sorted({problem.runs[i].model for i in runs}.union(start.models)),
        "values": {name: _round(getattr(made, name)) for name in BASE_FIELDS},
        "interval": _ends(intervals.pop(STEP)),
        "intervals": {kind: _ends(pair) for kind, pair in intervals.items()},
        "new_model_power": {
            kind: max(power, start.new_model_power.get(kind, 1.0))
            for kind, power in found.new_model_power.items()
        },
        "residuals": _residuals(found, own),
    }
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)


def _source(found: _Found, runs) -> dict[str, str]:
    sources = sorted({found.problem.runs[i].source for i in runs if found.problem.runs[i].source})
    return {
        "title": "own fit to " + ("; ".join(sources) or "rows without a source"),
        "where": found.about,
        "kind": "derived",
    }


def _date(found: _Found, runs) -> str:
    """Of the latest row."""
    dates = sorted({found.problem.runs[i].date for i in runs if found.problem.runs[i].date})
    return dates[-1][:10] if dates else ""


def _ends(pair: tuple[float, float]) -> dict[str, float]:
    return {"low_frac": _round(min(pair[0], 1.0)), "high_frac": _round(max(pair[1], 1.0))}


def _residuals(found: _Found, own: np.ndarray) -> dict[str, float]:
    """Median absolute error and bias of each kind, fitted and with the row's configuration left out."""
    kinds = np.array([plain_of(kind_of(name)) for name in FITTED_METRICS])[found.problem.metric]
    figures: dict[str, float] = {}
    for kind in sorted(set(kinds[own].tolist())):
        chosen = own & (kinds == kind)
        error, out = found.solution.errors[chosen], found.left.errors[CELL][chosen]
        figures[f"{kind}_median_error"] = _round(np.median(np.abs(np.expm1(error))))
        figures[f"{kind}_median_bias"] = _round(np.median(error))
        figures[f"{kind}_median_error_left_out"] = _round(np.median(np.abs(np.expm1(out))))
    return figures


def _round(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")
