"""One measured serving run: how it was made (`Run`) and what came out (`metrics`).

A run has one group of engines (colocated) or two (prefill, decode). Metrics keep the column names and
the units of the measurements table, because that is what users read in the answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from moai_planner.domain.units import GIGA

MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])")
"""How a date begins that says the month."""
LARGEST = GIGA
"""No length, count, rate or time in milliseconds of a serving run is above this, or below one over it."""
SPLITS = ("calibrate", "validate", "sanity")
STATISTICS = {
    "ttft_ms": ("mean", "median", "p90", "p99"),
    "tpot_ms": ("mean", "median", "p99"),
    "itl_ms": ("mean", "median", "p99"),
    "e2el_s": ("mean", "median", "p99"),
}
RATES = ("output_tps", "total_tps")
DP_NOT_GIVEN = "dp 1 (not given)"
"""Among a run's assumptions: its layout may be larger than was read."""
PER_ACCELERATOR = ("output_tps_per_accel", "total_tps_per_accel")
METRICS = (
    *(f"{name}_{s}" for name, statistics in STATISTICS.items() for s in statistics),
    *RATES,
    *PER_ACCELERATOR,
)


@dataclass(frozen=True)
class Workers:
    """Engine instances of one kind."""

    accelerator: str
    engine: str
    count: int
    "Instances (replicas)."
    tp: int
    pp: int
    dp: int
    ep: int

    @property
    def devices(self) -> int:
        return self.count * self.tp * self.pp * self.dp


@dataclass(frozen=True)
class Run:
    """A benchmark run. `arrivals`: `closed` (a new request when one ends), `open` (at a rate, perhaps
    capped by `concurrency`), `static` (one batch, all at once), `offline` (all queued at the start)."""

    id: str
    source: str
    date: str
    model: str
    precision: str
    engine_version: str
    workers: tuple[Workers, ...]
    "One = colocated; two = prefill, decode."
    kv_connector: str
    spec_decode: str
    "`none` when not stated."
    arrivals: str
    isl_tokens: float
    "Mean prompt length."
    osl_tokens: float
    "Mean generated length."
    length_low_frac: float
    "Lengths are uniform between this fraction of the longest and the longest; 1 = fixed."
    concurrency: float
    "0 = no limit. A fraction is the mean number in flight."
    request_rate: float
    "0 = not by a rate."
    requests: int
    prefix_hit_frac: float
    "Prompt tokens found in the cache, over the whole run."
    max_num_seqs: int
    "0 = not stated."
    max_num_batched_tokens: int
    kv: str
    "KV number format; empty = the default of the precision."
    split: str
    notes: str
    network_bytes_per_s: float = 0.0
    "Of a node, one direction; 0 = not stated."
    events_per_token: float = 1.0
    "Stream events that the client counted for each token (found from its own latencies)."
    tokens_per_event: float = 1.0
    "Tokens that the server sent in one stream event (its stream interval)."
    prefill_batched_tokens: int = 0
    "Of the prefill side, where it differs; 0 = as `max_num_batched_tokens`."
    memory_frac: float = 0.0
    "Of a device, or of what is free; 0 = the engine's default."
    graphs: bool = True
    "Decode steps replay captured graphs."
    distinct_prompts: int = 1
    "Beginnings that the prompts share, in turn (with `prefix_hit_frac`)."
    isl_cv: float = 0.0
    "Deviation of prompt lengths over their mean, where they are neither fixed nor uniform."
    osl_cv: float = 0.0
    burstiness: float = 1.0
    "Of arrivals at a rate: shape of the gamma gaps; 1 = Poisson, infinity = even."
    lengths: tuple[tuple[int, int], ...] = ()
    "(prompt, generated) tokens of each request, where every one is known."
    equal_lengths: bool = False
    "All requests are of one length: stated, or both means are the nominal lengths and no spread is given."
    assumed: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def disaggregated(self) -> bool:
        return len(self.workers) == 2

    @property
    def longest_frac(self) -> float:
        """The longest length over the mean."""
        return 2.0 / (1.0 + self.length_low_frac)

    @property
    def devices(self) -> int:
        return sum(workers.devices for workers in self.workers)

    def offered(self, metric: str) -> float:
        """Tokens a second that arrivals at a rate bring, in the unit of a throughput's column."""
        tokens = self.osl_tokens if metric.startswith("output") else self.isl_tokens + self.osl_tokens
        return self.request_rate * tokens / (self.devices if metric.endswith("_per_accel") else 1)

    @property
    def accelerator(self) -> str:
        return "+".join(dict.fromkeys(workers.accelerator for workers in self.workers))

    @property
    def engine(self) -> str:
        return "+".join(dict.fromkeys(workers.engine for workers in self.workers))

    @property
    def topology(self) -> str:
        return "disaggregated" if self.disaggregated else "colocated"


@dataclass(frozen=True)
class Unsupported:
    """A row that cannot be predicted, and why."""

    id: str
    source: str
    split: str
    reason: str


@dataclass(frozen=True)
class Measurements:
    """A table: what can be predicted and what cannot; together every row of the file."""

    runs: tuple[Run, ...]
    unsupported: tuple[Unsupported, ...]
    ignored: tuple[str, ...] = ()
    "Columns of the table that nothing reads."
