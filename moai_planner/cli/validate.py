"""`moai-plan validate FILE`: predicted beside measured, error by group."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

FEW = 20


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
    replicas: Annotated[int, typer.Option(min=1, help="Result files: engine instances.")] = 1,
    engine: Annotated[str, typer.Option(help="Result files: the engine.")] = "vllm",
    precision: Annotated[str, typer.Option(help="Result files: precision of the weights.")] = "",
    rows: Annotated[bool, typer.Option("--rows", help="Also show every row.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Predict measured runs and show the error by source, model, accelerator, topology and metric."""
    from moai_planner.accuracy.compare import as_json, group, pairs_of, unpredicted
    from moai_planner.accuracy.prepare import prepare
    from moai_planner.accuracy.result_files import Setup, read_any
    from moai_planner.accuracy.run import SPLITS
    from moai_planner.catalog.accelerators import accelerator
    from moai_planner.catalog.models import model as model_of
    from moai_planner.catalog.parameters import parameters_for
    from moai_planner.cli.output import print_json
    from moai_planner.domain.errors import InputError, Problem

    limit = _tolerance(tolerance)
    if split and split not in SPLITS:
        raise InputError(Problem("--split", "", split, f"write one of {', '.join(SPLITS)}"))
    measurements = read_any(file, Setup(model, on, engine, precision, tp, dp, replicas))
    runs = [run for run in measurements.runs if split in ("", run.split)]
    unreadable = [row for row in measurements.unsupported if split in ("", row.split)]
    prepared = prepare(runs, model_of, accelerator, parameters_for)
    pairs = pairs_of(prepared)
    unsupported = (*unreadable, *prepared.unsupported, *unpredicted(prepared, pairs))
    if json:
        print_json(as_json(pairs, unsupported))
    else:
        _show(pairs, unsupported, len(runs) + len(unreadable), rows)
    if limit is not None:
        worst = [g for g in group(pairs, lambda pair: (pair.metric,)) if g.median_ape > limit]
        if worst:
            raise typer.Exit(3)


def _tolerance(text: str) -> float | None:
    from moai_planner.domain.errors import InputError, Problem
    from moai_planner.domain.units import UnitError, parse

    if not text:
        return None
    try:
        return parse(text, "frac")
    except UnitError as error:
        raise InputError(Problem("--tolerance", "", text, str(error))) from error


def _show(pairs, unsupported, total: int, every: bool) -> None:
    from collections import Counter

    from moai_planner.accuracy.compare import GROUP_LABELS, group, group_labels
    from moai_planner.cli.output import print_table

    if every:
        columns = ("id", "metric", "measured", "predicted", "low", "high", "basis")
        print_table("Rows", columns, [_row(pair) for pair in pairs])
    columns = (*GROUP_LABELS, "n", "MAPE", "median", "bias", "coverage")
    print_table("Error by group", columns, [_cells(g) for g in group(pairs, group_labels)])
    summary = [_cells(g) for g in group(pairs, lambda p: (p.run.split, p.metric))]
    print_table("All together", ("split", "metric", "n", "MAPE", "median", "bias", "coverage"), summary)
    reasons = Counter((row.source, row.reason) for row in unsupported)
    print_table(
        "Not predicted",
        ("source", "reason", "rows", "for example"),
        [
            (*key, count, next(row.id for row in unsupported if (row.source, row.reason) == key))
            for key, count in sorted(reasons.items())
        ],
        notes=(f"{total} rows: {total - len(unsupported)} predicted, {len(unsupported)} not.",),
    )


def _cells(g) -> tuple:
    return (
        *g.labels,
        g.n,
        f"{g.mape:.1%}",
        f"{g.median_ape:.1%}",
        f"{g.bias:+.1%}",
        f"{g.coverage:.0%}",
    )


def _row(pair) -> tuple:
    numbers = (pair.measured, pair.predicted, pair.low, pair.high)
    return (pair.run.id, pair.metric, *(f"{number:.4g}" for number in numbers), pair.basis)
