"""The small models as domain values, written by hand: an independent reading of their configs."""

from __future__ import annotations

from moai_planner.domain.model import Attention, FeedForward, Model
from moai_planner.profile.small_models import SMALL_MODELS


def small_model(name: str) -> Model:
    """A dense or MoE small model; MLA with its latent sizes."""
    c = SMALL_MODELS[name]
    heads, layers = c["num_attention_heads"], c["num_hidden_layers"]
    if "kv_lora_rank" in c:
        attention = Attention(
            "mla", layers, heads, 1, c["qk_nope_head_dim"] + c["qk_rope_head_dim"], c["v_head_dim"],
            kv_lora_rank=c["kv_lora_rank"], qk_rope_head_size=c["qk_rope_head_dim"],
        )  # fmt: skip
    else:
        attention = Attention("gqa", layers, heads, c["num_key_value_heads"], c["head_dim"], c["head_dim"])
    experts = c.get("num_experts") or c.get("n_routed_experts")
    dense_layers = c.get("first_k_dense_replace", 0) if experts else layers
    parts = []
    if dense_layers:
        parts.append(FeedForward(dense_layers, c["intermediate_size"]))
    if experts:
        shared = c.get("n_shared_experts", 0) * c["moe_intermediate_size"]
        parts.append(
            FeedForward(
                layers - dense_layers, c["moe_intermediate_size"], experts, c["num_experts_per_tok"], shared
            )
        )
    return Model(
        name, c["architectures"][0], layers, c["hidden_size"], c["vocab_size"], (attention,), tuple(parts),
        tied_embeddings=False, max_context_tokens=c["max_position_embeddings"], native_precision="bf16",
    )  # fmt: skip
