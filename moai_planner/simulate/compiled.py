"""The compiler of the event loop: numba, asked for in one place.

`part` marks a piece of the loop (compiled into whoever calls it, never on its own); `entry` marks the one
function that Python calls, whose machine code is kept in `__pycache__`. The kept code is thrown away when
any file of this room changes, not only the one that the entry is written in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

try:
    from numba import njit
except ImportError as error:  # pragma: no cover
    raise ImportError("the simulator compiles its event loop with numba: pip install numba") from error

part = njit(forceinline=True)
shared_part = njit


def entry(function: Callable) -> Callable:
    """Compile at the first call and keep the machine code for the next process."""
    compiled = njit(cache=True)(function)
    cache_file = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
    if hasattr(cache_file, "_source_stamp"):
        cache_file._source_stamp = _digest_of_sources()
    return compiled


def _digest_of_sources() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
