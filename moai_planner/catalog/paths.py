"""Where the shipped data folders are: beside the package in a checkout, inside it in an installed wheel.

    data_root() / "hardware_profiles" / "h100_sxm.yaml"
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def data_root() -> Path:
    """The folder that holds hardware_profiles, workload_traces and templates."""
    installed = PACKAGE / "_data"
    return installed if installed.is_dir() else PACKAGE.parent
