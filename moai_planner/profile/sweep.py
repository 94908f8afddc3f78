"""Which shapes to measure, in what order, within a budget.

Three stages, each needing the one before it:

1. coarse: a grid over the limits, geometric in tokens and batch, with edges (a shape just past a tile or a
   captured graph size, where time jumps), every point visited `MIN_VISITS` times;
2. refine: the midpoints around the point that its neighbours predict worst (leave-one-out);
3. repeat: the point with the widest confidence interval, until all are narrow or the budget ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from moai_planner.domain.layout import capture_sizes
from moai_planner.domain.measured import StepShape

MIN_VISITS = 3
DECODE_STEPS = 6
NARROW_FRAC = 0.015
"Stop repeating a point when half its confidence interval is this part of the median."
_LEAST_TOKENS = 16
_APART = 0.25
_TILE_TOKENS = (128, 256, 512)
"Matrix kernels work in tiles of these many rows; one row more starts another."


@dataclass(frozen=True)
class Limits:
    """The largest step of each kind."""

    tokens: int
    batch: int
    context_tokens: int
    kv_tokens: int
    "Context of a whole batch together."
    graphs: bool


def _powers(first: int, last: int, ratio: int = 2) -> list[int]:
    """first, first·ratio, … and `last` itself.

    >>> _powers(16, 100)
    [16, 32, 64, 100]
    """
    values = []
    while first < last:
        values.append(first)
        first *= ratio
    return [*values, last]


def coarse_grid(limits: Limits) -> tuple[StepShape, ...]:
    """The first points: pure prefill, prefill on cached context, pure decode, mixed, and edges."""
    shapes = {StepShape("prefill", tokens, 0, 0) for tokens in _powers(_LEAST_TOKENS, limits.tokens)}
    shapes |= {StepShape("prefill", tile + 1, 0, 0) for tile in _TILE_TOKENS if 2 * tile < limits.tokens}
    for context in (limits.context_tokens // 4, limits.context_tokens):
        for tokens in (limits.tokens // 16, limits.tokens // 4):
            room = limits.context_tokens - tokens  # prompt and context together fit the model's window
            if tokens >= _LEAST_TOKENS and room >= _LEAST_TOKENS:
                shapes.add(StepShape("prefill", tokens, 0, min(context, room)))
    contexts = sorted({_LEAST_TOKENS, limits.context_tokens // 4, limits.context_tokens})
    batches = _powers(1, limits.batch)
    shapes |= {StepShape("decode", 0, batch, context) for batch in batches for context in contexts}
    if limits.graphs:
        sizes = capture_sizes(limits.batch)
        edges = [size + 1 for size in sizes if size in (8, 64, 128) and size + 1 < limits.batch]
        shapes |= {StepShape("decode", 0, batch, contexts[1]) for batch in edges}
    for tokens, batch in ((8, 8), (4, 2), (4, 1), (2, 4)):
        sequences = max(1, min(limits.batch // batch, limits.batch - 1))  # the prompt is a sequence too
        shapes.add(StepShape("mixed", limits.tokens // tokens, sequences, contexts[1]))
    return tuple(sorted(shape for shape in shapes if fits(shape, limits)))


def fits(shape: StepShape, limits: Limits) -> bool:
    """The batch's KV and the step's tokens are inside the limits."""
    kv = max(1, shape.batch) * (shape.context_tokens + DECODE_STEPS) + shape.tokens
    return (
        kv <= limits.kv_tokens
        and shape.step_tokens <= limits.tokens + limits.batch
        and shape.batch + (shape.phase == "mixed") <= limits.batch
        and shape.context_tokens <= limits.context_tokens
    )


def coordinates(shape: StepShape) -> tuple[float, float, float]:
    """Where a shape lies for neighbourhood: geometric in tokens, batch and context.

    >>> coordinates(StepShape("decode", 0, 8, 15))
    (0.0, 3.0, 2.0)
    """
    batch = math.log2(shape.batch) if shape.batch else 0.0
    tokens = math.log2(shape.tokens) if shape.tokens else 0.0
    return tokens, batch, math.log2(1 + shape.context_tokens) / 2


def leave_one_out(
    seconds: Mapping[StepShape, float],
    predict: Callable[[Mapping[StepShape, float], StepShape], float],
) -> dict[StepShape, float]:
    """Relative error of each point, predicted from all others."""
    errors = {}
    for shape, truth in seconds.items():
        rest = {other: value for other, value in seconds.items() if other != shape}
        if any(other.phase == shape.phase for other in rest):
            errors[shape] = abs(predict(rest, shape) / truth - 1)
    return errors


def refine(
    measured: Mapping[StepShape, float],
    errors: Mapping[StepShape, float],
    excluded: Iterable[StepShape],
    limits: Limits,
) -> StepShape | None:
    """The next new point: midway from the worst-predicted point to the near neighbour that differs most."""
    taken = set(measured) | set(excluded)
    for shape in sorted(errors, key=lambda s: (-errors[s], s)):
        here = np.array(coordinates(shape))
        near = sorted(
            (other for other in measured if other.phase == shape.phase and other != shape),
            key=lambda other: (float(np.abs(np.array(coordinates(other)) - here).sum()), other),
        )[:4]
        steepest = sorted(near, key=lambda other: -abs(math.log(measured[other] / measured[shape])))
        for other in steepest:
            middle = _midpoint(shape, other)
            if middle not in taken and fits(middle, limits) and _apart(middle, taken):
                return middle
    return None


def _apart(shape: StepShape, others: Iterable[StepShape]) -> bool:
    """A quarter of a doubling away from every other point: nearer ones tell more noise than shape."""
    here = np.array(coordinates(shape))
    same = [other for other in others if other.phase == shape.phase]
    return all(float(np.abs(np.array(coordinates(other)) - here).sum()) > _APART for other in same)


def _midpoint(a: StepShape, b: StepShape) -> StepShape:
    """Geometric in tokens and batch; contexts meet at the mean of their square roots.

    >>> _midpoint(StepShape("decode", 0, 8, 512), StepShape("decode", 0, 32, 512))
    StepShape(phase='decode', tokens=0, batch=16, context_tokens=512)
    """
    context = ((math.sqrt(a.context_tokens) + math.sqrt(b.context_tokens)) / 2) ** 2
    return StepShape(
        a.phase,
        round(math.sqrt(a.tokens * b.tokens)),
        round(math.sqrt(a.batch * b.batch)),
        round(context),
    )


def held_out(shapes: Iterable[StepShape], seed: int, share: float = 0.2) -> frozenset[StepShape]:
    """A random fifth of each phase's points, for testing alone.

    >>> len(held_out([StepShape("decode", 0, b, 16) for b in range(1, 11)], seed=0))
    2
    """
    shapes, chosen = list(shapes), set()
    generator = np.random.default_rng(seed)
    for phase in ("prefill", "decode", "mixed"):
        points = sorted(shape for shape in shapes if shape.phase == phase)
        count = round(share * len(points))
        chosen |= {points[i] for i in generator.permutation(len(points))[:count]}
    return frozenset(chosen)
