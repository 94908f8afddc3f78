"""`moai-plan solve CAPACITY.yaml` (or flags) → `plan.json`, and the plan as tables.

Exit code 3 when there is no plan, or when the simulated plan misses an objective; the plan file is written
either way and says which.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

EXIT_NO = 3
DEFAULT_OUT = Path("plan.json")


def solve(
    capacity: Annotated[
        Path | None, typer.Argument(help="A capacity file; or give the flags below.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where the plan goes (plan.json).", show_default=False)
    ] = None,
    model: Annotated[str | None, typer.Option(help="Shipped model or path of a config.json.")] = None,
    cluster: Annotated[str | None, typer.Option(help="h100:1x8,mi300x:2x8@1.30, or a file of pools.")] = None,
    trace: Annotated[str | None, typer.Option(help="Shipped trace or a path.")] = None,
    slo: Annotated[str | None, typer.Option(help='Promises: "ttft_p95<=2s,tpot_p95<=40ms".')] = None,
    rate: Annotated[str | None, typer.Option(help='With flags: mean rate, "12 req/s".')] = None,
    rate_scale: Annotated[float | None, typer.Option(help="With flags: factor on the trace's rate.")] = None,
    precision: Annotated[str | None, typer.Option(help="With flags: of the weights.")] = None,
    objective: Annotated[
        str | None,
        typer.Option(help="least-cost, most-load, goodput-per-dollar or goodput-per-watt."),
    ] = None,
    gap: Annotated[str | None, typer.Option(help='Stop within this of the optimum: "0.5%".')] = None,
    time_limit: Annotated[str | None, typer.Option(help='Of each solver call: "60 s".')] = None,
    confidence: Annotated[
        str | None, typer.Option(help="Plan with the slow end of this interval: 0.8, or none for the middle.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the solver and of the simulation.")] = None,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Do not try the plan in a simulation.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Find the best plan for a cluster and its traffic, with the proof."""
    from moai_planner.catalog.plan_file import dump_plan
    from moai_planner.cli.output import check_writable, note, print_text, write_text
    from moai_planner.cli.solve_view import print_plan

    if out or not as_json:
        check_writable(out or DEFAULT_OUT)
    flags = {"rate": rate, "rate_scale": rate_scale, "precision": precision}
    options = {"gap": gap, "time_limit": time_limit, "confidence": confidence, "seed": seed}
    request = _request(capacity, model, cluster, trace, slo, flags, objective, options)
    plan = _solve(request, verify=not no_verify)
    text = dump_plan(plan)
    if out or not as_json:
        write_text(out or DEFAULT_OUT, text)
        note(f"wrote {out or DEFAULT_OUT}")
    if as_json:
        print_text(text.rstrip("\n"))
    else:
        print_plan(plan)
    if plan.status not in ("optimal", "feasible"):
        note(
            "no: there is no plan"
            if plan.status == "infeasible"
            else f"no: the solver stopped: {plan.status}"
        )
        raise typer.Exit(EXIT_NO)
    if plan.verification.get("holds") is False:
        note("no: the simulated plan misses an objective")
        raise typer.Exit(EXIT_NO)


def _request(
    capacity: Path | None,
    model: str | None,
    cluster: str | None,
    trace: str | None,
    slo: str | None,
    flags: dict[str, Any],
    objective: str | None,
    options: dict[str, str | int | None],
):
    from dataclasses import replace

    from moai_planner.catalog.capacity import capacity_from_flags, read_capacity
    from moai_planner.domain.cluster import OBJECTIVES
    from moai_planner.domain.errors import InputError, Problem

    given = {"--model": model, "--cluster": cluster, "--trace": trace, "--slo": slo}
    if capacity is None:
        missing = [name for name, value in given.items() if not value]
        if missing:
            remedy = "give a capacity file, or all of --model --cluster --trace --slo"
            raise InputError([Problem("command line", name, "is missing", remedy) for name in missing])
        wanted = {"objective": objective} if objective else {}
        return capacity_from_flags(model, cluster, trace, slo, deployment=flags, options=options, **wanted)
    beside = [name for name, value in given.items() if value]
    beside += [f"--{name.replace('_', '-')}" for name, value in flags.items() if value is not None]
    problems = [
        Problem("command line", name, "given beside a capacity file", "write it there") for name in beside
    ]
    if objective is not None and objective not in OBJECTIVES:
        problems.append(Problem("command line", "--objective", objective, f"one of {', '.join(OBJECTIVES)}"))
    changed = _options(options, problems)
    if problems:
        raise InputError(problems)
    request = read_capacity(capacity)
    return replace(
        request,
        objective=objective or request.objective,
        options=replace(request.options, **changed),
    )


def _options(given: dict[str, str | int | None], problems: list) -> dict[str, Any]:
    """Options of the command line that replace those of the file."""
    from moai_planner.domain import units
    from moai_planner.domain.errors import Problem

    changed: dict[str, Any] = {}
    for name, field, dimension in (("gap", "gap_frac", "frac"), ("time_limit", "time_limit_s", "s")):
        if given[name] is not None:
            try:
                changed[field] = _within(name, units.parse(str(given[name]), dimension))
            except ValueError as error:
                flag = f"--{name.replace('_', '-')}"
                problems.append(Problem("command line", flag, str(given[name]), str(error)))
    confidence = given["confidence"]
    if confidence is not None:
        changed["confidence"] = _confidence(str(confidence), problems)
    if given["seed"] is not None:
        changed["seed"] = given["seed"]
        if given["seed"] < 0:
            problems.append(Problem("command line", "--seed", str(given["seed"]), "zero or more"))
    return changed


def _within(name: str, number: float) -> float:
    """The bounds that a capacity file has for these options too."""
    if name == "gap" and number >= 1:
        raise ValueError("write a share from 0 to below 1, like 0.5%")
    if name == "time_limit" and number <= 0:
        raise ValueError("must be more than zero; write it like 60 s")
    return number


def _confidence(text: str, problems: list) -> float | None:
    from moai_planner.domain.errors import Problem

    if text.lower() == "none":
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        problems.append(Problem("command line", "--confidence", text, "a number between 0 and 1, or none"))
    return value


def _solve(request, verify: bool):
    """Solve with a line of progress for each stage; verify with the simulator."""
    from moai_planner.catalog.parameters import parameters_for
    from moai_planner.cli.measured_profiles import profile_for
    from moai_planner.cli.output import note

    if not verify:
        from moai_planner.solver.solve import solve as solve_request

        return solve_request(request, parameters_for, progress=note, profile_for=profile_for)
    from moai_planner.cli.plan_models import instance_models
    from moai_planner.simulate.plan import simulate_plan
    from moai_planner.solver.repair import solve_and_verify

    traces = {d.trace.name: d.trace for d in request.deployments} | {
        d.name: d.trace for d in request.deployments
    }
    seed = request.options.seed

    def simulate(plan):
        return simulate_plan(plan, instance_models(plan), traces, seed=seed, router="weighted")

    return solve_and_verify(request, parameters_for, simulate, progress=note, profile_for=profile_for)
