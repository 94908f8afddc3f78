"""One way to run one deployment on one pool, with its predicted rates: a column of the programme."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moai_planner.domain.layout import Engine, Layout
from moai_planner.domain.provenance import Interval
from moai_planner.domain.step import MemoryBudget

ROLES = ("mixed", "prefill", "decode")


@dataclass(frozen=True, eq=False)
class Candidate:
    """A kind of instance. Arrays run over the deployment's cells (all windows one after another)."""

    id: str
    deployment: str
    pool: str
    role: str
    layout: Layout
    engine: Engine
    step_s: float
    "Operating point: the decode step time planned for (0 for prefill)."
    batch: int
    "Sequences in flight at the operating point, per data-parallel rank."
    use: dict[str, np.ndarray]
    "Resource (`time`, `memory`, `batch`, `nic`) → [cells] instances that 1 req/s of the cell takes."
    memory: MemoryBudget
    predicted: dict[str, Interval]
    "ttft_s, tpot_s, prefill_tokens_per_s, decode_tokens_per_s …"
    kv_group: str
    "Instances exchange KV only inside a group; empty for mixed."
