"""Ports of every process, chosen per host so that none collide.

Each use has a base, the engine's own default where it has one, and takes the next free range above it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

BASES = {
    "front": 8000,
    "api": 8200,
    "side_channel": 5600,
    "bootstrap": 8998,
    "master": 29501,
    "dp_rpc": 13345,
    "handshake": 6301,
    "notify": 61005,
    "discovery": 36367,
    "router": 30000,
    "router_metrics": 29000,
}
"""Use → first port (vLLM 0.33, vllm-router 0.1.17 and their documentation)."""


@dataclass
class PortBook:
    """Ports handed out so far, per host; the one mutable value of a launch, used while it is built."""

    taken: dict[str, set[int]] = field(default_factory=dict)

    def take(self, host: str, use: str, count: int = 1) -> int:
        """The first of `count` neighbouring free ports at or above the base of `use`.

        >>> book = PortBook()
        >>> book.take("a", "api"), book.take("a", "api"), book.take("b", "api")
        (8200, 8201, 8200)
        """
        taken = self.taken.setdefault(host, set())
        first = BASES[use]
        while any(port in taken for port in range(first, first + count)):
            first += 1
        taken.update(range(first, first + count))
        return first
