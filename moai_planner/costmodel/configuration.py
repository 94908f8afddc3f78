"""One thing to predict: a model on an accelerator in a layout, by an engine, with parameters."""

from __future__ import annotations

from dataclasses import dataclass

from moai_planner.domain.accelerator import Accelerator
from moai_planner.domain.layout import Engine, Layout
from moai_planner.domain.measured import MeasuredPoint
from moai_planner.domain.model import Model
from moai_planner.domain.operators import OperatorTable
from moai_planner.domain.parameters import Parameters
from moai_planner.domain.precision import Precision


@dataclass(frozen=True)
class Configuration:
    """Everything that a step's time depends on, apart from the step's tokens and context."""

    accelerator: Accelerator
    model: Model
    precision: Precision
    layout: Layout
    engine: Engine
    devices_per_node: int
    network_bytes_per_s: float
    "Per node, one direction, between nodes."
    parameters: Parameters
    measured: tuple[MeasuredPoint, ...] | OperatorTable = ()
    "Steps of one rank of this layout, or operators of its layers, timed alone: collectives are added."
