"""A small known configuration for worked examples: Llama-3.1-8B in bf16 on one H100 SXM."""

from __future__ import annotations

from moai_planner.costmodel.configuration import Configuration
from moai_planner.domain.accelerator import Accelerator, Link
from moai_planner.domain.layout import Engine, Layout
from moai_planner.domain.model import Attention, FeedForward, Model
from moai_planner.domain.parameters import Parameters
from moai_planner.domain.precision import precision
from moai_planner.domain.units import GIBI, GIGA, TERA


def h100() -> Accelerator:
    """NVIDIA H100 SXM data sheet, dense rates."""
    return Accelerator(
        id="h100_sxm",
        name="H100 SXM",
        vendor="NVIDIA",
        architecture="Hopper",
        platform="cuda",
        memory_bytes=80 * GIBI,
        memory_bandwidth_bytes_per_s=3.35 * TERA,
        peak_flop_per_s={"bf16": 989 * TERA, "fp8": 1979 * TERA, "int8": 1979 * TERA},
        scale_up=Link("switch", 450 * GIGA, 8),
        scale_out_bytes_per_s=50 * GIGA,
        host_link_bytes_per_s=64 * GIGA,
        tdp_w=700.0,
        all_in_w=1270.0,
        price_usd_per_h=2.2,
        confidence="high",
    )


def llama_8b() -> Model:
    """Llama-3.1-8B config."""
    return Model(
        id="meta-llama/Llama-3.1-8B-Instruct",
        architecture="LlamaForCausalLM",
        layers=32,
        hidden_size=4096,
        vocabulary_size=128256,
        attention=(Attention("gqa", 32, 32, 8, 128, 128),),
        feed_forward=(FeedForward(32, 14336),),
        tied_embeddings=False,
        max_context_tokens=131072,
        native_precision="bf16",
    )


def llama_on_h100(tp: int = 1) -> Configuration:
    """The example with assumed parameters."""
    return Configuration(
        accelerator=h100(),
        model=llama_8b(),
        precision=precision("bf16"),
        layout=Layout(tp=tp),
        engine=Engine(),
        devices_per_node=8,
        network_bytes_per_s=400 * GIGA,
        parameters=Parameters(),
    )
