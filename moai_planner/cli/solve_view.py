"""A plan as tables: assumptions first, then the answer, what runs where, the lanes, what binds."""

from __future__ import annotations

from moai_planner.domain.plan import Plan
from moai_planner.domain.units import show

_UNITS = {"least-cost": "USD/h", "most-load": "x the traffic", "goodput-per-dollar": "req/s per USD/h"}


def print_plan(plan: Plan) -> None:
    """Everything a reader wants before `emit`."""
    from moai_planner.cli.output import print_table, print_text

    if plan.assumptions:
        print_table("Assumed", ("what this plan takes for granted",), [(text,) for text in plan.assumptions])
    print_text(_answer(plan))
    print_text()
    if plan.explanation:
        rows = [(e.constraint, e.needs, e.has, e.relaxation) for e in plan.explanation]
        print_table("Why not, and what would help", ("constraint", "needs", "has", "relaxation"), rows)
    if plan.instances:
        _print_instances(plan)
        _print_lanes(plan)
    if plan.binding:
        rows = [(b.constraint, b.meaning) for b in plan.binding]
        print_table("What binds", ("row", "meaning"), rows)
    if any(a_round["status"] != "infeasible" for a_round in plan.verification.get("rounds", ())):
        _print_rounds(plan)
    left_out = sum(plan.rejected.values())
    if left_out:
        print_text(f"{left_out} candidates left out, by reason in the plan file (`rejected`)")


def _answer(plan: Plan) -> str:
    if plan.status == "unsolved":
        return "unsolved: the solver stopped before it found a plan; give it more with --time-limit"
    if plan.status not in ("optimal", "feasible"):
        return f"{plan.status}: no plan serves this request"
    o = plan.objective
    unit = _UNITS.get(o.kind, "req/s per W")
    beyond = f"under the same predictions, gap {o.gap:.2%}"
    if o.kind == "least-cost":
        distinct = o.value - plan.cost_usd_per_h
        weighed = f"{o.value:.2f} with {distinct:.2f} for the number of distinct instances"
        proof = f"{weighed}; no plan beats {o.bound:.2f} {beyond}"
        return f"{plan.status}: {plan.cost_usd_per_h:.2f} USD/h for devices ({proof})"
    proof = f"no plan beats {o.bound:.4g} {beyond}"
    return f"{plan.status}: {o.kind} {o.value:.4g} {unit}, {plan.cost_usd_per_h:.2f} USD/h ({proof})"


def _print_instances(plan: Plan) -> None:
    from moai_planner.cli.output import print_table

    pools = [
        (
            p.name,
            p.accelerator,
            f"{p.nodes} x {p.devices_per_node}",
            p.devices_used,
            p.devices_total,
            f"{p.price_usd_per_h:.2f}",
        )
        for p in plan.pools
    ]
    print_table("Pools", ("pool", "accelerator", "nodes", "used", "devices", "USD/h each"), pools)
    rows = []
    for i in plan.instances:
        hosts = sorted({host for placement in i.placements for host in placement.hosts})
        names = next(p.hosts for p in plan.pools if p.name == i.pool)
        resource, used = max(i.utilization.items(), key=lambda item: item[1], default=("", 0.0))
        rows.append(
            (
                i.id,
                i.role,
                f"{i.count} x {i.layout}",
                i.accelerator,
                i.count * i.layout.devices,
                " ".join(names[host] for host in hosts),
                f"{i.rate_req_per_s:.2f}",
                f"{used:.0%} {resource}",
                _interval(i, "ttft_s"),
                _interval(i, "tpot_s"),
            )
        )
    columns = ("instance", "role", "copies", "on", "devices", "hosts", "req/s", "full", "TTFT", "TPOT")
    print_table("What runs where", columns, rows, notes=("TTFT and TPOT with their 80% intervals.",))


def _interval(instance, key: str) -> str:
    found = instance.predicted.get(key)
    if found is None:
        return "–"
    return f"{show(found.value, 's', 2)} ({show(found.low, 's', 2)} to {show(found.high, 's', 2)})"


def _print_lanes(plan: Plan) -> None:
    from moai_planner.cli.output import print_table

    rows = [
        (lane.id, lane.deployment, lane.kind, lane.weight, f"{lane.share:.1%}", " ".join(lane.members))
        for lane in plan.lanes
    ]
    print_table("Lanes", ("lane", "deployment", "kind", "weight", "share", "members"), rows)


def _seen(observed_s: float | None) -> str:
    return "overloaded" if observed_s is None else show(observed_s, "s")


def _nothing_missed(a_round) -> str:
    return (
        "every objective holds"
        if a_round["status"] != "infeasible"
        else "no plan: the tightened caps leave none"
    )


def _print_rounds(plan: Plan) -> None:
    from moai_planner.cli.output import print_table

    rows = []
    for r in plan.verification["rounds"]:
        missed = "; ".join(
            f"{m['deployment']} {m['objective']} {_seen(m['observed_s'])} > {show(m['limit_s'], 's')}"
            for m in r["missed"]
        )
        rows.append((r["round"], r["status"], f"{r['cost_usd_per_h']:.2f}", missed or _nothing_missed(r)))
    print_table("Simulated on its own trace", ("round", "plan", "USD/h", "missed"), rows)
