"""Laws over made-up plans: any whole plan compiles to files that keep devices, ports and weights apart."""

from __future__ import annotations

import json
from collections import Counter
from itertools import count
from pathlib import Path

import yaml
from emit_plans import DENSE, EXPERTS, NIXL, deployment, instance, on, plan_of, pool
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from moai_planner.domain.layout import Engine, Layout
from moai_planner.domain.plan import Lane, Placement
from moai_planner.emit.emit import compile_plan
from moai_planner.emit.lane_rules import used_ports
from moai_planner.emit.validate import argument_problems

ENGINES = st.builds(
    Engine,
    max_num_seqs=st.integers(1, 1024),
    max_num_batched_tokens=st.sampled_from([2048, 8192, 16384]),
    max_model_len=st.just(8192),
    memory_utilization_frac=st.sampled_from([0.85, 0.9, 1.0]),
    block_size_tokens=st.sampled_from([16, 32, 64]),
    prefix_caching=st.booleans(),
    long_prefill_token_threshold=st.sampled_from([0, 2048]),
    graphs=st.booleans(),
    async_scheduling=st.booleans(),
)
ODD = ("", "/", " b", "|", "'", '"$x"', "\n#", "\x85", "é", "{{", "-2", ":")


@st.composite
def plans(draw):
    """Lanes of both kinds, on pools of two vendors, some copies over two nodes."""
    pools, deployments, instances, lanes = [], [], [], []
    odd = draw(st.sampled_from(ODD))
    names = (f"n{odd}{number}" for number in count())
    for number in range(draw(st.integers(1, 3))):
        platform = draw(st.sampled_from(["cuda", "rocm"]))
        accelerator, vendor = {"cuda": ("h200_sxm", "NVIDIA"), "rocm": ("mi300x", "AMD")}[platform]
        model = draw(st.sampled_from([DENSE, EXPERTS]))
        name, pool_name, lane_name = next(names), next(names), next(names)
        precision = {"deepseek-v3": "fp8"}.get(model.id, "bf16")
        deployments.append(deployment(name, model, f"org/model-{number}", precision))
        hosts = tuple(f"host-{number}-{index}" for index in range(4))
        pools.append(pool(pool_name, accelerator, hosts, platform, vendor))
        engine = draw(ENGINES)
        common = {"deployment": name, "accelerator": accelerator, "engine": engine}
        if model.moe and draw(st.booleans()):
            tp = draw(st.sampled_from([1, 2, 8]))
            layout = Layout(tp=tp, dp=16 // tp, ep=16)
            eight = tuple(range(8))
            made = [
                instance(
                    next(names),
                    pool_name,
                    lane_name,
                    (Placement((0, 1), (eight, eight)),),
                    layout=layout,
                    **common,
                )
            ]
            kind = "mixed"
        elif draw(st.booleans()):
            small, large = draw(st.sampled_from([(1, 1), (1, 2), (2, 4), (4, 4)]))
            prefill = tuple(on(0, *range(i * small, (i + 1) * small)) for i in range(draw(st.integers(1, 2))))
            decode = tuple(on(1, *range(i * large, (i + 1) * large)) for i in range(draw(st.integers(1, 2))))
            made = [
                instance(
                    next(names),
                    pool_name,
                    lane_name,
                    prefill,
                    role="prefill",
                    layout=Layout(tp=small),
                    **common,
                ),
                instance(
                    next(names),
                    pool_name,
                    lane_name,
                    decode,
                    role="decode",
                    layout=Layout(tp=large),
                    **common,
                ),
            ]
            kind = "disaggregated"
        else:
            copies = tuple(on(2, device) for device in range(draw(st.integers(1, 8))))
            made = [instance(next(names), pool_name, lane_name, copies, layout=Layout(tp=1), **common)]
            kind = "mixed"
        members = tuple(one.id for one in made)
        weight = draw(st.integers(1, 1000))
        lanes.append(
            Lane(lane_name, name, kind, weight, 1.0, members, NIXL if kind == "disaggregated" else None)
        )
        instances += made
    return plan_of(tuple(pools), tuple(deployments), tuple(instances), tuple(lanes))


@settings(max_examples=20, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(plans())
def test_any_whole_plan_compiles_and_keeps_its_laws(plan):
    """Law: devices once, ports once, weights kept, flags known, ranks complete, same bytes twice."""
    report = compile_plan(plan, "bash", Path("out"))
    launch = report.launch
    devices = Counter((p.pool.name, p.node, device) for p in launch.processes for device in p.devices)
    assert set(devices.values()) == {1}
    assert sum(devices.values()) == sum(i.count * i.layout.devices for i in plan.instances)
    ports = Counter((host, port) for host, port, _ in used_ports(launch))
    assert set(ports.values()) == {1}
    texts = {file.path: file.content.decode() for file in report.files}
    table = json.loads(texts["router_table.json"])
    weights = [lane["weight"] for entry in table["deployments"] for lane in entry["lanes"]]
    assert sorted(weights) == sorted(lane.weight for lane in plan.lanes)
    configs = {
        path.split("/")[2]: yaml.safe_load(text) for path, text in texts.items() if "config.yaml" in path
    }
    assert len(configs) == len(launch.processes)
    for arguments in configs.values():
        assert list(argument_problems(arguments)) == []
    for process in launch.processes:
        if process.instance.layout.dp > 1:
            ranks = [
                configs[p.name].get("data-parallel-start-rank", 0) + local
                for p in launch.processes
                if p.copy == process.copy
                for local in range(p.dp_local)
            ]
            assert sorted(ranks) == list(range(process.instance.layout.dp))
    assert texts == {f.path: f.content.decode() for f in compile_plan(plan, "bash", Path("out")).files}
