"""How long the requests of a run are: prompts and answers of one length, evenly spread, or of a mean and a
deviation.

isl, osl = draw_lengths(run, np.random.default_rng(0), 131_072)      # [requests] int64 each

Data sets of dialogues are wide and skewed: the deviation of their lengths is 0.4 to 1.1 of the mean, for
prompts and for answers. A gamma distribution has the mean, the deviation and the skew.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import gammaincinv

from moai_planner.accuracy.run import Run

DIALOGUE_CV = 0.8
"""Deviation over mean of prompts and of answers where all that is known is that they differ. Public data sets
(prompts, answers): OpenOrca 0.77, 0.79; MLPerf's mixture for Mixtral 0.77, 0.78; ShareGPT 1.09, 0.60;
LongBench and others for Llama-3.1-405B 0.43, 0.38; DeepSeek-R1's reasoning set 0.50, 1.25."""
WIDE_CV = 0.3
"""Deviation from which how lengths differ decides what a request meets. Uniform from 0.8 to 1.0 has 0.06."""
WIDEST_CV = 5.0
"""No published lengths deviate by more of their mean."""
LEAST_CV = 0.001
"""What deviates by less is of one length."""
ROUNDS = 50
"""Scalings until lengths that are cut at both ends have their mean again."""


def length_cv(run: Run) -> float:
    """Deviation of the answers over their mean.

    Uniform between a and 1: (1 - a) / √12 over (1 + a) / 2.
    """
    return max(run.osl_cv, (1.0 - run.length_low_frac) / np.sqrt(12.0) * run.longest_frac)


def differ_widely(run: Run) -> bool:
    """Whether the requests are too different to stand for each other."""
    return max(length_cv(run), run.isl_cv) > WIDE_CV


def listed_cv(lengths: Sequence[int]) -> float:
    """Deviation of listed lengths over their mean.

    >>> listed_cv([100, 300]), listed_cv([500, 500])
    (0.5, 0.0)
    """
    return float(np.std(lengths) / np.mean(lengths))


def draw_lengths(run: Run, rng: np.random.Generator, most_tokens: float) -> tuple[np.ndarray, np.ndarray]:
    """Prompt and output length of every request: those stated, else of the stated deviations, where prompt
    and answer together have at most `most_tokens`. Of a prompt what others share is the same for all."""
    if run.lengths:
        stated = np.asarray(run.lengths, np.int64)[np.arange(run.requests) % len(run.lengths)]
        return stated[:, 0], stated[:, 1]
    shared, own = shared_tokens(run), run.isl_tokens - shared_tokens(run)
    own_cv = min(run.isl_cv * run.isl_tokens / max(own, 1.0), WIDEST_CV)
    most_own = most_tokens * run.isl_tokens / (run.isl_tokens + run.osl_tokens) - shared
    most_osl = most_tokens * run.osl_tokens / (run.isl_tokens + run.osl_tokens)
    return (
        shared + _spread(max(own, 1.0), own_cv, run.requests, rng, most_own),
        _spread(run.osl_tokens, run.osl_cv, run.requests, rng, most_osl),
    )


def shared_tokens(run: Run) -> int:
    """Tokens that a prompt has in common with others."""
    return int(min(run.prefix_hit_frac, 1.0) * run.isl_tokens)


def _spread(
    mean_tokens: float, cv: float, count: int, rng: np.random.Generator, most_tokens: float = np.inf
) -> np.ndarray:
    """Quantiles of a gamma distribution at the middles of `count` equal shares, in random order, from 1 to
    `most_tokens`: even a short run has the mean.

    >>> lengths = _spread(200.0, 0.8, 1000, np.random.default_rng(0))
    >>> f"{lengths.mean():.0f} ± {lengths.std():.0f}, {lengths.min()} to {lengths.max()}"
    '200 ± 160, 1 to 1154'
    >>> short = _spread(2.0, 5.0, 1000, np.random.default_rng(0), 50.0)
    >>> f"{short.mean():.2f}, {short.min()} to {short.max()}"
    '2.00, 1 to 50'
    """
    shares = (np.arange(count) + 0.5) / count
    shape = gammaincinv(1.0 / cv**2, shares) if cv > LEAST_CV else np.ones(count)
    scale, most = mean_tokens / shape.mean(), max(most_tokens, mean_tokens)
    for _ in range(ROUNDS):
        lengths = np.clip(shape * scale, 1.0, most)
        scale *= mean_tokens / lengths.mean()
    ends = np.rint(np.cumsum(lengths))  # whole lengths with the same sum
    return rng.permutation(np.maximum(1, np.diff(ends, prepend=0.0))).astype(np.int64)
