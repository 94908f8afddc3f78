"""How long the requests of a run are: prompts and answers of one length, evenly spread, or of a mean and a
deviation.

isl, osl = draw_lengths(run, np.random.default_rng(0))      # [requests] int64 each

Data sets of dialogues are wide and skewed: the deviation of their lengths is 0.4 to 1.1 of the mean, for
prompts and for answers. A gamma distribution has the mean, the deviation and the skew.
"""

from __future__ import annotations

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


def length_cv(run: Run) -> float:
    """Deviation of the answers over their mean.

    Uniform between a and 1: (1 - a) / √12 over (1 + a) / 2.
    """
    return max(run.osl_cv, (1.0 - run.length_low_frac) / np.sqrt(12.0) * run.longest_frac)


def differ_widely(run: Run) -> bool:
    """Whether the requests are too different to stand for each other."""
    return max(length_cv(run), run.isl_cv) > WIDE_CV or bool(run.lengths)


def draw_lengths(run: Run, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Prompt and output length of every request: those stated, else of the stated deviations."""
    if run.lengths:
        stated = np.asarray(run.lengths, np.int64)[np.arange(run.requests) % len(run.lengths)]
        return stated[:, 0], stated[:, 1]
    return (
        _spread(run.isl_tokens, run.isl_cv, run.requests, rng),
        _spread(run.osl_tokens, run.osl_cv, run.requests, rng),
    )


def _spread(mean_tokens: float, cv: float, count: int, rng: np.random.Generator) -> np.ndarray:
    """Quantiles of a gamma distribution at the middles of `count` equal shares, in random order: even a short
    run has the mean.

    >>> lengths = _spread(200.0, 0.8, 1000, np.random.default_rng(0))
    >>> f"{lengths.mean():.0f} ± {lengths.std():.0f}, {lengths.min()} to {lengths.max()}"
    '200 ± 160, 1 to 1154'
    """
    shares = (np.arange(count) + 0.5) / count
    lengths = gammaincinv(1.0 / cv**2, shares) if cv > 0 else np.ones(count)
    lengths *= mean_tokens / lengths.mean()
    return np.maximum(1, np.rint(rng.permutation(lengths))).astype(np.int64)
