"""Interpolation of a slowly varying quantity (log of time, log of measured over modelled) between shapes.

Linear radial basis functions in geometric coordinates: exact at the points, between them as straight as the
neighbours allow. Outside the measured box the value at its edge is held.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from moai_planner.domain.measured import StepShape
from moai_planner.profile.sweep import coordinates


def interpolate(values: Mapping[StepShape, float], shapes: Sequence[StepShape]) -> np.ndarray:
    """Values [len(shapes)] from the points of the same phase, each phase on its own.

    >>> points = {StepShape("decode", 0, 1, 16): 0.0, StepShape("decode", 0, 4, 16): 2.0}
    >>> asked = [StepShape("decode", 0, 2, 16), StepShape("decode", 0, 64, 16)]
    >>> [round(float(value), 9) for value in interpolate(points, asked)]
    [1.0, 2.0]
    """
    result = np.empty(len(shapes))
    for phase in {shape.phase for shape in shapes}:
        known = {shape: value for shape, value in values.items() if shape.phase == phase}
        if not known:
            raise ValueError(f"no {phase} point to interpolate from")
        places = [index for index, shape in enumerate(shapes) if shape.phase == phase]
        result[places] = _within(known, [shapes[index] for index in places])
    return result


def _within(known: Mapping[StepShape, float], shapes: Sequence[StepShape]) -> np.ndarray:
    where = np.array([coordinates(shape) for shape in known])
    value = np.array(list(known.values()), dtype=float)
    asked = np.array([coordinates(shape) for shape in shapes])
    asked = np.clip(asked, where.min(axis=0), where.max(axis=0))
    if len(value) == 1:
        return np.full(len(shapes), value[0])
    mean = value.mean()
    system = np.zeros((len(value) + 1,) * 2)  # weights that sum to zero, and a constant
    system[:-1, :-1] = _distances(where, where)
    system[-1, :-1] = system[:-1, -1] = 1.0
    solution = np.linalg.lstsq(system, np.append(value - mean, 0.0), rcond=None)[0]
    return mean + _distances(asked, where) @ solution[:-1] + solution[-1]


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.norm(a[:, None, :] - b[None, :, :], axis=-1)
