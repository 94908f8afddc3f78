"""The design of a sweep."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moai_planner.domain.measured import StepShape
from moai_planner.profile import sweep
from moai_planner.profile.interpolate import interpolate

LIMITS = sweep.Limits(tokens=2048, batch=32, context_tokens=2048, kv_tokens=1 << 30, graphs=False)


@given(
    st.integers(32, 16384),
    st.integers(1, 512),
    st.integers(64, 32768),
    st.integers(256, 1 << 22),
    st.booleans(),
)
def test_grid_stays_inside_its_limits(tokens, batch, context, kv, graphs):
    """Law: no point asks for more tokens, sequences, context or KV than the limits allow."""
    limits = sweep.Limits(tokens, batch, context, kv, graphs)
    assert all(sweep.fits(shape, limits) for shape in sweep.coarse_grid(limits))


def test_grid_has_corners_edges_and_every_phase():
    """The coarse grid spans the box and looks just past tile edges."""
    grid = set(sweep.coarse_grid(LIMITS))
    for shape in (
        StepShape("prefill", 2048, 0, 0),
        StepShape("prefill", 257, 0, 0),
        StepShape("prefill", 128, 0, 1920),
        StepShape("decode", 0, 1, 16),
        StepShape("decode", 0, 32, 2048),
    ):
        assert shape in grid
    assert any(shape.phase == "mixed" for shape in grid)


def test_graph_sizes_add_a_batch_just_past_one():
    """Where graphs are captured, a batch of one more than a captured size is measured."""
    batches = {s.batch for s in sweep.coarse_grid(sweep.Limits(2048, 256, 2048, 1 << 30, True))}
    assert {9, 65, 129} <= batches


def test_refinement_goes_where_neighbours_predict_worst():
    """A step in the curve draws the next point beside it."""

    def seconds(batch):
        return 1.0 if batch <= 8 else 3.0

    measured = {StepShape("decode", 0, b, 64): seconds(b) for b in (1, 2, 4, 8, 32, 128)}

    def predict(known, shape):
        logs = {other: math.log(value) for other, value in known.items()}
        return math.exp(interpolate(logs, [shape])[0])

    errors = sweep.leave_one_out(measured, predict)
    found = sweep.refine(measured, errors, [], sweep.Limits(2048, 256, 2048, 1 << 30, False))
    assert 8 < found.batch < 128


def test_refinement_ends():
    """Law: refining stops by itself when no midpoint is apart from its neighbours."""
    measured = {StepShape("decode", 0, b, 64): float(b) for b in (1, 2)}
    for _ in range(50):
        found = sweep.refine(measured, dict.fromkeys(measured, 1.0), [], LIMITS)
        if found is None:
            break
        measured[found] = 1.0
    assert found is None


def test_held_out_is_a_random_fifth_of_each_phase():
    """Law: same seed, same points; another seed, others; a fifth of each phase."""
    grid = sweep.coarse_grid(LIMITS)
    held = sweep.held_out(grid, seed=3)
    assert held == sweep.held_out(reversed(grid), seed=3)
    assert held != sweep.held_out(grid, seed=4)
    for phase in ("prefill", "decode"):
        whole = [s for s in grid if s.phase == phase]
        assert len([s for s in held if s.phase == phase]) == pytest.approx(len(whole) / 5, abs=1)


@given(st.lists(st.integers(1, 256), min_size=2, max_size=12, unique=True), st.data())
def test_interpolation_is_exact_at_points_and_held_outside(batches, data):
    """Law: a measured value comes back; outside the box the edge's value is held."""
    values = {
        StepShape("decode", 0, batch, 64): data.draw(st.floats(-3, 3), label=str(batch)) for batch in batches
    }
    found = interpolate(values, list(values))
    assert found == pytest.approx(list(values.values()), abs=1e-6)
    beyond = interpolate(values, [StepShape("decode", 0, 4 * max(batches), 64)])[0]
    assert beyond == pytest.approx(values[StepShape("decode", 0, max(batches), 64)], abs=1e-6)
