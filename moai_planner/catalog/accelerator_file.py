"""`hardware_profiles/<id>.yaml`: what people write about a device, and the domain value it becomes.

    name: Example 1
    memory: {value: 79 GiB, board: 80 GB HBM3, source: board}
    peak: {bf16: {value: 900 TFLOP/s, basis: dense, source: board}}
    sources: {board: {title: Example board data sheet, where: table 2, date: 2026-01, kind: datasheet}}

Every number names a source below. Peaks say their basis, because data sheets print rates with structured
sparsity beside dense ones; only dense rates are accepted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from moai_planner.catalog.validation import Strict, quantity, validate
from moai_planner.catalog.yaml_file import near, read_yaml
from moai_planner.domain.accelerator import Accelerator, Link
from moai_planner.domain.errors import InputError, Problem
from moai_planner.domain.provenance import Source

NumberFormat = Literal["bf16", "fp8", "fp4", "int8", "fp32"]


class SourceEntry(Strict):
    """A place outside the project that numbers were taken from."""

    title: str
    where: str
    "Table, page or file in it; for an assumption, why this number."
    date: str
    kind: Literal[
        "datasheet", "measurement", "publication", "price list", "announcement", "derived", "assumed"
    ]


class Memory(Strict):
    """What the driver offers to a process."""

    value: quantity("bytes")
    board: str = ""
    "As the vendor sells it."
    source: str


class Bandwidth(Strict):
    """Of the device's memory."""

    value: quantity("bytes_per_s")
    source: str


class Peak(Strict):
    """Rate of matrix products."""

    value: quantity("flop_per_s")
    basis: Literal["dense", "sparse"]
    source: str


class ScaleUp(Strict):
    """The fast network inside a node or rack."""

    kind: Literal["switch", "mesh", "torus", "pcie", "none"]
    name: str = ""
    per_device: quantity("bytes_per_s", positive=False)
    direction: Literal["one-way"]
    devices: int = Field(ge=1)
    source: str


class PerDevice(Strict):
    """A link's rate in one direction."""

    per_device: quantity("bytes_per_s", positive=False)
    direction: Literal["one-way"]
    source: str


class Watts(Strict):
    """A power."""

    value: quantity("w")
    source: str


class Power(Strict):
    """Of one device."""

    tdp: Watts
    all_in: Watts
    "With its share of host, network and cooling."


class Price(Strict):
    """Of one device."""

    value: quantity("usd_per_h")
    source: str


class AcceleratorFile(Strict):
    """One device type."""

    name: str
    vendor: str
    architecture: str
    platform: Literal["cuda", "rocm", "hpu", "tt", "xpu", "tpu", "lpu", "cpu"]
    confidence: Literal["high", "medium", "low"]
    memory: Memory
    memory_bandwidth: Bandwidth
    peak: dict[NumberFormat, Peak]
    scale_up: ScaleUp
    scale_out: PerDevice
    host_link: PerDevice
    power: Power
    price: Price | None = None
    notes: list[str] = Field(default_factory=list)
    sources: dict[str, SourceEntry]


def read_accelerator(path: Path) -> Accelerator:
    """One YAML file → Accelerator, its id being the file's name."""
    return accelerator_from(validate(AcceleratorFile, read_yaml(path), str(path)), Path(path).stem, str(path))


def accelerator_from(entry: AcceleratorFile, accelerator_id: str, file: str) -> Accelerator:
    """The domain value, after the checks that need more than one field."""
    problems = tuple(_find_problems(entry, file))
    if problems:
        raise InputError(problems)
    return Accelerator(
        id=accelerator_id,
        name=entry.name,
        vendor=entry.vendor,
        architecture=entry.architecture,
        platform=entry.platform,
        memory_bytes=entry.memory.value,
        memory_bandwidth_bytes_per_s=entry.memory_bandwidth.value,
        peak_flop_per_s={name: peak.value for name, peak in entry.peak.items()},
        scale_up=Link(entry.scale_up.kind, entry.scale_up.per_device, entry.scale_up.devices),
        scale_out_bytes_per_s=entry.scale_out.per_device,
        host_link_bytes_per_s=entry.host_link.per_device,
        tdp_w=entry.power.tdp.value,
        all_in_w=entry.power.all_in.value,
        price_usd_per_h=entry.price.value if entry.price else 0.0,
        confidence=entry.confidence,
        notes=" ".join(entry.notes),
        sources={field: Source(**vars(entry.sources[source])) for field, _, source in _sourced(entry)},
    )


def _sourced(entry: AcceleratorFile) -> Iterator[tuple[str, str, str]]:
    """(field of Accelerator, place in the file, source id) of every number."""
    yield "memory_bytes", "memory", entry.memory.source
    yield "memory_bandwidth_bytes_per_s", "memory_bandwidth", entry.memory_bandwidth.source
    for name, peak in entry.peak.items():
        yield f"peak_flop_per_s.{name}", f"peak.{name}", peak.source
    yield "scale_up", "scale_up", entry.scale_up.source
    yield "scale_out_bytes_per_s", "scale_out", entry.scale_out.source
    yield "host_link_bytes_per_s", "host_link", entry.host_link.source
    yield "tdp_w", "power.tdp", entry.power.tdp.source
    yield "all_in_w", "power.all_in", entry.power.all_in.source
    if entry.price:
        yield "price_usd_per_h", "price", entry.price.source


def _find_problems(entry: AcceleratorFile, file: str) -> Iterator[Problem]:
    used = set()
    for _, place, source in _sourced(entry):
        used.add(source)
        if source not in entry.sources:
            remedy = f"describe it under `sources`, or {near(source, entry.sources)}"
            yield Problem(file, f"{place}.source", f"unknown source {source!r}", remedy)
    for source in entry.sources.keys() - used:
        yield Problem(file, f"sources.{source}", "no number names it", "remove it, or name it at a number")
    for name, peak in entry.peak.items():
        if peak.basis != "dense":
            yield Problem(
                file, f"peak.{name}.basis", peak.basis, "give the dense rate; sparse rates are twice as high"
            )
    if "bf16" not in entry.peak:
        yield Problem(file, "peak.bf16", "is missing", "add the bf16 rate; other formats fall back on it")
    if entry.scale_up.kind != "none" and entry.scale_up.per_device <= 0:
        yield Problem(file, "scale_up.per_device", "0", "give the link's rate, or write kind: none")


def schema() -> dict[str, Any]:
    """JSON Schema of an accelerator file."""
    return AcceleratorFile.model_json_schema()
