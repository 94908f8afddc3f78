"""Shipped operator timings: `hardware_profiles/operators/<accelerator>/<engine>-<version>`, read strictly.

meta.yaml names the tables; each is a CSV of one model's layers at one tensor degree, written by
`benchmarks/operator_profiles.py`. A table answers for a model of the same layer sizes and number format
on the same accelerator and engine; the number of layers is free.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from moai_planner.catalog.accelerators import accelerator
from moai_planner.catalog.models import model as shipped_model
from moai_planner.catalog.parameters import assumed_for
from moai_planner.catalog.paths import data_root
from moai_planner.catalog.validation import Strict, validate
from moai_planner.catalog.yaml_file import read_yaml
from moai_planner.domain.errors import InputError, Problem
from moai_planner.domain.layout import Layout
from moai_planner.domain.model import Model
from moai_planner.domain.operators import Grid, OperatorTable
from moai_planner.domain.precision import PRECISIONS, Precision
from moai_planner.domain.provenance import Source
from moai_planner.domain.units import MICRO

FOLDER = "hardware_profiles/operators"
AXES = {
    "layer": ("tokens",),
    "tail": ("tokens",),
    "head": ("sequences",),
    "decode": ("sequences", "context"),
    "prompt": ("tokens", "context"),
    "mixed": ("tokens", "sequences", "context"),
    "spread": ("sequences",),
    "experts": ("tokens", "experts"),
}
"""Operator → columns it is tabled over."""


class TableEntry(Strict):
    """What one CSV holds."""

    model: str
    tp: int
    precision: str


class SourceEntry(Strict):
    title: str
    where: str = ""
    kind: str = ""


class Meta(Strict):
    """meta.yaml of a folder."""

    format: Literal["moai-operators/1"]
    accelerator: str
    engine: str
    engine_version: str
    source: SourceEntry
    tables: dict[str, TableEntry]


def operators_for(
    on: str, engine: str, model: Model, precision: Precision, layout: Layout
) -> OperatorTable | None:
    """The table that answers for a configuration, if any: one stage, experts whole or on one rank."""
    if layout.pp != 1 or (model.moe and layout.tp * layout.dp != max(layout.ep, 1)):
        return None
    place = data_root() / FOLDER / on
    for folder in sorted(place.glob(f"{engine}-*"), reverse=True):
        for name, about in _meta(folder).tables.items():
            same = about.tp == layout.tp and PRECISIONS.get(about.precision) == precision
            if same and _one_layer(shipped_model(about.model)) == _one_layer(model):
                return _table(folder, name)
    return None


def _one_layer(model: Model) -> tuple:
    attention = tuple(replace(part, layers=1) for part in model.attention)
    feed_forward = tuple(replace(part, layers=1) for part in model.feed_forward)
    return (model.hidden_size, model.vocabulary_size, attention, feed_forward, model.attention_bias)


@lru_cache(maxsize=16)
def _meta(folder: Path) -> Meta:
    path = folder / "meta.yaml"
    return validate(Meta, read_yaml(path), str(path))


@lru_cache(maxsize=16)
def _table(folder: Path, name: str) -> OperatorTable:
    path, meta = folder / f"{name}.csv", _meta(folder)
    rows: dict[str, dict[tuple[float, ...], float]] = {}
    with path.open(encoding="utf-8", newline="") as handle:
        for line, row in enumerate(csv.DictReader(handle), start=2):
            try:
                where = tuple(float(row[column]) for column in AXES[row["operator"]])
                rows.setdefault(row["operator"], {})[where] = float(row["us_or_share"])
            except (KeyError, ValueError) as error:
                raise InputError(
                    Problem(str(path), f"line {line}", str(error), "see operator_file.py")
                ) from None
    grids = {operator: _grid(path, operator, points) for operator, points in rows.items()}
    missing = [operator for operator in AXES if operator not in grids and operator != "experts"]
    if missing:
        raise InputError(
            Problem(str(path), "operator", ", ".join(missing), "is missing; write the file anew")
        )
    return OperatorTable(
        name=name,
        engine_version=meta.engine_version,
        source=Source(**dict(meta.source)),
        beside=assumed_for(
            accelerator(meta.accelerator), meta.engine, PRECISIONS[meta.tables[name].precision]
        ),
        experts=grids.pop("experts", None),
        **grids,
    )


def _grid(path: Path, operator: str, points: dict[tuple[float, ...], float]) -> Grid:
    """A full grid; where no more experts can be touched than tokens choose, the nearest timing stands in."""
    unit = 1.0 if operator == "spread" else MICRO
    axes = tuple(np.array(sorted({where[i] for where in points})) for i in range(len(AXES[operator])))
    seconds = np.full([len(axis) for axis in axes], np.nan)
    for where, value in points.items():
        seconds[tuple(int(np.searchsorted(axis, x)) for axis, x in zip(axes, where, strict=True))] = (
            value * unit
        )
    for index in np.ndindex(*seconds.shape[:-1]):
        line = seconds[index]
        known = np.flatnonzero(~np.isnan(line))
        if not len(known):
            raise InputError(Problem(str(path), operator, f"row {index}", "a timing is missing"))
        line[:] = line[known[np.abs(known[:, None] - np.arange(len(line))).argmin(axis=0)]]
    return Grid(axes, seconds)
