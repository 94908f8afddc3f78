"""How many kernels a pass launches: each costs a little beyond its roofline time.

Counted from the operator list of a compiled vLLM model (norms fused with residual adds, rotary with
cache write), latent attention and experts from a published profile of DeepSeek-R1 under SGLang
(zdszero.github.io, `deepseek_profile`), the sparse indexer from DeepSeek-V3.2's reference code; the fitted
`kernel_s` absorbs what the count misses.

>>> kernels(llama := Model("l", "Llama", 2, 8, 16, (Attention("gqa", 2, 4, 2, 2, 2),),
...         (FeedForward(2, 16),), False, 64, "bf16"))
22
>>> kernels(llama, Narrow(attention=True, dense=True))
26
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from moai_planner.domain.accelerator import Accelerator
from moai_planner.domain.layout import Engine, Layout, capture_sizes
from moai_planner.domain.model import Attention, FeedForward, Model
from moai_planner.domain.precision import WIDE_FORMAT, Precision, multiplied_as
from moai_planner.domain.units import MICRO

GQA_KERNELS = 5
"""Norm, query-key-value product, rotary with cache write, attention, output product."""
SPLIT_GQA = (("sglang", "CDNA3"), ("sglang", "CDNA4"))
SPLIT_GQA_KERNELS = 8
"""Rotary, writes of keys and of values, attention and the sum of its parts apart (SGLang's AITER backend)."""
MLA_KERNELS = 13
"""Norm, down, latent norms, up, absorb, four for rotary and cache write, attention, expand, cast, output."""
FUSED_MLA = (("sglang", "CDNA4"), ("atom", "CDNA3"), ("atom", "CDNA4"))
FUSED_MLA_KERNELS = 11
"""Engines and architectures that join norms with quantisation, and rotary, concatenation and cache write in
one kernel: norm, down, latent norms, up, absorb, rotary and cache, attention and its sum, expand, flattening,
output, quantisation included (SGLang's `_use_aiter_gfx95`; ATOM's models)."""
SPLIT_MLA = (("sglang", "CDNA3"),)
SPLIT_MLA_KERNELS = 23
"""Those that take the other branch there: norm, quantisation, down, two latent norms, quantisation, up;
absorbed weights widened and scaled anew in each step and their product; rotary of queries and of keys, two
concatenations, cache write, attention and its sum; the same three for the expansion, flattening,
quantisation, output. SGLang pull requests 18242 and 22938 join some of it: runs are 11 to 23 % shorter."""
INDEXER_KERNELS, JOINED_INDEXER_KERNELS = 14, 9
"""Query, key and weight products, key norm, rotary, Hadamard and quantisation of both, cache write, weight
scale, scores, top-k. TensorRT-LLM joins key and weight products, and rotary and quantisation."""
JOINING_ENGINES = ("trtllm",)
"""They also skip the indexer's kernels while sequences are no longer than its top-k
(`skip_indexer_for_short_seqs`)."""
LINEAR_KERNELS = 8
"""Norm, in product, convolution, gates, recurrence, norm, gate, output product."""
DENSE_KERNELS = 4
"""Norm, gate-up product, activation, down product."""
EXPERT_KERNELS = 10
"""Norm, router and the sum of its parts, scores, top-k, sort, grouped gate-up, activation, grouped down,
weighted sum."""
SHARED_EXPERT_KERNELS = 3
HYPER_KERNELS = 30
"""Of a layer with hyper-connections: norm, mixing weights, Sinkhorn, sum and spread around both blocks, and
the compressor of its KV, as in DeepSeek V4's reference code."""
QUANTISE_KERNELS, MLA_QUANTISE_KERNELS = 1, 2
TAIL_KERNELS = 4
"""Embedding, last norm, head, sampling."""


@dataclass(frozen=True)
class Narrow:
    """Parts of a model whose products take quantised activations."""

    attention: bool = False
    dense: bool = False
    experts: bool = False


WIDE = Narrow()
VLLM = Engine("vllm")
PIECEWISE_ENGINES = ("vllm", "moreh-vllm")
"""Engines that replay the pieces between attention also in steps with prompt tokens (vLLM's
FULL_AND_PIECEWISE mode); others launch such steps kernel by kernel."""


def captured_tokens(engine: Engine) -> float:
    """Rows up to which a step with prompt tokens replays captured pieces; 0 = it is always launched.

    >>> captured_tokens(Engine(name="vllm")), captured_tokens(Engine(name="sglang"))
    (512.0, 0.0)
    """
    if not engine.graphs or engine.name not in PIECEWISE_ENGINES:
        return 0.0
    return float(max(capture_sizes(engine.max_num_seqs)))


PADDING_ENGINES = ("moreh-vllm",)
"""Engines whose data-parallel ranks run every step with as many rows as the fullest (vLLM with graphs, until
its pull request 34102 of February 2026); in others a rank without a prompt brings few to the experts."""


def pads_ranks(engine: Engine) -> bool:
    """Whether a prompt on one data-parallel rank costs what a prompt on every rank does."""
    return engine.graphs and engine.name in PADDING_ENGINES


CHUNKED_EXPERTS = ("moreh-vllm",)
EXPERT_CHUNK_TOKENS, PROMPT_CHUNK_TOKENS = 256, 4096
"""Engines whose experts on data-parallel ranks exchange through buffers of so many rows of a rank, or of as
many as it decodes sequences (vLLM's low-latency exchanges, `VLLM_MOE_DP_CHUNK_SIZE`, 256 by default); on
instances set up for prompts alone of 4096 (the engine's published presets)."""


def expert_chunk_tokens(engine: Engine, layout: Layout) -> float:
    """Rows of a rank that go through the experts at once.

    >>> spread = Layout(dp=8, ep=8)
    >>> expert_chunk_tokens(Engine("moreh-vllm"), spread), expert_chunk_tokens(Engine("vllm"), spread)
    (256.0, inf)

    >>> expert_chunk_tokens(Engine("moreh-vllm", prompts_only=True), spread)
    4096.0
    """
    if engine.name not in CHUNKED_EXPERTS or layout.dp == 1 or layout.ep == 1:
        return math.inf
    if engine.prompts_only:
        return float(PROMPT_CHUNK_TOKENS)
    return float(max(EXPERT_CHUNK_TOKENS, engine.max_num_seqs))


EXPERT_TILE = {"CDNA3": 256}
"""Architecture → what the inner width of 8-bit experts must be a multiple of for their fused kernel (AITER's
`fmoe_fp8_blockscale_g1u1`: EmbeddedLLM/vllm issue 53). Slices of other widths run apart from it."""
UNTILED_EXPERTS_S = 140.0 * MICRO
"""What a layer of such slices takes longer, whatever the rows: MiniMax-M2.5 on MI300X under vLLM, 19.4 ms a
token over four devices (slices of 384) and 14.8 over two (768); 106 to 174 µs a layer between 4 and 64 in
flight (calibration rows)."""


def untiled_experts_s(architecture: str, number_format: str, width: float) -> float:
    """Time of a layer of experts that depends on the width of their slices alone.

    >>> untiled_experts_s("CDNA3", "fp8", 384.0), untiled_experts_s("CDNA3", "fp8", 768.0)
    (0.00014, 0.0)
    >>> untiled_experts_s("CDNA4", "fp8", 384.0), untiled_experts_s("CDNA3", "bf16", 384.0)
    (0.0, 0.0)
    """
    tile = EXPERT_TILE.get(architecture)
    return UNTILED_EXPERTS_S if tile and number_format == "fp8" and width % tile else 0.0


PROMPT_LAYER_S = 9.5e-3
"""What a layer of such experts takes beside its tokens in a step with more prompt tokens than captured
pieces: stalls (p99 between tokens) of published calibration rows last 1.00 s for a 1,024-token prompt and
4.00 s for an 8,192-token one, a line that starts at 0.57 s; without the 0.02 s of weights and launches that
is 0.55 s over 58 layers. What takes it is not known."""


def prompt_step_s(engine: Engine, layout: Layout, expert_layers: float) -> float:
    """Time of a step with prompt tokens that does not depend on them.

    >>> round(prompt_step_s(Engine("moreh-vllm"), Layout(dp=8, ep=8), 58), 3)
    0.551
    >>> prompt_step_s(Engine("vllm"), Layout(dp=8, ep=8), 58)
    0.0
    """
    in_small_chunks = not engine.prompts_only and math.isfinite(expert_chunk_tokens(engine, layout))
    return in_small_chunks * PROMPT_LAYER_S * expert_layers


def kernels(model: Model, narrow: Narrow = WIDE, engine: Engine = VLLM, architecture: str = "") -> int:
    """Kernels of one whole pass, collectives left out.

    Products of `narrow` parts quantise their activations: one kernel a block is left after the norm and the
    activation before a product are fused with it, two in latent attention.
    """
    attention = sum(
        part.layers * _attention_kernels(part, narrow, engine, architecture) for part in model.attention
    )
    feed_forward = sum(part.layers * _feed_forward_kernels(part, narrow) for part in model.feed_forward)
    hyper = model.layers * HYPER_KERNELS if model.residual_streams > 1 else 0
    return attention + feed_forward + hyper + TAIL_KERNELS


def narrow_parts(accelerator: Accelerator, precision: Precision) -> Narrow:
    """Which parts multiply 8- or 4-bit activations: those whose format the device's matrix units take."""
    peaks = accelerator.peak_flop_per_s
    return Narrow(
        *(
            multiplied_as(weights) in peaks and multiplied_as(weights) != WIDE_FORMAT
            for weights in (
                precision.attention_weights,
                precision.feed_forward_weights,
                precision.expert_weights,
            )
        )
    )


def _indexer_kernels(part: Attention, engine: Engine) -> int:
    if not part.index_heads:
        return 0
    if engine.name not in JOINING_ENGINES:
        return INDEXER_KERNELS
    longest = engine.max_model_len - 1  # the last token is never read
    return JOINED_INDEXER_KERNELS if longest > part.sparse_top_k_tokens else 0


def _attention_kernels(part: Attention, narrow: Narrow, engine: Engine, architecture: str) -> int:
    where = (engine.name, architecture)
    if part.kind == "mla":
        return _latent_kernels(narrow, where) + _indexer_kernels(part, engine)
    if part.kind == "linear":
        return LINEAR_KERNELS + narrow.attention * QUANTISE_KERNELS
    own = SPLIT_GQA_KERNELS if where in SPLIT_GQA else GQA_KERNELS
    return own + narrow.attention * QUANTISE_KERNELS


def _latent_kernels(narrow: Narrow, where: tuple[str, str]) -> int:
    if where in FUSED_MLA:
        return FUSED_MLA_KERNELS
    if where in SPLIT_MLA and narrow.attention:
        return SPLIT_MLA_KERNELS
    return MLA_KERNELS + narrow.attention * MLA_QUANTISE_KERNELS


def _feed_forward_kernels(part: FeedForward, narrow: Narrow) -> int:
    if not part.experts:
        return DENSE_KERNELS + narrow.dense * QUANTISE_KERNELS
    shared = SHARED_EXPERT_KERNELS if part.shared_intermediate_size else 0
    return EXPERT_KERNELS + shared + narrow.experts * QUANTISE_KERNELS
