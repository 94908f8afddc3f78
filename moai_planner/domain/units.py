"""Unit strings in, SI floats out: the only place where powers of ten and two are written.

Inside the project every number is an SI float with its unit in the name (`_s _bytes _flop_per_s`).
Outside, people write "3.35 TB/s" and "80 GiB"; `parse` reads them strictly, `show` writes them.

>>> parse("3.35 TB/s", "bytes_per_s")
3350000000000.0
>>> parse("80 GiB", "bytes")
85899345920.0
>>> parse("200 Gbit/s", "bytes_per_s")
25000000000.0
>>> show(0.0123, "s")
'12.3 ms'
"""

from __future__ import annotations

import math
import re

KILO, MEGA, GIGA, TERA, PETA = 1e3, 1e6, 1e9, 1e12, 1e15
KIBI, MEBI, GIBI, TEBI = 2.0**10, 2.0**20, 2.0**30, 2.0**40
MILLI, MICRO, NANO = 1e-3, 1e-6, 1e-9
MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86400.0
BITS_PER_BYTE = 8.0

_DECIMAL = {"": 1.0, "k": KILO, "M": MEGA, "G": GIGA, "T": TERA, "P": PETA}
_BINARY = {"Ki": KIBI, "Mi": MEBI, "Gi": GIBI, "Ti": TEBI}
_BYTES = {prefix + "B": scale for prefix, scale in (_DECIMAL | _BINARY).items()}
_BITS = {prefix + "bit": scale / BITS_PER_BYTE for prefix, scale in _DECIMAL.items()}

UNITS: dict[str, dict[str, float]] = {
    "bytes": _BYTES,
    "bytes_per_s": {unit + "/s": scale for unit, scale in (_BYTES | _BITS).items()},
    "flop_per_s": {prefix + "FLOP/s": scale for prefix, scale in _DECIMAL.items()},
    "s": {
        "s": 1.0,
        "ms": MILLI,
        "us": MICRO,
        "µs": MICRO,
        "ns": NANO,
        "min": MINUTE_S,
        "m": MINUTE_S,
        "h": HOUR_S,
        "d": DAY_S,
    },
    "usd_per_h": {"USD/h": 1.0, "$/h": 1.0},
    "w": {"W": 1.0, "kW": KILO, "MW": MEGA},
    "frac": {"%": 0.01, "": 1.0},
    "req_per_s": {"req/s": 1.0, "/s": 1.0, "req/min": 1 / MINUTE_S, "req/h": 1 / HOUR_S},
    "tokens": {"tokens": 1.0, "token": 1.0, "k tokens": KILO},
}
"""Dimension → unit → scale to SI."""

_EXAMPLE = {
    "bytes": "80 GiB",
    "bytes_per_s": "3.35 TB/s or 200 Gbit/s",
    "flop_per_s": "989 TFLOP/s",
    "s": "40 ms",
    "usd_per_h": "2.20 USD/h",
    "w": "700 W",
    "frac": "0.5 or 50%",
    "req_per_s": "12 req/s",
    "tokens": "4096 tokens",
}

_NUMBER_THEN_UNIT = re.compile(r"\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*(.*?)\s*\Z")


class UnitError(ValueError):
    """Not a quantity of the dimension asked for; the message says what would be one."""


def example(dimension: str) -> str:
    """A quantity of this dimension as a user would write it."""
    return _EXAMPLE[dimension]


def parse(text: str, dimension: str) -> float:
    """Read a quantity with its unit. [SI unit of `dimension`]

    Raises `UnitError` for a missing or foreign unit, a negative, infinite or NaN number. A bare
    number is accepted for `frac` alone: everything else needs its unit.

    >>> parse("0.5%", "frac")
    0.005
    >>> parse("3.35 TB", "bytes")
    3350000000000.0
    >>> parse("80 GB/s", "bytes")
    Traceback (most recent call last):
    ...
    moai_planner.domain.units.UnitError: 'GB/s' is not a unit of bytes; write it like 80 GiB
    """
    match = _NUMBER_THEN_UNIT.match(text) if isinstance(text, str) else None
    if match is None:
        raise UnitError(f"not a number with a unit; write it like {_EXAMPLE[dimension]}")
    number, unit = float(match[1]), match[2]
    scales = UNITS[dimension]
    if unit not in scales:
        found = f"{unit!r} is not a unit of {dimension}" if unit else "the unit is missing"
        raise UnitError(f"{found}; write it like {_EXAMPLE[dimension]}")
    if not math.isfinite(number) or number < 0:
        raise UnitError(f"must be a finite number, zero or more; write it like {_EXAMPLE[dimension]}")
    return number * scales[unit]


_SHOW: dict[str, tuple[tuple[float, str], ...]] = {
    "bytes": ((TEBI, "TiB"), (GIBI, "GiB"), (MEBI, "MiB"), (KIBI, "KiB"), (1.0, "B")),
    "bytes_per_s": ((TERA, "TB/s"), (GIGA, "GB/s"), (MEGA, "MB/s"), (KILO, "kB/s"), (1.0, "B/s")),
    "flop_per_s": ((PETA, "PFLOP/s"), (TERA, "TFLOP/s"), (GIGA, "GFLOP/s"), (1.0, "FLOP/s")),
    "s": ((HOUR_S, "h"), (MINUTE_S, "min"), (1.0, "s"), (MILLI, "ms"), (MICRO, "us"), (NANO, "ns")),
    "usd_per_h": ((1.0, "USD/h"),),
    "w": ((MEGA, "MW"), (KILO, "kW"), (1.0, "W")),
    "frac": ((0.01, "%"),),
    "req_per_s": ((1.0, "req/s"),),
    "tokens": ((1.0, "tokens"),),
}


def show(value: float, dimension: str, digits: int = 3) -> str:
    """Write a quantity for people, `digits` significant; `parse` reads it back to that precision."""
    if not math.isfinite(value):
        return str(value)
    ladder = _SHOW[dimension]
    scale, unit = next((rung for rung in ladder if abs(value) >= rung[0]), ladder[-1])
    number = f"{value / scale:.{digits}g}"
    if "e" in number:
        number = f"{float(number):.0f}"
    return f"{number}%" if unit == "%" else f"{number} {unit}"
