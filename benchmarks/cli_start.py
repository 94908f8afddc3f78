"""How quickly the command line starts, and how much disk an installation takes.

    python benchmarks/cli_start.py

Last line: one JSON object. `help_cpu_s` and `import_cpu_s` are medians of seven processes, user and
system time; `bare_python_cpu_s` is an empty interpreter on the same machine, the limit of both.
`install_bytes` is what a fresh `pip install moai-planner` would lay down (the package, its data and
its dependencies, bytecode left out), by reading the installed distributions' own file lists.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import resource
import statistics
import subprocess
import sys
from pathlib import Path

from moai_planner.domain.units import MEGA

RUNS = 7


def main() -> None:
    figures = {
        "help_cpu_s": _cpu_s("-m", "moai_planner.cli.main", "--help"),
        "import_cpu_s": _cpu_s("-c", "import moai_planner.cli.main"),
        "bare_python_cpu_s": _cpu_s("-c", "pass"),
    }
    sizes = _install_bytes("moai-planner")
    for name, size in sorted(sizes.items(), key=lambda item: -item[1])[:8]:
        print(f"{name:20} {size / MEGA:8.1f} MB")
    figures["install_bytes"] = sum(sizes.values())
    figures["install_without_simulator_compiler_bytes"] = sum(
        size for name, size in sizes.items() if name not in ("numba", "llvmlite")
    )
    print(json.dumps(figures))


def _cpu_s(*arguments: str) -> float:
    return round(statistics.median(_one_cpu_s(arguments) for _ in range(RUNS)), 4)


def _one_cpu_s(arguments: tuple[str, ...]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _install_bytes(root: str) -> dict[str, int]:
    """Distribution → bytes, for `root` and everything it needs at run time."""
    sizes: dict[str, int] = {}
    wanted = [root]
    while wanted:
        name = re.sub(r"[-_.]+", "-", wanted.pop()).lower()
        if name in sizes:
            continue
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        files = distribution.files or []
        paths = [Path(distribution.locate_file(file)) for file in files if not str(file).endswith(".pyc")]
        sizes[name] = sum(path.stat().st_size for path in paths if path.exists())
        for requirement in distribution.requires or []:
            if "extra ==" not in requirement:
                wanted.append(re.match(r"[\w.-]+", requirement)[0])
    sizes[root] += _tree_bytes()
    return sizes


def _tree_bytes() -> int:
    here = Path(__file__).resolve().parent.parent
    folders = ("moai_planner", "hardware_profiles", "workload_traces", "templates")
    files = (file for folder in folders for file in (here / folder).rglob("*") if file.is_file())
    return sum(file.stat().st_size for file in files if "__pycache__" not in file.parts)


if __name__ == "__main__":
    main()
