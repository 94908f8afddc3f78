"""What the simulator knows of one engine instance."""

from __future__ import annotations

from dataclasses import dataclass

from moai_planner.costmodel.configuration import Configuration
from moai_planner.costmodel.memory import memory_budget
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


def instance_of(c: Configuration, step_times: StepTimes) -> InstanceModel:
    """A configuration as the simulator knows it. Ranks of an MoE model step together: experts span them."""
    return InstanceModel(
        step_times=step_times,
        engine=c.engine,
        memory=memory_budget(c),
        dp=c.layout.dp,
        lockstep=c.layout.dp > 1 and c.model.moe,
    )
