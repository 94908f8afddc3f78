"""Run a system on requests given as arrays: the low-level way in, without per-call ceremony.

    machine = build_machine(colocated(instance, replicas=2))
    served = serve(machine, system, Requests(arrival_s, isl, osl), limit=64)
    served.ttft_s, served.finish_s, …

Everything above (benchmark runs, plans, reports) goes through `serve`.
"""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass, replace

import numpy as np

from moai_planner.domain.errors import InputError, Problem
from moai_planner.simulate import fields as f
from moai_planner.simulate.histogram import new_histogram, new_scratch
from moai_planner.simulate.system import ROUTERS, Machine, System

State = namedtuple(
    "State",
    "rank rank_f request times kv_times unit_i unit_f ends phase partials chunks joined loading cache hashes starts "  # noqa: E501
    "owner turns nic_free passed_s event_s event_what histogram totals totals_f number bits busy_s block_s "
    "bin_s",
)


@dataclass(frozen=True, eq=False)
class Requests:
    """Requests in order of arrival. Arrays [n]."""

    arrival_s: np.ndarray
    isl_tokens: np.ndarray
    osl_tokens: np.ndarray
    lane: np.ndarray | None = None
    "Index of the lane that each request takes; None = all lane 0."
    hashes: np.ndarray | None = None
    "[m] dense ids (0 …) of the prompts' granules, request after request."
    starts: np.ndarray | None = None
    "[n] where each request's hashes begin."
    granule_tokens: int = 0
    sessions: np.ndarray | None = None


def with_own_blocks(requests: Requests, block_tokens: int) -> Requests:
    """The same prompts, none like another, with the hashes that prefix caching keeps of each one's blocks.

    A preempted sequence then finds what nobody took of its prompt, as vLLM's blocks stay cached after they
    are freed, the tail of a sequence evicted first (vLLM design documents, automatic prefix caching).

    >>> with_own_blocks(Requests(np.zeros(2), np.array([40, 20]), np.ones(2)), 16).hashes.tolist()
    [0, 1, 2]
    """
    blocks = np.asarray(requests.isl_tokens) // block_tokens
    starts = np.concatenate([[0], np.cumsum(blocks)]).astype(np.int64)
    hashes = np.arange(starts[-1], dtype=np.int64)
    return replace(requests, hashes=hashes, starts=starts[:-1], granule_tokens=block_tokens)


@dataclass(frozen=True, eq=False)
class Served:
    """What happened to every request, and to the system. Arrays [n] unless said; −1 = did not happen."""

    start_s: np.ndarray
    "When the client sent it."
    admit_s: np.ndarray
    "When its prompt was first scheduled."
    first_s: np.ndarray
    finish_s: np.ndarray
    isl_tokens: np.ndarray
    osl_tokens: np.ndarray
    hit_tokens: np.ndarray
    preemptions: np.ndarray
    prefill_rank: np.ndarray
    rank: np.ndarray
    lane: np.ndarray
    kv_times: np.ndarray
    "[n, 3] prompt done, transfer start, transfer end; [1, 3] without disaggregation."
    itl_histogram: np.ndarray
    itl_count: int
    itl_sum_s: float
    itl_squares_s2: float
    busy_s: np.ndarray
    "[units, bins] seconds busy."
    block_s: np.ndarray
    "[units, bins] block-seconds held at the ends of steps."
    bin_s: float
    units: np.ndarray
    ranks: np.ndarray
    steps: float
    events: int

    @property
    def ttft_s(self) -> np.ndarray:
        return self.first_s - self.start_s

    @property
    def e2el_s(self) -> np.ndarray:
        return self.finish_s - self.start_s

    @property
    def tpot_s(self) -> np.ndarray:
        """Of requests with two tokens or more."""
        several = self.osl_tokens > 1
        return (self.finish_s - self.first_s)[several] / (self.osl_tokens[several] - 1)


def serve(
    machine: Machine,
    system: System,
    requests: Requests,
    limit: int = 0,
    seed: int = 0,
    overhead_s: np.ndarray | None = None,
    bins: int = 1,
    horizon_s: float | None = None,
) -> Served:
    """Serve requests until the last one ends. `limit` > 0: at most so many in flight (closed loop).

    `overhead_s`: time outside the engine before each request reaches it (counted into its latencies).
    Requests of a lane reach it in order of arrival, however long each is outside.
    """
    from moai_planner.simulate.loop import run_events  # the compiler loads here, not at import

    count = len(requests.arrival_s)
    overhead_s = np.zeros(count) if overhead_s is None else np.ascontiguousarray(overhead_s, float)
    delayed = limit > 0 and bool(overhead_s.any())
    arrival_s = np.ascontiguousarray(requests.arrival_s, float)
    order = None
    if not delayed and bool(overhead_s.any()):
        came_s, arrival_s = arrival_s, in_turn_s(arrival_s + overhead_s, requests.lane)
        overhead_s = arrival_s - came_s
        if count > 1 and bool(np.any(np.diff(arrival_s) < 0)):
            order = np.argsort(arrival_s, kind="stable")
            arrival_s, overhead_s = arrival_s[order], overhead_s[order]
            requests = _reordered(requests, order)
    horizon_s = horizon_s or (float(arrival_s[-1]) if count else 0.0) or 1.0
    state = _new_state(machine, system, requests, count, limit if delayed else 0, seed, bins, horizon_s)
    code = run_events(
        machine,
        state,
        arrival_s,
        overhead_s,
        delayed,
        limit,
        ROUTERS[system.router],
        ROUTERS[system.decode_router],
        system.first_token == "prefill",
    )
    if code != 0:
        raise InputError(
            Problem("simulation", "kv_blocks", f"{count - state.totals[f.FINISHED]} requests cannot be served",  # noqa: E501
                    "give the instances more KV memory or drop prompts that do not fit")
        )  # fmt: skip
    return _served(state, bins, horizon_s, order)


def in_turn_s(ready_s: np.ndarray, lane: np.ndarray | None = None) -> np.ndarray:
    """When each request passes, none of a lane before those that came earlier. [n] s

    >>> in_turn_s(np.array([3.0, 2.0, 5.0])).tolist()
    [3.0, 3.0, 5.0]
    """
    passed = ready_s.copy()
    for own in [slice(None)] if lane is None else [lane == number for number in np.unique(lane)]:
        passed[own] = np.maximum.accumulate(ready_s[own])
    return passed


def _new_state(machine, system, requests, count, delayed_limit, seed, bins, horizon_s) -> State:
    rank = machine.rank.copy()
    caching = requests.hashes is not None and requests.granule_tokens > 0
    cached = (rank[:, f.GRANULE_TOKENS] < 0) & caching
    if caching and np.any(requests.granule_tokens % rank[cached, f.BLOCK_TOKENS]):
        raise InputError(
            Problem("trace", "block_tokens", str(requests.granule_tokens),
                    "a hashed block must hold a whole number of KV blocks of the engine")
        )  # fmt: skip
    rank[:, f.GRANULE_TOKENS] = np.where(cached, requests.granule_tokens, 0)
    rank[:, f.GRANULE_BLOCKS] = rank[:, f.GRANULE_TOKENS] // rank[:, f.BLOCK_TOKENS]
    ranks = len(rank)
    ids = int(requests.hashes.max()) + 1 if cached.any() and len(requests.hashes) else 1
    cache_shape = (ranks, ids) if cached.any() else (1, 1)
    moves_kv = bool(np.any(machine.lane[:, f.DECODE_POOL] >= 0))
    request = np.zeros((count, f.REQUEST_FIELDS), np.int32)
    request[:, f.ISL] = requests.isl_tokens
    request[:, f.OSL] = requests.osl_tokens
    if requests.lane is not None:
        request[:, f.LANE] = requests.lane
    request[:, f.SESSION] = -1 if requests.sessions is None else requests.sessions
    times = np.full((count, f.TIME_FIELDS), -1.0)
    most = int(rank[:, f.MAX_SEQS].max())
    number, bits = new_scratch()
    totals = np.zeros(f.TOTALS, np.int64)
    totals[f.RANDOM] = (seed * 0x9E3779B1 + 1) & 0x3FFFFFFFFFFFFFFF
    totals_f = np.zeros(f.TOTAL_FLOATS)
    totals_f[f.LOAD_CAP] = system.load_cap
    events = count + 1 if moves_kv else delayed_limit + 1
    units = len(machine.unit_i)
    none = np.zeros(1, np.int64)
    return State(
        rank=rank,
        rank_f=np.zeros((ranks, f.RANK_FLOATS)),
        request=request,
        times=times,
        kv_times=np.full((count if moves_kv else 1, f.KV_TIME_FIELDS), -1.0),
        unit_i=machine.unit_i.copy(),
        unit_f=machine.unit_f.copy(),
        ends=np.zeros((ranks, most + 1), np.int64),
        phase=np.zeros((ranks, int(rank[:, f.BLOCK_TOKENS].max())), np.int32),
        partials=np.zeros((ranks, most + 1), np.int32),
        chunks=np.zeros((ranks, most + 1), np.int32),
        joined=np.zeros((ranks, most + 1), np.int32),
        loading=np.zeros(count if moves_kv else 1, np.int32),
        cache=(
            np.full(cache_shape, -1, np.int32),
            np.full(cache_shape, -1, np.int32),
            np.full(cache_shape, -1, np.int32),
        ),
        hashes=np.ascontiguousarray(requests.hashes, np.int64) if cached.any() else none,
        starts=np.ascontiguousarray(requests.starts, np.int64) if cached.any() else none,
        owner=np.full(ids, -1, np.int32),
        turns=np.zeros(len(machine.pool_first), np.int64),
        nic_free=np.zeros((machine.instances, 2)),
        passed_s=np.zeros(len(machine.lane)),
        event_s=np.zeros(events),
        event_what=np.zeros(events, np.int64),
        histogram=new_histogram(),
        totals=totals,
        totals_f=totals_f,
        number=number,
        bits=bits,
        busy_s=np.zeros((units, bins)),
        block_s=np.zeros((units, bins)),
        bin_s=np.array([horizon_s / bins]),
    )


def _reordered(requests: Requests, order: np.ndarray) -> Requests:
    def take(values):
        return None if values is None else np.asarray(values)[order]

    return Requests(
        requests.arrival_s, take(requests.isl_tokens), take(requests.osl_tokens), take(requests.lane),
        requests.hashes, take(requests.starts), requests.granule_tokens, take(requests.sessions),
    )  # fmt: skip


def _served(state: State, bins: int, horizon_s: float, order: np.ndarray | None) -> Served:
    request, times, kv_times = state.request, state.times, state.kv_times
    if order is not None:
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        request, times = request[back], times[back]
        kv_times = kv_times[back] if len(kv_times) == len(order) else kv_times
    return Served(
        start_s=times[:, f.START],
        admit_s=times[:, f.ADMIT],
        first_s=times[:, f.FIRST],
        finish_s=times[:, f.FINISH],
        isl_tokens=request[:, f.ISL],
        osl_tokens=request[:, f.OSL],
        hit_tokens=request[:, f.HIT],
        preemptions=request[:, f.PREEMPTIONS],
        prefill_rank=request[:, f.PREFILL_RANK],
        rank=request[:, f.RANK],
        lane=request[:, f.LANE],
        kv_times=kv_times,
        itl_histogram=state.histogram,
        itl_count=int(state.totals_f[f.ITL_COUNT]),
        itl_sum_s=float(state.totals_f[f.ITL_SUM]),
        itl_squares_s2=float(state.totals_f[f.ITL_SQUARES]),
        busy_s=state.busy_s,
        block_s=state.block_s,
        bin_s=horizon_s / bins,
        units=state.unit_i,
        ranks=state.rank,
        steps=float(state.unit_f[:, f.STEP_COUNT].sum()),
        events=int(state.totals[f.EVENTS]),
    )
