"""Layers timed by torch alone: refusals without it; with it (mark `engine`) the files, the kinds, a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import yaml
from profile_models import small_model

from moai_planner.domain.errors import InputError
from moai_planner.domain.measured import Shard, StepShape
from moai_planner.profile import sweep, table, torch_engine, torch_layers

SMALL = ["--max-tokens", "128", "--max-batch", "4", "--max-context", "128"]
MIXED = StepShape("mixed", 17, 3, 50)
LIMITS = sweep.Limits(128, 4, 128, 1 << 30, graphs=False)


def test_what_torch_lacks_is_refused_before_anything_is_allocated():
    """Formats and attention forms without an operator: every problem at once."""
    dense = small_model("tiny-dense")
    linear = replace(dense, attention=(replace(dense.attention[0], kind="linear"),))
    with pytest.raises(InputError) as caught:
        torch_engine.check_model(linear, "mxfp4", "cuda")
    assert {p.file for p in caught.value.problems} == {"--precision", "--model"}
    sparse = replace(dense, attention=(replace(dense.attention[0], sparse_top_k_tokens=64),))
    with pytest.raises(InputError, match="sparse"):
        torch_engine.check_model(sparse, "bf16", "cpu")
    torch_engine.check_model(dense, "bf16", "cpu")


def test_layers_timed_are_more_than_a_cache_and_no_more_than_there_are():
    """Small layers all, large ones two."""
    model = small_model("dense-100m")
    part = model.attention[0]
    assert torch_layers.copies(part.layers, torch_layers.attention_bytes(model, part, fp8=False)) == 12
    assert torch_layers.copies(80, torch_layers._TIMED_BYTES) == 2


def _command(out, *flags):
    return [
        sys.executable, "-m", "moai_planner.cli.main", "profile", "--engine", "torch", "--accelerator", "cpu",
        "--date", "2026-11-21", "--out", str(out), *flags,
    ]  # fmt: skip


def _profile(out, *flags):
    done = subprocess.run(_command(out, *flags), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.engine
def test_files_are_the_engines_but_for_the_name(tmp_path):
    """Same table, same sweep, two shards; filed and named as torch's."""
    out = _profile(tmp_path, "--model", "tiny-dense", "--tp", "1,2", "--budget", "20s", "--json", *SMALL)
    (csv,) = tmp_path.glob("cpu/torch-*/tiny-dense.csv")
    profile = table.read_profile(csv)
    meta = yaml.safe_load((csv.parent / "meta.yaml").read_text())
    assert (profile.engine, meta["engine"]) == ("torch", "torch") and meta["time_basis"] == "cpu"
    assert {"matrix_bf16_flop_per_s", "copy_bytes_per_s"} <= set(meta["ceilings"])
    assert set(profile.points) == {Shard(1), Shard(2)} and set(out["fit"]) == {"tp1-ep1", "tp2-ep1"}
    for points in profile.points.values():
        assert {p.shape for p in points} >= set(sweep.coarse_grid(LIMITS))


@pytest.mark.engine
@pytest.mark.parametrize("name", ["tiny-moe", "tiny-mla"])
def test_expert_and_latent_models(tmp_path, name):
    """Experts (with a share of them too) and latent attention run through the same sweep."""
    _profile(tmp_path, "--model", name, "--ep", "4", "--budget", "10s", "--json", *SMALL)
    (csv,) = tmp_path.glob(f"cpu/torch-*/{name}.csv")
    points = table.read_profile(csv).points[Shard(1, 4)]
    assert {p.shape for p in points} >= set(sweep.coarse_grid(LIMITS))


@pytest.mark.engine
@pytest.mark.parametrize("name", ["tiny-dense", "tiny-moe", "tiny-mla"])
def test_narrow_weights_run_through_every_layer(name):
    """Products in fp8 run on a CPU too, slowly: a layer of each form gives finite rows of its shape."""
    import torch

    model = small_model(name)
    bench = torch_layers.Bench(torch, "cpu", model, True, 4096)
    with torch.inference_mode():
        stacks = [torch_layers.attention(bench, replace(part, layers=1)) for part in model.attention]
        stacks += [torch_layers.feed_forward(bench, replace(part, layers=1)) for part in model.feed_forward]
        for shape in (StepShape("prefill", 40, 0, 16), StepShape("decode", 0, 3, 50), MIXED):
            for stack in stacks:
                rows = stack.prepare(shape)()
                assert rows.shape == (shape.step_tokens, model.hidden_size) and bool(rows.isfinite().all())
            assert torch_layers.ends(bench).prepare(shape)().shape == (shape.batch + (shape.tokens > 0),)


@pytest.mark.engine
def test_windows_and_depth(monkeypatch):
    """A windowed layer attends to no more than its window; twice the layers are twice the work."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model = small_model("dense-40m")
    part = model.attention[0]
    attend, lengths = torch.nn.functional.scaled_dot_product_attention, []

    def recorded(query, key, *rest, **options):
        lengths.append(key.shape[-2])
        return attend(query, key, *rest, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", recorded)

    def work_of(part, shape):
        """Longest context that attention reads, and flop of the products of all layers."""
        lengths.clear()
        bench = torch_layers.Bench(torch, "cpu", model, False, 32 * 2048)
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            stack = torch_layers.attention(bench, part)
            stack.prepare(shape)()
        return max(lengths), counter.get_total_flops() * stack.layers / stack.copies

    windowed = replace(part, window_tokens=64)
    decode, prefill = StepShape("decode", 0, 32, 2000), StepShape("prefill", 300, 0, 200)
    assert [work_of(one, decode)[0] for one in (part, windowed)] == [2000, 64]
    assert [work_of(one, prefill)[0] for one in (part, windowed)] == [300, 64]
    deeper = replace(part, layers=2 * part.layers)
    assert work_of(deeper, decode)[1] == 2 * work_of(part, decode)[1] > 0


@pytest.mark.engine
def test_a_kill_is_resumed(tmp_path):
    """Kill -9, run again: the journal's visits are kept."""
    flags = ("--model", "tiny-dense", "--budget", "15s", "--json", *SMALL)
    process = subprocess.Popen(
        _command(tmp_path, *flags),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        journal = None
        while time.monotonic() < deadline:
            journal = next(tmp_path.glob("cpu/*/.tiny-dense.journal.jsonl"), None)
            if journal and journal.read_bytes().count(b"\n") > 20:
                break
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
    before = len(journal.read_text().splitlines())
    assert _profile(tmp_path, *flags)["resumed_lines"] >= before - 2
