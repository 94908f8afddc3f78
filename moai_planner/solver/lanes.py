"""An answer whose lanes can be built: one decode kind a lane, each prefill instance in one lane, even load.

A router pairs any prefill with any decode instance it knows and has no weights, so a prefill column that
feeds two decode columns is split into two columns of whole instances, and the small programme is solved
again.
"""

from __future__ import annotations

from dataclasses import replace

from moai_planner.solver.notation import DECODE, PREFILL, Answer, Column, Lane, Problem
from moai_planner.solver.run import run, run_with_counts

SEPARATOR = "@"
FULL_SPLIT_S = 3.0
"""Time for the larger second try, when splitting only the columns in use costs more than the gap allows."""


def with_own_lanes(
    problem: Problem, answer: Answer, gap_frac: float, time_limit_s: float
) -> tuple[Problem, Answer]:
    """Split shared prefill columns; the first solve's bound stays valid, since splitting only restricts."""
    if not _shared_prefill(answer):
        return problem, answer
    used = {c for c, n in answer.counts.items() if n}
    tried = [_split_and_solve(problem, answer, used, gap_frac, time_limit_s)]
    if tried[0][1].status != "optimal":
        everything = {c.id for c in problem.columns}
        whole = _split_and_solve(problem, answer, everything, gap_frac, min(time_limit_s, FULL_SPLIT_S))
        # Split in full it is the very problem to be solved, so its own bound holds for both tries.
        tighter = whole[1].bound if whole[1].found else answer.bound
        tried = [(split, _judged(again, tighter, gap_frac)) for split, again in (*tried, whole)]
    found = [one for one in tried if one[1].found]
    if not found:
        return problem, replace(answer, status="infeasible", termination="no whole instances a lane")
    return min(found, key=lambda one: one[1].gap_frac)


def _split_and_solve(
    problem: Problem, first: Answer, kept: set[str], gap_frac: float, time_limit_s: float
) -> tuple[Problem, Answer]:
    split = split_prefill(problem, kept)
    again = run(split, gap_frac=gap_frac, time_limit_s=time_limit_s)
    if not again.found:
        return split, again
    if len(kept) < len(problem.columns):
        return split, _judged(again, first.bound, gap_frac)
    tighter = max if problem.objective == "least-cost" else min
    return split, replace(again, bound=tighter(first.bound, again.bound))


def _judged(answer: Answer, bound: float, gap_frac: float) -> Answer:
    """The answer against a bound from elsewhere."""
    if not answer.found:
        return answer
    gap = abs(answer.value - bound) / abs(answer.value) if answer.value else 0.0
    status = "optimal" if gap <= max(gap_frac, 1e-6) else "feasible"
    return replace(answer, bound=bound, gap_frac=gap, status=status)


def _shared_prefill(answer: Answer) -> bool:
    pairs = {(lane.prefill, lane.decode) for _, lane in answer.lane_shares}
    return len({prefill for prefill, _ in pairs}) < len(pairs)


def split_prefill(problem: Problem, kept: set[str]) -> Problem:
    """Each prefill column becomes one column for each decode column it may feed."""
    columns: list[Column] = []
    lanes: list[Lane] = []
    for column in problem.columns:
        if column.id not in kept:
            continue
        if column.role != PREFILL:
            columns.append(column)
            continue
        for lane in problem.lanes:
            if lane.prefill == column.id and lane.decode in kept:
                own = f"{column.id}{SEPARATOR}{lane.decode}"
                columns.append(replace(column, id=own))
                lanes.append(Lane(own, lane.decode))
    return replace(problem, columns=tuple(columns), lanes=tuple(lanes))


def levelled(problem: Problem, answer: Answer) -> Answer:
    """The same instances, loaded evenly: each deployment's shares are those that carry the most load."""
    shares: dict = {}
    lane_shares: dict = {}
    for stream in problem.streams:
        alone = _only(problem, stream.deployment)
        level = run_with_counts(alone, answer.counts)
        if not level.found or level.factor < answer.factor * (1 - 1e-6):
            return answer
        scale = answer.factor / level.factor
        shares |= {key: share * scale for key, share in level.shares.items()}
        lane_shares |= {key: share * scale for key, share in level.lane_shares.items()}
    return replace(answer, shares=shares, lane_shares=lane_shares)


def _only(problem: Problem, deployment: str) -> Problem:
    columns = tuple(c for c in problem.columns if c.deployment == deployment)
    ids = {c.id for c in columns}
    return replace(
        problem,
        streams=tuple(s for s in problem.streams if s.deployment == deployment),
        columns=columns,
        lanes=tuple(lane for lane in problem.lanes if lane.prefill in ids),
    )


def base_id(column_id: str) -> str:
    """The candidate that a split column came from."""
    return column_id.split(SEPARATOR)[0]


def lanes_of_answer(
    problem: Problem, answer: Answer, deployment: str
) -> list[tuple[str, tuple[str, ...], float]]:
    """(head column, member columns, share of the deployment) for each lane in use, largest share first."""
    found = []
    for column in problem.columns:
        if column.deployment != deployment or not answer.counts.get(column.id):
            continue
        share = sum(v for (_, c), v in answer.shares.items() if c == column.id) / answer.factor
        if column.role == DECODE:
            feeders = {lane.prefill for _, lane in answer.lane_shares if lane.decode == column.id}
            members = (*sorted(feeders), column.id)
            found.append((column.id, members, share))
        elif column.role == "mixed":
            found.append((column.id, (column.id,), share))
    return sorted((lane for lane in found if lane[2] > 0), key=lambda lane: (-lane[2], lane[0]))
