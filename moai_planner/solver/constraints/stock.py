"""Instances fit on the nodes there are, whole, not just their devices on the devices."""

from __future__ import annotations

from pulp import LpAffineExpression

from moai_planner.solver.constraints import Rows
from moai_planner.solver.notation import Pool, Problem
from moai_planner.solver.variables import Variables


def stock(problem: Problem, v: Variables) -> Rows:
    r"""Node packing: for each size, the instances of that size and above leave room for no more.

        sum_{c in a, size(c) >= s}  slots(c,s)·n[c]  <=  nodes[a]·floor(G[a]/s)     for all pools a, sizes s

    G devices a node.  slots(c,s) = size(c)/s for an instance inside a node, and floor(G/s) for each whole
    node of an instance that spans nodes.  Where each size divides the next (the layouts' powers of two)
    these rows are necessary and sufficient: first-fit decreasing fills every slot (E. Coffman, M. Garey, D.
    Johnson, Bin packing with divisible item sizes, J. Complexity 3, 1987).  A row for a size that divides G
    is implied by the row of the smallest size when that divides G too.  Rows: stock_<pool index>_<size>.
    """
    for a, pool in enumerate(problem.pools):
        columns = [c for c in problem.columns if c.pool == pool.name]
        for size in packing_sizes(pool, [c.devices for c in columns]):
            terms = [
                (v.n[c.id], float(slots(c.devices, size, pool.devices_per_node)))
                for c in columns
                if c.devices >= size
            ]
            yield (
                f"stock_{a}_{size}",
                LpAffineExpression(terms) <= pool.nodes * (pool.devices_per_node // size),
            )


def packing_sizes(pool: Pool, devices: list[int]) -> list[int]:
    """Sizes that need a row.

    >>> packing_sizes(Pool("a", 2, 8), [1, 4, 8, 16]), packing_sizes(Pool("a", 2, 6), [1, 4])
    ([1], [1, 4])
    """
    per_node = pool.devices_per_node
    sizes = sorted({min(size, per_node) for size in devices})
    if not sizes:
        return []
    smallest = sizes[0]
    implied = [s for s in sizes[1:] if per_node % s == 0 and per_node % smallest == 0 and s % smallest == 0]
    return [size for size in sizes if size not in implied]


def slots(devices: int, size: int, devices_per_node: int) -> int:
    """Places for an instance of `size` that one of `devices` takes away.

    >>> slots(4, 2, 8), slots(16, 2, 8), slots(12, 8, 8)
    (2, 8, 2)
    """
    if devices > devices_per_node:
        return -(-devices // devices_per_node) * (devices_per_node // size)
    return -(-devices // size)
