"""One profiling run from request to files: plan the sweep, measure it shard by shard, write table and meta.

request = Request(model="dense-100m", config=..., shards=(Shard(),), budget_s=240, ...)
for line in describe(request, device): ...          # --dry-run
outcome = profile_device(request, device, advance)  # the engine runs
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from moai_planner.domain.errors import InputError, Problem
from moai_planner.domain.measured import MeasuredPoint, Shard, StepShape
from moai_planner.domain.model import Model
from moai_planner.profile import device as devices
from moai_planner.profile import run, sweep, table, torch_engine
from moai_planner.profile.engine import EngineSettings
from moai_planner.profile.front_door import ServeSettings
from moai_planner.profile.journal import Journal, open_journal
from moai_planner.profile.shard import divide

ReadModel = Callable[[Mapping[str, Any]], Model]
"""A Hugging Face config as a model value; the catalog's reader, handed in by the command line."""
ENGINES = tuple(run.RUNNERS)
_CPU_LIMITS = (2048, 32, 2048)
_GPU_LIMITS = (8192, 256, 16384)
_QUANTIZATION = {"bf16": "", "fp8": "fp8"}
_NATIVE_ONLY = ("mxfp4", "nvfp4")
_START_S = {"cpu": 30.0, "cuda": 90.0, "rocm": 120.0}
"Engine start, assumed until measured."
_ROUGH_FLOP_PER_S = {"cpu": 3e11, "cuda": 4e14, "rocm": 4e14}
_ROUGH_BYTES_PER_S = {"cpu": 1e10, "cuda": 2e12, "rocm": 2e12}


@dataclass(frozen=True)
class Request:
    """What the user asked for, resolved."""

    model: str
    "Name of the table."
    config: Mapping[str, Any]
    "Hugging Face config of the whole model."
    shards: tuple[Shard, ...]
    precision: str
    budget_s: float
    out: Path
    date: str
    seed: int = 0
    replace: bool = False
    finish: bool = False
    "Measure nothing: write the table from what an unfinished run left in its journal."
    graphs: bool | None = None
    "None: as the platform serves (on for GPUs; a CPU runs eagerly)."
    engine: str = "vllm"
    "`vllm`, or `torch`: layers by torch's own operators where vLLM does not run."
    limits: tuple[int, int, int] | None = None
    "Largest step tokens, batch and context; None = the platform's."


@dataclass(frozen=True)
class Outcome:
    """What came out, and where it lies."""

    csv: Path
    meta: dict[str, Any]
    points: dict[Shard, tuple[MeasuredPoint, ...]]
    edges: dict[Shard, dict[StepShape, str]]
    resumed: int
    new_visits: int


def default_limits(platform: str) -> tuple[int, int, int]:
    """Largest step tokens, batch and context measured unless the user says otherwise."""
    return _CPU_LIMITS if platform == "cpu" else _GPU_LIMITS


def sweep_limits(request: Request, device: devices.Device) -> sweep.Limits:
    """The platform's limits, inside the model's context window."""
    tokens, batch, context = request.limits or default_limits(device.platform)
    window = int(request.config.get("max_position_embeddings", 4096))
    graphs = device.platform != "cpu" if request.graphs is None else request.graphs
    return sweep.Limits(min(tokens, window), batch, min(context, window - 64), 1 << 62, graphs)


def expected_s(config: Mapping[str, Any], shape: StepShape, platform: str) -> float:
    """A rough time of one step, for the dry run alone: weights read once, two flop a weight and row."""
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    width = config.get("moe_intermediate_size") or config.get("intermediate_size", 4 * hidden)
    active = config.get("num_experts_per_tok") or config.get("experts_per_token") or 1
    weights = layers * hidden * (4 * hidden + 3 * width * active) + hidden * config["vocab_size"]
    flop_s = 2 * weights * shape.step_tokens / _ROUGH_FLOP_PER_S[platform]
    context_tokens = max(1, shape.batch) * shape.context_tokens + shape.tokens**2 / 2
    bytes_moved = 2 * weights + 4 * layers * hidden * context_tokens
    return (
        max(flop_s, 2 * weights / _ROUGH_BYTES_PER_S[platform])
        + bytes_moved / _ROUGH_BYTES_PER_S[platform] / 4
    )


def dry_run(request: Request, device: devices.Device) -> list[tuple[Shard, StepShape, float]]:
    """Every coarse point with the expected duration of all its visits."""
    rows = []
    for shard in request.shards:
        config = divide(dict(request.config), shard)
        for shape in sweep.coarse_grid(sweep_limits(request, device)):
            steps = sweep.DECODE_STEPS + 2 if shape.phase == "decode" else 1
            visits = sweep.MIN_VISITS + 1
            rows.append((shard, shape, visits * steps * expected_s(config, shape, device.platform)))
    return rows


def start_s(platform: str) -> float:
    """Assumed time of one engine start."""
    return _START_S[platform]


def folder_of(request: Request, accelerator: str, engine_version: str) -> Path:
    return request.out / accelerator / f"{request.engine}-{engine_version}"


def device_facts(request: Request, device: devices.Device, engine_version: str) -> dict[str, Any]:
    """The part of meta.yaml that all profiles of a folder share."""
    return {
        "format": table.FORMAT,
        "accelerator": device.accelerator,
        "device": device.name,
        "platform": device.platform,
        "driver": device.driver,
        "engine": request.engine,
        "engine_version": engine_version,
        "time_basis": "cpu" if device.platform == "cpu" else "wall",
        "threads": 1 if device.platform == "cpu" else 0,
        "versions": devices.versions(device.platform),
    }


def profile_device(
    request: Request, device: devices.Device, advance: run.Advance, read_model: ReadModel | None = None
) -> Outcome:
    """Measure what the request asks for, merge it with what is there, and return it (nothing is written).

    `read_model` (a config as a model value) is needed where the engine does not read configs itself.
    """
    version = devices.require_engine(device.platform, request.engine)
    models = _rank_models(request, device, read_model)
    facts = device_facts(request, device, version)
    folder = folder_of(request, device.accelerator, version)
    stem = table_name(request)
    existing = _existing(folder, stem, facts, request.replace)
    limits = sweep_limits(request, device)
    journal = open_journal(folder / f".{stem}.journal.jsonl", _key(request, facts, limits))
    before = sum(len(visits) for visits in journal.visits.values())
    if not request.finish:
        _measure_shards(request, device, facts, limits, journal, advance, models)
    elif not journal.resumed:
        journal.path.unlink()
        raise InputError(Problem("--finish", "", "no unfinished run of this profile", "leave --finish out"))
    points = {
        shard: tuple(sorted(run.points(journal, shard).values(), key=_by_shape)) for shard in request.shards
    }
    edges: dict[Shard, dict[StepShape, str]] = {}
    for (shard, shape), reason in sorted(journal.edges.items(), key=str):
        edges.setdefault(shard, {})[shape] = reason
    for shard, shapes in existing[2].items():
        edges[shard] = {**shapes, **edges.get(shard, {})}
    visits = sum(len(visits) for visits in journal.visits.values())
    meta = _meta(request, facts, journal, points, existing[0], stem)
    points = {
        shard: table.merge_points(existing[1].get(shard, ()), points.get(shard, ()))
        for shard in sorted({*existing[1], *points}, key=lambda s: (s.tp, s.ep))
    }
    return Outcome(folder / f"{stem}.csv", meta, points, edges, journal.resumed, visits - before)


def table_name(request: Request) -> str:
    return request.model if request.precision == "bf16" else f"{request.model}-{request.precision}"


def journal_path(outcome: Outcome) -> Path:
    return outcome.csv.parent / f".{outcome.csv.stem}.journal.jsonl"


def _by_shape(point: MeasuredPoint) -> StepShape:
    return point.shape


def _existing(
    folder: Path, stem: str, facts: Mapping[str, Any], replace: bool
) -> tuple[dict[str, Any], dict[Shard, tuple[MeasuredPoint, ...]], dict[Shard, dict[StepShape, str]]]:
    """Meta, points and edges already in the folder, found to be of this device and version, or refused."""
    if replace or not (folder / "meta.yaml").exists():
        return {}, {}, {}
    meta = table.read_meta(folder / "meta.yaml")
    table.check_same_device(folder / "meta.yaml", meta, facts)
    path = folder / f"{stem}.csv"
    return meta, *(table.read_points(path) if path.exists() else ({}, {}))


def _key(request: Request, facts: Mapping[str, Any], limits: sweep.Limits) -> dict[str, Any]:
    """What a resumed run must have in common with the one that began the journal."""
    return {
        **{name: facts[name] for name in table.DEVICE_KEYS},
        "model": request.model,
        "config": config_digest(request.config),
        "precision": request.precision,
        "shards": [[shard.tp, shard.ep] for shard in request.shards],
        "limits": [limits.tokens, limits.batch, limits.context_tokens],
        "graphs": limits.graphs,
        "seed": request.seed,
    }


def config_digest(config: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]


def _measure_shards(
    request: Request,
    device: devices.Device,
    facts: Mapping[str, Any],
    limits: sweep.Limits,
    journal: Journal,
    advance: run.Advance,
    models: Mapping[Shard, Model | None],
) -> None:
    if not journal.ceilings:
        import time

        from moai_planner.profile.ceilings import measure_ceilings
        from moai_planner.profile.engine import prepare_environment

        prepare_environment(device.platform, 1)
        began = time.monotonic()
        found = measure_ceilings(device.platform)
        journal.add_ceilings({name: float(f"{v:.4g}") for name, v in found.items()}, time.monotonic() - began)
    with tempfile.TemporaryDirectory(prefix="moai-profile-") as scratch:
        for index, shard in enumerate(request.shards):
            folder = Path(scratch) / f"tp{shard.tp}-ep{shard.ep}"
            folder.mkdir()
            (folder / "config.json").write_text(json.dumps(divide(dict(request.config), shard)))
            task = run.Task(
                shard,
                replace(engine_settings(request, device, folder), model=models[shard]),
                limits,
                str(facts["time_basis"]),
                request.budget_s * (index + 1) / len(request.shards),
                request.seed,
                run.RUNNERS[request.engine],
            )
            run.measure(task, journal, advance)


def _rank_models(
    request: Request, device: devices.Device, read_model: ReadModel | None
) -> dict[Shard, Model | None]:
    """Each rank's layers; refuses formats and models that the engine has no kernels for."""
    if request.engine == "vllm":
        quantization(request)
        return dict.fromkeys(request.shards)
    if read_model is None:
        raise ValueError(f"{request.engine} reads no config: read_model is missing")
    models = {shard: read_model(divide(dict(request.config), shard)) for shard in request.shards}
    for model in models.values():
        torch_engine.check_model(model, request.precision, device.platform)
    return models


def engine_settings(request: Request, device: devices.Device, folder: Path) -> EngineSettings:
    """How the engine is started on a model folder."""
    limits = sweep_limits(request, device)
    window = int(request.config.get("max_position_embeddings", 4096))
    return EngineSettings(
        folder=folder,
        platform=device.platform,
        max_model_len=min(window, max(limits.tokens, limits.context_tokens) + 64),
        max_num_seqs=limits.batch,
        max_num_batched_tokens=limits.tokens + limits.batch,
        quantization=quantization(request) if request.engine == "vllm" else "",
        graphs=limits.graphs,
        seed=request.seed,
        precision=request.precision,
    )


def serve_settings(request: Request, device: devices.Device, folder: Path) -> ServeSettings:
    """The same engine settings for `vllm serve`."""
    own = engine_settings(request, device, folder)
    return ServeSettings(
        folder, own.platform, own.max_model_len, own.max_num_seqs, own.max_num_batched_tokens, own.graphs,
        own.quantization, own.kv_cache_gib,
    )  # fmt: skip


def quantization(request: Request) -> str:
    """vLLM's name of the weight format of a request."""
    return quantization_of(request.config, request.precision)


def quantization_of(config: Mapping[str, Any], precision: str) -> str:
    """vLLM's name of the weight format; empty when the config itself carries it."""
    if "quantization_config" in config:
        return ""
    if precision in _QUANTIZATION:
        return _QUANTIZATION[precision]
    found = "needs a config with its quantization_config" if precision in _NATIVE_ONLY else "unknown here"
    raise InputError(
        Problem("--precision", "", f"{precision}: {found}", f"one of {', '.join(_QUANTIZATION)}")
    )


def _meta(
    request: Request,
    facts: Mapping[str, Any],
    journal: Journal,
    points: Mapping[Shard, tuple[MeasuredPoint, ...]],
    existing: Mapping[str, Any],
    stem: str,
) -> dict[str, Any]:
    noise = sorted(point.noise_frac for found in points.values() for point in found)
    earlier = existing.get("models", {}).get(stem, {})
    entry = {
        "model": request.model,
        "precision": request.precision,
        "config_digest": config_digest(request.config),
        "config": dict(request.config),
        "shards": [{"tp": shard.tp, "ep": shard.ep} for shard in request.shards],
        "dates": sorted({*earlier.get("dates", []), request.date}),
        "seed": request.seed,
        "graphs": journal_graphs(request, facts),
        "spent_s": round(journal.spent_s, 1),
        "visits": sum(len(visits) for visits in journal.visits.values()),
        "median_noise_frac": round(noise[len(noise) // 2], 5) if noise else None,
        "engine_facts": journal.engine,
    }
    models = {**existing.get("models", {}), stem: entry}
    return {**facts, "ceilings": journal.ceilings, "models": dict(sorted(models.items()))}


def journal_graphs(request: Request, facts: Mapping[str, Any]) -> bool:
    return facts["platform"] != "cpu" if request.graphs is None else request.graphs
