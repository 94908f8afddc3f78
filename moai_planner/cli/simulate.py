"""`moai-plan simulate PLAN` tries a plan on its traces; `--bench` replays a `vllm bench serve` run.

Exit code 3 when an objective is missed or a queue only grows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXIT_NO = 3


def simulate(
    plan: Annotated[Path | None, typer.Argument(help="plan.json of `solve`.", show_default=False)] = None,
    trace: Annotated[str | None, typer.Option(help="Another trace than the plan's: name or path.")] = None,
    seed: Annotated[int, typer.Option(help="Of arrivals, lengths and routers.")] = 0,
    router: Annotated[
        str,
        typer.Option(
            help="Inside a lane: weighted (least outstanding), random, round-robin, least-outstanding, "
            "power-of-two, prefix-aware or session-affinity."
        ),
    ] = "weighted",
    rate_scale: Annotated[float, typer.Option(help="Factor on the plan's own rates.")] = 1.0,
    requests_out: Annotated[
        Path | None, typer.Option(help="One row a request, Parquet; CSV if named so (.csv, .csv.gz).")
    ] = None,
    bench: Annotated[bool, typer.Option("--bench", help="Replay a benchmark run; flags below.")] = False,
    model: Annotated[str | None, typer.Option(help="Bench: shipped model or path of a config.json.")] = None,
    on: Annotated[str | None, typer.Option("--on", help="Bench: accelerator.")] = None,
    tp: Annotated[int, typer.Option()] = 1,
    pp: Annotated[int, typer.Option()] = 1,
    dp: Annotated[int, typer.Option()] = 1,
    ep: Annotated[int, typer.Option()] = 1,
    replicas: Annotated[int, typer.Option(help="Bench: equal instances behind one router.")] = 1,
    precision: Annotated[str | None, typer.Option(help="Bench: of the weights.")] = None,
    request_rate: Annotated[float, typer.Option(help="Bench: requests per second, or inf.")] = float("inf"),
    burstiness: Annotated[float, typer.Option(help="Bench: shape of the gamma gaps.")] = 1.0,
    max_concurrency: Annotated[int, typer.Option(help="Bench: 0 = no limit.")] = 0,
    num_prompts: Annotated[int, typer.Option()] = 1000,
    random_input_len: Annotated[int, typer.Option()] = 1024,
    random_output_len: Annotated[int, typer.Option()] = 128,
    random_range_ratio: Annotated[
        float, typer.Option(help="Lengths from 1 - r to 1 + r times nominal.")
    ] = 0.0,
    max_num_seqs: Annotated[int, typer.Option()] = 256,
    max_num_batched_tokens: Annotated[int, typer.Option()] = 8192,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Serve the traffic in simulation and report percentiles, attainment, use and queues."""
    from moai_planner.domain.errors import InputError, Problem

    flags = {
        "--request-rate": request_rate, "--burstiness": burstiness, "--num-prompts": num_prompts,
        "--random-input-len": random_input_len, "--random-output-len": random_output_len, "--replicas": replicas,  # noqa: E501
        "--rate-scale": rate_scale, "--max-num-seqs": max_num_seqs,
        "--max-num-batched-tokens": max_num_batched_tokens,
    }  # fmt: skip
    problems = [
        Problem("command line", name, str(value), "a number above zero")
        for name, value in flags.items()
        if not value > 0 or (value == float("inf") and name != "--request-rate")
    ]
    if max_concurrency < 0:
        problems.append(Problem("command line", "--max-concurrency", str(max_concurrency), "zero or more"))
    if seed < 0:
        problems.append(Problem("command line", "--seed", str(seed), "zero or more"))
    if not 0 <= random_range_ratio < 1:
        problems.append(
            Problem("command line", "--random-range-ratio", str(random_range_ratio), "0 to below 1")
        )
    if bench and not (model and on):
        problems.append(Problem("command line", "--bench", "", "needs --model and --on"))
    if not bench and plan is None:
        problems.append(Problem("command line", "PLAN", "", "give a plan.json, or --bench with its flags"))
    if bench and plan is not None:
        problems.append(Problem("command line", "PLAN", str(plan), "leave it out with --bench"))
    if problems:
        raise InputError(problems)
    if requests_out:
        from moai_planner.cli.output import check_writable

        check_writable(requests_out)
    if not bench:
        _simulate_plan(plan, trace, seed, router, rate_scale, requests_out, as_json)
        return
    from moai_planner.cli.instance_models import instance_model
    from moai_planner.simulate.bench import BenchSettings

    settings = BenchSettings(
        num_prompts, request_rate, burstiness, max_concurrency, random_input_len, random_output_len,
        1.0 - random_range_ratio, 1.0 + random_range_ratio, _trace(trace), seed,
    )  # fmt: skip
    engine = {"max_num_seqs": max_num_seqs, "max_num_batched_tokens": max_num_batched_tokens}
    instance = instance_model(model, on, tp, pp, dp, ep, precision, engine)
    _simulate_bench(instance, replicas, router, settings, requests_out, as_json)


def _trace(reference: str | None, file: str = "--trace", field: str = ""):
    if reference is None:
        return None
    from moai_planner.catalog.traces import trace

    return trace(reference, file, field)


def _simulate_bench(instance, replicas, router, settings, requests_out, as_json) -> None:
    from moai_planner.cli.output import print_json, print_table
    from moai_planner.domain.errors import InputError, Problem
    from moai_planner.simulate.bench import bench_result, run_bench
    from moai_planner.simulate.system import ROUTERS, colocated

    if router not in ROUTERS:
        raise InputError(Problem("command line", "--router", router, "one of " + ", ".join(ROUTERS)))
    longest = (
        settings.input_tokens * settings.range_high_frac + settings.output_tokens * settings.range_high_frac
    )
    if settings.trace is None and longest > min(instance.engine.max_model_len, instance.memory.kv_tokens):
        raise InputError(
            Problem("command line", "--random-input-len --random-output-len", f"{longest:.0f} tokens",
                    f"at most the context window of {instance.engine.max_model_len} and the KV cache of "
                    f"{instance.memory.kv_tokens} tokens")
        )  # fmt: skip
    served = run_bench(colocated(instance, replicas, router), settings)
    if requests_out:
        _write_requests(requests_out, [served], ["bench"])
    result = bench_result(served)
    if as_json:
        print_json(result)
    else:
        print_table(
            "Benchmark run", ("figure", "value"), [(key, f"{value:.4g}") for key, value in result.items()]
        )


def _simulate_plan(path, trace, seed, router, rate_scale, requests_out, as_json) -> None:
    from dataclasses import asdict

    from moai_planner.catalog.plan_file import read_plan
    from moai_planner.cli.output import note, print_json
    from moai_planner.cli.plan_models import instance_models
    from moai_planner.domain.errors import Infeasible
    from moai_planner.simulate.plan import run_deployment, simulate_plan

    plan = read_plan(path)
    if plan.status not in ("optimal", "feasible"):
        raise Infeasible(f"the plan is {plan.status}, there is nothing to simulate")
    traces = {
        each.trace: _trace(trace) if trace else _trace(each.trace, str(path), f"trace of {each.name}")
        for each in plan.deployments
    }
    models = instance_models(plan)
    report = simulate_plan(plan, models, traces, seed, router, rate_scale)
    if requests_out:
        runs = [
            run_deployment(plan, each, models, traces[each.trace], seed, router, rate_scale)[2]
            for each in plan.deployments
        ]
        _write_requests(requests_out, runs, [each.name for each in plan.deployments])
    if as_json:
        print_json(asdict(report) | {"ok": report.ok})
    else:
        for deployment in report.deployments:
            _print_deployment(deployment)
    if not report.ok:
        note("no: an objective is missed or a queue only grows")
        raise typer.Exit(EXIT_NO)


def _print_deployment(d) -> None:
    from moai_planner.cli.output import print_table
    from moai_planner.domain.units import show

    def text(figure):
        return (
            "-"
            if figure is None
            else f"{show(figure.value, 's')} ({show(figure.low, 's')} … {show(figure.high, 's')})"
        )

    statistics = ("mean", "p50", "p90", "p95", "p99")
    rows = [
        (metric.upper(), *(text(d.statistics.get(f"{metric}_{each}")) for each in statistics))
        for metric in ("ttft", "tpot", "itl", "e2el")
    ]
    notes = [f"{d.verdict}: {d.verdict_reason}"]
    notes += [f"left out or changed: {count} {reason}" for reason, count in d.left_out.items()]
    notes += [
        f"objective {key}: {'kept' if kept else 'MISSED'}, {d.attainment.get(key) or 0.0:.2%} of requests within it"  # noqa: E501
        for key, kept in d.met.items()
    ]
    notes.append(
        f"offered {d.offered_req_per_s:.4g} req/s, achieved {d.achieved_req_per_s:.4g}, goodput "
        f"{d.goodput_req_per_s or 0.0:.4g}; prefix hits {d.prefix_hit_frac:.1%}; waiting {d.queue_mean:.3g} on average, "  # noqa: E501
        f"{d.queue_peak} at most; {d.preemptions} preemptions"
    )
    print_table(f"{d.deployment}: {d.requests} requests", ("", *statistics), rows, notes)
    print_table(
        "Instances", ("instance", "role", "copies", "requests", "busy", "KV held", "KV peak", "preemptions"),
        [(u.instance, u.role, u.copies, u.requests, f"{u.utilization_frac:.1%}", f"{u.kv_occupancy_frac:.1%}",
          f"{u.kv_peak_frac:.1%}", u.preemptions) for u in d.usage],
    )  # fmt: skip
    if d.transfers:
        print_table(
            "KV transfers", ("lane", "window", "count", "moved", "mean", "p99"),
            [(t.lane, t.window, t.count, show(t.moved_bytes, "bytes"), show(t.mean_s, "s"), show(t.p99_s, "s"))  # noqa: E501
             for t in d.transfers],
        )  # fmt: skip
    if len(d.windows) > 1:
        print_table(
            "Windows", ("window", "requests", "verdict", "TTFT p95", "TPOT p95", "attainment"),
            [(w.name, w.requests, w.verdict, text(w.statistics.get("ttft_p95")), text(w.statistics.get("tpot_p95")),  # noqa: E501
              "-" if w.attainment_frac is None else f"{w.attainment_frac:.1%}") for w in d.windows],
        )  # fmt: skip


def _write_requests(path: Path, runs, names) -> None:
    import pandas as pd

    from moai_planner.cli.output import write_bytes
    from moai_planner.simulate.plan import rows_of

    table = pd.concat(
        [pd.DataFrame({"deployment": name, **rows_of(run)}) for name, run in zip(names, runs, strict=True)]
    )
    write_bytes(path, _as_csv(table, path) if ".csv" in path.suffixes else _as_parquet(table))


def _as_csv(table, path: Path) -> bytes:
    import gzip

    content = table.to_csv(index=False, lineterminator="\n").encode()
    return gzip.compress(content, mtime=0) if path.suffix == ".gz" else content


def _as_parquet(table) -> bytes:
    """By fastparquet itself: pandas will stop passing tables on to it, and pyarrow is many times its size."""
    import tempfile

    import fastparquet

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "requests.parquet"
        fastparquet.write(str(file), table, write_index=False)
        return file.read_bytes()
