"""The answer: what runs where, how traffic is split, what binds, how far from optimal it can be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moai_planner.domain.layout import Engine, Layout
from moai_planner.domain.model import Model
from moai_planner.domain.precision import Precision
from moai_planner.domain.provenance import Interval
from moai_planner.domain.step import KvTransfer

FORMAT = "moai-plan/1"


@dataclass(frozen=True)
class ObjectiveValue:
    """What was optimised, and the proof."""

    kind: str
    value: float
    bound: float
    "No plan can be better than this (under the same predictions)."
    gap: float
    "|value − bound| / |value|."


@dataclass(frozen=True)
class PoolUse:
    """One pool in the plan."""

    name: str
    accelerator: str
    devices_used: int
    devices_total: int
    nodes: int
    devices_per_node: int
    network_bytes_per_s: float
    price_usd_per_h: float
    hosts: tuple[str, ...]
    platform: str
    vendor: str


@dataclass(frozen=True)
class Placement:
    """One copy of an instance: host index in the pool → device indices there."""

    hosts: tuple[int, ...]
    devices: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Instance:
    """`count` equal copies of one engine instance."""

    id: str
    deployment: str
    role: str
    pool: str
    accelerator: str
    count: int
    layout: Layout
    engine: Engine
    lane: str
    batch: int
    predicted: Mapping[str, Interval]
    memory: Mapping[str, float]
    "Per device, as MemoryBudget."
    placements: tuple[Placement, ...]
    utilization: Mapping[str, float]
    "Resource → used / available, planned."
    rate_req_per_s: float
    "Requests per second through all copies."


@dataclass(frozen=True)
class Lane:
    """Instances behind one router; `weight` is its integer share of the deployment's traffic."""

    id: str
    deployment: str
    kind: str
    "`mixed` or `disaggregated`."
    weight: int
    share: float
    "The exact share; the weights represent it within 0.5 %."
    members: tuple[str, ...]
    transfer: KvTransfer | None = None


@dataclass(frozen=True)
class DeploymentPlan:
    """What a plan needs to know of a deployment to be emitted and simulated later."""

    name: str
    model: Model
    model_reference: str
    "As the engine is told (`openai/gpt-oss-120b` or a path)."
    precision: Precision
    trace: str
    rate_scale: float
    rate_req_per_s: float
    slo: Mapping[str, float]
    "`ttft_p95` → seconds."
    max_model_len: int
    prefix_caching: bool


@dataclass(frozen=True)
class Binding:
    """A row with no slack, and what one unit more would be worth."""

    constraint: str
    meaning: str
    worth_usd_per_h: float | None
    "Dual value of the relaxed programme; None where there is none."


@dataclass(frozen=True)
class Relaxation:
    """One thing that would make an infeasible problem feasible."""

    constraint: str
    needs: str
    has: str
    relaxation: str


@dataclass(frozen=True)
class Split:
    """Requests per second of one cell that take one path."""

    deployment: str
    window: str
    cell: str
    lane: str
    prefill: str
    decode: str
    "Instance ids; equal for mixed."
    rate_req_per_s: float


@dataclass(frozen=True)
class Plan:
    """`plan.json`. `status`: optimal | feasible | infeasible | unsolved | unbounded."""

    format: str
    tool_version: str
    inputs: Mapping[str, str]
    status: str
    objective: ObjectiveValue
    cost_usd_per_h: float
    pools: tuple[PoolUse, ...]
    deployments: tuple[DeploymentPlan, ...]
    instances: tuple[Instance, ...]
    lanes: tuple[Lane, ...]
    splits: tuple[Split, ...]
    windows: tuple[Mapping[str, Any], ...]
    binding: tuple[Binding, ...]
    assumptions: tuple[str, ...]
    rejected: Mapping[str, int] = field(default_factory=dict)
    "Reason → candidates left out."
    verification: Mapping[str, Any] = field(default_factory=dict)
    "{simulated, attainment, percentiles, rounds}"
    explanation: tuple[Relaxation, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
