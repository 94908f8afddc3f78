"""One process → the environment variables that its engine reads; flags cannot say these."""

from __future__ import annotations

from dataclasses import dataclass

from moai_planner.domain.units import GIBI
from moai_planner.emit.engine_args import cross_vendor, router_of
from moai_planner.emit.launch import Launch, Process
from moai_planner.emit.platforms import PLATFORMS

BLOCK_CONTIGUOUS = "HND"
"KV layout with the heads outside the tokens (0.33 calls it LBHNC and still reads this name)."


@dataclass(frozen=True)
class Variable:
    """One line of `env.sh`."""

    name: str
    value: str
    fixed: bool = True
    "False: a value already in the environment wins."
    why: str = ""


def engine_environment(process: Process, launch: Launch) -> tuple[Variable, ...]:
    """All variables of a process; a name appears once."""
    lines = [variable for section in SECTIONS for variable in section(process, launch)]
    return tuple({variable.name: variable for variable in lines}.values())


def _devices(process: Process, launch: Launch) -> list[Variable]:
    platform = process.pool.platform
    chosen = ",".join(str(device) for device in process.devices)
    lines = [Variable(name, chosen) for name in PLATFORMS[platform].device_variables]
    if platform == "cuda":
        lines.insert(0, Variable("CUDA_DEVICE_ORDER", "PCI_BUS_ID"))
    return lines


def _engine(process: Process, launch: Launch) -> list[Variable]:
    why = "a router keeps connections longer than vLLM's 5 s"
    return [Variable("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "120", False, why)]


def _rocm(process: Process, launch: Launch) -> list[Variable]:
    if process.pool.platform != "rocm":
        return []
    lines = [
        Variable("VLLM_ROCM_USE_AITER", "1", False, "off by default; the kernels that were planned with"),
        Variable("HIP_FORCE_DEV_KERNARG", "1", False),
        Variable("SAFETENSORS_FAST_GPU", "1", False),
        Variable("TORCH_BLAS_PREFER_HIPBLASLT", "1", False),
    ]
    if process.instance.layout.tp > 1:
        lines.append(Variable("NCCL_MIN_NCHANNELS", "112", False))
    return lines


def _cpu(process: Process, launch: Launch) -> list[Variable]:
    if process.pool.platform != "cpu":
        return []
    kv_gib = max(1, int(process.instance.memory.get("kv_bytes", 0.0) // GIBI))
    return [
        Variable("VLLM_CPU_KVCACHE_SPACE", str(kv_gib), False, "GiB a process"),
        Variable("VLLM_CPU_OMP_THREADS_BIND", "nobind", False, "several engines may share this machine"),
        Variable("OMP_NUM_THREADS", "1", False),
    ]


def _transport(process: Process, launch: Launch) -> list[Variable]:
    lines = []
    if process.ports.side_channel:
        lines += [
            Variable("VLLM_NIXL_SIDE_CHANNEL_HOST", process.host),
            Variable("VLLM_NIXL_SIDE_CHANNEL_PORT", str(process.ports.side_channel)),
        ]
        if process.pool.platform == "cpu":
            lines.append(Variable("UCX_TLS", "cma,sm,self,tcp", False))
    if process.ports.bootstrap:
        lines.append(Variable("VLLM_MOONCAKE_BOOTSTRAP_PORT", str(process.ports.bootstrap)))
    return lines


def _layout(process: Process, launch: Launch) -> list[Variable]:
    """N04: tensor-parallel sizes that differ need blocks that are contiguous per head."""
    if process.connector != "nixl":
        return []
    router = router_of(process, launch)
    mix = cross_vendor(router)
    if mix:
        layout = mix.layouts[0 if process.instance.role == "prefill" else 1]
        return [Variable("VLLM_KV_CACHE_LAYOUT", layout), *(Variable(*pair) for pair in mix.environment)]
    sizes = {member.instance.layout.tp for member in router.members}
    latent = all(part.kind == "mla" for part in process.deployment.model.attention)
    if len(sizes) > 1 and not latent and process.pool.platform in ("cuda", "rocm"):
        why = "tensor-parallel sizes differ in this lane"
        return [Variable("VLLM_KV_CACHE_LAYOUT", BLOCK_CONTIGUOUS, True, why)]
    return []


SECTIONS = (_devices, _engine, _rocm, _cpu, _transport, _layout)
