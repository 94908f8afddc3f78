"""How many weights a model has, by what they are for. [elements, unless the name says bytes]

A product of `p` weights costs 2·p flop a token and streams p·bytes: these counts are the one place where
a layer's shapes are multiplied out; memory and time both read them.

>>> mlp = FeedForward(layers=1, intermediate_size=28672)
>>> from moai_planner.domain.units import MEGA
>>> expert_parameters(8192, mlp) / MEGA  # three matrices of 8192 x 28672  # doctest: +ELLIPSIS
704.6...
"""

from __future__ import annotations

from dataclasses import dataclass

from moai_planner.costmodel.formats import as_stored
from moai_planner.domain.model import Attention, FeedForward, Model
from moai_planner.domain.precision import Precision, bytes_per_element


@dataclass(frozen=True)
class Split:
    """Weights of one layer's attention: split over tensor ranks, by KV head, or copied to each rank."""

    split: float
    by_kv_head: float
    copied: float

    @property
    def total(self) -> float:
        return self.split + self.by_kv_head + self.copied

    def per_rank(self, tp: int, kv_heads: int) -> float:
        """Of one of `tp` ranks; KV heads are copied when there are more ranks than heads."""
        return self.split / tp + self.by_kv_head * kv_heads_per_rank(kv_heads, tp) / kv_heads + self.copied


def kv_heads_per_rank(kv_heads: int, tp: int) -> int:
    """KV heads of one tensor rank: ⌈heads / tp⌉, at least one.

    >>> kv_heads_per_rank(8, 4), kv_heads_per_rank(8, 16), kv_heads_per_rank(2, 8)
    (2, 1, 1)
    """
    return max(1, -(-kv_heads // tp))


def attention_weights(hidden_size: int, part: Attention) -> Split:
    """Projections of one layer. MLA: DeepSeek-V2 report, section 2.1; sparse indexer: V3.2 report."""
    if part.kind == "mla":
        return _mla_weights(hidden_size, part)
    if part.kind == "linear" and part.projection_parameters:
        return Split(split=part.projection_parameters, by_kv_head=0, copied=0)
    queries = hidden_size * part.query_heads * part.head_size * (2 if part.gated_output else 1)
    outputs = part.query_heads * part.value_head_size * hidden_size
    keys_values = hidden_size * part.kv_heads * (part.head_size + part.value_head_size)
    return Split(split=queries + outputs, by_kv_head=keys_values, copied=0)


def _mla_weights(hidden_size: int, part: Attention) -> Split:
    nope = part.head_size - part.qk_rope_head_size
    query_input = part.q_lora_rank or hidden_size
    split = (
        query_input * part.query_heads * part.head_size
        + part.kv_lora_rank * part.query_heads * (nope + part.value_head_size)
        + part.query_heads * part.value_head_size * hidden_size
    )
    copied = hidden_size * (part.q_lora_rank + part.kv_lora_rank + part.qk_rope_head_size)
    indexer = part.index_head_size * (part.index_heads * query_input + hidden_size)
    return Split(split=split, by_kv_head=0, copied=copied + indexer + hidden_size * part.index_heads)


def expert_parameters(hidden_size: int, part: FeedForward) -> float:
    """One dense MLP, or one routed expert."""
    return part.matrices * hidden_size * part.intermediate_size


def shared_expert_parameters(hidden_size: int, part: FeedForward) -> float:
    """All shared experts of one layer together."""
    return part.shared_matrices * hidden_size * part.shared_intermediate_size


def router_parameters(hidden_size: int, part: FeedForward) -> float:
    """Logits of the routed experts of one layer."""
    return hidden_size * part.experts


def embedding_parameters(model: Model) -> float:
    """One vocabulary matrix: the input embedding, or the output head."""
    return model.vocabulary_size * model.hidden_size


def total_parameters(model: Model, mtp: bool = False) -> float:
    """All weights of the checkpoint; `mtp` adds the multi-token-prediction layers it ships."""
    return sum(count for _, count in _counts(model, mtp, _FORMAT_FREE))


def checkpoint_bytes(model: Model, precision: Precision, mtp: bool = False) -> float:
    """Bytes of all weights as published in `precision`: embeddings and head in their own format.

    Norms, biases and the router stay in bf16.
    """
    return sum(
        count * bytes_per_element(kind) for kind, count in _counts(model, mtp, as_stored(model, precision))
    )


_FORMAT_FREE = Precision("none", "bf16", "bf16", "bf16")


def _counts(model: Model, mtp: bool, precision: Precision) -> list[tuple[str, float]]:
    """(number format, elements) of every part of the model."""
    hidden = model.hidden_size
    counts = [
        (precision.embedding_weights, embedding_parameters(model) * (1 if model.tied_embeddings else 2))
    ]
    for part in model.attention:
        counts.append((precision.attention_weights, part.layers * attention_weights(hidden, part).total))
        counts.append(("bf16", part.layers * attention_bias_parameters(model, part)))
    for part in model.feed_forward:
        counts.extend(_feed_forward_counts(hidden, part, part.layers, precision))
    counts.append(("bf16", (2 * model.layers + 1) * hidden))
    if mtp and model.mtp_layers:
        counts.extend(_mtp_counts(model, precision))
    return counts


def _feed_forward_counts(hidden: int, part: FeedForward, layers: int, precision: Precision):
    if not part.experts:
        return [(precision.feed_forward_weights, layers * expert_parameters(hidden, part))]
    return [
        (precision.expert_weights, layers * part.experts * expert_parameters(hidden, part)),
        (precision.feed_forward_weights, layers * shared_expert_parameters(hidden, part)),
        ("bf16", layers * router_parameters(hidden, part)),
    ]


def _mtp_counts(model: Model, precision: Precision):
    """A prediction layer is a copy of the last layer, a 2·hidden → hidden product, and its own
    vocabulary matrices (DeepSeek-V3 report, section 2.2; its checkpoint stores both)."""
    hidden, attention, feed_forward = model.hidden_size, model.attention[-1], model.feed_forward[-1]
    one_layer = [
        (precision.attention_weights, attention_weights(hidden, attention).total),
        *_feed_forward_counts(hidden, feed_forward, 1, precision),
        ("bf16", 2 * hidden * hidden),
        (precision.embedding_weights, 2 * embedding_parameters(model)),
    ]
    return [(kind, model.mtp_layers * count) for kind, count in one_layer]


def attention_bias_parameters(model: Model, part: Attention) -> float:
    """Biases of the query, key and value projections of one layer."""
    if not model.attention_bias or part.kind == "mla":
        return 0.0
    return part.query_heads * part.head_size + part.kv_heads * (part.head_size + part.value_head_size)
