"""One process → the flags of its `vllm serve`, every default that moves with the device written out.

    engine_arguments(process, launch)  →  {"model": "openai/gpt-oss-120b", "tensor-parallel-size": 2, …}

Flag names, forms over several nodes and KV settings follow vLLM 0.32-0.33 (argument parser, documentation).
"""

from __future__ import annotations

from typing import Any

from moai_planner.domain.layout import capture_sizes
from moai_planner.emit.launch import LaneRouter, Launch, Process
from moai_planner.emit.platforms import (
    CONNECTOR_CLASS,
    CPU_BLOCK_TOKENS,
    CROSS_VENDOR,
    PLATFORMS,
    CrossVendor,
)
from moai_planner.emit.structure import is_loopback

Arguments = dict[str, Any]

_DTYPE = {"fp16": "float16", "fp32": "float32", "awq": "float16"}
"Format that activations run in, by precision; the rest run in bfloat16."

_KV_DTYPE = {"bf16": "bfloat16", "fp16": "float16", "fp8": "fp8", "bfp8": "auto"}

_QUANTISED_ON_LOAD = {"fp8": "fp8"}
"Precisions that vLLM makes from a bf16 checkpoint while it loads."

_GRAPH_MODE = {"mixed": "FULL_AND_PIECEWISE", "decode": "FULL_DECODE_ONLY", "prefill": "PIECEWISE"}

_ALL2ALL = {
    ("cuda", "prefill"): "deepep_high_throughput",
    ("cuda", "decode"): "deepep_low_latency",
    ("rocm", "prefill"): "mori_high_throughput",
    ("rocm", "decode"): "mori_low_latency",
}
"(platform, role) → exchange of tokens between experts on several nodes; the rest use vLLM's default."

DEFAULT_ALL2ALL = "allgather_reducescatter"


def engine_arguments(process: Process, launch: Launch) -> Arguments:
    """All flags of a process, long names without dashes, in the order they are read best."""
    arguments: Arguments = {}
    for section in SECTIONS:
        arguments |= section(process, launch)
    return arguments


def cross_vendor(router: LaneRouter) -> CrossVendor | None:
    """Settings of a lane whose prefill and decode platforms differ; None for a lane of one platform."""
    prefill = {member.pool.platform for member in router.of_role("prefill")}
    decode = {member.pool.platform for member in router.of_role("decode")}
    if len(prefill) == 1 and len(decode) == 1 and prefill != decode:
        return CROSS_VENDOR.get((prefill.pop(), decode.pop()))
    return None


def router_of(process: Process, launch: Launch) -> LaneRouter:
    """The router of the lane that a process belongs to."""
    return next(router for router in launch.routers if router.lane.id == process.lane.id)


def model_location(process: Process, launch: Launch) -> str:
    """Where the engine finds the weights: the user's word, else the plan's."""
    paths = launch.options.model_paths
    deployment = process.deployment
    given = paths.get(deployment.name) or paths.get("") or deployment.model_reference
    return given.removesuffix("/config.json")


def _server(process: Process, launch: Launch) -> Arguments:
    deployment = process.deployment
    arguments: Arguments = {
        "model": model_location(process, launch),
        "served-model-name": list(dict.fromkeys((deployment.model_reference, deployment.name))),
    }
    if process.serves:
        arguments["host"] = process.host if is_loopback(process.host) else "0.0.0.0"
        arguments["port"] = process.ports.api
    return arguments


def number_formats(process: Process, launch: Launch) -> Arguments:
    """Formats of activations, weights and KV."""
    deployment = process.deployment
    precision = deployment.precision
    arguments: Arguments = {"dtype": _DTYPE.get(precision.id, "bfloat16")}
    if deployment.model.native_precision != precision.id and precision.id in _QUANTISED_ON_LOAD:
        arguments["quantization"] = _QUANTISED_ON_LOAD[precision.id]
    arguments["kv-cache-dtype"] = (
        "auto" if process.pool.platform == "cpu" else _KV_DTYPE.get(precision.kv, precision.kv)
    )
    return arguments


def _scheduler(process: Process, launch: Launch) -> Arguments:
    engine = process.instance.engine
    arguments: Arguments = {
        "max-model-len": engine.max_model_len,
        "max-num-seqs": engine.max_num_seqs,
        "max-num-batched-tokens": engine.max_num_batched_tokens,
        "enable-chunked-prefill": True,
        "enable-prefix-caching": engine.prefix_caching,
    }
    if engine.long_prefill_token_threshold:
        arguments["long-prefill-token-threshold"] = engine.long_prefill_token_threshold
    if not engine.async_scheduling:
        arguments["async-scheduling"] = False
    return arguments


def _memory(process: Process, launch: Launch) -> Arguments:
    engine = process.instance.engine
    cpu = process.pool.platform == "cpu"
    return {
        "gpu-memory-utilization": round(engine.memory_utilization_frac, 4),
        "block-size": CPU_BLOCK_TOKENS if cpu else engine.block_size_tokens,
    }


def _graphs(process: Process, launch: Launch) -> Arguments:
    engine = process.instance.engine
    if process.pool.platform == "cpu" or (PLATFORMS[process.pool.platform].graphs and not engine.graphs):
        return {"enforce-eager": True}
    if not PLATFORMS[process.pool.platform].graphs:
        return {}
    sizes = [n for n in capture_sizes(engine.max_num_seqs) if n <= engine.max_num_batched_tokens]
    mode = _GRAPH_MODE[process.instance.role]
    return {"compilation-config": {"cudagraph_mode": mode, "cudagraph_capture_sizes": sizes}}


def _parallel(process: Process, launch: Launch) -> Arguments:
    layout = process.instance.layout
    arguments: Arguments = {
        "tensor-parallel-size": layout.tp,
        "pipeline-parallel-size": layout.pp,
    }
    if process.form == "tensor_nodes":
        arguments |= {
            "nnodes": process.nodes,
            "node-rank": process.rank,
            "master-addr": process.head_host,
            "master-port": process.ports.master,
        }
    if layout.dp > 1:
        arguments |= _data_parallel(process)
    if not process.serves:
        arguments["headless"] = True
    return arguments | expert_arguments(process)


def _data_parallel(process: Process) -> Arguments:
    arguments: Arguments = {
        "data-parallel-size": process.instance.layout.dp,
        "data-parallel-size-local": process.dp_local,
        "data-parallel-address": process.head_host,
        "data-parallel-rpc-port": process.ports.dp_rpc,
    }
    if process.form == "data_hybrid":
        arguments["data-parallel-hybrid-lb"] = True
    if process.form == "data_hybrid" or process.rank > 0:
        arguments["data-parallel-start-rank"] = process.rank * process.dp_local
    if process.serves:
        arguments["api-server-count"] = process.dp_local
    return arguments


def expert_arguments(process: Process) -> Arguments:
    """Spread of experts over ranks, and the exchange between them."""
    layout = process.instance.layout
    if layout.ep == 1:
        return {}
    arguments: Arguments = {"enable-expert-parallel": True}
    if layout.dp > 1:
        key = (process.pool.platform, process.instance.role)
        over_nodes = process.nodes > 1
        arguments["all2all-backend"] = _ALL2ALL.get(key, DEFAULT_ALL2ALL) if over_nodes else DEFAULT_ALL2ALL
    return arguments


def _kv_transfer(process: Process, launch: Launch) -> Arguments:
    if not process.connector:
        return {}
    router = router_of(process, launch)
    mix = cross_vendor(router)
    settings: Arguments = {
        "kv_connector": CONNECTOR_CLASS[process.connector],
        "kv_role": "kv_producer" if process.instance.role == "prefill" else "kv_consumer",
        "kv_load_failure_policy": "fail",
    } | _CONNECTOR_SETTINGS[process.connector](process, launch, router)
    if mix and mix.permute:
        settings["enable_permute_local_kv"] = True
    arguments: Arguments = {"kv-transfer-config": settings}
    if mix and mix.attention_backend:
        arguments["attention-backend"] = mix.attention_backend
    return arguments


def _nixl(process: Process, launch: Launch, router: LaneRouter) -> Arguments:
    mix = cross_vendor(router)
    own = PLATFORMS[process.pool.platform].kv_buffer_device
    settings: Arguments = {"kv_buffer_device": (mix.kv_buffer_device if mix else "") or own}
    if mix and not mix.handshake_compat:
        settings["kv_connector_extra_config"] = {"enforce_handshake_compat": False}
    return settings


def _mooncake(process: Process, launch: Launch, router: LaneRouter) -> Arguments:
    return {"kv_connector_extra_config": {"mooncake_protocol": "rdma"}}


def _moriio(process: Process, launch: Launch, router: LaneRouter) -> Arguments:
    settings = {
        "proxy_ip": router.host,
        "proxy_ping_port": str(router.discovery_port),
        "http_port": str(process.ports.api),
        "handshake_port": str(process.ports.handshake),
        "notify_port": str(process.ports.notify),
        "backend": "rdma",
    }
    return {"kv_connector_extra_config": settings}


def _example(process: Process, launch: Launch, router: LaneRouter) -> Arguments:
    """KV through files; the connector knows one role for both sides."""
    path = shared_kv_folder(router, launch)
    return {"kv_role": "kv_both", "kv_connector_extra_config": {"shared_storage_path": path}}


def shared_kv_folder(router: LaneRouter, launch: Launch) -> str:
    """One folder per plan and lane, so that two deployments never read each other's KV."""
    return f"{launch.options.shared_kv_path.rstrip('/')}/{launch.digest[:12]}/{router.name}"


_CONNECTOR_SETTINGS = {"nixl": _nixl, "mooncake": _mooncake, "moriio": _moriio, "example": _example}

SECTIONS = (_server, number_formats, _scheduler, _memory, _graphs, _parallel, _kv_transfer)
"Read as a table of contents; a later section never repeats a flag of an earlier one."
