"""Engine settings that a run's row leaves out but its published recipe states.

The runs of InferenceX are started by scripts that are public (SemiAnalysis, Apache-2.0,
github.com/SemiAnalysisAI/InferenceX, `benchmarks/`): KV number format, the prompt tokens a step may
hold, looks for new requests, prompts held back, quantised sums and decode slots are here, as rules by
engine, model and device. Moreh's presets for DeepSeek-R1 on data-parallel ranks are public too
(github.com/moreh-dev/mif, `deploy/helm/moai-inference-preset` before August 2026), and one article names
the ones it ran. A row that states a setting itself keeps its own.

>>> recipe_of("InferenceX", "sglang", "deepseek-ai/DeepSeek-R1", "b200_sxm", 32, 922)
Recipe(kv='fp8', max_num_batched_tokens=32768, prefill_batched_tokens=0, memory_frac=0.0, graphs=True)
>>> recipe_of("BLIS training", "vllm", "meta-llama/Llama-2-7b-hf", "h100_sxm", 8, 592)
Recipe(kv='', max_num_batched_tokens=0, prefill_batched_tokens=0, memory_frac=0.0, graphs=True)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moai_planner.accuracy.published_slots import published_slots
from moai_planner.accuracy.run import Run, Workers
from moai_planner.domain.accelerator import Accelerator

SOURCE = "InferenceX"
"""Named by rows of its own, and in the notes of rows that quote it."""
SGLANG_TOKENS = {"h200_sxm": 32768, "b200_sxm": 32768, "b300_sxm": 32768}
"""`chunked-prefill-size`; larger ones of other devices are bound by the memory in use."""
TRTLLM_TOKENS, TRTLLM_ROUNDING = 8192, 64
TRTLLM_MEMORY_FRAC = {"Hopper": 0.75, "Blackwell": 0.8}
"""`free_gpu_memory_fraction` of the scripts for DeepSeek-R1."""
HOPPER = ("h100_sxm", "h200_sxm")
BLACKWELL = ("Blackwell", "Blackwell Ultra")
FEW_RECEIVE_STEPS, RECEIVE_STEPS, MANY_REQUESTS = 10.0, 30.0, 16
"""SGLang on Blackwell looks for new requests every 10 decode steps, every 30 from 16 requests in flight
(`--scheduler-recv-interval`); not with data-parallel attention, and not in disaggregated recipes."""
HOLD_STEPS = {"trtllm": 60.0, "atom": 30.0, "sglang": 30.0}
"""Steps that data-parallel attention holds a prompt back at most until all ranks have one: TensorRT-LLM's
`attention_dp_config` (`enable_balance`, `timeout_iters: 60`), ATOM's prefill delayer (on by default, 30
passes) and SGLang's (`--enable-prefill-delayer`, 30 passes by default; off unless a recipe sets it)."""
OWN_CHOICE = ("sglang",)
SLOTS = np.array((1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048), dtype=float)
"""Sequences that a decode rank of TensorRT-LLM's disaggregated recipes holds (`max_batch_size`), where
`published_slots` does not say: a guess, by a rule chosen on calibration rows."""
COLD_ENGINES = ("sglang",)
"""Engines whose kernels the first requests of a published run wait for."""
QUANTISED_BITS = 4
"""Large sums over AMD devices travel in 4 bits where scripts say so (`…QUICK_REDUCE_QUANTIZATION=INT4`)."""
QUANTISED_DEVICE = "mi355x"
QUANTISED_R1_SINCE = {"mxfp4": "2025-12-16", "fp8": "2026-01-05"}
"""SGLang's scripts for DeepSeek-R1 on one such server say so since then; those for GLM-5 in 8 bits always."""
QUANTISED_VLLM = ("gpt-oss", "Llama-3")
"""Models whose vLLM scripts for AMD devices say so, and 8-bit MiniMax-M2 on MI355X."""


@dataclass(frozen=True)
class Recipe:
    """What a recipe sets; the defaults say nothing."""

    kv: str = ""
    "KV number format; empty = the precision's default."
    max_num_batched_tokens: int = 0
    "0 = the engine's default."
    prefill_batched_tokens: int = 0
    "The same of the prefill side of a disaggregated run."
    memory_frac: float = 0.0
    "Of a device, or of what is free (`costmodel.memory`); 0 = the engine's default."
    graphs: bool = True
    "Off: every step is launched by the host (`--enforce-eager`)."


MOREH_R1 = Recipe(kv="fp8")
"""What all of Moreh's presets for DeepSeek-R1 have in common."""
MOREH_ARTICLE, MOREH_ARTICLE_R1 = "Moreh MIF docs", Recipe("fp8", 16384, 64000, graphs=False)
"""The article that names its presets, and what these set."""


def has_moreh_preset(engine: str, model: str) -> bool:
    """Whether a run starts from Moreh's presets for DeepSeek-R1. A layout that it leaves open is theirs:
    data-parallel attention and whole experts on every device, the first public ones (`dp8ep`) know no other.

    >>> has_moreh_preset("moreh-vllm", "deepseek-ai/DeepSeek-R1"), has_moreh_preset("vllm", "any/other")
    (True, False)
    """
    return engine == "moreh-vllm" and _is_r1(model)


def recipe_of(
    about: str, engine: str, model: str, device: str, concurrency: float, isl_tokens: float
) -> Recipe:
    """Settings of a run; `about` is its source and notes."""
    name = _without_owner(model)
    if has_moreh_preset(engine, model):
        return MOREH_ARTICLE_R1 if MOREH_ARTICLE in about else MOREH_R1
    if SOURCE not in about:
        return Recipe()
    if engine == "vllm":
        return _vllm(name, device)
    if engine == "atom":
        return Recipe(kv="fp8")
    if not _is_r1(model):
        calibrated = engine == "trtllm" and not name.startswith("gpt-oss")
        return Recipe(kv="fp8" if calibrated else "")  # NVIDIA's calibrated checkpoints ask for it
    if engine == "trtllm":
        wanted = int(isl_tokens + concurrency) + TRTLLM_ROUNDING
        rounded = -(-wanted // TRTLLM_ROUNDING) * TRTLLM_ROUNDING
        frac = TRTLLM_MEMORY_FRAC["Hopper" if device in HOPPER else "Blackwell"]
        return Recipe(kv="fp8", max_num_batched_tokens=max(TRTLLM_TOKENS, rounded), memory_frac=frac)
    return Recipe("" if device in HOPPER else "fp8", SGLANG_TOKENS.get(device, 0))


def _is_r1(model: str) -> bool:
    return _without_owner(model).startswith("DeepSeek-R1")


def _without_owner(model: str) -> str:
    return model.rsplit("/", 1)[-1]


def _vllm(model: str, device: str) -> Recipe:
    if model.startswith("Llama-3"):
        return Recipe(kv="fp8")
    narrow = model.startswith("MiniMax-M2") and device in ("h200_sxm", "mi355x")
    return Recipe(kv="fp8" if narrow else "")


def follows_recipe(run: Run) -> bool:
    """Whether the run was started by a published script."""
    return SOURCE in f"{run.source} {run.notes}"


def receive_steps(run: Run, accelerator: Accelerator) -> float:
    """Decode steps between two looks for new requests; 1 = after every step."""
    last = run.workers[-1]
    if (
        not follows_recipe(run)
        or last.engine != "sglang"
        or accelerator.architecture not in BLACKWELL
        or last.dp > 1
        or run.disaggregated
    ):
        return 1.0
    return RECEIVE_STEPS if run.concurrency >= MANY_REQUESTS else FEW_RECEIVE_STEPS


def reduce_bits(run: Run, workers: Workers, accelerator: Accelerator) -> int:
    """Bits of a value in large sums over tensor ranks; 0 = the engine's default."""
    if not follows_recipe(run) or accelerator.platform != "rocm":
        return 0
    name = _without_owner(run.model)
    here = accelerator.id == QUANTISED_DEVICE
    if workers.engine == "vllm":
        said = name.startswith(QUANTISED_VLLM) or (_narrow(run, name, "MiniMax-M2") and here)
    elif workers.engine == "sglang" and here:
        since = QUANTISED_R1_SINCE.get(run.precision)
        r1 = _is_r1(name) and not run.disaggregated and since is not None and run.date >= since
        said = r1 or _narrow(run, name, "GLM-5")
    else:
        said = False
    return QUANTISED_BITS if said else 0


def _narrow(run: Run, name: str, family: str) -> bool:
    return name.startswith(family) and run.precision == "fp8"


def starts_cold(run: Run) -> bool:
    """Whether the first requests of a run wait until kernels are compiled and tuned."""
    return follows_recipe(run) and run.workers[0].engine in COLD_ENGINES


def hold_steps(run: Run) -> float:
    """Steps that a prompt waits at most for prompts on the other data-parallel ranks; 0 = it does not."""
    last = run.workers[-1]
    if last.dp == 1 or run.disaggregated or (last.engine in OWN_CHOICE and not follows_recipe(run)):
        return 0.0
    return HOLD_STEPS.get(last.engine, 0.0)


def decode_slots(run: Run) -> float:
    """Sequences that a decode rank of a disaggregated TensorRT-LLM run holds at once; infinite where nothing
    says.

    Where recipes fill their ranks they offer 1.05 to 1.5 times the slots, so that none is ever idle. A
    concurrency that ranks cannot share evenly was chosen that way: slots are the largest usual number below
    the share.
    """
    last = run.workers[-1]
    ranks = last.count * last.dp
    if not follows_recipe(run) or not run.disaggregated or last.engine != "trtllm":
        return np.inf
    slots = _published(run) if _is_r1(run.model) else 0
    if slots:
        return float(slots)
    if run.arrivals != "closed" or run.concurrency < ranks or run.concurrency % ranks == 0:
        return np.inf
    return float(SLOTS[ranks * SLOTS <= run.concurrency].max())


def _published(run: Run) -> int:
    last = run.workers[-1]
    return published_slots(
        last.accelerator,
        run.precision,
        round(run.isl_tokens * run.longest_frac),
        round(run.osl_tokens * run.longest_frac),
        drafts=run.spec_decode != "none",
        workers=last.count,
        tp=last.tp,
        dp=last.dp,
        concurrency=int(run.concurrency),
    )
