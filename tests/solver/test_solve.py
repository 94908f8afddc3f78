"""Whole plans from shipped accelerators and models: laws, packing, explanation."""

from __future__ import annotations

from dataclasses import replace

import pytest
from capacity_requests import deployment, parameters_for, pool, request

from moai_planner.catalog.plan_file import dump_plan
from moai_planner.costmodel.memory import memory_budget
from moai_planner.domain.layout import Layout
from moai_planner.domain.precision import precision
from moai_planner.solver.candidates import find_candidates
from moai_planner.solver.repair import tightened
from moai_planner.solver.solve import prepare, solve


@pytest.fixture(scope="module")
def chat():
    return deployment(rate_req_per_s=12.0, isl=2000.0, osl=400.0)


@pytest.fixture(scope="module")
def plan(chat):
    pools = [pool("h200_sxm", 2, name="h200"), pool("mi300x", 1, price=1.6), pool("mi308x", 2, price=1.0)]
    oss = deployment("openai/gpt-oss-120b", "mxfp4", name="oss", rate_req_per_s=15.0, isl=1000.0, osl=300.0)
    return solve(request(pools, [chat, oss], confidence=0.8), parameters_for)


def test_plan_is_whole(plan):
    """Devices stay within the stock, memory fits, the split serves all demand, no device is used twice."""
    assert plan.status in ("optimal", "feasible")
    assert plan.objective.bound <= plan.objective.value * (1 + 1e-9)
    for use in plan.pools:
        assert 0 <= use.devices_used <= use.devices_total
        taken = [
            (host, device)
            for i in plan.instances
            if i.pool == use.name
            for placement in i.placements
            for host, devices in zip(placement.hosts, placement.devices, strict=True)
            for device in devices
        ]
        assert len(taken) == len(set(taken)) == use.devices_used
        assert all(host < use.nodes and device < use.devices_per_node for host, device in taken)
    for instance in plan.instances:
        assert instance.memory["kv_tokens"] >= instance.engine.max_model_len
        assert max(instance.utilization.values()) <= 1 + 1e-6
        assert len(instance.placements) == instance.count
    for d in plan.deployments:
        served = sum(s.rate_req_per_s for s in plan.splits if s.deployment == d.name)
        assert served == pytest.approx(d.rate_req_per_s, rel=1e-6)


def test_lanes_are_buildable(plan):
    """Every instance is in one lane; a lane has one decode or mixed kind; weights stand for the shares."""
    members = [member for lane in plan.lanes for member in lane.members]
    assert sorted(members) == sorted(i.id for i in plan.instances)
    roles = {i.id: i.role for i in plan.instances}
    for lane in plan.lanes:
        assert sum(roles[m] != "prefill" for m in lane.members) == 1
        assert (lane.transfer is not None) == (lane.kind == "disaggregated")
    for d in plan.deployments:
        lanes = [lane for lane in plan.lanes if lane.deployment == d.name]
        total = sum(lane.weight for lane in lanes)
        assert sum(lane.share for lane in lanes) == pytest.approx(1, abs=1e-6)
        assert all(abs(lane.weight / total - lane.share) < 0.005 for lane in lanes)


def test_no_lane_crosses_vendors_unless_allowed(plan):
    """Prefill and decode of a lane share a vendor by default."""
    vendor = {p.name: p.vendor for p in plan.pools}
    pools = {i.id: i.pool for i in plan.instances}
    assert all(len({vendor[pools[m]] for m in lane.members}) == 1 for lane in plan.lanes)


def test_same_request_same_bytes(chat):
    """Law: same input, same plan file."""
    asked = request([pool("h200_sxm", 2)], [chat])
    assert dump_plan(solve(asked, parameters_for)) == dump_plan(solve(asked, parameters_for))


def cost(pools, deployments, **options):
    plan = solve(request(pools, deployments, gap_frac=0.0, **options), parameters_for)
    return plan.objective.value if plan.status == "optimal" else float("inf")


def test_more_stock_never_costs_more(chat):
    """Law: a larger cluster cannot make the plan dearer."""
    few = cost([pool("h200_sxm", 1)], [chat])
    more = cost([pool("h200_sxm", 2)], [chat])
    other = cost([pool("h200_sxm", 1), pool("mi300x", 1, price=1.6)], [chat])
    assert more <= few + 1e-6
    assert other <= few + 1e-6


@pytest.mark.parametrize("key", ["ttft_p95", "tpot_p95", "itl_p99", "e2el_p99"])
def test_a_looser_objective_never_costs_more(key):
    """Law: loosening a limit cannot make the plan dearer."""
    limits = {"ttft_p95": 1.0, "tpot_p95": 0.04, "itl_p99": 0.2, "e2el_p99": 60.0}
    tight = deployment(slo=limits, rate_req_per_s=8.0, isl=1500.0, osl=300.0)
    loose = deployment(slo={**limits, key: limits[key] * 1.5}, rate_req_per_s=8.0, isl=1500.0, osl=300.0)
    stock = [pool("h200_sxm", 3)]
    assert cost(stock, [loose]) <= cost(stock, [tight]) + 1e-6


def test_better_hardware_at_the_same_price_is_never_worse(chat):
    """Law: more bandwidth, more arithmetic and more memory for the same money cannot cost more."""
    before = pool("mi300x", 2)
    a = before.accelerator
    faster = replace(
        a,
        memory_bandwidth_bytes_per_s=1.3 * a.memory_bandwidth_bytes_per_s,
        peak_flop_per_s={k: 1.3 * v for k, v in a.peak_flop_per_s.items()},
        memory_bytes=1.3 * a.memory_bytes,
    )
    assert cost([replace(before, accelerator=faster)], [chat]) <= cost([before], [chat]) + 1e-6


def test_mi308x_decodes_and_mi300x_prefills(chat):
    """MI308X has 18 % of the arithmetic and all of the bandwidth: at one price it takes the decoding."""
    parted = replace(chat, roles=("prefill", "decode"))
    pools = [pool("mi300x", 2, price=1.0), pool("mi308x", 2, price=1.0)]
    plan = solve(request(pools, [parted], gap_frac=0.0), parameters_for)
    devices = {(i.role, i.pool): i.count * i.layout.devices for i in plan.instances}
    assert devices.get(("prefill", "mi300x"), 0) > devices.get(("prefill", "mi308x"), 0)
    options, _ = find_candidates(request(pools, [parted]), parameters_for)
    rate = {
        (o.candidate.role, o.candidate.pool): o.point.req_per_s
        for o in options
        if o.candidate.layout == Layout(tp=4)
    }
    advantage_prefill = rate["prefill", "mi300x"] / rate["prefill", "mi308x"]
    advantage_decode = rate["decode", "mi300x"] / rate["decode", "mi308x"]
    assert advantage_prefill > 1.25 * advantage_decode


def test_too_small_a_cluster_says_what_would_help(chat):
    """Infeasible is an answer: nodes to add and the traffic that fits."""
    many = deployment(rate_req_per_s=80.0, isl=2000.0, osl=500.0, seconds=60.0)
    plan = solve(request([pool("h200_sxm", 1, name="h200")], [many]), parameters_for)
    assert plan.status == "infeasible"
    kinds = {e.constraint for e in plan.explanation}
    assert "stock of h200" in kinds
    assert "demand" in kinds
    more = int(next(e for e in plan.explanation if e.constraint == "stock of h200").needs.split()[0])
    assert solve(request([pool("h200_sxm", more)], [many]), parameters_for).status != "infeasible"


def test_a_promise_nothing_can_keep_is_named():
    """An objective below one decode step is found as the thing to loosen."""
    hasty = deployment(slo={"ttft_p95": 2.0, "tpot_p95": 0.004})
    plan = solve(request([pool("h200_sxm", 2)], [hasty]), parameters_for)
    assert plan.status == "infeasible"
    assert any(e.constraint == "objective tpot_p95 of chat" for e in plan.explanation)


def test_a_model_that_fits_nowhere_is_explained():
    """Weights that exceed the pool's memory are named as the reason."""
    plan = solve(
        request([pool("l4", 1, devices=4)], [deployment("deepseek-ai/DeepSeek-V3", "fp8")]), parameters_for
    )
    assert plan.status == "infeasible"
    assert any("weights do not fit" in e.relaxation for e in plan.explanation)


def test_most_load_fills_the_cluster(chat):
    """The factor on all rates is the greatest the stock carries, and the plan's rates carry it."""
    plan = solve(request([pool("h200_sxm", 1)], [chat], objective="most-load"), parameters_for)
    factor = plan.objective.value
    assert plan.deployments[0].rate_scale == pytest.approx(factor, rel=0.02)
    half = solve(request([pool("h200_sxm", 2)], [chat], objective="most-load"), parameters_for)
    assert half.objective.value >= 1.9 * factor


def test_dominance_changes_no_cost(chat):
    """Law: leaving dominated candidates out leaves the optimum as it is."""
    from moai_planner.solver.columns import to_problem
    from moai_planner.solver.run import run

    asked = request([pool("h200_sxm", 2), pool("mi300x", 1, price=1.6)], [chat])
    options, pruned, rejected = prepare(asked, parameters_for)
    whole = to_problem(asked, options)
    assert len(pruned.columns) < len(whole.columns)
    assert run(pruned).value == pytest.approx(run(whole).value, abs=1e-6)
    assert sum(rejected.values()) >= len(whole.columns) - len(pruned.columns)


def test_caps_tighten_the_groups_that_serve_the_miss(plan):
    """A TTFT miss tightens who prefills, a TPOT miss who decodes; a tighter cap never costs less."""
    from moai_planner.solver.repair import Miss

    caps = tightened(plan, (Miss("chat", "ttft_p95", 2.0, 3.0),), {})
    assert caps
    assert all(key.startswith("chat/") and key.endswith(("/prefill", "/mixed")) for key in caps)
    assert all(0 < value < 1 for value in caps.values())


def test_a_tighter_cap_never_costs_less(chat):
    """Law: planning each instance emptier cannot be cheaper."""
    asked = request([pool("h200_sxm", 3)], [chat], gap_frac=0.0)
    pool_name = asked.pools[0].name
    caps = {f"chat/{pool_name}/{role}": 0.7 for role in ("mixed", "prefill", "decode")}
    assert (
        solve(asked, parameters_for, caps=caps).objective.value
        >= solve(asked, parameters_for).objective.value
    )


@pytest.mark.parametrize("isl", [200.0, 600.0, 2000.0])
def test_no_candidate_counts_on_memory_that_its_engine_does_not_leave(isl):
    """What an engine sets aside to sample grows with its limit on sequences; on a small card that is much."""
    served = deployment("meta-llama/Llama-3.1-8B-Instruct", max_model_len=8192, isl=isl, osl=200.0)
    options, _ = find_candidates(request([pool("rtx_4090", 1), pool("l40s", 1)], [served]), parameters_for)
    assert options
    for option in options:
        assert option.candidate.memory.kv_tokens <= memory_budget(option.configuration).kv_tokens
        assert option.candidate.batch <= option.candidate.engine.max_num_seqs


def test_more_memory_never_serves_less():
    served = deployment("meta-llama/Llama-3.1-8B-Instruct", max_model_len=8192, isl=300.0, osl=200.0)
    card = pool("rtx_4090", 1)

    def most(share):
        memory = card.accelerator.memory_bytes * share
        bigger = replace(card, accelerator=replace(card.accelerator, memory_bytes=memory))
        options, _ = find_candidates(request([bigger], [served]), parameters_for)
        return max(one.point.req_per_s for one in options if one.candidate.role == "mixed")

    served_at = [most(share) for share in (1.0, 1.01, 1.02, 1.05, 1.1, 1.3, 2.0)]
    assert served_at == sorted(served_at)


def test_a_format_is_planned_only_where_it_is_read(chat):
    """bfp8 exists on Tenstorrent alone: other devices are left out with the reason."""
    narrow = replace(chat, precision=precision("bfp8"))
    asked = request([pool("h200_sxm", 1), pool("tt_p150", 1)], [narrow])
    options, _, rejected = prepare(asked, parameters_for)
    assert {option.pool.accelerator.id for option in options} == {"tt_p150"}
    assert rejected["chat: h200_sxm does not read bfp8"] == 1
