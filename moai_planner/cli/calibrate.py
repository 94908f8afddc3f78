"""`moai-plan calibrate MEASUREMENTS.csv`: fit the calibrated parameters and write them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

STATE = ".calibration.json"
BEFORE = "calibrated.before"
"""Beside the set that every prediction uses: what it was before the latest calibration."""


def calibrate(
    file: Annotated[Path, typer.Argument(help="Measurements table (.csv or .csv.gz).")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the files; default: the set that predictions use."),
    ] = None,
    own: Annotated[
        bool,
        typer.Option(
            "--own",
            help="Keep the calibrated set; correct it for the devices, engines and formats of these rows.",
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Fit and show; write nothing.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what an earlier run finished.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Fit shared parameters per engine and platform on the rows marked `calibrate`."""
    from dataclasses import replace

    from moai_planner.accuracy.calibrate import (
        Sources,
        advance,
        outcome_of,
        plan_of,
        resumed,
        stored,
    )
    from moai_planner.accuracy.fit import calibration_runs
    from moai_planner.accuracy.measurements import read_measurements
    from moai_planner.accuracy.parameter_files import SHARED_FILE
    from moai_planner.catalog.accelerators import accelerator
    from moai_planner.catalog.models import model
    from moai_planner.catalog.parameters import FOLDER, OWN, assumed_for, clear_cache, published_for
    from moai_planner.catalog.paths import data_root
    from moai_planner.cli.output import note, print_json, progress, write_text
    from moai_planner.domain.errors import InputError, Problem

    folder = out or data_root() / FOLDER / (OWN if own else "calibrated")
    if not dry_run and not folder.is_dir() and (out or not own):
        raise InputError(Problem("--out", "", str(folder), "give a folder that exists"))
    measurements = read_measurements(file)
    runs = calibration_runs(measurements)
    if not runs.runs:
        raise InputError(Problem(str(file), "split", "", "mark the rows to fit with split = calibrate"))
    sources = Sources(model, accelerator, published_for if own else assumed_for)
    runs, left_out = _fit_for_use(runs, sources)
    _note_engines(runs.runs)
    _note_left_out([row for row in measurements.unsupported if row.split == "calibrate"] + left_out)
    if not runs.runs:
        found = f"{len(left_out)} rows marked calibrate, none of them predictable"
        raise InputError(Problem(str(file), "split", found, "mark rows that `validate` can predict"))
    if out is None and not own and not dry_run:
        note(
            f"replaces the calibrated set in {folder}; what is there now is kept in {BEFORE} beside it "
            "(to keep and correct it: --own)"
        )
    plan = plan_of(runs, sources)
    if own and not out and not dry_run:
        folder.mkdir(exist_ok=True)
    start = done = resumed(plan, None if fresh or dry_run else _read_state(folder / STATE))
    with progress(plan.steps, "calibrate") as step:
        for done in advance(plan, start):
            step(note=done.last or f"{1 + len(done.refitted)} steps done before")
            if not dry_run:
                write_text(folder / STATE, _dump(stored(plan, done)))
    outcome = outcome_of(plan, done, f"{file.name.removesuffix('.gz')}, split calibrate")
    if own:
        outcome = replace(outcome, files={k: v for k, v in outcome.files.items() if k != SHARED_FILE})
    clear_cache()
    if not dry_run:
        if out is None and not own:
            _keep(folder, folder.with_name(BEFORE))
        if own:
            _note_replaced(folder, outcome.files)
        elif out is None:
            _note_own_first(folder.with_name(OWN), outcome.files)
        for name, text in outcome.files.items():
            write_text(folder / name, text)
        note(_written(folder, outcome.files))
        (folder / STATE).unlink(missing_ok=True)
    if json:
        print_json(_document(outcome))
    else:
        _show(outcome)


def _fit_for_use(runs, sources):
    """Runs that a prediction can be made of and that the device allows, and the others with their reasons."""
    from moai_planner.accuracy.peaks import beyond_peaks
    from moai_planner.accuracy.prepare import prepare
    from moai_planner.accuracy.run import Unsupported

    prepared = prepare(runs.runs, sources.model_of, sources.accelerator_of, sources.assumed_of)
    too_fast = [
        Unsupported(one.run.id, one.run.source, one.run.split, f"faster than the device's peaks: {one.limit}")
        for one in beyond_peaks(prepared)
    ]
    left_out = [*prepared.unsupported, *too_fast]
    gone = {row.id for row in left_out}
    return runs.keep(lambda run: run.id not in gone), left_out


def _note_engines(runs) -> None:
    from moai_planner.accuracy.prepare import PROMPT_BUDGET_TOKENS
    from moai_planner.catalog.yaml_file import near
    from moai_planner.cli.output import note

    known = sorted(PROMPT_BUDGET_TOKENS)
    for engine in sorted({workers.engine for run in runs for workers in run.workers} - set(known)):
        hint = near(engine, known)
        note(f"engine {engine} is not known: fitted as one of its own, without its habits ({hint})")


def _note_left_out(rows) -> None:
    from collections import Counter

    from moai_planner.cli.output import note

    for reason, count in sorted(Counter(row.reason for row in rows).items()):
        example = next(row.id for row in rows if row.reason == reason)
        note(f"left out of the fit: {count} row{'s' * (count > 1)}, {reason} (for example {example})")


def _note_replaced(folder: Path, files) -> None:
    from moai_planner.cli.output import note

    again = sorted(name for name in files if (folder / name).exists())
    if again:
        note(f"in place of what earlier own rows gave: {', '.join(again)}")


def _note_own_first(folder: Path, files) -> None:
    from moai_planner.cli.output import note

    hidden = sorted(name for name in files if (folder / name).exists())
    if hidden:
        note(f"own sets in {folder} go before these: {', '.join(hidden)} (delete them to use the new ones)")


def _keep(folder: Path, before: Path) -> None:
    import shutil

    shutil.rmtree(before, ignore_errors=True)
    shutil.copytree(folder, before, ignore=shutil.ignore_patterns(STATE))


def _written(folder: Path, names) -> str:
    others = sorted(path.name for path in folder.glob("*.yaml") if path.name not in names)
    stay = f"; {len(others)} others there stay as they are: {', '.join(others)}" if others else ""
    return f"{len(names)} files in {folder}{stay}"


def _read_state(path: Path) -> dict | None:
    import json

    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) else None


def _dump(state: dict) -> str:
    import json

    return json.dumps(state, indent=1) + "\n"


def _document(outcome) -> dict:
    """Families with their errors, and the files."""
    from dataclasses import asdict

    families: dict[str, list[dict]] = {}
    for figure in outcome.figures:
        fields = asdict(figure)
        families.setdefault(fields.pop("family"), []).append(fields)
    return {
        "families": [{"family": name, "errors": errors} for name, errors in families.items()],
        "files": sorted(outcome.files),
    }


FIGURES = ("family", "left out", "kind", "n", "median error", "bias")


def _show(outcome) -> None:
    from moai_planner.cli.output import print_table

    rows = [
        (f.family, f.left_out, f.kind, f.n, f"{f.median_ape:.1%}", f"{f.bias:+.1%}") for f in outcome.figures
    ]
    print_table("Errors of the fit, and with each group left out", FIGURES, rows)
    print_table("Files", ("file",), [(name,) for name in sorted(outcome.files)])
