"""Where one device's memory goes, and how many KV blocks are left.

vLLM gives the KV cache what `gpu_memory_utilization` allows after weights, the peak of activations
and what the driver and collectives hold; captured graphs are estimated and taken off too. TensorRT-LLM's
fraction is one of what is then free.
"""

from __future__ import annotations

from moai_planner.costmodel import weights
from moai_planner.costmodel.configuration import Configuration
from moai_planner.costmodel.formats import as_stored
from moai_planner.costmodel.kv import bounded_bytes_per_sequence, kv_bytes_per_token
from moai_planner.domain.layout import capture_sizes
from moai_planner.domain.model import Model
from moai_planner.domain.precision import bytes_per_element
from moai_planner.domain.step import MemoryBudget
from moai_planner.domain.units import MEBI

RUNTIME_BYTES = 150 * MEBI
"""Driver context, library handles and allocator slack of one device."""
ROCM_BYTES = 1024 * MEBI
"""What the runtime of AMD devices holds more."""
COLLECTIVE_BYTES = 450 * MEBI
"""Buffers of collectives when a rank has peers (NCCL or RCCL and custom all-reduce together)."""
LOGIT_BYTES = 38.0
"""Of one logit while a step samples: the product's 16 bits, fp32 and copies of it, sorted values and their
64-bit places, softmax and sums. This and the three above are what start-up logs of vLLM state
(`tests/costmodel/start_up_logs.csv`); releases since 0.18 hold up to half less of it."""
SLIM_LOGIT_BYTES = 6.0
"""The same where nothing is sorted on a GPU: the product and one copy in fp32 (assumed)."""
EXPERT_TILES = (256, 128)
"""Hidden size and width of a rank's experts are padded to these by the kernels of native MXFP4 checkpoints
(vLLM's `Mxfp4MoEMethod` with Marlin; other kernels and engines pad a little less or more)."""
NATIVE_MXFP4 = frozenset(("GptOssForCausalLM",))
"""Architectures published in that format; other mixtures are quantised by tools whose kernels do not pad."""
GRAPH_BYTES_PER_CAPTURE_LAYER = 0.12 * MEBI
"""Captured graphs: per size and layer (assumed; about 0.5 GiB for 51 sizes of an 80-layer model)."""
FREE_FRAC_ENGINES = ("trtllm",)
"""Engines whose memory fraction is of what weights, activations and the rest leave free, not of the device
(TensorRT-LLM's `free_gpu_memory_fraction`, 0.9 by default)."""
MOE_CHUNK_TOKENS = 16384
"""Fused expert kernels work through at most this many tokens at a time."""


def memory_budget(c: Configuration) -> MemoryBudget:
    """Memory of the fullest device of an instance, and the KV of one data-parallel rank."""
    layout, engine = c.layout, c.engine
    weights_bytes = weight_bytes_per_device(c)
    activations_bytes = activation_bytes(c)
    graphs_bytes = graph_bytes(c)
    runtime_bytes = RUNTIME_BYTES + (COLLECTIVE_BYTES if layout.devices > 1 else 0.0)
    runtime_bytes += ROCM_BYTES if c.accelerator.platform == "rocm" else 0.0
    held_bytes = weights_bytes + activations_bytes + graphs_bytes + runtime_bytes
    kv_bytes = usable_bytes(c, held_bytes) - held_bytes
    stage_share = _fullest_stage_layers(c.model, layout.pp) / c.model.layers
    per_token = stage_share * kv_bytes_per_token(c.model, c.precision, layout.tp, engine.max_model_len)
    per_sequence = stage_share * bounded_bytes_per_sequence(
        c.model, c.precision, layout.tp, engine.max_model_len
    )
    blocks = _blocks(c, kv_bytes, per_token, per_sequence)
    return MemoryBudget(
        weights_bytes=weights_bytes,
        activations_bytes=activations_bytes,
        graphs_bytes=graphs_bytes,
        runtime_bytes=runtime_bytes,
        kv_bytes=kv_bytes,
        kv_bytes_per_token=per_token,
        state_bytes_per_sequence=per_sequence,
        kv_blocks=blocks,
        kv_tokens=blocks * engine.block_size_tokens,
    )


def usable_bytes(c: Configuration, held_bytes: float) -> float:
    """What an engine may use of one device, where all but KV takes `held_bytes`: a fraction of the device, or
    all of that and a fraction of the rest.

    DeepSeek-R1 in FP8 leaves 18.1 GiB of a B200 where four hold it; 0.75 of them are room for 400,000 tokens,
    and published runs of TensorRT-LLM hold 32 sequences of 8K there. A share of the whole device would be
    0.3 GiB.
    """
    total, frac = c.accelerator.memory_bytes, c.engine.memory_utilization_frac
    if c.engine.name in FREE_FRAC_ENGINES:
        return held_bytes + frac * (total - held_bytes) if held_bytes < total else total
    return total * frac


def _blocks(c: Configuration, kv_bytes: float, per_token: float, per_sequence: float) -> int:
    """Blocks left after the bounded part of as many sequences as fit at full length.

    That is the concurrency vLLM reports for hybrid models; zero when not one block fits.
    """
    engine = c.engine
    if kv_bytes <= 0:
        return 0
    if per_token == 0:
        sequences = (
            min(engine.max_num_seqs, int(kv_bytes // per_sequence)) if per_sequence else engine.max_num_seqs
        )
        return sequences * -(-engine.max_model_len // engine.block_size_tokens)
    sequences = min(engine.max_num_seqs, kv_bytes / (per_token * engine.max_model_len + per_sequence))
    return max(0, int((kv_bytes - sequences * per_sequence) // (per_token * engine.block_size_tokens)))


def weight_bytes_per_device(c: Configuration) -> float:
    """Weights of the fullest device.

    Projections, dense MLPs and shared experts are split over tp (KV heads copied beyond their number);
    routed experts over tp·dp, whole experts over ep of them; vocabulary over tp; layers over pp.
    """
    model, layout, precision = c.model, c.layout, c.precision
    stage_share = _fullest_stage_layers(model, layout.pp) / model.layers
    layers = sum(part.layers * _attention_bytes(c, part) for part in model.attention)
    layers += sum(part.layers * _feed_forward_bytes(c, part) for part in model.feed_forward)
    vocabulary = (
        weights.embedding_parameters(model) * bytes_per_element(precision.embedding_weights) / layout.tp
    )
    copies = 1 if model.tied_embeddings or layout.pp > 1 else 2
    return stage_share * layers + copies * vocabulary


def _fullest_stage_layers(model: Model, pp: int) -> int:
    return -(-model.layers // pp)


def _attention_bytes(c: Configuration, part) -> float:
    width = bytes_per_element(as_stored(c.model, c.precision).attention_weights)
    share = weights.attention_weights(c.model.hidden_size, part).per_rank(c.layout.tp, part.kv_heads)
    return share * width + 2 * c.model.hidden_size * bytes_per_element("bf16")


def _feed_forward_bytes(c: Configuration, part) -> float:
    hidden, layout, precision = c.model.hidden_size, c.layout, as_stored(c.model, c.precision)
    one = weights.expert_parameters(hidden, part)
    if not part.experts:
        return one * bytes_per_element(precision.feed_forward_weights) / layout.tp
    whole_experts = -(-part.experts // layout.ep)
    slices = layout.tp * layout.dp / layout.ep
    routed = whole_experts * one * bytes_per_element(precision.expert_weights) / slices
    if precision.expert_weights == "mxfp4" and c.model.architecture in NATIVE_MXFP4:
        routed *= _padded_share(hidden, part.intermediate_size / slices)
    shared = weights.shared_expert_parameters(hidden, part) * bytes_per_element(
        precision.feed_forward_weights
    )
    router = weights.router_parameters(hidden, part) * bytes_per_element("bf16")
    return routed + shared / layout.tp + router


def _padded_share(hidden: float, width: float) -> float:
    """Stored over counted weights of an expert's slice.

    gpt-oss-120b on one device: 65.8 GiB instead of 60.7; vLLM's log says 65.97.

    >>> round(_padded_share(2880, 2880), 3), _padded_share(4096, 256)
    (1.09, 1.0)
    """
    stored = 1.0
    for size, tile in zip((hidden, width), EXPERT_TILES, strict=True):
        stored *= -(-size // tile) * tile / size
    return stored


def activation_bytes(c: Configuration) -> float:
    """Peak of activations in a full step of `max_num_batched_tokens`. An estimate, not a law.

    Alive at once in a layer: the residual stream and one more copy, the widest pair of intermediates
    (gate-up and its product, or queries with keys and values), the routed copies of one chunk of
    tokens. Sampling comes after the layers: the larger of the two counts. vLLM's logs state 4.76 and
    4.84 GiB for Llama with 8 and 70 billion parameters and 1,024 sequences, 7.38 for gpt-oss:

    >>> from moai_planner.domain.units import GIBI
    >>> round(1024 * 128256 * LOGIT_BYTES / GIBI, 2), round(1024 * 201088 * LOGIT_BYTES / GIBI, 2)
    (4.65, 7.29)
    """
    model, tp, tokens = c.model, c.layout.tp, c.engine.max_num_batched_tokens
    width = bytes_per_element("bf16")
    queries = max(
        (p.query_heads * (p.head_size + p.value_head_size) / tp for p in model.attention), default=0
    )
    dense = max((3 * p.intermediate_size / tp for p in model.feed_forward if not p.experts), default=0)
    residual = tokens * (4 * model.residual_size + max(queries, dense)) * width
    routed = max((_routed_bytes(c, part, tokens) for part in model.feed_forward if part.experts), default=0)
    each = LOGIT_BYTES if c.accelerator.platform in ("cuda", "rocm") else SLIM_LOGIT_BYTES
    logits = min(c.engine.max_num_seqs, tokens) * model.vocabulary_size * each
    return max(residual + routed, logits)


def _routed_bytes(c: Configuration, part, tokens: float) -> float:
    group_tokens = min(tokens * c.layout.dp, MOE_CHUNK_TOKENS)
    rows = group_tokens * part.experts_per_token / max(1, c.layout.ep)
    widest = 3 * part.intermediate_size * c.layout.ep / (c.layout.tp * c.layout.dp) + c.model.hidden_size
    return rows * widest * bytes_per_element("bf16")


def graph_bytes(c: Configuration) -> float:
    """Captured graphs of one device; zero when the engine runs without them."""
    if not c.engine.graphs:
        return 0.0
    layers = _fullest_stage_layers(c.model, c.layout.pp)
    return len(capture_sizes(c.engine.max_num_seqs)) * layers * GRAPH_BYTES_PER_CAPTURE_LAYER
