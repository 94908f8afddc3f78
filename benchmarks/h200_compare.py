"""Predicted before against measured, predicted after against published runs: docs/accuracy/h200.md.

    python benchmarks/h200_compare.py [MEASUREMENTS.csv[.gz]] [--accelerator h200_sxm] [--out FILE]

Before: the parameters as they are (calibrated or assumed). After: the measured profile of the accelerator.
Where there is no profile the file says so, and nothing else. Nothing here is fitted.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from moai_planner.accuracy.compare import Pair, pairs_of
from moai_planner.accuracy.measurements import read_measurements
from moai_planner.accuracy.prepare import Prepared, prepare
from moai_planner.catalog.accelerators import accelerator
from moai_planner.catalog.models import model, read_model
from moai_planner.catalog.parameters import parameters_for
from moai_planner.cli import measured_profiles
from moai_planner.cli.output import note, write_text
from moai_planner.costmodel.configuration import Configuration
from moai_planner.costmodel.measured import modelled_s
from moai_planner.costmodel.serving import collectives_s, step_times
from moai_planner.domain.layout import Engine, Layout
from moai_planner.domain.measured import PHASES, Shard
from moai_planner.domain.precision import PRECISIONS
from moai_planner.domain.provenance import ASSUMED
from moai_planner.profile.table import read_meta, read_points
from moai_planner.simulate.bench import BenchSettings, simulate_bench
from moai_planner.simulate.instance import instance_of
from moai_planner.simulate.system import colocated

DOCS = Path(__file__).resolve().parent.parent / "docs"
SERVED = ("mean_ttft_ms", "mean_tpot_ms", "output_throughput")
Table = list[Sequence[object]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("measurements", type=Path, nargs="?")
    parser.add_argument("--accelerator", default="h200_sxm")
    parser.add_argument("--root", type=Path, help="folder of measured profiles, the shipped one if left out")
    parser.add_argument("--out", type=Path)
    a = parser.parse_args()
    if a.root:
        measured_profiles.measured_root = lambda: a.root
    out = a.out or DOCS / "accuracy" / "h200.md"
    write_text(out, document(a.accelerator, a.measurements))
    note(f"written to {out}")


def document(accelerator_id: str, measurements: Path | None) -> str:
    """The whole file as Markdown."""
    place = measured_profiles.measured_root() / accelerator_id
    folders = sorted(path for path in place.glob("*-*") if (path / "meta.yaml").exists())
    lines = [
        f"# A measured profile of {accelerator_id}",
        "",
        "Written by `python benchmarks/h200_compare.py`. Before: parameters as they are, calibrated or "
        "assumed. After: the measured profile. Nothing is fitted here.",
        "",
    ]
    if not folders:
        lines += [
            f"**No profile of {accelerator_id} yet.** Every figure for it is calibrated or modelled; "
            "`docs/h200.md` says what brings one home.",
            "",
        ]
        return "\n".join(lines)
    for folder in folders:
        lines += _provenance(folder)
        lines += _section("Steps: predicted before, against measured", STEPS, list(_steps(folder)))
        lines += _section("Serving runs on the device", SERVING, list(_serving(folder)))
    if measurements:
        title = f"Published vLLM runs on {accelerator_id} that a profile answers for, rows never fitted"
        lines += _section(title, PUBLISHED, list(_published(accelerator_id, measurements)))
    return "\n".join(lines)


def _section(title: str, columns: Sequence[str], rows: Table) -> list[str]:
    if not rows:
        return [f"## {title}", "", "None.", ""]
    cells = [columns, ["---"] * len(columns), *rows]
    return [f"## {title}", "", *("| " + " | ".join(map(str, row)) + " |" for row in cells), ""]


def _provenance(folder: Path) -> list[str]:
    meta = read_meta(folder / "meta.yaml")
    versions = ", ".join(f"{name} {version}" for name, version in meta.get("versions", {}).items())
    dates = sorted({date for entry in meta["models"].values() for date in entry.get("dates", [])})
    driver, basis = meta["driver"] or "none", meta["time_basis"]
    facts = f"{meta['device']}, driver {driver}; {versions}; {basis} time"
    return [f"`{folder.parent.name}/{folder.name}`, measured {', '.join(dates)}: {facts}.", ""]


STEPS = ("model", "precision", "rank", "phase", "steps", "median error", "bias", "noise of a visit")


def _steps(folder: Path) -> Iterator[Sequence[object]]:
    """One row a table, rank and phase. The rank's collectives, which it was timed without, are taken off."""
    meta = read_meta(folder / "meta.yaml")
    for name, entry in meta["models"].items():
        for shard, points in read_points(folder / f"{name}.csv")[0].items():
            c = _configuration(meta, entry, shard, max(p.shape.step_tokens for p in points))
            times, shapes = step_times(c), [p.shape for p in points]
            predicted = [
                modelled_s(times, shape) - lacking
                for shape, lacking in zip(shapes, collectives_s(c, shapes), strict=True)
            ]
            for phase in PHASES:
                off = [
                    (value / p.seconds - 1, p.noise_frac)
                    for value, p in zip(predicted, points, strict=True)
                    if p.shape.phase == phase
                ]
                if off:
                    rank = f"tp {shard.tp}, ep {shard.ep}"
                    error, bias = median(abs(e) for e, _ in off), sum(e for e, _ in off) / len(off)
                    noise = median(n for _, n in off)
                    yield name, entry["precision"], rank, phase, len(off), *_percent(error, bias, noise)


def _percent(error: float, bias: float, noise: float) -> tuple[str, str, str]:
    return f"{error:.1%}", f"{bias:+.1%}", f"{noise:.1%}"


def _configuration(meta: dict, entry: dict, shard: Shard, step_tokens: int) -> Configuration:
    """The layout that a rank belongs to, run as it was profiled: synchronously."""
    device, formats = accelerator(meta["accelerator"]), PRECISIONS[entry["precision"]]
    served = read_model(dict(entry["config"]), entry["model"], "meta.yaml", ASSUMED)
    layout = Layout(1, 1, shard.ep, shard.ep) if shard.ep > 1 else Layout(shard.tp)
    engine = Engine(
        max_num_seqs=256,
        max_num_batched_tokens=max(8192, step_tokens),
        max_model_len=min(32768, served.max_context_tokens),
        graphs=bool(entry.get("graphs")),
        async_scheduling=False,
    )
    parameters = parameters_for(device, "vllm", formats)
    per_node = max(8, device.scale_up.devices)
    network = device.scale_out_bytes_per_s * per_node
    return Configuration(device, served, formats, layout, engine, per_node, network, parameters)


SERVING = ("model", "concurrency", "figure", "measured", "before", "after", "error before", "error after")


def _serving(folder: Path) -> Iterator[Sequence[object]]:
    """Runs of `h200_serve.py` beside the simulator with and without the profile."""
    file = folder / "serve.jsonl"
    meta = read_meta(folder / "meta.yaml")
    for run in map(json.loads, file.read_text().splitlines()) if file.exists() else ():
        asked = (run["name"], run["precision"])
        entry = next((e for e in meta["models"].values() if (e["model"], e["precision"]) == asked), None)
        if entry is None:
            continue
        given = run["settings"]
        c = _configuration(meta, entry, Shard(), given["max_num_batched_tokens"])
        engine = replace(
            c.engine,
            max_num_seqs=given["max_num_seqs"],
            max_model_len=given["max_model_len"],
            max_num_batched_tokens=given["max_num_batched_tokens"],
            async_scheduling=meta["platform"] != "cpu",
            prefix_caching=False,
        )
        c = replace(c, engine=engine)
        profiled = _profiled(c)
        before, after = (_simulated(each, run) for each in (c, profiled))
        for figure in SERVED:
            found = (run[figure], before[figure], after[figure])
            errors = (f"{one[figure] / run[figure] - 1:+.1%}" for one in (before, after))
            yield run["model"], run["concurrency"], figure, *(f"{one:.4g}" for one in found), *errors


def _profiled(c: Configuration) -> Configuration:
    """With the whole steps that were measured of it, if any."""
    what = (c.accelerator, c.engine.name, c.model, c.precision, c.layout)
    found = measured_profiles.profile_for(*what)
    return replace(c, measured=found if isinstance(found, tuple) else ())


def _simulated(c: Configuration, run: dict) -> dict[str, float]:
    settings = BenchSettings(
        num_prompts=run["prompts"],
        max_concurrency=run["concurrency"],
        input_tokens=run["isl_tokens"],
        output_tokens=run["osl_tokens"],
    )
    return simulate_bench(colocated(instance_of(c, step_times(c))), settings)


PUBLISHED = ("model", "precision", "metric", "rows", "median error before", "median error after")


def _published(accelerator_id: str, file: Path) -> Iterator[Sequence[object]]:
    """Validate rows by model and metric: the same rows without and with the profile."""
    runs = [
        run
        for run in read_measurements(file).runs
        if run.split == "validate" and run.accelerator == accelerator_id and run.engine == "vllm"
    ]
    before = prepare(runs, model, accelerator, parameters_for)
    after, answered = _with_profiles(before)
    places = zip(before.runs, before.records["decode"], strict=True)
    kept = {run.id for run, place in places if answered[place]}
    grouped: dict[tuple[str, str, str], list[tuple[Pair, Pair]]] = {}
    for old, new in zip(pairs_of(before), pairs_of(after), strict=True):
        if old.run.id in kept:
            grouped.setdefault((old.run.model, old.run.precision, old.metric), []).append((old, new))
    for key, pairs in sorted(grouped.items()):
        errors = (median(abs(pair[i].error) for pair in pairs) for i in (0, 1))
        yield *key, len(pairs), *(f"{error:.1%}" for error in errors)


def _with_profiles(prepared: Prepared) -> tuple[Prepared, list[bool]]:
    """The same configurations with measured steps where there are any."""
    configurations = tuple(_profiled(c) for c in prepared.configurations)
    return replace(prepared, configurations=configurations), [bool(c.measured) for c in configurations]


if __name__ == "__main__":
    main()
