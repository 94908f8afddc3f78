"""Linked lists and heaps of the event loop.

A request is in one list of one rank at a time (waiting, running or ready), so two columns of its row
(`PREVIOUS`, `NEXT`) carry all of them. Decoding sequences also sit in their rank's heap, ordered by the
virtual step at which they end.
"""

from __future__ import annotations

from moai_planner.simulate.compiled import part, shared_part
from moai_planner.simulate.fields import NEXT, PREVIOUS

REQUEST_BITS = 31
"""A heap entry is `step << REQUEST_BITS | request`, so equal steps leave in the order of requests."""
REQUEST_MASK = (1 << REQUEST_BITS) - 1


@part
def append(rank, request, r, head, tail, i):
    """Put request i at the end of the list whose ends are the columns head and tail."""
    last = rank[r, tail]
    request[i, PREVIOUS] = last
    request[i, NEXT] = -1
    if last >= 0:
        request[last, NEXT] = i
    else:
        rank[r, head] = i
    rank[r, tail] = i


@part
def prepend(rank, request, r, head, tail, i):
    """Put request i at the front."""
    first = rank[r, head]
    request[i, PREVIOUS] = -1
    request[i, NEXT] = first
    if first >= 0:
        request[first, PREVIOUS] = i
    else:
        rank[r, tail] = i
    rank[r, head] = i


@part
def unlink(rank, request, r, head, tail, i):
    """Take request i out."""
    before, after = request[i, PREVIOUS], request[i, NEXT]
    if before >= 0:
        request[before, NEXT] = after
    else:
        rank[r, head] = after
    if after >= 0:
        request[after, PREVIOUS] = before
    else:
        rank[r, tail] = before


@shared_part
def push_end(ends, r, size, step, i):
    """Add request i, which ends at a virtual step, to rank r's heap of `size` entries."""
    key = (step << REQUEST_BITS) | i
    at = size
    while at > 0:
        parent = (at - 1) >> 1
        if ends[r, parent] <= key:
            break
        ends[r, at] = ends[r, parent]
        at = parent
    ends[r, at] = key


@shared_part
def drop_end(ends, r, size, at):
    """Remove the entry at position `at` of rank r's heap of `size` entries."""
    last = size - 1
    if at == last:
        return
    key = ends[r, last]
    while at > 0:
        parent = (at - 1) >> 1
        if ends[r, parent] <= key:
            break
        ends[r, at] = ends[r, parent]
        at = parent
    while True:
        child = 2 * at + 1
        if child >= last:
            break
        if child + 1 < last and ends[r, child + 1] < ends[r, child]:
            child += 1
        if ends[r, child] >= key:
            break
        ends[r, at] = ends[r, child]
        at = child
    ends[r, at] = key


@part
def push_event(event_s, event_what, size, time_s, what):
    """Add a timed event; ties leave in the order of `what`."""
    at = size
    while at > 0:
        parent = (at - 1) >> 1
        if event_s[parent] < time_s or (event_s[parent] == time_s and event_what[parent] <= what):
            break
        event_s[at] = event_s[parent]
        event_what[at] = event_what[parent]
        at = parent
    event_s[at] = time_s
    event_what[at] = what


@part
def pop_event(event_s, event_what, size):
    """Remove the earliest of `size` events (read it at position 0 first)."""
    last = size - 1
    time_s, what = event_s[last], event_what[last]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= last:
            break
        right = child + 1
        if right < last and (
            event_s[right] < event_s[child]
            or (event_s[right] == event_s[child] and event_what[right] < event_what[child])
        ):
            child = right
        if event_s[child] > time_s or (event_s[child] == time_s and event_what[child] >= what):
            break
        event_s[at] = event_s[child]
        event_what[at] = event_what[child]
        at = child
    event_s[at] = time_s
    event_what[at] = what
