"""Where a number comes from and how sure it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Basis(StrEnum):
    """How a prediction was made, strongest first."""

    MEASURED = "measured"
    CALIBRATED = "calibrated"
    INTERPOLATED = "interpolated"
    EXTRAPOLATED = "extrapolated"
    ANALYTIC = "analytic"
    ASSUMED = "assumed"


_STRENGTH = {basis: rank for rank, basis in enumerate(Basis)}


def weakest(bases: Iterable[Basis]) -> Basis:
    """A sum is as sure as its least sure part.

    >>> weakest([Basis.MEASURED, Basis.ANALYTIC, Basis.CALIBRATED]).value
    'analytic'
    """
    return max(bases, key=_STRENGTH.__getitem__)


@dataclass(frozen=True)
class Source:
    """A place outside the project that a number was taken from."""

    title: str
    where: str = ""
    "Table, page or file in it."
    date: str = ""
    "ISO date or month of publication or reading."
    kind: str = ""
    "datasheet | measurement | publication | price list | announcement | derived"


ASSUMED = Source(title="assumed", kind="assumed")
"""The source of a number that we chose."""


@dataclass(frozen=True)
class Interval:
    """A prediction with the range that holds the truth with the stated confidence (80 % unless said)."""

    value: float
    low: float
    high: float
    basis: Basis
