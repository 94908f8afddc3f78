"""The two-level router table: weights over lanes at the front, live load inside a lane.

vllm-router has no weights (a repeated URL counts once), so an integer split needs the front; inside a lane
all members of a role are equal, so no weights are needed there.
"""

from __future__ import annotations

from typing import Any

from moai_planner.emit.launch import Front, LaneRouter, Launch, Process
from moai_planner.emit.structure import is_loopback

START_TIMEOUT_S = 3600
"A large model on cold storage takes most of an hour to load."

ROUTER_CONNECTORS = ("nixl", "mooncake", "moriio")


def router_arguments(router: LaneRouter, affinity: str) -> list[list[str]]:
    """Arguments of `vllm-router`, one group a line."""
    address = router.host if is_loopback(router.host) else "0.0.0.0"
    lines = [["--host", address], ["--port", str(router.port)]]
    if router.lane.kind == "disaggregated":
        lines += _disaggregated(router, affinity)
    else:
        lines += [["--worker-urls", *(member.url for member in router.members)]]
        lines += [["--policy", prompt_policy(router, affinity)]]
    return [
        *lines,
        ["--prometheus-host", address],
        ["--prometheus-port", str(router.metrics_port)],
        ["--worker-startup-check-interval", "1"],
    ]


def prompt_policy(router: LaneRouter, affinity: str) -> str:
    """Who computes a prompt: where its prefix or session is cached, else the less loaded of two."""
    if affinity == "session":
        return "consistent_hash"
    first = router.of_role("prefill") or router.members
    cached = any(member.instance.engine.prefix_caching for member in first)
    return "cache_aware" if cached else load_policy(first)


def load_policy(members: tuple[Process, ...]) -> str:
    """By live load; vllm-router refuses to choose the better of two where there is one."""
    return "power_of_two" if len(members) > 1 else "round_robin"


def _disaggregated(router: LaneRouter, affinity: str) -> list[list[str]]:
    lines = [["--vllm-pd-disaggregation"]]
    if router.discovery_port:
        lines += [["--vllm-discovery-address", f"0.0.0.0:{router.discovery_port}"]]
    else:
        for member in router.of_role("prefill"):
            bootstrap = [str(member.ports.bootstrap)] if member.ports.bootstrap else []
            lines += [["--prefill", member.url, *bootstrap]]
        lines += [["--decode", member.url] for member in router.of_role("decode")]
    lines += [
        ["--prefill-policy", prompt_policy(router, affinity)],
        ["--decode-policy", load_policy(router.of_role("decode"))],
    ]
    if router.connector in ROUTER_CONNECTORS:
        lines += [["--kv-connector", router.connector]]
    return lines


def router_table(launch: Launch) -> dict[str, Any]:
    """Both levels as data, for people and for other fronts."""
    return {
        "format": "moai-router-table/1",
        "plan": launch.digest,
        "affinity": launch.options.affinity,
        "deployments": [_front_entry(front, launch) for front in launch.fronts],
    }


def represented_share(router: LaneRouter, front: Front) -> float:
    """The share that the integer weights give a lane."""
    return router.lane.weight / sum(other.lane.weight for other in front.routers)


def _front_entry(front: Front, launch: Launch) -> dict[str, Any]:
    return {
        "name": front.deployment.name,
        "model": front.deployment.model_reference,
        "url": f"http://{front.host}:{front.port}",
        "lanes": [_lane_entry(router, front, launch) for router in front.routers],
    }


def _lane_entry(router: LaneRouter, front: Front, launch: Launch) -> dict[str, Any]:
    roles = ("prefill", "decode") if router.lane.kind == "disaggregated" else ("mixed",)
    return {
        "id": router.lane.id,
        "kind": router.lane.kind,
        "weight": router.lane.weight,
        "share_planned": round(router.lane.share, 6),
        "share_represented": round(represented_share(router, front), 6),
        "router": {"url": router.url, "metrics": f"http://{router.host}:{router.metrics_port}/metrics"},
        "kv_connector": router.connector,
        "members": {role: [_member_entry(m) for m in router.of_role(role)] for role in roles},
    }


def _member_entry(member: Process) -> dict[str, Any]:
    return {
        "url": member.url,
        "process": member.name,
        "host": member.host,
        "accelerator": member.instance.accelerator,
        "devices": list(member.devices),
    }
