"""Strict reading of YAML files: every fault names the file, the line and what to write instead.

    document = read_yaml(Path("capacity.yaml"))     # dict of plain values, or InputError
    unknown_key("capacity.yaml", "cluster.pool", "pool", ("pools",))  # Problem with a near name

Stricter than YAML itself: a key given twice is an error, not the last one winning; NaN and infinity are
left to the reader of the value, which knows the field.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Set
from pathlib import Path
from typing import Any

import yaml

from moai_planner.domain.errors import InputError, Problem


def read_text(path: Path, kind: str = "file") -> str:
    """The text of a file; InputError when there is none, a folder stands there, or it is not text."""
    try:
        return Path(path).read_bytes().decode("utf-8")
    except FileNotFoundError as error:
        raise InputError(
            Problem(str(path), "", "does not exist", f"give the path of a {kind}{_near_files(path)}")
        ) from error
    except IsADirectoryError as error:
        raise InputError(Problem(str(path), "", "is a directory", f"give the path of a {kind}")) from error
    except UnicodeDecodeError as error:
        raise InputError(
            Problem(str(path), f"byte {error.start}", "is not UTF-8 text", f"give a {kind}")
        ) from error
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise InputError(Problem(str(path), "", reason, f"give a {kind} that can be read")) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file whose top level is a mapping. All keys are strings; duplicates are refused."""
    return parse_yaml(read_text(path, "YAML file"), str(path))


def parse_yaml(text: str, name: str) -> dict[str, Any]:
    """YAML text whose top level is a mapping; `name` is how problems call it."""
    if not text.strip():
        raise InputError(Problem(name, "", "is empty", "write the keys of the format, see the examples"))
    try:
        loader = _StrictLoader(text)
        try:
            value = loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise InputError(_yaml_problem(name, error)) from error
    except (ValueError, RecursionError) as error:
        raise InputError(Problem(name, "", "is not YAML", f"{error}"[:200])) from error
    if loader.duplicates:
        raise InputError(
            Problem(name, f"line {line}", f"key {key!r} is given twice", "keep one of them")
            for key, line in loader.duplicates
        )
    if not isinstance(value, dict):
        found = "only comments" if value is None else f"a {type(value).__name__} at the top"
        raise InputError(Problem(name, "line 1", found, "write `key: value` lines at the top level"))
    return value


def near(value: str, known: Iterable[str], count: int = 3) -> str:
    """`did you mean …` for a misspelt name, or a hint of what exists.

    >>> near("h1000", ("h100_sxm", "mi300x", "h100_pcie"))
    'did you mean h100_sxm or h100_pcie?'
    >>> near("mi300x", {"prefill", "decode"})  # a set has no order that would be the same each time
    'one of decode, prefill'
    """
    known = tuple(sorted(known) if isinstance(known, Set) else known)
    lowered = {name.lower(): name for name in known}
    matches = difflib.get_close_matches(str(value).lower(), lowered, n=count, cutoff=0.5)
    part_of = [name for name in lowered if len(str(value)) > 1 and str(value).lower() in name]
    found = tuple(dict.fromkeys(lowered[name] for name in (*matches, *part_of)))[:count]
    if found:
        return f"did you mean {' or '.join(found)}?"
    shown = ", ".join(known[:8])
    return f"one of {shown}{', …' if len(known) > 8 else ''}"


def unknown_key(file: str, field: str, key: str, known: Iterable[str]) -> Problem:
    """The problem of a key that the format does not have."""
    return Problem(file, field, f"unknown key {key!r}", near(key, known))


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that remembers duplicate keys and keeps dates as text."""

    def __init__(self, stream: str):
        super().__init__(stream)
        self.duplicates: list[tuple[str, int]] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.tag != "tag:yaml.org,2002:merge":
                if key_node.value in seen:
                    self.duplicates.append((key_node.value, key_node.start_mark.line + 1))
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


# Dates stay text, so that `date: 2026-01-15` and `date: 2026-01` read alike.
_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _yaml_problem(name: str, error: yaml.YAMLError) -> Problem:
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    reason = getattr(error, "problem", None) or str(error).splitlines()[0]
    return Problem(name, where, f"is not YAML: {reason}", "correct it; indent with spaces, quote odd text")


def _near_files(path: Path) -> str:
    path = Path(path)
    if not path.parent.is_dir():
        return ""
    beside = sorted(entry.name for entry in path.parent.iterdir() if entry.is_file())
    matches = difflib.get_close_matches(path.name, beside, n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(matches)}?" if matches else ""
