"""How many step estimates a second one core makes: distinct configurations, the formulas of `step_times`.

    python benchmarks/estimate.py [CONFIGURATIONS] [POINTS]

Every configuration differs (model, device, layout, batch limits, KV format); each is evaluated at many
(batch, context) points of decode and (tokens, pairs) points of prefill. Building the configurations'
columns is inside the time. The last line is one JSON object.
"""

from __future__ import annotations

import itertools
import json
import sys
import time

import numpy as np

from moai_planner.catalog.accelerators import accelerator
from moai_planner.catalog.models import model
from moai_planner.catalog.parameters import parameters_for
from moai_planner.costmodel import operations as op
from moai_planner.costmodel import step
from moai_planner.costmodel.arrays import columns, parameter_rows, rows
from moai_planner.costmodel.configuration import Configuration
from moai_planner.costmodel.serving import step_times_many
from moai_planner.domain.layout import Engine, Layout
from moai_planner.domain.precision import precision
from moai_planner.domain.units import GIGA

MODELS = (
    ("meta-llama/Llama-3.3-70B-Instruct", "fp8"),
    ("meta-llama/Llama-3.1-8B-Instruct", "bf16"),
    ("openai/gpt-oss-120b", "mxfp4"),
    ("deepseek-ai/DeepSeek-R1", "fp8"),
    ("Qwen/Qwen3-32B", "bf16"),
    ("Qwen/Qwen3-235B-A22B", "fp8"),
)
DEVICES = ("h100_sxm", "h200_sxm", "b200_sxm", "mi300x", "mi308x", "mi355x")
LAYOUTS = ((1, 1, 1), (2, 1, 1), (4, 1, 1), (8, 1, 1), (8, 2, 1), (1, 1, 8), (2, 1, 4), (4, 1, 4))
NETWORK_BYTES_PER_S = 400 * GIGA
CHUNK = 16


def configurations(count: int) -> list[Configuration]:
    """Distinct ones, in a fixed order."""
    found = []
    for kv, seqs, (name, number_format), device, (tp, pp, dp) in itertools.product(
        ("bf16", "fp8"), range(64, 64 + 64 * 16, 64), MODELS, DEVICES, LAYOUTS
    ):
        if len(found) == count:
            break
        one, chosen = model(name), precision(number_format).with_kv(kv)
        ep = tp * dp if one.moe else 1
        engine = Engine(max_num_seqs=seqs)
        board = accelerator(device)
        parameters = parameters_for(board, "vllm", precision(number_format))
        found.append(
            Configuration(
                board, one, chosen, Layout(tp, pp, dp, ep), engine, 8, NETWORK_BYTES_PER_S, parameters
            )
        )
    return found


def evaluate(wanted: list[Configuration], points: int) -> tuple[int, float]:
    """Step estimates made and a checksum over them."""
    batch = np.unique(np.round(np.geomspace(1, 512, points // 2)))
    batch = np.resize(batch, points // 2)[None, :]
    context = np.linspace(128, 32768, points // 2)[None, :]
    tokens = np.linspace(16, 16384, points - points // 2)[None, :]
    work, parameters = columns(wanted)
    total, made = 0.0, 0
    for start in range(0, len(wanted), CHUNK):
        stop = min(start + CHUNK, len(wanted))
        w, p = rows(work, start, stop), parameter_rows(parameters, start, stop)
        decode = step.decode_base_s(w, p, batch, batch, True) + op.kv_s_per_token(w, p) * (batch * context)
        mixed = step.mixed_base_s(w, p, tokens) + op.pair_s(w, p) * (tokens * tokens / 2)
        total += float(decode.sum() + mixed.sum())
        made += decode.size + mixed.size
    return made, total


def main(count: int = 2000, points: int = 500) -> None:
    """Measure three times, keep the fastest (CPU time)."""
    wanted = configurations(count)
    evaluate(wanted[:CHUNK], points)
    runs = []
    for _ in range(3):
        start = time.process_time()
        made, checksum = evaluate(wanted, points)
        runs.append(time.process_time() - start)
    start = time.process_time()
    tables = step_times_many(wanted)
    table_s = time.process_time() - start
    rate = made / min(runs)
    print(
        f"{len(wanted)} distinct configurations x {points} points in {min(runs):.3f} CPU s, "
        f"sum {checksum:.6g}"
    )
    print(
        json.dumps(
            {
                "step_estimates_per_s": round(rate),
                "distinct_configurations": len(wanted),
                "points_per_configuration": points,
                "step_tables_per_s": round(len(tables) / table_s, 1),
            }
        )
    )


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:3]))
