"""A measured profile as the step times that simulator and programme read.

    t = decode_s[B] + kv_s · H                          pure decode, H = context tokens of the batch
    t = mixed_s(T) + pair_s · A + kv_s · H              a step with prompt tokens, A = token pairs

kv_s is the slope between the shortest and the longest context over all batches; decode_s and mixed_s are what
the prediction (operators and neighbours) leaves after it. `door` adds what a served engine spends that an
in-process one does not: process hand-over per step, HTTP and tokenising per request.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moai_planner.domain.measured import StepShape
from moai_planner.domain.provenance import Basis
from moai_planner.domain.step import StepTimes
from moai_planner.profile import fit
from moai_planner.profile.features import work
from moai_planner.profile.report import Assessment

_LOW, _HIGH = 0.1, 0.9
_KNOTS = 64


@dataclass(frozen=True)
class FrontDoor:
    """What serving adds to an engine step and to a request, measured with one request at a time."""

    step_s: float = 0.0
    request_s: float = 0.0


def step_times(
    assessment: Assessment,
    observations: fit.Observations,
    max_num_seqs: int,
    max_num_batched_tokens: int,
    door: FrontDoor = FrontDoor(),
) -> StepTimes:
    """Step times of a measured model, up to the given limits."""
    costs = assessment.costs
    kv_s = context_slope_s(observations)
    contexts = sorted({s.context_tokens for s in observations.seconds if s.phase == "decode"})
    middle = contexts[len(contexts) // 2]
    batches = np.arange(1, max_num_seqs + 1)
    decode = fit.predicted_s(
        costs, observations, [StepShape("decode", 0, int(batch), middle) for batch in batches]
    )
    decode_s = np.concatenate([[0.0], np.maximum(decode - kv_s * batches * middle, 0.0)])
    pair_s = _pair_s(costs, observations)
    tokens = np.unique(np.geomspace(1, max(2, max_num_batched_tokens), _KNOTS).round().astype(int))
    prefill = fit.predicted_s(costs, observations, [StepShape("prefill", int(t), 0, 0) for t in tokens])
    mixed_s = np.maximum.accumulate(np.maximum(prefill - pair_s * tokens**2 / 2, 0.0))
    decode_s[1:] += door.step_s
    low, high = residual_range(assessment, observations)
    return StepTimes(
        decode_s=decode_s,
        tokens=tokens.astype(float),
        mixed_s=mixed_s + door.step_s,
        pair_s=pair_s,
        kv_s=kv_s,
        stages=1,
        request_s=door.request_s,
        prompt_token_s=0.0,
        basis=Basis.MEASURED,
        low_frac=low,
        high_frac=high,
    )


def context_slope_s(observations: fit.Observations) -> float:
    """Seconds per context token of decode: least squares over batches, through each one's extremes."""
    above = below = 0.0
    decode = {s: t for s, t in observations.seconds.items() if s.phase == "decode"}
    for batch in {s.batch for s in decode}:
        ends = sorted((s for s in decode if s.batch == batch), key=lambda s: s.context_tokens)
        more = batch * (ends[-1].context_tokens - ends[0].context_tokens)
        above += more * (decode[ends[-1]] - decode[ends[0]])
        below += more * more
    return max(0.0, above / below) if below else 0.0


def _pair_s(costs: fit.Costs, observations: fit.Observations) -> float:
    """Seconds per token pair of prompt attention, from the operators of a chunk on cached context."""
    ends = [StepShape("prefill", 64, 0, context) for context in (0, 1000)]
    rows = work(observations.model, observations.precision, ends)
    return float((rows[1] - rows[0]) @ np.nan_to_num(costs.seconds)) / (64 * 1000)


def residual_range(assessment: Assessment, observations: fit.Observations) -> tuple[float, float]:
    """Low and high fraction of the prediction: the middle 80 % of truth over prediction, held-out points."""
    ratios = [observations.seconds[s] / predicted for s, predicted in assessment.predicted_s.items()]
    if len(ratios) < 3:
        return 0.9, 1.1
    low, high = np.quantile(ratios, [_LOW, _HIGH])
    return float(min(low, 1.0)), float(max(high, 1.0))


def front_door(times: StepTimes, isl_tokens: int, osl_tokens: int, ttft_s: float, tpot_s: float) -> FrontDoor:
    """What a run of one request at a time took beyond `times` (in process)."""
    context = isl_tokens + osl_tokens / 2
    step_s = tpot_s - float(times.decode_step_s(1, context))
    prefill_s = float(times.mixed_step_s(isl_tokens, isl_tokens**2 / 2))
    step_s = max(0.0, step_s)
    return FrontDoor(step_s, max(0.0, ttft_s - prefill_s - step_s))
