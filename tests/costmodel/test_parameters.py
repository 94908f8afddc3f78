"""Parameters: vectors for fits, bounds, files, and what is used when nothing was calibrated for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from moai_planner.catalog.accelerators import accelerator, accelerator_ids
from moai_planner.catalog.corrections_file import read_corrections
from moai_planner.catalog.parameter_file import read_parameter_file
from moai_planner.catalog.parameters import FOLDER, parameters_for
from moai_planner.catalog.paths import data_root
from moai_planner.domain.errors import InputError
from moai_planner.domain.parameters import (
    BOUNDS,
    FIELDS,
    NAMES,
    Parameters,
    from_vector,
    to_vector,
    values,
    widened,
)
from moai_planner.domain.precision import PRECISIONS, precision
from moai_planner.domain.provenance import Basis


def test_every_number_can_be_fitted():
    """FIELDS lists each number of the class once; defaults lie inside the bounds."""
    numbers = [name for name, value in vars(Parameters()).items() if isinstance(value, float)]
    assert sorted(NAMES) == sorted(set(numbers) - {"low_frac", "high_frac"})
    assert all(b.lower <= getattr(Parameters(), b.name) <= b.upper for b in FIELDS)


def test_vectors_round_trip():
    """To reals and back changes nothing."""
    again = from_vector(to_vector(Parameters()))
    assert values(again) == pytest.approx(values(Parameters()), rel=1e-9)


@given(st.lists(st.floats(-1e6, 1e6), min_size=len(NAMES), max_size=len(NAMES)))
def test_any_real_vector_is_physical(reals):
    """A fit may step anywhere: the values stay inside their bounds."""
    found = from_vector(np.array(reals))
    assert all(BOUNDS[name].lower <= value <= BOUNDS[name].upper for name, value in values(found).items())


def test_widening_keeps_the_middle():
    """A wider interval still holds the prediction, and the basis is the weaker one."""
    wide = widened(Parameters(low_frac=0.8, high_frac=1.3), 2.0, Basis.EXTRAPOLATED, "far")
    assert wide.low_frac < 0.8 and wide.high_frac > 1.3 and wide.basis is Basis.EXTRAPOLATED
    assert values(wide) == values(Parameters())


@pytest.mark.parametrize(
    "path", sorted((data_root() / FOLDER / "assumed").glob("*.yaml")), ids=lambda p: p.stem
)
def test_assumed_files_are_honest(path):
    """They read, say where they are from, and claim no narrow interval."""
    found = read_parameter_file(path)
    assert found.basis is Basis.ASSUMED and found.source.title
    assert found.interval is None or (found.interval[0] <= 0.75 and found.interval[1] >= 1.4)


def test_every_accelerator_and_precision_has_parameters():
    """Never fails; each number has a source."""
    for name in accelerator_ids():
        for precision_id in PRECISIONS:
            found = parameters_for(accelerator(name), "vllm", precision(precision_id))
            assert not [n for n in NAMES if not BOUNDS[n].lower <= getattr(found, n) <= BOUNDS[n].upper]
            assert "*" in found.sources


def _write(folder, name, **changes):
    document = {
        "format": "moai-parameters/1",
        "accelerator": "h100_sxm",
        "architecture": "Hopper",
        "platform": "cuda",
        "engine": "vllm",
        "number_format": "fp8",
        "basis": "calibrated",
        "source": {"title": "own fit", "kind": "derived"},
        "date": "2026-11-21",
        "rows": 10,
        "values": {"matmul_frac": 0.5},
        "interval": {"low_frac": 0.9, "high_frac": 1.1},
    } | changes
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture
def root(tmp_path):
    """An assumed set of the platform, MI308X-like differences left out, and one calibrated set."""
    any_of_platform = dict(
        accelerator="",
        architecture="",
        engine="any",
        number_format="any",
        basis="assumed",
        interval={"low_frac": 0.6, "high_frac": 1.6},
    )
    _write(tmp_path / "assumed", "cuda", values={"matmul_frac": 0.4}, **any_of_platform)
    _write(
        tmp_path / "assumed",
        "h20",
        values={"matmul_frac": 0.6},
        **(any_of_platform | {"accelerator": "h20", "architecture": "Hopper"}),
    )
    _write(tmp_path / "calibrated", "h100_fp8")
    return tmp_path


def test_calibrated_wins_where_it_fits(root):
    """Exact match: the file's numbers, interval and basis."""
    found = parameters_for(accelerator("h100_sxm"), "vllm", precision("fp8"), root)
    assert (found.matmul_frac, found.low_frac, found.basis) == (0.5, 0.9, Basis.CALIBRATED)


@pytest.mark.parametrize(
    ("device", "engine", "number_format", "basis"),
    [
        ("h100_sxm", "vllm", "bf16", Basis.EXTRAPOLATED),
        ("h200_sxm", "vllm", "fp8", Basis.EXTRAPOLATED),
        ("h100_sxm", "sglang", "fp8", Basis.EXTRAPOLATED),
        ("b200_sxm", "vllm", "fp8", Basis.ANALYTIC),
        ("mi300x", "vllm", "fp8", Basis.ASSUMED),
    ],
)
def test_each_step_away_widens_and_weakens(root, device, engine, number_format, basis):
    """Another format, device, engine, architecture: wider and weaker; another platform: assumed."""
    found = parameters_for(accelerator(device), engine, precision(number_format), root)
    assert found.basis is basis
    assert found.low_frac < 0.9 and found.high_frac > 1.1


def test_what_carries_over_is_the_correction(root):
    """The fit found 0.5 where 0.4 was assumed; a device assumed at 0.6 becomes 0.75."""
    found = parameters_for(accelerator("h20"), "vllm", precision("fp8"), root)
    assert found.matmul_frac == pytest.approx(0.75)


@pytest.fixture
def shared(root):
    """Corrections of a platform, an architecture and an engine beside the one calibrated set."""
    document = {
        "format": "moai-corrections/1",
        "source": {"title": "own fit", "kind": "derived"},
        "rows": 100,
        "corrections": {
            "platform": {"cuda": {"step_s": 0.1}},
            "architecture": {"Hopper": {"kernel_s": 0.2}},
            "engine": {"vllm": {"step_s": 0.3}},
        },
        "intervals": {
            "vllm-cuda": {"step": {"low_frac": 0.8, "high_frac": 1.3}},
            "any": {"step": {"low_frac": 0.5, "high_frac": 2.0}},
        },
    }
    (root / "calibrated" / "shared.yaml").write_text(yaml.safe_dump(document))
    return root


@pytest.mark.parametrize(
    ("device", "engine", "step", "kernel", "low_frac", "basis"),
    [
        ("h200_sxm", "vllm", 0.4, 0.2, 0.8, Basis.EXTRAPOLATED),
        ("b200_sxm", "vllm", 0.4, 0.0, 0.8, Basis.ANALYTIC),
        ("h200_sxm", "sglang", 0.1, 0.2, 0.5, Basis.EXTRAPOLATED),
        ("mi300x", "vllm", 0.0, 0.0, 0.6, Basis.ASSUMED),
    ],
)
def test_what_has_no_rows_is_put_together(shared, device, engine, step, kernel, low_frac, basis):
    """The sum of the corrections of its parts, and the interval of something left out."""
    found = parameters_for(accelerator(device), engine, precision("fp8"), shared)
    assert found.step_s == pytest.approx(Parameters().step_s * np.exp(step))
    assert found.kernel_s == pytest.approx(Parameters().kernel_s * np.exp(kernel))
    assert (found.low_frac, found.basis) == (low_frac, basis)


def test_exact_sets_win_over_what_is_shared(shared):
    """A set made for exactly this is used as it is."""
    found = parameters_for(accelerator("h100_sxm"), "vllm", precision("fp8"), shared)
    assert (found.matmul_frac, found.step_s) == (0.5, Parameters().step_s)


def test_bad_corrections_name_every_problem(shared):
    """Unknown levels and fields are all named."""
    path = shared / "calibrated" / "shared.yaml"
    document = yaml.safe_load(path.read_text())
    document["corrections"] |= {"rack": {"one": {}}, "engine": {"vllm": {"speed": 1.0}}}
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(InputError) as error:
        read_corrections(path)
    assert len(error.value.problems) == 2


def test_models_that_were_not_fitted_widen():
    """Only a set that lists its models tells new ones apart."""
    found = Parameters(models=("known",), new_model_power={"tpot_s": 1.5})
    assert (found.power_for("known", "tpot_s"), found.power_for("new", "tpot_s")) == (1.0, 1.5)
    assert found.power_for("new", "ttft_s") == Parameters().power_for("new", "tpot_s") == 1.0


def test_bad_files_name_every_problem(tmp_path):
    """Unknown parameters and values out of bounds are all named."""
    path = _write(tmp_path, "bad", values={"matmul_frac": 1.5, "speed": 2.0})
    with pytest.raises(InputError) as error:
        read_parameter_file(path)
    assert len(error.value.problems) == 2


def test_parameters_are_not_shared_between_questions():
    """A frozen value: changing a copy leaves the catalog's alone."""
    first = parameters_for(accelerator("h100_sxm"), "vllm", precision("fp8"))
    replace(first, matmul_frac=0.1)
    assert parameters_for(accelerator("h100_sxm"), "vllm", precision("fp8")).matmul_frac == first.matmul_frac


@pytest.mark.parametrize("device", ["mi300x", "mi308x", "mi355x", "b200_sxm", "a100_sxm_80gb"])
def test_16_bit_products_are_alike_under_every_engine(device):
    """What an engine's own 8- and 4-bit kernels reach says nothing of the library that they share."""
    on = accelerator(device)
    wide = [parameters_for(on, engine, precision("bf16")) for engine in ("vllm", "sglang", "moreh-vllm")]
    for name in ("matmul_frac", "weight_bandwidth_frac"):
        assert len({getattr(one, name) for one in wide}) == 1
    assert len({one.kernel_s for one in wide}) == 3, "the rest of an engine is its own"


def test_16_bit_products_on_mi300x_are_near_published_timings():
    """hipBLASLt and wvSplitK stream 2.02 GB in 497 and 416 us (ROCm/rocm-libraries pull request 12329)."""
    on = accelerator("mi300x")
    reached = parameters_for(on, "vllm", precision("bf16")).weight_bandwidth_frac
    moved_bytes = 2.0 * 76032 * 13312
    shares = [moved_bytes / seconds / on.memory_bandwidth_bytes_per_s for seconds in (497.12e-6, 415.9e-6)]
    assert shares[0] < reached < shares[1]
