"""The fit finds the costs that made the times, and carries to models it never saw."""

import numpy as np
import pytest
from profile_models import small_model

from moai_planner.domain.measured import MeasuredPoint, StepShape
from moai_planner.profile import features, fit, report, step_times, sweep

LIMITS = sweep.Limits(2048, 32, 2048, 1 << 30, False)
SHAPES = sweep.coarse_grid(LIMITS)
DENSE = ("dense-100m", "dense-60m", "dense-40m", "dense-deep", "dense-wide")
TRUE = {
    "step": 4e-4, "request": 2e-5, "layer": 2e-4, "rows": 4e-9, "decode_kv": 9e-11, "prefill_flop": 6e-12,
    "dense@1": 8e-11, "dense@4": 9e-11, "dense@16": 1.5e-10, "dense@64": 3.6e-10, "dense@256": 1.2e-9,
    "dense@1024": 4.7e-9, "dense@4096": 2e-8, "expert@1": 9e-11, "expert@4": 1e-10, "expert@16": 2e-10,
    "expert@64": 4e-10, "expert@256": 1.3e-9, "expert@1024": 5e-9, "latent": 6e-12,
}  # fmt: skip
COSTS = np.array([TRUE.get(name, 0.0) for name in features.COLUMNS])


def _points(name, noise=0.0, seed=0):
    """A machine that is exactly the model of the fit, with noise on each median."""
    model, generator = small_model(name), np.random.default_rng(seed)
    work = features.work(model, "bf16", SHAPES)
    engine = np.isin(features.COLUMNS, ("step", "request"))
    points = []
    for shape, row in zip(SHAPES, work, strict=True):
        seconds = float(row @ COSTS) * float(np.exp(noise * generator.normal()))
        overhead = float(row[engine] @ COSTS[engine])
        points.append(MeasuredPoint(shape, seconds, seconds, seconds, noise, 5, overhead, seconds))
    return points


@pytest.mark.parametrize("name", ["dense-100m", "tiny-moe", "tiny-mla"])
def test_one_model_without_noise_is_reproduced(name):
    """Law: times made by the equation come back from the fit of one model of each kind."""
    points = _points(name)
    costs = fit.fit([fit.observe(small_model(name), "bf16", points)])
    modelled = fit.modelled_s(costs, small_model(name), "bf16", SHAPES)
    off = np.abs(modelled / [p.seconds for p in points] - 1)
    assert np.median(off) < 0.01 and off.max() < 0.1


def test_held_out_error_is_about_the_noise():
    """With 2 % noise the held-out fifth is predicted within a few per cent."""
    points = _points("dense-100m", noise=0.02)
    found = report.assess(small_model("dense-100m"), "bf16", points, seed=0)
    rows = report.held_out_errors(found, points)
    assert rows["decode"]["median_error_frac"] < 0.05 and rows["prefill"]["median_error_frac"] < 0.05
    assert len(found.held_out) == pytest.approx(len(points) / 5, abs=2)


def test_held_out_points_never_reach_the_fit():
    """Law: changing a held-out time changes no cost and no prediction."""
    points = _points("dense-100m", noise=0.02)
    before = report.assess(small_model("dense-100m"), "bf16", points, seed=1)
    spoiled = [
        MeasuredPoint(p.shape, 9 * p.seconds, 9 * p.seconds, 9 * p.seconds, 0, 5, p.overhead_s, 9 * p.seconds)
        if p.shape in before.held_out
        else p
        for p in points
    ]
    after = report.assess(small_model("dense-100m"), "bf16", spoiled, seed=1)
    assert np.array_equal(before.costs.seconds, after.costs.seconds, equal_nan=True)
    assert before.predicted_s == after.predicted_s


def test_operators_carry_to_a_model_that_was_not_measured():
    """Law: with noise of 2 %, each dense model is predicted from the four others within 5 %."""
    family = {
        name: fit.observe(small_model(name), "bf16", _points(name, noise=0.02, seed=i))
        for i, name in enumerate(DENSE)
    }
    for row in report.transfer(family).values():
        assert max(row.values()) < 0.05


def test_an_outlier_does_not_bend_the_others():
    """One point disturbed by a factor of three leaves the median residual of the rest alone."""
    points = _points("dense-100m", noise=0.01)
    calm = fit.fit([fit.observe(small_model("dense-100m"), "bf16", points)])
    worst = points[5]
    points[5] = MeasuredPoint(worst.shape, 3 * worst.seconds, 0, 9, 0, 3, worst.overhead_s, 3 * worst.seconds)
    bent = fit.fit([fit.observe(small_model("dense-100m"), "bf16", points)])
    shapes = [p.shape for p in points if p is not points[5]]
    a, b = (fit.modelled_s(c, small_model("dense-100m"), "bf16", shapes) for c in (calm, bent))
    assert np.median(np.abs(a / b - 1)) < 0.02


def test_a_measured_point_comes_back_exactly():
    """Law: the prediction at a fitted point is the measurement."""
    points = _points("dense-100m", noise=0.1)
    observed = fit.observe(small_model("dense-100m"), "bf16", points)
    predicted = fit.predicted_s(fit.fit([observed]), observed, SHAPES)
    assert predicted == pytest.approx([p.seconds for p in points], rel=1e-6)


def test_step_times_agree_with_the_profile():
    """The simulator's step times give decode and prefill points back within their own residuals."""
    points = _points("dense-100m")
    observed = fit.observe(small_model("dense-100m"), "bf16", points)
    times = step_times.step_times(
        report.assess(small_model("dense-100m"), "bf16", points, 0), observed, 32, 2080
    )
    for point in points:
        shape = point.shape
        if shape.phase == "decode":
            got = float(times.decode_step_s(shape.batch, shape.batch * shape.context_tokens))
        else:
            pairs = shape.tokens**2 / 2 + (
                shape.context_tokens * shape.tokens if shape.phase == "prefill" else 0
            )
            kv = shape.batch * shape.context_tokens
            got = float(times.mixed_step_s(shape.step_tokens, pairs, kv))
        assert got == pytest.approx(point.seconds, rel=0.12), shape


def test_front_door_is_what_one_request_takes_beyond_its_steps():
    """Law: step times plus the door reproduce the run the door was measured with."""
    points = _points("dense-100m")
    observed = fit.observe(small_model("dense-100m"), "bf16", points)
    found = report.assess(small_model("dense-100m"), "bf16", points, 0)
    inside = step_times.step_times(found, observed, 32, 2080)
    tpot_s = float(inside.decode_step_s(1, 288)) + 0.001
    ttft_s = float(inside.mixed_step_s(256, 256**2 / 2)) + 0.005
    door = step_times.front_door(inside, 256, 64, ttft_s, tpot_s)
    assert (door.step_s, door.request_s) == (pytest.approx(0.001), pytest.approx(0.004))


def test_hats_sum_to_one_inside_the_knots():
    """Law: inside the knots the weights of a curve sum to one and reproduce a straight line."""
    for rows in (1, 3, 16, 100, 5000):
        assert features.hats(rows).sum() == pytest.approx(1.0)
        assert features.hats(rows) @ np.array(features.KNOTS) == pytest.approx(rows)


def test_decode_shape_has_no_prefill_work():
    """Work lands in the columns of its phase."""
    row = features.work(small_model("dense-100m"), "bf16", [StepShape("decode", 0, 4, 100)])[0]
    named = dict(zip(features.COLUMNS, row, strict=True))
    assert named["prefill_flop"] == 0 and named["decode_kv"] == 4 * 100 * 4 * 128 * 2 * 12
