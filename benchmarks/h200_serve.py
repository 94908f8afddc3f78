"""`vllm bench serve` on dummy weights at fixed concurrency: what a profile is checked against.

    PYTHONPATH=SITE python h200_serve.py --model llama-3.1-8b-instruct --precision bf16 --out measured

One line of `<accelerator>/<engine>-<version>/serve.jsonl` a run, written when the run ends; a run that is
there is not repeated, so that a killed series goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import signal
import sys
import tempfile
from pathlib import Path

CONCURRENCY = (1, 8, 32, 128)
PROMPTS = {1: 8, 8: 40, 32: 128, 128: 384}
ISL_TOKENS, OSL_TOKENS = 1024, 256
SMALL = {"concurrency": (1, 4), "prompts": {1: 3, 4: 8}, "isl": 64, "osl": 8, "window": 256, "seqs": 4}
KEPT = ("mean_", "median_", "p99_", "p90_", "std_", "output_throughput", "total_token_throughput", "duration",
        "completed", "request_throughput", "total_input_tokens", "total_output_tokens")  # fmt: skip
RUN_LIMIT_S = 240.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--small", action="store_true", help="for a rehearsal on a CPU")
    a = parser.parse_args()
    from moai_planner.profile import device as devices

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is ended too
    device = devices.detect()
    version = devices.require_engine(device.platform)
    target = a.out / (device.accelerator or "unknown") / f"vllm-{version}" / "serve.jsonl"
    target.parent.mkdir(parents=True, exist_ok=True)
    done = [json.loads(line) for line in target.read_text().splitlines()] if target.exists() else []
    had = {(row["model"], row["precision"], row["concurrency"]) for row in done}
    wanted = [c for c in (SMALL["concurrency"] if a.small else CONCURRENCY)
              if (a.model, a.precision, c) not in had]  # fmt: skip
    if wanted:
        _series(a, device, version, target, wanted)


def _series(a, device, version: str, target: Path, wanted: list[int]) -> None:
    """One server, a run at each concurrency, each kept as it ends."""
    from moai_planner.cli.profiled_config import named_config
    from moai_planner.profile import front_door
    from moai_planner.profile.journal import append_line
    from moai_planner.profile.session import quantization_of

    name, config = named_config(a.model)
    isl, osl = (SMALL["isl"], SMALL["osl"]) if a.small else (ISL_TOKENS, OSL_TOKENS)
    with tempfile.TemporaryDirectory(prefix="moai-serve-") as scratch:
        folder = Path(scratch) / "model"
        front_door.write_model(folder, config)
        settings = front_door.ServeSettings(
            folder, device.platform, SMALL["window"] if a.small else 4096, SMALL["seqs"] if a.small else 256,
            SMALL["window"] if a.small else 8192, graphs=device.platform != "cpu",
            quantization=quantization_of(config, a.precision),
        )  # fmt: skip
        with front_door.serving(settings, Path(scratch) / "serve.log") as server:
            for concurrency in wanted:
                prompts = (SMALL["prompts"] if a.small else PROMPTS)[concurrency]
                load = front_door.Load(float("inf"), prompts, isl, osl, concurrency)
                result = front_door.bench(server, load, RUN_LIMIT_S)
                row = {
                    "model": a.model, "name": name, "precision": a.precision, "tp": 1,
                    "accelerator": device.accelerator,
                    "device": device.name, "driver": device.driver, "engine": "vllm",
                    "engine_version": version,
                    "date": datetime.datetime.now(datetime.UTC).date().isoformat(), "isl_tokens": isl,
                    "osl_tokens": osl, "prompts": prompts, "concurrency": concurrency,
                    "server_start_s": round(server.start_s, 1),
                    "settings": {k: v for k, v in dataclasses.asdict(settings).items() if k != "folder"},
                    **{k: v for k, v in result.items() if k.startswith(KEPT) and isinstance(v, int | float)},
                }  # fmt: skip
                append_line(target, row)


if __name__ == "__main__":
    main()
