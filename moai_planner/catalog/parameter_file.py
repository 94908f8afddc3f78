"""One file of parameters, assumed or calibrated.

format: moai-parameters/1
accelerator: h100_sxm          # empty = the whole architecture; that empty = the whole platform
architecture: Hopper
platform: cuda
engine: vllm                   # any = every engine
number_format: fp8             # a precision id; any = every precision
basis: calibrated              # or assumed
source: {title: "own fit on …", where: "measurements.csv, split calibrate", kind: derived}
date: 2026-11-21
rows: 812                      # measured rows behind it
models: [meta-llama/Llama-3.3-70B-Instruct]           # that the rows ran
values: {matmul_frac: 0.61, step_s: 0.0014}
interval: {low_frac: 0.85, high_frac: 1.2}            # of a step, 80 %
intervals: {tpot_s: {low_frac: 0.9, high_frac: 1.12}} # of metrics, where known
new_model_power: {tpot_s: 1.4}  # power on the ends for models that are not listed
residuals: {tpot_median_ape: 0.06}                    # free figures, kept for the reader
field_sources: {matmul_frac: "tuned products at 4096 rows and more"}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveFloat

from moai_planner.catalog.validation import Strict, validate
from moai_planner.catalog.yaml_file import read_yaml
from moai_planner.domain.errors import InputError, Problem
from moai_planner.domain.parameters import out_of_bounds
from moai_planner.domain.provenance import Basis, Source

FORMAT = "moai-parameters/1"


class SourceEntry(Strict):
    """Where the set is from."""

    title: str
    where: str = ""
    date: str = ""
    kind: str = ""


class Ends(Strict):
    """An 80 % interval as factors on the prediction."""

    low_frac: float = Field(gt=0, le=1)
    high_frac: float = Field(ge=1)


class ParameterFile(Strict):
    """The file as written."""

    format: Literal["moai-parameters/1"]
    accelerator: str = ""
    architecture: str = ""
    platform: str
    engine: str = "any"
    number_format: str = "any"
    basis: Literal["assumed", "calibrated"]
    source: SourceEntry
    date: str = ""
    rows: int = Field(default=0, ge=0)
    models: list[str] = Field(default_factory=list)
    values: dict[str, float | int]
    interval: Ends | None = None
    intervals: dict[str, Ends] = Field(default_factory=dict)
    new_model_power: dict[str, PositiveFloat] = Field(default_factory=dict)
    residuals: dict[str, float | int] = Field(default_factory=dict)
    field_sources: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class ParameterSet:
    """What a file says."""

    file: str
    accelerator: str
    architecture: str
    platform: str
    engine: str
    number_format: str
    basis: Basis
    source: Source
    rows: int
    values: Mapping[str, float]
    interval: tuple[float, float] | None
    intervals: Mapping[str, tuple[float, float]]
    models: tuple[str, ...] = ()
    new_model_power: Mapping[str, float] = field(default_factory=dict)

    @property
    def level(self) -> int:
        """0 platform, 1 architecture, 2 device; one number format before one for any comes later."""
        device = 4 if self.accelerator else 2 if self.architecture else 0
        return device + (self.number_format != "any") + (self.engine != "any")

    def covers(self, accelerator: str, architecture: str, platform: str) -> bool:
        """The set speaks about this device."""
        return (
            self.platform == platform
            and self.architecture in ("", architecture)
            and self.accelerator in ("", accelerator)
        )

    def serves(self, engine: str, number_format: str) -> bool:
        """The set speaks about this engine and precision."""
        return self.engine in ("any", engine) and self.number_format in ("any", number_format)

    def describe(self) -> str:
        """In words, for notes and assumptions."""
        device = self.accelerator or self.architecture or self.platform
        rows = f", {self.rows} rows" if self.rows else ""
        return f"{self.basis.value} on {device} {self.engine} {self.number_format}{rows}"


def read_parameter_file(path: Path) -> ParameterSet:
    """Read and check one file; InputError with every problem."""
    document = validate(ParameterFile, read_yaml(path), str(path))
    reasons = out_of_bounds(document.values)
    if reasons:
        raise InputError(
            Problem(str(path), "values", reason, "give a value inside the bounds of that parameter")
            for reason in reasons
        )
    source = Source(**document.source.model_dump())
    return ParameterSet(
        file=path.name,
        accelerator=document.accelerator,
        architecture=document.architecture,
        platform=document.platform,
        engine=document.engine,
        number_format=document.number_format,
        basis=Basis(document.basis),
        source=source,
        rows=document.rows,
        values={name: float(value) for name, value in document.values.items()},
        interval=_ends(document.interval),
        intervals={metric: _ends(ends) for metric, ends in document.intervals.items()},
        models=tuple(document.models),
        new_model_power=dict(document.new_model_power),
    )


def _ends(ends: Ends | None) -> tuple[float, float] | None:
    return (ends.low_frac, ends.high_frac) if ends else None
