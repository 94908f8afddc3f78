"""Closed loop without an engine: a «server» that is the simulator itself, on a machine that drifts."""

import types

import numpy as np
import pytest
from profile_models import small_model
from test_profile_fit import _points

from moai_planner.cli import profile_serve
from moai_planner.domain.measured import MeasuredPoint, StepShape
from moai_planner.profile import anchor, fit, report, step_times

SETTINGS = types.SimpleNamespace(
    max_num_seqs=32, max_num_batched_tokens=2080, max_model_len=2048, platform="cpu", graphs=False
)


@pytest.fixture(scope="module")
def instance():
    points = _points("dense-100m")
    model = small_model("dense-100m")
    times = step_times.step_times(
        report.assess(model, "bf16", points, 0), fit.observe(model, "bf16", points), 32, 2080
    )
    return profile_serve._instance(times, SETTINGS, 100_000)


def _served(instance, drift, waiting=1.0, seed=0):
    """A result file of the run that a machine slower by `drift` would have given."""
    arrival_s = np.cumsum(np.random.default_rng(seed).exponential(0.5, 30))
    times = profile_serve.drifted(instance.step_times, drift, waiting)
    figures = profile_serve._simulated(instance, arrival_s - arrival_s[0], times)
    gap_s = figures["mean_tpot_ms"] / 1e3
    return {
        "start_times": list(arrival_s + 17.0), "waiting": waiting, "completed": 30,
        "ttfts": [figures["mean_ttft_ms"] / 1e3] * 30, "itls": [[gap_s] * 63] * 30,
        "output_lens": [64] * 30, "output_throughput": figures["output_throughput"],
    }  # fmt: skip


@pytest.mark.parametrize("drift", [anchor.Drift(), anchor.Drift(1.3, 1.1)])
@pytest.mark.parametrize("waiting", [1.0, 1.2])
def test_runs_of_the_simulator_itself_are_predicted_exactly(instance, drift, waiting):
    """Law: same requests, same machine, same drift → no error in any metric, whatever the arrivals were."""
    runs = [(_served(instance, drift, waiting, seed), drift) for seed in (1, 2)]
    rows = profile_serve._compare(0.25, 2.0, runs, instance)
    assert {row["metric"] for row in rows} == set(profile_serve.TOLERANCE)
    assert max(abs(row["error_frac"]) for row in rows) < 1e-3
    assert {row["verdict"] for row in rows} == {"within"}


def test_a_wrong_prediction_is_outside(instance):
    """A machine that became 40 % slower without its anchors showing it is an error, not noise."""
    runs = [(_served(instance, anchor.Drift(1.4, 1.4), 1.0, seed), anchor.Drift()) for seed in (1, 2)]
    verdicts = {row["metric"]: row["verdict"] for row in profile_serve._compare(0.25, 2.0, runs, instance)}
    assert verdicts["mean_tpot_ms"] == verdicts["mean_e2el_ms"] == "OUTSIDE"


def test_anchor_points_are_quick_and_spread():
    """The quickest and the slowest of the quick decode and plain prompt points, and some between."""

    def point(phase, tokens, batch, context, seconds):
        return MeasuredPoint(
            StepShape(phase, tokens, batch, context), seconds, seconds, seconds, 0.0, 3, 0.0, seconds
        )

    decode = [point("decode", 0, b, 16, b / 100) for b in range(1, 64)]
    prompt = [point("prefill", 128 * t, 0, 0, t / 20) for t in range(1, 5)]
    cached = [point("prefill", 64, 0, 512, 0.05), point("mixed", 64, 4, 16, 0.05)]
    found_decode, found_prompt = anchor.anchor_points([*decode, *prompt, *cached])
    assert [p.shape.batch for p in found_decode] == [1, 11, 20, 30]
    assert found_prompt == tuple(prompt)
    assert anchor.anchor_points([]) == ((), ())
