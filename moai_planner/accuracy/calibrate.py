"""Measurements → parameter files, family by family, resumable.

for step in calibration_steps(runs, ...):      # parents first
    step.files                                 # name → text, ready to write

A finished family's corrections may be handed back in (`done`), so an interrupted run goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from moai_planner.accuracy.families import BASE_FIELDS, FAMILIES, Family
from moai_planner.accuracy.fit import CalibrationRuns, FamilyFit, fit_family, runs_of
from moai_planner.accuracy.intervals import kind_of
from moai_planner.accuracy.parameter_files import files_of
from moai_planner.accuracy.prepare import AcceleratorOf, ModelOf, ParametersOf

DIGEST_CHARACTERS = 16
CORRECTION_DIGITS = 6


@dataclass(frozen=True)
class Sources:
    """Where models, devices and assumed parameters come from."""

    model_of: ModelOf
    accelerator_of: AcceleratorOf
    assumed_of: ParametersOf


@dataclass(frozen=True, eq=False)
class FamilyStep:
    """One family, fitted or taken from an earlier run."""

    fit: FamilyFit
    files: Mapping[str, str]
    figures: tuple[tuple[str, str, int, float, float], ...]
    "(left out, kind, n, median error, bias): what the fit does, and does without a group."
    resumed: bool


@dataclass(frozen=True)
class Stored:
    """What an earlier run left for a family."""

    digest: str
    base: tuple[float, ...]
    files: Mapping[str, str]
    figures: tuple[tuple[str, str, int, float, float], ...]


def digest_of(runs: CalibrationRuns) -> str:
    """Identity of the rows that a fit sees (and of nothing else in the file)."""
    text = json.dumps([repr(run) for run in runs.runs])
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_CHARACTERS]


def calibration_steps(
    runs: CalibrationRuns, sources: Sources, about: str, stored: Mapping[str, Stored] | None = None
) -> Iterator[FamilyStep]:
    """Fit every family that has runs, parents before children."""
    known: dict[tuple[str, str], FamilyFit] = {}
    for family in FAMILIES:
        own = runs_of(family, runs, sources.accelerator_of)
        before = (stored or {}).get(family.name)
        if before is not None and before.digest == digest_of(own):
            known[family.key] = FamilyFit(family, np.array(before.base), {}, {}, own.runs)
            yield FamilyStep(known[family.key], before.files, before.figures, True)
            continue
        fit = fit_family(family, own, known, sources.model_of, sources.accelerator_of, sources.assumed_of)
        fit = _rounded(fit)
        known[family.key] = fit
        if fit.runs:
            files = files_of(fit, sources.model_of, sources.accelerator_of, sources.assumed_of, about)
            yield FamilyStep(fit, files, figures_of(fit), False)


def _rounded(fit: FamilyFit) -> FamilyFit:
    """Children start from stored numbers, so fresh and resumed runs must see the same ones."""
    from dataclasses import replace

    return replace(fit, base=np.round(fit.base, CORRECTION_DIGITS))


def figures_of(fit: FamilyFit) -> tuple[tuple[str, str, int, float, float], ...]:
    """Median absolute error and median bias by kind: fitted, and with each group left out."""
    residuals = fit.residuals
    kinds = np.array([kind_of(name) for name in residuals.metric])
    found = []
    for label, errors in (("nothing", residuals.error), *residuals.held_out.items()):
        for kind in sorted(set(kinds.tolist())):
            own = errors[kinds == kind]
            size = float(np.median(np.abs(np.expm1(own))))
            found.append((label, kind, len(own), round(size, 4), round(float(np.median(own)), 4)))
    return tuple(found)


def stored_of(step: FamilyStep, own: CalibrationRuns) -> dict:
    """What to keep so that the family need not be fitted again."""
    return {
        "digest": digest_of(own),
        "base": dict(zip(BASE_FIELDS, step.fit.base.tolist(), strict=True)),
        "files": dict(step.files),
        "figures": [list(row) for row in step.figures],
    }


def stored_from(document: Mapping) -> Stored:
    """The same read back."""
    return Stored(
        digest=document["digest"],
        base=tuple(document["base"][name] for name in BASE_FIELDS),
        files=document["files"],
        figures=tuple(tuple(row) for row in document["figures"]),
    )


def own_runs(family: Family, runs: CalibrationRuns, sources: Sources) -> CalibrationRuns:
    """The runs a family is fitted to."""
    return runs_of(family, runs, sources.accelerator_of)
