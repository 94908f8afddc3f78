"""Write docs/accuracy.md and its pictures from a measurements table.

python benchmarks/validate.py MEASUREMENTS.csv[.gz]      # fits without writing, for the left-out figures
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from moai_planner.accuracy.compare import pairs_of, unpredicted
from moai_planner.accuracy.measurements import read_measurements
from moai_planner.accuracy.peaks import beyond_peaks
from moai_planner.accuracy.prepare import prepare
from moai_planner.accuracy.report import Left, accuracy_report
from moai_planner.catalog.accelerators import accelerator
from moai_planner.catalog.models import model
from moai_planner.catalog.parameters import parameters_for
from moai_planner.cli.measured_profiles import profile_for
from moai_planner.cli.output import note, write_text

DOCS = Path(__file__).resolve().parent.parent / "docs"


def main(file: Path, calibration: Path | None) -> None:
    start_s = time.perf_counter()
    measurements = read_measurements(file)
    prepared = prepare(measurements.runs, model, accelerator, parameters_for, profile_for)
    pairs = pairs_of(prepared)
    note(f"{len(prepared.runs)} runs predicted in {time.perf_counter() - start_s:.1f} s")
    unsupported = (*measurements.unsupported, *prepared.unsupported, *unpredicted(prepared, pairs))
    left = _left(json.loads(calibration.read_text()) if calibration else _calibrate(file))
    stories = (DOCS / "accuracy" / "stories.md").read_text(encoding="utf-8")
    text, pictures = accuracy_report(pairs, unsupported, beyond_peaks(prepared), left, stories, file.name)
    write_text(DOCS / "accuracy.md", text)
    for name, picture in pictures.items():
        write_text(DOCS / "accuracy" / name, picture)


def _calibrate(file: Path) -> dict:
    command = [sys.executable, "-m", "moai_planner.cli.main", "calibrate", str(file), "--dry-run", "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def _left(document: dict) -> list[Left]:
    return [
        Left(family["family"], row["left_out"], row["kind"], row["n"], row["median_ape"], row["transfers"])
        for family in document["families"]
        for row in family["errors"]
    ]


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else None)
