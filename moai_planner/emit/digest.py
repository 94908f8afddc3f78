"""What identifies a plan and the files made from it: sha256 over canonical bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from moai_planner.domain.plan import Plan

SHORT = 16
"Hexadecimal digits shown in headers; the manifest has all 64."


def plan_digest(plan: Plan) -> str:
    """sha256 of the plan's fields as JSON with sorted keys; equal plans have equal digests."""
    return content_digest(json.dumps(_canonical(asdict(plan)), sort_keys=True).encode())


def content_digest(content: bytes) -> str:
    """sha256 as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def _canonical(value: Any) -> Any:
    """One form for what compares equal: 3.0 is 3, a tuple a list, a number of an array library a number.

    >>> _canonical({"tokens": 3.0, "hosts": (0, 1)})
    {'tokens': 3, 'hosts': [0, 1]}
    """
    if isinstance(value, Mapping):
        return {str(key): _canonical(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(entry) for entry in value]
    if hasattr(value, "tolist"):
        return _canonical(value.tolist())
    return int(value) if isinstance(value, float) and value.is_integer() else value
