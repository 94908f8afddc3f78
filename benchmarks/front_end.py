"""CPU time of vLLM's API server for a request, a prompt token and a streamed token.

.venv-engine/bin/python benchmarks/front_end.py

The simulator does not charge it (docs/simulator.md). Requests are sent at once to a tiny model; what the
server's own process uses is counted, all its threads together, not how long it took, so that other processes
on the cores do not count. Its tokenizer splits words; a real one takes longer. One JSON line.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from moai_planner.domain.units import MICRO, MILLI
from moai_planner.profile.front_door import Load, Server, ServeSettings, bench, serving, write_model
from moai_planner.profile.small_models import SMALL_MODELS

REQUESTS, LIMIT_S = 400, 300.0
SHORT, LONG, FEW, MANY = 128, 3072, 2, 130
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "1"}


def used_s(server: Server) -> float:
    """CPU time of the server's own process so far; its engine is another one."""
    fields = Path(f"/proc/{server.process_group}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def each_s(server: Server, isl: int, osl: int) -> float:
    """CPU time of one of many requests sent at once."""
    before = used_s(server)
    bench(server, Load(float("inf"), REQUESTS, isl, osl, seed=isl + osl), LIMIT_S)
    return (used_s(server) - before) / REQUESTS


def main() -> None:
    os.environ.update(ENVIRONMENT)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        write_model(folder, SMALL_MODELS["tiny-dense"])
        # no platform: scheduler and API server stay two processes, as they are where there is a device
        settings = ServeSettings(folder, "", 4096, 512, 8192, graphs=False)
        with serving(settings, Path(name) / "server.log") as server:
            each_s(server, SHORT, FEW)
            few, many, long = (each_s(server, *load) for load in ((SHORT, FEW), (SHORT, MANY), (LONG, FEW)))
    streamed = (many - few) / (MANY - FEW)
    by_token = (long - few) / (LONG - SHORT)
    figures = {
        "request_ms": (few - FEW * streamed - SHORT * by_token) / MILLI,
        "prompt_token_us": by_token / MICRO,
        "streamed_token_us": streamed / MICRO,
    }
    print(json.dumps({"benchmark": "front_end"} | {name: round(value, 2) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
