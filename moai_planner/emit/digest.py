"""What identifies a plan and the files made from it: sha256 over canonical bytes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

from moai_planner.domain.plan import Plan

SHORT = 16
"Hexadecimal digits shown in headers; the manifest has all 64."


def plan_digest(plan: Plan) -> str:
    """sha256 of the plan's fields as JSON with sorted keys; equal plans have equal digests."""
    text = json.dumps(asdict(plan), sort_keys=True, separators=(",", ":"), default=_plain)
    return content_digest(text.encode())


def content_digest(content: bytes) -> str:
    """sha256 as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def _plain(value: object) -> object:
    """Mappings that are not dicts and numbers of array libraries, as JSON knows them."""
    if hasattr(value, "items"):
        return dict(value.items())
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} in a plan has no JSON form")
