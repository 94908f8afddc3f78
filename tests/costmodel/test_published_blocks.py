"""KV blocks and memory against what vLLM reported when it started (facts, cited in the table and here)."""

import csv
from pathlib import Path

import pytest

from moai_planner.catalog.accelerators import accelerator
from moai_planner.catalog.models import model
from moai_planner.costmodel.configuration import Configuration
from moai_planner.costmodel.memory import memory_budget
from moai_planner.domain.layout import Engine, Layout
from moai_planner.domain.parameters import Parameters
from moai_planner.domain.precision import precision
from moai_planner.domain.units import GIBI, GIGA

LOGS = list(csv.DictReader((Path(__file__).parent / "start_up_logs.csv").read_text().splitlines()))


@pytest.mark.parametrize(
    ("name", "tp", "step_tokens", "context", "blocks"),
    [
        ("meta-llama/Llama-2-7b-hf", 1, 2048, 4096, 7463),
        ("meta-llama/Llama-3.1-70B-Instruct", 4, 2048, 131072, 30425),
        ("Qwen/Qwen2.5-7B-Instruct", 1, 2048, 32768, 65368),
    ],
)
def test_kv_blocks_within_two_percent_of_the_engines_own_count(name, tp, step_tokens, context, blocks):
    c = Configuration(
        accelerator=accelerator("h100_sxm"),
        model=model(name),
        precision=precision("bf16"),
        layout=Layout(tp),
        engine=Engine(max_num_seqs=128, max_num_batched_tokens=step_tokens, max_model_len=context),
        devices_per_node=8,
        network_bytes_per_s=50 * GIGA,
        parameters=Parameters(),
    )
    assert memory_budget(c).kv_blocks == pytest.approx(blocks, rel=0.02)


@pytest.mark.parametrize(
    "log", LOGS, ids=lambda log: f"{log['model']}-{log['kv']}-{log['accelerator']}-{log['tp']}"
)
def test_weights_and_kv_cache_as_start_up_logs_state_them(log):
    """Servers with vLLM's defaults on large devices: 1,024 sequences, steps of 8,192 tokens. Weights are
    judged by these logs; what else is held (four constants of `memory`) was read off them, so that law is
    one of agreement over devices, models and releases. Between releases KV differs by up to 3 %."""
    c = Configuration(
        accelerator=accelerator(log["accelerator"]),
        model=model(log["model"]),
        precision=precision(log["precision"]).with_kv(log["kv"]),
        layout=Layout(int(log["tp"]), ep=int(log["ep"])),
        engine=Engine(
            max_num_seqs=1024,
            max_num_batched_tokens=8192,
            max_model_len=int(log["max_model_len"]),
            memory_utilization_frac=float(log["memory_utilization"]),
        ),
        devices_per_node=8,
        network_bytes_per_s=50 * GIGA,
        parameters=Parameters(),
    )
    budget = memory_budget(c)
    assert budget.weights_bytes / GIBI == pytest.approx(float(log["weights_gib"]), rel=0.055)
    least, most = float(log["least_kv_gib"]), float(log["most_kv_gib"])
    assert 0.95 * least <= budget.kv_bytes / GIBI <= 1.05 * most


def test_a_model_that_vllm_found_too_large_for_one_device_has_no_room():
    """gpt-oss-120b with all defaults on one H100: -2.14 GiB for KV, weights of 65.97 (vLLM issue 23278)."""
    c = Configuration(
        accelerator=accelerator("h100_sxm"),
        model=model("openai/gpt-oss-120b"),
        precision=precision("mxfp4"),
        layout=Layout(1),
        engine=Engine(max_num_seqs=1024, max_num_batched_tokens=8192, max_model_len=131072),
        devices_per_node=8,
        network_bytes_per_s=50 * GIGA,
        parameters=Parameters(),
    )
    budget = memory_budget(c)
    assert budget.weights_bytes / GIBI == pytest.approx(65.97, rel=0.01)
    assert budget.kv_bytes < 0 and not budget.fits


def test_no_step_samples_more_rows_than_it_has_tokens():
    def activations(sequences):
        engine = Engine(max_num_seqs=sequences, max_num_batched_tokens=2048, max_model_len=8192)
        c = Configuration(
            accelerator=accelerator("h100_sxm"),
            model=model("meta-llama/Llama-3.1-8B-Instruct"),
            precision=precision("bf16"),
            layout=Layout(1),
            engine=engine,
            devices_per_node=8,
            network_bytes_per_s=50 * GIGA,
            parameters=Parameters(),
        )
        return memory_budget(c).activations_bytes

    assert activations(256) < activations(2048) == activations(16384) < 10 * GIBI
