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


def closed_loop(request, device, outcome, found, read_model):
    """Serve, measure, simulate; one row a load and metric."""
    import json
    import tempfile
    from pathlib import Path

    from moai_planner.cli.output import note
    from moai_planner.domain.measured import Shard
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
            alone = front_door.bench(server, probe, _RUN_LIMIT_S)
            door = step_times.front_door(
                times(step_times.FrontDoor()),
                _ISL,
                _OSL,
                alone["median_ttft_ms"] / 1000,
                alone["median_tpot_ms"] / 1000,
            )
            kv_tokens = entry["engine_facts"]["tp1-ep1"]["kv_tokens"]
            instance = _instance(times(door), settings, kv_tokens)
            saturation = _simulated(instance, float("inf"), _PROMPTS[1])["request_throughput"]["value"]
            rows = []
            for share in LOADS:
                rate = share * saturation
                prompts = int(min(max(rate * _RUN_S, _PROMPTS[0]), _PROMPTS[1]))
                note(f"{prompts} requests at {rate:.2f} requests/s, twice")
                runs = [
                    front_door.bench(
                        server, front_door.Load(rate, prompts, _ISL, _OSL, seed=seed), _RUN_LIMIT_S
                    )
                    for seed in (1, 2)
                ]
                rows += _compare(share, rate, prompts, runs, _simulated(instance, rate, prompts))
    return {
        "isl_tokens": _ISL,
        "osl_tokens": _OSL,
        "front_door_step_s": float(f"{door.step_s:.4g}"),
        "front_door_request_s": float(f"{door.request_s:.4g}"),
        "saturation_req_per_s": float(f"{saturation:.4g}"),
        "rows": rows,
    }


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


def _simulated(instance, rate, prompts):
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

    middle = runs(1.0)
    fast, slow = runs(instance.step_times.low_frac), runs(instance.step_times.high_frac)
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


def _compare(share, rate, prompts, runs, simulated):
    """Rows of one load: measured (both runs pooled, with its 95 % interval) beside simulated."""
    rows = []
    for metric, tolerance in TOLERANCE.items():
        value, low, high = _measured(metric, runs)
        figure = simulated[metric]
        error = figure["value"] / value - 1
        rows.append(
            {
                "load_frac": share,
                "rate_req_per_s": float(f"{rate:.4g}"),
                "requests": len(runs) * prompts,
                "metric": metric,
                "measured": float(f"{value:.4g}"),
                "measured_low": float(f"{low:.4g}"),
                "measured_high": float(f"{high:.4g}"),
                "simulated": float(f"{figure['value']:.4g}"),
                "simulated_low": float(f"{figure['low']:.4g}"),
                "simulated_high": float(f"{figure['high']:.4g}"),
                "error_frac": round(error, 4),
                "tolerance_frac": tolerance,
                "within": abs(error) <= tolerance,
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

    first = np.array(run["ttfts"])
    later = np.array([sum(gaps) for gaps in run["itls"]])
    counts = np.array([max(1, tokens - 1) for tokens in run["output_lens"]])
    if metric == "mean_ttft_ms":
        return 1000 * first
    if metric == "mean_tpot_ms":
        return 1000 * later / counts
    return 1000 * (first + later)


def print_closed_loop(result) -> None:
    """The comparison as a table."""
    from moai_planner.cli.output import print_table

    print_table(
        f"Closed loop: vllm bench serve, {result['isl_tokens']} tokens in, {result['osl_tokens']} out",
        ("load", "requests/s", "metric", "measured", "95 %", "simulated", "80 %", "error", "tolerance", ""),
        [
            (
                f"{100 * r['load_frac']:.0f}%", f"{r['rate_req_per_s']:.2f}", r["metric"],
                f"{r['measured']:.4g}", f"{r['measured_low']:.4g} to {r['measured_high']:.4g}",
                f"{r['simulated']:.4g}", f"{r['simulated_low']:.4g} to {r['simulated_high']:.4g}",
                f"{100 * r['error_frac']:+.1f}%", f"{100 * r['tolerance_frac']:.0f}%",
                "within" if r["within"] else "OUTSIDE",
            )
            for r in result["rows"]
        ],
        notes=(
            f"serving adds {1000 * result['front_door_step_s']:.2f} ms a step and "
            f"{1000 * result['front_door_request_s']:.2f} ms a request (measured with one request at a time)",
        ),
    )  # fmt: skip
