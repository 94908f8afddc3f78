"""Small instances for the tests."""

from __future__ import annotations

import numpy as np

from moai_planner.domain.layout import Engine
from moai_planner.domain.provenance import Basis
from moai_planner.domain.step import KvTransfer, MemoryBudget, StepTimes
from moai_planner.simulate.instance import InstanceModel


def step_times(
    decode_s,
    tokens=(1.0, 8192.0),
    mixed_s=(0.01, 0.5),
    pair_s=0.0,
    kv_s=0.0,
    stages=1,
    request_s=0.0,
    mixed_row_s=0.0,
):
    return StepTimes(
        np.asarray(decode_s, float), np.asarray(tokens, float), np.asarray(mixed_s, float), pair_s, kv_s, stages,  # noqa: E501
        request_s, 0.0, Basis.ASSUMED, 0.9, 1.1, mixed_row_s,
    )  # fmt: skip


def budget(blocks: int, block_tokens: int) -> MemoryBudget:
    return MemoryBudget(0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, blocks, blocks * block_tokens)


def instance(times: StepTimes, blocks=10_000, dp=1, lockstep=False, **engine) -> InstanceModel:
    settings = Engine(**{"max_num_seqs": len(times.decode_s) - 1, "block_size_tokens": 16} | engine)
    return InstanceModel(times, settings, budget(blocks, settings.block_size_tokens), dp, lockstep)


def plain_instance(sequences=64, blocks=10_000, **more) -> InstanceModel:
    """8 ms a step and a bit for every sequence, prompt token and KV token."""
    batch = np.arange(sequences + 1)
    tokens = np.array([1.0, 64.0, 256.0, 1024.0, 8192.0])
    times = step_times(0.008 + 2e-5 * batch, tokens, 0.008 + 3e-5 * tokens, 1e-10, 2e-8, mixed_row_s=3e-5)
    return instance(times, blocks, **more)


def transfer(**changes) -> KvTransfer:
    values = {
        "connector": "nixl", "staged": False, "latency_s": 0.002, "bytes_per_s": 1.0e9, "nic_bytes_per_s": 1.5e9,  # noqa: E501
        "bytes_per_token": 1.0e5, "decode_slowdown_frac": 0.07,
    }  # fmt: skip
    return KvTransfer(**values | changes)
