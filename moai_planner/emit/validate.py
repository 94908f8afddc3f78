"""Rendered files checked as their users read them: flags the engine knows, YAML, JSON, shell syntax.

The table of flags, `templates/vllm_flags.csv`, holds names, kinds and choices of `vllm serve`.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from moai_planner.emit.render import RenderedFile
from moai_planner.emit.templates import template_root

BASH_TIMEOUT_S = 20
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Flag:
    """One long flag of `vllm serve`."""

    name: str
    kind: str
    choices: tuple[str, ...]


@cache
def engine_flags() -> dict[str, Flag]:
    """Name → flag, from the table that ships with the templates."""
    with (template_root() / "vllm_flags.csv").open(newline="") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return {
            row["flag"]: Flag(row["flag"], row["kind"], tuple(filter(None, row["choices"].split("|"))))
            for row in rows
        }


def file_problems(files: tuple[RenderedFile, ...]) -> tuple[str, ...]:
    """What is wrong with the files, each with its path; empty when all is well."""
    return tuple(f"{file.path}: {problem}" for file in files for problem in _problems(file))


def argument_problems(arguments: Any) -> Iterator[str]:
    """What `vllm serve --config` would stumble over in a parsed configuration file."""
    if not isinstance(arguments, dict):
        yield "not a mapping of flags"
        return
    for name, value in arguments.items():
        flag = engine_flags().get(name)
        if flag is None:
            yield f"{name} is not a flag of vllm serve"
        elif value is None:
            yield f"{name} is null, which the engine reads as the text None"
        elif not _kind_fits(flag.kind, value):
            yield f"{name}: {value!r} is not a {flag.kind}"
        elif flag.choices and str(value) not in flag.choices:
            yield f"{name}: {value!r} is none of {', '.join(flag.choices)}"


def _problems(file: RenderedFile) -> Iterator[str]:
    text = file.content.decode()
    if file.check == "engine":
        try:
            yield from argument_problems(yaml.load(text, Loader=_LOADER))
        except yaml.YAMLError as error:
            yield f"not YAML: {error}"
    elif file.check == "json":
        try:
            json.loads(text)
        except ValueError as error:
            yield f"not JSON: {error}"
    elif file.check == "bash":
        yield from _bash_problems(text)


def _bash_problems(text: str) -> Iterator[str]:
    """`bash -n`, where there is a bash. Scripts that differ in digits alone have one syntax."""
    if complaint := _bash_complaint(re.sub(r"[0-9a-f]{16}|[0-9]+", "0", text)):
        yield f"bash -n: {complaint}"


@cache
def _bash_complaint(text: str) -> str:
    bash = shutil.which("bash")
    if bash is None:
        return ""
    ran = subprocess.run(
        [bash, "-n"], input=text, capture_output=True, text=True, timeout=BASH_TIMEOUT_S, check=False
    )
    return ran.stderr.strip() if ran.returncode else ""


def _kind_fits(kind: str, value: Any) -> bool:
    """Does a YAML value become what the engine's parser expects?

    >>> _kind_fits("on switch", False), _kind_fits("list of int", [1, 2]), _kind_fits("int", True)
    (False, True, False)
    """
    if kind.startswith("list of "):
        inner = kind.removeprefix("list of ")
        return isinstance(value, list) and all(_kind_fits(inner, item) for item in value)
    if isinstance(value, bool):
        return kind == "switch" or (kind == "on switch" and value)
    return isinstance(value, _TYPES[kind])


_TYPES: dict[str, tuple[type, ...]] = {
    "switch": (),
    "on switch": (),
    "int": (int,),
    "count": (int, str),
    "float": (int, float),
    "text": (str,),
    "json": (dict, list),
    "any": (str, int, float, dict, list),
}
