"""The Hugging Face config to start an engine with, of a model by whichever name a user gives it.

    name, config = named_config("llama-3.1-8b-instruct")

A small model made for measuring, a folder or file with a config.json, or a shipped model: what an engine with
dummy weights needs, and the name that its table gets.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from moai_planner.catalog import models
from moai_planner.catalog.paths import MODEL_CONFIGS
from moai_planner.domain.errors import InputError, Problem
from moai_planner.profile.small_models import SMALL_MODELS


def named_config(reference: str) -> tuple[str, dict[str, Any]]:
    """Name of the table, and the config. InputError when the reference names none."""
    if reference in SMALL_MODELS:
        return reference, SMALL_MODELS[reference]
    path = Path(reference)
    file = path / "config.json" if os.path.isdir(path) else path
    if os.path.isfile(file):
        return (path.resolve().name if path.is_dir() else file.parent.name or file.stem), _read(file)
    try:
        return _shipped(reference)
    except InputError as error:
        remedy = f"or one made for measuring: {', '.join(SMALL_MODELS)}"
        raise InputError((*error.problems, Problem("--model", "", reference, remedy))) from error


def _read(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text())
        if not isinstance(config, dict) or "hidden_size" not in config:
            raise ValueError("is no Hugging Face config of a language model")
    except (OSError, ValueError) as error:
        raise InputError(Problem(str(file), "", str(error)[:80], "give a config.json")) from error
    return config


def _shipped(reference: str) -> tuple[str, dict[str, Any]]:
    """The keys that are shipped, those of the model it is the same as underneath."""
    name = models.model(reference, "--model").id
    config: dict[str, Any] = {"same_as": name}
    while "same_as" in config:
        file = MODEL_CONFIGS / f"{config.pop('same_as').replace('/', '--')}.json"
        config = {**json.loads(file.read_text()), **config}
    config.pop("source", None)
    return name.rpartition("/")[2], config
