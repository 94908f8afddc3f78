"""What each fitted field is worth: left-out errors with it and without it, family by family.

python benchmarks/ablation.py MEASUREMENTS.csv[.gz]      # writes docs/accuracy/ablations.md
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from moai_planner.accuracy.calibrate import Plan, Sources, advance, plan_of
from moai_planner.accuracy.families import BASE_FIELDS
from moai_planner.accuracy.fit import Solution, calibration_runs, normal_matrix, precision
from moai_planner.accuracy.joint import FITTED_METRICS, PACE
from moai_planner.accuracy.leave_out import DEVICE, MODEL, Group, excluded, members, refit
from moai_planner.accuracy.measurements import read_measurements
from moai_planner.catalog.accelerators import accelerator
from moai_planner.catalog.models import model
from moai_planner.catalog.parameters import assumed_for
from moai_planner.cli.output import note, progress, write_text

OUT = Path(__file__).resolve().parent.parent / "docs" / "accuracy" / "ablations.md"
LEVEL_TITLES = {MODEL: "one model out", DEVICE: "one device out"}
FIELDS = (*BASE_FIELDS, PACE)
FIRST_TOKEN_FIELDS = ("host_kernel_s", "request_s", "warmup_s")
"""Fields that act on the time to the first token most."""
WORST = 1.0
"""Errors (log) above this count as this."""


def main(file: Path) -> None:
    plan = plan_of(calibration_runs(read_measurements(file)), Sources(model, accelerator, assumed_for))
    full = next(advance(plan))
    solution = Solution(full.theta, plan.problem.errors(full.theta))
    slopes = plan.problem.jacobian(full.theta)
    errors = {
        (grouping, name): np.zeros(len(plan.problem.run))
        for grouping in LEVEL_TITLES
        for name in ("", *FIELDS)
    }
    groups = [group for group in plan.groups if group.grouping in LEVEL_TITLES]
    with progress(len(groups), "ablation") as step:
        for group in groups:
            rows = members(plan.labels, group)
            left = refit(plan.problem, plan.labels, solution, slopes, group)
            for name, found in without_each(plan, left, group):
                errors[group.grouping, name][rows] = found[rows]
            step(note=f"{group.grouping} {group.name}")
    write_text(OUT, _text(plan, errors))
    note(str(OUT))


def without_each(plan: Plan, left: Solution, group: Group):
    r"""(field, errors) of a left-out fit had the field kept its assumed value everywhere.

    Holding the columns S at zero moves the others of the optimum by
    :math:`\delta = -N^{-1}_{:,S} (N^{-1}_{S,S})^{-1} \theta_S` with the normal matrix N (to first order).
    """
    problem = plan.problem
    yield "", left.errors
    slopes = problem.jacobian(left.theta)
    weights = np.where(excluded(plan.labels, group), 0.0, precision(problem, left.errors))
    inverse = np.linalg.inv(normal_matrix(problem, slopes, weights))
    for name in FIELDS:
        held = np.array([field == name for _, field in problem.columns])
        shift = -inverse[:, held] @ np.linalg.solve(inverse[np.ix_(held, held)], left.theta[held])
        yield name, left.errors + slopes @ shift


def _text(plan: Plan, errors) -> str:
    return (
        "Change of the mean absolute log error of TPOT and throughput (errors above one count as one) of "
        "calibration rows with a model or a device left out, when a field keeps its assumed value "
        "everywhere. Positive = the field earns its place. Left-out fits are real refits; the field is held "
        "to first order around each. Fields of exchanges and drafts gain in families whose rows "
        "use them. Fields that gained nothing in any family are not fitted and keep their assumed values: "
        "`transfer_s`, `transfer_bandwidth_frac`, `staged_bandwidth_frac` and "
        "`all_to_all_bandwidth_frac`.\n\n"
        f"{_table(plan, errors, ('tpot', 'total_tps_per'), FIELDS)}\n"
        "The same of the time to the first token, for the fields that act on it most:\n\n"
        f"{_table(plan, errors, ('ttft',), FIRST_TOKEN_FIELDS)}"
    )


def _table(plan: Plan, errors, metrics: tuple[str, ...], names: tuple[str, ...]) -> str:
    labels = plan.labels
    rows = np.array([name.startswith(metrics) for name in FITTED_METRICS])[plan.problem.metric]
    families = sorted(set(labels.family[rows].tolist()))
    lines = []
    for name in names:
        for grouping, title in LEVEL_TITLES.items():
            cells = []
            for family in ("", *families):
                own = rows & (labels.family == family) if family else rows
                cells.append(_size(errors[grouping, name][own]) - _size(errors[grouping, ""][own]))
            lines.append(f"| {name} | {title} | " + " | ".join(f"{cell:+.2%}" for cell in cells) + " |")
    columns = ("field", "left out", "all", *families)
    table = f"| {' | '.join(columns)} |\n| --- | --- | " + " | ".join("---:" for _ in columns[2:]) + " |\n"
    return table + "\n".join(lines) + "\n"


def _size(errors: np.ndarray) -> float:
    return float(np.mean(np.minimum(np.abs(errors), WORST)))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
