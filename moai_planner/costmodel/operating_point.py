"""What an instance serves in the steady state of equal requests: the figures `estimate` prints.

    point = operating_point(times, layout, batch=32, isl_tokens=1024, osl_tokens=512, …)

Closed form for one instance kept full: each data-parallel rank decodes `batch` sequences, and every
sequence that ends is replaced by one whose prompt takes its prefill time away from decoding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from moai_planner.costmodel.measured import MeasuredSteps
from moai_planner.domain.layout import Engine, Layout
from moai_planner.domain.measured import StepShape
from moai_planner.domain.provenance import Basis, Interval, weakest
from moai_planner.domain.step import StepTimes

STATED_CONFIDENCE = 0.8
"""Of the interval that step times carry."""


@dataclass(frozen=True)
class OperatingPoint:
    """One instance kept at `batch` sequences per data-parallel rank."""

    prefill_s: Interval
    "One prompt alone, in chunks as large as a step may be."
    ttft_s: Interval
    "The same with the time outside the engine."
    decode_step_s: Interval
    "One decode step of the batch at the mean context, no prompt in it."
    tpot_s: Interval
    "Between two tokens of a request, prompts of the others included."
    prefill_tokens_per_s: Interval
    "The instance doing nothing but prompts."
    decode_tokens_per_s: Interval
    "The instance doing nothing but decoding."
    output_tokens_per_s: Interval
    "Steady state of whole requests."
    total_tokens_per_s: Interval
    "Prompt and output tokens of the same."
    requests_per_s: Interval


def operating_point(
    times: StepTimes,
    layout: Layout,
    engine: Engine,
    batch: int,
    isl_tokens: int,
    osl_tokens: int,
    context_tokens: float | None = None,
    confidence: float = STATED_CONFIDENCE,
    measured: MeasuredSteps | None = None,
) -> OperatingPoint:
    """Closed-form figures of one instance; `context_tokens` defaults to the mean over a request's life.

    With pipeline stages the batch is spread over the steps in flight. Where steps were measured (then
    there are no stages), prompt and decode step are those, and each figure has the basis of its parts.
    """
    context = isl_tokens + osl_tokens / 2 if context_tokens is None else context_tokens
    in_step = max(1, math.ceil(batch / times.stages))
    prompt_s, prompt_basis = prefill_s(times, engine, isl_tokens), times.basis
    step_s, step_basis = float(times.decode_step_s(in_step, in_step * context)), times.basis
    prompt_range = step_range = (times.low_frac, times.high_frac)
    if measured and measured.has("prefill"):
        prompt = prompt_steps(engine, isl_tokens)
        prompt_s, prompt_basis = _sum(measured, prompt)
        prompt_range = _wider(prompt_range, measured.range_of(prompt))
    if measured and measured.has("decode"):
        decode = decode_step(times, batch, context)
        step_s, step_basis = measured.step(decode)
        step_range = _wider(step_range, measured.range_of([decode]))
    both = weakest((prompt_basis, step_basis))
    outside_basis = measured.modelled.basis if measured else times.basis
    tpot_s = step_s + in_step * prompt_s / times.stages / osl_tokens
    requests = layout.dp * batch / (tpot_s * osl_tokens)
    outside_s = times.request_s + times.prompt_token_s * isl_tokens
    prompt_ends = interval_ends(*prompt_range, confidence)
    step_ends = interval_ends(*step_range, confidence)
    both_ends = _wider(prompt_ends, step_ends)
    outside_of = weakest((prompt_basis, outside_basis))
    return OperatingPoint(
        prefill_s=_slow(prompt_s, prompt_ends, prompt_basis),
        ttft_s=_slow(prompt_s + outside_s, prompt_ends, outside_of),
        decode_step_s=_slow(step_s, step_ends, step_basis),
        tpot_s=_slow(tpot_s, both_ends, both),
        prefill_tokens_per_s=_fast(
            layout.dp * times.stages * isl_tokens / prompt_s, prompt_ends, prompt_basis
        ),
        decode_tokens_per_s=_fast(layout.dp * batch / step_s, step_ends, step_basis),
        output_tokens_per_s=_fast(requests * osl_tokens, both_ends, both),
        total_tokens_per_s=_fast(requests * (isl_tokens + osl_tokens), both_ends, both),
        requests_per_s=_fast(requests, both_ends, both),
    )


def _slow(value: float, ends: tuple[float, float], basis: Basis) -> Interval:
    return Interval(value, value * ends[0], value * ends[1], basis)


def _fast(value: float, ends: tuple[float, float], basis: Basis) -> Interval:
    return Interval(value, value / ends[1], value / ends[0], basis)


def _wider(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    return min(a[0], b[0]), max(a[1], b[1])


def prefill_s(times: StepTimes, engine: Engine, isl_tokens: int, cached_tokens: int = 0) -> float:
    """One prompt alone, chunk after chunk; with stages the chunks follow each other through them."""
    chunk = _chunk_tokens(engine)
    total, longest, done = 0.0, 0.0, cached_tokens
    while done < isl_tokens:
        tokens = min(chunk, isl_tokens - done)
        one = float(times.mixed_step_s(tokens, tokens * (done + tokens / 2), sequences=1))
        total += one / times.stages
        longest = max(longest, one)
        done += tokens
    return total + longest * (1 - 1 / times.stages)


def _chunk_tokens(engine: Engine) -> int:
    limit = engine.long_prefill_token_threshold
    return min(engine.max_num_batched_tokens, limit) if limit else engine.max_num_batched_tokens


def prompt_steps(engine: Engine, isl_tokens: int) -> list[StepShape]:
    """The steps of one prompt alone."""
    chunk = _chunk_tokens(engine)
    return [StepShape("prefill", min(chunk, isl_tokens - s), 0, s) for s in range(0, isl_tokens, chunk)]


def decode_step(times: StepTimes, batch: int, context_tokens: float) -> StepShape:
    """A decode step of the batch, spread over the stages."""
    return StepShape("decode", 0, max(1, math.ceil(batch / times.stages)), round(context_tokens))


def _sum(measured: MeasuredSteps, shapes: list[StepShape]) -> tuple[float, Basis]:
    steps = [measured.step(shape) for shape in shapes]
    return sum(seconds for seconds, _ in steps), weakest(basis for _, basis in steps)


def interval_ends(low_frac: float, high_frac: float, confidence: float) -> tuple[float, float]:
    """The 80 % interval at another confidence, taken as log-normal around the prediction.

    >>> interval_ends(0.8, 1.25, 0.8)
    (0.8, 1.25)
    >>> tuple(round(end, 2) for end in interval_ends(0.8, 1.25, 0.95))
    (0.71, 1.41)
    """
    normal = NormalDist()
    share = normal.inv_cdf((1 + confidence) / 2) / normal.inv_cdf((1 + STATED_CONFIDENCE) / 2)
    return low_frac**share, high_frac**share
