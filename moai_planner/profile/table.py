"""Measured profiles on disk: strict readers and whole-or-nothing texts.

`<accelerator>/<engine>-<version>/<model>.csv` holds the points, `meta.yaml` beside it who measured them, how,
and what was fitted. A file that is wrong or cut short is refused with file and line, all problems at once.

    tp,ep,phase,tokens,batch,context_tokens,seconds,low_s,high_s,noise_frac,repeats,overhead_s,wall_s,edge
    1,1,decode,0,8,512,0.0187,0.0185,0.019,0.012,5,0.0005,0.0186,
    1,1,decode,0,32,4096,,,,,,,,KV cache holds 87296 tokens
    # 2 rows
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from moai_planner.domain.errors import InputError, Problem
from moai_planner.domain.measured import PHASES, MeasuredPoint, MeasuredProfile, Shard, StepShape

FORMAT = "moai-measured/1"
_SHAPE_COLUMNS = ("tp", "ep", "phase", "tokens", "batch", "context_tokens")
_TIME_COLUMNS = ("seconds", "low_s", "high_s", "noise_frac", "repeats", "overhead_s", "wall_s")
COLUMNS = (*_SHAPE_COLUMNS, *_TIME_COLUMNS, "edge")
DEVICE_KEYS = (
    "accelerator",
    "device",
    "platform",
    "driver",
    "engine",
    "engine_version",
    "time_basis",
    "threads",
)
"""What all profiles of one folder share; a run that differs in one of them is not mixed in."""

Points = Mapping[Shard, tuple[MeasuredPoint, ...]]
Edges = Mapping[Shard, Mapping[StepShape, str]]


def csv_text(points: Points, edges: Edges) -> str:
    """The table, rows in order; the last line counts them, so that a cut file is noticed."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    rows = 0
    for shard in sorted({*points, *edges}, key=lambda s: (s.tp, s.ep)):
        cells = {shape: [*[""] * len(_TIME_COLUMNS), why] for shape, why in edges.get(shard, {}).items()}
        cells |= {p.shape: _time_cells(p) for p in points.get(shard, ())}  # a time outweighs an edge
        for shape in sorted(cells):
            place = (shard.tp, shard.ep, shape.phase, shape.tokens, shape.batch, shape.context_tokens)
            writer.writerow([*place, *cells[shape]])
            rows += 1
    return out.getvalue() + f"# {rows} rows\n"


def _time_cells(point: MeasuredPoint) -> list[str]:
    return [
        *(f"{value:.6g}" for value in (point.seconds, point.low_s, point.high_s, point.noise_frac)),
        str(point.repeats),
        f"{point.overhead_s:.4g}",
        f"{point.wall_s:.6g}",
        "",
    ]


def meta_text(meta: Mapping[str, Any]) -> str:
    """`meta.yaml`, keys in the order given."""
    return yaml.safe_dump(dict(meta), sort_keys=False, allow_unicode=True, width=110)


def read_meta(path: Path) -> dict[str, Any]:
    """`meta.yaml`, checked."""
    try:
        meta = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(Problem(str(path), "", "is missing", "keep meta.yaml beside its tables")) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        raise InputError(Problem(str(path), f"line {line}", "is not YAML", "profile again")) from error
    problems = []
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise InputError(Problem(str(path), "format", "", f"must be {FORMAT}"))
    for key in DEVICE_KEYS:
        if key not in meta:
            problems.append(Problem(str(path), key, "is missing", "profile again"))
    if meta.get("time_basis") not in ("wall", "cpu"):
        problems.append(Problem(str(path), "time_basis", str(meta.get("time_basis")), "wall or cpu"))
    models = meta.get("models")
    if not isinstance(models, dict) or not all(isinstance(m, dict) for m in models.values()):
        problems.append(Problem(str(path), "models", "is missing or not a map", "profile again"))
    if problems:
        raise InputError(problems)
    return meta


def read_profile(path: Path) -> MeasuredProfile:
    """One table and its meta.yaml as a value."""
    points, edges = read_points(path)
    meta = read_meta(path.parent / "meta.yaml")
    model = meta["models"].get(path.stem)
    if model is None:
        known = ", ".join(meta["models"]) or "none"
        raise InputError(
            Problem(str(path.parent / "meta.yaml"), f"models.{path.stem}", "is missing", f"it knows: {known}")
        )
    return MeasuredProfile(
        accelerator=str(meta["accelerator"]),
        engine=str(meta["engine"]),
        engine_version=str(meta["engine_version"]),
        model=str(model.get("model", path.stem)),
        precision=str(model.get("precision", "bf16")),
        time_basis=str(meta["time_basis"]),
        points=points,
        edges={shard: tuple(shapes) for shard, shapes in edges.items()},
    )


def read_points(
    path: Path,
) -> tuple[dict[Shard, tuple[MeasuredPoint, ...]], dict[Shard, dict[StepShape, str]]]:
    """Points and edges of a table; InputError with file and line for everything wrong in it."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise InputError(Problem(str(path), "", "no such file", "profile the model first")) from None
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(Problem(str(path), "", str(error)[:60], "is not a readable CSV file")) from error
    problems = []
    if tuple(lines[0].split(",")) != COLUMNS:
        problems.append(Problem(str(path), "line 1", lines[0][:60], f"must be {','.join(COLUMNS)}"))
        raise InputError(problems)
    ends_well = len(lines) >= 2 and lines[-1] == "" and lines[-2].startswith("# ")
    body = lines[1:-2] if ends_well else [line for line in lines[1:] if line]
    if not ends_well or lines[-2] != f"# {len(body)} rows":
        what = lines[-2] if ends_well else "the last line is missing"
        problems.append(Problem(str(path), f"line {len(body) + 2}", what, f"expected '# {len(body)} rows'"))
    points: dict[Shard, list[MeasuredPoint]] = {}
    edges: dict[Shard, dict[StepShape, str]] = {}
    seen: set[tuple[Shard, StepShape]] = set()
    for number, cells in enumerate(csv.reader(body), 2):
        try:
            shard, shape, point, edge = _row(cells)
            if (shard, shape) in seen:
                raise ValueError("the same shape twice")
        except ValueError as error:
            problems.append(Problem(str(path), f"line {number}", ",".join(cells)[:60], str(error)))
            continue
        seen.add((shard, shape))
        if point is None:
            edges.setdefault(shard, {})[shape] = edge
        else:
            points.setdefault(shard, []).append(point)
    if problems:
        raise InputError(problems)
    return {shard: tuple(found) for shard, found in points.items()}, edges


def _row(cells: list[str]) -> tuple[Shard, StepShape, MeasuredPoint | None, str]:
    if len(cells) != len(COLUMNS):
        raise ValueError(f"{len(cells)} cells where {len(COLUMNS)} belong")
    row = dict(zip(COLUMNS, cells, strict=True))
    counts = {name: _count(row, name) for name in _SHAPE_COLUMNS if name != "phase"}
    if min(counts["tp"], counts["ep"]) < 1:
        raise ValueError("tp and ep are 1 or more")
    shape = StepShape(row["phase"], counts["tokens"], counts["batch"], counts["context_tokens"])
    _check_shape(shape)
    shard = Shard(counts["tp"], counts["ep"])
    if row["edge"]:
        if any(row[name] for name in _TIME_COLUMNS):
            raise ValueError("a point at the edge has no time")
        return shard, shape, None, row["edge"]
    times = {name: _positive(row, name) for name in ("seconds", "low_s", "high_s", "wall_s")}
    if not times["low_s"] <= times["seconds"] <= times["high_s"]:
        raise ValueError("low_s ≤ seconds ≤ high_s does not hold")
    noise, overhead = _positive(row, "noise_frac", zero=True), _positive(row, "overhead_s", zero=True)
    repeats = _count(row, "repeats")
    if repeats < 1:
        raise ValueError("repeats is 1 or more")
    point = MeasuredPoint(
        shape, times["seconds"], times["low_s"], times["high_s"], noise, repeats, overhead, times["wall_s"]
    )
    return shard, shape, point, ""


def _check_shape(shape: StepShape) -> None:
    needs = {"prefill": (True, False), "decode": (False, True), "mixed": (True, True)}
    if shape.phase not in needs:
        raise ValueError(f"phase is one of {', '.join(PHASES)}")
    if (shape.tokens > 0, shape.batch > 0) != needs[shape.phase]:
        raise ValueError(f"tokens and batch do not make a {shape.phase} step")


def _count(row: Mapping[str, str], name: str) -> int:
    if not (row[name].isascii() and row[name].isdigit()):
        raise ValueError(f"{name} must be a whole number, found {row[name]!r}")
    return int(row[name])


def _positive(row: Mapping[str, str], name: str, zero: bool = False) -> float:
    try:
        value = float(row[name])
    except ValueError:
        raise ValueError(f"{name} must be a number, found {row[name]!r}") from None
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise ValueError(f"{name} must be a finite number above zero, found {row[name]!r}")
    return value


def check_same_device(path: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """InputError where a run would be mixed into profiles of another device, engine or version."""
    problems = [
        Problem(
            str(path),
            key,
            f"measured with {there.get(key)!r}, this run has {here.get(key)!r}",
            "give --replace to start the folder anew, or another --out",
        )
        for key in DEVICE_KEYS
        if there.get(key) != here.get(key)
    ]
    if problems:
        raise InputError(problems)


def merge_points(old: Iterable[MeasuredPoint], new: Iterable[MeasuredPoint]) -> tuple[MeasuredPoint, ...]:
    """Points of two runs: where both have a shape, medians weighted by repeats, the wider noise kept.

    The interval spans both: what differs between runs is noise too.
    """
    merged = {point.shape: point for point in old}
    for point in new:
        other = merged.get(point.shape)
        merged[point.shape] = point if other is None else _pool(other, point)
    return tuple(merged[shape] for shape in sorted(merged))


def _pool(a: MeasuredPoint, b: MeasuredPoint) -> MeasuredPoint:
    repeats = a.repeats + b.repeats

    def mean(x: float, y: float) -> float:
        return (a.repeats * x + b.repeats * y) / repeats

    return MeasuredPoint(
        a.shape,
        mean(a.seconds, b.seconds),
        min(a.low_s, b.low_s),
        max(a.high_s, b.high_s),
        max(a.noise_frac, b.noise_frac),
        repeats,
        mean(a.overhead_s, b.overhead_s),
        mean(a.wall_s, b.wall_s),
    )
