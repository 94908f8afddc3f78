"""Power of an instance's devices. [W]

>>> from moai_planner.costmodel.example import llama_on_h100
>>> power_w(llama_on_h100(), 0.0), power_w(llama_on_h100(), 1.0)
(745.0, 1270.0)
"""

from __future__ import annotations

from moai_planner.costmodel.configuration import Configuration

IDLE_FRAC = 0.25
"""Of the board's TDP when it holds a model and waits (assumed; H100 boards idle at 120–180 W of 700 W)."""


def power_w(c: Configuration, utilisation_frac: float) -> float:
    """All devices of the instance with their share of host, network and cooling.

    The board goes linearly from idle to TDP with the share of time that steps run (Fan et al. 2007);
    host, network and cooling are taken as constant.
    """
    board = c.accelerator.tdp_w
    around = max(0.0, c.accelerator.all_in_w - board)
    return c.layout.devices * (around + board * (IDLE_FRAC + (1 - IDLE_FRAC) * utilisation_frac))
