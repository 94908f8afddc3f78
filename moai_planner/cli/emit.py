"""`moai-plan emit PLAN --target bash --out DIR`: a plan becomes files that start it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def emit(
    plan: Annotated[Path, typer.Argument(help="A plan file, as `solve` writes it.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.", show_default=False)],
    target: Annotated[str, typer.Option("--target", "-t", help="What to write: bash.")] = "bash",
    affinity: Annotated[
        str, typer.Option(help="none, or session: one x-session-id stays in one lane and on one worker.")
    ] = "none",
    model_path: Annotated[
        list[str] | None,
        typer.Option(help="Weights location, PATH or DEPLOYMENT=PATH; may be repeated.", show_default=False),
    ] = None,
    connector: Annotated[
        str, typer.Option(help="KV connector instead of the plan's: nixl, mooncake, moriio, example.")
    ] = "",
    shared_kv: Annotated[str, typer.Option(help="Shared folder for KV of lanes on CPUs.")] = "/tmp/moai-kv",
    force: Annotated[
        bool, typer.Option("--force", help="Write into a folder that is not ours, or over edited files.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write launch scripts, router table and front of a plan, checked."""
    from moai_planner.catalog.plan_file import read_plan
    from moai_planner.cli.output import print_json, print_table
    from moai_planner.emit.emit import emit as emit_plan
    from moai_planner.emit.launch import LaunchOptions
    from moai_planner.emit.templates import read_target

    read_target(target)
    options = LaunchOptions(affinity, _model_paths(model_path or []), connector, shared_kv)
    report = emit_plan(read_plan(plan), target, out, options, force)
    if as_json:
        print_json(
            {
                "target": report.target,
                "out": report.out,
                "plan_sha256": report.plan_digest,
                "files": [{"path": f.path, "executable": f.executable} for f in report.files],
                "warnings": list(report.warnings),
            }
        )
        return
    rows = [(f.path, len(f.content), "yes" if f.executable else "") for f in report.files]
    notes = [f"warning: {warning}" for warning in report.warnings]
    print_table(f"{len(rows)} files in {out}", ("file", "bytes", "runs"), rows, notes)


def _model_paths(given: list[str]) -> dict[str, str]:
    """`PATH` is for every deployment, `NAME=PATH` for one."""
    pairs = (text.partition("=") if "=" in text else ("", "", text) for text in given)
    return {name: path for name, _, path in pairs}
