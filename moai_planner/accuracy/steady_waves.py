r"""A closed loop of equal requests on an engine that computes prompts before it decodes: waves.

Requests that start together end together, and so do their successors. Of the P requests of a rank the W that
find room arrive at once, their prompts run in k = W/g batches of the g that fit into a step, and then all
decode. With b for the time of a batch, t for a decode step and n for the decode steps of a request:

.. math:: \mathrm{TTFT} = h + b (k + 1) / 2, \qquad \mathrm{E2E} = \mathrm{TTFT} + n t + b (k - 1) / 2

h: time outside the engine, a part of each wave unless others wait already. Where W < P, P/W waves follow each
other. An idle engine looks for new requests at once, and no rank waits for prompts of another, since all
have theirs.
"""

from __future__ import annotations

import math

from numba import njit

from moai_planner.accuracy.steady_steps import context_tokens, decode_step_s, prefill_s, prefills_s


@njit(cache=True)
def waves(table, run, outside, prompt, steps, population, rare):
    """Mean and longest TTFT, decode step with what interrupts it, requests decoding at once, requests a
    second, and the step that a share `rare` of the steps waits for. All of one rank, times in seconds."""
    room = max(1.0, min(run.max_sequences, run.kv_tokens / (run.isl_tokens + run.osl_tokens)))
    served = min(population, room)
    together = max(1.0, served)
    batch = max(1.0, min(math.floor(run.budget_tokens / prompt), together))
    batches = together / batch
    alone = prefill_s(table, run, prompt, run.budget_tokens)
    batch_s = prefills_s(table, run, prompt, batch, alone)
    plain = decode_step_s(table, run, together, together * context_tokens(run))
    left = 0.5 * batch_s * (batches - 1.0)
    cycle = batch_s * batches + steps * plain
    residence = max(outside + cycle, population / served * cycle)
    step = plain + left / steps
    ttft = residence - steps * step
    late = plain + max(0.0, math.ceil(batches * (1.0 - rare * steps)) - 1.0) * batch_s
    return ttft, ttft + left, step, served, population / residence, late
