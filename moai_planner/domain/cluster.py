"""What the operator has and wants: pools, deployments, objective, options."""

from __future__ import annotations

from dataclasses import dataclass

from moai_planner.domain.accelerator import Accelerator
from moai_planner.domain.model import Model
from moai_planner.domain.precision import Precision
from moai_planner.domain.slo import Slo
from moai_planner.domain.workload import Trace, Workload


@dataclass(frozen=True)
class Pool:
    """Nodes of one accelerator in one place."""

    name: str
    accelerator: Accelerator
    nodes: int
    devices_per_node: int
    network_bytes_per_s: float
    "Per node, one direction."
    price_usd_per_h: float
    "Per device."
    hosts: tuple[str, ...]
    "One address a node."
    assumed: tuple[str, ...] = ()
    "Fields the user left out, taken from the accelerator's profile or invented."

    @property
    def devices(self) -> int:
        return self.nodes * self.devices_per_node


@dataclass(frozen=True, eq=False)
class Deployment:
    """A model to serve, with its traffic and promises."""

    name: str
    model: Model
    precision: Precision
    trace: Trace
    workload: Workload
    "Cells of the trace with rate_scale applied."
    rate_scale: float
    slo: Slo
    max_model_len: int
    "Context window the engine is started with (≤ the model's)."
    prefix_caching: bool = True
    roles: tuple[str, ...] = ("mixed", "prefill", "decode")


OBJECTIVES = ("least-cost", "most-load", "goodput-per-dollar", "goodput-per-watt")


@dataclass(frozen=True)
class Options:
    """How to solve."""

    confidence: float | None = 0.8
    "Plan with the pessimistic end of this interval; None = the middle."
    gap_frac: float = 0.005
    time_limit_s: float = 60.0
    cross_vendor_kv: bool = False
    simplicity_usd_per_h: float = 0.05
    "Price of each distinct kind of instance used."
    engine: str = "vllm"
    seed: int = 0


@dataclass(frozen=True, eq=False)
class CapacityRequest:
    """`capacity.yaml`, checked and resolved."""

    pools: tuple[Pool, ...]
    deployments: tuple[Deployment, ...]
    objective: str
    options: Options
    inputs: tuple[tuple[str, str], ...]
    "Name → sha256 digest of every file read."
    assumptions: tuple[str, ...]
