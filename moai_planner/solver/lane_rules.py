"""Which prefill and decode candidates may exchange KV.

Same platform, vendor and KV number family, unless the plan allows other vendors and the KV is bf16 (fp8 on
CDNA3 is another number format whose bytes no handshake checks). The larger tensor-parallel size is a multiple
of the smaller, and decode has at least prefill's ranks, except for latent KV, which is the same on every
rank.
"""

from __future__ import annotations

from moai_planner.domain.accelerator import Accelerator
from moai_planner.domain.cluster import Deployment
from moai_planner.domain.layout import Layout

TRANSFERRING_PLATFORMS = ("cuda", "rocm", "xpu", "hpu", "cpu")
"""Platforms with a KV connector in vLLM; the others serve mixed only."""

CROSSING_PLATFORMS = ("cuda", "rocm")
"""Platforms that a cross-vendor lane may join: both register KV as `cuda` and copy through host memory."""


def kv_group(accelerator: Accelerator, deployment: Deployment, cross_vendor: bool) -> str:
    """Instances exchange KV only inside a group."""
    kv = deployment.precision.kv
    if cross_vendor and kv == "bf16" and accelerator.platform in CROSSING_PLATFORMS:
        return f"any/{kv}"
    return f"{accelerator.vendor}/{accelerator.kv_format_family}/{kv}".lower()


def may_transfer(accelerator: Accelerator) -> bool:
    """Whether the platform can disaggregate at all."""
    return accelerator.platform in TRANSFERRING_PLATFORMS


def layouts_match(prefill: Layout, decode: Layout, latent_kv: bool) -> bool:
    """Tensor-parallel sizes that a connector can map on each other.

    >>> layouts_match(Layout(2), Layout(8), False), layouts_match(Layout(8), Layout(2), False)
    (True, False)
    """
    larger, smaller = max(prefill.tp, decode.tp), min(prefill.tp, decode.tp)
    if larger % smaller:
        return False
    return prefill.tp <= decode.tp or latent_kv


def latent_kv(deployment: Deployment) -> bool:
    """Every attention layer keeps one latent for all heads."""
    return all(part.kind == "mla" for part in deployment.model.attention)
