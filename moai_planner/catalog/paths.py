"""Where the shipped data folders are: the checkout's top level, or `_data` inside an installed wheel."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
MODEL_CONFIGS = Path(__file__).resolve().parent / "model_configs"


def data_root(package: Path = PACKAGE) -> Path:
    """The folder that holds `hardware_profiles`, `workload_traces` and `templates`.

    A wheel carries them as `moai_planner/_data`; a checkout (or an editable install) has them beside
    the package.
    """
    installed = package / "_data"
    return installed if installed.is_dir() else package.parent
