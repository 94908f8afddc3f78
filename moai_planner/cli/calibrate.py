"""`moai-plan calibrate MEASUREMENTS.csv`: fit the calibrated parameters and write them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

STATE = ".calibration.json"


def calibrate(
    file: Annotated[Path, typer.Argument(help="Measurements table (.csv or .csv.gz).")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the files; default: the data root's calibrated set.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Fit and show; write nothing.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget families an earlier run finished.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Fit shared parameters per engine and platform on the rows marked `calibrate`."""
    from moai_planner.accuracy.calibrate import Sources, calibration_steps, own_runs, stored_of
    from moai_planner.accuracy.families import FAMILIES
    from moai_planner.accuracy.fit import calibration_runs
    from moai_planner.accuracy.measurements import read_measurements
    from moai_planner.catalog.accelerators import accelerator
    from moai_planner.catalog.models import model
    from moai_planner.catalog.parameters import FOLDER, assumed_for, clear_cache
    from moai_planner.catalog.paths import data_root
    from moai_planner.cli.output import note, print_json, progress, write_text
    from moai_planner.domain.errors import InputError, Problem

    folder = out or data_root() / FOLDER / "calibrated"
    if not dry_run and not folder.is_dir():
        raise InputError(Problem("--out", "", str(folder), "give a folder that exists"))
    runs = calibration_runs(read_measurements(file))
    if not runs.runs:
        raise InputError(Problem(str(file), "split", "", "mark the rows to fit with split = calibrate"))
    sources = Sources(model, accelerator, assumed_for)
    state = {} if fresh or dry_run else _read_state(folder / STATE)
    steps = []
    about = f"{file.name.removesuffix('.gz')}, split calibrate"
    with progress(len(FAMILIES), "calibrate") as advance:
        for step in calibration_steps(runs, sources, about, _stored(state)):
            advance(note=step.fit.family.name)
            steps.append(step)
            if not dry_run:
                for name, text in step.files.items():
                    write_text(folder / name, text)
                if not step.resumed:
                    state[step.fit.family.name] = stored_of(step, own_runs(step.fit.family, runs, sources))
                    write_text(folder / STATE, _dump(state))
    clear_cache()
    if not dry_run:
        note(f"{sum(len(step.files) for step in steps)} files in {folder}")
        (folder / STATE).unlink(missing_ok=True)
    if json:
        print_json(_document(steps))
    else:
        _show(steps)


def _read_state(path: Path) -> dict:
    import json

    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _dump(state: dict) -> str:
    import json

    return json.dumps(state, indent=1) + "\n"


def _stored(state: dict) -> dict:
    from moai_planner.accuracy.calibrate import stored_from

    return {name: stored_from(document) for name, document in state.items()}


FIGURES = ("left out", "kind", "n", "median error", "bias")


def _document(steps) -> dict:
    return {
        "families": [
            {
                "family": step.fit.family.name,
                "rows": len(step.fit.runs),
                "files": sorted(step.files),
                "errors": [
                    dict(zip(("left_out", "kind", "n", "median_ape", "bias"), f, strict=True))
                    for f in step.figures
                ],
            }
            for step in steps
        ]
    }


def _show(steps) -> None:
    from moai_planner.cli.output import print_table

    rows = [
        (step.fit.family.name, *figures[:3], f"{figures[3]:.1%}", f"{figures[4]:+.1%}")
        for step in steps
        for figures in step.figures
    ]
    print_table("Errors of the fit, and with each group left out", ("family", *FIGURES), rows)
    for step in steps:
        print_table(
            f"{step.fit.family.name}: {len(step.fit.runs)} rows",
            ("file",),
            [(name,) for name in sorted(step.files)],
        )
