"""KV blocks of one rank: sequences' own blocks, hashed prompt granules shared through the prefix cache.

A *granule* is the span of one hash of the trace (512 tokens in Mooncake's), a whole number of blocks. A
prompt's
whole granules enter the cache when the chunk that fills them is scheduled; nobody's granules wait in
least-recently-used order, the tail of a prompt before its head, and make room when blocks run out.
"""

from __future__ import annotations

from moai_planner.simulate.compiled import part, shared_part
from moai_planner.simulate.fields import (
    BLOCK_TOKENS,
    BLOCKS,
    COMPUTED,
    CONTEXT,
    DECODES,
    DECODING,
    EVICTABLE,
    FINISH,
    GENERATED,
    GRANULE_BLOCKS,
    GRANULE_TOKENS,
    GRANULES,
    ISL,
    LRU_HEAD,
    LRU_TAIL,
    OFFSET,
    PARTIAL,
    PARTIALS,
    PEAK_BLOCKS,
    PREEMPTED,
    PREEMPTIONS,
    REFERENCED,
    RUN_HEAD,
    RUN_TAIL,
    RUNNING,
    STATE,
    STEP,
    USED,
    WAIT_HEAD,
    WAIT_TAIL,
    WAITING,
    WAITS,
)
from moai_planner.simulate.queues import REQUEST_MASK, drop_end, prepend, unlink


@part
def free_blocks(rank, r):
    """Blocks that nobody holds; evictable granules count as free."""
    return rank[r, BLOCKS] - rank[r, USED] - rank[r, REFERENCED] * rank[r, GRANULE_BLOCKS]


@part
def _unlink_granule(rank, after, before, r, g):
    if before[r, g] >= 0:
        after[r, before[r, g]] = after[r, g]
    else:
        rank[r, LRU_HEAD] = after[r, g]
    if after[r, g] >= 0:
        before[r, after[r, g]] = before[r, g]
    else:
        rank[r, LRU_TAIL] = before[r, g]


@shared_part
def make_room(rank, holders, after, before, r):
    """Evict until what is used and cached fits; note the peak."""
    size = rank[r, GRANULE_BLOCKS]
    held = rank[r, USED] + rank[r, REFERENCED] * size
    if held > rank[r, PEAK_BLOCKS]:
        rank[r, PEAK_BLOCKS] = held
    while rank[r, EVICTABLE] > 0 and held + rank[r, EVICTABLE] * size > rank[r, BLOCKS]:
        g = rank[r, LRU_HEAD]
        rank[r, LRU_HEAD] = after[r, g]
        if after[r, g] < 0:
            rank[r, LRU_TAIL] = -1
        else:
            before[r, after[r, g]] = -1
        holders[r, g] = -1
        rank[r, EVICTABLE] -= 1


@part
def find_hits(rank, request, holders, hashes, starts, r, i):
    """Granules of request i's prompt that are cached from its beginning; the last token is always computed.

    Returns (granules, how many of them nobody holds now).
    """
    size = rank[r, GRANULE_TOKENS]
    if size == 0:
        return 0, 0
    total = request[i, ISL] + request[i, GENERATED]
    most = min(request[i, ISL] // size, (total - 1) // size)
    hits = 0
    idle = 0
    while hits < most:
        count = holders[r, hashes[starts[i] + hits]]
        if count < 0:
            break
        if count == 0:
            idle += 1
        hits += 1
    return hits, idle


@part
def _hold(rank, holders, after, before, r, g):
    if holders[r, g] < 0:
        holders[r, g] = 1
        rank[r, REFERENCED] += 1
    elif holders[r, g] == 0:
        _unlink_granule(rank, after, before, r, g)
        holders[r, g] = 1
        rank[r, EVICTABLE] -= 1
        rank[r, REFERENCED] += 1
    else:
        holders[r, g] += 1


@part
def hold_hits(rank, request, holders, after, before, hashes, starts, r, i, hits):
    """Take the granules that were found."""
    for j in range(hits):
        _hold(rank, holders, after, before, r, hashes[starts[i] + j])
    request[i, GRANULES] = hits


@part
def share_filled(rank, request, holders, after, before, hashes, starts, r, i):
    """Turn a prompt's newly filled granules from its own blocks into cached ones."""
    size = rank[r, GRANULE_TOKENS]
    if size == 0:
        return
    filled = min(request[i, ISL], request[i, COMPUTED]) // size
    for j in range(request[i, GRANULES], filled):
        rank[r, USED] -= rank[r, GRANULE_BLOCKS]
        _hold(rank, holders, after, before, r, hashes[starts[i] + j])
    request[i, GRANULES] = max(filled, request[i, GRANULES])


@shared_part
def release(rank, request, holders, after, before, hashes, starts, r, i, tokens, granules):
    """Give back the blocks of a sequence of `tokens` KV tokens that holds `granules` granules."""
    block = rank[r, BLOCK_TOKENS]
    rank[r, USED] -= (tokens + block - 1) // block - granules * rank[r, GRANULE_BLOCKS]
    for j in range(granules - 1, -1, -1):
        g = hashes[starts[i] + j]
        holders[r, g] -= 1
        if holders[r, g] == 0:
            rank[r, REFERENCED] -= 1
            rank[r, EVICTABLE] += 1
            last = rank[r, LRU_TAIL]
            before[r, g] = last
            after[r, g] = -1
            if last >= 0:
                after[r, last] = g
            else:
                rank[r, LRU_HEAD] = g
            rank[r, LRU_TAIL] = g


@shared_part
def preempt_last(rank, request, times, ends, phase, holders, after, before, hashes, starts, r, given, now_s):
    """Send the latest admitted sequence back to the head of the queue; it computes everything again.

    `given` = 1 when decoding sequences already got their block for the coming step. Returns the request.
    """
    i = rank[r, RUN_TAIL]
    unlink(rank, request, r, RUN_HEAD, RUN_TAIL, i)
    tokens = request[i, COMPUTED]
    if request[i, STATE] == DECODES:
        tokens = request[i, OFFSET] + rank[r, STEP]
        for at in range(rank[r, DECODING]):
            if ends[r, at] & REQUEST_MASK == i:
                drop_end(ends, r, rank[r, DECODING], at)
                break
        rank[r, DECODING] -= 1
        rank[r, CONTEXT] -= tokens
        phase[r, (-request[i, OFFSET]) % rank[r, BLOCK_TOKENS]] -= 1
        request[i, GENERATED] = tokens - request[i, ISL] + 1
        if request[i, GENERATED] > 0:
            times[i, FINISH] = now_s
        tokens += given
    elif request[i, STATE] == PARTIAL:
        rank[r, PARTIALS] -= 1
    release(rank, request, holders, after, before, hashes, starts, r, i, tokens, request[i, GRANULES])
    request[i, STATE] = WAITS
    request[i, COMPUTED] = 0
    request[i, GRANULES] = 0
    request[i, PREEMPTIONS] += 1
    rank[r, RUNNING] -= 1
    rank[r, PREEMPTED] += 1
    rank[r, WAITING] += 1
    prepend(rank, request, r, WAIT_HEAD, WAIT_TAIL, i)
    return i
