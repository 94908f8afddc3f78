"""What a simulation showed: percentiles with confidence, attainment, utilisation, queues, transfers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

STABLE, BACKLOGGED, OVERLOADED = "stable", "backlogged", "overloaded"


@dataclass(frozen=True)
class Estimate:
    """A statistic of one run and its 95 % confidence interval by batch means."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Usage:
    """One kind of instance (all its copies) over the run."""

    instance: str
    role: str
    copies: int
    requests: int
    utilization_frac: float
    "Share of the time that the engines were computing, up to the last arrival."
    kv_occupancy_frac: float
    "Mean share of KV blocks held while computing."
    kv_peak_frac: float
    preemptions: int


@dataclass(frozen=True)
class Transfers:
    """KV moved between the instances of one lane in one window."""

    lane: str
    window: str
    count: int
    moved_bytes: float
    mean_s: float
    "From the start of a transfer to its end, its wait for the network included."
    p99_s: float


@dataclass(frozen=True)
class WindowReport:
    """One window of the trace."""

    name: str
    start_s: float
    end_s: float
    requests: int
    verdict: str
    statistics: Mapping[str, Estimate | None]
    attainment_frac: float | None


@dataclass(frozen=True)
class DeploymentReport:
    """One deployment: latencies in seconds under `ttft_p50`, `tpot_mean`, …; None = no such figure exists."""

    deployment: str
    requests: int
    completed: int
    left_out: Mapping[str, int]
    "Reason → requests not simulated, or changed as an engine would change them."
    verdict: str
    "`stable`, `backlogged` (a queue built up and drained) or `overloaded` (it only grew)."
    verdict_reason: str
    statistics: Mapping[str, Estimate | None]
    "None throughout when overloaded: such a percentile only says how long the run was."
    attainment: Mapping[str, float | None]
    "Objective (`ttft_p95`) → share of requests within its limit."
    met: Mapping[str, bool]
    "Objective → whether its statistic keeps its limit."
    attainment_frac: float | None
    "Share of requests within every limit at once."
    goodput_req_per_s: float | None
    offered_req_per_s: float
    achieved_req_per_s: float
    output_tokens_per_s: float
    prefix_hit_frac: float
    "Prompt tokens found in caches, of all prompt tokens."
    queue_mean: float
    "Requests waiting for their first chunk, mean up to the last arrival."
    queue_peak: int
    preemptions: int
    usage: tuple[Usage, ...]
    transfers: tuple[Transfers, ...]
    windows: tuple[WindowReport, ...]


@dataclass(frozen=True)
class Report:
    """A plan, tried on its traces."""

    seed: int
    router: str
    rate_scale: float
    deployments: tuple[DeploymentReport, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Every objective of every deployment holds, and no queue only grows."""
        return all(d.verdict != OVERLOADED and all(d.met.values()) for d in self.deployments)
