"""Plan → folder of artifacts: launch specification, checks, files, and the files checked again.

report = emit(plan, "bash", Path("deploy"))
report.files, report.warnings
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from moai_planner import __version__
from moai_planner.domain.errors import Infeasible, InputError, Problem
from moai_planner.domain.plan import Plan
from moai_planner.emit.context import contexts
from moai_planner.emit.lane_rules import check_lanes
from moai_planner.emit.launch import AFFINITIES, Launch, LaunchOptions, build_launch
from moai_planner.emit.platforms import CONNECTOR_CLASS, ENGINE_PROFILE
from moai_planner.emit.publish import manifest, publish
from moai_planner.emit.render import RenderedFile, render
from moai_planner.emit.rules import Finding, check_instances
from moai_planner.emit.templates import read_target
from moai_planner.emit.validate import file_problems


@dataclass(frozen=True)
class EmitReport:
    """What was written, and what to know about it."""

    target: str
    out: str
    plan_digest: str
    files: tuple[RenderedFile, ...]
    warnings: tuple[str, ...]
    launch: Launch = field(repr=False)


def emit(
    plan: Plan, target: str, out: Path, options: LaunchOptions | None = None, force: bool = False
) -> EmitReport:
    """Write the artifacts of a plan into `out`, whole or not at all."""
    report = compile_plan(plan, target, out, options)
    publish(report.files, out, force)
    return report


def compile_plan(plan: Plan, target: str, out: Path, options: LaunchOptions | None = None) -> EmitReport:
    """Everything that `emit` does, short of writing."""
    options = options or LaunchOptions()
    described = read_target(target)
    _refuse_infeasible(plan)
    _refuse_options(plan, options)
    launch = build_launch(plan, options)
    findings = (*check_instances(launch), *check_lanes(launch))
    _refuse_findings(findings)
    rendered = render(described, contexts(launch, findings))
    facts = {
        "target": target,
        "plan_sha256": launch.digest,
        "tool_version": __version__,
        "engine": ENGINE_PROFILE,
    }
    files = (*rendered, manifest(rendered, facts))
    if problems := file_problems(files):
        raise AssertionError("an emitted file fails its own check: " + "; ".join(problems))
    warnings = tuple(dict.fromkeys(str(finding) for finding in findings))
    return EmitReport(target, str(out), launch.digest, files, warnings, launch)


def _refuse_infeasible(plan: Plan) -> None:
    if plan.status not in ("optimal", "feasible"):
        reasons = "; ".join(f"{r.constraint}: needs {r.needs}, has {r.has}" for r in plan.explanation)
        raise Infeasible(
            f"the plan is {plan.status}, there is nothing to emit{': ' + reasons if reasons else ''}"
        )


def _refuse_options(plan: Plan, options: LaunchOptions) -> None:
    problems = []
    if options.affinity not in AFFINITIES:
        problems.append(Problem("--affinity", "", options.affinity, f"one of {', '.join(AFFINITIES)}"))
    if options.connector and options.connector not in CONNECTOR_CLASS:
        problems.append(Problem("--connector", "", options.connector, f"one of {', '.join(CONNECTOR_CLASS)}"))
    known = {deployment.name for deployment in plan.deployments}
    for name in options.model_paths:
        if name and name not in known:
            problems.append(Problem("--model-path", name, "", f"deployments: {', '.join(sorted(known))}"))
    if problems:
        raise InputError(problems)


def _refuse_findings(findings: tuple[Finding, ...]) -> None:
    refused = [finding for finding in findings if finding.severity == "refuse"]
    if refused:
        raise InputError(
            Problem(
                "plan", finding.where, finding.message, f"rule {finding.rule}; the engine would refuse it"
            )
            for finding in dict.fromkeys(refused)
        )
