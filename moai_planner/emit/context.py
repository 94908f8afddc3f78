"""Launch → the plain values that templates place: everything that is computed is computed here."""

from __future__ import annotations

from typing import Any

from moai_planner import __version__
from moai_planner.domain.layout import Layout
from moai_planner.emit.digest import SHORT
from moai_planner.emit.engine_args import engine_arguments, router_of, shared_kv_folder
from moai_planner.emit.environment import engine_environment
from moai_planner.emit.launch import Front, LaneRouter, Launch, Process, slug, unique_slugs
from moai_planner.emit.platforms import ENGINE_PROFILE
from moai_planner.emit.routers import (
    START_TIMEOUT_S,
    load_policy,
    prompt_policy,
    represented_share,
    router_arguments,
    router_table,
)
from moai_planner.emit.rules import Finding
from moai_planner.emit.structure import is_loopback

Context = dict[str, Any]


def contexts(launch: Launch, findings: tuple[Finding, ...]) -> dict[str, list[Context]]:
    """Values for each unit that a file may be rendered for: plan, host, process, lane."""
    common = {"header": header(launch), "start_timeout_s": START_TIMEOUT_S}
    names = unique_slugs(launch.hosts)
    hosts = [_host(host, names[host], launch) for host in launch.hosts]
    by_address = {host["address"]: host for host in hosts}
    return {
        "plan": [common | _plan(launch, hosts, findings)],
        "host": [common | {"host": host} for host in hosts],
        "process": [
            common | {"host": by_address[process.host], "process": _process(process, launch)}
            for process in launch.processes
        ],
        "lane": [common | {"router": _router(router, launch)} for router in launch.routers],
    }


def header(launch: Launch) -> str:
    """First line of every file: which plan, which tool, which engine releases."""
    return f"plan {launch.digest[:SHORT]}, moai-planner {__version__}, for {ENGINE_PROFILE}"


def _plan(launch: Launch, hosts: list[Context], findings: tuple[Finding, ...]) -> Context:
    plan = launch.plan
    return {
        "plan": {
            "short": launch.digest[:SHORT],
            "status": plan.status,
            "cost": f"{plan.cost_usd_per_h:.2f} USD/h",
        },
        "engine_profile": ENGINE_PROFILE,
        "hosts": hosts,
        "front_host": launch.fronts[0].host,
        "fronts": [_front(front) for front in launch.fronts],
        "session_affinity": launch.options.affinity == "session",
        "affinity_text": _AFFINITY_TEXT[launch.options.affinity],
        "lanes": [_lane_row(router, front, launch) for front in launch.fronts for router in front.routers],
        "placement": [_placement_row(process) for process in launch.processes],
        "model_variables": list(
            dict.fromkeys(name for process in launch.processes for name in model_variables(process, launch))
        ),
        "warnings": list(dict.fromkeys(str(f) for f in findings if f.severity == "warn")),
        "assumptions": [_one_line(line) for line in plan.assumptions],
        "router_table": router_table(launch),
    }


_AFFINITY_TEXT = {
    "none": "none; each request is routed on its own.",
    "session": "requests with the same `x-session-id` header stay in one lane and on one worker.",
}


def _front(front: Front) -> Context:
    address = f"{front.host}:{front.port}" if is_loopback(front.host) else str(front.port)
    return {
        "name": front.name,
        "deployment": _cell(front.deployment.name),
        "model": _cell(front.deployment.model_reference),
        "upstream": f"lanes_{front.name.replace('-', '_')}",
        "listen": address,
        "url": f"http://{front.host}:{front.port}",
        "lanes": [
            {
                "address": f"{router.host}:{router.port}",
                "weight": router.lane.weight,
                "comment": router.name,
            }
            for router in front.routers
            if router.lane.weight > 0
        ],
    }


def _lane_row(router: LaneRouter, front: Front, launch: Launch) -> Context:
    policy = prompt_policy(router, launch.options.affinity)
    disaggregated = router.lane.kind == "disaggregated"
    decode_policy = load_policy(router.of_role("decode"))
    return {
        "id": _cell(router.lane.id),
        "kind": f"{router.lane.kind} ({router.connector})" if disaggregated else router.lane.kind,
        "weight": router.lane.weight,
        "planned": f"{router.lane.share:.2%}",
        "represented": f"{represented_share(router, front):.2%}",
        "url": router.url,
        "policies": f"prefill {policy}, decode {decode_policy}" if disaggregated else policy,
    }


def _placement_row(process: Process) -> Context:
    named = {
        "side channel": process.ports.side_channel,
        "bootstrap": process.ports.bootstrap,
        "handshake": process.ports.handshake,
        "notify": process.ports.notify,
        "master": process.ports.master if process.rank == 0 else 0,
        "data parallel": process.ports.dp_rpc if process.rank == 0 else 0,
    }
    return {
        "host": process.host,
        "process": process.name,
        "role": process.instance.role,
        "accelerator": _cell(process.instance.accelerator),
        "devices": ", ".join(str(device) for device in process.devices),
        "layout": _layout_text(process.instance.layout, process),
        "port": str(process.ports.api) if process.serves else "–",
        "other_ports": ", ".join(f"{name} {port}" for name, port in named.items() if port) or "–",
    }


def _layout_text(layout: Layout, process: Process) -> str:
    return f"{layout}, node {process.rank + 1} of {process.nodes}" if process.nodes > 1 else str(layout)


def _host(host: str, name: str, launch: Launch) -> Context:
    processes = [process for process in launch.processes if process.host == host]
    routers = [router for router in launch.routers if router.host == host]
    folders = [_shared_folder(process, launch) for process in processes]
    return {
        "address": host,
        "name": name,
        "processes": [{"name": p.name, "health_url": _health_url(p.host, p.ports.api)} for p in processes],
        "routers": [
            {"process": f"router-{router.name}", "health_url": _health_url(host, router.port)}
            for router in routers
        ],
        "front_health_urls": [
            _health_url(host, front.port, "/front-health") for front in launch.fronts if front.host == host
        ],
        "shared_folders": sorted({folder for folder in folders if folder}),
    }


def _health_url(host: str, port: int, path: str = "/health") -> str:
    """As seen on the host itself; empty for a process that answers no requests."""
    address = host if is_loopback(host) else "127.0.0.1"
    return f"http://{address}:{port}{path}" if port else ""


def _process(process: Process, launch: Launch) -> Context:
    instance = process.instance
    devices = ", ".join(str(device) for device in process.devices)
    return {
        "name": process.name,
        "title": _one_line(
            f"{process.name}: {instance.role} of {process.deployment.name} on {process.host}, "
            f"{instance.accelerator} {devices}, {_layout_text(instance.layout, process)}"
        ),
        "arguments": list(engine_arguments(process, launch).items()),
        "environment": engine_environment(process, launch),
        "model_variables": model_variables(process, launch),
        "transfers_kv": bool(process.connector),
        "shared_folder": _shared_folder(process, launch),
    }


def model_variables(process: Process, launch: Launch) -> list[str]:
    """Names of the variables that replace the weights location, the first set one wins."""
    own = "MODEL_" + slug(process.deployment.name).replace("-", "_").upper()
    served = {router.deployment.name for router in launch.routers}
    return [own, "MODEL"] if len(served) == 1 else [own]


def _shared_folder(process: Process, launch: Launch) -> str:
    if process.connector != "example":
        return ""
    return shared_kv_folder(router_of(process, launch), launch)


def _router(router: LaneRouter, launch: Launch) -> Context:
    return {
        "name": router.name,
        "title": _one_line(
            f"router of lane {router.lane.id} ({router.lane.kind}) of {router.deployment.name}"
        ),
        "arguments": router_arguments(router, launch.options.affinity),
    }


def _one_line(text: str) -> str:
    """For comments, which end with their line and hold no control characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))


def _cell(text: str) -> str:
    """For a table of Markdown."""
    return _one_line(text).replace("|", "\\|")
