"""Step times that were measured on a real engine: what `profile` writes and the cost model may read.

A point is one shape of an engine step, by whom it was measured and how sure its time is. A `MeasuredProfile`
holds the points of one model on one accelerator with one engine version, for one or more shards of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PHASES = ("prefill", "decode", "mixed")


@dataclass(frozen=True, order=True)
class StepShape:
    """What one engine step computes, on one rank.

    >>> StepShape("decode", 0, 8, 512).step_tokens, StepShape("mixed", 256, 4, 512).step_tokens
    (8, 260)
    """

    phase: str
    "`prefill` (a prompt's chunk), `decode` (a token for each sequence) or `mixed` (both in one step)."
    tokens: int
    "Prompt tokens computed in the step; 0 in a pure decode step."
    batch: int
    "Decoding sequences; 0 in a pure prefill step."
    context_tokens: int
    "Decode, mixed: context of each decoding sequence. Prefill: prompt tokens already in the KV cache."

    @property
    def step_tokens(self) -> int:
        """Rows of the matrix products: prompt tokens and one token for each decoding sequence."""
        return self.tokens + self.batch


@dataclass(frozen=True)
class MeasuredPoint:
    """The time of one shape: the median over repeats, warm-up dropped."""

    shape: StepShape
    seconds: float
    "Whole engine step: schedule, model, sample. Wall time, or CPU time where the profile says so."
    low_s: float
    high_s: float
    "95 % confidence interval of the median."
    noise_frac: float
    "Spread of single repeats: half the inter-quartile range over the median."
    repeats: int
    overhead_s: float
    "Part of the step outside the model and the sampler: scheduling, output handling."
    wall_s: float
    "Median wall time; equals `seconds` unless the profile is on CPU time."
    held_out_frac: float = 0.0
    "Median error of its phase's held-out points in the profile's own test; 0 = not tested."


@dataclass(frozen=True)
class Shard:
    """Which part of the model one rank held: a tensor-parallel share, an expert-parallel share."""

    tp: int = 1
    ep: int = 1


@dataclass(frozen=True)
class MeasuredProfile:
    """Points of one model on one accelerator."""

    accelerator: str
    engine: str
    engine_version: str
    model: str
    precision: str
    time_basis: str
    "`wall` or `cpu` (CPU time of the engine's only thread): what `seconds` of the points is."
    points: Mapping[Shard, tuple[MeasuredPoint, ...]]
    edges: Mapping[Shard, tuple[StepShape, ...]] = field(default_factory=dict)
    "Shapes that have no time: they did not fit into memory, or the engine ran another batch."
