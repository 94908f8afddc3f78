"""`moai-plan profile --serve`: the micro-profile against real serving, closed loop.

One server is started with the settings of the profile. A run of one request at a time says what serving adds
to a step and to a request; then three loads below saturation are run twice each and set beside what the
simulator predicts from the micro-profile. Nothing of those runs enters the prediction.
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
_SEEDS = 16
_RESAMPLES = 500
_CALM = 1.03
"Below this stretch the machine counts as the server's own."
_BUSY = 1.10
"Above this one a run says more about the others than about the prediction: it is shown and not judged."


def closed_loop(request, device, outcome, found, read_model):
    """Serve, measure, simulate; one row a load and metric."""
    import json
    import tempfile
    from pathlib import Path

    from moai_planner.cli.output import note
    from moai_planner.domain.measured import Shard
    from moai_planner.domain.units import MILLI
    from moai_planner.profile import fit, front_door, session, step_times
    from moai_planner.profile.shard import divide

    entry = found.meta["models"][outcome.csv.stem]
    observations = fit.observe(
        read_model(divide(entry["config"], Shard())), request.precision, outcome.points[Shard()]
    )
    with tempfile.TemporaryDirectory(prefix="moai-serve-") as scratch:
        folder = Path(scratch) / "model"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(dict(request.config)))
        front_door.write_tokenizer(folder, request.config["vocab_size"])
        settings = session.serve_settings(request, device, folder)

        def times(door):
            return step_times.step_times(
                found.assessments[Shard()], observations, settings.max_num_seqs,
                settings.max_num_batched_tokens, door,
            )  # fmt: skip

        note("starting vllm serve")
        with front_door.serving(settings, Path(scratch) / "server.log") as server:
            note(f"served after {server.start_s:.0f} s; one request at a time")
            probe = front_door.Load(float("inf"), _PROBE_PROMPTS, _ISL, _OSL, concurrency=1)
            alone, slower = _bench(server, probe)
            door = step_times.front_door(
                times(step_times.FrontDoor()),
                _ISL,
                _OSL,
                alone["median_ttft_ms"] * MILLI / slower,
                alone["median_tpot_ms"] * MILLI / slower,
            )
            kv_tokens = entry["engine_facts"]["tp1-ep1"]["kv_tokens"]
            instance = _instance(times(door), settings, kv_tokens)
            saturation = _simulated(instance, float("inf"), _PROMPTS[1])["request_throughput"]["value"]
            rows = []
            for share in LOADS:
                rate = share * saturation
                prompts = int(min(max(rate * _RUN_S, _PROMPTS[0]), _PROMPTS[1]))
                note(f"{prompts} requests at {rate:.2f} requests/s, twice")
                loads = [front_door.Load(rate, prompts, _ISL, _OSL, seed=seed) for seed in (1, 2)]
                runs, slower = zip(*(_bench(server, load) for load in loads), strict=True)
                waiting = sum(slower) / len(slower)
                alone = _simulated(instance, rate, prompts)
                shared = _simulated(instance, rate, prompts, waiting)
                rows += _compare(share, rate, runs, waiting, alone, shared)
    return {
        "isl_tokens": _ISL,
        "osl_tokens": _OSL,
        "front_door_step_s": float(f"{door.step_s:.4g}"),
        "front_door_request_s": float(f"{door.request_s:.4g}"),
        "saturation_req_per_s": float(f"{saturation:.4g}"),
        "rows": rows,
    }


def _bench(server, load):
    """One run, and how much its engine thread was slowed down by waiting for a core."""
    from moai_planner.profile import front_door

    before = front_door.thread_times(server)
    result = front_door.bench(server, load, _RUN_LIMIT_S)
    return result, front_door.stretch(before, front_door.thread_times(server))


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


def _simulated(instance, rate, prompts, slower=1.0):
    """Metric → value (mean over seeds), low and high (seeds and the profile's own residuals)."""
    from dataclasses import replace

    import numpy as np

    from moai_planner.simulate.bench import BenchSettings, simulate_bench
    from moai_planner.simulate.system import build_machine, colocated

    def runs(scale):
        times = instance.step_times
        scaled = replace(
            times,
            decode_s=times.decode_s * scale,
            mixed_s=times.mixed_s * scale,
            pair_s=times.pair_s * scale,
            kv_s=times.kv_s * scale,
        )
        system = colocated(replace(instance, step_times=scaled))
        machine = build_machine(system)
        settings = BenchSettings(
            num_prompts=prompts, request_rate=rate, input_tokens=_ISL, output_tokens=_OSL
        )
        return [simulate_bench(system, replace(settings, seed=seed), machine) for seed in range(_SEEDS)]

    middle = runs(slower)
    fast, slow = (
        runs(slower * edge) for edge in (instance.step_times.low_frac, instance.step_times.high_frac)
    )
    figures = {}
    for metric in (*TOLERANCE, "request_throughput"):
        both = [run[metric] for run in (*fast, *slow)]
        low, high = np.quantile(both, [0.1, 0.9])
        figures[metric] = {
            "value": float(np.mean([run[metric] for run in middle])),
            "low": float(low),
            "high": float(high),
        }
    return figures


def _compare(share, rate, runs, waiting, alone, shared):
    """Rows of one load: measured (runs pooled, with its 95 % interval) beside simulated.

    `alone` is the prediction for a machine of its own, `shared` the same with every step stretched by the
    time that the engine's thread was seen waiting for a core. Where it waited, the latter is judged.
    """
    rows = []
    for metric, tolerance in TOLERANCE.items():
        value, low, high = _measured(metric, runs)
        figure = (shared if waiting > _CALM else alone)[metric]
        error = figure["value"] / value - 1
        numbers = {
            "rate_req_per_s": rate,
            "measured": value,
            "measured_low": low,
            "measured_high": high,
            "simulated": figure["value"],
            "simulated_low": figure["low"],
            "simulated_high": figure["high"],
            "simulated_alone": alone[metric]["value"],
            "waiting_stretch": waiting,
        }
        rows.append(
            {
                "load_frac": share,
                "requests": sum(run["completed"] for run in runs),
                "metric": metric,
                **{name: float(f"{number:.4g}") for name, number in numbers.items()},
                "error_frac": round(error, 4),
                "tolerance_frac": tolerance,
                "verdict": _verdict(error, tolerance, waiting),
            }
        )
    return rows


def _verdict(error, tolerance, waiting):
    if waiting > _BUSY:
        return "machine busy"
    return "within" if abs(error) <= tolerance else "OUTSIDE"


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
        "waiting", "simulated alone",
    )  # fmt: skip
    print_table(
        f"Closed loop: vllm bench serve, {result['isl_tokens']} tokens in, {result['osl_tokens']} out",
        columns,
        [
            (
                f"{100 * r['load_frac']:.0f}%", f"{r['rate_req_per_s']:.2f}", r["metric"],
                f"{r['measured']:.4g}", f"{r['measured_low']:.4g} to {r['measured_high']:.4g}",
                f"{r['simulated']:.4g}", f"{r['simulated_low']:.4g} to {r['simulated_high']:.4g}",
                f"{100 * r['error_frac']:+.1f}%", f"{100 * r['tolerance_frac']:.0f}%",
                r["verdict"], f"×{r['waiting_stretch']:.2f}",
                f"{r['simulated_alone']:.4g}",
            )
            for r in result["rows"]
        ],
        notes=(
            f"serving adds {result['front_door_step_s'] / MILLI:.2f} ms a step and "
            f"{result['front_door_request_s'] / MILLI:.2f} ms a request (from one request at a time)",
            "waiting: how much the engine's thread was stretched by others on the same cores; where that is "
            "above ×1.03 the simulation has the same stretch ('simulated alone' has not); above ×1.10 "
            "the row is not judged: run again when the machine is quiet",
        ),
    )  # fmt: skip
