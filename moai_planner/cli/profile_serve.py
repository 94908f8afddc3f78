"""`moai-plan profile --serve`: the micro-profile against real serving, closed loop.

One server is started with the settings of the profile. A run of one request at a time says what serving adds
to a step and to a request; then three loads below saturation are run twice each. Every run is set beside a
simulation of the same requests, arriving when they did, from the micro-profile. Nothing that those runs
measured enters the prediction but their arrival times.

A CPU is shared with others, and one minute may be 15 % slower than the next: between the runs the profile's
own engine times some points of its table again, and the simulation is scaled by that drift
(`profile/anchor.py`).
"""

from __future__ import annotations

LOADS = (0.25, 0.45, 0.65)
"""Fractions of the rate that the simulator says saturates the server."""
TOLERANCE = {"mean_tpot_ms": 0.15, "mean_e2el_ms": 0.15, "output_throughput": 0.10, "mean_ttft_ms": 0.30}
_ISL, _OSL = 256, 64
_PROBE_PROMPTS = 12
_RUN_S = 20.0
_PROMPTS = (24, 80)
_RUN_LIMIT_S = 300.0
_RESAMPLES = 500
_CALM = 1.03
"Below this stretch the machine counts as the server's own."


def closed_loop(request, device, outcome, found, read_model):
    """Serve, measure, simulate; one row a load and metric."""
    import tempfile
    from contextlib import ExitStack
    from pathlib import Path

    from moai_planner.cli.output import note
    from moai_planner.domain.measured import Shard
    from moai_planner.domain.units import MILLI
    from moai_planner.profile import anchor, fit, front_door, session, step_times
    from moai_planner.profile.shard import divide

    entry = found.meta["models"][outcome.csv.stem]
    observations = fit.observe(
        read_model(divide(entry["config"], Shard())), request.precision, outcome.points[Shard()]
    )
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="moai-serve-")))
        folder = scratch / "model"
        front_door.write_model(folder, request.config)
        settings = session.serve_settings(request, device, folder)

        def times(door):
            return step_times.step_times(
                found.assessments[Shard()], observations, settings.max_num_seqs,
                settings.max_num_batched_tokens, door,
            )  # fmt: skip

        note("starting vllm serve")
        server = stack.enter_context(front_door.serving(settings, scratch / "server.log"))
        note(f"served after {server.start_s:.0f} s; one request at a time")
        drift = _no_drift
        if device.platform == "cpu":  # a GPU is no shared machine, and has no room for two engines
            drift = stack.enter_context(anchor.anchored(request, device, outcome.points[Shard()])).drift
        before = drift()
        alone = _bench(server, front_door.Load(float("inf"), _PROBE_PROMPTS, _ISL, _OSL, concurrency=1))
        after = drift()
        door = step_times.front_door(
            drifted(times(step_times.FrontDoor()), anchor.middle([before, after])),
            _ISL,
            _OSL,
            alone["median_ttft_ms"] * MILLI / alone["waiting"],
            alone["median_tpot_ms"] * MILLI / alone["waiting"],
        )
        kv_tokens = entry["engine_facts"]["tp1-ep1"]["kv_tokens"]
        instance = _instance(times(door), settings, kv_tokens)
        saturation = _saturation(instance)
        rows = []
        for share in LOADS:
            rate = share * saturation
            prompts = int(min(max(rate * _RUN_S, _PROMPTS[0]), _PROMPTS[1]))
            note(f"{prompts} requests at {rate:.2f} requests/s, twice")
            runs = []
            for seed in (1, 2):
                before = after
                run = _bench(server, front_door.Load(rate, prompts, _ISL, _OSL, seed=seed))
                after = drift()
                runs.append((run, anchor.middle([before, after])))
            rows += _compare(share, rate, runs, instance)
    return {
        "isl_tokens": _ISL,
        "osl_tokens": _OSL,
        "front_door_step_s": float(f"{door.step_s:.4g}"),
        "front_door_request_s": float(f"{door.request_s:.4g}"),
        "saturation_req_per_s": float(f"{saturation:.4g}"),
        "rows": rows,
    }


def _no_drift():
    from moai_planner.profile.anchor import Drift

    return Drift()


def _bench(server, load):
    """One run, and how much its engine thread was slowed down by waiting for a core."""
    from moai_planner.profile import front_door

    before = front_door.thread_times(server)
    result = front_door.bench(server, load, _RUN_LIMIT_S)
    return {**result, "waiting": front_door.stretch(before, front_door.thread_times(server))}


def _instance(times, settings, kv_tokens):
    from moai_planner.domain.layout import Engine
    from moai_planner.domain.step import MemoryBudget
    from moai_planner.simulate.instance import InstanceModel

    block = 128 if settings.platform == "cpu" else 16
    engine = Engine(
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        max_model_len=settings.max_model_len,
        block_size_tokens=block,
        prefix_caching=False,
        graphs=settings.graphs,
        async_scheduling=settings.platform != "cpu",
    )
    memory = MemoryBudget(
        0.0, 0.0, 0.0, 0.0, 1.0, 1.0 / max(1, kv_tokens), 0.0, kv_tokens // block, kv_tokens
    )
    return InstanceModel(times, engine, memory)


def drifted(times, drift, slower=1.0):
    """Step times of a machine that is slower by `drift` (kind by kind) and `slower` (altogether)."""
    return times.slower(drift.decode * slower, drift.prompt * slower)


def _saturation(instance):
    """Requests/s when all arrive at once."""
    import numpy as np

    arrival_s = np.zeros(_PROMPTS[1])
    return _simulated(instance, arrival_s, instance.step_times)["request_throughput"]


def _simulated(instance, arrival_s, times):
    """The figures of a run with these arrivals and step times."""
    from dataclasses import replace

    import numpy as np

    from moai_planner.simulate.bench import bench_result, run_requests
    from moai_planner.simulate.serve import Requests
    from moai_planner.simulate.system import colocated

    system = colocated(replace(instance, step_times=times))
    count = len(arrival_s)
    requests = Requests(arrival_s, np.full(count, _ISL), np.full(count, _OSL))
    return bench_result(run_requests(system, requests))


def _predicted(instance, runs, scale=1.0, drifting=True):
    """Metric → mean over the runs, each simulated with its own arrivals and the machine's speed then."""
    import numpy as np

    from moai_planner.profile.anchor import Drift

    results = []
    for run, drift in runs:
        arrival_s = np.sort(np.array(run["start_times"]))
        slower = scale * (run["waiting"] if drifting and run["waiting"] > _CALM else 1.0)
        times = drifted(instance.step_times, drift if drifting else Drift(), slower)
        results.append(_simulated(instance, arrival_s - arrival_s[0], times))
    return {metric: float(np.mean([result[metric] for result in results])) for metric in TOLERANCE}


def _compare(share, rate, runs, instance):
    """Rows of one load: measured (runs pooled, with its 95 % interval) beside simulated.

    `simulated` has the machine's drift and, where the engine's thread waited for a core, that stretch;
    `simulated_alone` is the prediction for the machine as it was when the profile was measured.
    """
    times = instance.step_times
    middle, low, high = (_predicted(instance, runs, edge) for edge in (1.0, times.low_frac, times.high_frac))
    alone = _predicted(instance, runs, drifting=False)
    waiting = sum(run["waiting"] for run, _ in runs) / len(runs)
    rows = []
    for metric, tolerance in TOLERANCE.items():
        value, least, most = _measured(metric, [run for run, _ in runs])
        error = middle[metric] / value - 1
        numbers = {
            "rate_req_per_s": rate,
            "measured": value,
            "measured_low": least,
            "measured_high": most,
            "simulated": middle[metric],
            "simulated_low": min(low[metric], high[metric]),
            "simulated_high": max(low[metric], high[metric]),
            "simulated_alone": alone[metric],
            "waiting_stretch": waiting,
            "decode_drift": sum(drift.decode for _, drift in runs) / len(runs),
            "prompt_drift": sum(drift.prompt for _, drift in runs) / len(runs),
        }
        rows.append(
            {
                "load_frac": share,
                "requests": sum(run["completed"] for run, _ in runs),
                "metric": metric,
                **{name: float(f"{number:.4g}") for name, number in numbers.items()},
                "error_frac": round(error, 4),
                "tolerance_frac": tolerance,
                "verdict": "within" if abs(error) <= tolerance else "OUTSIDE",
            }
        )
    return rows


def _measured(metric, runs):
    """Mean over the requests of all runs and its bootstrap interval; throughput over the runs."""
    import numpy as np

    if metric == "output_throughput":
        values = [run[metric] for run in runs]
        return float(np.mean(values)), min(values), max(values)
    samples = np.concatenate([_per_request_ms(metric, run) for run in runs])
    generator = np.random.default_rng(0)
    means = [generator.choice(samples, len(samples)).mean() for _ in range(_RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(samples.mean()), float(low), float(high)


def _per_request_ms(metric, run):
    import numpy as np

    from moai_planner.domain.units import MILLI

    first = np.array(run["ttfts"])
    later = np.array([sum(gaps) for gaps in run["itls"]])
    counts = np.array([max(1, tokens - 1) for tokens in run["output_lens"]])
    if metric == "mean_ttft_ms":
        return first / MILLI
    if metric == "mean_tpot_ms":
        return later / counts / MILLI
    return (first + later) / MILLI


def print_closed_loop(result) -> None:
    """The comparison as a table."""
    from moai_planner.cli.output import print_table
    from moai_planner.domain.units import MILLI

    columns = (
        "load", "requests/s", "metric", "measured", "95 %", "simulated", "80 %", "error", "tolerance", "",
        "waiting", "drift", "as profiled",
    )  # fmt: skip
    print_table(
        f"Closed loop: vllm bench serve, {result['isl_tokens']} tokens in, {result['osl_tokens']} out",
        columns,
        [
            (
                f"{100 * r['load_frac']:.0f}%",
                f"{r['rate_req_per_s']:.2f}",
                r["metric"],
                f"{r['measured']:.4g}",
                f"{r['measured_low']:.4g} to {r['measured_high']:.4g}",
                f"{r['simulated']:.4g}",
                f"{r['simulated_low']:.4g} to {r['simulated_high']:.4g}",
                f"{100 * r['error_frac']:+.1f}%",
                f"{100 * r['tolerance_frac']:.0f}%",
                r["verdict"],
                f"×{r['waiting_stretch']:.2f}",
                f"×{r['decode_drift']:.2f} ×{r['prompt_drift']:.2f}",
                f"{r['simulated_alone']:.4g}",
            )
            for r in result["rows"]
        ],
        notes=(
            f"serving adds {result['front_door_step_s'] / MILLI:.2f} ms a step and "
            f"{result['front_door_request_s'] / MILLI:.2f} ms a request (from one request at a time)",
            "simulated: the same requests at the same times, steps scaled by the machine's drift",
            "drift: decode steps and prompts now over those of the table, timed by the profile's own engine "
            "between the runs ('as profiled' is the simulation without it)",
            "waiting: how much the engine's thread was stretched by others on the same cores; above "
            f"×{_CALM} the simulation has the same stretch",
        ),
    )
