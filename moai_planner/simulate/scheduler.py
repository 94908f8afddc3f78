"""What one rank computes in its next step, as vLLM's V1 scheduler decides it.

1. Every decoding sequence gets one token (and a block when it needs one); where blocks run out, the latest
   admitted sequence is preempted and will compute its prompt and its tokens again.
2. Prompts that are partly computed get their next chunk, oldest first.
3. Unless something was preempted: sequences whose KV has arrived join, then the queue is admitted in order
   while sequences, step tokens and blocks last: blocks for the whole sequence, though it takes only those of
   its first chunk (vLLM's `scheduler_reserve_full_isl`, on by default). A prompt takes at most what is left
   of the step's tokens and at most the long-prefill threshold.
"""

from __future__ import annotations

from moai_planner.simulate.compiled import part, shared_part
from moai_planner.simulate.fields import (
    ADMIT,
    BLOCK_TOKENS,
    CHUNK_TOKENS,
    CHUNKS,
    COMPUTED,
    CONTEXT,
    DECODES,
    DECODING,
    GENERATED,
    GRANULE_BLOCKS,
    GRANULE_TOKENS,
    HIT,
    ISL,
    JOINED,
    LOADING,
    MAX_SEQS,
    MAX_TOKENS,
    OFFSET,
    OSL,
    PAIRS,
    PARTIAL,
    PARTIALS,
    PREEMPTED,
    READY_HEAD,
    READY_TAIL,
    REMOTE,
    RUN_HEAD,
    RUN_TAIL,
    RUNNING,
    STATE,
    STEP,
    THRESHOLD,
    USED,
    WAIT_HEAD,
    WAIT_TAIL,
    WAITING,
)
from moai_planner.simulate.memory import (
    find_hits,
    free_blocks,
    hold_hits,
    make_room,
    preempt_last,
    share_filled,
)
from moai_planner.simulate.queues import append, push_end, unlink


@part
def start_decoding(rank, request, ends, phase, r, i, tokens, steps):
    """Request i holds `tokens` KV tokens and takes `steps` more decode steps."""
    step = rank[r, STEP]
    request[i, STATE] = DECODES
    request[i, OFFSET] = tokens - step
    phase[r, (step - tokens) % rank[r, BLOCK_TOKENS]] += 1
    push_end(ends, r, rank[r, DECODING], step + steps, i)
    rank[r, DECODING] += 1
    rank[r, CONTEXT] += tokens


@part
def _chunk(rank, r, left):
    """Tokens of a prompt with `left` to go that the step can take."""
    threshold = rank[r, THRESHOLD]
    if threshold > 0 and left > threshold:
        left = threshold
    return min(left, rank[r, MAX_TOKENS] - rank[r, DECODING] - rank[r, CHUNK_TOKENS])


@part
def _take_chunk(rank, rank_f, request, chunks, r, i, chunk):
    at = rank[r, CHUNKS]
    chunks[r, at] = i
    rank[r, CHUNKS] = at + 1
    rank[r, CHUNK_TOKENS] += chunk
    rank_f[r, PAIRS] += chunk * (request[i, COMPUTED] + 0.5 * chunk)
    request[i, COMPUTED] += chunk


@shared_part
def schedule(
    rank,
    rank_f,
    request,
    times,
    ends,
    phase,
    partials,
    chunks,
    joined,
    cache,
    hashes,
    starts,
    loading,
    r,
    now_s,
):
    """Fill rank r's next step; returns the number of requests put into `loading` (their KV starts to
    move)."""
    holders, after, before = cache
    block = rank[r, BLOCK_TOKENS]
    rank[r, PREEMPTED] = 0
    rank[r, CHUNKS] = 0
    rank[r, CHUNK_TOKENS] = 0
    rank[r, JOINED] = 0
    rank_f[r, PAIRS] = 0.0

    if rank[r, DECODING] > 0:
        need = phase[r, rank[r, STEP] % block]
        while need > free_blocks(rank, r):
            preempt_last(
                rank, request, times, ends, phase, holders, after, before, hashes, starts, r, 0, now_s
            )
            need = phase[r, rank[r, STEP] % block]
        rank[r, USED] += need
        make_room(rank, holders, after, before, r)

    at = 0
    while at < rank[r, PARTIALS]:
        i = partials[r, at]
        done = request[i, COMPUTED]
        chunk = _chunk(rank, r, request[i, ISL] + request[i, GENERATED] - done)
        if chunk <= 0:
            break
        need = (done + chunk + block - 1) // block - (done + block - 1) // block
        victim = -1
        while victim != i and need > free_blocks(rank, r):
            victim = preempt_last(
                rank, request, times, ends, phase, holders, after, before, hashes, starts, r, 1, now_s
            )
        if victim == i:
            break
        rank[r, USED] += need
        make_room(rank, holders, after, before, r)
        _take_chunk(rank, rank_f, request, chunks, r, i, chunk)
        share_filled(rank, request, holders, after, before, hashes, starts, r, i)
        at += 1

    loads = 0
    if rank[r, PREEMPTED] > 0:
        return loads
    while rank[r, READY_HEAD] >= 0 and rank[r, RUNNING] < rank[r, MAX_SEQS] and _chunk(rank, r, 1) > 0:
        i = rank[r, READY_HEAD]
        tokens = request[i, COMPUTED]
        if tokens % block == 0 and tokens == request[i, ISL]:
            if free_blocks(rank, r) < 1:
                break
            rank[r, USED] += 1
            make_room(rank, holders, after, before, r)
        unlink(rank, request, r, READY_HEAD, READY_TAIL, i)
        append(rank, request, r, RUN_HEAD, RUN_TAIL, i)
        rank[r, RUNNING] += 1
        start_decoding(rank, request, ends, phase, r, i, tokens, request[i, OSL] - request[i, GENERATED])
        joined[r, rank[r, JOINED]] = i
        rank[r, JOINED] += 1

    while rank[r, WAIT_HEAD] >= 0 and rank[r, RUNNING] < rank[r, MAX_SEQS] and _chunk(rank, r, 1) > 0:
        i = rank[r, WAIT_HEAD]
        if request[i, STATE] == REMOTE:
            need = (request[i, ISL] + block - 1) // block
            if need > free_blocks(rank, r):
                break
            rank[r, USED] += need
            make_room(rank, holders, after, before, r)
            unlink(rank, request, r, WAIT_HEAD, WAIT_TAIL, i)
            rank[r, WAITING] -= 1
            request[i, STATE] = LOADING
            loading[loads] = i
            loads += 1
            continue
        hits, idle = find_hits(rank, request, holders, hashes, starts, r, i)
        total = request[i, ISL] + request[i, GENERATED]
        cached = hits * rank[r, GRANULE_TOKENS]
        chunk = _chunk(rank, r, total - cached)
        need = (cached + chunk + block - 1) // block - hits * rank[r, GRANULE_BLOCKS]
        whole = (total + block - 1) // block - hits * rank[r, GRANULE_BLOCKS]
        if whole + idle * rank[r, GRANULE_BLOCKS] > free_blocks(rank, r):
            break
        unlink(rank, request, r, WAIT_HEAD, WAIT_TAIL, i)
        rank[r, WAITING] -= 1
        append(rank, request, r, RUN_HEAD, RUN_TAIL, i)
        rank[r, RUNNING] += 1
        hold_hits(rank, request, holders, after, before, hashes, starts, r, i, hits)
        rank[r, USED] += need
        make_room(rank, holders, after, before, r)
        request[i, COMPUTED] = cached
        if times[i, ADMIT] < 0.0:
            times[i, ADMIT] = now_s
            request[i, HIT] = cached
        _take_chunk(rank, rank_f, request, chunks, r, i, chunk)
        share_filled(rank, request, holders, after, before, hashes, starts, r, i)
        if chunk < total - cached:
            request[i, STATE] = PARTIAL
            partials[r, rank[r, PARTIALS]] = i
            rank[r, PARTIALS] += 1
    return loads
