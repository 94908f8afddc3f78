r"""A closed loop of equal requests on an engine that computes prompts before it decodes: waves.

Requests that start together end together, and so do their successors: all P requests of a rank arrive at
once, their prompts run in k = P/g batches of the g that fit into a step, and then all decode. With b for the
time of a batch, t for a decode step and n for the decode steps of a request:

.. math:: \mathrm{TTFT} = h + b (k + 1) / 2, \qquad \mathrm{TPOT} \cdot n_{tokens} = n t + b (k - 1) / 2

h: time outside the engine. Where only W < P requests find room, P/W waves follow each other.
"""

from __future__ import annotations

import math

from numba import njit

from moai_planner.accuracy.steady_steps import context_tokens, decode_step_s, prefill_s, prefills_s


@njit(cache=True)
def waves(table, run, outside, prompt, steps, population, room, rare):
    """TTFT, time per decode step with what interrupts it, requests of a wave, waves a second, and the step
    that a share `rare` of the tokens waits for. All of one rank, times in seconds."""
    together = max(1.0, min(population, room))
    batch = max(1.0, min(math.floor(run.budget_tokens / prompt), together))
    batches = together / batch
    alone = prefill_s(table, run, prompt, run.budget_tokens)
    batch_s = prefills_s(table, run, prompt, batch, alone)
    plain = decode_step_s(table, run, together, together * context_tokens(run))
    left = 0.5 * batch_s * (batches - 1.0)
    cycle = outside + batch_s * batches + steps * plain
    step = plain + left / steps
    ttft = max(1.0, population / together) * cycle - steps * step
    seen = (1.0 - 1.0 / batches) / (steps * run.accepted_tokens)
    late = plain + 2.0 * left if seen >= rare else plain
    return ttft, step, together, 1.0 / cycle, late
