"""The real engine: small models profiled through the command line, killed and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

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
    """A dense model and its half as a shard: every coarse point measured, errors of the few held-out points
    small beside what visits of one point differ by."""
    out = json.loads(
        _profile(tmp_path, "--model", "tiny-dense", "--tp", "1,2", "--budget", "60s", "--json", *SMALL).stdout
    )
    profile = table.read_profile(_csv(tmp_path, "tiny-dense"))
    assert set(profile.points) == {Shard(1), Shard(2)}
    for points in profile.points.values():
        assert {p.shape for p in points} >= set(sweep.coarse_grid(LIMITS))
        assert all(p.overhead_s < p.seconds for p in points)
    for fit in out["fit"].values():
        for phase in ("decode", "prefill"):
            row = fit["held_out"][phase]
            assert row["points"] > 0
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
    """Law: kill -9 in the middle and run again: what was measured stays as it was, nothing of the grid is
    measured twice, and the table is what the whole journal says, byte for byte."""
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
    before = journal.read_bytes()
    before = before[: before.rfind(b"\n") + 1]  # the kill may have torn the last line
    assert not list(journal.parent.glob("*.csv"))
    kept = tmp_path / "kept" / journal.relative_to(tmp_path / "killed")
    kept.parent.mkdir(parents=True)
    os.link(journal, kept)  # the run deletes its journal at the end; the lines stay in the linked file
    out = json.loads(_profile(tmp_path / "killed", "--json", *flags).stdout)
    lines = kept.read_bytes()
    assert lines.startswith(before)
    assert out["resumed_lines"] == before.count(b"\n") - 1
    visited = [tuple(entry["shape"]) for entry in map(json.loads, lines.splitlines()) if "shape" in entry]
    grid = [(s.phase, s.tokens, s.batch, s.context_tokens) for s in sweep.coarse_grid(LIMITS)]
    assert Counter(visited[: len(grid) * sweep.MIN_VISITS]) == dict.fromkeys(grid, sweep.MIN_VISITS)
    assert out["new_visits"] == len(visited) - before.count(b'"shape"')
    _profile(tmp_path / "kept", "--finish", *flags)
    tables = [_csv(tmp_path / part, "tiny-dense").read_bytes() for part in ("killed", "kept")]
    assert tables[0] == tables[1]


def _wait_for_journal(out, lines):
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        for path in out.glob("cpu/*/.tiny-dense.journal.jsonl"):
            if path.read_bytes().count(b"\n") >= lines:
                return path
        time.sleep(0.1)
    raise AssertionError("the journal did not grow")
