"""Write the plan that README shows: what `moai-plan solve examples/mixed-vendor/capacity.yaml` answers now.

python benchmarks/readme_plan.py
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from moai_planner.cli.output import write_text

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(<!-- plan -->.*?```\n).*?(```\n<!-- /plan -->)", re.DOTALL)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        capacity = ROOT / "examples" / "mixed-vendor" / "capacity.yaml"
        command = ["-m", "moai_planner.cli.main", "solve", str(capacity), "--out", f"{folder}/plan.json"]
        answer = subprocess.run(
            [sys.executable, *command], check=True, stdout=subprocess.PIPE, text=True
        ).stdout
    plan = re.search(r"^optimal: .*?every objective holds$", answer, re.DOTALL | re.MULTILINE)
    if plan is None:
        sys.exit("the example has no plan that keeps every objective")
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    write_text(readme, BLOCK.sub(lambda found: found[1] + plan[0] + "\n" + found[2], text))


if __name__ == "__main__":
    main()
