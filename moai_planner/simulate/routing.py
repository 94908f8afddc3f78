"""Which rank of a pool gets a request.

random; round robin; least outstanding (ties in turn); power of two (the less loaded of two drawn);
prefix-aware (the
rank that was last sent the longest known beginning of the prompt, if that is half of it and the rank does
not hold more than `LOAD_CAP` times the
mean load, else the least loaded); session affinity (a hash of the session). Weights between lanes come
before this.
"""

from __future__ import annotations

from moai_planner.simulate.compiled import part, shared_part
from moai_planner.simulate.fields import (
    ISL,
    LEAST_OUTSTANDING,
    LOAD_CAP,
    OUTSTANDING,
    POWER_OF_TWO,
    PREFIX_AWARE,
    RANDOM,
    RANDOM_CHOICE,
    ROUND_ROBIN,
    SESSION,
    SESSION_AFFINITY,
)


@part
def mix(x):
    """Scramble 62 bits of an integer (a splitmix64 round on positive integers)."""
    x = (x ^ (x >> 30)) * 0x1CE4E5B9BF58476D
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * 0x133111EB94D049BB
    return (x ^ ((x >> 31) & 0x1FFFFFFFF)) & 0x3FFFFFFFFFFFFFFF


@part
def _draw(totals, count):
    totals[RANDOM] = (totals[RANDOM] + 0x1E3779B97F4A7C15) & 0x3FFFFFFFFFFFFFFF
    return mix(totals[RANDOM]) % count


@shared_part
def _least(rank, pool_ranks, first, count, turns, pool):
    best = -1
    least = 0
    begin = turns[pool] % count
    for step in range(count):
        at = begin + step
        if at >= count:
            at -= count
        r = pool_ranks[first + at]
        if best < 0 or rank[r, OUTSTANDING] < least:
            best = r
            least = rank[r, OUTSTANDING]
            chosen = at
    turns[pool] = chosen + 1
    return best


@shared_part
def route(
    policy,
    pool,
    pool_first,
    pool_ranks,
    turns,
    rank,
    request,
    owner,
    hashes,
    starts,
    totals,
    totals_f,
    granule,
    i,
):
    """Choose a rank of the pool for request i."""
    first, count = pool_first[pool], pool_first[pool + 1] - pool_first[pool]
    if count == 1:
        return pool_ranks[first]
    if policy == ROUND_ROBIN:
        turns[pool] += 1
        return pool_ranks[first + (turns[pool] - 1) % count]
    if policy == RANDOM_CHOICE:
        return pool_ranks[first + _draw(totals, count)]
    if policy == POWER_OF_TWO:
        one, other = _draw(totals, count), _draw(totals, count - 1)
        if other >= one:
            other += 1
        a, b = pool_ranks[first + one], pool_ranks[first + other]
        return b if rank[b, OUTSTANDING] < rank[a, OUTSTANDING] else a
    if policy == SESSION_AFFINITY and request[i, SESSION] >= 0:
        return pool_ranks[first + mix(request[i, SESSION] + 1) % count]
    if policy == PREFIX_AWARE and granule > 0:
        known = request[i, ISL] // granule
        chosen = -1
        for j in range(known - 1, -1, -1):
            holder = owner[hashes[starts[i] + j]]
            if holder >= 0:
                if 2 * (j + 1) >= known:
                    chosen = holder
                break
        if chosen >= 0:
            load = 0
            for at in range(count):
                load += rank[pool_ranks[first + at], OUTSTANDING]
            if rank[chosen, OUTSTANDING] > totals_f[LOAD_CAP] * (load / count + 1.0):
                chosen = -1
        if chosen < 0:
            chosen = _least(rank, pool_ranks, first, count, turns, pool)
        for j in range(known):
            owner[hashes[starts[i] + j]] = chosen
        return chosen
    return _least(rank, pool_ranks, first, count, turns, pool)


_ = LEAST_OUTSTANDING
