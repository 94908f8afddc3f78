"""What each fitted field is worth: left-out errors with it and without it, for the vLLM families.

python benchmarks/ablation.py MEASUREMENTS.csv[.gz]      # writes docs/accuracy/ablations.md
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from moai_planner.accuracy.families import BASE_FIELDS, FAMILIES
from moai_planner.accuracy.fit import (
    GROUPINGS,
    FamilyFit,
    calibration_runs,
    errors_without,
    fit_family,
    held_out_errors,
    runs_of,
)
from moai_planner.accuracy.measurements import read_measurements
from moai_planner.catalog.accelerators import accelerator
from moai_planner.catalog.models import model
from moai_planner.catalog.parameters import assumed_for
from moai_planner.cli.output import note, write_text

OUT = Path(__file__).resolve().parent.parent / "docs" / "accuracy" / "ablations.md"
FIGURE_GROUPS = ("model", "accelerator")


def main(file: Path) -> None:
    runs = calibration_runs(read_measurements(file))
    known: dict[tuple[str, str], FamilyFit] = {}
    lines = []
    for family in FAMILIES[:2]:
        own = runs_of(family, runs, accelerator)
        fit = fit_family(family, own, known, model, accelerator, assumed_for)
        known[family.key] = fit
        note(f"{family.name}: {len(fit.runs)} runs")
        for name in BASE_FIELDS:
            if name in fit.optimum.fields:
                cells = (f"{without:.1%} ({without - with_it:+.1%})" for with_it, without in worth(fit, name))
                lines.append(f"| {family.name} | {name} | " + " | ".join(cells) + " |")
    head = (
        "Mean absolute log error of TPOT (errors above one count as one) with a model or a device left out, "
        "when a field keeps its assumed value; in brackets the change. Positive = the field earns its place. "
        "To first order around the fit. Two more fields were fitted until they gained nothing in either "
        "family and are gone: `expert_spread_frac` and `host_kernel_s`. Fields of transfers, exchanges and "
        "drafts gain in families whose rows use them.\n\n"
        "| family | field | one model out | one device out |\n| --- | --- | ---: | ---: |\n"
    )
    write_text(OUT, head + "\n".join(lines) + "\n")


def worth(fit: FamilyFit, name: str):
    """(with, without) the field, one pair a grouping."""
    tpot = np.array([metric.startswith("tpot") for metric in fit.residuals.metric])
    jacobian, residual, error = errors_without(fit, name)
    for grouping in FIGURE_GROUPS:
        labels = [GROUPINGS[grouping](fit.runs[i]) for i in fit.residuals.run]
        without = held_out_errors(jacobian, residual, error, fit.optimum.weight, labels)
        yield _figure(fit.residuals.held_out[grouping][tpot]), _figure(without[tpot])


def _figure(errors: np.ndarray) -> float:
    return float(np.mean(np.minimum(np.abs(errors), 1.0)))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
