"""How fast the machine is now, against when its profile was measured.

    with anchored(request, device, points) as anchor:
        anchor.drift()      # Drift(decode=1.03, prompt=0.99): steps now over steps then

A machine that others share has slow and fast quarters of an hour: its memory and caches are not its own,
which neither CPU time nor waiting for a core shows. Some points of the table are timed again by the same
engine, next to what is compared with the profile; the ratio says what the machine did to both.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moai_planner.domain.measured import MeasuredPoint, Shard
from moai_planner.profile import device as devices
from moai_planner.profile import session
from moai_planner.profile.engine import SteppedEngine, run_shape, start
from moai_planner.profile.shard import divide
from moai_planner.profile.sweep import DECODE_STEPS

_POINTS = 4
"Of each kind: spread over the range that a small server lives in."
_LONGEST_S = 0.3


@dataclass(frozen=True)
class Drift:
    """Step times now over those of the table, by kind of step."""

    decode: float = 1.0
    prompt: float = 1.0


def middle(drifts: Sequence[Drift]) -> Drift:
    """Geometric mean.

    >>> middle([Drift(1.0, 1.0), Drift(1.21, 1.0)])
    Drift(decode=1.1, prompt=1.0)
    """
    decode, prompt = (
        math.exp(sum(math.log(value) for value in values) / len(drifts))
        for values in zip(*((drift.decode, drift.prompt) for drift in drifts), strict=True)
    )
    return Drift(round(decode, 6), round(prompt, 6))


@dataclass(frozen=True)
class Anchor:
    """A running engine and the points that it times again."""

    engine: SteppedEngine
    decode: tuple[MeasuredPoint, ...]
    prompt: tuple[MeasuredPoint, ...]
    time_basis: str

    def drift(self) -> Drift:
        return Drift(self._ratio(self.decode), self._ratio(self.prompt))

    def _ratio(self, points: tuple[MeasuredPoint, ...]) -> float:
        """Median over the points of now over then; 1 where the table has none of the kind."""
        ratios = []
        for point in points:
            records = run_shape(self.engine, point.shape, DECODE_STEPS)
            ratios.append(np.median([r.seconds(self.time_basis) for r in records]) / point.seconds)
        return float(np.median(ratios)) if ratios else 1.0


@contextmanager
def anchored(
    request: session.Request, device: devices.Device, points: Sequence[MeasuredPoint]
) -> Iterator[Anchor]:
    """Start an engine as the profile did, and stop it afterwards."""
    with tempfile.TemporaryDirectory(prefix="moai-anchor-") as scratch:
        folder = Path(scratch)
        (folder / "config.json").write_text(json.dumps(divide(dict(request.config), Shard())))
        engine = start(session.engine_settings(request, device, folder))
        try:
            decode, prompt = anchor_points(points)
            basis = "cpu" if device.platform == "cpu" else "wall"
            anchor = Anchor(engine, decode, prompt, basis)
            anchor.drift()  # the first visit of a shape warms up
            yield anchor
        finally:
            engine.stop()


def anchor_points(
    points: Sequence[MeasuredPoint],
) -> tuple[tuple[MeasuredPoint, ...], tuple[MeasuredPoint, ...]]:
    """Decode points and prompt chunks without context, evenly spread over those that are quick to repeat."""
    quick = [point for point in points if point.seconds <= _LONGEST_S]
    decode = [point for point in quick if point.shape.phase == "decode"]
    prompt = [p for p in quick if p.shape.phase == "prefill" and not p.shape.context_tokens]
    return _spread(decode), _spread(prompt)


def _spread(points: list[MeasuredPoint]) -> tuple[MeasuredPoint, ...]:
    ordered = sorted(points, key=lambda point: (point.seconds, point.shape))
    if len(ordered) <= _POINTS:
        return tuple(ordered)
    places = np.linspace(0, len(ordered) - 1, _POINTS).round().astype(int)
    return tuple(ordered[place] for place in places)
