"""A capacity request → a plan.

    plan = solve(request, parameters_for)

Deployments x pools become candidates, candidates a small integer programme, its answer instances on devices,
lanes with weights and the proof. Infeasible is an answer too: the plan then carries the explanation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

from moai_planner.domain.cluster import CapacityRequest
from moai_planner.domain.plan import Plan
from moai_planner.solver.assemble import assemble, infeasible_plan
from moai_planner.solver.binding import binding_rows
from moai_planner.solver.candidates import Option, ParametersFor, ProfileFor, find_candidates, no_profile
from moai_planner.solver.columns import to_problem
from moai_planner.solver.dominance import without_dominated, without_lonely
from moai_planner.solver.explain import MakeProblem, explain
from moai_planner.solver.lanes import levelled, with_own_lanes
from moai_planner.solver.notation import Answer, Problem
from moai_planner.solver.recheck import recheck
from moai_planner.solver.run import run

Progress = Callable[[str], None]


def solve(
    request: CapacityRequest,
    parameters_for: ParametersFor,
    progress: Progress | None = None,
    caps: Mapping[str, float] | None = None,
    explained: bool = True,
    profile_for: ProfileFor = no_profile,
) -> Plan:
    """The best plan there is, or why there is none (`explained`: look for what would help).

    `caps`: share of a candidate group's load to plan with.
    """
    say = progress or (lambda text: None)
    say("finding candidates")
    options, problem, rejected = prepare(request, parameters_for, caps, profile_for)

    def make(other: CapacityRequest) -> tuple[Problem, Counter]:
        return prepare(other, parameters_for, caps, profile_for)[1:]

    say(f"solving {len(problem.columns)} candidates")
    first = _run(request, problem) if _all_served(problem) else Answer("infeasible", "no candidate")
    if not first.found:
        say("explaining")
        return _no(request, problem, first, rejected, make, explained)
    simple = _simplest_of_equals(request, problem, first)
    problem, answer = with_own_lanes(problem, simple, request.options.gap_frac, request.options.time_limit_s)
    if not answer.found:
        return _no(request, problem, answer, rejected, make, explained)
    answer = levelled(problem, answer)
    _insist(problem, answer)
    say("reading what binds")
    return assemble(request, options, problem, answer, rejected, binding_rows(problem, answer))


def prepare(
    request: CapacityRequest,
    parameters_for: ParametersFor,
    caps: Mapping[str, float] | None = None,
    profile_for: ProfileFor = no_profile,
) -> tuple[tuple[Option, ...], Problem, Counter]:
    """Candidates, the programme of those worth keeping, and the count of those that are not."""
    options, rejected = find_candidates(request, parameters_for, caps, profile_for)
    problem = without_lonely(to_problem(request, options), rejected)
    return options, without_lonely(without_dominated(problem, rejected), rejected), rejected


def _all_served(problem: Problem) -> bool:
    """Every deployment has at least one column that could answer it."""
    able = {c.deployment for c in problem.columns if c.role != "prefill"}
    return all(stream.deployment in able for stream in problem.streams)


def _run(request: CapacityRequest, problem: Problem) -> Answer:
    o = request.options
    return run(problem, gap_frac=o.gap_frac, time_limit_s=o.time_limit_s, seed=o.seed)


def _simplest_of_equals(request: CapacityRequest, problem: Problem, answer: Answer) -> Answer:
    """Most-load leaves ties: take the cheapest and simplest instances that carry the same load."""
    if problem.objective != "most-load" or answer.factor <= 0:
        return answer
    scale = answer.factor * (1 - 1e-9)
    streams = tuple(
        replace(s, rate_req_per_s=tuple(rate * scale for rate in s.rate_req_per_s)) for s in problem.streams
    )
    same = _run(request, replace(problem, streams=streams, objective="least-cost"))
    if not same.found:
        return answer
    return replace(
        answer,
        counts=same.counts,
        shares={key: share * answer.factor for key, share in same.shares.items()},
        lane_shares={key: share * answer.factor for key, share in same.lane_shares.items()},
    )


def _insist(problem: Problem, answer: Answer) -> None:
    """Nothing leaves this room that plain arithmetic does not confirm."""
    broken = recheck(problem, answer)
    if broken:
        worst = broken[0]
        raise AssertionError(f"the answer breaks {worst.constraint} by {worst.by:.2e}")


def _no(
    request: CapacityRequest,
    problem: Problem,
    answer: Answer,
    rejected: Counter,
    make: MakeProblem,
    explained: bool,
) -> Plan:
    wanted = explained and answer.status == "infeasible"
    explanation = explain(request, problem, rejected, make) if wanted else ()
    return infeasible_plan(request, answer, rejected, explanation)
