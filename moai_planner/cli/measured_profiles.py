"""Which measured profile, if any, answers for a configuration: `hardware_profiles/measured`, read strictly.

    <accelerator>/<engine>-<version>/<model>.csv beside meta.yaml, as `moai-plan profile` writes them

A profile answers for the same accelerator, engine, layer sizes and number format, on one device (and copies
of it where these do not talk). Shards of larger layouts were timed without their collectives and are no
whole step: those layouts stay with the model. Of several engine versions the newest answers.
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
from moai_planner.catalog.paths import data_root
from moai_planner.domain.accelerator import Accelerator
from moai_planner.domain.layout import Layout
from moai_planner.domain.measured import MeasuredPoint, Shard
from moai_planner.domain.model import Model
from moai_planner.domain.precision import PRECISIONS, Precision
from moai_planner.domain.provenance import ASSUMED, Source
from moai_planner.profile.table import read_meta, read_points

ONE_DEVICE = Shard(1, 1)


def measured_root() -> Path:
    """The shipped profiles, and those measured here in a checkout."""
    return data_root() / "hardware_profiles" / "measured"


def profile_for(
    accelerator: Accelerator, engine: str, model: Model, precision: Precision, layout: Layout
) -> tuple[MeasuredPoint, ...]:
    """Points of the configuration, empty where there are none. InputError names file and line."""
    path = profile_path(accelerator, engine, model, precision, layout)
    return _points(path) if path else ()


def profile_path(
    accelerator: Accelerator, engine: str, model: Model, precision: Precision, layout: Layout
) -> Path | None:
    """The table that answers, or None."""
    copies_talk = layout.dp > 1 and model.moe
    if (layout.tp, layout.pp, layout.ep) != (1, 1, 1) or copies_talk:
        return None
    for folder in _folders(measured_root(), accelerator.id):
        meta = _meta(folder)
        if meta["engine"] != engine or meta["accelerator"] != accelerator.id:
            continue
        for name, entry in meta["models"].items():
            same_format = PRECISIONS.get(str(entry.get("precision", "bf16"))) == precision
            if same_format and _sizes(_profiled(folder, name)) == _sizes(model):
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
def _points(path: Path) -> tuple[MeasuredPoint, ...]:
    return read_points(path)[0].get(ONE_DEVICE, ())


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
