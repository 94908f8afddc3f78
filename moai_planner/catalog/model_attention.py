"""Attention layers of a `config.json`: how many layers share each form.

`read_attention(config, layers)` → one `Attention` for each form, in order of first appearance. A form is
found by its keys, not by the architecture's name, so that a new model with known keys reads at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from moai_planner.catalog.model_config import Config
from moai_planner.domain.model import Attention

FP32_IN_BF16_ELEMENTS = 2
"""Recurrent states kept in fp32 count twice, since state elements are priced as bf16."""


def read_attention(config: Config, layers: int) -> tuple[Attention, ...]:
    """All attention forms; their `layers` sum to the layers that attend."""
    return merge(_each_layer(config, layers))


def merge(parts: Iterable[Attention]) -> tuple[Attention, ...]:
    """Equal forms counted together."""
    counts = Counter(replace(part, layers=1) for part in parts)
    return tuple(replace(part, layers=count) for part, count in counts.items())


def _each_layer(config: Config, layers: int) -> list[Attention]:
    if config.model_type == "deepseek_v4":
        return _compressed(config, layers)
    if config.has("block_configs"):
        return _per_block(config, layers)
    if config.has("hybrid_override_pattern", "layers_block_type"):
        return _mamba_hybrid(config, layers)
    if config.has("linear_attn_config"):
        return _kimi_linear(config, layers)
    if config.has("kv_lora_rank"):
        return [latent(config)] * layers
    kinds = layer_kinds(config, layers)
    return [_one_layer(config, kind) for kind in kinds]


def layer_kinds(config: Config, layers: int) -> tuple[str, ...]:
    """`full`, `sliding`, `sparse` or `linear` for each layer."""
    listed = config.sequence("layer_types", length=layers, of=str)
    if listed is not None:
        return tuple(_kind_of(str(name)) for name in listed)
    if config.has("hybrid_layer_pattern"):
        pattern = config.sequence("hybrid_layer_pattern", length=layers, of=int) or ()
        return tuple("sliding" if entry else "full" for entry in pattern)
    if config.has("linear_num_value_heads"):
        return _every(config.integer("full_attention_interval", default=4), layers, "full", "linear")
    sparse = config.part("sparse_attention_config").sequence("sparse_attention_freq", length=layers, of=int)
    if sparse is not None:
        return tuple("sparse" if entry else "full" for entry in sparse)
    if config.has("attention_chunk_size") and config.model_type == "llama4":
        return _every(config.integer("no_rope_layer_interval", default=4), layers, "full", "sliding")
    if not config.has("sliding_window") or not config.flag("use_sliding_window", default=True):
        return ("full",) * layers
    if config.has("sliding_window_pattern"):
        return _every(config.integer("sliding_window_pattern"), layers, "full", "sliding")
    if config.model_type in ("gpt_oss", "gemma2"):
        return _every(2, layers, "full", "sliding")
    return ("sliding",) * layers


def _kind_of(name: str) -> str:
    if "linear" in name:
        return "linear"
    return "sliding" if "sliding" in name or "chunked" in name else "full"


def _every(interval: int, layers: int, last: str, others: str) -> tuple[str, ...]:
    """`others` but for each `interval`-th layer."""
    return tuple(last if (index + 1) % interval == 0 else others for index in range(layers))


def _one_layer(config: Config, kind: str) -> Attention:
    if kind == "linear":
        return delta_net(config)
    part = grouped(config, sliding=kind == "sliding")
    if kind == "sparse":
        sparse = config.part("sparse_attention_config")
        return replace(
            part,
            sparse_top_k_tokens=sparse.integer("sparse_topk_blocks") * sparse.integer("sparse_block_size"),
            index_heads=sparse.integer("sparse_num_index_heads", default=0),
            index_head_size=sparse.integer("sparse_index_dim", default=0),
        )
    return part


def grouped(config: Config, sliding: bool = False) -> Attention:
    """Multi-head, grouped or multi-query attention, over all tokens or a window."""
    heads = config.integer("num_attention_heads", "n_head", "num_heads")
    hidden = config.integer("hidden_size", "n_embd", "d_model")
    kv_heads = _kv_heads(config, heads)
    head_size = config.integer("head_dim", default=max(1, hidden // heads))
    value_size = config.integer("v_head_dim", default=head_size)
    window = 0
    if sliding:
        window = config.integer("sliding_window", "sliding_window_size", "attention_chunk_size")
        heads = config.integer("swa_num_attention_heads", default=heads)
        kv_heads = config.integer("swa_num_key_value_heads", default=kv_heads)
        head_size = config.integer("swa_head_dim", default=head_size)
        value_size = config.integer("swa_v_head_dim", default=value_size)
    elif config.has("global_head_dim"):
        head_size = value_size = config.integer("global_head_dim")
        kv_heads = config.integer("num_global_key_value_heads", default=kv_heads)
    gated = config.flag("attn_output_gate") or config.model_type == "qwen3_next"
    joint = config.text("qk_norm_type") == "per_layer" and config.flag("use_qk_norm", default=True)
    return Attention(
        "gqa", 1, heads, kv_heads, head_size, value_size, window, gated_output=gated, joint_norm=joint
    )


def _kv_heads(config: Config, heads: int) -> int:
    if config.has("num_key_value_heads", "n_head_kv"):
        return config.integer("num_key_value_heads", "n_head_kv")
    if config.model_type == "falcon":
        if config.flag("new_decoder_architecture"):
            return config.integer("num_kv_heads", default=heads)
        return 1 if config.flag("multi_query", default=True) else heads
    return config.integer("num_kv_heads", default=heads)


def latent(config: Config) -> Attention:
    """Multi-head latent attention, with the learned sparse indexer where it has one."""
    rope = config.integer("qk_rope_head_dim")
    return Attention(
        kind="mla",
        layers=1,
        query_heads=config.integer("num_attention_heads"),
        kv_heads=1,
        head_size=config.integer("qk_nope_head_dim") + rope,
        value_head_size=config.integer("v_head_dim"),
        sparse_top_k_tokens=config.integer("index_topk", default=0),
        kv_lora_rank=config.integer("kv_lora_rank"),
        q_lora_rank=config.integer("q_lora_rank", default=0),
        qk_rope_head_size=rope,
        index_heads=config.integer("index_n_heads", default=0),
        index_head_size=config.integer("index_head_dim", default=0),
    )


def delta_net(config: Config) -> Attention:
    """Gated DeltaNet (Qwen3-Next, Qwen3.5): projections of queries, keys, values, output gate and two
    scalars a value head; a short convolution; a key x value state for each value head."""
    key_heads = config.integer("linear_num_key_heads")
    value_heads = config.integer("linear_num_value_heads")
    key_size = config.integer("linear_key_head_dim")
    value_size = config.integer("linear_value_head_dim")
    kernel = config.integer("linear_conv_kernel_dim", default=4)
    hidden = config.integer("hidden_size")
    keys, values = key_heads * key_size, value_heads * value_size
    convolved = 2 * keys + values
    wide = FP32_IN_BF16_ELEMENTS if config.text("mamba_ssm_dtype") == "float32" else 1
    return Attention(
        kind="linear",
        layers=1,
        query_heads=key_heads,
        kv_heads=1,
        head_size=values // key_heads,
        value_head_size=value_size,
        state_elements=wide * value_heads * key_size * value_size + (kernel - 1) * convolved,
        projection_parameters=hidden * (2 * keys + 3 * values + 2 * value_heads) + kernel * convolved,
    )


def _mamba_hybrid(config: Config, layers: int) -> list[Attention]:
    """Nemotron-H: each layer is one of Mamba-2, attention, experts or MLP."""
    kinds = hybrid_layers(config, layers)
    return [
        mamba2(config) if kind == "mamba" else grouped(config)
        for kind in kinds
        if kind in ("mamba", "attention")
    ]


def hybrid_layers(config: Config, layers: int) -> tuple[str, ...]:
    """`mamba`, `attention`, `moe` or `mlp` for each layer of a Nemotron-H pattern."""
    letters = {"M": "mamba", "*": "attention", "E": "moe", "-": "mlp"}
    pattern = config.sequence("layers_block_type", "hybrid_override_pattern", length=layers, of=str) or ()
    return tuple(letters.get(entry, str(entry)) for entry in pattern)


def mamba2(config: Config) -> Attention:
    """Mamba-2: one input projection (gate, values, B, C, step sizes), a short convolution, an output one."""
    heads, head_size = config.integer("mamba_num_heads"), config.integer("mamba_head_dim")
    state, groups = config.integer("ssm_state_size"), config.integer("n_groups", default=1)
    kernel, hidden = config.integer("conv_kernel", default=4), config.integer("hidden_size")
    inner = heads * head_size
    convolved = inner + 2 * groups * state
    wide = FP32_IN_BF16_ELEMENTS if config.text("mamba_ssm_cache_dtype") == "float32" else 1
    return Attention(
        kind="linear",
        layers=1,
        query_heads=heads,
        kv_heads=1,
        head_size=head_size,
        value_head_size=head_size,
        state_elements=wide * inner * state + (kernel - 1) * convolved,
        projection_parameters=hidden * (inner + convolved + heads) + kernel * convolved + inner * hidden,
    )


def _kimi_linear(config: Config, layers: int) -> list[Attention]:
    """Kimi Delta Attention in most layers, latent attention in the listed ones."""
    linear = config.part("linear_attn_config")
    listed = linear.values.get("full_attn_layers")
    full = min(len(listed), layers) if isinstance(listed, list) else 0
    heads, size = linear.integer("num_heads"), linear.integer("head_dim")
    kernel, hidden = linear.integer("short_conv_kernel_size", default=4), config.integer("hidden_size")
    inner = heads * size
    part = Attention(
        kind="linear",
        layers=1,
        query_heads=heads,
        kv_heads=1,
        head_size=size,
        value_head_size=size,
        state_elements=FP32_IN_BF16_ELEMENTS * heads * size * size + (kernel - 1) * 3 * inner,
        # queries, keys, values, decay, gate and output; the decay and gate may be of low rank
        projection_parameters=hidden * inner * (6 if linear.flag("use_full_rank_gate") else 4),
    )
    gated = linear.flag("use_full_rank_gate")
    return [part] * (layers - full) + [replace(latent(config), gated_output=gated)] * full


def _per_block(config: Config, layers: int) -> list[Attention]:
    """Searched architectures (DeciLM, Nemotron Super): each block has its own KV heads, or no attention."""
    heads = config.integer("num_attention_heads")
    size = config.integer("head_dim", default=max(1, config.integer("hidden_size") // heads))
    return [
        Attention("gqa", 1, heads, max(1, heads // entry.integer("n_heads_in_group", default=1)), size, size)
        for entry in (block.part("attention") for block in blocks_of(config, layers))
        if not entry.flag("no_op") and not entry.flag("replace_with_linear")
    ]


def blocks_of(config: Config, layers: int) -> list[Config]:
    """Each block of a searched architecture."""
    blocks = config.sequence("block_configs", length=layers, of=dict) or ()
    return [Config(config.file, block, config.problems, "block_configs[].") for block in blocks]


def _compressed(config: Config, layers: int) -> list[Attention]:
    r"""DeepSeek V4: one key-value entry stands for `ratio` tokens; ratio 0 is a sliding window alone.

    An entry of `head_dim` elements for each `ratio` tokens is counted as a latent of
    :math:`\lfloor d / ratio \rfloor` elements a token: the same bytes kept, the same bytes read, the same
    flop, since all three are linear in it. Top-k entries become top-k · ratio tokens. The output projection
    goes through groups of low rank; `value_head_size` is the width of one matrix as large as both.
    The 128-token window that each compressed layer also reads is left out.
    """
    ratios = config.sequence("compress_ratios", length=layers, of=int) or (0,) * layers
    heads, size = config.integer("num_attention_heads"), config.integer("head_dim")
    hidden, rank = config.integer("hidden_size"), config.integer("o_lora_rank")
    output = heads * size * rank + config.integer("o_groups") * rank * hidden
    whole = config.integer("max_position_embeddings")
    base = Attention(
        kind="mla",
        layers=1,
        query_heads=heads,
        kv_heads=1,
        head_size=size,
        value_head_size=max(1, round(output / (heads * hidden))),
        q_lora_rank=config.integer("q_lora_rank"),
        kv_lora_rank=size,
    )
    top_k = config.integer("index_topk", default=0)
    if min(ratios) < 0:
        config.add("compress_ratios", min(ratios), "write how many tokens an entry stands for, or 0")
        return []
    parts = {0: replace(base, window_tokens=config.integer("sliding_window"), sparse_top_k_tokens=whole)}
    for ratio in sorted(set(ratios) - {0}):
        parts[ratio] = replace(base, kv_lora_rank=max(1, size // ratio), sparse_top_k_tokens=whole)
    if top_k and 4 in parts:
        parts[4] = replace(
            parts[4],
            sparse_top_k_tokens=top_k * 4,
            index_heads=config.integer("index_n_heads"),
            index_head_size=config.integer("index_head_dim") // 4,
        )
    return [parts[ratio] for ratio in ratios]
