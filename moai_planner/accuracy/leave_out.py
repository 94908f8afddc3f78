"""Errors of calibration runs whose model, device or engine was left out of the whole fit: real refits, for
groups of a few values to first order.

found = refit(problem, labels, solution, slopes, group)
found.errors[members(labels, group)]                 # [values of the group] log(predicted / measured)

A refit starts from the full fit and drops every row of the group, in every family: a model left out is one
that no engine was fitted to, a device one that no engine ran on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from moai_planner.accuracy.fit import Solution, errors_without_each, fit
from moai_planner.accuracy.joint import JointProblem

REFIT_ITERATIONS = 6
CELL, MODEL, DEVICE, FAMILY = "cell", "model", "accelerator", "family"
REFITTED = (MODEL, DEVICE, FAMILY)
FEWEST_REFITTED = 25
"""Values of a group below which its refit would differ from the full fit by about a Newton step."""


@dataclass(frozen=True, eq=False)
class Labels:
    """What each value belongs to."""

    family: np.ndarray
    "[values] `vllm-cuda`"
    set: np.ndarray
    "[values] number of the (device, engine, number format) that decodes"
    model: np.ndarray
    accelerator: np.ndarray
    "[values] the device that decodes"
    devices: np.ndarray
    "[values] every device used, `+` between"
    cell: np.ndarray
    "[values] number of the engine configuration"


@dataclass(frozen=True)
class Group:
    """Rows that are left out together."""

    grouping: str
    name: str


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Every value's error with its engine configuration, model, device and family left out."""

    labels: Labels
    errors: dict[str, np.ndarray]


def labels_of(problem: JointProblem, run: np.ndarray) -> Labels:
    """Labels of values, from the index of the run that each is of."""
    runs, prepared = problem.runs, problem.prepared
    number = {group: i for i, group in enumerate(problem.sets)}
    decoding = [prepared.groups[i] for i in prepared.records["decode"]]
    family = [dict(problem.parts[number[group]])[FAMILY] for group in decoding]
    cells: dict[tuple, int] = {}
    cell = [cells.setdefault((run.model, run.accelerator, run.workers), len(cells)) for run in runs]

    def spread(names) -> np.ndarray:
        return np.array(names)[run]

    return Labels(
        family=spread(family),
        set=spread([number[group] for group in decoding]),
        model=spread([run.model for run in runs]),
        accelerator=spread([run.workers[-1].accelerator for run in runs]),
        devices=spread([run.accelerator for run in runs]),
        cell=spread(cell),
    )


def groups_of(labels: Labels) -> Iterator[Group]:
    """Every group that is refitted, in a fixed order."""
    for grouping in REFITTED:
        names, values = np.unique(getattr(labels, grouping), return_counts=True)
        for name in names[values >= FEWEST_REFITTED].tolist():
            yield Group(grouping, name)


def members(labels: Labels, group: Group) -> np.ndarray:
    """[values] the rows whose error a group's refit gives."""
    return getattr(labels, group.grouping) == group.name


def excluded(labels: Labels, group: Group) -> np.ndarray:
    """[values] the rows that a group's refit does without: also those that use its device for prompts."""
    if group.grouping == DEVICE:
        return np.array([group.name in devices.split("+") for devices in labels.devices])
    return members(labels, group)


def refit(
    problem: JointProblem, labels: Labels, solution: Solution, slopes: np.ndarray, group: Group
) -> Solution:
    """A fit without the group's rows, warm-started from the full one."""
    return fit(problem, solution.theta, ~excluded(labels, group), REFIT_ITERATIONS, slopes)


def left_out(
    problem: JointProblem,
    labels: Labels,
    solution: Solution,
    slopes: np.ndarray,
    refitted: dict[Group, np.ndarray],
) -> LeftOut:
    """All groupings together: to first order, and as refitted where that was done."""
    errors = {
        grouping: errors_without_each(problem, solution, slopes, getattr(labels, grouping))
        for grouping in (CELL, *REFITTED)
    }
    for group, found in refitted.items():
        errors[group.grouping][members(labels, group)] = found
    return LeftOut(labels, errors)
