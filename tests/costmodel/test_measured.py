"""Measured points: given back exactly, a common error carried everywhere, the edge held outside."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moai_planner.costmodel.measured import measured_steps, modelled_s
from moai_planner.costmodel.serving import step_times
from moai_planner.domain.measured import StepShape
from moai_planner.domain.provenance import Basis
from tests.costmodel.cases import DENSE, configuration

DECODE = [StepShape("decode", 0, b, c) for b in (1, 8, 64) for c in (512, 4096)]
PREFILL = [StepShape("prefill", t, 0, c) for t in (128, 1024, 8192) for c in (0, 4096)]


@pytest.fixture(scope="module")
def modelled():
    return step_times(configuration(DENSE))


def test_points_come_back_exactly(modelled):
    """Whatever was measured is the prediction at that shape."""
    points = {shape: 0.003 * (1 + i) for i, shape in enumerate(DECODE + PREFILL)}
    steps = measured_steps(modelled, points)
    assert all(steps.step(shape) == (seconds, Basis.MEASURED) for shape, seconds in points.items())


def test_a_common_error_is_carried_everywhere(modelled):
    """A device that is 1.3 times slower than modelled at all points is so between and beyond them."""
    points = {shape: 1.3 * modelled_s(modelled, shape) for shape in DECODE + PREFILL}
    steps = measured_steps(modelled, points)
    for shape in (StepShape("decode", 0, 20, 2000), StepShape("decode", 0, 200, 9000)):
        assert steps.step(shape)[0] == pytest.approx(1.3 * modelled_s(modelled, shape))
    times = steps.step_times()
    np.testing.assert_allclose(times.decode_s[1:], 1.3 * modelled.decode_s[1:], rtol=1e-9)
    np.testing.assert_allclose(times.mixed_s, 1.3 * modelled.mixed_s, rtol=1e-3)
    assert times.kv_s == pytest.approx(1.3 * modelled.kv_s)
    assert (times.basis, times.low_frac, times.high_frac) == (
        Basis.INTERPOLATED,
        pytest.approx(1),
        pytest.approx(1),
    )


def test_between_points_lies_between_their_ratios(modelled):
    """Utilisation, not time, is interpolated, and never leaves the neighbours' range."""
    points = {shape: (1.1 + 0.05 * i) * modelled_s(modelled, shape) for i, shape in enumerate(DECODE)}
    steps = measured_steps(modelled, points)
    for batch in range(1, 65, 7):
        shape = StepShape("decode", 0, batch, 1500)
        seconds, basis = steps.step(shape)
        assert basis is Basis.INTERPOLATED
        assert 1.1 <= seconds / modelled_s(modelled, shape) <= 1.35


def test_the_edge_is_held_outside(modelled):
    """Beyond the largest batch the ratio is that of the edge, and the basis says extrapolated."""
    points = {
        StepShape("decode", 0, b, 1024): r * modelled_s(modelled, StepShape("decode", 0, b, 1024))
        for b, r in ((1, 1.0), (64, 2.0))
    }
    steps = measured_steps(modelled, points)
    far = StepShape("decode", 0, 200, 1024)
    assert steps.step(far) == (pytest.approx(2.0 * modelled_s(modelled, far)), Basis.EXTRAPOLATED)


def test_nothing_is_invented(modelled):
    """No anchor, no answer; a missing phase keeps the model's times and its weaker basis."""
    steps = measured_steps(modelled, {DECODE[0]: 0.01})
    with pytest.raises(KeyError):
        steps.step(PREFILL[0])
    times = steps.step_times()
    np.testing.assert_array_equal(times.mixed_s, modelled.mixed_s)
    assert times.basis is modelled.basis
    with pytest.raises(ValueError):
        measured_steps(modelled, {DECODE[0]: 0.0})


def test_order_of_points_does_not_matter(modelled):
    """Same points, same bytes."""
    points = {shape: 1.2 * modelled_s(modelled, shape) for shape in DECODE}
    other = dict(reversed(points.items()))
    first = measured_steps(modelled, points).step_times()
    second = measured_steps(replace(modelled), other).step_times()
    assert first.decode_s.tobytes() == second.decode_s.tobytes()
