"""Speculative decoding of a run: tokens drafted a step, tokens kept, what drafting costs.

Rows name the method, seldom the number of drafted tokens and never the acceptance. The number is assumed
here, by engine; the acceptance is a parameter (`draft_accept_frac`), the same for every model of an engine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from moai_planner.accuracy.run import Run
from moai_planner.domain.model import Model

Numbers = float | np.ndarray

DRAFT_TOKENS = {"sglang": 3.0, "trtllm": 2.0, "atom": 3.0, "vllm": 2.0}
"""Tokens an engine's multi-token-prediction recipe drafts (assumed; recipes of InferenceX use 1 to 3)."""
DEFAULT_TOKENS = 2.0
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
    r"""Tokens gained a step, :math:`1 + a + a^2 + … + a^k` (Leviathan et al. 2023, eq. 1).

    >>> kept_tokens(2, 0.5)
    1.75
    """
    return (1.0 - accept_frac ** (drafted + 1.0)) / (1.0 - accept_frac)


def drafting(run: Run, model: Model) -> Drafting:
    """The drafting of a run; `NONE` when it has no speculation."""
    if run.spec_decode in ("", "none"):
        return NONE
    engine = run.workers[-1].engine
    if run.spec_decode.startswith("draft"):
        stated = re.search(r"(\d+) token", run.spec_decode)
        tokens = float(stated[1]) if stated else DRAFT_MODEL_TOKENS
        return Drafting(tokens, tokens * DRAFT_MODEL_COST_FRAC)
    tokens = DRAFT_TOKENS.get(engine, DEFAULT_TOKENS)
    return Drafting(tokens, tokens / model.layers)
