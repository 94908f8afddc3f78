"""What the simulator knows of one engine instance."""

from __future__ import annotations

from dataclasses import dataclass

from moai_planner.domain.layout import Engine
from moai_planner.domain.step import MemoryBudget, StepTimes


@dataclass(frozen=True, eq=False)
class InstanceModel:
    """One engine instance: `dp` schedulers, each with the memory and the settings given here."""

    step_times: StepTimes
    engine: Engine
    memory: MemoryBudget
    dp: int = 1
    lockstep: bool = False
    "Ranks step together and wait for the slowest (expert-parallel MoE)."
