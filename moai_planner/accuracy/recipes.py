"""Engine settings that a run's row leaves out but its published recipe states.

The runs of InferenceX are started by scripts that are public (SemiAnalysis, Apache-2.0,
github.com/SemiAnalysisAI/InferenceX, `benchmarks/`): KV number format and the prompt tokens a step may
hold are here, as rules by engine, model and device. A row that states a setting itself keeps its own.

>>> recipe_of("InferenceX", "sglang", "deepseek-ai/DeepSeek-R1", "b200_sxm", 32, 922)
Recipe(kv='fp8', max_num_batched_tokens=32768)
>>> recipe_of("BLIS training", "vllm", "meta-llama/Llama-2-7b-hf", "h100_sxm", 8, 592)
Recipe(kv='', max_num_batched_tokens=0)
"""

from __future__ import annotations

from dataclasses import dataclass

SOURCE = "InferenceX"
"""Named by rows of its own, and in the notes of rows that quote it."""
SGLANG_TOKENS = {"h200_sxm": 32768, "b200_sxm": 32768, "b300_sxm": 32768}
"""`chunked-prefill-size`; larger ones of other devices are bound by the memory in use."""
TRTLLM_TOKENS, TRTLLM_ROUNDING = 8192, 64
HOPPER = ("h100_sxm", "h200_sxm")


@dataclass(frozen=True)
class Recipe:
    """What a recipe sets; the defaults say nothing."""

    kv: str = ""
    "KV number format; empty = the precision's default."
    max_num_batched_tokens: int = 0
    "0 = the engine's default."


def recipe_of(
    about: str, engine: str, model: str, device: str, concurrency: float, isl_tokens: float
) -> Recipe:
    """Settings of a run; `about` is its source and notes."""
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
    return Recipe("" if device in HOPPER else "fp8", SGLANG_TOKENS.get(device, 0))


def _vllm(model: str, device: str) -> Recipe:
    if model.startswith("Llama-3"):
        return Recipe(kv="fp8")
    narrow = model.startswith("MiniMax-M2") and device in ("h200_sxm", "mi355x")
    return Recipe(kv="fp8" if narrow else "")
