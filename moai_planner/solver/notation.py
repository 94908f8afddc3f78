"""Sets, parameters and variables of the programme, listed once; every equation uses these letters.

A `Problem` knows nothing of models or devices, only streams of requests, columns that can serve them and
pools that hold the columns, so that small ones can be written by hand and checked by brute force.

    k  stream    requests that are routed alike (a deployment's cells, or one cell of it)
    w  window    a span of time; counts and shares stay the same over windows, rates do not
    c  column    a kind of instance: pool x layout x role at its operating point
    l  lane      a prefill and a decode column whose instances exchange KV
    a  pool      nodes of equal devices
    r  resource  time, memory, batch, nic

    rate[k,w]    requests per second
    use[c,k,r,w] instances of c that one request per second of k takes of r, 1 / utilisation cap included
    devices[c]   devices of one instance
    price[c]     USD per hour of one instance
    n[c]         instances, an integer
    x[k,c]       share of stream k that passes through column c, 0 to 1 (to f for most-load)
    y[k,l]       share of stream k that crosses lane l
    u[c]         1 when column c is used at all
    f            factor on all rates; 1 unless the objective asks for more

Example: one stream, one pool, prefill and decode columns in one lane.

>>> problem = textbook_problem()
>>> [column.id for column in problem.columns], len(problem.lanes)
(['p1', 'd4', 'd8', 'm4'], 2)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

MIXED, PREFILL, DECODE = "mixed", "prefill", "decode"


@dataclass(frozen=True)
class Stream:
    """Requests that are routed alike."""

    id: str
    deployment: str
    rate_req_per_s: tuple[float, ...]
    "By window."


@dataclass(frozen=True)
class Column:
    """A kind of instance that the programme may buy."""

    id: str
    deployment: str
    pool: str
    role: str
    devices: int
    price_usd_per_h: float
    use: Mapping[str, Mapping[str, tuple[float, ...]]]
    "Stream → resource → by window. A stream that is absent cannot use the column (SLO, memory)."
    power_w: float = 0.0
    headroom: float = 0.0
    "Instances kept free once the column is used at all: the part of waiting that does not grow with load."


@dataclass(frozen=True)
class Pool:
    """Devices to place columns on."""

    name: str
    nodes: int
    devices_per_node: int

    @property
    def devices(self) -> int:
        return self.nodes * self.devices_per_node


@dataclass(frozen=True, order=True)
class Lane:
    """A prefill and a decode column that may exchange KV."""

    prefill: str
    decode: str


@dataclass(frozen=True)
class Problem:
    """Everything the programme knows."""

    streams: tuple[Stream, ...]
    columns: tuple[Column, ...]
    pools: tuple[Pool, ...]
    lanes: tuple[Lane, ...] = ()
    objective: str = "least-cost"
    simplicity_usd_per_h: float = 0.0
    "Price of each column used."
    windows: int = 1

    def column(self, column_id: str) -> Column:
        return next(c for c in self.columns if c.id == column_id)

    def lanes_of(self, column_id: str) -> tuple[int, ...]:
        return tuple(i for i, lane in enumerate(self.lanes) if column_id in (lane.prefill, lane.decode))

    def load(self, column: Column, stream: Stream) -> dict[tuple[str, int], float]:
        """Instances that all of a stream would take: (resource, window) → use · rate."""
        return {
            (resource, w): value * stream.rate_req_per_s[w]
            for resource, values in column.use.get(stream.id, {}).items()
            for w, value in enumerate(values)
        }

    def most_instances(self, column: Column) -> int:
        """Instances of a column that the stock could hold, other columns absent."""
        pool = next(p for p in self.pools if p.name == column.pool)
        return instances_in_pool(column.devices, pool)


def instances_in_pool(devices: int, pool: Pool) -> int:
    """Copies of an instance that a pool holds: whole nodes for those that span nodes.

    >>> instances_in_pool(4, Pool("a", 3, 8)), instances_in_pool(16, Pool("a", 3, 8))
    (6, 1)
    """
    if devices <= pool.devices_per_node:
        return pool.nodes * (pool.devices_per_node // devices)
    return pool.nodes // math.ceil(devices / pool.devices_per_node)


@dataclass(frozen=True)
class Answer:
    """What a solve returns, always: termination, bound and gap beside the values."""

    status: str
    "optimal (within the gap asked for) | feasible (stopped early) | infeasible | unbounded | unsolved"
    termination: str
    "As the solver says it."
    value: float = math.nan
    bound: float = math.nan
    gap_frac: float = math.nan
    counts: Mapping[str, int] = field(default_factory=dict)
    "Column → n."
    shares: Mapping[tuple[str, str], float] = field(default_factory=dict)
    "(stream, column) → x."
    lane_shares: Mapping[tuple[str, Lane], float] = field(default_factory=dict)
    "(stream, lane) → y."
    factor: float = 1.0
    duals: Mapping[str, float] = field(default_factory=dict)
    "Row → dual value; of relaxed programmes only."
    slack: Mapping[str, float] = field(default_factory=dict)

    @property
    def found(self) -> bool:
        return self.status in ("optimal", "feasible")


def cost_usd_per_h(problem: Problem, counts: Mapping[str, int]) -> float:
    """What the instances cost, without the price of variety."""
    return sum(c.price_usd_per_h * counts.get(c.id, 0) for c in problem.columns)


def power_w(problem: Problem, counts: Mapping[str, int]) -> float:
    """What the instances draw."""
    return sum(c.power_w * counts.get(c.id, 0) for c in problem.columns)


def textbook_problem() -> Problem:
    """50 req/s of one model on one device type: prefill TP1, decode TP4 and TP8, mixed TP4, rates given.

    The rates are published worker rates of a Qwen3-32B replay on H200; 0.9 and 0.92 are the shares of them
    that a prefill and a decode pool are planned with.
    """

    def column(column_id: str, role: str, devices: int, req_per_s: float) -> Column:
        use = {"chat": {"time": (1 / req_per_s,)}}
        return Column(column_id, "chat", "h200", role, devices, float(devices), use)

    columns = (
        column("p1", PREFILL, 1, 2.313 * 0.9),
        column("d4", DECODE, 4, 6.765 * 0.92),
        column("d8", DECODE, 8, 13.6 * 0.92),
        column("m4", MIXED, 4, 2.953),
    )
    lanes = (Lane("p1", "d4"), Lane("p1", "d8"))
    return Problem((Stream("chat", "chat", (50.0,)),), columns, (Pool("h200", 16, 8),), lanes)
