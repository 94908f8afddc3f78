"""Write the golden folder anew: `python tests/emit/regenerate_bash.py`; then read the difference."""

from __future__ import annotations

from pathlib import Path

from emit_plans import golden_plan

from moai_planner.emit.emit import emit

GOLDEN = Path(__file__).parent / "golden" / "bash"


def main() -> None:
    """One command, one folder."""
    report = emit(golden_plan(), "bash", GOLDEN, force=True)
    print(f"{len(report.files)} files in {GOLDEN}")


if __name__ == "__main__":
    main()
