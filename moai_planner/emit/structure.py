"""Is the plan whole? References resolve, placements match layouts, every device is used once.

Found before anything is derived from the plan, so that later code may index without checking.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from moai_planner.domain.errors import Problem
from moai_planner.domain.plan import FORMAT, Instance, Lane, Plan, PoolUse
from moai_planner.emit.platforms import PLATFORMS

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
ROLES_OF_KIND = {"mixed": {"mixed"}, "disaggregated": {"prefill", "decode"}}


def structure_problems(plan: Plan) -> tuple[Problem, ...]:
    """Everything that keeps the plan from being turned into processes, all at once."""
    return tuple(problem for check in CHECKS for problem in check(plan))


def _problem(field: str, value: object, remedy: str) -> Problem:
    return Problem("plan", field, str(value), remedy)


def _format_known(plan: Plan) -> Iterator[Problem]:
    if plan.format != FORMAT:
        yield _problem("format", plan.format, f"emit reads {FORMAT}; plan again with this version")


def _something_to_emit(plan: Plan) -> Iterator[Problem]:
    if not plan.lanes or not plan.instances:
        yield _problem("lanes", "empty", "the plan runs nothing; there is nothing to emit")


def _names_unique(plan: Plan) -> Iterator[Problem]:
    for field, names in (
        ("pools", [pool.name for pool in plan.pools]),
        ("deployments", [deployment.name for deployment in plan.deployments]),
        ("instances", [instance.id for instance in plan.instances]),
        ("lanes", [lane.id for lane in plan.lanes]),
    ):
        for name, times in Counter(names).items():
            if times > 1:
                yield _problem(field, name, f"named {times} times; give each its own name")


def _references_resolve(plan: Plan) -> Iterator[Problem]:
    known = {
        "pool": {pool.name for pool in plan.pools},
        "deployment": {deployment.name for deployment in plan.deployments},
        "lane": {lane.id for lane in plan.lanes},
    }
    for instance in plan.instances:
        for field, names in known.items():
            if getattr(instance, field) not in names:
                where = f"instances[{instance.id}].{field}"
                yield _problem(where, getattr(instance, field), f"no such {field} in the plan")
    for lane in plan.lanes:
        if lane.deployment not in known["deployment"]:
            yield _problem(f"lanes[{lane.id}].deployment", lane.deployment, "no such deployment in the plan")


def _lanes_whole(plan: Plan) -> Iterator[Problem]:
    for lane in plan.lanes:
        members = [instance for instance in plan.instances if instance.lane == lane.id]
        where = f"lanes[{lane.id}]"
        if set(lane.members) != {instance.id for instance in members}:
            yield _problem(f"{where}.members", ", ".join(lane.members), "must be the instances that name it")
        if lane.weight < 0 or lane.weight != int(lane.weight):
            yield _problem(f"{where}.weight", lane.weight, "must be a whole number, 0 or more")
        yield from _roles_fit(lane, members, where)
    for deployment in {lane.deployment for lane in plan.lanes}:
        if not any(lane.weight > 0 for lane in plan.lanes if lane.deployment == deployment):
            yield _problem(f"deployments[{deployment}]", "0", "at least one lane needs a weight above 0")


def _roles_fit(lane: Lane, members: list[Instance], where: str) -> Iterator[Problem]:
    roles = {instance.role for instance in members}
    wanted = ROLES_OF_KIND.get(lane.kind)
    if wanted is None:
        yield _problem(f"{where}.kind", lane.kind, "must be mixed or disaggregated")
    elif roles != wanted:
        remedy = f"a {lane.kind} lane has instances of role {' and '.join(sorted(wanted))}"
        if roles & {"attention", "ffn"}:
            remedy += "; no released engine splits attention from feed-forward, so it is not emitted"
        yield _problem(f"{where}.members", "roles " + ", ".join(sorted(roles)), remedy)
    for instance in members:
        if instance.deployment != lane.deployment:
            yield _problem(f"{where}.members", instance.id, f"serves {instance.deployment}, the lane another")


def _pools_known(plan: Plan) -> Iterator[Problem]:
    for pool in plan.pools:
        platform = PLATFORMS.get(pool.platform)
        if platform is None:
            known = ", ".join(PLATFORMS)
            yield _problem(f"pools[{pool.name}].platform", pool.platform, f"known platforms: {known}")
        elif platform.refuse and any(instance.pool == pool.name for instance in plan.instances):
            yield _problem(f"pools[{pool.name}].platform", pool.platform, platform.refuse)


def _placements_match(plan: Plan) -> Iterator[Problem]:
    """V03: an instance has tp·pp·dp devices, as many on each of its nodes, whole ranks on each."""
    pools = {pool.name: pool for pool in plan.pools}
    for instance in plan.instances:
        where = f"instances[{instance.id}]"
        if instance.count != len(instance.placements):
            remedy = f"V03: {instance.count} copies need as many placements"
            yield _problem(f"{where}.placements", len(instance.placements), remedy)
        if instance.pool in pools:
            for number, _ in enumerate(instance.placements):
                yield from _placement_problems(instance, number, pools[instance.pool], where)


def _placement_problems(instance: Instance, number: int, pool: PoolUse, where: str) -> Iterator[Problem]:
    placement, layout = instance.placements[number], instance.layout
    where = f"{where}.placements[{number}]"
    sizes = {len(devices) for devices in placement.devices}
    nodes = len(placement.hosts)
    if nodes == 0 or nodes != len(placement.devices) or len(sizes) != 1:
        yield _problem(where, placement, "V03: as many devices on each of its hosts")
        return
    if nodes * sizes.pop() != layout.devices:
        yield _problem(where, placement.devices, f"V03: tp·pp·dp = {layout.devices} devices")
    if layout.dp > 1 and layout.dp % nodes:
        yield _problem(where, f"{nodes} nodes", f"V03: whole data-parallel ranks a node; dp is {layout.dp}")
    if len(set(placement.hosts)) != nodes:
        yield _problem(where, placement.hosts, "V03: each node once")
    for host, devices in zip(placement.hosts, placement.devices, strict=True):
        if not 0 <= host < len(pool.hosts):
            yield _problem(where, f"host {host}", f"pool {pool.name} has {len(pool.hosts)} hosts")
        if any(not 0 <= device < pool.devices_per_node for device in devices):
            yield _problem(where, devices, f"pool {pool.name} has {pool.devices_per_node} devices a node")


def _devices_once(plan: Plan) -> Iterator[Problem]:
    """No device belongs to two copies."""
    users: dict[tuple[str, int, int], str] = {}
    for instance in plan.instances:
        for number, placement in enumerate(instance.placements):
            for host, devices in zip(placement.hosts, placement.devices, strict=False):
                for device in devices:
                    user = f"{instance.id} copy {number}"
                    other = users.setdefault((instance.pool, host, device), user)
                    if other != user or devices.count(device) > 1:
                        where = f"pools[{instance.pool}].hosts[{host}] device {device}"
                        yield _problem(where, f"{other}, {user}", "used twice; a device serves one copy")


def _hosts_addressable(plan: Plan) -> Iterator[Problem]:
    """Hosts go into URLs and commands; a name or an IPv4 address is safe there."""
    used = {instance.pool for instance in plan.instances}
    for pool in plan.pools:
        for host in pool.hosts if pool.name in used else ():
            if not _HOST.fullmatch(host):
                yield _problem(f"pools[{pool.name}].hosts", host, "write a host name or an IPv4 address")


def _hosts_one_pool(plan: Plan) -> Iterator[Problem]:
    """Device numbers are per pool, so two device pools cannot share a machine (CPUs and loopback may)."""
    used = {instance.pool for instance in plan.instances}
    seen: dict[str, str] = {}
    for pool in plan.pools:
        if pool.name not in used or pool.platform == "cpu":
            continue
        for host in pool.hosts:
            other = seen.setdefault(host, pool.name)
            if other != pool.name and not is_loopback(host):
                yield _problem(f"pools[{pool.name}].hosts", host, f"belongs to pool {other} already")


def is_loopback(host: str) -> bool:
    """The machine itself: only for rehearsals."""
    return host == "localhost" or host.startswith("127.")


CHECKS = (
    _format_known,
    _something_to_emit,
    _names_unique,
    _references_resolve,
    _lanes_whole,
    _pools_known,
    _placements_match,
    _devices_once,
    _hosts_addressable,
    _hosts_one_pool,
)
