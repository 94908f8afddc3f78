"""Replay runs with one line a request through the simulator: error of TTFT, TPOT, E2E.

    python benchmarks/replay.py [FOLDER] [--no-profile | --link]

FOLDER (default: `runs` beside the project) holds NAME__meta.json (engine settings as vLLM resolved them) and
NAME__requests.jsonl (arrival, lengths, times). Arrivals and lengths are the run's own; step times are
whatever `estimate` would use for the configuration, and the KV blocks the run's own where it says them.
Nothing is fitted to the runs. With `--link` devices exchange over the link that the runs' authors give for
the server in their own simulator's input (`bench/examples/*/config.json` of LLMServingSim).
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import operator_tables

from moai_planner.catalog.accelerators import accelerator
from moai_planner.catalog.models import model as shipped_model
from moai_planner.catalog.parameters import parameters_for
from moai_planner.cli.measured_profiles import profile_for
from moai_planner.costmodel.comm import latency_share
from moai_planner.costmodel.configuration import Configuration
from moai_planner.costmodel.serving import step_times
from moai_planner.domain.layout import Engine, Layout
from moai_planner.domain.operators import OperatorTable
from moai_planner.domain.precision import PRECISIONS
from moai_planner.domain.units import GIGA, MICRO
from moai_planner.simulate.instance import instance_of
from moai_planner.simulate.serve import Requests, serve, with_own_blocks
from moai_planner.simulate.system import build_machine, colocated

MODELS = {
    "meta-llama/Llama-3.1-8B": "meta-llama/Llama-3.1-8B-Instruct",
    "Qwen/Qwen3-30B-A3B-Instruct-2507": "Qwen/Qwen3-30B-A3B-Instruct-2507",
    "Qwen/Qwen3-32B": "Qwen/Qwen3-32B",
}
FIGURES = ("ttft", "tpot", "e2el", "e2el p99")
LINK_BYTES_PER_S, LINK_S = 16 * GIGA, 20 * MICRO
"""`link_bw` and `link_latency` there."""


def configuration_of(name: str, meta: dict, profiled: bool) -> Configuration:
    """The instance that a run's settings describe; as many GPUs as its ranks."""
    given = meta["engine_kwargs"]
    device = accelerator(operator_tables.CARDS[name.split("__")[0]])
    model, kind = shipped_model(MODELS[meta["model"]]), PRECISIONS["bf16"]
    tp, dp = given["tensor_parallel_size"], given["data_parallel_size"]
    layout = Layout(tp, 1, dp, tp * dp if given["enable_expert_parallel"] else 1)
    engine = Engine(
        name="vllm",
        max_num_seqs=given["max_num_seqs"],
        max_num_batched_tokens=given["max_num_batched_tokens"],
        max_model_len=given["max_model_len"] or model.max_context_tokens,
    )
    measured = profile_for(device, "vllm", model, kind, layout) if profiled else ()
    parameters = parameters_for(device, "vllm", kind)
    return Configuration(
        device, model, kind, layout, engine, 8, 8 * device.scale_out_bytes_per_s, parameters, measured
    )


def over_their_link(c: Configuration) -> Configuration:
    """The same with the authors' link in full between its devices."""
    device = replace(c.accelerator, scale_up=replace(c.accelerator.scale_up, bytes_per_s=LINK_BYTES_PER_S))
    beside = replace(
        c.measured.beside,
        collective_bandwidth_frac=1.0,
        all_to_all_bandwidth_frac=1.0,
        collective_hop_s=LINK_S,
        all_to_all_s=LINK_S / latency_share(c.layout.tp * c.layout.dp),
    )
    return replace(c, accelerator=device, measured=replace(c.measured, beside=beside))


def figures(first: np.ndarray, last: np.ndarray, arrival: np.ndarray, osl: np.ndarray) -> np.ndarray:
    """Mean TTFT, mean TPOT, mean E2E, p99 E2E. [s]"""
    tpot = (last - first) / np.maximum(osl - 1, 1)
    e2el = last - arrival
    return np.array([(first - arrival).mean(), tpot.mean(), e2el.mean(), np.percentile(e2el, 99)])


def replay(folder: Path, name: str, profiled: bool, link: bool = False) -> tuple[np.ndarray, np.ndarray, str]:
    """Predicted figures, measured figures, basis."""
    meta = json.loads((folder / f"{name}__meta.json").read_text())
    lines = (folder / f"{name}__requests.jsonl").read_text().splitlines()
    rows = sorted((json.loads(line) for line in lines), key=lambda row: row["queued_ts"])
    column = {key: np.array([row[key] for row in rows]) for key in rows[0] if key != "request_id"}
    c = configuration_of(name, meta, profiled)
    c = over_their_link(c) if link and isinstance(c.measured, OperatorTable) else c
    instance = instance_of(c, step_times(c))
    if "kv_cache" in meta:
        blocks = meta["kv_cache"]["num_gpu_blocks"]
        held = replace(instance.memory, kv_blocks=blocks, kv_tokens=blocks * c.engine.block_size_tokens)
        instance = replace(instance, memory=held)
    system = colocated(instance)
    arrival = column["queued_ts"] - column["queued_ts"][0]
    requests = Requests(arrival, column["input_toks"], column["output_toks"])
    served = serve(build_machine(system), system, with_own_blocks(requests, c.engine.block_size_tokens))
    predicted = figures(served.first_s, served.finish_s, served.start_s, served.osl_tokens)
    begin = column["queued_ts"][0]
    measured = figures(
        column["first_token_ts"] - begin, column["last_token_ts"] - begin, arrival, column["output_toks"]
    )
    return predicted, measured, instance.step_times.basis.value


def main(arguments: list[str]) -> None:
    given = [one for one in arguments if not one.startswith("--")]
    folder = Path(given[0]) if given else operator_tables.ROOT.parent / "runs"
    print("| run | basis |", " | ".join(FIGURES), "|\n| --- | --- |" + " ---: |" * len(FIGURES))
    for path in sorted(folder.glob("*__meta.json")):
        name = path.name.removesuffix("__meta.json")
        predicted, measured, basis = replay(
            folder, name, "--no-profile" not in arguments, "--link" in arguments
        )
        cells = (f"{p:.3g} of {m:.3g} s, {p / m - 1:+.1%}" for p, m in zip(predicted, measured, strict=True))
        print(f"| {name} | {basis} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main(sys.argv[1:])
