"""Random small programmes, and their optimum by trying every count."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import strategies as st
from scipy.optimize import linprog

from moai_planner.solver.notation import Column, Lane, Pool, Problem, Stream

ROLES = ("mixed", "prefill", "decode")


@st.composite
def problems(draw, objective="least-cost", simplicity=0.0):
    """At most 5 columns, 2 streams, 2 windows, 2 pools."""
    windows = draw(st.integers(1, 2))
    pools = tuple(
        Pool(f"pool{a}", draw(st.integers(1, 2)), draw(st.sampled_from((2, 3, 4))))
        for a in range(draw(st.integers(1, 2)))
    )
    rate = st.floats(0.5, 3.0).map(lambda value: round(value, 2))
    streams = tuple(
        Stream(f"s{k}", "d", tuple(draw(rate) for _ in range(windows)))
        for k in range(draw(st.integers(1, 2)))
    )
    columns = tuple(_column(draw, i, streams, pools, windows) for i in range(draw(st.integers(2, 5))))
    lanes = tuple(
        Lane(p.id, d.id)
        for p in columns
        for d in columns
        if p.role == "prefill" and d.role == "decode" and draw(st.booleans())
    )
    return Problem(streams, columns, pools, lanes, objective, simplicity, windows)


def _column(draw, i, streams, pools, windows):
    pool = draw(st.sampled_from(pools))
    use = st.floats(0.1, 1.0).map(lambda value: round(value, 2))
    resources = ("time", "memory")[: draw(st.integers(1, 2))]
    return Column(
        id=f"c{i}",
        deployment="d",
        pool=pool.name,
        role=ROLES[i] if i < 3 else draw(st.sampled_from(ROLES)),
        devices=draw(
            st.sampled_from(
                [s for s in (1, 2, 4, 8) if s <= pool.devices_per_node or s % pool.devices_per_node == 0]
            )
        ),
        price_usd_per_h=draw(st.sampled_from((1.0, 1.5, 2.2, 4.0))),
        use={
            s.id: {r: tuple(draw(use) for _ in range(windows)) for r in resources}
            for s in streams
            if draw(st.integers(0, 4))
        },
    )


def fits(problem, counts):
    """Whether some placement of the instances on nodes exists, by trying all."""
    for pool in problem.pools:
        sizes = [
            c.devices
            for c, n in zip(problem.columns, counts, strict=True)
            if c.pool == pool.name
            for _ in range(n)
        ]
        if not _packs(
            sorted(sizes, reverse=True), (pool.devices_per_node,) * pool.nodes, pool.devices_per_node
        ):
            return False
    return True


def _packs(sizes, free, per_node):
    if not sizes:
        return True
    if sum(sizes) > sum(free):
        return False
    size, rest = sizes[0], sizes[1:]
    if size > per_node:
        whole = [i for i, left in enumerate(free) if left == per_node][: size // per_node]
        if len(whole) * per_node < size:
            return False
        return _packs(rest, tuple(0 if i in whole else left for i, left in enumerate(free)), per_node)
    for left in sorted({left for left in free if left >= size}):
        at = free.index(left)
        if _packs(rest, (*free[:at], left - size, *free[at + 1 :]), per_node):
            return True
    return False


def best_factor(problem, counts):
    """Largest factor on all rates that these counts can serve: a linear programme written a second way.

    Flows are per path (a mixed column, or a lane), so no balance rows are needed.
    """
    paths = [(c.id, c.id) for c in problem.columns if c.role == "mixed"]
    paths += [(lane.prefill, lane.decode) for lane in problem.lanes]
    position = {c.id: i for i, c in enumerate(problem.columns)}
    flows = [
        (k, path)
        for k, s in enumerate(problem.streams)
        for path in paths
        if all(s.id in problem.columns[position[c]].use for c in path)
    ]
    upper, limits = [], []
    for i, column in enumerate(problem.columns):
        for r in ("time", "memory"):
            for w in range(problem.windows):
                row = np.zeros(len(flows) + 1)
                for j, (k, path) in enumerate(flows):
                    if column.id in path:
                        stream = problem.streams[k]
                        row[j] = column.use[stream.id].get(r, (0.0, 0.0))[w] * stream.rate_req_per_s[w]
                upper.append(row)
                limits.append(counts[i])
    equal = []
    for k in range(len(problem.streams)):
        row = np.array([1.0 if flow[0] == k else 0.0 for flow in flows] + [-1.0])
        equal.append(row)
    cost = np.zeros(len(flows) + 1)
    cost[-1] = -1
    found = linprog(cost, A_ub=np.array(upper), b_ub=limits, A_eq=np.array(equal), b_eq=np.zeros(len(equal)))
    return found.x[-1] if found.status == 0 else 0.0


def by_brute_force(problem):
    """(least cost that serves everything or None, greatest factor) over all counts that fit."""
    most = [problem.most_instances(c) for c in problem.columns]
    cheapest, greatest = None, 0.0
    for counts in itertools.product(*(range(m + 1) for m in most)):
        if not fits(problem, counts):
            continue
        price = sum(c.price_usd_per_h * n for c, n in zip(problem.columns, counts, strict=True))
        price += problem.simplicity_usd_per_h * sum(n > 0 for n in counts)
        factor = best_factor(problem, counts)
        greatest = max(greatest, factor)
        if factor >= 1 - 1e-7 and (cheapest is None or price < cheapest):
            cheapest = price
    return cheapest, greatest
