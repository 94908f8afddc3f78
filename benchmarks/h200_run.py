"""On the GPU machine: everything from the bundle to files to bring home, in bounded steps.

    python h200_run.py all --bundle . --site SITE --out OUT [--budget 28m] [--limit 9m]     there
    python h200_run.py land --home OUT/home --into hardware_profiles/measured               here, afterwards
    python h200_run.py rehearse --out out/rehearsal                   here, all of it with the CPU engine

`all` installs, checks, profiles (with torch alone where vLLM does not import or a profile fails), serves and
collects. It ends after `--limit` at the latest; given again, it goes on where it ended, until a line says
`"done": true`. A kill at any moment costs one visit. Every line it prints is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from h200_bundle import CPU_ENGINE, PIECE_BYTES, check, digest, environment, install, prepare, seconds, since

_RESERVE_S = 30.0
"Of every invocation: to end what runs and to collect."
_LEAST_JOB_S = 20.0
_FINISH_S = 60.0


@dataclass(frozen=True)
class Job:
    """One profile or one serving run; `fallback` = its flags for torch alone, None = left out then."""

    kind: str
    model: str
    flags: str
    share: float
    fallback: str | None = None

    @property
    def id(self) -> str:
        return f"{self.kind} {self.model} {self.flags}".strip()


def _profile(model: str, flags: str, share: float, fallback: str | None = None) -> Job:
    return Job("profile", model, flags, share, flags if fallback is None else fallback)


_MOE_LAYERS = "--layers 8 --precision fp8"
JOBS = (
    _profile("llama-3.1-8b-instruct", "--tp 1 --precision bf16", 3),
    _profile("meta-llama/Llama-3.1-70B-Instruct", "--tp 8,4,2 --precision fp8", 4),
    _profile("gpt-oss-120b", "--tp 1 --precision mxfp4", 3, "--tp 1 --precision bf16 --layers 8"),
    _profile("Qwen/Qwen3-30B-A3B", "--tp 1 --precision bf16", 2),
    _profile("deepseek-ai/DeepSeek-R1", f"{_MOE_LAYERS} --ep 8 --name DeepSeek-R1-8layers-ep8", 2),
    Job("serve", "llama-3.1-8b-instruct", "--precision bf16", 3),
    Job("serve", "gpt-oss-120b", "--precision mxfp4", 3),
    _profile("deepseek-ai/DeepSeek-R1", f"{_MOE_LAYERS} --ep 32 --name DeepSeek-R1-8layers-ep32", 1),
    _profile("llama-3.1-8b-instruct", "--tp 1 --precision fp8", 2),
    _profile(
        "gpt-oss-120b",
        "--tp 8,4,2 --precision mxfp4 --name gpt-oss-120b-shards",
        3,
        "--tp 8,4,2 --precision bf16 --layers 8 --name gpt-oss-120b-shards",
    ),
)
"""Shares of the time that is left when a job's turn comes; an early end loses the least valuable."""

_TINY = "--accelerator cpu --max-tokens 128 --max-batch 4 --max-context 128"
REHEARSAL_JOBS = (
    _profile("tiny-dense", f"--tp 1,2 {_TINY}", 2),
    Job("serve", "tiny-dense", "--small", 2),
    _profile("tiny-moe", _TINY, 1),
)


class State:
    """What was done, on disk after every step."""

    def __init__(self, path: Path):
        self.path = path
        self.values = json.loads(path.read_text()) if path.exists() else {"spent_s": 0.0, "jobs": {}}

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.values, indent=1) + "\n")
        os.replace(partial, self.path)


class Clock:
    """Time left in this invocation, and of the whole budget over all of them."""

    def __init__(self, state: State, budget_s: float, limit_s: float):
        self.state, self.budget_s, self.limit_s = state, budget_s, limit_s
        self.began, self.before_s = time.monotonic(), float(state.values["spent_s"])

    def note(self) -> None:
        self.state.values["spent_s"] = round(self.before_s + time.monotonic() - self.began, 1)
        self.state.save()

    def budget_left_s(self) -> float:
        return self.budget_s - self.before_s - (time.monotonic() - self.began) - _RESERVE_S

    def left_s(self) -> float:
        return min(self.limit_s - (time.monotonic() - self.began) - _RESERVE_S, self.budget_left_s())


def run_all(
    bundle: Path, site: Path, out: Path, python: str, budget_s: float, limit_s: float, jobs: tuple[Job, ...]
) -> Iterator[dict[str, object]]:
    """Go on where the last invocation ended; the last line says whether all is done."""
    out.mkdir(parents=True, exist_ok=True)
    state = State(out / "state.json")
    clock = Clock(state, budget_s, limit_s)
    try:
        waiting = yield from _receive(bundle, site, state)
        if waiting:
            return
        yield from _check(site, python, state)
        engine = state.values["engine"]
        if not engine:
            return
        for index, job in enumerate(jobs):
            yield from _do(job, jobs[index:], site, out, python, engine, clock)
    finally:
        clock.note()
    yield _collect(out, bundle, state)
    open_jobs = [job.id for job in jobs if not state.values["jobs"].get(job.id, {}).get("ended")]
    over = clock.budget_left_s() < _LEAST_JOB_S
    row = {"step": "all", "done": not open_jobs or over, "open": open_jobs, "engine": engine}
    yield {**row, "spent_s": state.values["spent_s"], "budget_s": budget_s}


def _receive(bundle: Path, site: Path, state: State) -> Iterator[dict[str, object]]:
    """Keep the pieces that came; install when all are there. Returns the names still missing."""
    manifest_path = bundle / "manifest.json"
    mark = digest(manifest_path)
    if state.values.get("installed") == mark and (site / "moai_planner").exists():
        return []
    kept = site / ".pieces"
    kept.mkdir(parents=True, exist_ok=True)
    if manifest_path.exists():
        shutil.copy(manifest_path, kept)
    if not (kept / "manifest.json").exists():
        yield {"step": "install", "done": False, "bring": ["manifest.json"]}
        return ["manifest.json"]
    manifest = json.loads((kept / "manifest.json").read_text())
    for piece in manifest["pieces"]:
        here = bundle / piece["name"]
        if here.exists() and digest(kept / piece["name"]) != piece["sha256"]:
            shutil.copy(here, kept)
    missing = [p["name"] for p in manifest["pieces"] if digest(kept / p["name"]) != p["sha256"]]
    if missing:
        yield {"step": "install", "done": False, "bring": missing}
        return missing
    yield install(kept, site)
    shutil.rmtree(kept)
    state.values["installed"], state.values["commit"] = mark, manifest.get("commit", "")
    state.save()
    return []


def _check(site: Path, python: str, state: State) -> Iterator[dict[str, object]]:
    """Which engine runs here; asked anew in each invocation, since machines differ."""
    found = check(site, python)
    missing = [str(one).partition(":")[0] for one in found.get("missing", ["everything"])]
    engine = "vllm" if not missing else "torch"
    if found.get("failed") or any(name.split(".")[0] in ("torch", "moai_planner") for name in missing):
        engine = ""
    state.values |= {"check": found, "engine": engine, "device": _device_facts()}
    state.save()
    yield {**found, "engine": engine}


def _do(
    job: Job, left: tuple[Job, ...], site: Path, out: Path, python: str, engine: str, clock: Clock
) -> Iterator[dict[str, object]]:
    """Run one job as far as time allows; torch alone where vLLM is not to be had or fails."""
    record = clock.state.values["jobs"].setdefault(job.id, {})
    if record.get("ended"):
        return
    engine = record.get("engine", engine)
    if engine == "torch" and job.fallback is None:
        record["ended"] = "left out: nothing to serve with torch alone"
        clock.note()
        yield {"step": job.kind, "job": job.id, **record}
        return
    budget_s = record.get("budget_s") or _share_s(job, left, clock)
    useful_s = max(_LEAST_JOB_S, min(0.5 * budget_s, 0.8 * clock.limit_s))
    if clock.left_s() < useful_s:  # an engine start alone would be wasted
        yield {"step": job.kind, "job": job.id, "later": "no time left in this invocation"}
        return
    record["budget_s"] = budget_s
    clock.note()
    record["engine"] = engine
    code, took_s, log = _bounded(job, engine, record, site, out, python, clock)
    record["spent_s"] = round(record.get("spent_s", 0.0) + took_s, 1)
    if code == 0:
        record["ended"] = "done"
    elif code is not None and engine == "vllm" and job.fallback is not None:
        record |= {"engine": "torch", "vllm_failed": code}
    elif code is not None:
        record["ended"] = f"failed with {code}"
    elif record["spent_s"] > 1.5 * record["budget_s"] + _LEAST_JOB_S or clock.budget_left_s() < _LEAST_JOB_S:
        done = job.kind == "profile" and _finish(job, engine, site, out, python) == 0
        record["ended"] = "cut short, table written" if done else "cut short"
    clock.note()
    yield {"step": job.kind, "job": job.id, "rc": code, "s": took_s, "log": log, **record}
    if "ended" not in record and record["engine"] != engine:
        yield from _do(job, left, site, out, python, record["engine"], clock)


def _share_s(job: Job, left: tuple[Job, ...], clock: Clock) -> float:
    """Its part of the time that is left, among the jobs that are open."""
    done = clock.state.values["jobs"]
    open_share = sum(one.share for one in left if not done.get(one.id, {}).get("ended"))
    return round(max(_LEAST_JOB_S, clock.budget_left_s() * job.share / open_share), 1)


def _command(job: Job, engine: str, budget_s: float, out: Path, python: str) -> list[str]:
    if job.kind == "serve":
        script = str(Path(__file__).resolve().with_name("h200_serve.py"))
        return [python, script, "--model", job.model, *job.flags.split(), "--out", str(out / "measured")]
    flags = job.flags if engine == "vllm" else job.fallback or ""
    return [
        python, "-m", "moai_planner.cli.main", "profile", "--engine", engine, "--model", job.model,
        *flags.split(), "--budget", f"{budget_s:.0f}s", "--out", str(out / "measured"), "--json",
    ]  # fmt: skip


def _bounded(
    job: Job, engine: str, record: dict, site: Path, out: Path, python: str, clock: Clock
) -> tuple[int | None, float, str]:
    """Exit code (None = ended by us), seconds and log of the job, killed with its children at the limit."""
    own_s = 1.5 * record["budget_s"] + _LEAST_JOB_S + 60.0 - record.get("spent_s", 0.0)
    limit_s = max(1.0, min(clock.left_s(), own_s))
    logs = out / "logs"
    logs.mkdir(exist_ok=True)
    name = f"{job.id} {engine}".replace("/", "-").replace(" ", "_")[:120] + ".log"
    began = time.monotonic()
    with open(logs / name, "ab") as output:
        process = subprocess.Popen(
            _command(job, engine, record["budget_s"], out, python),
            env=environment(site), stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            preexec_fn=_die_with_parent,
        )  # fmt: skip
        try:
            code: int | None = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
    return code, since(began), name


def _die_with_parent() -> None:
    """A killed command must not leave a child that holds the device (Linux: PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _end(process: subprocess.Popen) -> None:
    """Ask first: a serving job has a server of its own to end."""
    for how, wait_s in ((signal.SIGTERM, _RESERVE_S / 2), (signal.SIGKILL, _RESERVE_S / 2)):
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, how)
            process.wait(wait_s)


def _finish(job: Job, engine: str, site: Path, out: Path, python: str) -> int:
    """Write the table from the journal of a profile that was cut short."""
    command = [*_command(job, engine, 1.0, out, python), "--finish"]
    with open(out / "logs" / "finish.log", "ab") as output:
        try:
            return subprocess.run(
                command, env=environment(site), stdout=output, stderr=subprocess.STDOUT,
                timeout=_FINISH_S, check=False,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            return -1


def _device_facts() -> dict[str, str]:
    """What the driver says of the device: name, driver, clocks, power limit, error correction."""
    if shutil.which("nvidia-smi") is None:
        return {}
    names = (
        "name,driver_version,vbios_version,memory.total,clocks.max.sm,clocks.max.memory,power.limit,"
        "ecc.mode.current,mig.mode.current,temperature.gpu"
    )
    done = subprocess.run(
        ["nvidia-smi", f"--query-gpu={names}", "--format=csv,noheader"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return dict(zip(names.split(","), (cell.strip() for cell in done.stdout.split(",")), strict=False))


def _collect(out: Path, bundle: Path, state: State) -> dict[str, object]:
    """What to bring home, as a folder and as an archive: tables, journals, serving runs, ends of logs."""
    home = out / "home"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    if (out / "measured").exists():
        shutil.copytree(out / "measured", home / "measured")
    (home / "logs").mkdir()
    for log in sorted((out / "logs").glob("*.log")) if (out / "logs").exists() else []:
        lines = log.read_text(errors="replace").splitlines()[-200:]
        (home / "logs" / log.name).write_text("\n".join(lines) + "\n")
    shutil.copy(state.path, home / "state.json")
    archive = out / "home.tar.xz"
    with tarfile.open(archive, "w:xz", preset=2) as tar:
        tar.add(home, "home")
    found = sorted(str(path.relative_to(home)) for path in home.glob("measured/*/*/*.csv"))
    size = archive.stat().st_size
    return {"step": "collect", "home": str(home), "bytes": size, "fits": size <= PIECE_BYTES, "tables": found}


def land(home: Path, into: Path, replace: bool) -> Iterator[dict[str, object]]:
    """Check what came home and put it among the measured profiles: all of it, or nothing."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from moai_planner.profile.table import read_meta, read_profile

    problems, folders = [], sorted(path.parent for path in home.glob("measured/*/*/meta.yaml"))
    if not folders:
        raise SystemExit(f"{home}: no finished profile in it")
    for folder in folders:
        meta = read_meta(folder / "meta.yaml")
        for name, entry in meta["models"].items():
            read_profile(folder / f"{name}.csv")
            for key in (
                "config",
                "config_digest",
                "dates",
                "seed",
                "precision",
                "shards",
                "fit",
                "engine_facts",
            ):
                problems += (
                    [] if entry.get(key) not in (None, {}, []) else [f"{folder.name}: {name} lacks {key}"]
                )
        for key in ("device", "versions", "ceilings"):
            problems += [] if meta.get(key) else [f"{folder.name}: meta.yaml lacks {key}"]
        target = into / folder.parent.name / folder.name
        if target.exists() and not replace:
            problems.append(f"{target} is there: give --replace")
    if problems:
        raise SystemExit("\n".join(problems))
    for folder in folders:
        target = into / folder.parent.name / folder.name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target, ignore=shutil.ignore_patterns(".*"))
        shutil.copy(home / "state.json", target / "run.json")
        yield {"step": "land", "folder": str(target), "files": sorted(p.name for p in target.iterdir())}


def rehearse(out: Path, python: str, budget_s: float, limit_s: float) -> Iterator[dict[str, object]]:
    """Pack the CPU engine, run everything in short invocations as on the machine, land the files."""
    yield prepare(out / "bundle", CPU_ENGINE, sm90_only=False)
    for _ in range(20):
        row: dict[str, object] = {}
        where = (out / "bundle", out / "site", out / "there", python)
        for row in run_all(*where, budget_s, limit_s, REHEARSAL_JOBS):
            yield row
        if row.get("done"):
            break
    yield from land(out / "there" / "home", out / "measured", replace=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=("all", "land", "rehearse"))
    parser.add_argument("--bundle", type=Path, default=Path("."))
    parser.add_argument("--site", type=Path, default=Path("site"))
    parser.add_argument("--out", type=Path, default=Path("out/h200"))
    parser.add_argument("--home", type=Path, default=Path("out/h200/home"))
    parser.add_argument("--into", type=Path, default=Path("hardware_profiles/measured"))
    parser.add_argument("--python", default=sys.executable, help="interpreter of the machine")
    parser.add_argument("--budget", type=seconds, default=28 * 60.0, help="of all invocations, like 28m")
    parser.add_argument("--limit", type=seconds, default=9 * 60.0, help="of one invocation, like 9m")
    parser.add_argument("--jobs", choices=("h200", "rehearsal"), default="h200")
    parser.add_argument("--replace", action="store_true")
    a = parser.parse_args()
    jobs = JOBS if a.jobs == "h200" else REHEARSAL_JOBS
    if a.step == "all":
        rows = run_all(a.bundle, a.site, a.out, a.python, a.budget, a.limit, jobs)
    elif a.step == "land":
        rows = land(a.home, a.into, a.replace)
    else:
        rows = rehearse(a.out, a.python, a.budget, a.limit)
    for row in rows:
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
