"""Measured profiles as the first source: exact where timed, named in the answer, refused when broken."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from moai_planner.catalog.accelerators import accelerator
from moai_planner.catalog.parameters import parameters_for
from moai_planner.cli import measured_profiles
from moai_planner.costmodel.configuration import Configuration
from moai_planner.costmodel.serving import measured_steps_of, step_times
from moai_planner.domain.layout import Engine, Layout
from moai_planner.domain.precision import PRECISIONS
from moai_planner.domain.provenance import Basis
from tests.costmodel.estimate_verb import estimate

ONE = Layout()
BF16 = PRECISIONS["bf16"]
QUESTION = ("dense-100m", "--on", "cpu", "--batch", "8", "--context", "512", "--isl", "512", "--osl", "64")


def _profiled(layout: Layout = ONE, precision=BF16):
    cpu = accelerator("cpu")
    return measured_profiles.profile_for(
        cpu, "vllm", measured_profiles.model_on("dense-100m", "cpu"), precision, layout
    )


def _configuration() -> Configuration:
    cpu, model = accelerator("cpu"), measured_profiles.model_on("dense-100m", "cpu")
    engine = Engine(max_num_seqs=32, max_num_batched_tokens=2048, max_model_len=4096, graphs=False)
    network = cpu.scale_out_bytes_per_s
    return Configuration(
        cpu, model, BF16, ONE, engine, 1, network, parameters_for(cpu, "vllm", BF16), _profiled()
    )


def test_a_timed_step_is_the_estimate(capsys, monkeypatch):
    """Batch 8 at context 512 and a prompt of 512 were timed: those seconds come out, and are called so."""
    code, out, _ = estimate(capsys, monkeypatch, *QUESTION, "--json")
    found = json.loads(out)
    timed = {(p.shape.phase, p.shape.tokens, p.shape.batch, p.shape.context_tokens): p for p in _profiled()}
    decode, prompt = found["predicted"]["decode_step_s"], found["predicted"]["prefill_s"]
    assert code == 0 and found["source"] == "measured profile" and found["basis"] == "interpolated"
    assert decode["value"] == timed["decode", 0, 8, 512].seconds and decode["basis"] == "measured"
    assert prompt["value"] == timed["prefill", 512, 0, 0].seconds and prompt["basis"] == "measured"
    assert found["predicted"]["ttft_s"]["basis"] == "assumed"
    assert any("dense-100m of vllm 0.32.0 on cpu" in line for line in found["assumptions"])


@pytest.mark.parametrize(("batch", "basis"), [("5", "interpolated"), ("200", "extrapolated")])
def test_between_and_beyond_are_called_so(capsys, monkeypatch, batch, basis):
    """What was not timed says by its basis how far it is from what was."""
    asked = ("dense-100m", "--on", "cpu", "--batch", batch, "--context", "700", "--isl", "512", "--osl", "64")
    _, out, _ = estimate(capsys, monkeypatch, *asked, "--json")
    assert json.loads(out)["predicted"]["decode_step_s"]["basis"] == basis


def test_no_profile_is_the_model_alone(capsys, monkeypatch):
    """The flag gives what an unprofiled model gets."""
    _, out, _ = estimate(capsys, monkeypatch, *QUESTION, "--no-profile", "--json")
    found = json.loads(out)
    bases = {figure["basis"] for figure in found["predicted"].values()}
    assert bases == {found["basis"]} == {found["source"]} == {"assumed"}


def test_tables_are_the_points_ratios():
    """Programme and simulator read tables from the points; every point is near, and the interval says how."""
    c = _configuration()
    times, modelled = step_times(c), step_times(replace(c, measured=()))
    assert times.basis is Basis.INTERPOLATED and modelled.basis is Basis.ASSUMED
    assert np.all(np.diff(times.decode_s[1:]) >= 0)
    steps = measured_steps_of(c)
    middle = next(p for p in c.measured if (p.shape.batch, p.shape.context_tokens) == (8, 512))
    assert steps.step(middle.shape) == (middle.seconds, Basis.MEASURED)
    assert float(times.decode_step_s(8, 8 * 512)) == pytest.approx(middle.seconds, rel=0.1)
    assert measured_steps_of(replace(c, measured=())) is None


@pytest.mark.parametrize("layout", [Layout(tp=2), Layout(pp=2)])
def test_only_the_same_thing_is_answered_for(layout):
    """Another layout, number format or engine was not timed; the name of the model does not matter."""
    assert _profiled() and not _profiled(layout) and not _profiled(precision=PRECISIONS["fp8"])
    cpu, model = accelerator("cpu"), measured_profiles.model_on("dense-100m", "cpu")
    assert measured_profiles.profile_for(cpu, "vllm", replace(model, id="mine"), BF16, ONE) == _profiled()
    assert not measured_profiles.profile_for(cpu, "sglang", model, BF16, ONE)
    assert not measured_profiles.profile_for(cpu, "vllm", replace(model, layers=13), BF16, ONE)


@pytest.mark.parametrize(("file", "spoil"), [("dense-100m.csv", "nan"), ("meta.yaml", "format")])
def test_a_broken_profile_is_refused(capsys, monkeypatch, tmp_path, file, spoil):
    """Exit 2 with file and line; never the model's answer instead."""
    folder = tmp_path / "cpu" / "vllm-0.32.0"
    shutil.copytree(measured_profiles.measured_root() / "cpu" / "vllm-0.32.0", folder)
    lines = (folder / file).read_text().split("\n")
    lines[2] = lines[2].replace("0.0101442", spoil) if file.endswith("csv") else "  [: broken"
    (folder / file).write_text("\n".join(lines))
    monkeypatch.setattr(measured_profiles, "measured_root", lambda: tmp_path)
    code, out, err = estimate(capsys, monkeypatch, *QUESTION)
    assert code == 2 and out == "" and file in err and "line 3" in err
