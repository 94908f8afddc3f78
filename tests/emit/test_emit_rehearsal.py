"""The emitted scripts are started on this machine, with stand-ins for the engines.

Proves ports, addresses, roles and weights without an accelerator: N requests through the front must split
over lanes as the plan says, and after stop.sh nothing is left.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from emit_plans import golden_plan, loopback_plan

from moai_planner.emit.emit import emit
from moai_planner.emit.launch import LaunchOptions
from moai_planner.emit.ports import BASES

HERE = Path(__file__).parent
ROUTER = shutil.which("vllm-router") or shutil.which("vllm-router", path=str(Path(sys.executable).parent))
needs_nginx = pytest.mark.skipif(
    shutil.which("nginx") is None, reason="nginx is not installed (apt: nginx-light)"
)
needs_router = pytest.mark.skipif(ROUTER is None, reason="vllm-router is not installed (pip: vllm-router)")

REQUESTS = 60
START_S, STOP_S, REQUEST_S = 60, 20, 30


@needs_nginx
def test_requests_split_as_planned(tmp_path, monkeypatch):
    """Law: of N requests, each lane gets its weight's share, and prefill precedes decode."""
    stub = f"{sys.executable} {HERE / 'stub_router.py'}"
    _rehearse(tmp_path, monkeypatch, stub, offset=0)


@pytest.mark.engine
@needs_nginx
@needs_router
def test_requests_split_as_planned_by_the_real_router(tmp_path, monkeypatch):
    """Law: the same holds with the router that users run."""
    _rehearse(tmp_path, monkeypatch, ROUTER, offset=40)


@pytest.mark.engine
@needs_nginx
@needs_router
def test_a_session_stays_where_it_is(tmp_path, monkeypatch):
    """Law: with session affinity the requests of a session meet one lane and one prompt engine."""
    _shift_ports(monkeypatch, 60)
    report = emit(loopback_plan(), "bash", tmp_path / "out", LaunchOptions(affinity="session"))
    environment = _environment(tmp_path, ROUTER)
    host = tmp_path / "out" / "hosts" / "127-0-0-1"
    try:
        started = _run(host / "start.sh", environment)
        assert started.returncode == 0, started.stderr + started.stdout
        front = report.launch.fronts[0]
        met = {
            session: {_who(_ask(f"http://{front.host}:{front.port}", n, f"user-{session}")) for n in range(4)}
            for session in range(12)
        }
        assert all(len(engines) == 1 for engines in met.values()), met
        assert len(set().union(*met.values())) > 1
    finally:
        stopped = _run(host / "stop.sh", environment)
    assert stopped.returncode == 0
    assert not _processes_of(tmp_path)


def test_a_start_that_fails_says_why(tmp_path, monkeypatch):
    """Law: an engine that ends while starting fails start.sh, with the end of its log."""
    _shift_ports(monkeypatch, 80)
    emit(loopback_plan(), "bash", tmp_path / "out")
    environment = _environment(tmp_path, "") | {
        "VLLM": f"{sys.executable} -c raise(SystemExit('no-such-device'))"
    }
    host = tmp_path / "out" / "hosts" / "127-0-0-1"
    ran = _run(host / "start.sh", environment)
    assert ran.returncode == 1
    assert "no-such-device" in ran.stderr
    assert _run(host / "stop.sh", environment).returncode == 0
    assert not _processes_of(tmp_path)


STUBBORN = """import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.fork()
time.sleep(120)
"""


def test_engines_that_ignore_the_request_to_end_are_killed(tmp_path, monkeypatch):
    """Law: stop.sh leaves nothing, children included, and start.sh gives up in time."""
    _shift_ports(monkeypatch, 100)
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    emit(loopback_plan(), "bash", tmp_path / "out")
    limits = {"MOAI_START_TIMEOUT_S": "1", "MOAI_STOP_TIMEOUT_S": "1"}
    environment = (
        _environment(tmp_path, "") | {"VLLM": f"{sys.executable} {tmp_path / 'stubborn.py'}"} | limits
    )
    host = tmp_path / "out" / "hosts" / "127-0-0-1"
    try:
        ran = _run(host / "start.sh", environment, "engines")
        assert ran.returncode == 1 and "not healthy after 1 s" in ran.stderr
        assert len(_processes_of(tmp_path)) == 10
    finally:
        stopped = _run(host / "stop.sh", environment)
    assert stopped.returncode == 0 and "killed after 1 s" in stopped.stdout
    time.sleep(0.2)
    assert not _processes_of(tmp_path)


def test_what_an_earlier_plan_started_is_stopped_too(tmp_path, monkeypatch):
    """Law: after emitting another plan into the same folder, stop.sh still ends the old engines."""
    _shift_ports(monkeypatch, 110)
    plan = loopback_plan()
    emit(plan, "bash", tmp_path / "out")
    environment = _environment(tmp_path, "")
    host = tmp_path / "out" / "hosts" / "127-0-0-1"
    try:
        assert _run(host / "start.sh", environment, "engines").returncode == 0
        renamed = {"p": "p2", "d": "d2", "m": "m2"}
        instances = tuple(replace(one, id=renamed[one.id]) for one in plan.instances)
        lanes = tuple(replace(lane, members=tuple(renamed[m] for m in lane.members)) for lane in plan.lanes)
        emit(replace(plan, instances=instances, lanes=lanes), "bash", tmp_path / "out")
    finally:
        stopped = _run(host / "stop.sh", environment)
    assert stopped.stdout.count("stopped") == 5
    assert not _processes_of(tmp_path)


@needs_nginx
@pytest.mark.parametrize("affinity", ["none", "session"])
def test_front_is_valid_nginx(tmp_path, affinity):
    """Law: NGINX accepts the front."""
    emit(golden_plan(), "bash", tmp_path / "out", LaunchOptions(affinity=affinity))
    command = ["nginx", "-t", "-p", str(tmp_path), "-c", str(tmp_path / "out/front/nginx.conf")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ran.returncode == 0, ran.stderr


def _rehearse(tmp_path, monkeypatch, router: str, offset: int) -> None:
    _shift_ports(monkeypatch, offset)
    plan = loopback_plan(heavy=7, light=3)
    report = emit(plan, "bash", tmp_path / "out")
    environment = _environment(tmp_path, router)
    host = tmp_path / "out" / "hosts" / "127-0-0-1"
    try:
        started = _run(host / "start.sh", environment)
        assert started.returncode == 0, started.stderr + started.stdout
        again = _run(host / "start.sh", environment)
        assert again.returncode == 0 and again.stdout.count("runs already") == 8
        front = report.launch.fronts[0]
        replies = [_ask(f"http://{front.host}:{front.port}", number) for number in range(REQUESTS)]
        ports = {process.url.rsplit(":", 1)[1]: process for process in report.launch.processes}
        served = [ports[reply["system_fingerprint"].split(":")[0]] for reply in replies]
        lanes = Counter(process.lane.id for process in served)
        for lane in plan.lanes:
            assert abs(lanes[lane.id] - REQUESTS * lane.weight / 10) <= 1, lanes
        assert {process.instance.role for process in served} == {"decode", "mixed"}
        prefilled = [r["prefilled_by"] for r in replies if "prefilled_by" in r]
        assert len(prefilled) == lanes["pd"] and all(name.endswith("kv_producer") for name in prefilled)
        router_pd = next(one for one in report.launch.routers if one.name == "pd")
        _end_group(tmp_path / "out" / "state" / "127-0-0-1" / "router-pd.pid", router_pd.port)
        left = [_ask(f"http://{front.host}:{front.port}", number) for number in range(6)]
        assert {reply["system_fingerprint"].split(":")[1] for reply in left} == {"mixed"}
    finally:
        stopped = _run(host / "stop.sh", environment)
    assert stopped.returncode == 0
    assert not _processes_of(tmp_path), stopped.stdout
    assert _run(host / "stop.sh", environment).returncode == 0


def _shift_ports(monkeypatch, offset: int) -> None:
    """Ports of this test and this worker that nothing listens on, below those the system hands out itself."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    bases = {"front": 12_000, "api": 14_000, "router": 16_000, "router_metrics": 18_000}
    for shift in range(offset + 130 * worker, 2_000, 260):
        if all(_unused(base + shift + port) for base in bases.values() for port in range(20)):
            break
    for use, base in bases.items():
        monkeypatch.setitem(BASES, use, base + shift)


def _unused(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _environment(tmp_path: Path, router: str) -> dict[str, str]:
    return os.environ | {
        "VLLM": f"{sys.executable} {HERE / 'stub_vllm.py'}",
        "VLLM_ROUTER": router,
        "PYTHONPATH": str(HERE.parents[1]),
        "MOAI_START_TIMEOUT_S": str(START_S),
        "MOAI_STOP_TIMEOUT_S": str(STOP_S),
        "MOAI_REHEARSAL": str(tmp_path),
    }


def _end_group(pid_file: Path, port: int) -> None:
    """As if the machine had lost it; returns when its port refuses connections."""
    os.killpg(int(pid_file.read_text().split()[0]), signal.SIGKILL)
    for _ in range(50):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.1)


def _run(script: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [script, *arguments],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=3 * START_S,
        check=False,
    )


def _who(reply: dict) -> tuple[str, str]:
    """The engines that made a reply."""
    return reply["system_fingerprint"], reply.get("prefilled_by") or ""


def _ask(url: str, number: int, session: str = "") -> dict:
    body = {"model": "chat", "prompt": f"request {number}", "max_tokens": 4}
    headers = {"Content-Type": "application/json"} | ({"X-Session-Id": session} if session else {})
    request = urllib.request.Request(url + "/v1/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=REQUEST_S) as response:
        return json.loads(response.read())


def _processes_of(tmp_path: Path) -> list[str]:
    """Command lines of living processes whose environment names this rehearsal."""
    marker = f"MOAI_REHEARSAL={tmp_path}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if marker in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return [line for line in found if line]
