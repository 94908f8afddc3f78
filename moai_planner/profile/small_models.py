"""Model configurations made for measuring: small enough for a CPU, one of each kind, never trained.

`dense-100m` is the model of `make profile-cpu`; `dense-*` vary hidden size, layers and heads so that
per-operator costs can be told apart; `tiny-*` are quick stand-ins for dense, MoE and MLA models.
"""

from __future__ import annotations

from typing import Any

_VOCABULARY = 16384
_CONTEXT = 4096


def _common(hidden: int, layers: int, heads: int, intermediate: int) -> dict[str, Any]:
    return {
        "vocab_size": _VOCABULARY,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": intermediate,
        "max_position_embeddings": _CONTEXT,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
    }


def _dense(hidden: int, layers: int, heads: int, kv_heads: int, intermediate: int) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **_common(hidden, layers, heads, intermediate),
        "num_key_value_heads": kv_heads,
        "head_dim": 64,
        "attention_bias": False,
        "mlp_bias": False,
    }


def _experts(hidden: int, layers: int, heads: int, experts: int, per_token: int) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        **_common(hidden, layers, heads, 2 * hidden),
        "num_key_value_heads": max(1, heads // 2),
        "head_dim": 64,
        "attention_bias": False,
        "num_experts": experts,
        "num_experts_per_tok": per_token,
        "moe_intermediate_size": hidden // 2,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "norm_topk_prob": True,
        "router_aux_loss_coef": 0.001,
    }


def _latent(hidden: int, layers: int, heads: int, experts: int, per_token: int) -> dict[str, Any]:
    return {
        "architectures": ["DeepseekV2ForCausalLM"],
        "model_type": "deepseek_v2",
        **_common(hidden, layers, heads, 2 * hidden),
        "num_key_value_heads": heads,
        "attention_bias": False,
        "q_lora_rank": None,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "n_routed_experts": experts,
        "n_shared_experts": 1,
        "num_experts_per_tok": per_token,
        "moe_intermediate_size": hidden // 2,
        "first_k_dense_replace": 1,
        "moe_layer_freq": 1,
        "n_group": 1,
        "topk_group": 1,
        "topk_method": "greedy",
        "scoring_func": "softmax",
        "norm_topk_prob": False,
        "routed_scaling_factor": 1.0,
    }


SMALL_MODELS: dict[str, dict[str, Any]] = {
    "dense-100m": _dense(768, 12, 12, 4, 2048),
    "dense-60m": _dense(640, 8, 10, 5, 1792),
    "dense-40m": _dense(512, 8, 8, 4, 1536),
    "dense-deep": _dense(512, 16, 8, 2, 1408),
    "dense-wide": _dense(1024, 5, 16, 4, 2816),
    "tiny-dense": _dense(256, 4, 4, 2, 512),
    "tiny-moe": _experts(512, 8, 8, 16, 4),
    "tiny-mla": _latent(512, 6, 8, 16, 4),
}
"""Name → Hugging Face config."""
