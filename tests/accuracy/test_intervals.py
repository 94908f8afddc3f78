"""Intervals: few groups know little, a whole is no less certain than its parts, weaker bases are wider."""

from types import SimpleNamespace

import numpy as np
import pytest

from moai_planner.accuracy.intervals import FEW_CELLS, UNTESTED_POWER, ends, interval, widening
from moai_planner.accuracy.kinds import FIRST, RATE, STEP, WHOLE
from moai_planner.accuracy.leave_out import CELL, MODEL
from moai_planner.catalog.accelerators import accelerator
from moai_planner.catalog.parameters import parameters_for
from moai_planner.domain.precision import precision

UNKNOWN_MODEL = "someone/new"


def residuals(cells: int, errors: np.ndarray, kinds=None, left_out: dict | None = None):
    """Rows of one family, `cells` engine configurations, each model in all of them."""
    n = len(errors)
    labels = SimpleNamespace(
        family=np.full(n, "vllm-cuda"),
        cell=np.arange(n) % cells,
        model=np.array([f"m{i % 3}" for i in range(n)]),
    )
    kinds = np.full(n, STEP) if kinds is None else kinds
    return SimpleNamespace(labels=labels, kinds=kinds, errors={CELL: errors, **(left_out or {})})


@pytest.mark.parametrize("cells", [1, 2, 4])
def test_few_groups_do_not_narrow_what_was_thought_before(cells):
    """One configuration that fits to a hundredth says little about the next; many do."""
    exact = np.full(24, 0.001)
    before = (0.5, 2.0)
    rows = np.ones(24, bool)
    low, high = interval(residuals(cells, exact), rows, "vllm-cuda", rows, before)
    share = (FEW_CELLS - cells) / (FEW_CELLS - 1.0)
    assert low == pytest.approx(0.5**share) and high == pytest.approx(2.0**share)
    low, high = interval(residuals(12, exact), rows, "vllm-cuda", rows, before)
    assert 0.97 < low < 1.0 < high < 1.03


def test_a_whole_widens_no_more_than_its_parts():
    """E2E latencies that were nearly exact must not blow up because a new model's were not."""
    kinds = np.array([STEP, FIRST, WHOLE, RATE] * 6)
    near = np.where(kinds == STEP, 0.1, np.where(kinds == FIRST, 0.2, 0.01))
    far = np.where(kinds == STEP, 0.15, np.where(kinds == FIRST, 0.26, 0.08))
    powers = widening(residuals(6, near, kinds, {MODEL: far}), MODEL)
    assert powers[STEP] == pytest.approx(1.5) and powers[FIRST] == pytest.approx(1.3)
    assert powers[WHOLE] == powers[RATE] == powers[STEP]


def test_what_could_not_be_left_out_is_not_taken_as_known():
    """Without a row of a kind nothing says how a new model would do."""
    powers = widening(residuals(6, np.full(24, 0.1), None, {MODEL: np.full(24, 0.1)}), MODEL)
    assert powers[STEP] == 1.0 and powers[FIRST] == UNTESTED_POWER


def test_a_library_of_its_own_makes_nobody_else_surer():
    """Law: many models of a few exact rows each, on a platform that shares nothing, widen nothing."""
    near, far = np.full(24, 0.1), np.full(24, 0.15)
    alone = residuals(6, near, None, {MODEL: far})
    many = residuals(6, np.append(near, np.full(24, 0.1)), None, {MODEL: np.append(far, np.full(24, 0.1))})
    many.labels.family = np.array(["vllm-cuda"] * 24 + ["tt-metal-tt"] * 24)
    many.labels.model = np.append(alone.labels.model, [f"t{i // 2}" for i in range(24)])
    assert widening(many, MODEL) == widening(alone, MODEL)


@pytest.mark.parametrize("metric", ["tpot_ms_mean", "ttft_ms_mean", "output_tps", "e2el_s_mean"])
def test_a_device_without_rows_is_no_surer_than_its_family(metric):
    """A new model on A100 (nothing measured there): as wide as on H100 where vLLM was, or wider."""
    width = {}
    for device in ("h100_sxm", "a100_sxm_80gb"):
        found = parameters_for(accelerator(device), "vllm", precision("bf16"))
        known, new = (
            np.log(high / low)
            for low, high in (
                ends(metric, 1.0, found, name, 0.1) for name in (found.models[0], UNKNOWN_MODEL)
            )
        )
        assert new > known > 0
        width[device] = new
    assert width["a100_sxm_80gb"] > 0.9 * width["h100_sxm"]
