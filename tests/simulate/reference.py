"""A plain token-by-token serving simulator, written from the rules and not from the event loop.

One object per request and per rank, one loop turn per engine step, no closed forms. The tests compare the
compiled loop with it. Slow on purpose.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field

import numpy as np


@dataclass(eq=False)
class Sequence:
    number: int
    isl: int
    osl: int
    hashes: list[int]
    sent: float = -1.0
    admitted: float = -1.0
    computed: int = 0
    target: int = 0
    generated: int = 0
    shared: list[int] = field(default_factory=list)
    private_blocks: int = 0
    token_times: list[float] = field(default_factory=list)
    hit: int = -1
    preemptions: int = 0
    stage: str = "local"
    home: Rank | None = None
    origin: Rank | None = None
    held_at_origin: tuple[int, list[int]] | None = None

    @property
    def decoding(self) -> bool:
        return self.target > 0 and self.computed >= self.target


@dataclass(eq=False)
class Rank:
    times: object
    max_seqs: int
    max_tokens: int
    threshold: int
    block: int
    blocks: int
    granule: int
    running: list[Sequence] = field(default_factory=list)
    waiting: deque = field(default_factory=deque)
    ready: deque = field(default_factory=deque)
    cached: dict[int, int] = field(default_factory=dict)
    unused: OrderedDict = field(default_factory=OrderedDict)
    outstanding: int = 0
    private: int = 0

    def free(self) -> int:
        used_granules = sum(1 for holders in self.cached.values() if holders > 0)
        return self.blocks - self.private - used_granules * (self.granule // self.block)

    def take_blocks(self, sequence: Sequence, count: int) -> None:
        self.private += count
        sequence.private_blocks += count
        self.evict()

    def evict(self) -> None:
        per = self.granule // self.block
        while self.unused and self.private + len(self.cached) * per > self.blocks:
            oldest, _ = self.unused.popitem(last=False)
            del self.cached[oldest]

    def hold(self, key: int) -> None:
        self.cached[key] = self.cached.get(key, 0) + 1
        self.unused.pop(key, None)

    def give_back(self, private: int, shared: list[int]) -> None:
        self.private -= private
        for key in reversed(shared):
            self.cached[key] -= 1
            if self.cached[key] == 0:
                self.unused[key] = True

    def drop(self, sequence: Sequence) -> None:
        self.give_back(sequence.private_blocks, sequence.shared)
        sequence.private_blocks, sequence.shared = 0, []

    def share(self, sequence: Sequence) -> None:
        if not self.granule:
            return
        whole = min(sequence.isl, sequence.computed) // self.granule
        for key in sequence.hashes[len(sequence.shared) : whole]:
            self.private -= self.granule // self.block
            sequence.private_blocks -= self.granule // self.block
            self.hold(key)
            sequence.shared.append(key)

    def preempt(self) -> Sequence:
        victim = self.running.pop()
        self.drop(victim)
        victim.computed, victim.target = 0, 0
        victim.preemptions += 1
        self.waiting.appendleft(victim)
        return victim

    def blocks_of(self, sequence: Sequence) -> int:
        return sequence.private_blocks + len(sequence.shared) * (
            self.granule // self.block if self.granule else 0
        )

    def schedule(self, now: float) -> tuple[list, list, list]:
        """(decoding, [(sequence, chunk, computed before)], sequences whose transfer starts)."""
        preempted = False
        while True:
            needy = [
                s for s in self.running if s.decoding and s.computed + 1 > self.blocks_of(s) * self.block
            ]
            if len(needy) <= self.free():
                break
            self.preempt()
            preempted = True
        for sequence in needy:
            self.take_blocks(sequence, 1)
        decoding = [s for s in self.running if s.decoding]
        chunks: list[tuple[Sequence, int, int]] = []

        def allowed(left: int) -> int:
            if self.threshold:
                left = min(left, self.threshold)
            return min(left, self.max_tokens - len(decoding) - sum(c for _, c, _ in chunks))

        for sequence in [s for s in self.running if not s.decoding]:
            if sequence not in self.running:
                break
            chunk = allowed(sequence.target - sequence.computed)
            if chunk <= 0:
                break
            need = math.ceil((sequence.computed + chunk) / self.block) - self.blocks_of(sequence)
            while need > self.free() and sequence in self.running:
                victim = self.preempt()
                preempted = True
                if victim in decoding:
                    decoding.remove(victim)
            if sequence not in self.running:
                break
            self.take_blocks(sequence, need)
            chunks.append((sequence, chunk, sequence.computed))
            sequence.computed += chunk
            self.share(sequence)
        moving = []
        if preempted:
            return decoding, chunks, moving
        while self.ready and len(self.running) < self.max_seqs and allowed(1) > 0:
            sequence = self.ready[0]
            need = max(math.ceil((sequence.computed + 1) / self.block) - self.blocks_of(sequence), 0)
            if need > self.free():
                break
            self.ready.popleft()
            self.take_blocks(sequence, need)
            sequence.target = sequence.computed
            self.running.append(sequence)
            decoding.append(sequence)
        while self.waiting and len(self.running) < self.max_seqs and allowed(1) > 0:
            sequence = self.waiting[0]
            if sequence.stage == "remote":
                need = math.ceil(sequence.isl / self.block)
                if need > self.free():
                    break
                self.waiting.popleft()
                self.take_blocks(sequence, need)
                sequence.stage = "moving"
                moving.append(sequence)
                continue
            total = sequence.isl + sequence.generated
            found = []
            if self.granule:
                for key in sequence.hashes[: min(sequence.isl, total - 1) // self.granule]:
                    if key not in self.cached:
                        break
                    found.append(key)
            start = len(found) * self.granule
            chunk = allowed(total - start)
            need = math.ceil((start + chunk) / self.block) - start // self.block
            revived = sum(1 for key in found if self.cached[key] == 0)
            whole = math.ceil(total / self.block) - start // self.block
            if whole + revived * (self.granule // self.block) > self.free():
                break
            self.waiting.popleft()
            for key in found:
                self.hold(key)
            sequence.shared = list(found)
            sequence.computed, sequence.target = start, total
            self.running.append(sequence)
            self.take_blocks(sequence, need)
            if sequence.admitted < 0:
                sequence.admitted, sequence.hit = now, start
            chunks.append((sequence, chunk, start))
            sequence.computed += chunk
            self.share(sequence)
        return decoding, chunks, moving

    def step_s(self, decoding: list, chunks: list) -> float:
        context = sum(s.isl + s.generated for s in decoding)
        if chunks:
            tokens = len(decoding) + sum(chunk for _, chunk, _ in chunks)
            pairs = sum(chunk * (before + chunk / 2) for _, chunk, before in chunks)
            return float(self.times.mixed_step_s(tokens, pairs, context, len(decoding) + len(chunks)))
        return float(self.times.decode_step_s(len(decoding), context)) if decoding else 0.0


@dataclass(eq=False)
class Unit:
    ranks: list[Rank]
    instance: int
    slowdown: float = 0.0
    next: float = math.inf
    busy: bool = False
    work: list = field(default_factory=list)
    loads: int = 0


def simulate(
    units, entry, decode, arrivals, lengths, hashes, transfer=None, limit=0, overhead=0.0, first="decode"
):
    """Serve requests; `entry` and `decode` are ranks, least outstanding with ties in turn. Returns
    sequences."""
    unit_of = {id(rank): unit for unit in units for rank in unit.ranks}
    sequences = [Sequence(k, isl, osl, hashes[k]) for k, (isl, osl) in enumerate(lengths)]
    events: list[tuple[float, int, str]] = []
    turns = {id(entry): 0, id(decode): 0}
    egress, ingress = {}, {}
    clock, following, inflight = 0.0, 0, 0

    def choose(pool):
        if len(pool) == 1:
            return pool[0]
        begin = turns[id(pool)] % len(pool)
        order = [(begin + k) % len(pool) for k in range(len(pool))]
        at = min(order, key=lambda k: (pool[k].outstanding, order.index(k)))
        turns[id(pool)] = at + 1
        return pool[at]

    def wake(rank, now):
        unit = unit_of[id(rank)]
        if not unit.busy:
            unit.next = now

    def queue(sequence, rank, now):
        sequence.home = rank
        rank.waiting.append(sequence)
        rank.outstanding += 1
        wake(rank, now)

    def end_step(unit, now):
        nonlocal inflight
        for rank, decoding, chunks in unit.work:
            done = []
            for sequence in decoding:
                sequence.computed += 1
                sequence.target = sequence.computed
                sequence.generated += 1
                sequence.token_times.append(now)
                if sequence.generated == sequence.osl:
                    done.append(sequence)
            for sequence in sorted(done, key=lambda s: s.number):
                rank.running.remove(sequence)
                rank.drop(sequence)
                rank.outstanding -= 1
                inflight -= 1
            for sequence, _, _ in chunks:
                if sequence.computed < sequence.target:
                    continue
                if decode and sequence.stage == "local":
                    rank.running.remove(sequence)
                    if first == "prefill":
                        sequence.token_times.append(now)
                        sequence.generated = 1
                        if sequence.osl == 1:
                            rank.drop(sequence)
                            rank.outstanding -= 1
                            inflight -= 1
                            continue
                    sequence.origin = rank
                    sequence.held_at_origin = (sequence.private_blocks, sequence.shared)
                    sequence.private_blocks, sequence.shared = 0, []
                    sequence.computed = sequence.isl - 1 + sequence.generated
                    sequence.stage = "remote"
                    queue(sequence, choose(decode), now)
                    continue
                sequence.generated += 1
                sequence.token_times.append(now)
                if sequence.generated == sequence.osl:
                    rank.running.remove(sequence)
                    rank.drop(sequence)
                    rank.outstanding -= 1
                    inflight -= 1
        unit.busy, unit.work = False, []

    def begin_step(unit, now):
        unit.work, longest = [], 0.0
        preemptions = sum(s.preemptions for s in sequences)
        for rank in unit.ranks:
            decoding, chunks, moving = rank.schedule(now)
            for sequence in moving:
                size = sequence.isl * transfer.bytes_per_token
                source, target = unit_of[id(sequence.origin)].instance, unit.instance
                wire = size / max(transfer.nic_bytes_per_s, transfer.bytes_per_s)
                egress[source] = max(egress.get(source, 0.0), now) + wire
                ingress[target] = max(ingress.get(target, 0.0), now) + wire
                end = max(now + size / transfer.bytes_per_s, egress[source], ingress[target])
                events.append((end + transfer.latency_s, sequence.number, "kv"))
                unit.loads += 1
            unit.work.append((rank, decoding, chunks))
            longest = max(longest, rank.step_s(decoding, chunks))
        unit.busy = any(decoding or chunks for _, decoding, chunks in unit.work)
        factor = 1.0 + unit.slowdown if unit.loads else 1.0
        unit.next = now + longest * factor if unit.busy else math.inf
        if not unit.busy and sum(s.preemptions for s in sequences) > preemptions:
            unit.next = now  # nothing runs, but the queue may be admitted now

    while True:
        client = math.inf
        if following < len(arrivals) and (limit == 0 or inflight < limit):
            client = max(arrivals[following], clock)
        events.sort()
        event = events[0][0] if events else math.inf
        unit = min(units, key=lambda u: u.next)
        if client <= event and client <= unit.next:
            if client == math.inf:
                break
            clock, sequence = client, sequences[following]
            sequence.sent = client
            following, inflight = following + 1, inflight + 1
            if overhead:
                events.append((client + overhead, sequence.number, "arrival"))
            else:
                queue(sequence, choose(entry), client)
        elif event <= unit.next:
            clock, number, what = events.pop(0)
            sequence = sequences[number]
            if what == "arrival":
                queue(sequence, choose(entry), clock)
                continue
            private, shared = sequence.held_at_origin
            sequence.origin.give_back(private, shared)
            sequence.origin.outstanding -= 1
            wake(sequence.origin, clock)
            unit_of[id(sequence.home)].loads -= 1
            sequence.stage = "there"
            sequence.home.ready.append(sequence)
            wake(sequence.home, clock)
        else:
            clock = unit.next
            if unit.busy:
                end_step(unit, clock)
            begin_step(unit, clock)
    return sequences


def inter_token_times(sequences) -> np.ndarray:
    return np.concatenate([np.diff(s.token_times) for s in sequences] + [np.zeros(0)])
