"""Ranks timed alone answer for their layouts; a profile's own errors and its box are in the interval."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from moai_planner.catalog.accelerators import accelerator
from moai_planner.cli import measured_profiles
from moai_planner.costmodel.serving import collectives_s, measured_steps_of, step_times
from moai_planner.domain.layout import Layout
from moai_planner.domain.measured import MeasuredPoint, Shard, StepShape
from moai_planner.domain.precision import PRECISIONS
from moai_planner.domain.provenance import Basis
from moai_planner.profile.table import csv_text, read_points
from tests.costmodel.cases import DENSE, EXPERTS, configuration, with_accelerator, with_parameters
from tests.costmodel.estimate_verb import estimate

SHAPES = [StepShape("decode", 0, b, c) for b in (1, 8, 64) for c in (512, 4096)]
SHAPES += [StepShape("prefill", t, 0, 0) for t in (128, 1024, 8192)]
NO_WAIT = {"collective_hop_s": 0.0, "all_to_all_s": 0.0}


def _timed(noise_frac=0.0, held_out_frac=0.0):
    """Points of a rank, 2 ms and 10 µs a row."""
    found = []
    for shape in SHAPES:
        seconds = 0.002 + 0.00001 * (shape.step_tokens + shape.batch * shape.context_tokens / 100)
        found.append(
            MeasuredPoint(shape, seconds, seconds, seconds, noise_frac, 3, 0.0, seconds, held_out_frac)
        )
    return tuple(found)


def _with_links(c, bytes_per_s):
    c = with_accelerator(c, scale_up=replace(c.accelerator.scale_up, bytes_per_s=bytes_per_s))
    return replace(c, network_bytes_per_s=bytes_per_s)


@pytest.mark.parametrize(("which", "layout"), [(DENSE, Layout(8)), (EXPERTS, Layout(1, 1, 8, 8))])
def test_with_free_collectives_the_layout_is_its_rank(which, layout):
    """Law: infinitely fast links without latency give the table of the rank that was timed alone."""
    c = replace(configuration(which, **vars(layout)), measured=_timed())
    free = _with_links(with_parameters(c, **NO_WAIT), 1e30)
    steps = measured_steps_of(free)
    for point in c.measured:
        assert steps.step(point.shape)[0] == pytest.approx(point.seconds, rel=1e-9)
    assert all(found > 0 for found in collectives_s(c, SHAPES))
    assert measured_steps_of(c).step(SHAPES[0])[1] is c.parameters.basis


@pytest.mark.parametrize(("on", "hidden"), [("h200_sxm", True), ("cpu", False)])
def test_what_asynchronous_scheduling_hides_is_taken_off(on, hidden):
    """On a GPU the modelled share of a point's overhead disappears, on a CPU nothing does."""
    timed = tuple(replace(point, overhead_s=0.0004) for point in _timed())
    c = replace(configuration(DENSE, on=on, tp=1), measured=timed)
    taken_off = timed[0].seconds - measured_steps_of(c).step(timed[0].shape)[0]
    share = c.parameters.step_hidden_frac if hidden else 0.0
    assert taken_off == pytest.approx(0.0004 * share)
    alone = replace(c, engine=replace(c.engine, async_scheduling=False))
    assert measured_steps_of(alone).step(timed[0].shape)[0] == timed[0].seconds


def test_one_device_has_no_collectives():
    """Law: a whole model's points stay as they are, and are called measured."""
    c = replace(configuration(DENSE, tp=1), measured=_timed())
    assert collectives_s(c, SHAPES) == [0.0] * len(SHAPES)
    assert measured_steps_of(c).step(SHAPES[0]) == (c.measured[0].seconds, Basis.MEASURED)


@given(st.floats(1.01, 100.0), st.sampled_from([(DENSE, Layout(4)), (EXPERTS, Layout(1, 1, 8, 8))]))
def test_slower_links_are_never_faster(times, case):
    """Law: every step grows when the links slow down."""
    which, layout = case
    c = replace(configuration(which, **vars(layout)), measured=_timed())
    rate = c.accelerator.scale_up.bytes_per_s
    fast, slow = (measured_steps_of(_with_links(c, rate / by)) for by in (1.0, times))
    for shape in (*SHAPES, StepShape("decode", 0, 20, 1000)):
        assert slow.step(shape)[0] >= fast.step(shape)[0] * (1 - 1e-9)


@pytest.mark.parametrize("stated", [{"noise_frac": 0.08}, {"held_out_frac": 0.08}])
def test_the_profiles_own_errors_widen_the_interval(stated):
    """Noise of the visits, or held-out errors, of 8 % in the middle: 80 % of steps lie within 15 %."""
    c = replace(configuration(DENSE, tp=1), measured=_timed())
    clean, noisy = step_times(c), step_times(replace(c, measured=_timed(**stated)))
    assert noisy.high_frac >= 1.15 and noisy.low_frac <= 1 / 1.15
    assert noisy.high_frac >= clean.high_frac and noisy.low_frac <= clean.low_frac


def test_beyond_the_box_the_interval_is_the_models_too():
    """Law: leaving the measured box never narrows the interval, and says in which size."""
    c = replace(configuration(DENSE, tp=1), measured=_timed())
    steps = measured_steps_of(c)
    inside, outside = StepShape("decode", 0, 20, 1000), StepShape("decode", 0, 200, 1000)
    assert steps.beyond(inside) == () and steps.beyond(outside) == ("batch 200, measured 1 to 64",)
    low, high = steps.range_of([inside])
    wide_low, wide_high = steps.range_of([inside, outside])
    assert wide_low <= min(low, steps.modelled.low_frac) and wide_high >= max(high, steps.modelled.high_frac)


def test_which_rank_answers_for_which_layout():
    """Only layouts whose ranks `profile --tp --ep` divides alike; pipelines and mixtures stay modelled."""
    dense, moe = configuration(DENSE).model, configuration(EXPERTS).model
    shard = measured_profiles.shard_of
    assert shard(Layout(4), dense) == shard(Layout(4, 1, 2), dense) == Shard(4)
    assert shard(Layout(1, 1, 8, 8), moe) == Shard(1, 8)
    for layout in (Layout(8, ep=8), Layout(1, 1, 8), Layout(2, 1, 4, 8), Layout(1, 1, 32, 32)):
        assert shard(layout, moe) is None
    assert shard(Layout(4, 2), dense) is None


@pytest.fixture
def halved(tmp_path, monkeypatch):
    """The shipped CPU profiles, with a rank of tp 2 that takes half the time."""
    folder = tmp_path / "cpu" / "vllm-0.32.0"
    shutil.copytree(measured_profiles.measured_root() / "cpu" / "vllm-0.32.0", folder)
    points, edges = read_points(folder / "dense-100m.csv")
    half = [
        replace(p, seconds=p.seconds / 2, low_s=p.low_s / 2, high_s=p.high_s / 2) for p in points[Shard()]
    ]
    (folder / "dense-100m.csv").write_text(csv_text({**points, Shard(2): tuple(half)}, edges))
    monkeypatch.setattr(measured_profiles, "measured_root", lambda: tmp_path)
    return folder


def _estimate(capsys, monkeypatch, *flags):
    asked = ("dense-100m", "--on", "cpu", "--context", "512", "--isl", "512", "--osl", "64", *flags)
    return json.loads(estimate(capsys, monkeypatch, *asked, "--json")[1])


def test_a_timed_rank_answers_for_tensor_parallelism(halved, capsys, monkeypatch):
    """tp 2 is its rank's time and the modelled collectives, and says so."""
    one = _estimate(capsys, monkeypatch, "--batch", "8")
    two = _estimate(capsys, monkeypatch, "--batch", "8", "--tp", "2")
    assert two["source"] == "measured shard + modelled collectives"
    rank_s = one["predicted"]["decode_step_s"]["value"] / 2
    assert rank_s < two["predicted"]["decode_step_s"]["value"] < 3 * rank_s
    assert two["predicted"]["decode_step_s"]["basis"] == "assumed"
    assert _estimate(capsys, monkeypatch, "--batch", "8", "--tp", "4")["source"] == "assumed"


def test_past_the_measured_batch_is_said(capsys, monkeypatch):
    """A batch above the largest measured one: a line says so, and the interval is wider."""
    inside = _estimate(capsys, monkeypatch, "--batch", "32")
    beyond = _estimate(capsys, monkeypatch, "--batch", "120")
    said = [line for line in beyond["assumptions"] if line.startswith("beyond what was measured")]
    assert len(said) == 1 and "decode batch 120, measured 1 to 32" in said[0]
    assert not any(line.startswith("beyond") for line in inside["assumptions"])

    def width(found):
        step = found["predicted"]["decode_step_s"]
        return step["high"] / step["low"]

    assert width(beyond) > width(inside)


def test_another_engines_profile_never_answers(halved):
    """Law: steps timed by torch alone are not the engine's, however equal the model."""
    meta = yaml.safe_load((halved / "meta.yaml").read_text())
    other = halved.with_name("torch-9.9.9")
    halved.rename(other)
    (other / "meta.yaml").write_text(yaml.safe_dump({**meta, "engine": "torch", "engine_version": "9.9.9"}))
    cpu, model = accelerator("cpu"), measured_profiles.model_on("dense-100m", "cpu")
    asked = (model, PRECISIONS["bf16"], Layout())
    assert measured_profiles.profile_for(cpu, "vllm", *asked) == ()
    assert measured_profiles.profile_for(cpu, "torch", *asked)
