"""Time of one step in the steady state, from a configuration's table of step times and a run's record.

`table` is (decode_s, tokens, mixed_s, scalars) of one configuration (`steady.Tables`), `run` a record of
`steady.RUN`. Compiled; all times in seconds.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit


@njit(cache=True)
def decode_base_s(table, sequences):
    """Decode step without context, linear between whole batches and past both ends: less than one sequence a
    rank means that ranks which share experts are idle."""
    decode_s = table[0]
    last = len(decode_s) - 1
    b = max(sequences, 1.0)
    if sequences < 1.0:
        return max(decode_s[1] - (1.0 - sequences) * (decode_s[2] - decode_s[1]), 0.5 * decode_s[1])
    low = min(math.floor(b), last - 1)
    share = b - low
    return (
        decode_s[low] + share * (decode_s[low + 1] - decode_s[low])
        if b <= last
        else decode_s[last] * b / last
    )


@njit(cache=True)
def mixed_base_s(table, step_tokens):
    tokens, mixed_s = table[1], table[2]
    if step_tokens <= tokens[-1]:
        return np.interp(step_tokens, tokens, mixed_s)
    return mixed_s[-1] * step_tokens / tokens[-1]


@njit(cache=True)
def decode_step_s(table, run, batch, kv_tokens):
    """One decode step: with drafts it verifies (1 + draft) tokens a sequence and runs the draft layers."""
    base = decode_base_s(table, batch * (1.0 + run.draft_tokens))
    return (base + table[3][1] * kv_tokens) * (1.0 + run.draft_cost_frac)


@njit(cache=True)
def context_tokens(run):
    """Mean context of a decoding token: the prompt and, length-weighted, half of the output."""
    return run.isl_tokens + 0.5 * run.osl_tokens * (1.0 + run.length_cv**2)


@njit(cache=True)
def prefill_s(table, run, prompt_tokens, budget):
    """One prompt alone, in chunks of the budget."""
    chunks = max(1.0, math.ceil(prompt_tokens / budget))
    pairs = prompt_tokens * (run.isl_tokens * run.hit_frac + 0.5 * prompt_tokens)
    return chunks * mixed_base_s(table, prompt_tokens / chunks) + table[3][0] * pairs


@njit(cache=True)
def prefills_s(table, run, prompt_tokens, prompts, alone):
    """One step of several whole prompts."""
    base = mixed_base_s(table, prompt_tokens * prompts) - mixed_base_s(table, prompt_tokens)
    pairs = prompt_tokens * (run.isl_tokens * run.hit_frac + 0.5 * prompt_tokens)
    return alone + base + table[3][0] * pairs * (prompts - 1.0) if prompts > 1.0 else alone


@njit(cache=True)
def spared_s(table, tokens, busy_frac):
    """What a step with prompt tokens on a share of the ranks saves, against tokens on all of them."""
    busy_frac = min(1.0, busy_frac)
    most = mixed_base_s(table, tokens) - mixed_base_s(table, tokens * busy_frac)
    return min((1.0 - busy_frac) * table[3][7] * tokens, most)


@njit(cache=True)
def mixed_step_s(table, run, batch, context, tokens, pairs, prompts):
    """A step with these prompt tokens: beside the decoding sequences, or without them."""
    time = mixed_base_s(table, tokens) + table[3][0] * pairs + table[3][5] * prompts
    if run.separate:
        return time
    rows = batch * (1.0 + run.draft_tokens)
    time += mixed_base_s(table, tokens + rows) - mixed_base_s(table, tokens)
    return time + table[3][1] * batch * context + table[3][5] * rows
