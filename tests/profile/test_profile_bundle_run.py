"""Everything on the device machine in one command: order, fallback, resuming, what comes home."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def runner(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("h200_run")


@pytest.fixture
def machine(runner, monkeypatch, tmp_path):
    """A machine where installing and checking take no time and jobs end as the test says."""
    ran, ends = [], {}

    def bounded(job, engine, record, site, out, python, clock):
        ran.append((job.model, engine, record["budget_s"]))
        return ends.get((job.model, engine), 0), ends.get("took_s", 10.0), "log"

    def receive(bundle, site, state):
        yield {"step": "install"}
        return []

    monkeypatch.setattr(runner, "_bounded", bounded)
    monkeypatch.setattr(runner, "_receive", receive)
    monkeypatch.setattr(
        runner, "check", lambda site, python: {"step": "check", "missing": ends.get("missing", [])}
    )
    monkeypatch.setattr(runner, "_finish", lambda *arguments: 0)

    def go(jobs, budget_s=600.0, limit_s=600.0):
        return list(runner.run_all(tmp_path, tmp_path, tmp_path / "out", "python", budget_s, limit_s, jobs))

    return go, ran, ends


def _jobs(runner):
    return (
        runner._profile("a", "--tp 1", 3, "--tp 1 --precision bf16"),
        runner.Job("serve", "b", "", 2),
        runner._profile("c", "", 1),
    )


def test_jobs_run_in_order_each_with_its_share(runner, machine):
    """Law: the budgets of the jobs are their shares of the time that is left; all done says so."""
    go, ran, _ = machine
    rows = go(_jobs(runner))
    assert [(model, engine) for model, engine, _ in ran] == [("a", "vllm"), ("b", "vllm"), ("c", "vllm")]
    assert ran[0][2] == pytest.approx(570 / 2, rel=0.01) and rows[-1]["done"]
    assert go(_jobs(runner))[-1]["done"] and len(ran) == 3, "nothing is run twice"


def test_without_vllm_torch_profiles_and_nothing_serves(runner, machine):
    """The check says that the engine does not import: profiles by torch, serving left out."""
    go, ran, ends = machine
    ends["missing"] = ["vllm: ImportError: x"]
    rows = go(_jobs(runner))
    assert [(model, engine) for model, engine, _ in ran] == [("a", "torch"), ("c", "torch")]
    assert rows[-1]["done"] and rows[-1]["engine"] == "torch"
    ends["missing"] = ["torch: ImportError: x"]
    assert go(_jobs(runner))[-1]["step"] == "check", "without torch there is nothing to do"


def test_a_profile_that_fails_is_taken_by_torch(runner, machine):
    """One failing job falls back alone; the others keep the engine; a serving job just fails."""
    go, ran, ends = machine
    ends |= {("a", "vllm"): 1, ("b", "vllm"): 1}
    rows = go(_jobs(runner))
    assert [(m, e) for m, e, _ in ran] == [("a", "vllm"), ("a", "torch"), ("b", "vllm"), ("c", "vllm")]
    assert [r["ended"] for r in rows if "ended" in r] == ["done", "failed with 1", "done"]


def test_a_job_cut_by_the_limit_goes_on_in_the_next_invocation(runner, machine):
    """Law: what the limit ends is open, not failed; past its time its table is written from the journal."""
    go, ran, ends = machine
    ends["a", "vllm"] = None
    rows = go(_jobs(runner)[:1])
    assert not rows[-1]["done"] and rows[-1]["open"]
    budget_s = ran[0][2]
    ends["took_s"] = 2 * budget_s
    rows = go(_jobs(runner)[:1])
    assert ran[1][2] == budget_s, "the same budget, so that the journal's run goes on"
    assert rows[-1]["done"] and any(row.get("ended") == "cut short, table written" for row in rows)


def test_pieces_may_come_one_after_the_other(runner, tmp_path, monkeypatch):
    """Each invocation keeps the pieces it finds and names those to bring; the last one installs."""
    import h200_bundle as bundle

    monkeypatch.setattr(bundle, "PIECE_BYTES", 400)
    pieces = bundle._pack(tmp_path / "x", iter([("moai_planner/a", os.urandom(900)), ("b", b"1")]))
    (tmp_path / "manifest.json").write_text(json.dumps({"pieces": pieces}))
    arriving, site = tmp_path / "arriving", tmp_path / "site"
    state = runner.State(tmp_path / "state.json")
    for number, piece in enumerate(pieces, 1):
        arriving.mkdir()
        for name in ("manifest.json", piece["name"]):
            (arriving / name).write_bytes((tmp_path / name).read_bytes())
        (row,) = runner._receive(arriving, site, state)
        left = [p["name"] for p in pieces[number:]]
        assert row.get("bring", []) == left
        for path in arriving.iterdir():
            path.unlink()
        arriving.rmdir()
    assert (site / "b").read_bytes() == b"1" and not (site / ".pieces").exists()


def test_every_job_can_be_asked_for(runner):
    """Law: each job's flags are flags of `profile`, its model is shipped and divides by its ranks."""
    from moai_planner.cli.profile import _request
    from moai_planner.profile.shard import divide

    for job in (*runner.JOBS, *runner.REHEARSAL_JOBS):
        flags = job.flags.replace("--small", "").split()
        given = dict(zip(flags[::2], flags[1::2], strict=True))
        request = _request(
            "vllm", False, job.model, given.get("--name", ""), given.get("--tp", "1"),
            int(given.get("--ep", 1)), int(given.get("--layers", 0)), given.get("--precision", "bf16"), "60s",
            Path("x"), (0, 0, 0), "2026-11-21", 0, False, False, False, "cuda",
        )  # fmt: skip
        assert all(divide(dict(request.config), shard) for shard in request.shards)


def test_only_whole_provenance_lands(runner, tmp_path):
    """A folder that came home is checked and copied; one that lacks its device or fit is refused whole."""
    shipped = BENCHMARKS.parent / "hardware_profiles/measured/cpu/vllm-0.32.0"
    home = tmp_path / "home"
    folder = home / "measured/cpu/vllm-0.32.0"
    folder.mkdir(parents=True)
    for path in shipped.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (home / "state.json").write_text("{}")
    (row,) = runner.land(home, tmp_path / "into", replace=False)
    assert "run.json" in row["files"] and (tmp_path / "into/cpu/vllm-0.32.0/dense-100m.csv").exists()
    with pytest.raises(SystemExit, match="--replace"):
        list(runner.land(home, tmp_path / "into", replace=False))
    meta = yaml.safe_load((folder / "meta.yaml").read_text())
    meta["device"] = ""
    del meta["models"]["tiny-moe"]["fit"]
    (folder / "meta.yaml").write_text(yaml.safe_dump(meta))
    with pytest.raises(SystemExit, match=r"tiny-moe lacks fit[\s\S]*lacks device"):
        list(runner.land(home, tmp_path / "elsewhere", replace=False))
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.engine
def test_rehearsal_with_torch_alone_killed_and_resumed(runner, tmp_path):
    """The command itself: no vLLM to import, killed -9 in the middle, given again until done, landed."""
    import h200_bundle as bundle

    away = tmp_path / "bundle"
    away.mkdir()
    members = [*bundle._members_of_project(), ("vllm/__init__.py", b"raise ImportError('not here')\n")]
    pieces = bundle._pack(away / "planner", iter(members))
    (away / "manifest.json").write_text(json.dumps({"pieces": pieces}))
    command = [
        sys.executable, str(BENCHMARKS / "h200_run.py"), "all", "--bundle", str(away),
        "--site", str(tmp_path / "site"), "--out", str(tmp_path / "out"), "--jobs", "rehearsal",
        "--budget", "100s", "--limit", "90s",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        journal = next((tmp_path / "out").glob("measured/cpu/*/.tiny-dense.journal.jsonl"), None)
        if journal and journal.read_bytes().count(b"\n") > 20:
            break
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)
    for _ in range(4):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        if rows[-1]["done"]:
            break
    assert rows[-1]["done"] and rows[-1]["engine"] == "torch"
    state = json.loads((tmp_path / "out/state.json").read_text())
    ended = {job.split()[0] + job.split()[1]: record.get("ended") for job, record in state["jobs"].items()}
    assert ended["profiletiny-dense"] in ("done", "cut short, table written")
    (row, *_) = runner.land(tmp_path / "out/home", tmp_path / "landed", replace=False)
    assert "tiny-dense.csv" in row["files"]
