"""Weights and KV against the sizes of public checkpoints and the arithmetic of their configs."""

from __future__ import annotations

import pytest

from moai_planner.catalog.models import model
from moai_planner.costmodel.kv import kv_bytes_per_token
from moai_planner.costmodel.weights import checkpoint_bytes, total_parameters
from moai_planner.domain.precision import precision
from moai_planner.domain.units import GIGA

CHECKPOINTS_GB = [
    ("meta-llama/Llama-3.3-70B-Instruct", "bf16", 141.1),
    ("meta-llama/Llama-3.3-70B-Instruct", "fp8", 72.7),
    ("openai/gpt-oss-120b", "mxfp4", 65.2),
    ("openai/gpt-oss-20b", "mxfp4", 13.8),
    ("deepseek-ai/DeepSeek-R1", "fp8", 688.6),
    ("mistralai/Mixtral-8x7B-v0.1", "bf16", 93.4),
    ("Qwen/Qwen3-32B", "bf16", 65.5),
    ("Qwen/Qwen3-30B-A3B", "bf16", 61.1),
    ("Qwen/Qwen3-235B-A22B", "bf16", 470.2),
    ("meta-llama/Llama-3.1-405B-Instruct", "bf16", 811.7),
    ("meta-llama/Llama-3.1-8B-Instruct", "bf16", 16.06),
    ("meta-llama/Llama-3.3-70B-Instruct", "awq", 39.8),
]


@pytest.mark.parametrize(("name", "number_format", "published_gb"), CHECKPOINTS_GB)
def test_checkpoint_size_within_one_percent_of_the_public_files(name, number_format, published_gb):
    """All files of the repository together, prediction layers included."""
    predicted = checkpoint_bytes(model(name), precision(number_format), mtp=True)
    assert predicted == pytest.approx(published_gb * GIGA, rel=0.01)


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("meta-llama/Llama-3.3-70B-Instruct", 70.6),
        ("openai/gpt-oss-120b", 116.8),
        ("openai/gpt-oss-20b", 20.9),
        ("deepseek-ai/DeepSeek-V3", 671.0),
        ("moonshotai/Kimi-K2-Instruct", 1026.0),
        ("Qwen/Qwen3-235B-A22B", 235.1),
    ],
)
def test_parameters_as_the_model_cards_say(name, billions):
    """Total parameters of the served model, without prediction layers."""
    assert total_parameters(model(name)) == pytest.approx(billions * GIGA, rel=0.005)


@pytest.mark.parametrize(
    ("name", "elements"),
    [
        ("meta-llama/Llama-3.3-70B-Instruct", 2 * 80 * 8 * 128),
        ("meta-llama/Llama-3.1-8B-Instruct", 2 * 32 * 8 * 128),
        ("openai/gpt-oss-120b", 2 * 36 * 8 * 64),
        ("Qwen/Qwen3-235B-A22B", 2 * 94 * 4 * 128),
        ("deepseek-ai/DeepSeek-R1", 61 * (512 + 64)),
        ("moonshotai/Kimi-K2-Instruct", 61 * (512 + 64)),
        ("Qwen/Qwen3.5-397B-A17B", 2 * 15 * 2 * 256),
    ],
)
def test_kv_bytes_are_exactly_the_configs_arithmetic(name, elements):
    """2·layers·kv_heads·head_dim, or layers·(latent + rope) for MLA; linear layers hold none."""
    known = model(name)
    assert kv_bytes_per_token(known, precision("bf16")) == 2 * elements
    assert kv_bytes_per_token(known, precision("fp8").with_kv("fp8")) == elements


@pytest.mark.parametrize("number_format", ["mxfp4", "nvfp4"])
def test_four_bits_of_a_dense_model_mean_all_its_layers(number_format):
    """No experts to be narrow: every linear layer is. Of a mixture, attention keeps its width."""
    dense, mixture = model("meta-llama/Llama-3.3-70B-Instruct"), model("deepseek-ai/DeepSeek-R1")
    four_bits = precision(number_format)
    assert checkpoint_bytes(dense, four_bits) < 0.62 * checkpoint_bytes(dense, precision("fp8"))
    assert checkpoint_bytes(mixture, four_bits) > total_parameters(mixture) * 4.25 / 8 * 1.02


def test_capped_windows_hold_no_growing_kv():
    """Half of gpt-oss' layers see 128 tokens: with longer contexts only the other half grows."""
    known = model("openai/gpt-oss-120b")
    whole = kv_bytes_per_token(known, precision("mxfp4"))
    assert kv_bytes_per_token(known, precision("mxfp4"), max_context_tokens=32768) == whole / 2
    assert kv_bytes_per_token(known, precision("mxfp4"), max_context_tokens=128) == whole
