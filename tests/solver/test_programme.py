"""The programme against brute force, its laws, and the textbook case."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, assume, given, settings
from small_problems import by_brute_force, problems

from moai_planner.solver.notation import Pool, textbook_problem
from moai_planner.solver.recheck import recheck
from moai_planner.solver.run import run

QUICK = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def _small_enough(problem):
    size = 1
    for column in problem.columns:
        size *= problem.most_instances(column) + 1
    return size <= 600


@QUICK
@given(problems(simplicity=0.3))
def test_least_cost_equals_brute_force(problem):
    """The programme finds the cheapest counts that exist, and says infeasible only when none do."""
    assume(_small_enough(problem))
    cheapest, _ = by_brute_force(problem)
    answer = run(problem)
    assert answer.found == (cheapest is not None)
    if answer.found:
        assert answer.value == pytest.approx(cheapest, abs=1e-5)
        assert answer.bound == pytest.approx(cheapest, abs=1e-5)
        assert recheck(problem, answer) == ()


@QUICK
@given(problems(objective="most-load"))
def test_most_load_equals_brute_force(problem):
    """The programme finds the greatest factor on all rates that any counts can serve."""
    assume(_small_enough(problem))
    _, greatest = by_brute_force(problem)
    answer = run(problem)
    assert answer.factor == pytest.approx(greatest, abs=1e-5)
    assert recheck(problem, answer) == ()


@QUICK
@given(problems())
def test_more_stock_never_costs_more(problem):
    """Law: relaxing a constraint cannot worsen the optimum."""
    before = run(problem)
    after = run(replace(problem, pools=tuple(replace(p, nodes=p.nodes + 1) for p in problem.pools)))
    assert not before.found or (after.found and after.value <= before.value + 1e-6)


@QUICK
@given(problems())
def test_better_numbers_at_the_same_price_are_never_worse(problem):
    """Law: a column that needs less of everything cannot raise the cost."""
    first = problem.columns[0]
    use = {
        s: {r: tuple(v * 0.8 for v in values) for r, values in rows.items()} for s, rows in first.use.items()
    }
    before = run(problem)
    after = run(replace(problem, columns=(replace(first, use=use), *problem.columns[1:])))
    assert not before.found or (after.found and after.value <= before.value + 1e-6)


@QUICK
@given(problems())
def test_more_admissible_streams_never_cost_more(problem):
    """Law: a looser objective admits more streams to more columns, which cannot raise the cost."""
    rows = {"time": (0.5,) * problem.windows}
    looser = tuple(
        replace(c, use={s.id: c.use.get(s.id, rows) for s in problem.streams}) for c in problem.columns
    )
    before, after = run(problem), run(replace(problem, columns=looser))
    assert not before.found or (after.found and after.value <= before.value + 1e-6)


@QUICK
@given(problems())
def test_scaling_rates_and_stock_scales_the_relaxed_cost(problem):
    """Law: three times the traffic on three times the nodes costs three times as much, integers aside."""
    streams = tuple(
        replace(s, rate_req_per_s=tuple(3 * r for r in s.rate_req_per_s)) for s in problem.streams
    )
    pools = tuple(replace(p, nodes=3 * p.nodes) for p in problem.pools)
    before = run(problem, relaxed=True)
    after = run(replace(problem, streams=streams, pools=pools), relaxed=True)
    assert before.found == after.found
    assert not before.found or after.value == pytest.approx(3 * before.value, rel=1e-6)


@QUICK
@given(problems(objective="goodput-per-dollar"))
def test_goodput_per_dollar_is_at_least_that_of_the_cheapest_plan(problem):
    """Law: the best ratio is no worse than the ratio of the cheapest plan, and within its own bound."""
    rate = sum(sum(s.rate_req_per_s) / len(s.rate_req_per_s) for s in problem.streams)
    cheapest, best = run(replace(problem, objective="least-cost")), run(problem)
    assert cheapest.found == best.found
    if best.found:
        assert best.value >= rate / cheapest.value - 1e-6
        assert best.value <= best.bound + 1e-6
        assert recheck(problem, best) == ()


def test_textbook_case_takes_57_devices():
    """25 prefill TP1 and 4 decode TP8 serve 50 req/s; copies of one best replica shape take 64 to 72."""
    answer = run(textbook_problem())
    assert answer.status == "optimal"
    assert answer.value == pytest.approx(57)
    assert {c: n for c, n in answer.counts.items() if n} == {"p1": 25, "d8": 4}
    assert recheck(textbook_problem(), answer) == ()


def test_stopped_with_incumbent_is_not_optimal():
    """A run that stops early says so, whatever the modelling layer calls it."""
    answer = run(replace(textbook_problem(), pools=(Pool("h200", 16, 8),)), time_limit_s=0.0)
    assert answer.status in ("feasible", "unsolved", "optimal")
    if answer.status == "feasible":
        assert answer.gap_frac > 0


def test_recheck_finds_what_is_wrong():
    """Each family of constraints is recomputed: a broken answer is named."""
    problem = textbook_problem()
    answer = run(problem)
    fewer = replace(answer, counts={**answer.counts, "p1": 24})
    assert [v.constraint for v in recheck(problem, fewer)] == ["time of p1 in window 0"]
    more = replace(answer, counts={**answer.counts, "m4": 30})
    assert "stock of h200" in [v.constraint for v in recheck(problem, more)]
    lost = replace(answer, shares={("chat", "p1"): 1.0})
    assert any(v.constraint.startswith("demand") for v in recheck(problem, lost))
