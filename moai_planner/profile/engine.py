"""A real vLLM V1 engine in this process, stepped one engine step at a time, every step recorded.

What goes in: a model folder (config.json, no weights), limits, a `StepShape` to run. What comes out: the
times of steps whose batch was exactly that shape, asserted from the scheduler's own output, never assumed.

    engine = start(EngineSettings(folder, ...))
    for step in run_shape(engine, StepShape("decode", 0, 8, 512), steps=6):
        step.seconds("cpu")
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moai_planner.domain.measured import StepShape
from moai_planner.domain.model import Model
from moai_planner.profile import connector

_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine core in this process: a step is a function call
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TOKENIZERS_PARALLELISM": "false",
}
_CPU_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # one thread: its CPU time then tells work from waiting
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}


@dataclass(frozen=True)
class EngineSettings:
    """How the engine is started."""

    folder: Path
    platform: str
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    dtype: str = "bfloat16"
    quantization: str = ""
    kv_cache_dtype: str = "auto"
    kv_cache_gib: int = 1
    "CPU only: the size of the KV cache; a GPU takes its share of memory."
    memory_utilization_frac: float = 0.90
    graphs: bool = True
    seed: int = 0
    model: Model | None = None
    "Its layers' sizes, for an engine that reads no config."
    precision: str = "bf16"


@dataclass
class StepRecord:
    """One engine step as it happened."""

    scheduled: list[tuple[int, int]] = field(default_factory=list)
    "(tokens computed in the step, tokens computed before it), one pair a request."
    wall_s: float = 0.0
    cpu_s: float = 0.0
    model_wall_s: float = 0.0
    model_cpu_s: float = 0.0

    def seconds(self, basis: str) -> float:
        return self.wall_s if basis == "wall" else self.cpu_s

    def overhead_s(self, basis: str) -> float:
        """The engine's own part: the step less model and sampler."""
        model_s = self.model_wall_s if basis == "wall" else self.model_cpu_s
        return max(0.0, self.seconds(basis) - model_s)


class ShapeMismatch(RuntimeError):
    """The engine ran another batch than was asked for: the point must not be recorded."""


class OutOfMemory(RuntimeError):
    """The shape does not fit on the device."""


class SteppedEngine:
    """The engine and the record of its last step."""

    def __init__(self, engine: Any, settings: EngineSettings):
        self.engine, self.settings = engine, settings
        self.core = engine.engine_core.engine_core
        self.record = StepRecord()
        self._requests = 0
        self._watch()

    @property
    def kv_tokens(self) -> int:
        """Tokens that the KV cache holds, as the engine sized it."""
        cache = self.core.vllm_config.cache_config
        return int(cache.num_gpu_blocks) * int(cache.block_size)

    def add(self, prompt_tokens: int, new_tokens: int, declared_tokens: int = 0) -> None:
        from vllm import SamplingParams

        self._requests += 1
        # prompts that differ from request to request, away from the special tokens at the front
        prompt = [16 + (self._requests * 7919 + 31 * i) % 1000 for i in range(prompt_tokens)]
        parameters = SamplingParams(
            max_tokens=new_tokens,
            ignore_eos=True,
            temperature=0.0,
            detokenize=False,
            extra_args={"kv_transfer_params": {connector.PARAMETER: declared_tokens}},
        )
        self.engine.add_request(str(self._requests), {"prompt_token_ids": prompt}, parameters)

    def step(self) -> StepRecord:
        self.record = record = StepRecord()
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            self.engine.step()
        except RuntimeError as error:
            if "out of memory" in str(error).lower():
                raise OutOfMemory(str(error)) from error
            raise
        record.wall_s = time.perf_counter() - wall
        record.cpu_s = time.thread_time() - cpu
        self.record = StepRecord()  # steps that nobody asked to time must not add to this one
        return record

    def drain(self) -> None:
        while self.engine.has_unfinished_requests():
            self.engine.step()

    def stop(self) -> None:
        """Give the device back: workers down, distributed groups and caches gone."""
        from vllm.distributed import cleanup_dist_env_and_memory

        self.core.shutdown()
        self.engine = self.core = None
        cleanup_dist_env_and_memory()

    def _watch(self) -> None:
        scheduler, executor = self.core.scheduler, self.core.model_executor
        scheduler.schedule = self._recording_batch(scheduler.schedule)
        executor.execute_model = self._recording_time(executor.execute_model)
        executor.sample_tokens = self._recording_time(executor.sample_tokens)

    def _recording_batch(self, schedule: Any) -> Any:
        def recorded(*args: Any, **kwargs: Any) -> Any:
            output = schedule(*args, **kwargs)
            before = {r.req_id: r.num_computed_tokens for r in output.scheduled_new_reqs}
            running = output.scheduled_cached_reqs
            before.update(zip(running.req_ids, running.num_computed_tokens, strict=True))
            self.record.scheduled = [(n, before[i]) for i, n in output.num_scheduled_tokens.items()]
            return output

        return recorded

    def _recording_time(self, call: Any) -> Any:
        def recorded(*args: Any, **kwargs: Any) -> Any:
            wall, cpu = time.perf_counter(), time.thread_time()
            result = call(*args, **kwargs)
            if hasattr(result, "result"):  # a future, where the executor works in other processes
                result.result()
            self.record.model_wall_s += time.perf_counter() - wall
            self.record.model_cpu_s += time.thread_time() - cpu
            return result

        return recorded


def prepare_environment(platform: str, kv_cache_gib: int) -> None:
    """Set what vLLM and OpenMP read at import; call before either is imported."""
    os.environ.update(_ENVIRONMENT)
    if platform == "cpu":
        os.environ.update(_CPU_ENVIRONMENT)
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(kv_cache_gib)


def start(settings: EngineSettings) -> SteppedEngine:
    """Start the engine with dummy weights and without a tokenizer."""
    prepare_environment(settings.platform, settings.kv_cache_gib)
    from vllm import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    arguments: dict[str, Any] = {
        "model": str(settings.folder),
        "load_format": "dummy",
        "skip_tokenizer_init": True,
        "dtype": settings.dtype,
        "max_model_len": settings.max_model_len,
        "max_num_seqs": settings.max_num_seqs,
        "max_num_batched_tokens": settings.max_num_batched_tokens,
        "gpu_memory_utilization": settings.memory_utilization_frac,
        "kv_cache_dtype": settings.kv_cache_dtype,
        "enable_prefix_caching": False,
        "enable_chunked_prefill": True,
        "async_scheduling": False,  # one step at a time, so that a step has a beginning and an end
        "enforce_eager": not settings.graphs,
        "seed": settings.seed,
        "kv_transfer_config": {
            "kv_connector": connector.CLASS_NAME,
            "kv_role": "kv_both",
            "kv_connector_module_path": connector.__name__,
        },
    }
    if settings.quantization:
        arguments["quantization"] = settings.quantization
    return SteppedEngine(LLMEngine.from_engine_args(EngineArgs(**arguments)), settings)


def run_shape(engine: SteppedEngine, shape: StepShape, steps: int) -> list[StepRecord]:
    """Run one shape and return its steps, the shape of each asserted. Prefill and mixed shapes give one.

    Decode batches run `steps` steps around the asked context, so that their mean context is the shape's.
    """
    run = {"prefill": _prefill, "decode": _decode, "mixed": _mixed}[shape.phase]
    try:
        return list(run(engine, shape, steps))
    finally:
        engine.drain()


def _prefill(engine: SteppedEngine, shape: StepShape, steps: int) -> Iterator[StepRecord]:
    engine.add(shape.tokens + shape.context_tokens, 1, declared_tokens=shape.context_tokens)
    record = engine.step()
    _check(shape, record, [(shape.tokens, shape.context_tokens)])
    yield record


def _decode(engine: SteppedEngine, shape: StepShape, steps: int) -> Iterator[StepRecord]:
    first = max(2, shape.context_tokens - steps // 2)
    for _ in range(shape.batch):
        engine.add(first, steps + 2, declared_tokens=first - 1)
    engine.step()  # admits the batch; its time has the admission in it
    for done in range(1, steps + 1):
        record = engine.step()
        _check(shape, record, [(1, first - 1 + done)] * shape.batch)
        yield record


def _mixed(engine: SteppedEngine, shape: StepShape, steps: int) -> Iterator[StepRecord]:
    first = max(2, shape.context_tokens - 2)
    for _ in range(shape.batch):
        engine.add(first, 5, declared_tokens=first - 1)
    engine.step()
    engine.step()
    engine.add(shape.tokens, 1)
    record = engine.step()
    _check(shape, record, [(1, first + 1)] * shape.batch + [(shape.tokens, 0)])
    yield record


def _check(shape: StepShape, record: StepRecord, expected: list[tuple[int, int]]) -> None:
    if sorted(record.scheduled) != sorted(expected):
        ran = " + ".join(f"{n} after {before}" for n, before in sorted(record.scheduled)[:4])
        more = f" and {len(record.scheduled) - 4} more" if len(record.scheduled) > 4 else ""
        raise ShapeMismatch(f"the engine ran another batch: {ran or 'nothing'}{more}")
