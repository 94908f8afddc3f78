"""The measurements as they come, one JSON line each, on disk before the next one starts.

A run that is killed at any moment loses the visit it was in and nothing else: the line is written and synced
whole, a torn last line is cut off, and a run with the same key goes on where the journal ends.

    {"format": "moai-profile-journal/1", "key": {...}}
    {"shard": [1, 1], "shape": ["decode", 0, 8, 512], "seconds": 0.0187, "wall_s": 0.0185, …}
    {"shard": [1, 1], "shape": ["decode", 0, 64, 4096], "edge": "out of memory", "spent_s": 2.0}
    {"ceilings": {...}, "spent_s": 3.1}
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moai_planner.domain.errors import InputError, Problem
from moai_planner.domain.measured import PHASES, Shard, StepShape

FORMAT = "moai-profile-journal/1"


@dataclass(frozen=True)
class Visit:
    """One visit to a shape: the median over the steps of the visit."""

    seconds: float
    wall_s: float
    overhead_s: float


@dataclass
class Journal:
    """What was measured so far, and the open file behind it."""

    path: Path
    visits: dict[tuple[Shard, StepShape], list[Visit]] = field(default_factory=lambda: defaultdict(list))
    edges: dict[tuple[Shard, StepShape], str] = field(default_factory=dict)
    ceilings: dict[str, Any] = field(default_factory=dict)
    spent_s: float = 0.0
    "Time that all runs on this journal took, engine starts included."
    resumed: int = 0
    "Lines that were there when the journal was opened."
    engine: dict[str, Any] = field(default_factory=dict)
    "What the engine said of itself (KV tokens by shard)."

    def add_visit(self, shard: Shard, shape: StepShape, visit: Visit, spent_s: float) -> None:
        self.visits[shard, shape].append(visit)
        self._append({**_place(shard, shape), **vars(visit)}, spent_s)

    def add_edge(self, shard: Shard, shape: StepShape, reason: str, spent_s: float) -> None:
        self.edges[shard, shape] = reason
        self._append({**_place(shard, shape), "edge": reason}, spent_s)

    def add_ceilings(self, ceilings: Mapping[str, Any], spent_s: float) -> None:
        self.ceilings.update(ceilings)
        self._append({"ceilings": dict(ceilings)}, spent_s)

    def add_engine(self, shard: Shard, facts: Mapping[str, Any], spent_s: float) -> None:
        self.engine[f"tp{shard.tp}-ep{shard.ep}"] = dict(facts)
        self._append({"shard": [shard.tp, shard.ep], "engine": dict(facts)}, spent_s)

    def _append(self, entry: Mapping[str, Any], spent_s: float) -> None:
        self.spent_s += spent_s
        append_line(self.path, {**entry, "spent_s": round(spent_s, 4)})


def open_journal(path: Path, key: Mapping[str, Any]) -> Journal:
    """Open or create the journal of a run; InputError where it belongs to another run or is damaged."""
    journal = Journal(path)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        append_line(path, {"format": FORMAT, "key": dict(key)})
        return journal
    lines = _whole_lines(path)
    if not lines:
        append_line(path, {"format": FORMAT, "key": dict(key)})
        return journal
    _check_header(path, lines[0], key)
    for number, line in enumerate(lines[1:], 2):
        _replay(journal, path, number, line)
    journal.resumed = len(lines) - 1
    return journal


def _place(shard: Shard, shape: StepShape) -> dict[str, Any]:
    return {
        "shard": [shard.tp, shard.ep],
        "shape": [shape.phase, shape.tokens, shape.batch, shape.context_tokens],
    }


def append_line(path: Path, entry: Mapping[str, Any]) -> None:
    """One line of JSON, on the disk when this returns."""
    with open(path, "ab") as file:
        file.write((json.dumps(entry) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


def _whole_lines(path: Path) -> list[str]:
    """The journal's lines; a torn last one (the kill came while it was written) is cut off the file."""
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    return whole.decode(errors="replace").splitlines()


def _check_header(path: Path, line: str, key: Mapping[str, Any]) -> None:
    try:
        header = json.loads(line)
    except json.JSONDecodeError:
        header = {}
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise InputError(Problem(str(path), "line 1", line[:60], "not a profile journal: delete the file"))
    there = header.get("key", {})
    differing = [
        name for name in {**there, **key} if there.get(name) != json.loads(json.dumps(key.get(name)))
    ]
    if differing:
        raise InputError(
            [
                Problem(
                    str(path),
                    f"key.{name}",
                    f"the unfinished run had {there.get(name)!r}, this one has {key.get(name)!r}",
                    "go on with the same settings, or delete the file to start anew",
                )
                for name in sorted(differing)
            ]
        )


def _replay(journal: Journal, path: Path, number: int, line: str) -> None:
    try:
        entry = json.loads(line)
        spent_s = float(entry["spent_s"])
        if "ceilings" in entry:
            journal.ceilings.update(entry["ceilings"])
        elif "engine" in entry:
            journal.engine[f"tp{entry['shard'][0]}-ep{entry['shard'][1]}"] = entry["engine"]
        else:
            phase, tokens, batch, context = entry["shape"]
            if phase not in PHASES:
                raise ValueError(phase)
            place = (Shard(*entry["shard"]), StepShape(phase, tokens, batch, context))
            if "edge" in entry:
                journal.edges[place] = entry["edge"]
            else:
                visit = Visit(*(float(entry[name]) for name in ("seconds", "wall_s", "overhead_s")))
                if not visit.seconds > 0:
                    raise ValueError("seconds")
                journal.visits[place].append(visit)
        journal.spent_s += spent_s
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            Problem(str(path), f"line {number}", line[:60], "damaged: delete the line or the file")
        ) from error
