"""Feed-forward layers of a `config.json`: dense MLPs, experts, shared experts, and which layer has which."""

from __future__ import annotations

from collections import Counter

from moai_planner.catalog.model_attention import blocks_of, hybrid_layers
from moai_planner.catalog.model_config import Config
from moai_planner.domain.model import FeedForward

PLAIN_MLP = frozenset(
    (
        "opt",
        "gpt2",
        "gpt_neox",
        "gpt_bigcode",
        "phi",
        "falcon",
        "bloom",
        "mpt",
        "starcoder2",
        "nemotron",
        "nemotron_h",
    )
)
"""Model types whose MLP has two matrices; all others gate theirs with a third."""

DECI_ROUNDING = 256
_LARGEST_MULTIPLE = 1000


def read_feed_forward(config: Config, layers: int) -> tuple[FeedForward, ...]:
    """One `FeedForward` for each form."""
    if config.has("block_configs"):
        return _per_block(config, layers)
    if config.has("hybrid_override_pattern", "layers_block_type"):
        kinds = hybrid_layers(config, layers)
        counts = {"dense": kinds.count("mlp"), "moe": kinds.count("moe")}
    else:
        sparse = _expert_layers(config, layers)
        counts = {"dense": layers - sparse, "moe": sparse}
    parts = []
    if counts["dense"]:
        parts.append(FeedForward(counts["dense"], _dense_width(config), matrices=_matrices(config)))
    if counts["moe"]:
        parts.append(_experts(config, counts["moe"]))
    return tuple(parts)


def expert_count(config: Config) -> int:
    """Routed experts of a layer; 0 = a dense model."""
    return config.integer(
        "n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts", default=0
    )


def _expert_layers(config: Config, layers: int) -> int:
    """How many layers route to experts. The keys differ by family; those that are there all count."""
    if not expert_count(config) or not config.flag("enable_moe_block", default=True):
        return 0
    kinds = config.sequence("mlp_layer_types", length=layers, of=str)
    if kinds is not None:
        return sum(entry == "sparse" for entry in kinds)
    if isinstance(config.values.get("moe_layer_freq"), list):
        return sum(bool(entry) for entry in config.sequence("moe_layer_freq", length=layers, of=int) or ())
    first = config.integer("first_k_dense_replace", "moe_layer_start_index", default=0)
    names = ("decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_freq", "moe_layer_interval")
    step = config.integer(*names, default=1)
    listed = config.values.get("mlp_only_layers")
    dense = [index for index in listed if isinstance(index, int)] if isinstance(listed, list) else []
    if config.model_type in ("deepseek_v2", "deepseek_v3", "deepseek_v32", "kimi_k2", "kimi_linear"):
        return sum(index >= first and index % step == 0 for index in range(layers))
    return sum(index >= first and (index + 1) % step == 0 and index not in dense for index in range(layers))


def _dense_width(config: Config) -> int:
    hidden = config.integer("hidden_size", "n_embd", "d_model")
    default = 4 * hidden if config.model_type in ("falcon", "gpt2", "bloom") else None
    names = ("intermediate_size", "ffn_hidden_size", "ffn_dim", "n_inner")
    return config.integer("dense_intermediate_size", "intermediate_size_mlp", *names, default=default)


def _matrices(config: Config) -> int:
    return 2 if config.model_type in PLAIN_MLP else 3


def _experts(config: Config, layers: int) -> FeedForward:
    matrices, hidden = _matrices(config), config.integer("hidden_size")
    width = config.integer("moe_intermediate_size", "expert_intermediate_size", "intermediate_size")
    shared = _shared_width(config, width)
    latent = config.integer("moe_latent_size", "routed_expert_hidden_size", default=0)
    if latent:
        # Experts work in a narrower space: their width is scaled to equal weights and flop, and the two
        # projections into and out of it count as one more shared expert of as many weights.
        width = round(width * latent / hidden)
        shared += round(2 * latent / matrices)
    return FeedForward(
        layers=layers,
        intermediate_size=width,
        experts=expert_count(config),
        experts_per_token=config.integer(
            "num_experts_per_tok",
            "num_experts_per_token",
            "top_k_experts",
            "experts_per_token",
            "moe_topk",
            "moe_k",
        ),
        shared_intermediate_size=shared,
        matrices=matrices,
        shared_matrices=matrices,
    )


def _shared_width(config: Config, expert_width: int) -> int:
    """Summed width of the shared experts."""
    if config.model_type == "llama4":
        return config.integer("intermediate_size")
    if config.has("enable_moe_block"):  # Gemma 4 keeps its dense MLP beside the experts
        return config.integer("intermediate_size")
    names = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")
    count = config.integer(*names, default=0)
    named = config.integer(
        "moe_shared_expert_intermediate_size",
        "shared_expert_intermediate_size",
        "shared_intermediate_size",
        "share_expert_dim",
        default=0,
    )
    return named or count * expert_width


def _per_block(config: Config, layers: int) -> tuple[FeedForward, ...]:
    """Searched architectures: each block's MLP is a multiple of the hidden size, rounded up, or absent."""
    hidden = config.integer("hidden_size")
    widths: Counter[int] = Counter()
    for entry in (block.part("ffn") for block in blocks_of(config, layers)):
        multiple = entry.values.get("ffn_mult")
        if isinstance(multiple, int | float) and 0 < multiple <= _LARGEST_MULTIPLE:
            widths[_rounded_up(int(2 * multiple * hidden / 3))] += 1
        elif not entry.flag("no_op"):
            entry.add("ffn_mult", multiple, f"write a number above 0, at most {_LARGEST_MULTIPLE}, or no_op")
    return tuple(FeedForward(count, width) for width, count in widths.items())


def _rounded_up(width: int) -> int:
    return -(-width // DECI_ROUNDING) * DECI_ROUNDING
