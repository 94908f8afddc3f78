"""Would the choice have been right? Picked by prediction, judged by measurement.

picks(pairs)       # under a promise on the time per token: the run predicted to serve most
duels(pairs)       # of two runs under one load: the one predicted to be better

A planner is asked which, not how much: an error that all candidates share costs nothing here, and a small
one between two close candidates little. Of runs repeated over time the newest counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from moai_planner.accuracy.compare import Pair
from moai_planner.accuracy.noise import configuration_of
from moai_planner.accuracy.run import Run

TOKEN_METRICS = ("tpot_ms_median", "tpot_ms_mean", "itl_ms_mean")
RATE_METRICS = ("total_tps_per_accel", "output_tps_per_accel")
PROMISES_MS = (10.0, 20.0, 30.0, 50.0, 100.0)
"""Promises on the time per token."""
CLOSE = 0.05
"""Candidates that differ by less count as equal."""
OF_SOFTWARE = ("engine_version", "notes")
"""Fields that repeats over time may differ in beside."""
DUEL_METRICS = ("e2el_s_median", "total_tps_per_accel")
DEVICES, DISAGGREGATION, ENGINE, LAYOUT = "devices", "disaggregation", "engine", "layout"


@dataclass(frozen=True)
class Pick:
    """One promise in one contest: what the run picked got, measured."""

    engine: str
    promise_ms: float
    layouts: int
    "That keep the promise, measured."
    kept: bool
    "The run picked keeps it, within `CLOSE`; False when none was predicted to."
    share: float
    "Its tokens/s a device over the best that keeps the promise, at most 1; 0 = not kept."
    any_share: float
    "The same for a layout picked blindly and run at its best load: the mean over layouts."

    @property
    def right(self) -> bool:
        """Keeps the promise, and loses next to nothing."""
        return self.share >= 1.0 - CLOSE


@dataclass(frozen=True)
class Duel:
    """Two runs under one load whose measurements differ."""

    source: str
    differs: str
    "The first of devices, disaggregation, engine, layout in which they do."
    metric: str
    right: bool
    "The prediction has the same winner; a tie has none."
    by_size: float
    """1 = so has the rule that more devices answer sooner and serve fewer tokens each, which takes no model
    at all; 0 = it has the other; 0.5 = both use as many."""


@dataclass(frozen=True)
class _Candidate:
    layout: tuple
    token_ms: Pair
    rate: Pair


def picks(pairs: Sequence[Pair]) -> tuple[Pick, ...]:
    """Every promise that a measured layout keeps, among runs of one source, model, number format, engine,
    devices and lengths in at least two layouts."""
    contests: dict[tuple, list[_Candidate]] = {}
    for run, own in _newest(pairs):
        token_ms, rate = _first(own, TOKEN_METRICS), _first(own, RATE_METRICS)
        if token_ms and rate:
            key = (run.source, run.model, run.precision, run.engine, run.accelerator, *_lengths(run))
            contests.setdefault((*key, rate.metric), []).append(_Candidate(_layout(run), token_ms, rate))
    found = (_pick(own, promise) for own in contests.values() for promise in PROMISES_MS)
    return tuple(pick for pick in found if pick)


def _pick(candidates: Sequence[_Candidate], promise_ms: float) -> Pick | None:
    keeping = [one for one in candidates if one.token_ms.measured <= promise_ms]
    layouts = {one.layout for one in candidates}
    if len(layouts) < 2 or not keeping:
        return None
    best: dict[tuple, float] = {}
    for one in keeping:
        best[one.layout] = max(best.get(one.layout, 0.0), one.rate.measured)
    most = max(best.values())
    kept, share = False, 0.0
    allowed = [one for one in candidates if one.token_ms.predicted <= promise_ms]
    if allowed:
        picked = max(allowed, key=lambda one: (one.rate.predicted, one.rate.run.id))
        kept = picked.token_ms.measured <= promise_ms * (1.0 + CLOSE)
        share = kept * min(picked.rate.measured / most, 1.0)
    any_share = math.fsum(best.values()) / len(layouts) / most
    return Pick(candidates[0].rate.run.engine, promise_ms, len(best), kept, share, any_share)


def duels(pairs: Sequence[Pair]) -> tuple[Duel, ...]:
    """Every two runs of one source, model, number format, drafting, lengths and load that differ in workers
    and, by more than `CLOSE`, in a metric."""
    loads: dict[tuple, list[tuple[Run, dict[str, Pair]]]] = {}
    for run, own in _newest(pairs):
        load = (run.concurrency, run.request_rate)
        key = (run.source, run.model, run.precision, run.kv, run.spec_decode, *_lengths(run), *load)
        loads.setdefault(key, []).append((run, own))
    return tuple(duel for own in loads.values() for a, b in combinations(own, 2) for duel in _duels(a, b))


def _duels(a: tuple[Run, dict[str, Pair]], b: tuple[Run, dict[str, Pair]]) -> Iterator[Duel]:
    (one, own), (other, others) = a, b
    if one.workers == other.workers:
        return
    for metric in DUEL_METRICS:
        if metric in own and metric in others:
            measured = own[metric].measured - others[metric].measured
            if abs(measured) > CLOSE * min(own[metric].measured, others[metric].measured):
                right = measured * (own[metric].predicted - others[metric].predicted) > 0
                size = measured * (other.devices - one.devices)
                by_size = 0.5 if size == 0 else float(size > 0)
                yield Duel(one.source, _difference(one, other), metric, right, by_size)


def _difference(one: Run, other: Run) -> str:
    if one.accelerator != other.accelerator:
        return DEVICES
    if one.disaggregated != other.disaggregated:
        return DISAGGREGATION
    return ENGINE if one.engine != other.engine else LAYOUT


def _newest(pairs: Sequence[Pair]) -> Iterator[tuple[Run, dict[str, Pair]]]:
    """Runs with their pairs, one for each configuration under a load."""
    own: dict[str, dict[str, Pair]] = {}
    for pair in pairs:
        own.setdefault(pair.run.id, {})[pair.metric] = pair
    newest: dict[tuple, tuple[Run, dict[str, Pair]]] = {}
    for found in own.values():
        run = next(iter(found.values())).run
        key = configuration_of(run, OF_SOFTWARE)
        if key not in newest or newest[key][0].date <= run.date:
            newest[key] = (run, found)
    yield from newest.values()


def _first(own: dict[str, Pair], metrics: Sequence[str]) -> Pair | None:
    return next((own[name] for name in metrics if name in own), None)


def _lengths(run: Run) -> tuple[float, float, float]:
    return run.isl_tokens, run.osl_tokens, run.length_low_frac


def _layout(run: Run) -> tuple:
    return run.workers, run.spec_decode
