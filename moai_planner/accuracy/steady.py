"""The steady state of a benchmark run in closed form: many runs at once, fast enough to fit through.

In: step times of each engine configuration, packed into padded arrays (`pack`), and the runs as a record
array (`RUN`). Out: TTFT, TPOT, E2E and request rate of each run (`solve_steady`). A closed loop of C
requests over the data-parallel ranks is a fixed point: B sequences decode, each step makes B/n of them end
(n = decode steps of a request), each that ends is replaced by a prompt, whose prefill lengthens the step it
falls into:

    t = (1 - p) · decode(B, H) + p · mixed(B + m, pairs, H)
    B = C · D / (D + TTFT),   D = n · t,   TPOT = t / (tokens a step)

p: share of steps with prompt tokens, m: prompt tokens of such a step. A sequence meets the prompts of the
other C - 1 only; equal requests that meet all at once are in `steady_waves`. Speculative decoding verifies
`draft` more tokens a sequence and step and keeps some.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from moai_planner.accuracy.steady_steps import (
    context_tokens,
    decode_step_s,
    mixed_base_s,
    mixed_step_s,
    prefill_s,
    prefills_s,
    spared_s,
)
from moai_planner.accuracy.steady_waves import waves
from moai_planner.domain.step import StepTimes, to_one_width

CLOSED, OPEN, STATIC, OFFLINE = 0, 1, 2, 3
ITERATIONS = 60
RARE = 0.01
"""Steps rarer than this are not seen by a p99 over tokens."""
RUN = np.dtype(
    [
        ("prefill", np.int64),  # table of the prefill engine; of the only engine when colocated
        ("decode", np.int64),
        ("disaggregated", np.int64),
        ("arrivals", np.int64),
        ("concurrency", np.float64),
        ("rate_req_per_s", np.float64),
        ("requests", np.float64),
        ("isl_tokens", np.float64),
        ("osl_tokens", np.float64),
        ("length_cv", np.float64),
        ("hit_frac", np.float64),
        ("prefill_workers", np.float64),
        ("prefill_ranks", np.float64),
        ("decode_workers", np.float64),
        ("decode_ranks", np.float64),
        ("budget_tokens", np.float64),
        ("max_sequences", np.float64),
        ("kv_tokens", np.float64),
        ("separate", np.int64),  # prompts run in steps of their own (SGLang), not beside decoding
        ("one_by_one", np.int64),  # prompts of a batch one after the other, the first token timed for one
        ("waves", np.int64),  # equal requests that start and end together (`steady_waves`)
        ("hold_steps", np.float64),  # a prompt waits at most so long for prompts on the other ranks
        ("receive_steps", np.float64),  # decode steps between two looks for new requests
        ("draft_tokens", np.float64),
        ("accepted_tokens", np.float64),
        ("draft_cost_frac", np.float64),
        ("warmup_s", np.float64),  # the first requests of a closed loop wait that much longer
        ("transfer_latency_s", np.float64),
        ("transfer_token_s", np.float64),
        ("decode_slowdown_frac", np.float64),
        ("staged", np.int64),  # KV passes through host memory
    ]
)
"""What the steady state needs of a run, one record each; lengths and rates of the whole run."""

OUT = np.dtype(
    [
        ("ttft_s", np.float64),
        ("ttft_median_s", np.float64),
        ("tpot_s", np.float64),
        ("tpot_median_s", np.float64),
        ("e2el_s", np.float64),
        ("req_per_s", np.float64),
        ("batch", np.float64),
        ("late_step_s", np.float64),
        ("last_s", np.float64),
        ("kept_tokens", np.float64),
    ]
)
"""`batch` sequences decoding on a rank, `late_step_s` the step that one token in a hundred waits for,
`last_s` TTFT of the last of the first requests, which all arrive at once, `kept_tokens` tokens a sequence
gains a step."""


@dataclass(frozen=True, eq=False)
class Tables:
    """Step times of many configurations as padded arrays, [configuration, point]."""

    decode_s: np.ndarray
    tokens: np.ndarray
    mixed_s: np.ndarray
    scalars: np.ndarray
    """[configuration, 8] pair_s, kv_s, stages, request_s, prompt_token_s, mixed_row_s, group_token_s and the
    part of it that idle ranks spare."""


def pack(times: Sequence[StepTimes]) -> Tables:
    """Pad the arrays of many configurations to one length; past the end they repeat the last value."""
    decode, tokens, mixed = (
        to_one_width([getattr(t, name) for t in times]) for name in ("decode_s", "tokens", "mixed_s")
    )
    scalars = np.array(
        [
            (
                *(t.pair_s, t.kv_s, t.stages, t.request_s, t.prompt_token_s, t.mixed_row_s, t.group_token_s),
                0.0 if t.padded_ranks else t.group_token_s,
            )
            for t in times
        ]
    )
    return Tables(decode, tokens, mixed, scalars)


def solve_steady(tables: Tables, runs: np.ndarray) -> np.ndarray:
    """Records `RUN` → records `OUT`."""
    out = np.zeros(len(runs), dtype=OUT)
    _solve(tables.decode_s, tables.tokens, tables.mixed_s, tables.scalars, runs, out)
    return out


@njit(cache=True)
def _solve(decode_s, tokens, mixed_s, scalars, runs, out):
    for i in range(len(runs)):
        run = runs[i]
        p, d = run.prefill, run.decode
        pre = (decode_s[p], tokens[p], mixed_s[p], scalars[p])
        dec = (decode_s[d], tokens[d], mixed_s[d], scalars[d])
        if run.arrivals == STATIC:
            values = _static(pre, run)
        elif run.disaggregated:
            values = _disaggregated(pre, dec, run)
        else:
            values = _colocated(dec, run)
        o = out[i]
        o.ttft_s, o.ttft_median_s, o.tpot_s, o.e2el_s = values[0], values[1], values[2], values[3]
        o.req_per_s, o.batch = values[4], values[5]
        o.kept_tokens = run.accepted_tokens
        o.late_step_s, o.last_s, o.tpot_median_s = values[6], values[7], values[8]


@njit(cache=True)
def _static(table, run):
    """One batch, all prompts at once (or one by one), then all decode together."""
    ranks = run.decode_workers * run.decode_ranks
    batch = max(1.0, run.requests / ranks)
    prompt = run.isl_tokens * (1.0 - run.hit_frac)
    chunks = max(1.0, math.ceil(batch * prompt / run.budget_tokens))
    prefill = chunks * mixed_base_s(table, batch * prompt / chunks) + table[3][0] * batch * 0.5 * prompt**2
    first = prefill
    if run.one_by_one:
        first = prefill_s(table, run, prompt, run.budget_tokens)
        prefill = batch * first
    step = decode_step_s(table, run, batch, batch * context_tokens(run))
    ttft = first + table[3][3]
    tpot = step / run.accepted_tokens
    e2el = prefill + table[3][3] + tpot * (run.osl_tokens - 1.0)
    return ttft, ttft, tpot, e2el, run.requests / e2el, batch, step, ttft, tpot


@njit(cache=True)
def _colocated(table, run):
    ranks = run.decode_workers * run.decode_ranks
    prompt = max(1.0, run.isl_tokens * (1.0 - run.hit_frac))
    steps = max(1.0, (run.osl_tokens - 1.0) / run.accepted_tokens)
    context = context_tokens(run)
    verify = 1.0 + run.draft_tokens
    room = min(run.max_sequences, run.kv_tokens / (context + 0.25 * run.osl_tokens))
    room = max(1.0, min(room, run.budget_tokens / (verify + prompt / steps)))
    outside = table[3][3] + table[3][4] * run.isl_tokens
    population = _in_flight(run, outside) / ranks
    if run.waves:
        ttft, last, step, batch, per_s, late = waves(table, run, outside, prompt, steps, population, RARE)
        tpot = step / run.accepted_tokens
        mean = ttft + _first(run) * run.warmup_s
        per_s *= (ttft + steps * step) / (mean + steps * step)
        return mean, ttft, tpot, mean + steps * step, per_s * ranks, batch, late, last + run.warmup_s, tpot
    batch = max(1e-6, min(population, room))
    step, mixed, ttft, decode, steady, seen, others, most = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0
    for _ in range(ITERATIONS):
        others = max(0.0, 1.0 - 1.0 / max(population, 1.0))
        crowd, most = _crowd(run, decode + steady)
        step, mixed, seen = _met_step_s(
            table, run, crowd, batch, population, room, others, prompt, steps, context
        )
        decode = steps * step
        ttft = outside + _wait_s(run, step) + _prompt_steps(run, prompt, seen, verify) * mixed
        ttft += _held_steps(run, seen * others / steps * run.decode_ranks, seen * others) * step
        target = min(population * decode / (decode + ttft), room)
        batch += 0.5 * (max(target, 1e-6) - batch)
        steady = max(ttft, population * decode / batch - decode)  # without room the rest wait
        population += 0.5 * (_in_flight(run, decode + steady) / ranks - population)
    tpot = median = step / run.accepted_tokens
    if run.arrivals == OPEN:
        median = _met_step_s(table, run, most, batch, population, room, others, prompt, steps, context)[0]
        median /= run.accepted_tokens
    served = batch / decode
    if prompt > run.budget_tokens:  # prompts of several whole steps come one after the other
        served = min(served, 1.0 / prefill_s(table, run, prompt, run.budget_tokens))
        steady = max(steady, population / served - decode)
    burst = last = steady
    if run.arrivals == OPEN and steady > 2.0 * ttft and run.concurrency <= 0:
        # a queue that grows all the time: half on average
        steady = burst = last = ttft + 0.5 * (steady - ttft)
    elif run.arrivals != OPEN:
        alone = prefill_s(table, run, prompt, run.budget_tokens)
        burst = max(steady, outside + 0.5 * (min(population, room) + 1.0) * alone) + run.warmup_s
        last = 2.0 * burst - run.warmup_s - steady
    ttft_mean = steady + _first(run) * (burst - steady)
    req_per_s = served * ranks * _finite_share(run, decode + steady, decode + ttft_mean)
    late = _late_step_s(table, run, seen, seen * others / steps, prompt, context)
    return ttft_mean, steady, tpot, ttft_mean + decode, req_per_s, batch, late, last, median


@njit(cache=True)
def _first(run):
    """Share of the requests that come before the limit on what is in flight is reached."""
    return min(1.0, run.concurrency / run.requests) if run.concurrency > 0 else 0.0


@njit(cache=True)
def _in_flight(run, residence_s):
    """Requests in the system, over the whole run on average.

    A closed loop keeps its concurrency. Arrivals at a rate r with at most C in flight, N in all: the first
    C come in C/r seconds, each later one when one ends, so the run lasts N/C residences and C/r; arrivals
    that never meet the limit last N/r and one residence. Little's law gives the rest.
    """
    if run.arrivals != OPEN:
        return run.concurrency
    cap = run.concurrency if run.concurrency > 0 else math.inf
    if run.rate_req_per_s * residence_s >= cap:
        lasts = run.requests / cap * residence_s + cap / run.rate_req_per_s
    else:
        lasts = run.requests / run.rate_req_per_s + residence_s
    return max(1e-6, min(cap, run.requests * residence_s / lasts))


@njit(cache=True)
def _crowd(run, residence_s):
    """What a request of a run at a rate meets, over what is in flight on average: the mean request, and the
    median one. Requests that meet few are few themselves.

    In flight rises for u = min(R, C/r), stays at M, and falls for u: in a run of T, ∫n dt = M(T − u) and
    ∫n² dt = M²(T − 4u/3), so the mean over requests is T(T − 4u/3)/(T − u)² of the mean over time. Most
    meet M all the while.
    """
    if run.arrivals != OPEN or run.rate_req_per_s <= 0:
        return 1.0, 1.0
    ramp, average = residence_s, _in_flight(run, residence_s)
    if run.concurrency > 0:
        ramp = min(ramp, run.concurrency / run.rate_req_per_s)
    lasts = max(run.requests * residence_s / average, 2.0 * ramp)
    if lasts <= ramp:
        return 1.0, 1.0
    most = lasts / (lasts - ramp)
    return most * (lasts - 4.0 / 3.0 * ramp) / (lasts - ramp), most


@njit(cache=True)
def _met_step_s(table, run, crowd, batch, population, room, others, prompt, steps, context):
    """`_mean_step_s` for a request that meets `crowd` times the mean, and the sequences of its rank."""
    seen = min(1.0 + batch * crowd * others, max(1.0, min(population * crowd, room)))
    elsewhere = batch * crowd * (run.decode_ranks - 1.0)
    step, mixed = _mean_step_s(table, run, seen, seen * others, elsewhere, prompt, steps, context)
    return step, mixed, seen


@njit(cache=True)
def _mean_step_s(table, run, batch, arriving, elsewhere, prompt, steps, context):
    """Mean step of a decoding sequence, and a step with a prompt in it.

    `arriving` / steps prompts enter a step on its rank, `elsewhere` / steps on all other ranks together, and
    stay for as many steps as they need; ranks in lockstep wait for the one with a prompt. Those that come
    between two looks for new requests, or are held back together, enter together.
    """
    verify = 1.0 + run.draft_tokens
    entering = arriving / steps
    work = entering * prompt
    space = max(run.budget_tokens - batch * verify, 1.0)
    everywhere = entering + elsewhere / steps
    busy, hold = _hold(run, everywhere, arriving)
    looks = max(run.receive_steps, busy * hold)
    any_rank = (1.0 - math.exp(-everywhere * max(1.0, prompt / space) * looks)) / looks
    plain = decode_step_s(table, run, batch, batch * context)
    if run.arrivals == OPEN:
        any_rank *= _apart(table, run, plain, batch, context, prompt, space)
    share = min(1.0, max(any_rank, work / space))
    if share <= 1e-9:
        share = 1e-9
    in_step = min(space, max(work / share, min(prompt, space)))
    pairs = prompt * (run.isl_tokens * run.hit_frac + 0.5 * prompt) * in_step / prompt
    mixed = mixed_step_s(table, run, batch, context, in_step, pairs, in_step / prompt)
    mixed -= spared_s(table, in_step, work / share / in_step)
    if run.separate:
        return plain + share * mixed, mixed
    mixed = max(mixed, plain)
    return (1.0 - share) * plain + share * mixed, mixed


@njit(cache=True)
def _apart(table, run, plain, batch, context, prompt, space):
    """Steps with prompts for each prompt of a run at a rate: 1 where prompts come one a step.

    Arrivals at a rate λ know no steps: those of a long step with a prompt start together after it. A prompt
    follows a plain step with probability q₀ = 1 − e^−λt₀ and a step with a prompt with q₁ = 1 − e^−λt₁, so a
    share p = q₀ / (1 − q₁ + q₀) of the steps has prompts, λt̄/p each. From the limit on what is in flight on,
    requests come when others end: together as they started where all have one length, else one by one.
    """
    tokens = min(prompt, space)
    pairs = tokens * (run.isl_tokens * run.hit_frac + 0.5 * prompt)
    mixed = mixed_step_s(table, run, batch, context, tokens, pairs, 1.0)
    mixed = max(1.0, prompt / space) * (plain + mixed if run.separate else max(mixed, plain))
    rate = run.rate_req_per_s / run.decode_workers
    after_plain, after_mixed = -math.expm1(-rate * plain), -math.expm1(-rate * mixed)
    share = after_plain / (1.0 - after_mixed + after_plain)
    prompts = max(1.0, rate * (plain + share * (mixed - plain)) / share)
    at_rate = 1.0
    if run.concurrency > 0 and run.length_cv > 0:
        at_rate = _first(run)
    return 1.0 - at_rate + at_rate / prompts


@njit(cache=True)
def _hold(run, arriving, batch):
    """How often a prompt is held back until every rank has one or `hold_steps` have passed, and for how long.

    `arriving` prompts come a step; ranks are met at random, so all n of them after n·Hₙ prompts (the coupon
    collector's mean). None waits while a rank is idle; a rank is not with probability 1 − e^−batch.
    """
    ranks = int(run.decode_ranks)
    if run.hold_steps <= 0 or ranks < 2:
        return 0.0, 0.0
    harmonic = 0.0
    for i in range(1, ranks + 1):
        harmonic += 1.0 / i
    return (1.0 - math.exp(-batch)) ** ranks, min(run.hold_steps, ranks * harmonic / max(arriving, 1e-9))


@njit(cache=True)
def _held_steps(run, arriving, batch):
    """Steps that a prompt is held back on average: the first of those held all the time, the others half."""
    busy, hold = _hold(run, arriving, batch)
    return busy * hold * (1.0 + 0.5 * arriving * hold) / (1.0 + arriving * hold)


@njit(cache=True)
def _late_step_s(table, run, batch, entering, prompt, context):
    """The step that one token in a hundred waits for, or longer.

    A step meets K prompts (Poisson; ranks in lockstep wait for the one with the most), and takes the K that
    RARE of the steps reach; while the first requests of a closed loop are computed all steps are full, and
    half of these requests decode already. Prompts longer than a step come in parts, the last of which
    pairs with all.
    """
    space = max(run.budget_tokens - batch * (1.0 + run.draft_tokens), 1.0)
    most = max(1.0, math.floor(space / prompt))
    looks = run.receive_steps
    rate = entering * max(1.0, prompt / space) * looks
    none = math.exp(-rate)
    full = 0.0
    if run.arrivals == CLOSED:
        full = 0.5 * entering * prompt / space * _first(run)
    count, term, below = 0.0, none, none
    while count < most and (1.0 - below**run.decode_ranks) / looks + full >= RARE:
        count += 1.0
        term *= rate / count
        below += term
    plain = decode_step_s(table, run, batch, batch * context)
    if count < 1.0:
        return plain
    everywhere, term, below = 0.0, none**run.decode_ranks, none**run.decode_ranks
    while everywhere < count * run.decode_ranks and (1.0 - below) / looks + full >= RARE:
        everywhere += 1.0
        term *= rate * run.decode_ranks / everywhere
        below += term
    cached = run.isl_tokens * run.hit_frac
    tokens = min(count * prompt, space)
    pairs = count * prompt * (cached + 0.5 * prompt)
    if prompt > space:
        pairs = space * (cached + prompt - 0.5 * space)
    mixed = mixed_step_s(table, run, batch, context, tokens, pairs, count)
    mixed -= spared_s(table, tokens, max(1.0, everywhere) / (count * run.decode_ranks))
    return plain + mixed if run.separate else max(mixed, plain)


@njit(cache=True)
def _prompt_steps(run, prompt, batch, verify):
    return max(1.0, prompt / max(run.budget_tokens - batch * verify, 1.0))


@njit(cache=True)
def _wait_s(run, step):
    """Until the engine looks for new requests again. After every step: a whole one in a closed loop (the new
    request follows the end of a step), half of one when arrivals do not know the steps."""
    return 0.5 * step * (run.receive_steps if run.arrivals == OPEN else run.receive_steps + 1.0)


@njit(cache=True)
def _finite_share(run, steady_s, mean_s):
    """Share of the steady request rate that a whole closed-loop run reaches, with its first requests, which
    stay longer than later ones (Little's law over the run), and its drain.

    After n = requests / concurrency turns the ends of the last requests are spread by the lengths'
    deviation times √n; while they drain the batch is half full on average. Runs at a rate count their
    ramps in `_in_flight`.
    """
    if run.arrivals == OPEN or run.requests <= 0:
        return 1.0
    turns = max(1.0, run.requests / max(run.concurrency, 1.0))
    drain = min(0.5, 1.2 * run.length_cv * math.sqrt(turns))
    return turns / (turns + drain) * steady_s / mean_s


@njit(cache=True)
def _disaggregated(pre, dec, run):
    """Prefill workers and the network are queues with deterministic service (approximate mean-value
    analysis), decode workers a delay that grows with the batch.

    A step of a prefill rank takes as many waiting prompts as its budget holds, so a queue speeds it up. A
    decode step sees a request's own sequence and its share of the others, spread over ranks that meet in
    the experts. The first requests of a closed loop come all at once.
    """
    workers = run.prefill_workers * run.prefill_ranks
    ranks = run.decode_workers * run.decode_ranks
    prompt = max(1.0, run.isl_tokens * (1.0 - run.hit_frac))
    steps = max(1.0, (run.osl_tokens - 1.0) / run.accepted_tokens)
    context = context_tokens(run)
    room = max(1.0, min(run.max_sequences, run.kv_tokens / (context + 0.25 * run.osl_tokens)))
    together = max(1.0, math.floor(run.budget_tokens / prompt))  # most prompts in one step
    alone = prefill_s(pre, run, prompt, run.budget_tokens)
    moving = run.transfer_token_s * run.isl_tokens
    lines = min(run.prefill_workers, run.decode_workers)  # networks that work side by side
    outside = pre[3][3] + pre[3][4] * run.isl_tokens + dec[3][3]
    residence = outside + alone
    population = _in_flight(run, residence)
    queue, moving_queue, served, step, ttft, batch, waiting = 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0
    for _ in range(ITERATIONS):
        other = max(0.0, 1.0 - 1.0 / max(population, 1.0))
        ahead = queue * other / workers
        prompts = min(max(1.0, ahead), together)
        full = prefills_s(pre, run, prompt, prompts, alone)
        busy = min(1.0, served * full / prompts / workers)
        some = 1.0 - (1.0 - busy) ** run.prefill_ranks  # of the ranks in lockstep has a prompt
        busy_frac = max(1.0, busy * run.prefill_ranks / max(some, 1e-9)) / run.prefill_ranks
        service = full - spared_s(pre, min(prompt * prompts, run.budget_tokens), busy_frac)
        each = full / prompts / workers
        waiting = max(0.0, ahead - 0.5 * busy) * service / prompts
        if pre[3][6] > 0.0:
            waiting += 0.5 * service * (some - busy)
        prefill = service + waiting
        crowd, _ = _crowd(run, residence)
        seen = (1.0 + max(0.0, batch * crowd * ranks * other) / run.decode_workers) / run.decode_ranks
        seen = min(max(seen, batch * crowd), max(population * crowd / ranks, 1.0 / run.decode_ranks))
        if dec[3][6] <= 0.0:
            seen = max(seen, 1.0)  # ranks that share no experts run their sequences alone
        line_use = min(1.0, served * moving / lines)
        blocked = max(0.0, moving_queue * other - 0.5 * line_use) * moving / lines
        transfer = run.transfer_latency_s + moving + blocked
        slow = 1.0 + run.decode_slowdown_frac * min(1.0, served * moving / run.decode_workers)
        step = decode_step_s(dec, run, seen, seen * context) * slow
        decode = steps * step
        ttft = outside + prefill + transfer + step
        target = min(population / (decode + ttft), 1.0 / each)
        target = min(target, room * ranks / decode, lines / max(moving, 1e-9))
        served += 0.3 * (target - served)
        queue += 0.3 * (served * prefill - queue)
        moving_queue += 0.3 * (served * (moving + blocked) - moving_queue)
        batch += 0.3 * (min(served * decode / ranks, room) - batch)
        residence = max(ttft + decode, population / max(served, 1e-9))
        population += 0.3 * (_in_flight(run, residence) - population)
    decode = steps * step
    steady = max(ttft, population / served - decode)
    burst = last = steady
    if run.arrivals != OPEN:  # the first requests come all at once and leave as fast as prompts can
        fastest = prefills_s(pre, run, prompt, together, alone) / together / workers
        held = min(population, room * ranks)
        held = 0.5 * (held + min(held, together * workers))
        burst = max(steady, ttft - waiting + held * max(fastest, moving / lines)) + run.warmup_s
        last = 2.0 * burst - run.warmup_s - steady
    ttft = steady + _first(run) * (burst - steady)
    tpot = step / run.accepted_tokens
    req_per_s = served * _finite_share(run, decode + steady, decode + ttft)
    return ttft, steady, tpot, ttft + decode, req_per_s, batch, step, last, tpot
