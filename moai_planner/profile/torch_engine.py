"""Steps of a model by PyTorch alone, for devices where vLLM cannot be brought to run: `engine: torch`.

What goes in and comes out is as in `engine`: settings, a shape, the times of steps of that shape. What is
timed is no engine: layers of the real sizes by torch's own kernels (`torch_layers`), a few of each form,
multiplied to the model's depth. There is no scheduler, no paged cache and no fused kernel of vLLM in it, so
its tables are filed as `torch-<version>` and answer for no other engine.

    engine = start(EngineSettings(folder, "cpu", ..., model=model))
    run_shape(engine, StepShape("decode", 0, 8, 512), steps=6)
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from moai_planner.domain.errors import InputError, Problem
from moai_planner.domain.measured import StepShape
from moai_planner.domain.model import Model
from moai_planner.domain.units import GIBI, MILLI
from moai_planner.profile import torch_layers
from moai_planner.profile.engine import EngineSettings, OutOfMemory, StepRecord

_FREE_SHARE = 0.6
"Of a GPU's memory left after the weights, for KV; the rest is activations and graphs."
_WARM_RUNS = 2


class TorchBench:
    """Layers ready to be timed."""

    def __init__(self, settings: EngineSettings, stacks: tuple[torch_layers.Stack, ...], kv_tokens: int):
        self.settings, self.stacks, self.kv_tokens = settings, stacks, kv_tokens

    def stop(self) -> None:
        """Give the memory back."""
        import torch

        self.stacks = ()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def check_model(model: Model, precision: str, platform: str) -> None:
    """InputError for what torch has no operator for, before anything is allocated."""
    problems = []
    if precision not in ("bf16", "fp8"):
        remedy = "torch multiplies bf16 and, on some devices, fp8: --precision bf16"
        problems.append(Problem("--precision", "", f"{precision} with --engine torch", remedy))
    if any(part.kind == "linear" for part in model.attention):
        remedy = "profile it with vLLM"
        problems.append(Problem("--model", "", "linear attention has no operator in torch alone", remedy))
    if any(part.sparse_top_k_tokens for part in model.attention):
        remedy = "profile it with vLLM"
        problems.append(Problem("--model", "", "sparse attention has no operator in torch alone", remedy))
    if precision == "fp8" and not problems and not has_fp8(platform):
        remedy = "needs a GPU of compute capability 8.9 or newer: --precision bf16"
        problems.append(Problem("--precision", "", "this device multiplies no fp8", remedy))
    if problems:
        raise InputError(problems)


def has_fp8(platform: str) -> bool:
    """Whether torch has a scaled fp8 product here that is faster than widening first."""
    import torch

    return platform == "cuda" and torch.cuda.get_device_capability() >= (8, 9)


def start(settings: EngineSettings) -> TorchBench:
    """Allocate the layers; no engine is started."""
    if settings.platform == "cpu":
        os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    if settings.model is None:
        raise ValueError("torch times a model's layers: settings.model is missing")
    place = "cpu" if settings.platform == "cpu" else "cuda"
    if place == "cpu":
        torch.set_num_threads(1)
    torch.manual_seed(settings.seed)
    model, fp8 = settings.model, settings.precision == "fp8"
    kv_tokens = _kv_tokens(torch, settings, model, place)
    bench = torch_layers.Bench(torch, place, model, fp8, kv_tokens)
    with torch.inference_mode():
        stacks = (
            *(torch_layers.attention(bench, part) for part in model.attention),
            *(torch_layers.feed_forward(bench, part) for part in model.feed_forward),
            torch_layers.ends(bench),
        )
    return TorchBench(settings, stacks, kv_tokens)


def _kv_tokens(torch: Any, settings: EngineSettings, model: Model, place: str) -> int:
    """Tokens of KV that fit: beside the whole model's layers (CPU), beside those that are timed (GPU)."""
    width = 2.0  # bytes of a bf16 element
    wanted = settings.max_num_seqs * settings.max_model_len
    if place == "cpu":
        token_bytes = width * sum(torch_layers.kv_elements(part) * part.layers for part in model.attention)
        return min(wanted, int(settings.kv_cache_gib * GIBI / token_bytes))
    fp8 = settings.precision == "fp8"
    weight_bytes = 2 * width * model.hidden_size * model.vocabulary_size
    token_bytes = 0.0
    for part in model.attention:
        layer_bytes = torch_layers.attention_bytes(model, part, fp8)
        count = torch_layers.copies(part.layers, layer_bytes)
        weight_bytes += count * layer_bytes
        token_bytes += width * count * torch_layers.kv_elements(part)
    for part in model.feed_forward:
        layer_bytes = torch_layers.feed_forward_bytes(model, part, fp8)
        weight_bytes += torch_layers.copies(part.layers, layer_bytes) * layer_bytes
    free_bytes = torch.cuda.mem_get_info()[0] - weight_bytes
    if free_bytes <= 0:
        raise OutOfMemory("the layers' weights")
    return max(1, min(wanted, int(free_bytes * _FREE_SHARE / token_bytes)))


def run_shape(engine: TorchBench, shape: StepShape, steps: int) -> list[StepRecord]:
    """Time a shape: `steps` times in decode, once with prompt tokens."""
    import torch

    held = max(shape.tokens, max(1, shape.batch) * shape.context_tokens)
    if held > engine.kv_tokens:
        raise OutOfMemory(f"{held} tokens of KV")
    repeats = steps if shape.phase == "decode" else 1
    time_of = _cuda_times if engine.settings.platform != "cpu" else _cpu_times
    totals = [StepRecord() for _ in range(repeats)]
    try:
        with torch.inference_mode():
            for stack in engine.stacks:
                scale = stack.layers / stack.copies
                for record, (wall_s, cpu_s) in zip(
                    totals, time_of(stack.prepare(shape), repeats, engine.settings.graphs), strict=True
                ):
                    record.wall_s += wall_s * scale
                    record.cpu_s += cpu_s * scale
    except RuntimeError as error:
        if "out of memory" in str(error).lower() or "can't allocate memory" in str(error).lower():
            raise OutOfMemory(str(error)) from error
        raise
    for record in totals:
        record.model_wall_s, record.model_cpu_s = record.wall_s, record.cpu_s
    return totals


def _cpu_times(work: Callable[[], Any], repeats: int, graphs: bool) -> list[tuple[float, float]]:
    work()
    times = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.thread_time()
        work()
        times.append((time.perf_counter() - wall, time.thread_time() - cpu))
    return times


def _cuda_times(work: Callable[[], Any], repeats: int, graphs: bool) -> list[tuple[float, float]]:
    """Device time between two events; the work is captured and replayed, as an engine serves it."""
    import torch

    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(_WARM_RUNS):
            work()
    torch.cuda.current_stream().wait_stream(aside)
    run = work
    if graphs:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        run = graph.replay
    times = []
    run()
    for _ in range(repeats):
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        run()
        ended.record()
        torch.cuda.synchronize()
        seconds = began.elapsed_time(ended) * MILLI
        times.append((seconds, seconds))
    return times
