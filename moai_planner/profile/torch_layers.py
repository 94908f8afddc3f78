"""Layers of a model as PyTorch's own operators: the same shapes as an engine's, none of its kernels.

    attention(bench, part) → Stack       norm, projections, rope, attention over KV, output, residual
    feed_forward(bench, part) → Stack    norm, gated products or routed experts, residual
    ends(bench) → Stack                  embedding, last norm, logits of the sampled rows, argmax

A stack holds a few layers with weights and KV of their own, so that none of them stays in a cache, and stands
for all layers of its form. `prepare(shape)` allocates a step's inputs and returns the work to time.

Stand-ins, where torch lacks what engines have: prompt chunks on cached context attend in two calls (context,
then themselves); a window is the block of the prompt and the one before; experts multiply as one batch of
equally many rows each (fp8: one product after the other); MLA decode is plain batched products on the latent.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from moai_planner.domain.measured import StepShape
from moai_planner.domain.model import Attention, FeedForward, Model
from moai_planner.domain.units import MEBI
from moai_planner.profile.features import experts_touched, projection_weights

Work = Callable[[], Any]
Layer = Callable[[Any], Any]

_TIMED_BYTES = 256 * MEBI
"Weights of the layers timed: more than caches hold."
_FEWEST_LAYERS = 2
_ALIGNED = 16
"Rows, and inner sizes, that fp8 products come in."


@dataclass(frozen=True)
class Bench:
    """What every layer needs to know."""

    torch: Any
    place: str
    "`cpu` or `cuda`."
    model: Model
    fp8: bool
    "Weights of layers in 8 bits; embedding and logits stay in bf16."
    kv_tokens: int
    "Of one sequence or a batch together: what a layer's KV buffer holds."

    def tensor(self, *sizes: int) -> Any:
        """Random values of the size that activations and weights have."""
        torch = self.torch
        made = torch.empty(sizes, dtype=torch.bfloat16, device=self.place)
        flat = made.view(-1)
        pattern = torch.randn(min(flat.numel(), 1 << 20), device=self.place).mul_(0.05).to(made.dtype)
        for start in range(0, flat.numel(), pattern.numel()):
            piece = flat[start : start + pattern.numel()]
            piece.copy_(pattern[: piece.numel()])
        return made


@dataclass(frozen=True)
class Stack:
    """Layers of one form: `copies` of them are timed and stand for `layers`."""

    layers: int
    copies: int
    prepare: Callable[[StepShape], Work]


def copies(layers: int, layer_bytes: float) -> int:
    """As many layers as do not fit a cache together, at least two, at most all.

    >>> copies(12, 12 * MEBI), copies(80, 800 * MEBI), copies(1, 1)
    (12, 2, 1)
    """
    return min(layers, max(_FEWEST_LAYERS, math.ceil(_TIMED_BYTES / max(1.0, layer_bytes))))


def attention_bytes(model: Model, part: Attention, fp8: bool) -> float:
    """Weights of one attention layer."""
    return projection_weights(model, part) * (1 if fp8 else 2)


def feed_forward_bytes(model: Model, part: FeedForward, fp8: bool) -> float:
    """Weights of one feed-forward layer, all its experts."""
    own = part.matrices * part.intermediate_size * max(1, part.experts)
    return (
        model.hidden_size * (own + part.shared_matrices * part.shared_intermediate_size) * (1 if fp8 else 2)
    )


def kv_elements(part: Attention) -> int:
    """KV of one token in one layer."""
    if part.kind == "mla":
        return part.kv_lora_rank + part.qk_rope_head_size
    return part.kv_heads * (part.head_size + part.value_head_size)


def attention(bench: Bench, part: Attention) -> Stack:
    """All layers of one attention form."""
    count = copies(part.layers, attention_bytes(bench.model, part, bench.fp8))
    make = _latent_layer if part.kind == "mla" else _grouped_layer
    layers = [make(bench, part) for _ in range(count)]
    return Stack(part.layers, count, lambda shape: _through(bench, shape, [one(shape) for one in layers]))


def feed_forward(bench: Bench, part: FeedForward) -> Stack:
    """All layers of one feed-forward form."""
    count = copies(part.layers, feed_forward_bytes(bench.model, part, bench.fp8))
    make = _expert_layer if part.experts else _dense_layer
    layers = [make(bench, part) for _ in range(count)]
    return Stack(part.layers, count, lambda shape: _through(bench, shape, [one(shape) for one in layers]))


def ends(bench: Bench) -> Stack:
    """What happens once a step: embedding of all rows; norm, logits and choice of the sampled ones."""
    torch, hidden = bench.torch, bench.model.hidden_size
    embedding = bench.tensor(bench.model.vocabulary_size, hidden)
    head = bench.tensor(bench.model.vocabulary_size, hidden)
    scale = bench.tensor(hidden)

    def prepare(shape: StepShape) -> Work:
        tokens = torch.arange(shape.step_tokens, device=bench.place) % bench.model.vocabulary_size
        sampled = shape.batch + (shape.tokens > 0)

        def work() -> Any:
            rows = torch.nn.functional.embedding(tokens, embedding)[-sampled:]
            rows = torch.nn.functional.rms_norm(rows, (hidden,), scale)
            return torch.nn.functional.linear(rows, head).float().argmax(-1)

        return work

    return Stack(1, 1, prepare)


def product(bench: Bench, inputs: int, outputs: int) -> Layer:
    """rows [n, inputs] → [n, outputs] with weights of its own, in the format of the layers."""
    torch = bench.torch
    if not bench.fp8 or inputs % _ALIGNED or outputs % _ALIGNED:
        weight = bench.tensor(outputs, inputs)
        return lambda rows: torch.nn.functional.linear(rows, weight)
    narrow = bench.tensor(outputs, inputs).to(torch.float8_e4m3fn).t()
    one = torch.ones((), device=bench.place)

    def multiply(rows: Any) -> Any:
        quantised = rows.to(torch.float8_e4m3fn)
        return torch._scaled_mm(quantised, narrow, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)

    return multiply


def _through(bench: Bench, shape: StepShape, layers: list[Layer]) -> Work:
    rows = bench.tensor(shape.step_tokens, bench.model.hidden_size)

    def work() -> Any:
        state = rows
        for layer in layers:
            state = layer(state)
        return state

    return work


def _rotated(torch: Any, heads: Any, cos: Any, sin: Any) -> Any:
    """Rotary embedding of [rows, heads, size]."""
    first, second = heads.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def _angles(bench: Bench, rows: int, size: int) -> tuple[Any, Any]:
    return bench.tensor(rows, 1, size // 2), bench.tensor(rows, 1, size // 2)


def _attend_prompt(bench: Bench, query: Any, key: Any, value: Any, cached: Any, window: int) -> Any:
    """query, key, value [tokens, heads, size]; cached (keys, values) [1, kv heads, context, size] or None."""
    torch = bench.torch
    attend = torch.nn.functional.scaled_dot_product_attention
    tokens = query.shape[0]
    blocks = -(-tokens // window) if window and tokens > window else 1
    if blocks > 1:
        query, key, value = (_in_blocks(torch, one, blocks, window) for one in (query, key, value))
    else:
        query, key, value = (one.unsqueeze(0) for one in (query, key, value))
    query, key, value = (one.transpose(1, 2) for one in (query, key, value))
    grouped = query.shape[1] != key.shape[1]
    own = attend(query, key, value, is_causal=True, enable_gqa=grouped)
    if blocks > 1:  # the window reaches into the block before
        before = attend(query[1:], key[:-1], value[:-1], enable_gqa=grouped)
        own = torch.cat((own[:1], own[1:].lerp(before, 0.5)))
    if cached is not None:
        own = own.lerp(attend(query, *cached, enable_gqa=query.shape[1] != cached[0].shape[1]), 0.5)
    return own.transpose(1, 2).reshape(-1, own.shape[1], own.shape[-1])[:tokens]


def _in_blocks(torch: Any, rows: Any, blocks: int, window: int) -> Any:
    missing = blocks * window - rows.shape[0]
    return torch.nn.functional.pad(rows, (0, 0, 0, 0, 0, missing)).view(blocks, window, *rows.shape[1:])


def _grouped_layer(bench: Bench, part: Attention) -> Callable[[StepShape], Layer]:
    """Multi-head and grouped-query attention."""
    torch, hidden = bench.torch, bench.model.hidden_size
    heads, kv_heads, size, wide = part.query_heads, part.kv_heads, part.head_size, part.value_head_size
    splits = (heads * size, kv_heads * size, kv_heads * wide)
    into = product(bench, hidden, sum(splits))
    gate = product(bench, hidden, heads * wide) if part.gated_output else None
    out = product(bench, heads * wide, hidden)
    scale = bench.tensor(hidden)
    keys = bench.tensor(bench.kv_tokens * kv_heads * size)
    values = bench.tensor(bench.kv_tokens * kv_heads * wide)
    window = part.window_tokens

    def for_shape(shape: StepShape) -> Layer:
        prompt, batch = shape.tokens, shape.batch
        reach = min(shape.context_tokens, window) if window else shape.context_tokens
        cos, sin = _angles(bench, shape.step_tokens, size)
        sequences = batch or 1

        def cache(flat: Any, width: int) -> Any:
            return flat[: sequences * kv_heads * reach * width].view(sequences, kv_heads, reach, width)

        held = (cache(keys, size), cache(values, wide)) if reach else None

        def layer(rows: Any) -> Any:
            normed = torch.nn.functional.rms_norm(rows, (hidden,), scale)
            query, key, value = into(normed).split(splits, dim=-1)
            query = _rotated(torch, query.view(-1, heads, size), cos, sin)
            key = _rotated(torch, key.view(-1, kv_heads, size), cos, sin)
            value = value.view(-1, kv_heads, wide)
            found = []
            if prompt:
                keys[: key[:prompt].numel()].copy_(key[:prompt].reshape(-1))
                values[: value[:prompt].numel()].copy_(value[:prompt].reshape(-1))
                cached = held if not batch else None
                own = (query[:prompt], key[:prompt], value[:prompt])
                found.append(_attend_prompt(bench, *own, cached, window))
            if batch:
                held[0][:, :, -1].copy_(key[prompt:])
                held[1][:, :, -1].copy_(value[prompt:])
                # the heads that share keys are rows of one product
                groups = query[prompt:].reshape(batch, kv_heads, heads // kv_heads, size)
                attended = torch.nn.functional.scaled_dot_product_attention(groups, *held)
                found.append(attended.reshape(batch, heads, wide))
            mixed = torch.cat(found).reshape(-1, heads * wide) if len(found) > 1 else found[0].flatten(1)
            if gate is not None:
                mixed = mixed * gate(normed).sigmoid()
            return rows + out(mixed)

        return layer

    return for_shape


def _latent_layer(bench: Bench, part: Attention) -> Callable[[StepShape], Layer]:
    """Multi-head latent attention: prompts unpack the latent, decode works on the latent itself."""
    torch, hidden = bench.torch, bench.model.hidden_size
    heads, size, wide = part.query_heads, part.head_size, part.value_head_size
    rank, rope = part.kv_lora_rank, part.qk_rope_head_size
    plain = size - rope
    down = product(bench, hidden, part.q_lora_rank) if part.q_lora_rank else None
    to_query = product(bench, part.q_lora_rank or hidden, heads * size)
    to_latent = product(bench, hidden, rank + rope)
    unpack = product(bench, rank, heads * (plain + wide))
    absorb, expand = bench.tensor(heads, plain, rank), bench.tensor(heads, rank, wide)
    out = product(bench, heads * wide, hidden)
    scale, latent_scale = bench.tensor(hidden), bench.tensor(rank)
    query_scale = bench.tensor(part.q_lora_rank or 1)
    cache = bench.tensor(bench.kv_tokens * (rank + rope))
    normalise = torch.nn.functional.rms_norm

    def unpacked(latent: Any) -> tuple[Any, Any]:
        """[tokens, rank + rope] → keys, values [tokens, heads, size], values padded to the keys' size."""
        both = unpack(latent[:, :rank].contiguous()).view(-1, heads, plain + wide)
        turned = latent[:, None, rank:].expand(-1, heads, rope)
        key = torch.cat((both[..., :plain], turned), dim=-1)
        return key, torch.nn.functional.pad(both[..., plain:], (0, size - wide))

    def for_shape(shape: StepShape) -> Layer:
        prompt, batch, context = shape.tokens, shape.batch, shape.context_tokens
        cos, sin = _angles(bench, shape.step_tokens, rope)
        held = cache[: max(1, batch) * context * (rank + rope)].view(max(1, batch), context, rank + rope)

        def layer(rows: Any) -> Any:
            normed = normalise(rows, (hidden,), scale)
            query = down(normed) if down else normed
            query = normalise(query, (part.q_lora_rank,), query_scale) if down else query
            query = to_query(query).view(-1, heads, size)
            turned = _rotated(torch, query[..., plain:], cos, sin)
            latent = to_latent(normed)
            key_rope = _rotated(torch, latent[:, None, rank:], cos, sin)[:, 0]
            latent = torch.cat((normalise(latent[:, :rank], (rank,), latent_scale), key_rope), dim=-1)
            found = []
            if prompt:
                cache[: latent[:prompt].numel()].copy_(latent[:prompt].reshape(-1))
                key, value = unpacked(latent[:prompt])
                whole = torch.cat((query[:prompt, :, :plain], turned[:prompt]), dim=-1)
                cached = None
                if context and not batch:
                    cached = tuple(one.unsqueeze(0).transpose(1, 2) for one in unpacked(held[0]))
                found.append(_attend_prompt(bench, whole, key, value, cached, 0)[..., :wide])
            if batch:
                held[:, -1].copy_(latent[prompt:])
                near = torch.bmm(query[prompt:, :, :plain].transpose(0, 1), absorb).transpose(0, 1)
                asked = torch.cat((near, turned[prompt:]), dim=-1)
                weights = torch.bmm(asked, held.transpose(1, 2)).float().softmax(-1).to(asked.dtype)
                gathered = torch.bmm(weights, held[..., :rank])
                found.append(torch.bmm(gathered.transpose(0, 1), expand).transpose(0, 1))
            return rows + out(torch.cat(found).reshape(-1, heads * wide))

        return layer

    return for_shape


def _activated(torch: Any, rows: Any, matrices: int) -> Any:
    if matrices < 3:
        return torch.nn.functional.gelu(rows)
    gate, up = rows.chunk(2, dim=-1)
    return torch.nn.functional.silu(gate) * up


def _dense_layer(bench: Bench, part: FeedForward) -> Callable[[StepShape], Layer]:
    torch, hidden = bench.torch, bench.model.hidden_size
    up = product(bench, hidden, part.intermediate_size * (part.matrices - 1))
    down = product(bench, part.intermediate_size, hidden)
    scale = bench.tensor(hidden)

    def layer(rows: Any) -> Any:
        normed = torch.nn.functional.rms_norm(rows, (hidden,), scale)
        return rows + down(_activated(torch, up(normed), part.matrices))

    return lambda shape: layer


def _expert_layer(bench: Bench, part: FeedForward) -> Callable[[StepShape], Layer]:
    """Router, experts touched by evenly spread rows, shared experts."""
    torch, hidden, width = bench.torch, bench.model.hidden_size, part.intermediate_size
    experts, each = part.experts, part.experts_per_token
    route = bench.tensor(experts, hidden)
    up = _expert_product(bench, experts, hidden, width * (part.matrices - 1))
    down = _expert_product(bench, experts, width, hidden)
    scale = bench.tensor(hidden)
    shared = None
    if part.shared_intermediate_size:
        shared_up = product(bench, hidden, part.shared_intermediate_size * (part.shared_matrices - 1))
        shared_down = product(bench, part.shared_intermediate_size, hidden)
        shared = (shared_up, shared_down)

    def for_shape(shape: StepShape) -> Layer:
        tokens = shape.step_tokens
        touched = max(1, min(experts, round(experts_touched(experts, each, tokens))))
        rows_each = -(-tokens * each // touched)
        chosen = torch.arange(touched * rows_each, device=bench.place) % tokens
        back = torch.arange(tokens * each, device=bench.place) % (touched * rows_each)

        def layer(rows: Any) -> Any:
            normed = torch.nn.functional.rms_norm(rows, (hidden,), scale)
            logits = torch.nn.functional.linear(normed, route).float().softmax(-1)
            weight = logits.topk(each, dim=-1).values.to(rows.dtype)
            spread = normed[chosen].view(touched, rows_each, hidden)
            found = down(_activated(torch, up(spread), part.matrices)).view(-1, hidden)
            summed = (found[back].view(tokens, each, hidden) * weight.unsqueeze(-1)).sum(1)
            if shared:
                summed = summed + shared[1](_activated(torch, shared[0](normed), part.shared_matrices))
            return rows + summed

        return layer

    return for_shape


def _expert_product(bench: Bench, experts: int, inputs: int, outputs: int) -> Layer:
    """[touched, rows, inputs] → [touched, rows, outputs], the first experts' weights."""
    torch = bench.torch
    if bench.fp8:
        ways = [product(bench, inputs, outputs) for _ in range(experts)]
        return lambda rows: torch.stack([way(one) for way, one in zip(ways, rows, strict=False)])
    weights = bench.tensor(experts, inputs, outputs)
    return lambda rows: torch.bmm(rows, weights[: rows.shape[0]])
