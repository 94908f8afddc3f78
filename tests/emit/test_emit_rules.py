"""Each rule stops or warns about the plan that breaks it, and says so by its id."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from emit_plans import (
    DENSE,
    EXPERTS,
    NIXL,
    deployment,
    golden_plan,
    infeasible_plan,
    instance,
    loopback_plan,
    on,
    plan_of,
    pool,
    with_instance,
    with_lane,
)

from moai_planner.domain.errors import Infeasible, InputError
from moai_planner.domain.layout import Engine, Layout
from moai_planner.domain.plan import Lane
from moai_planner.emit.emit import compile_plan
from moai_planner.emit.launch import LaunchOptions


def refusal(plan, **options) -> str:
    """Why the plan is not emitted."""
    with pytest.raises(InputError) as caught:
        compile_plan(plan, "bash", Path("out"), LaunchOptions(**options))
    return str(caught.value)


def warnings(plan, **options) -> str:
    """What is said about a plan that is emitted."""
    return "\n".join(compile_plan(plan, "bash", Path("out"), LaunchOptions(**options)).warnings)


def one(model=DENSE, precision="bf16", platform="cuda", accelerator="h200_sxm", **fields):
    """A plan of one mixed instance on device 0."""
    fields.setdefault("layout", Layout(tp=1))
    devices = tuple(range(fields["layout"].devices))
    return plan_of(
        (pool("p", accelerator, ("h",), platform),),
        (deployment("chat", model, "m", precision),),
        (instance("i", "p", "l", (on(0, *devices),), accelerator=accelerator, **fields),),
        (Lane("l", "chat", "mixed", 1, 1.0, ("i",)),),
    )


def pair(prefill="cuda", decode="rocm", allowed=True, precision="bf16", connector="nixl", **decode_fields):
    """A prefill–decode lane over two pools."""
    accelerators = {"cuda": "h200_sxm", "rocm": "mi300x", "hpu": "gaudi3", "xpu": "arc_b60", "tt": "tt_n300"}
    names = accelerators[prefill], accelerators[decode]
    chat = deployment("chat", DENSE, "m", "bf16")
    chat = replace(chat, precision=chat.precision.with_kv("fp8" if precision == "fp8" else "bf16"))
    one_device = {"layout": Layout(tp=1)}
    return plan_of(
        (pool("p", names[0], ("a",), prefill), pool("d", names[1], ("b",), decode)),
        (chat,),
        (
            instance("pi", "p", "l", (on(0, 0),), role="prefill", accelerator=names[0], **one_device),
            instance(
                "di",
                "d",
                "l",
                (on(0, 0),),
                role="decode",
                accelerator=names[1],
                **(one_device | decode_fields),
            ),
        ),
        (Lane("l", "chat", "disaggregated", 1, 1.0, ("pi", "di"), replace(NIXL, connector=connector)),),
        options={"cross_vendor_kv": allowed},
    )


def engine(**fields) -> Engine:
    return Engine(**({"max_model_len": 16384} | fields))


REFUSED = {
    "V01": one(replace(DENSE, attention=(replace(DENSE.attention[0], query_heads=6),)), layout=Layout(tp=4)),
    "V05": one(layout=Layout(tp=1, dp=2, ep=2)),
    "V07": one(engine=engine(max_num_seqs=512, max_num_batched_tokens=256)),
    "V09": one(engine=engine(memory_utilization_frac=1.2)),
    "V10": one(engine=engine(block_size_tokens=20)),
    "H01": pair(allowed=False),
    "H02": pair(precision="fp8"),
    "N00": pair("tt", "tt"),
    "N03": with_instance(
        pair("cuda", "cuda", engine=engine(block_size_tokens=48)), "pi", engine=engine(block_size_tokens=32)
    ),
}


@pytest.mark.parametrize("rule", REFUSED)
def test_a_broken_rule_stops_the_emission(rule):
    """Law: what the engine would refuse is refused here, by its rule id."""
    assert f"rule {rule}" in refusal(REFUSED[rule])


def test_unequal_ranks_must_divide():
    """N01 and N02: larger over smaller is whole; prefill above decode only while heads last."""
    plan = golden_plan()
    three = with_instance(plan, "chat/h200/decode", layout=Layout(tp=3), placements=(on(0, 4, 5, 6),))
    assert "rule N01" in refusal(three)
    reverse = with_instance(plan, "chat/h200/decode", layout=Layout(tp=1), placements=(on(0, 4),))
    assert "N02" in warnings(reverse)


def test_expert_counts_must_split():
    """V05: 256 experts over 3 ranks."""
    assert "256 experts do not split" in refusal(one(EXPERTS, "fp8", layout=Layout(tp=3, ep=3)))


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda p: with_instance(p, "m", count=3), "3 copies need as many placements"),
        (lambda p: with_instance(p, "m", placements=(on(0, 3), on(0, 3))), "used twice"),
        (lambda p: with_instance(p, "m", placements=(on(0, 3), on(4, 3))), "has 1 hosts"),
        (lambda p: with_instance(p, "m", placements=(on(0, 3), on(0, 9))), "has 8 devices a node"),
        (lambda p: with_instance(p, "m", placements=(on(0, 3), on(0, 4, 5))), "tp·pp·dp = 1"),
        (lambda p: with_instance(p, "m", pool="mars"), "no such pool"),
        (lambda p: with_instance(p, "m", role="decode"), "a mixed lane has instances of role mixed"),
        (lambda p: with_instance(p, "d", role="ffn"), "no released engine splits attention"),
        (lambda p: with_lane(p, "mixed", members=()), "must be the instances that name it"),
        (lambda p: with_lane(with_lane(p, "mixed", weight=0), "pd", weight=0), "weight above 0"),
        (lambda p: replace(p, format="moai-plan/9"), "emit reads moai-plan/1"),
        (lambda p: replace(p, lanes=(), instances=()), "nothing to emit"),
        (lambda p: replace(p, pools=(replace(p.pools[0], platform="lpu"),)), "no build for LPUs"),
        (lambda p: replace(p, pools=(replace(p.pools[0], platform="abacus"),)), "known platforms"),
        (lambda p: replace(p, pools=(replace(p.pools[0], hosts=("a; reboot",)),)), "write a host name"),
    ],
)
def test_a_plan_that_is_not_whole_is_refused(change, said):
    """Law: broken references and placements are problems of the input, not crashes."""
    assert said in refusal(change(loopback_plan()))


def test_all_problems_come_at_once():
    """Law: two mistakes, two problems."""
    plan = with_instance(with_instance(loopback_plan(), "m", pool="mars"), "p", lane="moon")
    assert "mars" in refusal(plan) and "moon" in refusal(plan)


def test_a_cross_vendor_lane_is_labelled():
    """H01: allowed by the plan, labelled unverified, with the settings of both sides."""
    report = compile_plan(pair(), "bash", Path("out"))
    assert any("unverified transport" in warning for warning in report.warnings)
    texts = {file.path: file.content.decode() for file in report.files}
    for path in ("hosts/a/pi-0", "hosts/b/di-0"):
        config, variables = texts[f"{path}/config.yaml"], texts[f"{path}/env.sh"]
        assert "enforce_handshake_compat: false" in config and "kv_buffer_device: cpu" in config
        assert "attention-backend: TRITON_ATTN" in config
        assert "VLLM_KV_CACHE_LAYOUT=LBHNC" in variables and "UCX_TLS=tcp" in variables
    assert "N08" in "\n".join(report.warnings)
    assert "unverified transport" in texts["README.md"]


@pytest.mark.parametrize("mix", [("hpu", "cuda"), ("xpu", "cuda")])
def test_published_mixes_permute(mix):
    """Gaudi or XPU prefill with NVIDIA decode: blocks are permuted on arrival."""
    report = compile_plan(pair(*mix), "bash", Path("out"))
    config = {f.path: f.content.decode() for f in report.files}["hosts/b/di-0/config.yaml"]
    assert "enable_permute_local_kv: true" in config
    assert any("documented by a vendor" in warning for warning in report.warnings)


def test_a_mix_without_settings_is_refused():
    """H01: decode on Gaudi has no recipe."""
    assert "no settings are known" in refusal(pair("cuda", "hpu"))


def test_connectors_stay_with_their_vendor():
    """MoRI-IO is AMD's, Mooncake NVIDIA's."""
    assert "AMD devices only" in refusal(pair("cuda", "cuda"), connector="moriio")
    assert "NVIDIA devices only" in refusal(pair("rocm", "rocm"), connector="mooncake")
    assert "not tried" in warnings(pair("rocm", "rocm"), connector="moriio")
    assert "not tried" in warnings(pair("cuda", "cuda"), connector="mooncake")
    assert "one of" in refusal(pair("cuda", "cuda"), connector="pigeon")


def test_other_platforms_come_with_their_notes():
    """Tenstorrent needs its plugin, Rubin CPX is flagged, other formats need other weights."""
    assert "vllm-tt-plugin" in warnings(one(platform="tt", accelerator="tt_n300"))
    assert "no vLLM release names this device" in warnings(one(accelerator="rubin_cpx"))
    assert "--model-path" in warnings(one(precision="awq"))
    assert "--model-path" not in warnings(one(precision="awq"), model_paths={"": "/models/awq"})
    assert "while loading" in warnings(one(precision="fp8"))


def test_an_infeasible_plan_is_an_answer():
    """Exit code 3, with the reasons."""
    with pytest.raises(Infeasible, match="needs 16 devices, has 8 devices"):
        compile_plan(infeasible_plan(), "bash", Path("out"))


def test_an_unknown_target_gets_a_suggestion():
    """A misspelt target names the nearest."""
    with pytest.raises(InputError, match="did you mean bash"):
        compile_plan(golden_plan(), "bsh", Path("out"))


@pytest.mark.parametrize(
    "reference, found, warned",
    [
        ("openai/gpt-oss-120b", "openai/gpt-oss-120b", False),
        ("/models/tiny/config.json", "/models/tiny", False),
        ("./tiny", "./tiny", True),
        ("dense-100m", "dense-100m", True),
    ],
)
def test_weights_location_means_the_same_everywhere(reference, found, warned):
    """V16: a folder for a configuration file; a warning where hosts would look in different places."""
    plan = loopback_plan()
    plan = replace(plan, deployments=(replace(plan.deployments[0], model_reference=reference),))
    report = compile_plan(plan, "bash", Path("out"))
    assert ("V16" in "\n".join(report.warnings)) == warned
    texts = [f.content.decode() for f in report.files if f.path.endswith("config.yaml")]
    assert all(f"model: {found}\n" in text for text in texts)


def test_names_with_line_breaks_stay_in_their_comment():
    """Law: no name ends a comment and becomes a command."""
    plan = loopback_plan()
    evil = "chat\nrm -rf nothing"
    plan = replace(
        plan,
        deployments=(replace(plan.deployments[0], name=evil),),
        instances=tuple(replace(i, deployment=evil) for i in plan.instances),
        lanes=tuple(replace(x, deployment=evil) for x in plan.lanes),
    )
    for file in compile_plan(plan, "bash", Path("out")).files:
        assert not any(line.startswith("rm -rf") for line in file.content.decode().splitlines()), file.path


def test_syntax_errors_of_a_script_are_found():
    """Law: the check of scripts is not empty."""
    from moai_planner.emit.render import RenderedFile
    from moai_planner.emit.validate import file_problems

    good = RenderedFile("a.sh", b"if true; then echo 1; fi\n", True, "bash")
    bad = RenderedFile("b.sh", b"if true; then echo 1\n", True, "bash")
    assert file_problems((good,)) == ()
    assert "b.sh: bash -n" in file_problems((good, bad))[0]


def test_what_the_front_leaves_out_and_what_hosts_share_is_said():
    """K03 and N09: nothing is dropped silently."""
    assert "K03 lane mixed: weight 0" in warnings(with_lane(loopback_plan(), "mixed", weight=0))
    assert "N09 lane pd: KV goes through /mnt/kv" in warnings(loopback_plan("cpu"), shared_kv_path="/mnt/kv")
