"""Choices judged by measurement: laws, and cases small enough to count by hand."""

import random
from dataclasses import replace

import pytest

from moai_planner.accuracy.choices import PROMISES_MS, duels, picks
from moai_planner.accuracy.compare import Pair
from moai_planner.accuracy.measurements import read_measurements
from moai_planner.accuracy.run import Run, Workers
from tests.accuracy.test_validate import SMALL

BASE: Run = read_measurements(SMALL).runs[0]


def run(name: str, tp: int, accelerator: str = "h100_sxm", concurrency: float = 8.0) -> Run:
    workers = (Workers(accelerator, "vllm", 1, tp, 1, 1, 1),)
    return replace(BASE, id=name, workers=workers, concurrency=concurrency)


def pairs(of: Run, measured: tuple[float, float], predicted: tuple[float, float]) -> list[Pair]:
    """Time per token [ms] and tokens/s a device."""
    names = ("tpot_ms_median", "total_tps_per_accel")
    return [
        Pair(of, name, one, other, 0.5 * other, 2.0 * other, "calibrated")
        for name, one, other in zip(names, measured, predicted, strict=True)
    ]


def table(truth: dict[int, tuple[float, float]], belief: dict[int, tuple[float, float]]) -> list[Pair]:
    return [pair for tp in truth for pair in pairs(run(f"tp{tp}", tp), truth[tp], belief[tp])]


TRUTH = {1: (90.0, 400.0), 2: (40.0, 300.0), 4: (18.0, 200.0), 8: (9.0, 100.0)}


def test_a_perfect_prediction_is_right_everywhere():
    """Whatever was measured."""
    random.seed(7)
    for _ in range(50):
        truth = {tp: (random.uniform(5, 120), random.uniform(50, 500)) for tp in (1, 2, 4, 8)}
        found = picks(table(truth, truth))
        assert found or all(ms > 100.0 for ms, _ in truth.values())
        assert all(pick.right and pick.kept and pick.share == 1.0 for pick in found)
        assert all(duel.right for duel in duels(table(truth, truth)))


def test_an_error_that_all_share_costs_nothing_in_duels():
    """A common factor keeps every winner."""
    doubled = {tp: (2 * ms, 0.5 * rate) for tp, (ms, rate) in TRUTH.items()}
    found = duels(table(TRUTH, doubled))
    assert len(found) == 6 and all(duel.right for duel in found)


def test_every_promise_that_a_layout_keeps_is_a_choice():
    """10 ms is kept by eight devices alone, and choosing them is the choice; under 5 ms there is none."""
    found = {pick.promise_ms: pick.layouts for pick in picks(table(TRUTH, TRUTH))}
    assert found == {10.0: 1, 20.0: 2, 30.0: 2, 50.0: 3, 100.0: 4}
    one = {1: (8.0, 100.0)}
    assert not picks(table(one, one)), "one layout is no choice"


@pytest.mark.parametrize(("measured_ms", "kept", "share"), [(20.5, True, 1.0), (21.5, False, 0.0)])
def test_a_promise_missed_by_little_is_kept_and_earns_nothing_more(measured_ms, kept, share):
    """20.5 ms of 20 are kept, but four times the tokens of the best that keeps it are no share above one."""
    truth = {2: (measured_ms, 400.0), 4: (18.0, 100.0)}
    belief = {2: (19.0, 400.0), 4: (18.0, 100.0)}
    pick = next(pick for pick in picks(table(truth, belief)) if pick.promise_ms == 20.0)
    assert (pick.kept, pick.share) == (kept, share)


@pytest.mark.parametrize(
    ("believed_ms", "kept", "share"),
    [(25.0, True, 200 / 200), (15.0, False, 0.0), (21.5, True, 1.0)],
)
def test_a_pick_is_judged_by_what_was_measured(believed_ms, kept, share):
    """Two devices (40 ms) believed to keep 20 ms break it when picked; believed slower they are not."""
    belief = TRUTH | {2: (believed_ms, 300.0)}
    pick = next(pick for pick in picks(table(TRUTH, belief)) if pick.promise_ms == 20.0)
    assert (pick.kept, pick.share) == (kept, share)


def test_nothing_predicted_to_keep_a_promise_is_a_miss():
    """Too careful is wrong as well."""
    slow = {tp: (1000.0, rate) for tp, (_, rate) in TRUTH.items()}
    found = picks(table(TRUTH, slow))
    assert found and not any(pick.kept or pick.right for pick in found)


def test_blind_is_the_mean_over_layouts():
    """Under 50 ms: 300, 200 and 100 of 300 tokens/s, and one layout that cannot keep it."""
    pick = next(pick for pick in picks(table(TRUTH, TRUTH)) if pick.promise_ms == 50.0)
    assert pick.any_share == pytest.approx((0 + 300 + 200 + 100) / 300 / 4)


def test_picks_against_every_choice():
    """Brute force: no predicted candidate beats the pick, and its share is what a search finds."""
    random.seed(11)
    for _ in range(40):
        truth, belief = (
            {tp: (random.uniform(5, 120), random.uniform(50, 500)) for tp in (1, 2, 4)} for _ in range(2)
        )
        found = {pick.promise_ms: pick for pick in picks(table(truth, belief))}
        for promise in PROMISES_MS:
            keeping = [tp for tp, (ms, _) in truth.items() if ms <= promise]
            assert (promise in found) == bool(keeping)
            allowed = [tp for tp, (ms, _) in belief.items() if ms <= promise]
            if promise in found and allowed:
                picked = max(allowed, key=lambda tp: belief[tp][1])
                kept = truth[picked][0] <= 1.05 * promise
                share = truth[picked][1] / max(truth[tp][1] for tp in keeping) if kept else 0.0
                assert found[promise].share == pytest.approx(min(share, 1.0))


def test_duels_name_what_differs_and_leave_out_ties():
    """Devices before layouts; results within 5 %, other loads and equal workers are no duel."""
    a, b = run("a", 2), run("b", 2, "h200_sxm")
    truth, near = (20.0, 100.0), (20.0, 104.0)
    fought = duels(pairs(a, truth, truth) + pairs(b, (20.0, 150.0), (20.0, 90.0)))
    assert [(duel.differs, duel.metric, duel.right) for duel in fought] == [
        ("devices", "total_tps_per_accel", False)
    ]
    assert not duels(pairs(a, truth, truth) + pairs(b, near, near))
    assert not duels(pairs(a, truth, truth) + pairs(run("c", 2), (20.0, 150.0), truth))
    other_load = run("d", 4, concurrency=16.0)
    assert not duels(pairs(a, truth, truth) + pairs(other_load, (20.0, 150.0), truth))


def test_a_tie_has_no_winner_whichever_comes_first():
    """A constant prediction is right nowhere."""
    constant = dict.fromkeys(TRUTH, (1.0, 1.0))
    assert not any(duel.right for duel in duels(table(TRUTH, constant)))
    assert not any(duel.right for duel in duels(table(TRUTH, constant)[::-1]))


def test_order_changes_nothing():
    """Rows of a table have no order."""
    belief = {tp: (ms * 1.1**tp, rate * 0.8**tp) for tp, (ms, rate) in TRUTH.items()}
    rows = table(TRUTH, belief)
    assert sorted(map(str, duels(rows))) == sorted(map(str, duels(rows[::-1])))
    assert sorted(map(str, picks(rows))) == sorted(map(str, picks(rows[::-1])))


def test_size_alone_as_a_rule():
    """Fewer tokens each on more devices: right in every duel here, backwards in none, else half."""
    assert {duel.by_size for duel in duels(table(TRUTH, TRUTH))} == {1.0}
    rising = {tp: (50.0, 100.0 * tp) for tp in (1, 2, 4)}
    assert {duel.by_size for duel in duels(table(rising, rising))} == {0.0}
    a, b = run("a", 2), run("b", 2, "h200_sxm")
    level = duels(pairs(a, (20.0, 100.0), (20.0, 100.0)) + pairs(b, (20.0, 150.0), (20.0, 150.0)))
    assert [duel.by_size for duel in level] == [0.5]


def test_of_repeats_the_newest_counts():
    """Same configuration, same load, later date."""
    old = replace(run("old", 2), date="2026-01-01")
    new = replace(run("new", 2), date="2026-05-01")
    other = run("other", 4)
    rows = [
        *pairs(new, (18.0, 100.0), (18.0, 100.0)),
        *pairs(old, (90.0, 300.0), (18.0, 300.0)),
        *pairs(other, (18.0, 50.0), (18.0, 50.0)),
    ]
    assert len(duels(rows)) == 1
    assert {pick.share for pick in picks(rows)} == {1.0}


def test_number_of_duels_is_every_two_of_a_load():
    """n runs with n different layouts and results: n (n - 1) / 2."""
    results = {tp: (10.0, 100.0 * tp) for tp in (1, 2, 4, 8)}
    assert len(duels(table(results, results))) == 6
