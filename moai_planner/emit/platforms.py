"""What differs between platforms when an engine is started: device variables, transports, refusals.

Sources: vLLM 0.33 `platforms/*.py` and its ROCm, CPU and disaggregation pages; read, not tried, except
`cpu`, which was run.
"""

from __future__ import annotations

from dataclasses import dataclass

ENGINE_PROFILE = "vLLM 0.32-0.33"
"Releases whose flag and layout names the emitted files use."


@dataclass(frozen=True)
class Platform:
    """How vLLM runs on one kind of device."""

    device_variables: tuple[str, ...]
    "Environment variables that choose devices, all set to the same list."
    kv_buffer_device: str
    "Where NIXL registers KV when both sides are of this platform."
    graphs: bool
    "Captured graphs with vLLM's `cudagraph_mode` names."
    disaggregated: bool
    "Some KV connector is known to work."
    refuse: str = ""
    "Why nothing can be emitted."
    note: str = ""
    "What the operator must add by hand."


PLATFORMS: dict[str, Platform] = {
    "cuda": Platform(("CUDA_VISIBLE_DEVICES",), "cuda", graphs=True, disaggregated=True),
    "rocm": Platform(
        ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"), "cuda", graphs=True, disaggregated=True
    ),
    "cpu": Platform((), "cpu", graphs=False, disaggregated=True),
    "xpu": Platform(("ZE_AFFINITY_MASK",), "xpu", graphs=False, disaggregated=True),
    "hpu": Platform(
        ("HABANA_VISIBLE_MODULES",),
        "hpu",
        graphs=False,
        disaggregated=True,
        note="install the vllm-gaudi plugin; its own bucketing replaces captured graphs",
    ),
    "tpu": Platform(
        ("TPU_VISIBLE_CHIPS",), "tpu", graphs=False, disaggregated=False, note="install the vllm-tpu build"
    ),
    "tt": Platform(
        ("TT_VISIBLE_DEVICES",),
        "",
        graphs=False,
        disaggregated=False,
        note="install vllm-tt-plugin; it spreads data-parallel ranks itself and has no KV connector",
    ),
    "lpu": Platform((), "", graphs=False, disaggregated=False, refuse="vLLM has no build for LPUs"),
}

ACCELERATOR_NOTES = {
    "rubin_cpx": "no vLLM release names this device; the flags are those of the other CUDA devices",
    "rubin_vr200": "no vLLM release names this device; the flags are those of the other CUDA devices",
}

FP8_FNUZ = ("mi300x", "mi300a", "mi308x", "mi325x")
"Devices whose fp8 is e4m3fnuz: the same bytes mean other numbers elsewhere."


@dataclass(frozen=True)
class CrossVendor:
    """Settings that let a prefill platform hand KV to another decode platform."""

    published: bool
    "A vendor documents the mix; otherwise it is deduced from source and was never seen running."
    kv_buffer_device: str
    permute: bool
    handshake_compat: bool
    attention_backend: str
    "Forced on both sides; empty = leave."
    layouts: tuple[str, str]
    "`VLLM_KV_CACHE_LAYOUT` of prefill and decode."
    environment: tuple[tuple[str, str], ...]


_CUDA_ROCM = CrossVendor(
    published=False,
    kv_buffer_device="cpu",
    permute=False,
    handshake_compat=False,
    attention_backend="TRITON_ATTN",
    layouts=("LBHNC", "LBHNC"),
    environment=(("UCX_TLS", "tcp"), ("VLLM_ROCM_SHUFFLE_KV_CACHE_LAYOUT", "0")),
)

CROSS_VENDOR: dict[tuple[str, str], CrossVendor] = {
    ("cuda", "rocm"): _CUDA_ROCM,
    ("rocm", "cuda"): _CUDA_ROCM,
    ("hpu", "cuda"): CrossVendor(
        published=True,
        kv_buffer_device="",
        permute=True,
        handshake_compat=True,
        attention_backend="",
        layouts=("NHD", "HND"),
        environment=(("UCX_MEMTYPE_CACHE", "0"),),
    ),
    ("xpu", "cuda"): CrossVendor(
        published=True,
        kv_buffer_device="cpu",
        permute=True,
        handshake_compat=False,
        attention_backend="",
        layouts=("NHD", "NHD"),
        environment=(("UCX_TLS", "tcp"), ("PYTHONHASHSEED", "0")),
    ),
}
"""(prefill platform, decode platform) → settings. Gaudi: llm-d guide; XPU: Dynamo example; rest deduced."""

CONNECTOR_CLASS = {
    "nixl": "NixlConnector",
    "mooncake": "MooncakeConnector",
    "moriio": "MoRIIOConnector",
    "example": "ExampleConnector",
}

CPU_BLOCK_TOKENS = 128
"vLLM's CPU attention works in blocks of this size."
