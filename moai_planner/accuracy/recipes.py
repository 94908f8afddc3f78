"""Engine settings that a run's row leaves out but its published recipe states.

The runs of InferenceX are started by scripts that are public (SemiAnalysis, Apache-2.0,
github.com/SemiAnalysisAI/InferenceX, `benchmarks/`): KV number format, prompt tokens a step may hold, how
often the scheduler looks for new requests. The facts that change a prediction are here, as rules by engine,
model and device. A row that states a setting itself keeps its own.

>>> recipe_of("InferenceX", "sglang", "deepseek-ai/DeepSeek-R1", "b200_sxm", 32, 922, False)
Recipe(kv='fp8', max_num_batched_tokens=32768, poll_steps=30)
>>> recipe_of("BLIS training", "vllm", "meta-llama/Llama-2-7b-hf", "h100_sxm", 8, 592, False)
Recipe(kv='', max_num_batched_tokens=0, poll_steps=1)
"""

from __future__ import annotations

from dataclasses import dataclass

SOURCE, QUOTED = "InferenceX", "InferenceX run"
"""Rows of the source itself, and of others that quote it in their notes."""
POLLED_OFTEN, POLLED_SELDOM, SELDOM_FROM = 10, 30, 16
"""Decode steps between two looks for new requests (SGLang's `scheduler-recv-interval` on Blackwell), and the
concurrency from which the longer one is used."""
CONTINUOUS_STEPS = {"mi300x": 4, "mi325x": 4, "mi355x": 4}
"""Decode steps run before the next look (SGLang's `num-continuous-decode-steps`)."""
SGLANG_TOKENS = {"h200_sxm": 32768, "b200_sxm": 32768, "b300_sxm": 32768}
"""`chunked-prefill-size`; larger ones of other devices are bound by the memory in use."""
TRTLLM_TOKENS, TRTLLM_ROUNDING = 8192, 64
HOPPER = ("h100_sxm", "h200_sxm")
BLACKWELL = ("b200_sxm", "b300_sxm")


@dataclass(frozen=True)
class Recipe:
    """What a recipe sets; the defaults say nothing."""

    kv: str = ""
    "KV number format; empty = the precision's default."
    max_num_batched_tokens: int = 0
    "0 = the engine's default."
    poll_steps: int = 1
    "Decode steps from one look for new requests to the next."


def recipe_of(
    about: str, engine: str, model: str, device: str, concurrency: float, isl_tokens: float, dp: bool
) -> Recipe:
    """Settings of a run; `about` is its source and notes, `dp` whether attention is data-parallel."""
    if SOURCE not in about:
        return Recipe()
    name = model.rsplit("/", 1)[-1]
    if engine == "vllm":
        return _vllm(name, device)
    if engine == "atom":
        return Recipe(kv="fp8")
    if not name.startswith("DeepSeek-R1"):
        return Recipe()
    if engine == "trtllm":
        wanted = int(isl_tokens + concurrency) + TRTLLM_ROUNDING
        rounded = -(-wanted // TRTLLM_ROUNDING) * TRTLLM_ROUNDING
        return Recipe(kv="fp8", max_num_batched_tokens=max(TRTLLM_TOKENS, rounded))
    kv = "" if device in HOPPER else "fp8"
    return Recipe(kv, SGLANG_TOKENS.get(device, 0), 1 if dp else _poll_steps(device, concurrency))


def _vllm(model: str, device: str) -> Recipe:
    if model.startswith("Llama-3"):
        return Recipe(kv="fp8")
    narrow = model.startswith("MiniMax-M2") and device in ("h200_sxm", "mi355x")
    return Recipe(kv="fp8" if narrow else "")


def _poll_steps(device: str, concurrency: float) -> int:
    if device in BLACKWELL:
        return POLLED_SELDOM if concurrency >= SELDOM_FROM else POLLED_OFTEN
    return CONTINUOUS_STEPS.get(device, 1)
