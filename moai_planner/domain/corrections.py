"""Corrections of assumed parameters, each shared by everything it speaks about.

A device with an engine and a number format has the sum (in real form, see `parameters`) of what holds
everywhere, on its platform, its architecture, for its number format on the platform and on the architecture,
for its engine, and for that engine on that platform. How well an engine multiplies is apart from the rest of
it, and left out where the products are the vendor's. What nobody measured together is put together from what
was measured apart.

>>> from moai_planner.domain.parameters import Parameters
>>> found = corrected(Parameters(step_s=1e-3), {("engine", "vllm"): {"step_s": 0.7}}, (("engine", "vllm"),))
>>> round(found.step_s, 5)
0.00201
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from moai_planner.domain.accelerator import Accelerator
from moai_planner.domain.parameters import NAMES, Parameters, from_vector, to_vector
from moai_planner.domain.precision import PRECISIONS, WIDE_FORMAT, multiplied_as
from moai_planner.domain.provenance import ASSUMED, Source

Part = tuple[str, str]
"""(level, which one of it): `("architecture", "Hopper")`."""
EVERYWHERE, PLATFORM, ARCHITECTURE = "everywhere", "platform", "architecture"
NUMBER_FORMAT, FORMAT_KERNELS, ENGINE, FAMILY = "number_format", "format_kernels", "engine", "family"
ENGINE_PRODUCTS, FAMILY_PRODUCTS = "engine_products", "family_products"
FOUR_BITS = "four-bit"
WIDENED_AS = {"fp4": "mxfp4"}
"""Formats whose experts are those of another."""
LEVELS = (
    EVERYWHERE,
    PLATFORM,
    ARCHITECTURE,
    NUMBER_FORMAT,
    FORMAT_KERNELS,
    ENGINE_PRODUCTS,
    FAMILY_PRODUCTS,
    ENGINE,
    FAMILY,
)


PLATFORM_ENGINES = {"tt": "tt-metal"}
"""Platforms whose models run in one library, whichever server is in front (vLLM's plugin calls tt-metal)."""


def measured_as(engine: str, platform: str) -> str:
    """The engine whose rows speak for this one there.

    >>> measured_as("vllm", "tt"), measured_as("vllm", "cuda")
    ('tt-metal', 'vllm')
    """
    return PLATFORM_ENGINES.get(platform, engine)


def family_name(engine: str, platform: str) -> str:
    """An engine on a platform."""
    return f"{engine}-{platform}"


LIBRARY_FAMILIES = tuple(family_name(engine, platform) for platform, engine in PLATFORM_ENGINES.items())
"""Families that share nothing with the others."""


def pace_name(engine: str, architecture: str) -> str:
    """Whose software gets faster from month to month: an engine on an architecture."""
    return f"{engine} {architecture}"


def is_native(accelerator: Accelerator, number_format: str) -> bool:
    """The device multiplies the format's narrowest weights as they are; else its kernels widen them first."""
    return multiplied_as(PRECISIONS[number_format].expert_weights) in accelerator.peak_flop_per_s


def parts_of(
    platform: str, architecture: str, engine: str, number_format: str, native: bool
) -> tuple[Part, ...]:
    """The corrections that hold for a device, an engine and a number format, widest first.

    Kernels that widen weights are others than those that multiply them: formats count apart. Those that
    multiply four bits are one kind, whatever the block that shares a scale and the format of other layers.
    Kernels of a format are written anew for each architecture. A platform with a library of its own shares
    nothing with the others: its rows would move theirs.

    What was found of an engine's narrower products says nothing of 16-bit ones: these stream at 0.77
    (hipBLASLt) to 0.92 (wvSplitK) of MI300X's memory (ROCm/rocm-libraries pull request 12329: 2.02 GB in 497
    and 416 us), where fp8 rows of vLLM say 0.7.

    >>> parts_of("cuda", "Hopper", "vllm", "mxfp4", False)[3]
    ('number_format', 'widened mxfp4-cuda')
    >>> parts_of("tt", "Wormhole", "tt-metal", "bfp8", True)[0]
    ('platform', 'tt')
    >>> parts_of("cuda", "Blackwell", "vllm", "mxfp4", True)[3:5]
    (('number_format', 'four-bit-cuda'), ('format_kernels', 'four-bit-Blackwell'))
    >>> [level for level, _ in parts_of("cuda", "Hopper", "vllm", "fp8", True)[5:]]
    ['engine_products', 'family_products', 'engine', 'family']
    >>> [level for level, _ in parts_of("cuda", "Hopper", "vllm", "bf16", True)[5:]]
    ['engine', 'family']
    """
    kernels = _kernels(number_format, native)
    family = family_name(engine, platform)
    own = ((ENGINE_PRODUCTS, engine), (FAMILY_PRODUCTS, family)) if kernels != WIDE_FORMAT else ()
    common = () if platform in PLATFORM_ENGINES else ((EVERYWHERE, "all"),)
    return (
        *common,
        (PLATFORM, platform),
        (ARCHITECTURE, architecture),
        (NUMBER_FORMAT, f"{kernels}-{platform}"),
        (FORMAT_KERNELS, f"{kernels}-{architecture}"),
        *own,
        (ENGINE, engine),
        (FAMILY, family),
    )


def _kernels(number_format: str, native: bool) -> str:
    if not native:
        return f"widened {WIDENED_AS.get(number_format, number_format)}"
    four_bits = multiplied_as(PRECISIONS[number_format].expert_weights) == "fp4"
    return FOUR_BITS if four_bits else number_format


def corrected(
    assumed: Parameters, corrections: Mapping[Part, Mapping[str, float]], parts: Sequence[Part]
) -> Parameters:
    """The assumed parameters moved by the sum of the parts."""
    shift: dict[str, float] = {}
    for part in parts:
        for name, real in corrections.get(part, {}).items():
            shift[name] = shift.get(name, 0.0) + real
    names = tuple(name for name in NAMES if name in shift)
    if not names:
        return assumed
    return from_vector(to_vector(assumed, names) + [shift[name] for name in names], assumed, names)


@dataclass(frozen=True)
class Shared:
    """What a calibration found for everything that has no rows of its own."""

    corrections: Mapping[Part, Mapping[str, float]]
    intervals: Mapping[str, Mapping[str, tuple[float, float]]] = field(default_factory=dict)
    "Family (`vllm-cuda`; `any` = one without rows) → metric kind → factors for a device without rows."
    models: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    "Family → models whose rows were fitted."
    new_model_power: Mapping[str, float] = field(default_factory=dict)
    "Metric kind → power on the ends of an interval for any other model."
    paces: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    "Engine and architecture (`pace_name`) → period → factor on the times of runs made then; today's is 1."
    rows: int = 0
    date: str = ""
    source: Source = ASSUMED
