"""Speculative decoding of a run: tokens drafted a step, tokens kept, what drafting costs.

Rows name the method, seldom the number of drafted tokens and never the acceptance. The number is that of the
published launch scripts, by engine and platform; the acceptance is a parameter (`draft_accept_frac`), the
same for every model of an engine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from moai_planner.accuracy.recipes import follows_recipe
from moai_planner.accuracy.run import Run
from moai_planner.domain.corrections import family_name
from moai_planner.domain.model import Model

Numbers = float | np.ndarray

DRAFT_TOKENS = {"sglang-cuda": 2.0, "sglang-rocm": 3.0, "trtllm-cuda": 3.0, "atom-rocm": 3.0}
"""Tokens that multi-token prediction drafts in the published launch scripts, by engine and platform."""
ONE_TOKEN = ("trtllm-cuda", "sglang-rocm")
"""Whose scripts draft one token where ranks attend alone (data-parallel attention)."""
SMALL_BATCH = 48
"""Sequences a rank below which disaggregated TensorRT-LLM drafts as many all the same."""
DEFAULT_TOKENS = 2.0
MOST_TOKENS = 8
DRAFT_MODEL_TOKENS = 3.0
DRAFT_MODEL_COST_FRAC = 0.05
"""A separate draft model (EAGLE head): share of a step for each drafted token."""


@dataclass(frozen=True)
class Drafting:
    """What a decode step does for each sequence."""

    tokens: float
    "Drafted and verified beside the sure one."
    cost_frac: float
    "Time of drafting, as a share of the step."


NONE = Drafting(0.0, 0.0)


def kept_tokens(drafted: Numbers, accept_frac: Numbers) -> Numbers:
    r"""Tokens gained a step, :math:`1 + a_1 + a_1 a_2 + …` with :math:`a_i = a^i` (all alike in
    Leviathan et al. 2023, eq. 1).

    A layer trained to see one token ahead (DeepSeek-V3, section 2.2) is fed its own guess for each further
    one, so its tokens are accepted less and less often.

    >>> kept_tokens(1, 0.5), kept_tokens(2, 0.5)
    (1.5, 1.625)
    """
    kept = 1.0
    for i in range(1, MOST_TOKENS + 1):
        kept = kept + accept_frac ** (i * (i + 1) / 2) * (drafted >= i)
    return kept


def drafting(run: Run, model: Model, platform: str) -> Drafting:
    """The drafting of a run; `NONE` when it has no speculation."""
    if run.spec_decode in ("", "none"):
        return NONE
    if run.spec_decode.startswith("draft"):
        stated = re.search(r"(\d+) token", run.spec_decode)
        tokens = float(stated[1]) if stated else DRAFT_MODEL_TOKENS
        return Drafting(tokens, tokens * DRAFT_MODEL_COST_FRAC)
    tokens = _predicted_tokens(run, platform)
    return Drafting(tokens, tokens / model.layers)


def _predicted_tokens(run: Run, platform: str) -> float:
    last = run.workers[-1]
    family = family_name(last.engine, platform)
    tokens = DRAFT_TOKENS.get(family, DEFAULT_TOKENS)
    if last.dp == 1 or family not in ONE_TOKEN or not follows_recipe(run):
        return tokens
    small = run.concurrency < SMALL_BATCH * last.count * last.dp
    return tokens if small and run.disaggregated and last.engine == "trtllm" else 1.0
