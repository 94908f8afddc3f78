"""The real engine: small models profiled through the command line, killed and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from scipy.stats import spearmanr

from moai_planner.domain.measured import Shard
from moai_planner.profile import sweep, table

pytestmark = pytest.mark.engine
SMALL = ["--max-tokens", "256", "--max-batch", "8", "--max-context", "256"]
LIMITS = sweep.Limits(256, 8, 256, 1 << 30, graphs=False)
LIMIT_S = 400


def _command(out, *flags):
    return [
        sys.executable, "-m", "moai_planner.cli.main", "profile", "--accelerator", "cpu",
        "--date", "2026-11-21", "--out", str(out), *flags,
    ]  # fmt: skip


def _profile(out, *flags):
    done = subprocess.run(_command(out, *flags), capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def _csv(out, name):
    (path,) = out.glob(f"cpu/vllm-*/{name}.csv")
    return path


def test_dense_model_with_shards(tmp_path):
    """A dense model and its half as a shard: every coarse point measured, the half faster, errors of the few
    held-out points small beside what visits of one point differ by."""
    out = json.loads(
        _profile(tmp_path, "--model", "tiny-dense", "--tp", "1,2", "--budget", "60s", "--json", *SMALL).stdout
    )
    profile = table.read_profile(_csv(tmp_path, "tiny-dense"))
    assert set(profile.points) == {Shard(1), Shard(2)}
    for points in profile.points.values():
        assert {p.shape for p in points} >= set(sweep.coarse_grid(LIMITS))
        assert all(p.overhead_s < p.seconds for p in points)
    longest = [max(p, key=lambda q: q.seconds) for p in profile.points.values()]
    assert longest[1].seconds < longest[0].seconds
    for fit in out["fit"].values():
        for phase in ("decode", "prefill"):
            row = fit["held_out"][phase]
            assert row["median_error_frac"] < 0.25 + 2 * row["median_noise_frac"]
    folder = _csv(tmp_path, "tiny-dense").parent
    assert {p.suffix for p in folder.iterdir()} == {".csv", ".yaml", ".svg"}, "the journal is gone"


@pytest.mark.parametrize("name", ["tiny-moe", "tiny-mla"])
def test_expert_and_latent_models(tmp_path, name):
    """MoE and MLA run through the same sweep."""
    _profile(tmp_path, "--model", name, "--budget", "30s", *SMALL)
    profile = table.read_profile(_csv(tmp_path, name))
    assert {p.shape for p in profile.points[Shard()]} >= set(sweep.coarse_grid(LIMITS))


def test_killed_and_resumed_gives_the_same_table(tmp_path):
    """Law: kill -9 in the middle, run again: same shapes, in the same order of their times, nothing measured
    twice. The times themselves are as the machine is at the moment."""
    flags = ("--model", "tiny-dense", "--budget", "25s", *SMALL)
    process = subprocess.Popen(
        _command(tmp_path / "killed", *flags), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        journal = _wait_for_journal(tmp_path / "killed", lines=30)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
    before = len(journal.read_text().splitlines())
    assert not list(journal.parent.glob("*.csv"))
    out = json.loads(_profile(tmp_path / "killed", "--json", *flags).stdout)
    assert out["resumed_lines"] >= before - 2
    _profile(tmp_path / "whole", *flags)
    killed, whole = (table.read_profile(_csv(tmp_path / part, "tiny-dense")) for part in ("killed", "whole"))
    grid = sweep.coarse_grid(LIMITS)
    times = [{p.shape: p.seconds for p in one.points[Shard()]} for one in (killed, whole)]
    assert all(set(grid) <= set(found) for found in times)
    assert spearmanr(*([found[shape] for shape in grid] for found in times)).statistic > 0.8


def _wait_for_journal(out, lines):
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        for path in out.glob("cpu/*/.tiny-dense.journal.jsonl"):
            if path.read_bytes().count(b"\n") >= lines:
                return path
        time.sleep(0.1)
    raise AssertionError("the journal did not grow")
