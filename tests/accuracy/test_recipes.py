"""What published recipes say of a run that its row does not: laws over engines and devices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from moai_planner.accuracy.measurements import read_measurements
from moai_planner.accuracy.published_slots import FILE
from moai_planner.accuracy.recipes import (
    Recipe,
    decode_slots,
    hold_steps,
    receive_steps,
    recipe_of,
    reduce_bits,
)
from moai_planner.catalog.accelerators import accelerator
from moai_planner.cli.main import app

R1 = "deepseek-ai/DeepSeek-R1"
HEAD = (
    "id,source,model,precision,engine,topology,accelerator,n_accelerators,tp,isl,osl,concurrency,"
    "tpot_ms_mean,split,notes\n"
)


def test_other_sources_have_no_recipe():
    for engine in ("vllm", "sglang", "trtllm", "atom"):
        assert recipe_of("somebody's runs", engine, R1, "b200_sxm", 64, 8192) == Recipe()


def test_presets_of_an_article_that_names_them():
    """Long prompts on the prefill side, no graphs; the settings that all its presets share elsewhere."""
    named = recipe_of("Moreh MIF docs", "moreh-vllm", R1, "mi300x", 10800, 2000)
    assert named.prefill_batched_tokens > named.max_num_batched_tokens and not named.graphs
    other = recipe_of("another report", "moreh-vllm", R1, "mi300x", 160, 1024)
    assert other == Recipe(kv=named.kv)
    assert recipe_of("Moreh MIF docs", "vllm", R1, "mi300x", 160, 1024) == Recipe()


@pytest.mark.parametrize("about", ["InferenceX dump", "AIConfigurator silicon_sample InferenceX run"])
def test_a_quoted_run_has_the_recipe_of_the_run(about):
    assert recipe_of(about, "trtllm", R1, "h200_sxm", 4, 1024).kv == "fp8"


def test_trtllm_holds_a_prompt_and_the_batch():
    for isl, concurrency in ((1024, 4), (8192, 64), (8192, 300)):
        recipe = recipe_of("InferenceX", "trtllm", R1, "b200_sxm", concurrency, isl)
        tokens = recipe.max_num_batched_tokens
        assert tokens >= isl + concurrency and tokens >= 8192


def test_what_a_row_states_wins(tmp_path: Path):
    file = tmp_path / "runs.csv"
    row = f"{{}},InferenceX,{R1},fp8,trtllm,colocated,h200_sxm,8,8,1024,1024,8,12,validate,{{}}\n"
    stated = "max_num_batched_tokens=2048"
    file.write_text(HEAD + row.format("plain", "") + row.format("stated", stated), encoding="utf-8")
    plain, own = read_measurements(file).runs
    assert plain.kv == own.kv == "fp8"
    assert (plain.max_num_batched_tokens, own.max_num_batched_tokens) == (8192, 2048)


def test_who_holds_prompts_back(tmp_path: Path):
    """Only data-parallel ranks; SGLang only where a recipe sets it; vLLM never."""
    file = tmp_path / "runs.csv"
    head = HEAD.replace("tp,", "tp,dp,")
    row = "{id},{source}," + R1 + ",fp8,{engine},colocated,h200_sxm,8,{tp},{dp},8192,1024,64,12,validate,\n"
    whole = {"source": "InferenceX", "tp": 1, "dp": 8}
    rows = [whole | {"id": engine, "engine": engine} for engine in ("trtllm", "atom", "sglang", "vllm")]
    rows += [whole | {"id": "own", "engine": "sglang", "source": "somebody"}]
    rows += [whole | {"id": "tp", "engine": "trtllm", "tp": 8, "dp": 1}]
    file.write_text(head + "".join(row.format(**each) for each in rows), encoding="utf-8")
    found = {run.id: hold_steps(run) for run in read_measurements(file).runs}
    assert found == {"trtllm": 60, "atom": 30, "sglang": 30, "vllm": 0, "own": 0, "tp": 0}


def test_who_looks_for_requests_seldom(tmp_path: Path):
    """SGLang's recipes for every Blackwell, more seldom with many in flight; not with data-parallel ranks."""
    file = tmp_path / "runs.csv"
    head = HEAD.replace("tp,", "tp,dp,")
    row = "{id},InferenceX," + R1 + ",fp8,sglang,colocated,{device},8,{tp},{dp},8192,1024,{c},12,validate,\n"
    whole = {"tp": 8, "dp": 1, "c": 16}
    devices = ("b200_sxm", "b300_sxm", "h200_sxm", "mi355x")
    rows = [whole | {"id": device, "device": device} for device in devices]
    rows += [whole | {"id": "few", "device": "b300_sxm", "c": 8}]
    rows += [whole | {"id": "dp", "device": "b200_sxm", "tp": 1, "dp": 8}]
    file.write_text(head + "".join(row.format(**each) for each in rows), encoding="utf-8")
    runs = read_measurements(file).runs
    found = {run.id: receive_steps(run, accelerator(run.workers[0].accelerator)) for run in runs}
    assert found == {"b200_sxm": 30, "b300_sxm": 30, "h200_sxm": 1, "mi355x": 1, "few": 10, "dp": 1}


def test_whose_large_sums_are_quantised(tmp_path: Path):
    """Of DeepSeek-R1 on one MI355X server since a date, of GLM-5 there, and of some of vLLM's models."""
    file = tmp_path / "runs.csv"
    head = HEAD.replace("model,", "model,date,")
    row = "{id},{source},{model},{date},fp8,{engine},colocated,{device},8,8,8192,1024,16,12,validate,\n"
    usual = {
        "source": "InferenceX",
        "model": R1,
        "date": "2026-02-01",
        "engine": "sglang",
        "device": "mi355x",
    }
    cases = {
        "told": {},
        "before": {"date": "2025-11-01"},
        "somebody": {"source": "somebody"},
        "atom": {"engine": "atom"},
        "gpt": {"engine": "vllm", "model": "openai/gpt-oss-120b"},
        "v4": {"engine": "vllm", "model": "deepseek-ai/DeepSeek-V4-Pro"},
        "glm": {"model": "zai-org/GLM-5"},
        "h200": {"engine": "vllm", "model": "openai/gpt-oss-120b", "device": "h200_sxm"},
    }
    rows = [row.format(**usual | {"id": name} | changed) for name, changed in cases.items()]
    file.write_text(head + "".join(rows), encoding="utf-8")
    runs = read_measurements(file).runs
    found = {run.id: reduce_bits(run, one := run.workers[0], accelerator(one.accelerator)) for run in runs}
    told = ("told", "gpt", "glm")
    assert found == {name: 4 if name in told else 0 for name in cases}


def test_slots_are_the_published_ones_or_the_largest_usual_number(tmp_path: Path):
    """462 on three instances of 128 slots; 463 is in no recipe and cannot be shared: 128 is below 154.3."""
    file = tmp_path / "runs.csv"
    head = HEAD.replace(
        "tp,isl,osl",
        "prefill_workers,prefill_tp,decode_workers,decode_tp,length_spread,spec_decode,isl_mean,osl_mean,isl,osl",
    )
    row = (
        f"{{0}},InferenceX,{R1},fp8,trtllm,disaggregated,h100_sxm,64,1,16,3,16,uniform 0.8-1.0,mtp,"
        "922,922,1024,1024,{0},12,validate,\n"
    )
    file.write_text(head + "".join(row.format(c) for c in (462, 463, 384)), encoding="utf-8")
    found = {run.id: decode_slots(run) for run in read_measurements(file).runs}
    assert found == {"462": 128, "463": 128, "384": float("inf")}


def test_published_slots_are_positive_and_given_once():
    lines = FILE.read_text(encoding="utf-8").splitlines()[1:]
    cases = [line.rsplit(",", 1) for line in lines]
    assert len(lines) > 300 and len({case for case, _ in cases}) == len(cases)
    assert all(int(slots) > 0 for _, slots in cases)


def test_calibrated_checkpoints_keep_narrow_kv():
    """Of TensorRT-LLM's recipes only that of a checkpoint from elsewhere leaves the format open."""
    for name, wanted in (("meta-llama/Llama-3.3-70B-Instruct", "fp8"), ("openai/gpt-oss-120b", "")):
        assert recipe_of("InferenceX", "trtllm", name, "b200_sxm", 4, 1024).kv == wanted


def test_a_layout_left_open_is_that_of_the_presets(tmp_path: Path):
    """Moreh's for DeepSeek-R1 spread the experts over its ranks; elsewhere devices are tensor ranks."""
    file = tmp_path / "runs.csv"
    row = f"{{0}},table,{R1},fp8,{{0}},colocated,mi300x,8,,31744,1024,8,12,validate,\n"
    file.write_text(HEAD + row.format("moreh-vllm") + row.format("vllm"), encoding="utf-8")
    spread, split = (run.workers[0] for run in read_measurements(file).runs)
    assert (spread.tp, spread.dp, spread.ep) == (1, 8, 8)
    assert (split.tp, split.dp, split.ep) == (8, 1, 1)


def test_validate_says_what_a_row_left_open(tmp_path: Path):
    """The layout, equal lengths and the number of requests of one row; nothing of a row that states them."""
    file = tmp_path / "runs.csv"
    head = HEAD.replace("split", "isl_mean,osl_mean,length_spread,n_requests,split")
    row = "{},table," + R1 + ",fp8,moreh-vllm,colocated,mi300x,8,{},1024,1024,8,12,{},validate,\n"
    rows = row.format("open", "", "1024,1024,,") + row.format("stated", "8", "1024,1024,fixed,80")
    file.write_text(head + rows, encoding="utf-8")
    answer = CliRunner().invoke(app, ["validate", str(file), "--json"])
    (found,) = json.loads(answer.stdout)["assumed"]
    assert found["id"] == "open" and len(found["assumed"]) == 3
    assert "dp 8 ep 8 (all devices, as the engine's presets) (1 row)" in " ".join(answer.stderr.split())
