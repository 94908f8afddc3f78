"""`moai-plan validate FILE`: predicted beside measured, error by group."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MOST_AS_PERCENT = 100.0
"""Relative errors above it are shown as factors."""
MOST_TOLERANCE = 2.0
"""A tolerance from 200 % on is a percentage without its sign."""
MOST_BEYOND = 5
"""Rows beyond the peaks that the note names."""


def validate(
    file: Annotated[Path, typer.Argument(help="Measurements table, or result of a benchmark tool.")],
    split: Annotated[str, typer.Option(help="Only rows of this split: calibrate, validate, sanity.")] = "",
    tolerance: Annotated[
        str, typer.Option(help='Exit 3 when the median error of a metric is above this ("10%").')
    ] = "",
    model: Annotated[str, typer.Option(help="Result files: the model that was served.")] = "",
    on: Annotated[str, typer.Option(help="Result files: the accelerator.")] = "",
    tp: Annotated[int, typer.Option(min=1, help="Result files: tensor-parallel devices.")] = 1,
    dp: Annotated[int, typer.Option(min=1, help="Result files: data-parallel ranks.")] = 1,
    ep: Annotated[int, typer.Option(min=1, help="Result files: ranks that hold different experts.")] = 1,
    replicas: Annotated[int, typer.Option(min=1, help="Result files: engine instances.")] = 1,
    engine: Annotated[str, typer.Option(help="Result files: the engine.")] = "vllm",
    precision: Annotated[str, typer.Option(help="Result files: precision of the weights.")] = "",
    rows: Annotated[bool, typer.Option("--rows", help="Also show every row.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Predict measured runs and show the error by source, model, accelerator, topology and metric."""
    from moai_planner.accuracy.compare import as_json, pairs_of, unpredicted
    from moai_planner.accuracy.peaks import beyond_peaks
    from moai_planner.accuracy.prepare import prepare
    from moai_planner.accuracy.result_files import Setup, is_table, read_any
    from moai_planner.accuracy.run import Measurements
    from moai_planner.catalog.accelerators import accelerator, accelerator_named
    from moai_planner.catalog.models import model as model_of
    from moai_planner.catalog.parameters import parameters_for
    from moai_planner.cli.measured_profiles import profile_for
    from moai_planner.cli.output import print_json

    setup = Setup(model, on.lower(), engine.lower(), precision, tp, dp, replicas, ep)
    limit = _check_options(split, tolerance, setup, is_table(file))
    measurements = read_any(file, setup, accelerator_named)
    runs = tuple(run for run in measurements.runs if split in ("", run.split))
    unreadable = tuple(row for row in measurements.unsupported if split in ("", row.split))
    _check_split(file, split, measurements, len(runs) + len(unreadable))
    prepared = prepare(runs, model_of, accelerator, parameters_for, profile_for)
    pairs = pairs_of(prepared)
    unsupported = (*unreadable, *prepared.unsupported, *unpredicted(prepared, pairs))
    beyond = beyond_peaks(prepared)
    _notes(Measurements(prepared.runs, (), measurements.ignored), pairs)
    _note_assumed(prepared)
    _note_paces(prepared)
    _note_own(prepared)
    _note_beyond(beyond)
    if json:
        print_json(as_json(pairs, unsupported, beyond, prepared.runs))
    else:
        _show(pairs, unsupported, len(runs) + len(unreadable), rows)
    if limit is not None:
        _judge(pairs, limit)


def _check_options(split: str, tolerance: str, setup, table: bool) -> float | None:
    """Every problem of the flags at once. The tolerance, None without one."""
    from moai_planner.accuracy.result_files import Setup
    from moai_planner.accuracy.run import SPLITS
    from moai_planner.catalog.accelerators import accelerator
    from moai_planner.catalog.models import model
    from moai_planner.catalog.yaml_file import near
    from moai_planner.domain.errors import InputError, Problem
    from moai_planner.domain.precision import PRECISIONS
    from moai_planner.domain.units import UnitError, parse

    problems: list[Problem] = []
    limit = None
    if split and split not in SPLITS:
        problems.append(Problem("--split", "", split, f"write one of {', '.join(SPLITS)}"))
    try:
        limit = parse(tolerance, "frac") if tolerance else None
        if limit is not None and limit >= MOST_TOLERANCE and "%" not in tolerance:
            problems.append(Problem("--tolerance", "", tolerance, 'write a share, like 0.1 or "10%"'))
    except UnitError as error:
        problems.append(Problem("--tolerance", "", tolerance, str(error)))
    if table and setup != Setup(engine="vllm", tp=1, dp=1, ep=1, replicas=1):
        remedy = "leave these out: each row of a table names its own"
        problems.append(Problem("--model, --on, --tp …", "", "only for result files", remedy))
    for flag, name, find in (("--on", setup.accelerator, accelerator), ("--model", setup.model, model)):
        try:
            if name and not table:
                find(name, flag)
        except InputError as error:
            problems += error.problems
    if setup.precision and setup.precision not in PRECISIONS:
        problems.append(Problem("--precision", "", setup.precision, near(setup.precision, PRECISIONS)))
    if problems:
        raise InputError(problems)
    return limit


def _check_split(file: Path, split: str, measurements, found: int) -> None:
    from moai_planner.domain.errors import InputError, Problem

    if found:
        return
    every = (*measurements.runs, *measurements.unsupported)
    there = sorted({row.split or "none" for row in every})
    raise InputError(Problem(str(file), "split", split, f"no row has it; there is {', '.join(there)}"))


def _notes(measurements, pairs) -> None:
    """What was left aside or carried over, on stderr."""
    from collections import Counter

    from moai_planner.accuracy.prepare import PROMPT_BUDGET_TOKENS
    from moai_planner.catalog.yaml_file import near
    from moai_planner.cli.output import note

    if measurements.ignored:
        note(f"columns that nothing here reads: {', '.join(measurements.ignored)}")
    known = sorted(PROMPT_BUDGET_TOKENS)
    used = Counter(workers.engine for run in measurements.runs for workers in run.workers)
    for engine, count in sorted(used.items()):
        if engine not in known:
            hint = near(engine, known)
            note(f"engine {engine} ({count} rows) is not known: predicted without its habits ({hint})")
    answered = {(pair.run.id, pair.metric) for pair in pairs}
    left = Counter(
        name for run in measurements.runs for name in run.metrics if (run.id, name) not in answered
    )
    if left:
        shown = ", ".join(f"{name} ({count})" for name, count in sorted(left.items()))
        note(f"measured, but not predicted (rows): {shown}")


def _note_assumed(prepared) -> None:
    """What rows leave open, on stderr: each kind once, its numbers left out."""
    import re
    from collections import Counter

    from moai_planner.cli.output import note

    kinds: dict[str, Counter] = {}
    for run in prepared.runs:
        for text in dict.fromkeys(run.assumed):
            kind = re.sub(r"(?<![\w.-])\d+(\.\d+)?(?![\w.-])", "N", text)
            kinds.setdefault(kind, Counter())[text] += 1
    if kinds:
        shown = "; ".join(
            f"{kind if len(texts) > 1 else next(iter(texts))} ({_rows(texts.total())})"
            for kind, texts in sorted(kinds.items())
        )
        note(f"assumed where rows say nothing (each with --json): {shown}")


def _note_paces(prepared) -> None:
    """Which runs were predicted as of their date."""
    from moai_planner.accuracy.pace import paces_of
    from moai_planner.cli.output import note

    paced = [pace for pace in paces_of(prepared) if pace != 1.0]
    if paced:
        note(
            f"predicted as of their date: {_rows(len(paced))}, with times of {min(paced):.2f} to "
            f"{max(paced):.2f} of what the engines take today"
        )


def _note_own(prepared) -> None:
    """Which predictions the user's own rows corrected."""
    from moai_planner.cli.output import note
    from moai_planner.domain.parameters import OWN_ROWS

    notes = [c.parameters.note for c in prepared.decoders if c.parameters.note.startswith(OWN_ROWS)]
    if notes:
        note(f"predicted with sets of own rows: {_rows(len(notes))} ({'; '.join(sorted(set(notes)))})")


def _note_beyond(beyond) -> None:
    """Rows that cannot be what they say, on stderr; they count like all others."""
    from moai_planner.cli.output import note
    from moai_planner.domain.units import MILLI

    if not beyond:
        return
    shown = [
        f"{one.run.id} ({one.tpot_s / MILLI:.4g} ms a token, {one.least_s / MILLI:.4g} at least: {one.limit})"
        for one in beyond[:MOST_BEYOND]
    ]
    if len(beyond) > MOST_BEYOND:
        shown.append("… (all with --json)")
    note(f"faster than the device's peaks allow as described: {_rows(len(beyond))}: {', '.join(shown)}")


def _rows(count: int) -> str:
    return f"{count} row" if count == 1 else f"{count} rows"


def _judge(pairs, limit: float) -> None:
    """Exit 3 when a metric misses the tolerance, or none could be compared."""
    from moai_planner.accuracy.compare import group
    from moai_planner.cli.output import note

    missed = [g for g in group(pairs, lambda pair: (pair.metric,)) if g.median_ape > limit]
    for g in missed:
        note(f"no: the median error of {g.labels[0]} is {_percent(g.median_ape)}, above {limit:.3g}")
    if not pairs:
        note("no: nothing could be compared")
    if missed or not pairs:
        raise typer.Exit(3)


def _show(pairs, unsupported, total: int, every: bool) -> None:
    from collections import Counter

    from moai_planner.accuracy.compare import GROUP_LABELS, group, group_labels
    from moai_planner.cli.output import print_table, print_text

    if every:
        columns = ("id", "metric", "measured", "predicted", "low", "high", "basis")
        print_table("Rows", columns, [_row(pair) for pair in pairs])
    columns = (*GROUP_LABELS, "n", "MAPE", "median", "bias", "coverage")
    print_table("Error by group", columns, [_cells(g) for g in group(pairs, group_labels)])
    summary = [_cells(g) for g in group(pairs, lambda p: (p.run.split, p.metric))]
    print_table("All together", ("split", "metric", "n", "MAPE", "median", "bias", "coverage"), summary)
    counted = f"{_rows(total)}: {total - len(unsupported)} predicted, {len(unsupported)} not."
    if not unsupported:
        print_text(counted)
        return
    reasons = Counter((row.source, row.reason) for row in unsupported)
    print_table(
        "Not predicted",
        ("source", "reason", "rows", "for example"),
        [
            (*key, count, next(row.id for row in unsupported if (row.source, row.reason) == key))
            for key, count in sorted(reasons.items())
        ],
        notes=(counted,),
    )


def _cells(g) -> tuple:
    return (
        *g.labels,
        g.n,
        _percent(g.mape),
        _percent(g.median_ape),
        _percent(g.bias, "+"),
        f"{g.coverage:.0%}",
    )


def _percent(error: float, sign: str = "") -> str:
    return f"{error:{sign}.1%}" if abs(error) < MOST_AS_PERCENT else f"x {error:{sign}.3g}"


def _row(pair) -> tuple:
    numbers = (pair.measured, pair.predicted, pair.low, pair.high)
    return (pair.run.id, pair.metric, *(f"{number:.4g}" for number in numbers), pair.basis)
