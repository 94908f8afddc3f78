"""Which measured profile, if any, answers for a configuration: `hardware_profiles/measured`, read strictly.

    <accelerator>/<engine>-<version>/<model>.csv beside meta.yaml, as `moai-plan profile` writes them

A profile answers for the same accelerator, engine, layer sizes and number format, on one device and on
copies of it that do not talk. A rank of a larger layout, timed alone (`--tp`, `--ep`), answers for that
layout, and the cost model adds its collectives. Of several engine versions the newest answers. Where no
step was measured, timings of the layers' operators (`catalog/operator_file.py`) answer.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from moai_planner.catalog.models import model as shipped_model
from moai_planner.catalog.models import model_names, read_model
from moai_planner.catalog.operator_file import operators_for
from moai_planner.catalog.paths import data_root
from moai_planner.domain.accelerator import Accelerator
from moai_planner.domain.layout import Layout
from moai_planner.domain.measured import MeasuredPoint, Shard
from moai_planner.domain.model import Model
from moai_planner.domain.operators import OperatorTable
from moai_planner.domain.precision import PRECISIONS, Precision
from moai_planner.domain.provenance import ASSUMED, Source
from moai_planner.profile.table import read_meta, read_points


def measured_root() -> Path:
    """The shipped profiles, and those measured here in a checkout."""
    return data_root() / "hardware_profiles" / "measured"


def profile_for(
    accelerator: Accelerator, engine: str, model: Model, precision: Precision, layout: Layout
) -> tuple[MeasuredPoint, ...] | OperatorTable:
    """Whole steps that were timed, else operators of the model's layers, else nothing. InputError names file
    and line."""
    path = profile_path(accelerator, engine, model, precision, layout)
    shard = shard_of(layout, model)
    if path and shard:
        return _points(path).get(shard, ())
    return operators_for(accelerator.id, engine, model, precision, layout) or ()


def shard_of(layout: Layout, model: Model) -> Shard | None:
    """Which rank, timed alone, a layout is made of; None where no rank that `profile` divides is like it.

    Expert parallelism: a rank with attention of its own and 1/ep of the experts, each token still sent to
    as many of them as it chooses.
    """
    if layout.pp > 1:
        return None
    if layout.dp == 1 or not model.moe:
        return Shard(layout.tp) if layout.ep == 1 else None
    parts = [part for part in model.feed_forward if part.experts]
    enough = all(part.experts // layout.ep >= part.experts_per_token for part in parts)
    return Shard(1, layout.ep) if layout.tp == 1 and layout.ep == layout.dp and enough else None


def profile_path(
    accelerator: Accelerator, engine: str, model: Model, precision: Precision, layout: Layout
) -> Path | None:
    """The table that answers, or None."""
    shard = shard_of(layout, model)
    if shard is None:
        return None
    for folder in _folders(measured_root(), accelerator.id):
        meta = _meta(folder)
        if meta["engine"] != engine or meta["accelerator"] != accelerator.id:
            continue
        for name, entry in meta["models"].items():
            same_format = PRECISIONS.get(str(entry.get("precision", "bf16"))) == precision
            if not same_format or _sizes(_profiled(folder, name)) != _sizes(model):
                continue
            if shard in _points(folder / f"{name}.csv"):
                return folder / f"{name}.csv"
    return None


def model_on(reference: str, accelerator: str, file: str = "model", field: str = "") -> Model:
    """A shipped model or a path; else a model that was profiled on the accelerator, by its name there."""
    if accelerator and reference not in model_names() and not os.path.exists(reference):
        for folder in _folders(measured_root(), accelerator):
            if reference in _meta(folder)["models"]:
                return _profiled(folder, reference)
    return shipped_model(reference, file, field)


def _folders(root: Path, accelerator: str) -> list[Path]:
    """Newest engine version first."""
    place = root / accelerator
    found = [path for path in place.iterdir() if path.is_dir()] if place.is_dir() else []
    return sorted(found, key=lambda path: (_version(path.name), path.name), reverse=True)


def _version(name: str) -> tuple[int, ...]:
    """
    >>> _version("vllm-0.32.0") > _version("vllm-0.9.2")
    True
    """
    return tuple(int(number) for number in re.findall(r"\d+", name.partition("-")[2]))


@lru_cache(maxsize=32)
def _meta(folder: Path) -> dict[str, Any]:
    return read_meta(folder / "meta.yaml")


@lru_cache(maxsize=32)
def _points(path: Path) -> dict[Shard, tuple[MeasuredPoint, ...]]:
    """Shard → points, each with the error that the profile's own test found in its phase."""
    fits = _meta(path.parent)["models"][path.stem].get("fit") or {}
    found = {}
    for shard, points in read_points(path)[0].items():
        tested = (fits.get(f"tp{shard.tp}-ep{shard.ep}") or {}).get("held_out") or {}
        errors = {phase: float(row.get("median_error_frac") or 0) for phase, row in tested.items()}
        found[shard] = tuple(replace(p, held_out_frac=errors.get(p.shape.phase, 0.0)) for p in points)
    return found


@lru_cache(maxsize=128)
def _profiled(folder: Path, name: str) -> Model:
    file = folder / "meta.yaml"
    source = Source(title="profiled model", where=str(file), kind="measurement")
    return read_model(_meta(folder)["models"][name].get("config") or {}, name, str(file), source)


def _sizes(model: Model) -> Model:
    """What decides a step's time: not the name, the window or how the checkpoint is published."""
    return replace(
        model, id="", architecture="", source=ASSUMED, max_context_tokens=0, native_precision="", mtp_layers=0
    )
