"""The compiler of the event loop: numba, asked for in one place.

`part` marks a piece of the loop (compiled into whoever calls it, never on its own); `entry` marks the one
function that Python calls, whose machine code is kept in `__pycache__`. The kept code is thrown away when
any of `LOOP_FILES` changes, not only the one that the entry is written in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

try:
    from numba import njit
except ImportError as error:  # pragma: no cover
    raise ImportError("the simulator compiles its event loop with numba: pip install numba") from error

LOOP_FILES = (
    "compiled",
    "fields",
    "histogram",
    "loop",
    "memory",
    "queues",
    "routing",
    "scheduler",
    "stretch",
)

part = njit(forceinline=True, error_model="numpy", _nrt=False)
shared_part = njit(error_model="numpy", _nrt=False)
# The loop allocates nothing, so it needs no reference counts (`_nrt=False`); they would take most of its time.  # noqa: E501


def entry(function: Callable) -> Callable:
    """Compile at the first call and keep the machine code for the next process."""
    compiled = njit(cache=True, error_model="numpy", _nrt=False)(function)
    cache_file = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
    if hasattr(cache_file, "_source_stamp"):
        cache_file._source_stamp = _digest_of_sources()
    return compiled


def _digest_of_sources() -> str:
    digest = hashlib.sha256()
    for name in LOOP_FILES:
        digest.update((Path(__file__).parent / f"{name}.py").read_bytes())
    return digest.hexdigest()
