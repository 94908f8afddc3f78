"""The corrections that a calibration shares among devices, number formats and engines: `shared.yaml`.

format: moai-corrections/1
source: {title: "own fit on …", where: "measurements.csv, split calibrate", kind: derived}
date: 2026-11-21
rows: 1957
corrections:                     # level → which one of it → field → shift in real form (log or logit)
  everywhere: {all: {kernel_s: 0.2}}
  architecture: {Hopper: {matmul_frac: -0.1}}
  engine: {vllm: {step_s: 0.4}}
intervals:                       # engine-platform (`any` = one without rows) → kind → 80 % for a new device
  vllm-cuda: {step: {low_frac: 0.7, high_frac: 1.4}, tpot_s: {low_frac: 0.8, high_frac: 1.3}}
models: {vllm-cuda: [meta-llama/Llama-3.1-8B-Instruct]}         # whose rows were fitted
new_model_power: {tpot_s: 1.6}   # on the ends of an interval for any other
paces:                           # engine and architecture → period → times then over times today
  sglang CDNA4: {2025-12: 1.39}
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveFloat

from moai_planner.catalog.parameter_file import Ends, SourceEntry
from moai_planner.catalog.validation import Strict, validate
from moai_planner.catalog.yaml_file import read_yaml
from moai_planner.domain.corrections import LEVELS, Shared
from moai_planner.domain.errors import InputError, Problem
from moai_planner.domain.parameters import NAMES
from moai_planner.domain.provenance import Source

SHARED_FILE = "shared.yaml"


class CorrectionsFile(Strict):
    """The file as written."""

    format: Literal["moai-corrections/1"]
    source: SourceEntry
    date: str = ""
    rows: int = Field(default=0, ge=0)
    corrections: dict[str, dict[str, dict[str, float]]]
    intervals: dict[str, dict[str, Ends]] = Field(default_factory=dict)
    models: dict[str, list[str]] = Field(default_factory=dict)
    new_model_power: dict[str, PositiveFloat] = Field(default_factory=dict)
    paces: dict[str, dict[str, PositiveFloat]] = Field(default_factory=dict)


def read_corrections(path: Path) -> Shared:
    """Read and check the file; InputError with every problem."""
    document = validate(CorrectionsFile, read_yaml(path), str(path))
    problems = [
        Problem(str(path), f"corrections.{level}", level, f"write one of {', '.join(LEVELS)}")
        for level in document.corrections
        if level not in LEVELS
    ]
    problems += [
        Problem(str(path), f"corrections.{level}.{name}.{field}", field, "name a parameter")
        for level, named in document.corrections.items()
        for name, fields in named.items()
        for field in fields
        if field not in NAMES
    ]
    if problems:
        raise InputError(problems)
    return Shared(
        corrections={
            (level, name): dict(fields)
            for level, named in document.corrections.items()
            for name, fields in named.items()
        },
        intervals={
            family: {kind: (ends.low_frac, ends.high_frac) for kind, ends in pairs.items()}
            for family, pairs in document.intervals.items()
        },
        models={family: tuple(names) for family, names in document.models.items()},
        new_model_power=document.new_model_power,
        paces=document.paces,
        rows=document.rows,
        date=document.date,
        source=Source(**document.source.model_dump()),
    )
