"""Which host and which devices each copy of an instance gets: first-fit decreasing, largest first.

The stock rows guarantee that it succeeds, since sizes divide one another (`constraints.stock`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from moai_planner.domain.plan import Placement
from moai_planner.solver.notation import Pool


def place(wanted: Mapping[str, tuple[int, int]], pool: Pool) -> dict[str, tuple[Placement, ...]]:
    """Instance id → (devices, copies), in one pool → a placement for each copy.

    >>> place({"a": (4, 1), "b": (2, 2)}, Pool("p", 1, 8))["b"][1].devices
    ((6, 7),)
    """
    free = [list(range(pool.devices_per_node)) for _ in range(pool.nodes)]
    placed: dict[str, list[Placement]] = {instance: [] for instance in wanted}
    for instance, (devices, copies) in sorted(wanted.items(), key=lambda item: (-item[1][0], item[0])):
        for _ in range(copies):
            placed[instance].append(_take(devices, free, pool.devices_per_node))
    return {instance: tuple(copies) for instance, copies in placed.items()}


def _take(devices: int, free: list[list[int]], per_node: int) -> Placement:
    if devices > per_node:
        hosts = [i for i, left in enumerate(free) if len(left) == per_node][: -(-devices // per_node)]
        return _from_hosts(devices, hosts, free, per_node)
    return _from_hosts(
        devices, [i for i, left in enumerate(free) if len(left) >= devices][:1], free, per_node
    )


def _from_hosts(devices: int, hosts: Sequence[int], free: list[list[int]], per_node: int) -> Placement:
    taken, missing = [], devices
    for host in hosts:
        here = free[host][: min(missing, per_node)]
        # Whole nodes are not shared even where the instance leaves a device idle.
        free[host] = [] if devices > per_node else free[host][len(here) :]
        taken.append(tuple(here))
        missing -= len(here)
    if missing:
        raise AssertionError("the stock rows let through instances that do not pack")
    return Placement(tuple(hosts), tuple(taken))
