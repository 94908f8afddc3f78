"""A language model as the sizes of its layers; the same for every engine and device."""

from __future__ import annotations

from dataclasses import dataclass

from moai_planner.domain.provenance import ASSUMED, Source

APPROXIMATED_ARCHITECTURES = ("DeepseekV4ForCausalLM",)
"""Models whose attention is read as the nearest form known here: compressed KV as a narrower latent."""


@dataclass(frozen=True)
class Attention:
    """Layers that share one attention form."""

    kind: str
    "`gqa` (multi-head: query_heads == kv_heads), `mla`, `linear` (state instead of KV: Mamba, DeltaNet)."
    layers: int
    query_heads: int
    kv_heads: int
    head_size: int
    "Of keys and queries. For MLA: qk_nope + qk_rope."
    value_head_size: int
    window_tokens: int = 0
    "Sliding window; 0 = the whole context."
    sparse_top_k_tokens: int = 0
    "Learned sparse attention reads at most this many context tokens; 0 = all."
    kv_lora_rank: int = 0
    q_lora_rank: int = 0
    qk_rope_head_size: int = 0
    index_heads: int = 0
    "Heads of the sparse indexer (it reads one key of `index_head_size` per context token)."
    index_head_size: int = 0
    state_elements: int = 0
    "Linear kinds: recurrent state of one sequence per layer, convolution state included."
    projection_parameters: int = 0
    "Linear kinds: weights of one layer's projections; 0 = derived from the heads."
    gated_output: bool = False
    "A second query-sized projection gates the output (Qwen3-Next, Qwen3.5)."
    joint_norm: bool = False
    "Queries and keys are normalised over all heads at once (MiniMax-M2), also those of other tensor ranks."


@dataclass(frozen=True)
class FeedForward:
    """Layers that share one feed-forward form."""

    layers: int
    intermediate_size: int
    "Dense: the MLP's width. MoE: one expert's width."
    experts: int = 0
    "Routed experts; 0 = dense."
    experts_per_token: int = 0
    shared_intermediate_size: int = 0
    "Summed width of the shared experts."
    matrices: int = 3
    "3 = gated (SwiGLU), 2 = plain."
    shared_matrices: int = 3


@dataclass(frozen=True)
class Model:
    """Everything that costs time or memory about a model."""

    id: str
    architecture: str
    layers: int
    hidden_size: int
    vocabulary_size: int
    attention: tuple[Attention, ...]
    feed_forward: tuple[FeedForward, ...]
    tied_embeddings: bool
    max_context_tokens: int
    native_precision: str
    "Id of the precision its checkpoint is published in (`domain.precision`)."
    attention_bias: bool = False
    mtp_layers: int = 0
    "Multi-token-prediction layers shipped with the checkpoint (loaded only for speculative decoding)."
    residual_streams: int = 1
    "Copies of the residual stream that hyper-connections mix before and after each block (DeepSeek V4)."
    source: Source = ASSUMED
    read_as: str = ""
    "Shipped model whose sizes these are, where the checkpoint's own config was not given; empty = its own."

    @property
    def residual_size(self) -> int:
        """Elements of a token's residual stream, all copies."""
        return self.residual_streams * self.hidden_size

    @property
    def moe(self) -> bool:
        return any(part.experts for part in self.feed_forward)

    @property
    def query_heads(self) -> int:
        return max(part.query_heads for part in self.attention)

    @property
    def kv_heads(self) -> int:
        """KV heads that tensor parallelism splits; MLA keeps one latent for all."""
        return max(part.kv_heads for part in self.attention)
