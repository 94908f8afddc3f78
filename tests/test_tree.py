"""The tree keeps its shape: rooms import downwards, files stay small, units stay in one place."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "moai_planner"
MODULES = sorted(PACKAGE.rglob("*.py"))

LATTICE = {
    "domain": set(),
    "catalog": {"domain"},
    "costmodel": {"domain"},
    "emit": {"domain"},
    "review": {"domain"},
    "profile": {"domain", "costmodel"},
    "solver": {"domain", "costmodel"},
    "simulate": {"domain", "costmodel"},
    "accuracy": {"domain", "costmodel", "simulate"},
    "cli": {"domain", "catalog", "costmodel", "emit", "review", "profile", "solver", "simulate", "accuracy"},
}
"Room → rooms it may import, beside itself. `simulate` checks the solver; `emit` takes old plans."

ONE_ROOM_ONLY = {"pydantic": {"catalog"}, "pulp": {"solver"}, "jinja2": {"emit", "review"}}
ENGINE = {"torch", "vllm"}
LIGHT_AT_THE_TOP_OF_A_VERB = {*sys.stdlib_module_names, "typer", "__future__"}
DATA_FOLDERS = ("hardware_profiles", "workload_traces", "templates")
LONGEST_FILE_LINES = 500


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def imports_of(path: Path) -> Iterator[tuple[str, bool]]:
    """(module, at the top of the file) for every import, those inside functions as well."""
    tree = ast.parse(path.read_text())
    package = ("moai_planner", *path.relative_to(PACKAGE).parts[:-1])
    inner = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        top = id(node) not in inner
        if isinstance(node, ast.Import):
            yield from ((alias.name, top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *filter(None, (node.module,))))
            # `from moai_planner import solver` imports a room by its name.
            yield from ((f"{module}.{alias.name}", top) for alias in node.names)


def code_of(path: Path) -> str:
    """The source without comments and strings, one token after the other."""
    left_away = {tokenize.COMMENT, tokenize.STRING}
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    return " ".join(token.string for token in tokens if token.type not in left_away)


def calls_of(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node.lineno


def tracked_files() -> list[Path]:
    found = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if found.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in found.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_rooms_import_downwards_only():
    """Law: the lattice of docs/design.md holds for every import, also inside functions."""
    wrong = []
    for path in MODULES:
        room = room_of(path)
        for module, _ in imports_of(path):
            parts = module.split(".")
            if parts[0] == "moai_planner" and len(parts) > 1 and parts[1] in LATTICE:
                allowed = {room} | LATTICE.get(room, set(LATTICE) if path.stem == "__main__" else set())
                if parts[1] not in allowed:
                    wrong.append(f"{name_of(path)} imports {module}")
    assert wrong == []


def test_every_room_is_in_the_lattice():
    rooms = {room_of(path) for path in MODULES} - {""}
    assert rooms <= set(LATTICE)


def test_the_engine_is_imported_by_the_profiler_alone_and_late():
    """torch and vllm: only in profile/, only inside functions."""
    wrong = [
        f"{name_of(path)} imports {module}"
        for path in MODULES
        for module, top in imports_of(path)
        if module.split(".")[0] in ENGINE and (top or room_of(path) != "profile")
    ]
    assert wrong == []


def test_each_framework_stays_in_its_room():
    wrong = [
        f"{name_of(path)} imports {module}"
        for path in MODULES
        for module, _ in imports_of(path)
        if room_of(path) not in ONE_ROOM_ONLY.get(module.split(".")[0], {room_of(path)})
    ]
    assert wrong == []


def test_verbs_import_nothing_heavy_at_the_top():
    """`--help` is instant: what main.py imports, and what that imports at the top, is light."""
    wrong, waiting, seen = [], ["main"], set()
    while waiting:
        name = waiting.pop()
        if name in seen or not (PACKAGE / "cli" / f"{name}.py").is_file():
            continue
        seen.add(name)
        for module, top in imports_of(PACKAGE / "cli" / f"{name}.py"):
            if not top or module.split(".")[0] in LIGHT_AT_THE_TOP_OF_A_VERB:
                continue
            if module.startswith("moai_planner.cli."):
                waiting.append(module.split(".")[2])
            elif not module.startswith("moai_planner.domain.errors"):
                wrong.append(f"cli/{name}.py imports {module}")
    assert len(seen) > 5 and wrong == []


def test_library_code_never_prints_or_exits():
    """Only cli/ speaks and ends."""
    loud = {"print", "exit", "quit", "sys.exit", "os._exit"}
    wrong = [
        f"{name_of(path)}:{line} calls {call}"
        for path in MODULES
        if room_of(path) != "cli"
        for call, line in calls_of(path)
        if call in loud
    ]
    assert wrong == []


def test_every_module_opens_with_its_purpose():
    """A docstring; `__init__.py` of a room may be empty."""
    wrong = [
        name_of(path)
        for path in MODULES
        if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert wrong == []


@pytest.mark.parametrize("folder", ["moai_planner", "tests", "benchmarks"])
def test_files_are_small(folder):
    found = {name_of(path): len(path.read_text().splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert {name: lines for name, lines in found.items() if lines > LONGEST_FILE_LINES} == {}


def test_powers_of_ten_and_two_are_written_in_units_alone():
    """Guards against 2**40 for a tera: quantities pass through domain/units.py."""
    power = re.compile(
        r"\b1(\.0*)?[eE]\+?(3|6|9|12|15|18)\b|\b1_?000_?000(_?000)*\b"
        r"|\b2(\.0)? \*\* (10|20|30|40|50)\b|\b1024 \*\*|\b10 \*\* (3|6|9|12|15)\b|\b1024 \* 1024\b"
    )
    wrong = []
    for path in MODULES:
        if path != PACKAGE / "domain" / "units.py":
            wrong += [f"{name_of(path)}: {found[0]}" for found in power.finditer(code_of(path))]
    assert wrong == []


def test_files_speak_of_the_project_alone():
    """No path of a developer's machine, no ticket number, in anything tracked."""
    banned = re.compile(r"/(?:home|Users)/\w+/|(?<!\w)issue #?[1-9]\b(?!\d)")
    sibling = re.compile(r"\.\./shared")
    wrong = []
    for path in tracked_files():
        if path == Path(__file__) or path.suffix in (".gz", ".parquet", ".png", ".lock"):
            continue
        text = path.read_text(errors="replace")
        wrong += [f"{name_of(path)}: {found[0]}" for found in banned.finditer(text)]
        if path.parts[len(ROOT.parts)] != "tests":
            wrong += [f"{name_of(path)}: {found[0]}" for found in sibling.finditer(text)]
    assert wrong == []


def test_the_wheel_carries_the_data_folders():
    """Top-level folders do not travel by themselves: each is mapped into the package."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    mapped = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert mapped == {folder: f"moai_planner/_data/{folder}" for folder in DATA_FOLDERS}
    assert all(any((ROOT / folder).iterdir()) for folder in DATA_FOLDERS)


def test_the_built_wheel_holds_every_tracked_data_file(tmp_path):
    """Law: what is in the checkout is in the wheel."""
    pytest.importorskip("hatchling")
    code = f"import hatchling.build; hatchling.build.build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        f"moai_planner/_data/{name_of(path)}"
        for path in tracked_files()
        if name_of(path).startswith(DATA_FOLDERS)
    } | {name_of(path) for path in tracked_files() if name_of(path).startswith("moai_planner/")}
    assert expected - held == set()
