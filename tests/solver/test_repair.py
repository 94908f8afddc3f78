"""The repair loop against stand-in reports, and lanes split into whole instances."""

from __future__ import annotations

from dataclasses import replace

import pytest
from capacity_requests import deployment, parameters_for, pool, request

from moai_planner.domain.report import STABLE, DeploymentReport, Estimate, Report
from moai_planner.solver.lanes import levelled, with_own_lanes
from moai_planner.solver.notation import textbook_problem
from moai_planner.solver.recheck import recheck
from moai_planner.solver.repair import solve_and_verify
from moai_planner.solver.run import run


def report(plan, **seconds):
    """A report that shows these values for each deployment's objectives."""
    found = []
    for d in plan.deployments:
        values = {key: seconds.get(key, 0.0) for key in d.slo}
        found.append(
            DeploymentReport(
                deployment=d.name,
                requests=1,
                completed=1,
                left_out={},
                verdict=STABLE,
                verdict_reason="",
                statistics={key: Estimate(value, value, value) for key, value in values.items()},
                attainment={},
                met={key: values[key] <= limit for key, limit in d.slo.items()},
                attainment_frac=None,
                goodput_req_per_s=None,
                offered_req_per_s=1.0,
                achieved_req_per_s=1.0,
                output_tokens_per_s=1.0,
                prefix_hit_frac=0.0,
                queue_mean=0.0,
                queue_peak=0,
                preemptions=0,
                usage=(),
                transfers=(),
                windows=(),
            )
        )
    return Report(0, "weighted", 1.0, tuple(found))


@pytest.fixture(scope="module")
def asked():
    chat = deployment(rate_req_per_s=12.0, isl=2000.0, osl=300.0)
    return request([pool("h200_sxm", 2)], [chat])


def test_a_plan_that_holds_takes_one_round(asked):
    """Nothing missed: one round, and the plan says that it holds."""
    plan = solve_and_verify(asked, parameters_for, report)
    assert plan.verification["holds"]
    assert [r["missed"] for r in plan.verification["rounds"]] == [[]]


def test_a_miss_tightens_until_it_holds(asked):
    """Each round plans for less load; the plan that holds is kept, with the rounds before it."""
    tries = []

    def simulate(plan):
        tries.append(plan.cost_usd_per_h)
        return report(plan, ttft_p95=9.0 if len(tries) < 3 else 0.5)

    plan = solve_and_verify(asked, parameters_for, simulate)
    assert plan.verification["holds"]
    assert len(plan.verification["rounds"]) == len(tries) == 3
    assert tries == sorted(tries)
    assert plan.cost_usd_per_h == tries[-1]


def test_the_best_plan_is_kept_when_none_holds(asked):
    """A promise that no cap reaches ends after the bounded rounds with the miss on record."""
    plan = solve_and_verify(asked, parameters_for, lambda p: report(p, tpot_p95=1.0), most_rounds=4)
    assert plan.status in ("optimal", "feasible")
    assert not plan.verification["holds"]
    assert len(plan.verification["rounds"]) <= 4
    assert plan.verification["rounds"][0]["missed"][0]["objective"] == "tpot_p95"


def test_shared_prefill_is_split_into_whole_instances():
    """A prefill column that feeds two decode columns becomes one for each, and every row still holds."""
    problem = textbook_problem()
    one_large = tuple(replace(c, price_usd_per_h=1.0) if c.id == "d8" else c for c in problem.columns)
    few = replace(
        problem,
        columns=(*one_large, replace(one_large[1], id="d4b", price_usd_per_h=1.1)),
        streams=(replace(problem.streams[0], rate_req_per_s=(55.0,)),),
        lanes=(*problem.lanes, replace(problem.lanes[0], decode="d4b")),
    )
    first = run(few)
    split, answer = with_own_lanes(few, first, 0.0, 5.0)
    assert answer.found
    assert recheck(split, answer) == ()
    feeds = {}
    for _, lane in answer.lane_shares:
        feeds.setdefault(lane.prefill, set()).add(lane.decode)
    assert all(len(decode) == 1 for decode in feeds.values())
    assert answer.value >= first.value - 1e-6


def test_levelling_keeps_rows_and_evens_load():
    """The same instances carry the same traffic, and no row breaks."""
    problem = textbook_problem()
    answer = levelled(problem, run(problem))
    assert recheck(problem, answer) == ()
