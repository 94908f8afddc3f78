"""Step times from measured points: exact at the points, interpolated utilisation between, held outside.

What is carried between shapes is measured over modelled time, never time itself: the model knows how time
grows with tokens and context, the points know by how much it is off. Neighbours are weighted by inverse
squared distance in powers of two of tokens, batch and context; a shape outside the measured box takes
the ratio of the box's edge.

>>> from moai_planner.costmodel.example import llama_on_h100
>>> from moai_planner.costmodel.serving import step_times
>>> modelled = step_times(llama_on_h100())
>>> shape = StepShape("decode", 0, 8, 1024)
>>> steps = measured_steps(modelled, {shape: 0.009})
>>> steps.step(shape)
(0.009, <Basis.MEASURED: 'measured'>)
>>> steps.step(StepShape("decode", 0, 64, 1024))[1].value
'extrapolated'
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from statistics import NormalDist

import numpy as np

from moai_planner.domain.measured import PHASES, StepShape
from moai_planner.domain.provenance import Basis, weakest
from moai_planner.domain.step import StepTimes

FEWEST_FOR_RESIDUALS = 4
"""Points of one phase from which a leave-one-out interval is taken."""
_MIDDLE_80_OVER_MEDIAN = NormalDist().inv_cdf(0.9) / NormalDist().inv_cdf(0.75)
"""Half-width of the middle 80 % over the median absolute error."""


@dataclass(frozen=True, eq=False)
class MeasuredSteps:
    """Measured points of one configuration beside what the model says about it."""

    modelled: StepTimes
    seconds: Mapping[StepShape, float]
    "Collectives included."
    collectives_s: Mapping[StepShape, float] = field(default_factory=dict)
    "The part of `seconds` that was modelled: a rank of a larger layout is timed alone."
    error_frac: float = 0.0
    "Median error that the profile itself states: noise of a visit, or of points held out."

    def step(self, shape: StepShape) -> tuple[float, Basis]:
        """Time of one step and how it is known. KeyError when its phase was never measured."""
        if shape in self.seconds:
            return self.seconds[shape], self._not_better_than_collectives(Basis.MEASURED)
        known = _of_phase(self.seconds, shape.phase)
        if not known:
            raise KeyError(f"no {shape.phase} step was measured")
        ratio = _ratio(self.modelled, known, shape)
        basis = Basis.EXTRAPOLATED if self.beyond(shape) else Basis.INTERPOLATED
        return ratio * modelled_s(self.modelled, shape), self._not_better_than_collectives(basis)

    def _not_better_than_collectives(self, basis: Basis) -> Basis:
        return weakest((basis, self.modelled.basis)) if any(self.collectives_s.values()) else basis

    def beyond(self, shape: StepShape) -> tuple[str, ...]:
        """In which sizes the shape leaves the box that its phase was measured in; empty inside."""
        known, found = _of_phase(self.seconds, shape.phase), []
        for name, called in (("tokens", "tokens"), ("batch", "batch"), ("context_tokens", "context")):
            sizes = [getattr(one, name) for one in known]
            if not min(sizes) <= getattr(shape, name) <= max(sizes):
                found.append(f"{called} {getattr(shape, name)}, measured {min(sizes)} to {max(sizes)}")
        return tuple(found)

    def range_of(self, shapes: Iterable[StepShape]) -> tuple[float, float]:
        """80 % interval of the sum of some steps, as fractions: outside the box the model's own as well."""
        low, high = self._interval()
        if any(self.beyond(shape) for shape in shapes):
            return min(low, self.modelled.low_frac), max(high, self.modelled.high_frac)
        return low, high

    def has(self, phase: str) -> bool:
        """Whether any step of the phase was measured."""
        return any(shape.phase == phase for shape in self.seconds)

    def step_times(self) -> StepTimes:
        """Tables for programme and simulator, from the ratios along batch and tokens.

        A phase without any point keeps the modelled times, and the weaker basis. The interval also holds
        what tables of one slope over context lose against the points themselves.
        """
        times, bases = self.modelled, [Basis.INTERPOLATED]
        if _of_phase(self.seconds, "decode"):
            times = replace(times, decode_s=self._decode_s(), kv_s=self._kv_s())
        else:
            bases.append(times.basis)
        if _of_phase(self.seconds, "prefill"):
            mixed_s, pair_s = self._prompts_s()
            times = replace(times, mixed_s=mixed_s, pair_s=pair_s)
        else:
            bases.append(times.basis)
        low_frac, high_frac = self._interval()
        apart = [seconds / modelled_s(times, shape) for shape, seconds in self.seconds.items()]
        if len(apart) >= FEWEST_FOR_RESIDUALS:
            low, high = np.quantile(apart, [0.1, 0.9])
            low_frac, high_frac = min(low_frac, float(low)), max(high_frac, float(high))
        return replace(times, basis=bases[-1], low_frac=low_frac, high_frac=high_frac)

    def _interval(self) -> tuple[float, float]:
        """Neighbours' residuals or the profile's own error, and the model's interval on the collectives."""
        low, high = self.residual_range()
        error = _MIDDLE_80_OVER_MEDIAN * self.error_frac
        low, high = min(low, 1 / (1 + error)), max(high, 1 + error)
        share = float(np.median([self.collectives_s.get(s, 0.0) / t for s, t in self.seconds.items()]))
        return low - share * (1 - self.modelled.low_frac), high + share * (self.modelled.high_frac - 1)

    def _kv_s(self) -> float:
        """Slope over context: least squares through the shortest and longest context of each batch.

        Where no batch has two contexts: the modelled slope times the ratio of the point that reads most KV.
        """
        known = _of_phase(self.seconds, "decode")
        above = below = 0.0
        for batch in sorted({shape.batch for shape in known}):
            ends = sorted((s for s in known if s.batch == batch), key=lambda s: s.context_tokens)
            more = batch * (ends[-1].context_tokens - ends[0].context_tokens)
            above += more * (known[ends[-1]] - known[ends[0]])
            below += more * more
        if above > 0:
            return above / below
        most = max(known, key=lambda s: s.batch * s.context_tokens)
        return self.modelled.kv_s * known[most] / modelled_s(self.modelled, most)

    def _decode_s(self) -> np.ndarray:
        known = _of_phase(self.seconds, "decode")
        middle = float(np.median([s.context_tokens for s in known]))
        kv_s = self._kv_s()
        found = np.zeros_like(self.modelled.decode_s)
        for batch in range(1, len(found)):
            shape = StepShape("decode", 0, batch, int(middle))
            found[batch] = max(0.0, self.step(shape)[0] - kv_s * batch * shape.context_tokens)
        measured = sorted({s.batch for s in known if s.batch < len(found)})
        return _increasing(found, np.array(measured, dtype=int))

    def _prompts_s(self) -> tuple[np.ndarray, float]:
        known = _of_phase(self.seconds, "prefill")
        most = max(known, key=_pairs)
        pair_s = self.modelled.pair_s * known[most] / modelled_s(self.modelled, most)
        shapes = [StepShape("prefill", int(tokens), 0, 0) for tokens in self.modelled.tokens]
        beside = [pair_s * _pairs(shape) + self.modelled.mixed_row_s for shape in shapes]
        found = [max(0.0, self.step(s)[0] - part) for s, part in zip(shapes, beside, strict=True)]
        return np.maximum.accumulate(np.array(found)), pair_s

    def residual_range(self) -> tuple[float, float]:
        """Middle 80 % of measured over predicted when each point in turn is left out.

        Too few points say nothing: then the model's own interval stays.
        """
        found = []
        for phase in PHASES:
            known = _of_phase(self.seconds, phase)
            if len(known) < FEWEST_FOR_RESIDUALS:
                continue
            for shape, seconds in known.items():
                others = {other: value for other, value in known.items() if other != shape}
                predicted = _ratio(self.modelled, others, shape) * modelled_s(self.modelled, shape)
                found.append(seconds / predicted)
        if not found:
            return self.modelled.low_frac, self.modelled.high_frac
        low, high = np.quantile(found, [0.1, 0.9])
        return float(min(low, 1.0)), float(max(high, 1.0))


def _increasing(values: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """No value below an earlier one; between two anchors none above the next, which is measured.

    >>> _increasing(np.array([0.0, 1.0, 5.0, 2.0, 1.5]), np.array([1, 3])).tolist()
    [0.0, 1.0, 2.0, 2.0, 2.0]
    """
    if len(anchors):
        ends = np.append(np.maximum.accumulate(values[anchors]), np.inf)
        following = np.searchsorted(anchors, np.arange(len(values)))
        values = np.minimum(values, ends[following])
    return np.maximum.accumulate(values)


def measured_steps(
    modelled: StepTimes,
    seconds: Mapping[StepShape, float],
    collectives_s: Mapping[StepShape, float] | None = None,
    error_frac: float = 0.0,
) -> MeasuredSteps:
    """Points must be of one rank of the configuration `modelled` describes; times above zero."""
    wrong = [shape for shape, value in seconds.items() if not value > 0]
    if wrong:
        raise ValueError(f"measured times must be above zero: {wrong[0]}")
    added = collectives_s or {}
    whole = {shape: value + added.get(shape, 0.0) for shape, value in sorted(seconds.items())}
    return MeasuredSteps(modelled, whole, added, error_frac)


def modelled_s(times: StepTimes, shape: StepShape) -> float:
    """What step tables say about a shape."""
    if shape.phase == "decode":
        return float(times.decode_step_s(shape.batch, shape.batch * shape.context_tokens))
    held = shape.batch * shape.context_tokens if shape.phase == "mixed" else 0
    return float(
        times.mixed_step_s(shape.step_tokens, _pairs(shape), held, sequences=shape.batch + 1 if held else 1)
    )


def _pairs(shape: StepShape) -> float:
    """Token pairs of the prompt's chunk; in a mixed step the context is the decoding sequences'."""
    before = shape.context_tokens if shape.phase == "prefill" else 0
    return shape.tokens * (before + shape.tokens / 2)


def _of_phase(seconds: Mapping[StepShape, float], phase: str) -> dict[StepShape, float]:
    return {shape: value for shape, value in seconds.items() if shape.phase == phase}


def _coordinates(shape: StepShape) -> np.ndarray:
    return np.log2(np.array([shape.tokens, shape.batch, shape.context_tokens]) + 1.0)


def _ratio(times: StepTimes, known: Mapping[StepShape, float], shape: StepShape) -> float:
    """Measured over modelled, geometric mean of the neighbours."""
    where = np.array([_coordinates(one) for one in known])
    logs = np.log([value / modelled_s(times, one) for one, value in known.items()])
    asked = np.clip(_coordinates(shape), where.min(axis=0), where.max(axis=0))
    squared = ((where - asked) ** 2).sum(axis=1)
    nearest = int(squared.argmin())
    if squared[nearest] == 0:
        return float(np.exp(logs[nearest]))
    return float(np.exp((logs / squared).sum() / (1 / squared).sum()))
