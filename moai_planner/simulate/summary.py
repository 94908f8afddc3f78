"""One deployment's run → its part of the report."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from moai_planner.domain.plan import DeploymentPlan, Instance, Lane, Plan
from moai_planner.domain.report import OVERLOADED, DeploymentReport, Estimate, Transfers, Usage, WindowReport
from moai_planner.domain.slo import Objective, objective
from moai_planner.simulate import fields as f
from moai_planner.simulate.histogram import quantiles
from moai_planner.simulate.serve import Served
from moai_planner.simulate.statistics import estimate, verdict, waiting_at
from moai_planner.simulate.system import System

STATISTICS = ("mean", "p50", "p90", "p95", "p99")


def summarise_run(
    deployment: DeploymentPlan,
    plan: Plan,
    lanes: tuple[Lane, ...],
    groups: tuple[Instance, ...],
    system: System,
    served: Served,
    left_out: Mapping[str, int],
) -> DeploymentReport:
    """Everything that a report says of one deployment."""
    count = len(served.start_s)
    goals = tuple(objective(key, limit_s) for key, limit_s in deployment.slo.items())
    judgement, reason = (
        verdict(served.start_s, served.admit_s, served.finish_s) if count else ("stable", "no requests")
    )
    everyone = np.ones(count, bool)
    figures = _figures(served, everyone, goals, judgement == OVERLOADED, itl=True)
    within = _within(served, goals, everyone)
    span_s = float(served.start_s[-1] - served.start_s[0]) if count > 1 else 0.0
    whole_s = float(served.finish_s.max() - served.start_s.min()) if count else 0.0
    all_kept = np.logical_and.reduce(list(within.values())) if within else everyone
    offered = (count - 1) / span_s if span_s else 0.0
    waiting = (
        waiting_at(np.linspace(0.0, served.start_s[-1], 400), served.start_s, served.admit_s)
        if count
        else None
    )
    return DeploymentReport(
        deployment=deployment.name,
        requests=count,
        completed=int(np.sum(served.finish_s >= 0)),
        left_out=dict(left_out),
        verdict=judgement,
        verdict_reason=reason,
        statistics=figures,
        attainment={key: float(kept.mean()) if count else None for key, kept in within.items()}
        | _itl_attainment(served, goals),
        met={goal.key: _is_met(figures.get(goal.key), goal) for goal in goals},
        attainment_frac=float(all_kept.mean()) if count else None,
        goodput_req_per_s=float(all_kept.sum()) / whole_s if whole_s else None,
        offered_req_per_s=offered,
        achieved_req_per_s=count / whole_s if whole_s else 0.0,
        output_tokens_per_s=float(served.osl_tokens.sum()) / whole_s if whole_s else 0.0,
        prefix_hit_frac=float(served.hit_tokens.sum() / max(served.isl_tokens.sum(), 1)),
        queue_mean=float(waiting.mean()) if count else 0.0,
        queue_peak=int(waiting.max()) if count else 0,
        preemptions=int(served.preemptions.sum()),
        usage=_usage(groups, system, served),
        transfers=_transfers(plan, lanes, served, deployment),
        windows=_windows(plan, served, goals, deployment),
    )


def _values(served: Served, metric: str, chosen: np.ndarray) -> np.ndarray:
    if metric == "tpot":
        several = chosen & (served.osl_tokens > 1)
        return (served.finish_s - served.first_s)[several] / (served.osl_tokens[several] - 1)
    return (served.ttft_s if metric == "ttft" else served.e2el_s)[chosen]


def _figures(served, chosen, goals, unstable, itl) -> dict[str, Estimate | None]:
    keys = [f"{metric}_{statistic}" for metric in ("ttft", "tpot", "e2el") for statistic in STATISTICS]
    keys += [goal.key for goal in goals if goal.metric != "itl" and goal.key not in keys]
    found = {
        key: None if unstable else estimate(_values(served, key.split("_")[0], chosen), key.split("_")[1])
        for key in keys
    }
    if not itl:
        return found
    wanted = [f"itl_{statistic}" for statistic in STATISTICS]
    wanted += [goal.key for goal in goals if goal.metric == "itl" and goal.key not in wanted]
    return found | {key: None if unstable else _itl(served, key.split("_")[1]) for key in wanted}


def _itl(served: Served, statistic: str) -> Estimate | None:
    """Over tokens, from the histogram: its interval is the width of a bin."""
    if served.itl_count == 0:
        return None
    if statistic == "mean":
        value = served.itl_sum_s / served.itl_count
        return Estimate(value, value, value)
    value = float(quantiles(served.itl_histogram, np.array([float(statistic[1:]) / 100.0]))[0])
    return Estimate(value, value * (1 - 1 / 128), value * (1 + 1 / 128))


def _within(served: Served, goals: tuple[Objective, ...], chosen: np.ndarray) -> dict[str, np.ndarray]:
    """Objective → for each chosen request whether its own value keeps the limit."""
    kept = {}
    for goal in goals:
        if goal.metric == "itl":
            continue
        if goal.metric == "tpot":
            steps = np.maximum(served.osl_tokens[chosen] - 1, 1)
            values = (served.finish_s - served.first_s)[chosen] / steps
        else:
            values = _values(served, goal.metric, chosen)
        kept[goal.key] = values <= goal.limit_s
    return kept


def _itl_attainment(served: Served, goals: tuple[Objective, ...]) -> dict[str, float | None]:
    from moai_planner.simulate.histogram import edges

    upper = edges()[1:]
    total = max(served.itl_count, 1)
    return {
        goal.key: float(served.itl_histogram[upper <= goal.limit_s].sum() / total)
        for goal in goals
        if goal.metric == "itl"
    }


def _is_met(figure: Estimate | None, goal: Objective) -> bool:
    return figure is not None and figure.value <= goal.limit_s


def _usage(groups: tuple[Instance, ...], system: System, served: Served) -> tuple[Usage, ...]:
    horizon_s = served.bin_s * served.busy_s.shape[1]
    ranks, units = served.ranks, served.units
    rows, number = [], 0
    for instance in groups:
        owned = (units[:, f.INSTANCE] >= number) & (units[:, f.INSTANCE] < number + instance.count)
        number += instance.count
        mine = owned[ranks[:, f.UNIT]]
        busy_s = served.busy_s[owned]
        blocks = ranks[mine, f.BLOCKS].sum() / max(owned.sum(), 1)
        held = served.block_s[owned].sum() / max(busy_s.sum(), 1e-12) / max(blocks, 1)
        numbers = np.flatnonzero(mine)
        rows.append(
            Usage(
                instance=instance.id,
                role=instance.role,
                copies=instance.count,
                requests=int(np.isin(served.rank, numbers).sum() if instance.role != "prefill"
                             else np.isin(served.prefill_rank, numbers).sum()),
                utilization_frac=float(np.minimum(busy_s[:, :-1].sum(axis=1) + np.minimum(busy_s[:, -1], served.bin_s),  # noqa: E501
                                                  horizon_s).mean() / horizon_s),
                kv_occupancy_frac=float(min(held, 1.0)),
                kv_peak_frac=float((ranks[mine, f.PEAK_BLOCKS] / np.maximum(ranks[mine, f.BLOCKS], 1)).max()),
                preemptions=int(served.preemptions[np.isin(served.rank, numbers)].sum()),
            )
        )  # fmt: skip
    return tuple(rows)


def _spans(plan: Plan, deployment: DeploymentPlan) -> list[tuple[str, float, float]]:
    """Windows of the plan in simulated time (the trace's time over the rate scale)."""
    spans = []
    for window in plan.windows:
        if {"name", "start_s", "end_s"} <= set(window) and window.get(
            "deployment", deployment.name
        ) == deployment.name:
            spans.append((str(window["name"]), float(window["start_s"]), float(window["end_s"])))
    return spans or [("all", 0.0, float("inf"))]


def _transfers(plan, lanes, served, deployment) -> tuple[Transfers, ...]:
    if len(served.kv_times) != len(served.start_s):
        return ()
    took_s = served.kv_times[:, f.KV_DONE] - served.kv_times[:, f.KV_START]
    moved = served.kv_times[:, f.KV_DONE] >= 0
    rows = []
    for number, lane in enumerate(lanes):
        for name, start_s, end_s in _spans(plan, deployment):
            inside = moved & (served.lane == number) & _inside(served, start_s, end_s, deployment)
            if lane.transfer is None or not inside.any():
                continue
            size = float(served.isl_tokens[inside].sum()) * lane.transfer.bytes_per_token
            p99 = float(np.percentile(took_s[inside], 99))
            rows.append(Transfers(lane.id, name, int(inside.sum()), size, float(took_s[inside].mean()), p99))
    return tuple(rows)


def _inside(served: Served, start_s: float, end_s: float, deployment: DeploymentPlan) -> np.ndarray:
    trace_s = served.start_s * deployment.rate_scale
    return (trace_s >= start_s) & (trace_s < end_s)


def _windows(plan, served, goals, deployment) -> tuple[WindowReport, ...]:
    rows = []
    for name, start_s, end_s in _spans(plan, deployment):
        inside = _inside(served, start_s, end_s, deployment)
        if not inside.any():
            rows.append(WindowReport(name, start_s, _finite(end_s, served), 0, "stable", {}, None))
            continue
        judgement, _ = verdict(served.start_s[inside], served.admit_s[inside], served.finish_s[inside])
        kept = _within(served, goals, inside)
        share = float(np.logical_and.reduce(list(kept.values())).mean()) if kept else None
        figures = _figures(served, inside, goals, judgement == OVERLOADED, itl=False)
        rows.append(
            WindowReport(name, start_s, _finite(end_s, served), int(inside.sum()), judgement, figures, share)
        )
    return tuple(rows)


def _finite(end_s: float, served: Served) -> float:
    return end_s if np.isfinite(end_s) else float(served.start_s.max())
