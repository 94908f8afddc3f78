"""Models: totals agree with the public model cards, every attention kind reads, faults are named."""

from __future__ import annotations

import csv
import gzip
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from moai_planner.catalog.capacity import read_capacity
from moai_planner.catalog.model_names import same_architecture
from moai_planner.catalog.models import model, model_names, read_model
from moai_planner.catalog.paths import MODEL_CONFIGS, PACKAGE
from moai_planner.costmodel.weights import expert_parameters, total_parameters
from moai_planner.domain.errors import InputError
from moai_planner.domain.precision import PRECISIONS
from moai_planner.domain.provenance import ASSUMED

SHARED = Path(os.environ.get("MOAI_SHARED_DATA", PACKAGE.parents[1] / "shared" / "data"))
BILLION = 1e9

PUBLISHED_TOTAL_B = {
    "meta-llama/Llama-3.3-70B-Instruct": 70.55,
    "meta-llama/Llama-3.1-8B-Instruct": 8.03,
    "meta-llama/Llama-3.1-405B-Instruct": 405.9,
    "meta-llama/Llama-3.2-1B-Instruct": 1.24,
    "meta-llama/Llama-3.2-3B-Instruct": 3.21,
    "meta-llama/Llama-2-7b-hf": 6.74,
    "meta-llama/Llama-2-70b-hf": 68.98,
    "meta-llama/Llama-4-Maverick-17B-128E-Instruct": 400.7,
    "codellama/CodeLlama-34b-Instruct-hf": 33.74,
    "mistralai/Mistral-7B-Instruct-v0.3": 7.25,
    "mistralai/Mixtral-8x7B-v0.1": 46.70,
    "mistralai/Mixtral-8x22B-v0.1": 140.6,
    "Qwen/Qwen2.5-72B-Instruct": 72.71,
    "Qwen/QwQ-32B": 32.76,
    "Qwen/Qwen3-8B": 8.19,
    "Qwen/Qwen3-32B": 32.76,
    "Qwen/Qwen3-30B-A3B": 30.53,
    "Qwen/Qwen3-235B-A22B": 235.09,
    "Qwen/Qwen3-Coder-480B-A35B-Instruct": 480.15,
    "Qwen/Qwen3.5-397B-A17B": 397.0,
    "deepseek-ai/DeepSeek-R1": 671.0,
    "deepseek-ai/DeepSeek-V4-Flash": 284.0,
    "openai/gpt-oss-120b": 116.83,
    "openai/gpt-oss-20b": 20.91,
    "moonshotai/Kimi-K2-Instruct": 1026.4,
    "MiniMaxAI/MiniMax-M2.5": 228.7,
    "zai-org/GLM-5": 744.0,
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": 31.6,
    "nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-FP8": 120.6,
    "nvidia/Llama-3_3-Nemotron-Super-49B-v1": 49.87,
    "microsoft/phi-2": 2.78,
    "tiiuae/falcon-7b": 6.92,
    "Qwen/Qwen3-4B": 4.02,
    "Qwen/Qwen3-14B": 14.8,
    "Qwen/Qwen2.5-32B-Instruct": 32.76,
    "Qwen/Qwen3-Next-80B-A3B-Instruct": 80.0,
    "microsoft/phi-4": 14.66,
    "google/gemma-2-27b-it": 27.23,
    "google/gemma-3-27b-it": 27.0,
    "mistralai/Mistral-Small-24B-Instruct-2501": 23.57,
    "mistralai/Mistral-Large-Instruct-2407": 122.6,
    "MiniMaxAI/MiniMax-M2": 228.7,
    "baidu/ERNIE-4.5-21B-A3B-PT": 21.8,
    "01-ai/Yi-34B": 34.39,
    "databricks/dbrx-instruct": 132.0,
    "CohereForAI/c4ai-command-r-plus": 103.8,
    "allenai/OLMoE-1B-7B-0924": 6.92,
}
PUBLISHED_ACTIVE_B = {
    "deepseek-ai/DeepSeek-R1": 37.5,
    "deepseek-ai/DeepSeek-V4-Pro": 49.0,
    "Qwen/Qwen3-235B-A22B": 22.0,
    "meta-llama/Llama-4-Maverick-17B-128E-Instruct": 17.2,
    "openai/gpt-oss-120b": 5.7,
    "Qwen/Qwen3.5-397B-A17B": 17.0,
}
NOT_READ = {"state-spaces/mamba-2.8b"}
"""Measured once, on a device whose engine is not ours, with no attention at all."""

DENSE = {
    "architectures": ["NewForCausalLM"],
    "num_hidden_layers": 4,
    "hidden_size": 64,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 1000,
}


def read(**keys):
    return read_model(DENSE | keys, "x", "config.json", ASSUMED)


@pytest.mark.parametrize("name", model_names())
def test_every_shipped_model_reads(name):
    """Layers add up, the precision exists, and the source is named."""
    found = model(name)
    assert found.native_precision in PRECISIONS
    assert found.source.title and found.source.where
    assert sum(part.layers for part in found.attention) <= found.layers
    if "Nemotron" not in name:
        assert sum(part.layers for part in found.attention) == found.layers
        assert sum(part.layers for part in found.feed_forward) == found.layers


def test_at_least_thirty_models_ship():
    assert len(model_names()) >= 30


@pytest.mark.parametrize(("name", "published_b"), PUBLISHED_TOTAL_B.items())
def test_total_parameters_agree_with_the_model_card(name, published_b):
    """Law: the sizes read from a configuration make the number of weights its card states."""
    assert total_parameters(model(name)) / BILLION == pytest.approx(published_b, rel=0.01)


@pytest.mark.parametrize(("name", "published_b"), PUBLISHED_ACTIVE_B.items())
def test_active_parameters_agree_with_the_model_card(name, published_b):
    found = model(name)
    idle = sum(
        part.layers * (part.experts - part.experts_per_token) * expert_parameters(found.hidden_size, part)
        for part in found.feed_forward
        if part.experts
    )
    assert (total_parameters(found) - idle) / BILLION == pytest.approx(published_b, rel=0.03)


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("openai/gpt-oss-120b", "mxfp4"),
        ("deepseek-ai/DeepSeek-R1", "fp8"),
        ("deepseek-ai/DeepSeek-V4-Pro", "fp4"),
        ("meta-llama/Llama-3.3-70B-Instruct", "bf16"),
        ("moonshotai/Kimi-K2.5", "int4"),
        ("nvidia/Kimi-K2.5-NVFP4", "nvfp4"),
        ("moonshotai/Kimi-K3", "mxfp4"),
        ("meta-llama/Llama-2-7b-hf", "fp16"),
    ],
)
def test_native_precision(name, precision):
    assert model(name).native_precision == precision


def test_dbrx_keeps_its_sizes_in_parts_of_its_own():
    raw = {
        "architectures": ["DbrxForCausalLM"],
        "model_type": "dbrx",
        "d_model": 6144,
        "n_heads": 48,
        "n_layers": 40,
        "max_seq_len": 32768,
        "vocab_size": 100352,
        "tie_word_embeddings": False,
        "attn_config": {"clip_qkv": 8, "kv_n_heads": 8, "model_type": ""},
        "ffn_config": {"ffn_hidden_size": 10752, "moe_num_experts": 16, "moe_top_k": 4, "model_type": ""},
    }
    found, shipped = read_model(raw, "x", "config.json", ASSUMED), model("databricks/dbrx-instruct")
    assert (found.attention, found.feed_forward) == (shipped.attention, shipped.feed_forward)
    assert found.max_context_tokens == 32768


def test_ernie_counts_experts_under_names_of_its_own():
    raw = DENSE | {
        "model_type": "ernie4_5_moe",
        "num_hidden_layers": 28,
        "moe_num_experts": 64,
        "moe_k": 6,
        "moe_intermediate_size": 32,
        "moe_num_shared_experts": 2,
        "moe_layer_start_index": 1,
        "moe_layer_interval": 1,
    }
    dense, experts = read_model(raw, "x", "config.json", ASSUMED).feed_forward
    assert (dense.layers, dense.intermediate_size) == (1, 128)
    assert (experts.layers, experts.experts, experts.experts_per_token) == (27, 64, 6)
    assert experts.shared_intermediate_size == 64


def test_what_a_file_leaves_to_its_class_is_the_classes_default():
    """Gemma 3's published files leave out vocabulary and pattern; Command R's that embeddings are tied."""
    gemma = {"hidden_size": 5376, "num_hidden_layers": 12, "intermediate_size": 21504, "sliding_window": 1024}
    raw = {"model_type": "gemma3", "text_config": gemma | {"model_type": "gemma3_text"}}
    found = read_model(raw, "x", "config.json", ASSUMED)
    assert (found.vocabulary_size, found.tied_embeddings) == (262208, True)
    assert sorted((part.window_tokens, part.layers) for part in found.attention) == [(0, 2), (1024, 10)]
    assert read(model_type="cohere").tied_embeddings


@pytest.mark.parametrize(
    ("quantization", "precision"),
    [
        ({"quant_method": "awq", "bits": 4}, "awq"),
        ({"quant_method": "gptq", "bits": 4}, "int4"),
        ({"quant_method": "gptq", "bits": 8}, "int8"),
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_algo": "NVFP4", "quant_method": "modelopt"}, "nvfp4"),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"a": {"weights": {"num_bits": 8, "type": "float"}}},
            },
            "fp8",
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"a": {"weights": {"num_bits": 4, "type": "int"}}},
            },
            "int4",
        ),
        ({"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp8_e4m3"}}}, "fp8"),
    ],
)
def test_quantization_forms(quantization, precision):
    assert read(quantization_config=quantization).native_precision == precision


def test_sliding_windows_alternate_in_gpt_oss():
    windowed, full = model("openai/gpt-oss-120b").attention
    assert (windowed.layers, windowed.window_tokens, full.layers, full.window_tokens) == (18, 128, 18, 0)


def test_unused_window_is_no_window():
    """Qwen writes a window and switches it off."""
    assert read(sliding_window=32768, use_sliding_window=False).attention[0].window_tokens == 0
    assert read(sliding_window=4096).attention[0].window_tokens == 4096


def test_latent_attention_keeps_one_latent():
    (part,) = model("deepseek-ai/DeepSeek-V3.2").attention
    assert (part.kind, part.kv_heads, part.kv_lora_rank, part.sparse_top_k_tokens) == ("mla", 1, 512, 2048)


def test_hybrid_has_state_and_attention():
    linear, full = model("Qwen/Qwen3.5-397B-A17B").attention
    assert (linear.kind, linear.layers, full.kind, full.layers) == ("linear", 45, "gqa", 15)
    assert linear.state_elements > 0 and full.gated_output


def test_wrapper_and_bare_configuration_read_alike():
    bare = read()
    wrapped = read_model(
        {"architectures": ["NewForCausalLM"], "text_config": DENSE}, "x", "config.json", ASSUMED
    )
    assert wrapped == bare


def test_unknown_architecture_with_usual_keys_is_grouped_attention():
    (part,) = read().attention
    assert (part.kind, part.query_heads, part.kv_heads, part.head_size) == ("gqa", 8, 2, 8)


def test_missing_and_wrong_keys_are_all_named():
    document = {key: value for key, value in DENSE.items() if key not in ("vocab_size", "intermediate_size")}
    with pytest.raises(InputError) as caught:
        read_model(document | {"num_key_value_heads": -2}, "x", "dir/config.json", ASSUMED)
    text = str(caught.value)
    for part in ("dir/config.json: vocab_size", "intermediate_size", "num_key_value_heads: -2"):
        assert part in text


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"num_hidden_layers": "4"}, "num_hidden_layers: '4'"),
        ({"num_key_value_heads": 3}, "must divide num_attention_heads"),
        ({"layer_types": ["full_attention"]}, "one entry for each of 4 layers"),
        ({"quantization_config": {"quant_method": "magic"}}, "quantization_config.quant_method: 'magic'"),
    ],
)
def test_odd_configurations(keys, said):
    with pytest.raises(InputError) as caught:
        read(**keys)
    assert said in str(caught.value)


def test_configuration_by_path(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(DENSE | {"torch_dtype": "bfloat16"}))
    by_folder, by_file = model(str(tmp_path)), model(str(tmp_path / "config.json"))
    assert by_folder == by_file and by_folder.id == str(tmp_path)


def test_number_format_written_beside_the_configuration(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(DENSE))
    (tmp_path / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "FP8"}}))
    assert model(str(tmp_path)).native_precision == "fp8"


@pytest.mark.parametrize(
    ("text", "said"), [("{", "is not JSON"), ("[]", "a list at the top"), ("", "is not JSON")]
)
def test_not_a_configuration(tmp_path: Path, text, said):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=said):
        model(str(tmp_path))


def test_unknown_model_suggests_near_names():
    with pytest.raises(InputError, match="did you mean openai/gpt-oss-120b"):
        model("openai/gpt-os-120b")


def test_short_and_differently_cased_names():
    assert model("GPT-OSS-120B") is model("openai/gpt-oss-120b")


def test_shipped_files_hold_only_what_is_read():
    """No weights map, no tokenizer ids, no rope: sizes alone."""
    for path in MODEL_CONFIGS.glob("*.json"):
        keys = json.loads(path.read_text()).keys()
        assert not {"rope_theta", "rope_scaling", "bos_token_id", "hidden_act", "vision_config"} & keys


@pytest.mark.shared
def test_every_shared_configuration_reads():
    """Any Hugging Face configuration works: all public ones at hand do."""
    path = SHARED / "model_configs" / "model_configs.jsonl.gz"
    if not path.is_file():
        pytest.skip("no shared data")
    for line in gzip.decompress(path.read_bytes()).decode().splitlines():
        row = json.loads(line)
        found = read_model(row["config"], row["model"], row["model"], ASSUMED)
        assert found.layers and total_parameters(found) > BILLION / 10


@pytest.mark.shared
def test_every_measured_model_resolves():
    path = SHARED / "measurements" / "serving_runs.csv.gz"
    if not path.is_file():
        pytest.skip("no shared data")
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    names = {row["model"] for row in csv.DictReader(lines)}
    assert names - set(model_names()) <= NOT_READ


def test_a_profiled_model_has_a_name(tmp_path):
    """What only a measured profile knows is planned for by its name; the profile is among the inputs."""
    rows = "".join(f"2023-11-16 18:00:{s:02d},{100 + s},{10 + s}\n" for s in range(30))
    (tmp_path / "t.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + rows)
    (tmp_path / "capacity.yaml").write_text(
        "format: moai-capacity/1\n"
        "cluster: {pools: [{name: boxes, accelerator: cpu, nodes: 1, devices_per_node: 1}]}\n"
        "deployments: [{name: small, model: dense-100m, trace: t.csv, slo: {ttft_p95: 20 s}}]\n"
    )
    request = read_capacity(tmp_path / "capacity.yaml")
    assert (request.deployments[0].model.id, request.deployments[0].model.layers) == ("dense-100m", 12)
    assert any(name.startswith("hardware_profiles/measured/cpu/") for name, _ in request.inputs)
    with pytest.raises(InputError, match="unknown model"):
        model("dense-101m")


@pytest.mark.parametrize(
    ("name", "shipped", "number_format"),
    [
        ("deepseek-ai/DeepSeek-R1-0528", "deepseek-ai/DeepSeek-R1", "fp8"),
        ("google/gemma-4-31B-it", "nvidia/Gemma-4-31B-IT-NVFP4", "bf16"),
        ("zai-org/GLM-5.1", "zai-org/GLM-5.1-FP8", "bf16"),
        ("Qwen/Qwen2-72B-Instruct-GPTQ-Int8", "Qwen/Qwen2-72B-Instruct", "int8"),
        ("Qwen/Qwen3-32B-AWQ", "Qwen/Qwen3-32B", "awq"),
        ("cpatonn/Qwen3-Next-80B-A3B-Instruct-AWQ-8bit", "Qwen/Qwen3-Next-80B-A3B-Instruct", "int8"),
        (
            "nm-testing/Meta-Llama-3-8B-Instruct-W8A8-FP8-Channelwise",
            "meta-llama/Meta-Llama-3-8B-Instruct",
            "fp8",
        ),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507-FP8", "Qwen/Qwen3-30B-A3B-Instruct-2507", "fp8"),
        ("nvidia/Kimi-K2-Thinking-NVFP4", "moonshotai/Kimi-K2-Thinking", "nvfp4"),
        ("nvidia/DeepSeek-V3-0324-FP4", "deepseek-ai/DeepSeek-V3", "nvfp4"),
        ("amd/Llama-3.1-405B-Instruct-FP8-KV", "meta-llama/Llama-3.1-405B-Instruct", "fp8"),
        ("unsloth/gpt-oss-120b-BF16", "openai/gpt-oss-120b", "bf16"),
        ("Qwen/Qwen3-235B-A22B-Instruct-2507-FP8", "Qwen/Qwen3-235B-A22B-Instruct-2507", "fp8"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "mistralai/Mixtral-8x7B-v0.1", "bf16"),
        ("RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w4a16", "meta-llama/Llama-3.1-8B-Instruct", "int4"),
    ],
)
def test_other_uploads_of_a_shipped_architecture_have_its_sizes(name, shipped, number_format):
    found, own = model(name), model(shipped)
    assert (found.id, found.read_as, found.native_precision) == (name, shipped, number_format)
    assert replace(found, id=shipped, read_as="", native_precision=own.native_precision) == own


@pytest.mark.parametrize(
    "name",
    [
        "meta-llama/Llama-3.1-8B-Instrut",
        "meta-llama/Llama-3.1-9B-Instruct",
        "mistralai/Mistral-7B-Instruct-v0.9",
        "mistral-large-2512",
        "x/Llama-3.1-8B-Instruct-FP8-LoRA",
        "unsloth/gemma-3-27b-it-bnb-4bit",
        "mlx-community/Qwen3-32B-4bit",
        "yuhuili/EAGLE-LLaMA3-Instruct-8B",
        "x/Llama-3.1-8B-Instruct-FP8-Eagle3",
        "./Llama-3.1-70B-Instruct",
        "/models/Llama-3.1-70B-Instruct",
        "a/b/Llama-3.1-70B-Instruct",
        "Instruct",
        "a/",
    ],
)
def test_no_other_name_is_taken_for_a_shipped_model(name):
    with pytest.raises(InputError, match="unknown model"):
        model(name)


def test_shipped_names_with_one_stem_are_one_architecture():
    """Law: what the words left out of a stem say does not change the layers."""
    for name in model_names():
        same = same_architecture(name, model_names())
        one, other = model(name), model(same)
        assert (one.attention, one.feed_forward, one.hidden_size) == (
            other.attention,
            other.feed_forward,
            other.hidden_size,
        )
