"""The accelerators that are known, one YAML file each in `hardware_profiles/`.

>>> accelerator("h100_sxm").peak_flop_per_s["bf16"]
989000000000000.0
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from moai_planner.catalog.paths import data_root
from moai_planner.catalog.yaml_file import near
from moai_planner.domain.accelerator import Accelerator
from moai_planner.domain.errors import InputError, Problem

FOLDER = "hardware_profiles"
SHORT_NAMES = {
    "a100": "a100_sxm_80gb",
    "h100": "h100_sxm",
    "h200": "h200_sxm",
    "h800": "h800_sxm",
    "b200": "b200_sxm",
    "b300": "b300_sxm",
    "gb200": "gb200_nvl72",
    "gb300": "gb300_nvl72",
    "gh200": "gh200_96gb",
    "rubin": "rubin_vr200",
    "n150": "tt_n150",
    "n300": "tt_n300",
    "p150": "tt_p150",
}
"""What people say for the board of that family that servers mostly carry."""


_OTHER_BOARDS = frozenset(
    ("pcie", "nvl", "laptop", "mobile", "d", "ti", "mig", "3e", "64gb", "144g", "hbm2e")
)
"""Words that make a board another one, unless our id has them."""


@lru_cache(maxsize=1)
def accelerator_ids() -> tuple[str, ...]:
    """Ids of the shipped accelerators, sorted."""
    return tuple(sorted(path.stem for path in (data_root() / FOLDER).glob("*.yaml")))


@lru_cache(maxsize=128)
def accelerator(reference: str, file: str = "accelerator", field: str = "") -> Accelerator:
    """A shipped id, short name or YAML path; `file` and `field` say who asks, for the problem."""
    reference = SHORT_NAMES.get(reference, reference)
    if reference in accelerator_ids():
        return _read(data_root() / FOLDER / f"{reference}.yaml")
    if reference.endswith((".yaml", ".yml")):
        return _read(Path(reference))
    meant = accelerator_named(reference)
    remedy = f"did you mean {meant}?" if meant else near(reference, accelerator_ids())
    raise InputError(Problem(file, field, f"unknown accelerator {reference!r}", remedy))


def accelerator_named(board: str) -> str:
    """The id for a product name as drivers and Kubernetes labels write it; empty when none fits.

    >>> accelerator_named("NVIDIA-H100-80GB-HBM3"), accelerator_named("AMD Instinct MI300X OAM")
    ('h100_sxm', 'mi300x')
    >>> accelerator_named("NVIDIA A100-SXM4-40GB"), accelerator_named("NVIDIA GeForce RTX 4090")
    ('a100_sxm_40gb', 'rtx_4090')

    A board that differs in what its name says beyond ours is none of ours:

    >>> accelerator_named("NVIDIA A100-PCIE-40GB"), accelerator_named("NVIDIA GeForce RTX 4090 Laptop GPU")
    ('', '')
    """
    plain = re.sub(r"\b(sxm)\d\b", r"\1", board.lower().replace("_", " ").replace("/", " "))
    words = set(plain.replace("-", " ").split())
    whole = [name for name in accelerator_ids() if set(name.split("_")) <= words]
    if whole:
        named = max(whole, key=lambda name: len(name.split("_")))
    else:
        named = next((SHORT_NAMES[word] for word in sorted(words) if word in SHORT_NAMES), "")
    return "" if _OTHER_BOARDS & (words - set(named.split("_"))) else named


@lru_cache(maxsize=128)
def _read(path: Path) -> Accelerator:
    from moai_planner.catalog.accelerator_file import read_accelerator

    return read_accelerator(path)
