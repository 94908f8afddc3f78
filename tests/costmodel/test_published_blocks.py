"""KV blocks against what vLLM reported when it started (H100, BLIS's published runs; facts, cited)."""

import pytest

from moai_planner.catalog.accelerators import accelerator
from moai_planner.catalog.models import model
from moai_planner.costmodel.configuration import Configuration
from moai_planner.costmodel.memory import memory_budget
from moai_planner.domain.layout import Engine, Layout
from moai_planner.domain.parameters import Parameters
from moai_planner.domain.precision import precision
from moai_planner.domain.units import GIGA


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
