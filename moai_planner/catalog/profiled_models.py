"""Models that were profiled, by the name of their table: `hardware_profiles/measured/*/*/meta.yaml`.

A small model made for measuring has no published config; its profile keeps the one it was measured with.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from moai_planner.catalog.paths import data_root
from moai_planner.catalog.yaml_file import read_yaml


def profiled_file(name: str) -> Path | None:
    """The meta.yaml that holds the model's config; None when no profile has that name.

    >>> profiled_file("dense-100m").parent.name.partition("-")[0]
    'vllm'
    """
    place = data_root() / "hardware_profiles" / "measured"
    for file in sorted(place.glob("*/*/meta.yaml"), reverse=True):
        if name in _configs(file):
            return file
    return None


def profiled_config(file: Path, name: str) -> dict[str, Any]:
    """The Hugging Face config kept there."""
    return dict(_configs(file)[name])


@lru_cache(maxsize=32)
def _configs(file: Path) -> dict[str, dict[str, Any]]:
    models = read_yaml(file).get("models")
    entries = models.items() if isinstance(models, dict) else ()
    found = {name: entry.get("config") for name, entry in entries if isinstance(entry, dict)}
    return {name: config for name, config in found.items() if isinstance(config, dict)}
