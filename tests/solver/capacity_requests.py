"""Capacity requests for tests: shipped accelerators and models, traces made here."""

from __future__ import annotations

import numpy as np

from moai_planner.catalog.accelerators import accelerator
from moai_planner.catalog.models import model
from moai_planner.catalog.workload import summarise
from moai_planner.domain.cluster import CapacityRequest, Deployment, Options, Pool
from moai_planner.domain.parameters import Parameters
from moai_planner.domain.precision import precision
from moai_planner.domain.slo import Slo, objective
from moai_planner.domain.units import GIGA
from moai_planner.domain.workload import Trace

__all__ = ["deployment", "parameters_for", "pool", "request"]


def parameters_for(accelerator, engine, precision):
    """Fixed numbers, so that a new calibration moves no test."""
    return Parameters(low_frac=0.85, high_frac=1.18)


def trace(rate_req_per_s=2.0, isl=1200.0, osl=250.0, seconds=600.0, seed=1):
    """Poisson arrivals, gamma lengths."""
    random = np.random.default_rng(seed)
    count = max(8, int(rate_req_per_s * seconds))
    return Trace(
        name="test",
        arrival_s=np.sort(random.uniform(0, seconds, count)),
        isl_tokens=np.maximum(1, random.gamma(2.0, isl / 2, count)).astype(np.int64),
        osl_tokens=np.maximum(1, random.gamma(2.0, osl / 2, count)).astype(np.int64),
        duration_s=seconds,
    )


def pool(accelerator_id="h200", nodes=1, devices=8, price=2.5, name=None):
    return Pool(
        name=name or accelerator_id,
        accelerator=accelerator(accelerator_id),
        nodes=nodes,
        devices_per_node=devices,
        network_bytes_per_s=8 * 50 * GIGA,
        price_usd_per_h=price,
        hosts=tuple(f"10.0.0.{i + 1}" for i in range(nodes)),
    )


def deployment(
    model_name="Qwen/Qwen3-32B",
    precision_id="bf16",
    slo=None,
    name="chat",
    roles=None,
    max_model_len=16384,
    **kind,
):
    one = trace(**kind)
    limits = {"ttft_p95": 2.0, "tpot_p95": 0.05} if slo is None else slo
    return Deployment(
        name=name,
        model=model(model_name),
        precision=precision(precision_id),
        trace=one,
        workload=summarise(one),
        rate_scale=1.0,
        slo=Slo(tuple(objective(key, limit) for key, limit in limits.items())),
        max_model_len=max_model_len,
        roles=roles or ("mixed", "prefill", "decode"),
    )


def request(pools, deployments, objective="least-cost", **options):
    settings = {"confidence": None, "time_limit_s": 20.0} | options
    return CapacityRequest(tuple(pools), tuple(deployments), objective, Options(**settings), (), ())
