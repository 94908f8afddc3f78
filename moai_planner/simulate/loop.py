"""The event loop: arrivals, transfers, and the ends of steps and of stretches of decode steps.

Between two of these a unit's batch advances in closed form (`stretch`), so the cost is per request and per
prompt chunk,
not per token. Order at one moment: client arrivals, timed events, units. A unit that steps alone is a
lockstep
unit of one rank.
"""

from __future__ import annotations

import math

from moai_planner.simulate.compiled import entry, part, shared_part
from moai_planner.simulate.fields import *  # noqa: F403  (columns of the tables, constants only)
from moai_planner.simulate.histogram import bin_of
from moai_planner.simulate.memory import free_blocks, make_room, release
from moai_planner.simulate.queues import (
    REQUEST_BITS,
    REQUEST_MASK,
    append,
    drop_end,
    pop_event,
    push_event,
    unlink,
)
from moai_planner.simulate.routing import route
from moai_planner.simulate.scheduler import schedule, start_decoding
from moai_planner.simulate.stretch import interpolate, new_blocks, steps_within, walk

# ruff: noqa: F405


@part
def _add_gap(s, gap_s, weight):
    """Count an inter-token time that is not a plain step (or take one back with weight −1)."""
    s.histogram[bin_of(gap_s, s.number, s.bits)] += weight
    s.totals_f[ITL_COUNT] += weight
    s.totals_f[ITL_SUM] += weight * gap_s
    s.totals_f[ITL_SQUARES] += weight * gap_s * gap_s


@shared_part
def _wake(s, r, now_s, moved):
    """Rank r has something new (`moved` = a transfer ended): start an idle unit, or stop a stretch at its
    next step."""
    u = s.rank[r, UNIT]
    if s.unit_i[u, BUSY] == 0:
        s.unit_f[u, NEXT_S] = now_s
        return
    if s.unit_i[u, STEPS] > 1 and s.unit_f[u, NEXT_S] > now_s:  # noqa: SIM102
        if moved or s.rank[r, RUNNING] < s.rank[r, MAX_SEQS]:
            steps, seconds = walk(
                s.unit_i, s.unit_f, s.rank, s.rank_f, u, s.unit_i[u, STEPS],
                max(now_s - s.unit_f[u, BEGIN_S], 1e-300), 0, s.histogram, s.totals_f, s.number, s.bits,
            )  # fmt: skip
            s.unit_i[u, STEPS] = steps
            s.unit_f[u, NEXT_S] = s.unit_f[u, BEGIN_S] + seconds


@shared_part
def _arrive(s, m, policy, i, now_s):
    """Request i reaches the router of its lane."""
    lane = s.request[i, LANE]
    pool = int(m.lane[lane, ENTRY_POOL])
    granule = s.rank[m.pool_ranks[m.pool_first[pool]], GRANULE_TOKENS]
    r = route(
        policy, pool, m.pool_first, m.pool_ranks, s.turns, s.rank, s.request, s.owner, s.hashes, s.starts,
        s.totals, s.totals_f, granule, i,
    )  # fmt: skip
    s.request[i, RANK] = r
    s.request[i, PREFILL_RANK] = r
    _queue(s, r, i, WAITS, now_s)


@shared_part
def _queue(s, r, i, state, now_s):
    blocked = s.rank[r, WAIT_HEAD] >= 0
    s.request[i, STATE] = state
    append(s.rank, s.request, r, WAIT_HEAD, WAIT_TAIL, i)
    s.rank[r, WAITING] += 1
    s.rank[r, OUTSTANDING] += 1
    if not blocked or s.unit_i[s.rank[r, UNIT], BUSY] == 0:
        _wake(s, r, now_s, False)


@part
def _finish(s, i, now_s):
    s.times[i, FINISH] = now_s
    s.request[i, STATE] = DONE
    s.totals[INFLIGHT] -= 1
    s.totals[FINISHED] += 1


@shared_part
def _leave(s, r, i):
    unlink(s.rank, s.request, r, RUN_HEAD, RUN_TAIL, i)
    s.rank[r, RUNNING] -= 1
    s.rank[r, OUTSTANDING] -= 1


@shared_part
def _free(s, r, i, tokens, granules):
    release(s.rank, s.request, *s.cache, s.hashes, s.starts, r, i, tokens, granules)


@shared_part
def _hand_over(s, m, decode_policy, first_from_prefill, i, now_s):
    """The prompt is computed on a prefill instance: choose where it decodes. Its KV stays until it has
    moved."""
    s.kv_times[i, PREFILLED] = now_s
    s.request[i, PREFILLED_GRANULES] = s.request[i, GRANULES]
    s.request[i, GRANULES] = 0
    s.request[i, GENERATED] = 0
    s.request[i, COMPUTED] = s.request[i, ISL] - 1
    if first_from_prefill:
        s.times[i, FIRST] = now_s
        s.times[i, FINISH] = now_s
        s.request[i, GENERATED] = 1
        s.request[i, COMPUTED] = s.request[i, ISL]
    pool = int(m.lane[s.request[i, LANE], DECODE_POOL])
    r = route(
        decode_policy, pool, m.pool_first, m.pool_ranks, s.turns, s.rank, s.request, s.owner, s.hashes, s.starts,  # noqa: E501
        s.totals, s.totals_f, 0, i,
    )  # fmt: skip
    s.request[i, RANK] = r
    _queue(s, r, i, REMOTE, now_s)


@shared_part
def _move_kv(s, m, i, now_s, events):
    """Start request i's transfer: first come, first served through the sender's and the receiver's
    network."""
    lane = s.request[i, LANE]
    size = s.request[i, ISL] * m.lane[lane, TOKEN_BYTES]
    sender = s.unit_i[s.rank[s.request[i, PREFILL_RANK], UNIT], INSTANCE]
    unit = s.rank[s.request[i, RANK], UNIT]
    receiver = s.unit_i[unit, INSTANCE]
    wire_s = size / m.lane[lane, NIC_RATE]
    s.nic_free[sender, 0] = max(s.nic_free[sender, 0], now_s) + wire_s
    s.nic_free[receiver, 1] = max(s.nic_free[receiver, 1], now_s) + wire_s
    done_s = max(now_s + size / m.lane[lane, PATH_RATE], s.nic_free[sender, 0], s.nic_free[receiver, 1])
    done_s += m.lane[lane, LATENCY_S]
    s.kv_times[i, KV_START] = now_s
    s.kv_times[i, KV_DONE] = done_s
    s.unit_i[unit, LOADS] += 1
    push_event(s.event_s, s.event_what, events, done_s, len(s.request) + i)


@shared_part
def _kv_arrived(s, i, now_s):
    """The KV is on the decode side: the prefill side forgets it, the sequence may join."""
    sender = s.request[i, PREFILL_RANK]
    _free(s, sender, i, s.request[i, ISL], s.request[i, PREFILLED_GRANULES])
    s.rank[sender, OUTSTANDING] -= 1
    if s.rank[sender, WAIT_HEAD] >= 0 or s.rank[sender, READY_HEAD] >= 0:
        _wake(s, sender, now_s, True)
    r = s.request[i, RANK]
    s.unit_i[s.rank[r, UNIT], LOADS] -= 1
    s.request[i, STATE] = READY
    append(s.rank, s.request, r, READY_HEAD, READY_TAIL, i)
    _wake(s, r, now_s, True)


@shared_part
def _end_of_prompt(s, m, decode_policy, first_from_prefill, r, i, now_s):
    """A prompt (or a recomputation) is whole: its next token is there."""
    lane = s.request[i, LANE]
    if m.lane[lane, DECODE_POOL] >= 0 and s.kv_times[i, PREFILLED] < 0.0:
        unlink(s.rank, s.request, r, RUN_HEAD, RUN_TAIL, i)
        s.rank[r, RUNNING] -= 1
        if first_from_prefill and s.request[i, OSL] == 1:
            s.times[i, FIRST] = now_s
            s.rank[r, OUTSTANDING] -= 1
            _free(s, r, i, s.request[i, COMPUTED], s.request[i, GRANULES])
            _finish(s, i, now_s)
        else:
            _hand_over(s, m, decode_policy, first_from_prefill, i, now_s)
        return
    if s.request[i, GENERATED] == 0:
        s.times[i, FIRST] = now_s
    else:
        _add_gap(s, now_s - s.times[i, FINISH], 1)
    s.request[i, GENERATED] += 1
    if s.request[i, GENERATED] == s.request[i, OSL]:
        _leave(s, r, i)
        _free(s, r, i, s.request[i, COMPUTED], s.request[i, GRANULES])
        _finish(s, i, now_s)
    else:
        left = s.request[i, OSL] - s.request[i, GENERATED]
        start_decoding(s.rank, s.request, s.ends, s.phase, r, i, s.request[i, COMPUTED], left)


@shared_part
def _advance(s, m, decode_policy, first_from_prefill, u, now_s):
    """A step or a stretch of unit u ends: count its tokens, finish and move on what is done."""
    steps = s.unit_i[u, STEPS]
    first, end = s.unit_i[u, FIRST_RANK], s.unit_i[u, END_RANK]
    decoding = 0
    for r in range(first, end):
        decoding += s.rank[r, DECODING]
    if decoding > 0:
        walk(
            s.unit_i, s.unit_f, s.rank, s.rank_f, u, steps, math.inf, decoding,
            s.histogram, s.totals_f, s.number, s.bits,
        )  # fmt: skip
    _note_time(s, u, now_s)
    for r in range(first, end):
        if s.rank[r, DECODING] > 0:
            if steps > 1:
                s.rank[r, USED] += new_blocks(s.rank, s.phase, r, steps - 1)
                make_room(s.rank, *s.cache, r)
            s.rank[r, STEP] += steps
            s.rank[r, CONTEXT] += s.rank[r, DECODING] * steps
            while s.rank[r, DECODING] > 0 and s.ends[r, 0] >> REQUEST_BITS == s.rank[r, STEP]:
                i = s.ends[r, 0] & REQUEST_MASK
                drop_end(s.ends, r, s.rank[r, DECODING], 0)
                tokens = s.request[i, OFFSET] + s.rank[r, STEP]
                s.rank[r, DECODING] -= 1
                s.rank[r, CONTEXT] -= tokens
                s.phase[r, (-s.request[i, OFFSET]) % s.rank[r, BLOCK_TOKENS]] -= 1
                _leave(s, r, i)
                _free(s, r, i, tokens, s.request[i, GRANULES])
                _finish(s, i, now_s)
        kept = 0
        for at in range(s.rank[r, PARTIALS]):
            i = s.partials[r, at]
            if s.request[i, COMPUTED] < s.request[i, ISL] + s.request[i, GENERATED]:
                s.partials[r, kept] = i
                kept += 1
        s.rank[r, PARTIALS] = kept
        for at in range(s.rank[r, CHUNKS]):
            i = s.chunks[r, at]
            if s.request[i, COMPUTED] == s.request[i, ISL] + s.request[i, GENERATED]:
                _end_of_prompt(s, m, decode_policy, first_from_prefill, r, i, now_s)
        s.rank[r, CHUNKS] = 0
    s.unit_i[u, BUSY] = 0


@shared_part
def _note_time(s, u, now_s):
    """Spread the busy time and the KV held over the bins of the timeline."""
    begin_s = s.unit_f[u, BEGIN_S]
    s.unit_f[u, BUSY_S] += now_s - begin_s
    s.unit_f[u, STEP_COUNT] += s.unit_i[u, STEPS]
    held = 0
    for r in range(s.unit_i[u, FIRST_RANK], s.unit_i[u, END_RANK]):
        held += s.rank[r, USED] + s.rank[r, REFERENCED] * s.rank[r, GRANULE_BLOCKS]
    bins = s.busy_s.shape[1]
    at = int(begin_s / s.bin_s[0])
    while True:
        if at >= bins - 1:
            s.busy_s[u, bins - 1] += now_s - begin_s
            s.block_s[u, bins - 1] += held * (now_s - begin_s)
            return
        edge_s = (at + 1) * s.bin_s[0]
        upto_s = min(edge_s, now_s)
        if upto_s > begin_s:
            s.busy_s[u, at] += upto_s - begin_s
            s.block_s[u, at] += held * (upto_s - begin_s)
            begin_s = upto_s
        if now_s <= edge_s:
            return
        at += 1


@shared_part
def _begin(s, m, u, now_s, events):
    """Schedule the next step of unit u, or the stretch of decode steps until something changes."""
    first, end = s.unit_i[u, FIRST_RANK], s.unit_i[u, END_RANK]
    busy = 0
    prompts = 0
    preempted = 0
    for r in range(first, end):
        loads = schedule(
            s.rank, s.rank_f, s.request, s.times, s.ends, s.phase, s.partials, s.chunks, s.joined, s.cache,
            s.hashes, s.starts, s.loading, r, now_s,
        )  # fmt: skip
        for at in range(loads):
            _move_kv(s, m, s.loading[at], now_s, events)
            events += 1
        busy += s.rank[r, DECODING] + s.rank[r, CHUNKS]
        prompts += s.rank[r, CHUNKS]
        preempted += s.rank[r, PREEMPTED]
    if busy == 0:
        s.unit_i[u, BUSY] = 0
        s.unit_f[u, NEXT_S] = now_s if preempted > 0 else math.inf
        return events
    model = s.unit_i[u, MODEL]
    most = 1 << 40
    for r in range(first, end):
        decoding = s.rank[r, DECODING]
        kv_s = s.unit_f[u, KV_S] * (s.rank[r, CONTEXT] + decoding)
        s.rank_f[r, SLOPE_S] = s.unit_f[u, KV_S] * decoding
        if s.rank[r, CHUNKS] > 0:
            base_s = interpolate(
                s.rank[r, CHUNK_TOKENS] + decoding, m.tokens[model], m.mixed_s[model], m.points[model]
            )
            base_s += s.unit_f[u, ROW_S] * (decoding + s.rank[r, CHUNKS])
            s.rank_f[r, BASE_S] = base_s + s.unit_f[u, PAIR_S] * s.rank_f[r, PAIRS] + kv_s
        elif decoding > 0:
            s.rank_f[r, BASE_S] = m.decode_s[model, decoding] + kv_s
        else:
            s.rank_f[r, BASE_S] = 0.0
        if decoding > 0 and prompts == 0:
            most = min(most, (s.ends[r, 0] >> REQUEST_BITS) - s.rank[r, STEP])
    if prompts > 0 or preempted > 0:
        most = 1
    elif most > 1:
        for r in range(first, end):
            free = free_blocks(s.rank, r)
            most = min(most, 1 + steps_within(s.rank, s.phase, r, free, most - 1))
    s.unit_f[u, FACTOR] = 1.0 + s.unit_f[u, SLOWDOWN] if s.unit_i[u, LOADS] > 0 else 1.0
    steps, seconds = walk(  # noqa: RUF059
        s.unit_i, s.unit_f, s.rank, s.rank_f, u, most, math.inf, 0, s.histogram, s.totals_f, s.number, s.bits
    )
    s.unit_i[u, STEPS] = most
    s.unit_i[u, BUSY] = 1
    s.unit_f[u, BEGIN_S] = now_s
    s.unit_f[u, NEXT_S] = now_s + seconds
    for r in range(first, end):
        if s.rank[r, JOINED] > 0:
            _first_decode(s, u, r, now_s)
    return events


@part
def _first_decode(s, u, r, now_s):
    """Sequences whose KV came from elsewhere: their first token here is not one step after their last."""
    _, step_s = walk(
        s.unit_i, s.unit_f, s.rank, s.rank_f, u, 1, math.inf, 0, s.histogram, s.totals_f, s.number, s.bits
    )
    for at in range(s.rank[r, JOINED]):
        i = s.joined[r, at]
        _add_gap(s, step_s, -1)
        if s.request[i, GENERATED] == 0:
            s.times[i, FIRST] = now_s + step_s
        else:
            _add_gap(s, now_s + step_s - s.times[i, FINISH], 1)


@entry
def run_events(m, s, arrival_s, overhead_s, delay, limit, policy, decode_policy, first_from_prefill):
    """Serve every request. `limit` > 0: at most so many in flight; then a request starts when one ends.

    `delay`: requests reach the engine overhead_s[i] after they start (through a timed event), none of a lane
    before another that started earlier; otherwise all that is already in arrival_s and START is set before
    the engine's arrival. Returns 0, or 1 when requests are left that nothing can serve.
    """
    count = len(arrival_s)
    following = 0
    events = 0
    units = s.unit_i.shape[0]
    while True:
        client_s = math.inf
        if following < count and (limit == 0 or s.totals[INFLIGHT] < limit):
            client_s = max(arrival_s[following], s.totals_f[CLOCK])
        event_s = s.event_s[0] if events > 0 else math.inf
        unit = 0
        unit_s = s.unit_f[0, NEXT_S]
        for u in range(1, units):
            if s.unit_f[u, NEXT_S] < unit_s:
                unit, unit_s = u, s.unit_f[u, NEXT_S]
        if client_s <= event_s and client_s <= unit_s:
            if client_s == math.inf:
                break
            i = following
            following += 1
            s.totals[INFLIGHT] += 1
            s.totals_f[CLOCK] = client_s
            if delay:
                s.times[i, START] = client_s
                lane = s.request[i, LANE]
                s.passed_s[lane] = max(s.passed_s[lane], client_s + overhead_s[i])
                push_event(s.event_s, s.event_what, events, s.passed_s[lane], i)
                events += 1
            else:
                s.times[i, START] = client_s - overhead_s[i]
                _arrive(s, m, policy, i, client_s)
        elif event_s <= unit_s:
            what = s.event_what[0]
            pop_event(s.event_s, s.event_what, events)
            events -= 1
            s.totals_f[CLOCK] = event_s
            if what < count:
                _arrive(s, m, policy, what, event_s)
            else:
                _kv_arrived(s, what - count, event_s)
        else:
            s.totals_f[CLOCK] = unit_s
            if s.unit_i[unit, BUSY] == 1:
                _advance(s, m, decode_policy, first_from_prefill, unit, unit_s)
            events = _begin(s, m, unit, unit_s, events)
        s.totals[EVENTS] += 1
    return 0 if s.totals[FINISHED] == count else 1
