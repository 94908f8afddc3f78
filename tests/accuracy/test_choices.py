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
        assert all(pick.right and pick.kept and pick.share == 1.0 for pick in found)
        assert all(duel.right for duel in duels(table(truth, truth)))


def test_an_error_that_all_share_costs_nothing_in_duels():
    """A common factor keeps every winner."""
    doubled = {tp: (2 * ms, 0.5 * rate) for tp, (ms, rate) in TRUTH.items()}
    found = duels(table(TRUTH, doubled))
    assert len(found) == 6 and all(duel.right for duel in found)


def test_promises_that_one_layout_keeps_are_no_choice():
    """10 ms is kept by eight devices alone; the others by two to four layouts."""
    found = picks(table(TRUTH, TRUTH))
    assert [(pick.promise_ms, pick.layouts) for pick in found] == [
        (20.0, 2),
        (30.0, 2),
        (50.0, 3),
        (100.0, 4),
    ]


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
            assert (promise in found) == (len(keeping) > 1)
            allowed = [tp for tp, (ms, _) in belief.items() if ms <= promise]
            if promise in found and allowed:
                picked = max(allowed, key=lambda tp: belief[tp][1])
                kept = truth[picked][0] <= 1.05 * promise
                share = truth[picked][1] / max(truth[tp][1] for tp in keeping) if kept else 0.0
                assert found[promise].share == pytest.approx(share)


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


def test_number_of_duels_is_every_two_of_a_load():
    """n runs with n different layouts and results: n (n - 1) / 2."""
    results = {tp: (10.0, 100.0 * tp) for tp in (1, 2, 4, 8)}
    assert len(duels(table(results, results))) == 6
