"""Timings of the operators of one layer, on one device by one engine: what step times may be summed from.

Times are of one transformer layer on one tensor rank, all kernels of it launched one after another, without
collectives. A table serves every model whose layers have these sizes, however many layers it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moai_planner.domain.parameters import Parameters
from moai_planner.domain.provenance import Source


@dataclass(frozen=True, eq=False)
class Grid:
    """Seconds over one or more axes; linear between points and beyond them.

    Above an axis the line is that over its last factor of two: matrix products grow in steps of a tile, and
    the last two points may lie on one step.
    """

    axes: tuple[np.ndarray, ...]
    seconds: np.ndarray
    "[len(axis) for axis in axes]"

    def at(self, *where: np.ndarray | float) -> np.ndarray:
        """Multilinear interpolation; below an axis its first segment goes on, above it the last octave, but
        never below the value at its end.

        >>> grid = Grid((np.array([1.0, 3.0]), np.array([0.0, 10.0])), np.array([[1.0, 2.0], [3.0, 4.0]]))
        >>> float(grid.at(2.0, 5.0)), float(grid.at(5.0, 0.0))
        (2.5, 5.0)
        """
        inside = [np.minimum(x, axis[-1]) for x, axis in zip(where, self.axes, strict=True)]
        if all(np.array_equal(x, within) for x, within in zip(where, inside, strict=True)):
            return self._at(where)
        return np.maximum(self._at(where), self._at(inside))

    def _at(self, where: Sequence[np.ndarray | float]) -> np.ndarray:
        points = np.broadcast_arrays(*(np.asarray(x, dtype=float) for x in where))
        ends, share = [], []
        for axis, x in zip(self.axes, points, strict=True):
            i = np.clip(np.searchsorted(axis, x, side="right") - 1, 0, max(0, len(axis) - 2))
            j = np.minimum(i + 1, len(axis) - 1)
            octave = max(0, int(np.searchsorted(axis[:-1], axis[-1] / 2, side="right")) - 1)
            i, j = np.where(x > axis[-1], octave, i), np.where(x > axis[-1], len(axis) - 1, j)
            width = np.where(j > i, axis[j] - axis[i], 1.0)
            ends.append((i, j))
            share.append(np.where(j > i, (x - axis[i]) / width, 0.0))
        total = np.zeros(points[0].shape)
        for corner in np.ndindex(*(2,) * len(points)):
            weight, index = np.ones(points[0].shape), []
            for up, pair, part in zip(corner, ends, share, strict=True):
                weight = weight * (part if up else 1.0 - part)
                index.append(pair[up])
            total = total + weight * self.seconds[tuple(index)]
        return np.maximum(total, 0.0)


@dataclass(frozen=True, eq=False)
class OperatorTable:
    """One model's layers on one device with one engine, at one tensor degree."""

    name: str
    engine_version: str
    source: Source
    layer: Grid
    "Tokens → norms, products, rotary, activation of one layer (without attention and routed experts)."
    tail: Grid
    "Tokens → embedding and last norm, once a step."
    head: Grid
    "Rows → logits and sampling, once a step."
    decode: Grid
    "Sequences, context → attention of a pure decode step."
    prompt: Grid
    "Chunk tokens, cached tokens → attention of a prompt alone."
    mixed: Grid
    "Chunk tokens, sequences, context → attention of a prompt beside decoding sequences."
    spread: Grid
    "Sequences → share that decode attention takes longer when contexts differ."
    beside: Parameters
    "Of what was not timed here: collectives, and how unevenly experts are chosen."
    experts: Grid | None
    "Tokens (rows over experts a token), experts touched → routed experts of one layer."

    @property
    def timings(self) -> int:
        grids = (self.layer, self.tail, self.head, self.decode, self.prompt, self.mixed, self.experts)
        return sum(grid.seconds.size for grid in grids if grid is not None)
