"""Configurations that the tests share."""

from __future__ import annotations

from dataclasses import replace

from moai_planner.catalog.accelerators import accelerator
from moai_planner.catalog.models import model
from moai_planner.costmodel.configuration import Configuration
from moai_planner.domain.layout import Engine, Layout
from moai_planner.domain.parameters import Parameters
from moai_planner.domain.precision import precision
from moai_planner.domain.units import GIGA

DENSE, WINDOWED, LATENT, EXPERTS, HYBRID = (
    ("meta-llama/Llama-3.3-70B-Instruct", "fp8"),
    ("openai/gpt-oss-120b", "mxfp4"),
    ("deepseek-ai/DeepSeek-R1", "fp8"),
    ("Qwen/Qwen3-30B-A3B", "bf16"),
    ("Qwen/Qwen3.5-397B-A17B", "fp8"),
)
ALL = (DENSE, WINDOWED, LATENT, EXPERTS, HYBRID)


def configuration(
    which: tuple[str, str] = DENSE,
    on: str = "h200_sxm",
    tp: int = 8,
    pp: int = 1,
    dp: int = 1,
    ep: int = 1,
    parameters: Parameters | None = None,
    **engine,
) -> Configuration:
    """A configuration on 8-device nodes with 8 x 400 Gbit/s between them."""
    name, number_format = which
    return Configuration(
        accelerator(on),
        model(name),
        precision(number_format),
        Layout(tp, pp, dp, ep),
        Engine(**engine),
        8,
        400 * GIGA,
        parameters or Parameters(),
    )


def with_parameters(c: Configuration, **values: float) -> Configuration:
    """The same with some parameters changed."""
    return replace(c, parameters=replace(c.parameters, **values))


def with_accelerator(c: Configuration, **values) -> Configuration:
    """The same on a changed device."""
    return replace(c, accelerator=replace(c.accelerator, **values))
