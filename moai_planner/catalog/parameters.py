"""Which parameters the cost model uses for an accelerator, an engine and a precision.

Files in `hardware_profiles/parameters/`: `assumed/` by platform or architecture, `calibrated/` written
by `calibrate`, `own/` by `calibrate --own`. A set made for exactly this device, engine and number format
wins, an own one first. Else the assumed set is
corrected by what the calibration shares among devices, formats and engines (`shared.yaml`), with the
interval of a device left out of the fit. Where there is neither (another folder), the nearest set on the
platform carries its correction over, calibrated over assumed: each step away widens the interval and weakens
the basis. Fields a calibrated file leaves out come from the assumed sets.

>>> from moai_planner.catalog.accelerators import accelerator
>>> from moai_planner.domain.precision import precision
>>> 0 < parameters_for(accelerator("h100_sxm"), "vllm", precision("fp8")).matmul_frac <= 1
True
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from moai_planner.catalog.corrections_file import SHARED_FILE, read_corrections
from moai_planner.catalog.parameter_file import ParameterSet, read_parameter_file
from moai_planner.catalog.paths import data_root
from moai_planner.domain.accelerator import Accelerator
from moai_planner.domain.corrections import (
    ARCHITECTURE,
    PLATFORM,
    Shared,
    corrected,
    family_name,
    is_native,
    measured_as,
    pace_name,
    parts_of,
)
from moai_planner.domain.parameters import BOUNDS, OWN_ROWS, Parameters, widened
from moai_planner.domain.precision import Precision
from moai_planner.domain.provenance import Basis

FOLDER = "hardware_profiles/parameters"
OWN = "own"
"""Folder of the sets that correct the calibrated ones by a user's rows."""
STEP, ANY_FAMILY = "step", "any"
"""Names in `shared.yaml`: a step's own interval, and engines that nobody measured on the platform."""

_OTHER_FORMAT, _OTHER_DEVICE, _OTHER_ENGINE, _OTHER_ARCHITECTURE = 0.25, 0.4, 0.5, 0.8
"""How much each difference widens the interval (exponent on its ends; assumed until measured)."""


@dataclass(frozen=True)
class Wanted:
    """What parameters are asked for."""

    accelerator: str
    architecture: str
    platform: str
    engine: str
    number_format: str
    native: bool = True
    "The device multiplies the format as it is."


def parameters_for(
    accelerator: Accelerator, engine: str, precision: Precision, folder: Path | None = None
) -> Parameters:
    """The nearest parameters there are; never fails, and says in `note` and `basis` what it found."""
    root = Path(folder) if folder else data_root() / FOLDER
    return _parameters_for(_wanted(accelerator, engine, precision), root)


def published_for(accelerator: Accelerator, engine: str, precision: Precision) -> Parameters:
    """What is predicted without own sets: where `calibrate --own` starts from."""
    root, wanted = data_root() / FOLDER, _wanted(accelerator, engine, precision)
    shared = _shared(root / "calibrated" / SHARED_FILE)
    return replace(_nearest(wanted, root, shared), paces=_paces(wanted, shared))


def assumed_for(accelerator: Accelerator, engine: str, precision: Precision) -> Parameters:
    """What is assumed when nothing was calibrated: where a calibration starts from."""
    return _assumed(_wanted(accelerator, engine, precision), _sets(data_root() / FOLDER / "assumed"))


def _wanted(accelerator: Accelerator, engine: str, precision: Precision) -> Wanted:
    return Wanted(
        accelerator.id,
        accelerator.architecture,
        accelerator.platform,
        measured_as(engine, accelerator.platform),
        precision.kernels,
        is_native(accelerator, precision.kernels),
    )


def clear_cache() -> None:
    """Forget files read before (after `calibrate` wrote new ones)."""
    _parameters_for.cache_clear()
    _sets.cache_clear()
    _shared.cache_clear()


@lru_cache(maxsize=512)
def _parameters_for(wanted: Wanted, root: Path) -> Parameters:
    shared = _shared(root / "calibrated" / SHARED_FILE)
    paces = _paces(wanted, shared)
    for own in _sets(root / OWN):
        if _distance(wanted, own) == 0:
            made = _overlay(_assumed(wanted, _sets(root / "assumed")), own)
            return replace(made, basis=own.basis, paces=paces, note=f"{OWN_ROWS}{own.describe()}")
    return replace(_nearest(wanted, root, shared), paces=paces)


def _paces(wanted: Wanted, shared: Shared | None) -> Mapping[str, float]:
    return shared.paces.get(pace_name(wanted.engine, wanted.architecture), {}) if shared else {}


def _nearest(wanted: Wanted, root: Path, shared: Shared | None) -> Parameters:
    base = _assumed(wanted, _sets(root / "assumed"))
    near = [(_distance(wanted, found), found.file, found) for found in _sets(root / "calibrated")]
    near = [candidate for candidate in near if candidate[0] is not None]
    if near:
        distance, _, found = min(near, key=lambda candidate: candidate[:2])
        if distance == 0:
            return replace(_overlay(base, found), basis=found.basis, note=found.describe())
    if shared is not None and (PLATFORM, wanted.platform) in shared.corrections:
        return _composed(base, wanted, shared)
    return _carried_over(base, wanted, found, distance, _sets(root / "assumed")) if near else base


def _composed(base: Parameters, wanted: Wanted, shared: Shared) -> Parameters:
    """`base` with the corrections that the device, engine and format have in common with others.

    The interval is that of the engine on the platform with a device left out, or, for an engine never
    measured there, with the engine left out.
    """
    parts = parts_of(wanted.platform, wanted.architecture, wanted.engine, wanted.number_format, wanted.native)
    known = [part for part in parts if part in shared.corrections]
    moved = corrected(base, shared.corrections, known)
    family = family_name(wanted.engine, wanted.platform)
    known_as = family if family in shared.intervals else ANY_FAMILY
    intervals = dict(shared.intervals.get(known_as, {}))
    low_frac, high_frac = intervals.pop(STEP, (base.low_frac, base.high_frac))
    near = (ARCHITECTURE, wanted.architecture) in shared.corrections
    fields = {name for part in known for name in shared.corrections[part]}
    return replace(
        moved,
        low_frac=low_frac,
        high_frac=high_frac,
        intervals=intervals,
        models=shared.models.get(known_as, ()),
        new_model_power=shared.new_model_power,
        basis=Basis.EXTRAPOLATED if near else Basis.ANALYTIC,
        sources=dict(base.sources) | dict.fromkeys(fields, shared.source),
        note=f"calibrated corrections of {', '.join(name for _, name in known)}, put together for "
        f"{wanted.accelerator} {wanted.engine} {wanted.number_format}",
    )


def _carried_over(
    base: Parameters, wanted: Wanted, found: ParameterSet, distance: float, assumed: tuple[ParameterSet, ...]
) -> Parameters:
    """`base` corrected as `found` corrects the assumptions for its own device and format."""
    own = Wanted(
        found.accelerator,
        found.architecture,
        found.platform,
        found.engine if found.engine != "any" else wanted.engine,
        found.number_format if found.number_format != "any" else wanted.number_format,
    )
    before = _assumed(own, assumed)
    corrected = {
        name: BOUNDS[name].clipped(getattr(base, name) * value / getattr(before, name))
        for name, value in found.values.items()
        if getattr(before, name) > 0
    }
    far = found.architecture != wanted.architecture
    note = f"{found.describe()}, carried over to {wanted.accelerator} {wanted.engine} {wanted.number_format}"
    moved = _overlay(base, replace(found, values=corrected))
    wider = widened(moved, 1 + distance, Basis.ANALYTIC if far else Basis.EXTRAPOLATED, note)
    intervals = {
        metric: (low ** (1 + distance), high ** (1 + distance))
        for metric, (low, high) in moved.intervals.items()
    }
    return replace(wider, intervals=intervals)


@lru_cache(maxsize=16)
def _sets(folder: Path) -> tuple[ParameterSet, ...]:
    paths = sorted(path for path in folder.glob("*.yaml") if path.name != SHARED_FILE)
    return tuple(read_parameter_file(path) for path in paths)


@lru_cache(maxsize=16)
def _shared(path: Path) -> Shared | None:
    return read_corrections(path) if path.exists() else None


def _assumed(wanted: Wanted, sets: tuple[ParameterSet, ...]) -> Parameters:
    """Defaults, then the platform's set, then the architecture's, then the device's, each over the last."""
    parameters = Parameters()
    for found in sorted(sets, key=lambda s: (s.level, s.file)):
        if found.covers(wanted.accelerator, wanted.architecture, wanted.platform) and found.serves(
            wanted.engine, wanted.number_format
        ):
            parameters = replace(_overlay(parameters, found), basis=found.basis, note=found.describe())
    return parameters


def _overlay(base: Parameters, found: ParameterSet) -> Parameters:
    sources = dict(base.sources) | {name: found.source for name in found.values}
    low_frac, high_frac = found.interval or (base.low_frac, base.high_frac)
    return replace(
        base,
        **found.values,
        low_frac=low_frac,
        high_frac=high_frac,
        intervals=dict(found.intervals),
        models=found.models,
        new_model_power=dict(found.new_model_power),
        sources=sources,
    )


def _distance(wanted: Wanted, found: ParameterSet) -> float | None:
    """0 = made for exactly this; None = says nothing about it."""
    if found.platform != wanted.platform:
        return None
    distance = 0.0
    if found.accelerator != wanted.accelerator:
        distance += _OTHER_DEVICE
    if found.architecture != wanted.architecture:
        distance += _OTHER_ARCHITECTURE
    if found.engine not in ("any", wanted.engine):
        distance += _OTHER_ENGINE
    if found.number_format not in ("any", wanted.number_format):
        distance += _OTHER_FORMAT
    return distance
