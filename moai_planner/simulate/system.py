"""Instances, lanes and routers as the arrays that the event loop runs on.

>>> colocated(instance, replicas=4)                      # doctest: +SKIP
>>> disaggregated(prefill, 2, decode, 3, transfer)       # doctest: +SKIP

Pipeline parallelism: an instance of p stages keeps p batches in flight, each with a p-th of the KV cache
and of
max_num_seqs; each is a rank of its own here, taking the whole pass per step. p batches of B/p give the
pipeline's throughput p/t; what a long step of one batch delays in the others is not modelled.
"""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from moai_planner.domain.step import KvTransfer, to_one_width
from moai_planner.simulate import fields as f
from moai_planner.simulate.instance import InstanceModel

ROUTERS = {
    "random": f.RANDOM_CHOICE,
    "round-robin": f.ROUND_ROBIN,
    "least-outstanding": f.LEAST_OUTSTANDING,
    "power-of-two": f.POWER_OF_TWO,
    "prefix-aware": f.PREFIX_AWARE,
    "session-affinity": f.SESSION_AFFINITY,
    "weighted": f.LEAST_OUTSTANDING,
}
"""Policy inside a lane; weights choose the lane first, whatever the policy (`weighted` says no more than
that)."""


@dataclass(frozen=True, eq=False)
class Group:
    """`count` equal copies of an instance."""

    instance: InstanceModel
    count: int = 1


@dataclass(frozen=True, eq=False)
class ServingLane:
    """Groups that share one router; with `decode` groups the `entry` groups only prefill."""

    entry: tuple[Group, ...]
    decode: tuple[Group, ...] = ()
    transfer: KvTransfer | None = None
    weight: int = 1


@dataclass(frozen=True, eq=False)
class System:
    """Everything that serves one deployment."""

    lanes: tuple[ServingLane, ...]
    router: str = "least-outstanding"
    decode_router: str = "least-outstanding"
    first_token: str = "decode"
    "Disaggregated: who gives the client its first token, `decode` (vllm-router) or `prefill`."
    load_cap: float = 1.5
    "Prefix-aware: a rank may hold this many times the mean load (plus one request) before it is passed over."


def colocated(instance: InstanceModel, replicas: int = 1, router: str = "least-outstanding") -> System:
    """Replicas of one mixed instance behind one router."""
    return System((ServingLane((Group(instance, replicas),)),), router=router)


def disaggregated(
    prefill: InstanceModel,
    prefill_count: int,
    decode: InstanceModel,
    decode_count: int,
    transfer: KvTransfer,
    first_token: str = "decode",
) -> System:
    """One lane of prefill instances and decode instances."""
    lane = ServingLane((Group(prefill, prefill_count),), (Group(decode, decode_count),), transfer)
    return System((lane,), first_token=first_token)


Machine = namedtuple(
    "Machine", "decode_s tokens mixed_s points pool_first pool_ranks lane rank unit_i unit_f instances"
)
"""Arrays that do not change during a run (rank and unit rows are copied into the state)."""


def build_machine(system: System) -> Machine:
    """Number the ranks, units and instances of a system."""
    models: list[InstanceModel] = []
    rank_rows, unit_rows, unit_floats, pools, lanes = [], [], [], [], []
    instances = 0
    for lane in system.lanes:
        lane_pools = []
        for side, groups in (("entry", lane.entry), ("decode", lane.decode)):
            copies: list[list[int]] = []
            slowdown = lane.transfer.decode_slowdown_frac if lane.transfer and side == "decode" else 0.0
            for group in groups:
                models.append(group.instance)
                for _ in range(group.count):
                    copies.append(
                        _add_instance(
                            group.instance,
                            len(models) - 1,
                            instances,
                            slowdown,
                            rank_rows,
                            unit_rows,
                            unit_floats,
                        )
                    )
                    instances += 1
            if groups:
                pools.append(_in_turns(copies))
            lane_pools.append(len(pools) - 1 if groups else -1)
        lanes.append(_lane_row(lane, lane_pools))
    return Machine(
        decode_s=to_one_width([model.step_times.decode_s for model in models]),
        tokens=to_one_width([model.step_times.tokens for model in models]),
        mixed_s=to_one_width([model.step_times.mixed_s for model in models]),
        points=np.array([len(model.step_times.tokens) for model in models], np.int64),
        pool_first=np.concatenate([[0], np.cumsum([len(pool) for pool in pools])]).astype(np.int64),
        pool_ranks=np.concatenate([np.array(pool, np.int64) for pool in pools]),
        lane=np.array(lanes, float),
        rank=np.array(rank_rows, np.int64),
        unit_i=np.array(unit_rows, np.int64),
        unit_f=np.array(unit_floats, float),
        instances=instances,
    )


def _in_turns(copies: list[list[int]]) -> list[int]:
    """Ranks of a pool in the order that turns take them: every copy's first, then every copy's second, for a
    router sees instances and spreads over these first.

    >>> _in_turns([[0, 1], [2, 3], [4]])
    [0, 2, 4, 1, 3]
    """
    return [rank for turn in zip_longest(*copies) for rank in turn if rank is not None]


def _add_instance(instance, model, number, slowdown, rank_rows, unit_rows, unit_floats) -> list[int]:
    """Add ranks and units of one copy: a unit per rank, or per pipeline batch when ranks step together.

    Returns the numbers of its ranks.
    """
    before = len(rank_rows)
    stages = max(instance.step_times.stages, 1)
    for _ in range(stages):
        sizes = [instance.dp] if instance.lockstep else [1] * instance.dp
        for size in sizes:
            first = len(rank_rows)
            unit = [first, first + size, model, number, 0, 0, 0]
            times = instance.step_times
            for _ in range(size):
                rank_rows.append(_rank_row(instance, stages, len(unit_rows)))
            unit_rows.append(unit)
            unit_floats.append(
                [np.inf, 0.0, times.pair_s, times.kv_s, slowdown, 1.0, 0.0, 0.0, times.mixed_row_s]
            )
    return list(range(before, len(rank_rows)))


def _rank_row(instance: InstanceModel, stages: int, unit: int) -> list[int]:
    engine = instance.engine
    row = [0] * f.RANK_FIELDS
    most = len(instance.step_times.decode_s) - 1
    row[f.MAX_SEQS] = min(-(-engine.max_num_seqs // stages), most)
    row[f.MAX_TOKENS] = max(engine.max_num_batched_tokens, row[f.MAX_SEQS])
    row[f.THRESHOLD] = engine.long_prefill_token_threshold
    row[f.BLOCK_TOKENS] = engine.block_size_tokens
    row[f.BLOCKS] = instance.memory.kv_blocks // stages
    row[f.UNIT] = unit
    for column in (
        f.RUN_HEAD,
        f.RUN_TAIL,
        f.WAIT_HEAD,
        f.WAIT_TAIL,
        f.READY_HEAD,
        f.READY_TAIL,
        f.LRU_HEAD,
        f.LRU_TAIL,
    ):
        row[column] = -1
    row[f.GRANULE_TOKENS] = -1 if engine.prefix_caching else 0
    return row


def _lane_row(lane: ServingLane, pools: list[int]) -> list[float]:
    row = [0.0] * f.LANE_FIELDS
    row[f.ENTRY_POOL], row[f.DECODE_POOL] = pools
    row[f.PATH_RATE] = row[f.NIC_RATE] = 1.0
    if lane.decode:
        transfer = lane.transfer
        row[f.LATENCY_S] = transfer.latency_s
        row[f.PATH_RATE] = transfer.bytes_per_s
        row[f.NIC_RATE] = max(transfer.nic_bytes_per_s, transfer.bytes_per_s)
        row[f.TOKEN_BYTES] = transfer.bytes_per_token
    return row


def largest_request_tokens(system: System) -> int:
    """KV tokens that every rank of the system can hold."""
    return min(
        group.instance.memory.kv_blocks
        // max(group.instance.step_times.stages, 1)
        * group.instance.engine.block_size_tokens
        for lane in system.lanes
        for group in (*lane.entry, *lane.decode)
    )


def window_tokens(system: System) -> int:
    """The shortest context window in the system."""
    return min(
        group.instance.engine.max_model_len for lane in system.lanes for group in (*lane.entry, *lane.decode)
    )
