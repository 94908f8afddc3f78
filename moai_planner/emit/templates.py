"""Folders of templates: one per target, found beside the package or inside an installed one.

A target is `templates/<name>/target.yaml` (files, what each is rendered for, how it is checked) and its
Jinja templates. Templates place values; they compute nothing.
"""

from __future__ import annotations

import difflib
import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from moai_planner.domain.errors import InputError, Problem

_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
WIDEST_LINE = 1 << 30
EACH = ("plan", "host", "process", "lane")


@dataclass(frozen=True)
class TargetFile:
    """One line of `target.yaml`."""

    template: str
    path: str
    "A template of the path inside the output folder."
    each: str
    check: str = ""
    "`bash`, `json`, `engine` (a vLLM configuration file) or empty."
    executable: bool = False


@dataclass(frozen=True)
class Target:
    """A kind of artifact that plans compile to."""

    name: str
    title: str
    folder: Path
    files: tuple[TargetFile, ...]


def template_root() -> Path:
    """`templates/` of the checkout, or its copy inside the installed package."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent / "templates"
    return checkout if (checkout / "vllm_flags.csv").is_file() else package / "_data" / "templates"


def target_names() -> tuple[str, ...]:
    """Targets that can be emitted."""
    return tuple(sorted(path.parent.name for path in template_root().glob("*/target.yaml")))


def read_target(name: str) -> Target:
    """Read a target's description; InputError with the nearest name for an unknown one."""
    if name not in target_names():
        near = difflib.get_close_matches(name, target_names(), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(Problem("--target", "", name, f"{hint}targets: {', '.join(target_names())}"))
    folder = template_root() / name
    described = yaml.safe_load((folder / "target.yaml").read_text())
    files = tuple(TargetFile(**line) for line in described["files"])
    if unknown := {line.each for line in files} - set(EACH):
        raise InputError(Problem(f"templates/{name}/target.yaml", "each", str(unknown), f"one of {EACH}"))
    return Target(described["target"], described["title"], folder, files)


def environment(folder: Path) -> Environment:
    """The one Jinja environment: an undefined name is an error, and values are quoted by filters."""
    made = Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    made.filters |= {"shell": shell_words, "yaml": yaml_flow, "pretty_json": pretty_json}
    return made


def shell_words(value: Any) -> str:
    """Quoted for a shell: one word, or the words of a list.

    >>> shell_words(["--decode", "http://a b"])
    "--decode 'http://a b'"
    """
    if isinstance(value, str) or not isinstance(value, Iterable):
        return shlex.quote(str(value))
    return " ".join(shlex.quote(str(word)) for word in value)


def yaml_flow(value: Any) -> str:
    """A value on one line of YAML that reads back the same.

    >>> yaml_flow({"kv_role": "kv_both", "sizes": [1, 2]})
    '{kv_role: kv_both, sizes: [1, 2]}'
    >>> yaml_flow("yes")
    "'yes'"
    """
    text = yaml.dump(value, Dumper=_DUMPER, default_flow_style=True, sort_keys=False, width=WIDEST_LINE)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def pretty_json(value: Any) -> str:
    """Indented JSON, keys in the order given."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
