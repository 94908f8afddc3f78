"""`moai-plan profile`: time real engine steps on this machine and keep them as a measured profile."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def profile(
    model: Annotated[
        str, typer.Option("--model", help="A small test model, a shipped name, or a path to a config.json.")
    ],
    engine: Annotated[
        str, typer.Option(help="vllm, or torch: layers by torch's own operators, where vLLM does not run.")
    ] = "vllm",
    accelerator: Annotated[
        str, typer.Option(help="Accelerator id to file the profile under; found out when left empty.")
    ] = "",
    tp: Annotated[str, typer.Option(help="Tensor-parallel shards to measure, each on one device.")] = "1",
    ep: Annotated[int, typer.Option(help="Expert-parallel degree: a rank holds 1/ep of the experts.")] = 1,
    layers: Annotated[int, typer.Option(help="Only the first layers of the model; 0 = all.")] = 0,
    precision: Annotated[str, typer.Option(help="Number format of the weights.")] = "bf16",
    budget: Annotated[str, typer.Option(help="Time to spend, like 90s or 15m.")] = "15m",
    out: Annotated[Path, typer.Option(help="Folder of measured profiles.")] = Path(
        "hardware_profiles/measured"
    ),
    name: Annotated[str, typer.Option(help="Name of the table; the model's when left empty.")] = "",
    max_tokens: Annotated[int, typer.Option(help="Largest prompt chunk of a step; 0 = by platform.")] = 0,
    max_batch: Annotated[int, typer.Option(help="Largest decode batch; 0 = by platform.")] = 0,
    max_context: Annotated[int, typer.Option(help="Longest context; 0 = by platform.")] = 0,
    date: Annotated[str, typer.Option(help="Date kept in meta.yaml; today when left empty.")] = "",
    seed: Annotated[int, typer.Option(help="Order of visits and choice of held-out points.")] = 0,
    eager: Annotated[bool, typer.Option("--eager", help="Without captured graphs, on a GPU too.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Do not merge with what is there.")] = False,
    finish: Annotated[
        bool, typer.Option("--finish", help="Write the table from what a killed run left; start nothing.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the sweep and how long it takes.")
    ] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="Closed loop through `vllm serve` afterwards.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure step times of a model on this machine with a real engine and dummy weights."""
    from moai_planner.cli.output import note, progress
    from moai_planner.profile import device as devices
    from moai_planner.profile import results, session

    device = _device(accelerator, dry_run)
    request = _request(
        engine, serve, model, name, tp, ep, layers, precision, budget, out,
        (max_tokens, max_batch, max_context), date, seed, eager, replace, finish,
        device.platform,
    )  # fmt: skip
    if dry_run:
        _print_sweep(session.dry_run(request, device), request, device, as_json)
        return
    devices.require_engine(device.platform, engine)
    for other in devices.other_users(device.platform):
        note(f"the device is in use by others, times will be noisy: {other}")
    with progress(100, f"profile {request.model}") as advance:
        outcome = session.profile_device(request, device, _by_budget(advance, request.budget_s), _read_model)
    found = results.assess_outcome(outcome, _read_model, request.seed)
    _write(outcome, found)
    looped = _closed_loop(request, device, outcome, found) if serve else None
    _print_outcome(outcome, found, looped, as_json)
    if looped and any(row["verdict"] == "OUTSIDE" for row in looped["rows"]):
        raise typer.Exit(3)


def _by_budget(advance, budget_s):
    """Progress in hundredths of the budget, from the seconds that are left of it."""
    shown = 0

    def step(left_s: float, note: str) -> None:
        nonlocal shown
        done = max(shown, min(100, int(100 * (1 - left_s / budget_s))))
        advance(done - shown, f"{note}, {max(0.0, left_s):.0f} s left")
        shown = done

    return step


def _read_model(config):
    """A Hugging Face config as the catalog reads it."""
    from moai_planner.catalog import models
    from moai_planner.domain.provenance import ASSUMED
    from moai_planner.profile.session import config_digest

    return models.read_model(dict(config), config_digest(config), "config.json", ASSUMED)


def _closed_loop(request, device, outcome, found):
    """Run it, and keep its rows beside the fit."""
    from moai_planner.cli.output import write_text
    from moai_planner.cli.profile_serve import closed_loop
    from moai_planner.profile import table

    looped = closed_loop(request, device, outcome, found, _read_model)
    found.meta["models"][outcome.csv.stem]["closed_loop"] = looped
    write_text(outcome.csv.parent / "meta.yaml", table.meta_text(found.meta))
    return looped


def _device(accelerator, dry_run):
    """The device at hand, filed under the accelerator the user names; a dry run may be for another."""
    from dataclasses import replace

    from moai_planner.catalog import accelerators
    from moai_planner.domain.errors import InputError, Problem
    from moai_planner.profile import device as devices

    found = devices.detect()
    if not accelerator:
        if found.accelerator:
            return found
        remedy = "name the accelerator it is: --accelerator ID"
        raise InputError(Problem("--accelerator", "", f"{found.name} has no profile of that name", remedy))
    platform = accelerators.accelerator(accelerator).platform
    if platform != found.platform and not dry_run:
        what = f"{accelerator}, but the engine here would run on {found.name}"
        raise InputError(Problem("--accelerator", "", what, "leave it out, or run on that device"))
    name = found.name if platform == found.platform else "not here"
    return replace(found, accelerator=accelerator, platform=platform, name=name)


def _request(
    engine, serve, model, name, tp, ep, layers, precision, budget, out, limits, date, seed, eager, replace,
    finish, platform,
):  # fmt: skip
    """Read the flags; all problems at once."""
    import datetime

    from moai_planner.cli.profiled_config import named_config
    from moai_planner.domain import units
    from moai_planner.domain.errors import InputError, Problem
    from moai_planner.domain.measured import Shard
    from moai_planner.profile import session

    problems = []
    degrees = []
    for text in tp.split(","):
        if text.strip().isdigit() and int(text) > 0:
            degrees.append(int(text))
        else:
            problems.append(Problem("--tp", "", text, "whole numbers with commas, like 1,2,4"))
    if ep < 1:
        problems.append(Problem("--ep", "", str(ep), "1 or more"))
    if engine not in session.ENGINES:
        problems.append(Problem("--engine", "", engine, "one of " + ", ".join(session.ENGINES)))
    if serve and engine != "vllm":
        problems.append(Problem("--serve", "", f"{engine} serves nothing", "leave it out, or --engine vllm"))
    if serve and finish:
        problems.append(
            Problem("--serve", "", "starts a server, --finish starts nothing", "give one of them")
        )
    if ep > 1 and platform == "cpu" and engine == "vllm":
        problems.append(
            Problem("--ep", "", str(ep), "the CPU engine cannot run expert parallelism; measure on a GPU")
        )
    try:
        budget_s = units.parse(budget.replace("s", " s").replace("m", " m").replace("h", " h"), "s")
    except units.UnitError as error:
        problems.append(Problem("--budget", "", budget, str(error)))
        budget_s = 0.0
    try:
        date = date or datetime.datetime.now(datetime.UTC).date().isoformat()
        datetime.date.fromisoformat(date)
    except ValueError:
        problems.append(Problem("--date", "", date, "write it like 2026-11-21"))
    try:
        stem, config = named_config(model)
    except InputError as error:
        problems.extend(error.problems)
        stem, config = "", {}
    if layers < 0:
        problems.append(Problem("--layers", "", str(layers), "zero or more"))
    elif layers and config:
        stem, config = f"{stem}-{layers}layers", _first_layers(config, layers)
    for flag, value in zip(("--max-tokens", "--max-batch", "--max-context"), limits, strict=True):
        if value < 0:
            problems.append(Problem(flag, "", str(value), "zero or more"))
    if problems:
        raise InputError(problems)
    default = session.default_limits(platform)
    return session.Request(
        model=name or stem,
        config=config,
        shards=tuple(Shard(degree, ep) for degree in dict.fromkeys(degrees)),
        precision=precision,
        budget_s=budget_s,
        out=out,
        date=date,
        seed=seed,
        replace=replace,
        engine=engine,
        finish=finish,
        graphs=False if eager else None,
        limits=tuple(given or usual for given, usual in zip(limits, default, strict=True)),
    )


def _first_layers(config, layers):
    """The config of a model that ends after its first layers: a stand-in for one too large here."""
    part = {**config, "num_hidden_layers": layers}
    if isinstance(part.get("layer_types"), list):
        part["layer_types"] = part["layer_types"][:layers]
    return part


def _print_sweep(rows, request, device, as_json) -> None:
    from moai_planner.cli.output import print_json, print_table
    from moai_planner.domain import units
    from moai_planner.profile import session

    grid_s = sum(seconds for _, _, seconds in rows)
    starts_s = len(request.shards) * session.start_s(device.platform)
    total_s = min(max(request.budget_s, starts_s), starts_s + grid_s) if grid_s else starts_s
    if as_json:
        points = [
            {"tp": shard.tp, "ep": shard.ep, **vars(shape), "expected_s": round(seconds, 4)}
            for shard, shape, seconds in rows
        ]
        print_json(
            {
                "accelerator": device.accelerator,
                "device": device.name,
                "budget_s": request.budget_s,
                "expected_start_s": starts_s,
                "expected_grid_s": round(grid_s, 1),
                "points": points,
            }
        )
        return
    print_table(
        f"{request.model} on {device.accelerator} ({device.name})",
        ("tp", "ep", "phase", "tokens", "batch", "context", "expected"),
        [
            (s.tp, s.ep, p.phase, p.tokens, p.batch, p.context_tokens, units.show(seconds, "s"))
            for s, p, seconds in rows
        ],
        notes=(
            f"{len(rows)} coarse points: about {units.show(total_s, 's')} with the engine's start "
            f"(a rough guess); the rest of the budget of {units.show(request.budget_s, 's')} goes to points "
            "that neighbours predict badly and to repeats",
        ),
    )


def _write(outcome, found) -> None:
    from moai_planner.cli.output import write_text
    from moai_planner.profile import session, table

    write_text(outcome.csv, table.csv_text(outcome.points, outcome.edges))
    write_text(outcome.csv.parent / "meta.yaml", table.meta_text(found.meta))
    for name, svg in found.pictures.items():
        write_text(outcome.csv.parent / name, svg)
    session.journal_path(outcome).unlink()


def _print_outcome(outcome, found, looped, as_json) -> None:
    from moai_planner.cli.output import print_json, print_table
    from moai_planner.cli.profile_serve import print_closed_loop

    entry = found.meta["models"][outcome.csv.stem]
    if as_json:
        print_json(
            {
                "csv": str(outcome.csv),
                "points": {f"tp{s.tp}-ep{s.ep}": len(p) for s, p in outcome.points.items()},
                "resumed_lines": outcome.resumed,
                "new_visits": outcome.new_visits,
                "fit": entry["fit"],
                "transfer": {name: dict(row) for name, row in found.transfer.items()},
                "closed_loop": looped,
            }
        )
        return
    for shard, points in outcome.points.items():
        _print_points(shard, points, found.assessments.get(shard))
    rows = [
        (shard, phase, row["points"], *(f"{100 * row[key]:.1f}%" for key in _HELD_OUT_KEYS))
        for shard, fit in entry["fit"].items()
        for phase, row in fit["held_out"].items()
    ]
    print_table(
        "Held-out points: a random fifth, never fitted",
        ("shard", "phase", "points", "median error", "largest", "noise of a visit"),
        rows,
    )
    if found.transfer:
        print_table(
            "Transfer: each model predicted from the operators of the others",
            ("model", "phase", "median error"),
            [(m, phase, f"{100 * e:.1f}%") for m, row in found.transfer.items() for phase, e in row.items()],
        )
    if looped:
        print_closed_loop(looped)
    written = ", ".join([outcome.csv.name, "meta.yaml", *found.pictures])
    print_table("", ("written to", "files"), [(str(outcome.csv.parent), written)])


_HELD_OUT_KEYS = ("median_error_frac", "largest_error_frac", "median_noise_frac")


def _print_points(shard, points, assessment) -> None:
    from moai_planner.cli.output import print_table
    from moai_planner.domain import units

    rows = []
    for p in points:
        s = p.shape
        modelled = assessment.modelled_s[s] if assessment else None
        rows.append(
            (
                s.phase, s.tokens, s.batch, s.context_tokens, units.show(p.seconds, "s"),
                f"±{50 * (p.high_s - p.low_s) / p.seconds:.1f}%", f"{100 * p.noise_frac:.1f}%", p.repeats,
                units.show(modelled, "s") if modelled else "",
                f"{100 * (modelled / p.seconds - 1):+.1f}%" if modelled else "",
                "yes" if assessment and s in assessment.held_out else "",
            )
        )  # fmt: skip
    print_table(
        f"Step times of a tp {shard.tp}, ep {shard.ep} rank",
        (
            "phase", "tokens", "batch", "context", "measured", "interval", "noise", "visits", "modelled",
            "off", "held out",
        ),
        rows,
        notes=("modelled: operator costs alone, fitted to the points that were not held out",),
    )  # fmt: skip
