"""Layouts that an engine would accept for a model on a pool: tp, pp, dp, ep, in powers of two.

Rules: query heads divide by tp; kv heads divide by tp or tp by kv heads; experts divide by ep;
data-parallel engines are for expert models alone (copies of a dense model are separate instances);
instances leave a node only as whole nodes, as pipeline stages or as wide expert parallelism.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from moai_planner.domain.cluster import Deployment, Pool
from moai_planner.domain.layout import Layout

MOST_STAGES = 4
MOST_WIDE_NODES = 4


def layouts(deployment: Deployment, pool: Pool, rejected: Counter) -> tuple[Layout, ...]:
    """Layouts in order of devices. What is left out is counted by reason in `rejected`."""
    found = []
    for layout in sorted(set(_shapes(deployment, pool)), key=lambda one: (one.devices, one)):
        reason = _why_not(deployment, pool, layout)
        if reason:
            rejected[reason] += 1
        else:
            found.append(layout)
    return tuple(found)


def _shapes(deployment: Deployment, pool: Pool) -> Iterator[Layout]:
    per_node = pool.devices_per_node
    sizes = [1 << bits for bits in range(per_node.bit_length()) if 1 << bits <= per_node]
    for tp in sizes:
        yield Layout(tp=tp)
    stages = 2
    while stages <= min(MOST_STAGES, pool.nodes):
        yield Layout(tp=per_node, pp=stages)
        stages *= 2
    if deployment.model.moe:
        for tp in sizes:
            if tp > 1:
                yield Layout(tp=tp, ep=tp)
            nodes = 1
            while nodes <= min(MOST_WIDE_NODES, pool.nodes):
                dp = nodes * per_node // tp
                if dp > 1:
                    yield Layout(tp=tp, dp=dp, ep=tp * dp)
                nodes *= 2


def _why_not(deployment: Deployment, pool: Pool, layout: Layout) -> str:
    model = deployment.model
    kv_heads = model.kv_heads
    if any(part.query_heads % layout.tp for part in model.attention if part.query_heads):
        return "tp does not divide the query heads"
    if kv_heads % layout.tp and layout.tp % kv_heads:
        return "tp does not fit the kv heads"
    if layout.pp > model.layers:
        return "more pipeline stages than layers"
    if layout.ep > 1 and any(part.experts % layout.ep for part in model.feed_forward if part.experts):
        return "ep does not divide the experts"
    if layout.nodes(pool.devices_per_node) > pool.nodes:
        return "more nodes than the pool has"
    return ""
