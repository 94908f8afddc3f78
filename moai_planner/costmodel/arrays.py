"""Configurations as columns: what a pass through the model works on, before any efficiency.

`work_of` reads one configuration into numbers, `stack` puts many side by side, `columns` does both.
Parameters travel beside them as columns of the same length, so a fit changes only those.

Every number is of one tensor rank and one whole pass through all pipeline stages. With uneven stages
the fullest one sets the pace, so counts are those of pp stages as full as it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from moai_planner.costmodel import flop, launch, narrow_kv, weights
from moai_planner.costmodel.comm import Traffic, traffic
from moai_planner.costmodel.configuration import Configuration
from moai_planner.costmodel.formats import as_stored
from moai_planner.domain.model import FeedForward
from moai_planner.domain.parameters import NAMES, Parameters
from moai_planner.domain.precision import bytes_per_element, multiplied_as

Column = float | np.ndarray


@dataclass(frozen=True, eq=False)
class Work:
    """Loads of one configuration (floats), or of many ([C, 1] columns)."""

    projection_parameters: Column
    projection_bytes: Column
    projection_flop_per_s: Column
    dense_parameters: Column
    "Dense MLPs and shared experts."
    dense_bytes: Column
    dense_flop_per_s: Column
    router_parameters: Column
    router_bytes: Column
    head_parameters: Column
    head_bytes: Column
    expert_layers: Column
    "0 for a dense model."
    experts: Column
    "Routed experts of a layer."
    experts_per_rank: Column
    experts_per_token: Column
    expert_parameters: Column
    "Of the slice of one expert that a rank holds."
    expert_width: Column
    "Inner width of that slice."
    expert_bytes: Column
    expert_flop_per_s: Column
    expert_start_s: Column
    "Of one pass through the experts of all layers, beside their products."
    expert_chunk_tokens: Column
    "Rows of a rank that experts take at once; more rows go through them in several passes."
    group_ranks: Column
    "Data-parallel ranks whose tokens meet in the experts."
    expert_ranks: Column
    "Ranks that hold different whole experts."
    element_bytes_per_token: Column
    "Activations read and written between products."
    kv_bytes_per_token: Column
    "Read by decode attention per context token: layers that see it all, and the indexer."
    window_bytes_per_token: Column
    "The same of layers that see at most `window_tokens`."
    window_tokens: Column
    per_token_attention: Column
    "1 where attention pays for each context token beside its roofline; 0 where all of it is MLA."
    state_bytes: Column
    "Recurrent state read and written per sequence and step."
    kv_flop_per_token: Column
    window_flop_per_token: Column
    pair_flop: Column
    "Prompt attention per token pair, layers that see the whole context."
    pair_flop_per_s: Column
    "What it multiplies at."
    window_pair_flop: Column
    state_flop: Column
    "Linear attention per token."
    bf16_flop_per_s: Column
    kv_flop_per_s: Column
    "What decode attention multiplies at."
    memory_bytes_per_s: Column
    kernels: Column
    reduce_hops: Column
    reduce_network_hops: Column
    reduce_s_per_token: Column
    "At the link's full rate."
    one_shot_tokens: Column
    "Tokens up to which every rank reads what it sums from all others at once."
    one_shot_s_per_token: Column
    quick_tokens: Column
    "Tokens up to which sums are not quantised."
    quick_s_per_token: Column
    quick_packing_s_per_token: Column
    reduce_network_s_per_token: Column
    gather_s_per_row: Column
    exchange_latencies: Column
    "Dispatches and combines of a pass, in latencies over eight ranks."
    exchange_network_hops: Column
    "The same times the doublings of the nodes that they cross."
    exchange_s_per_token: Column
    exchange_network_s_per_token: Column
    sends: Column
    send_network_share: Column
    send_s_per_token: Column
    send_network_s_per_token: Column
    asynchronous: Column
    "1 = the engine schedules the next step while this one runs."
    captured_tokens: Column
    "Rows up to which a step with prompt tokens replays captured pieces."
    prompt_step_s: Column
    "Added to a step of more prompt tokens than that, whatever their number."


WORK_FIELDS = tuple(field.name for field in fields(Work))


def work_of(c: Configuration) -> Work:
    """Read one configuration into numbers."""
    model, layout, accelerator = c.model, c.layout, c.accelerator
    precision = as_stored(model, c.precision)
    hidden, tp = model.hidden_size, layout.tp
    fullest = -(-model.layers // layout.pp) * layout.pp / model.layers
    bf16 = bytes_per_element("bf16")
    projections = fullest * sum(
        p.layers * weights.attention_weights(hidden, p).per_rank(tp, p.kv_heads) for p in model.attention
    )
    dense = fullest * sum(_dense_parameters(hidden, p) * p.layers for p in model.feed_forward) / tp
    router = fullest * sum(p.layers * weights.router_parameters(hidden, p) for p in model.feed_forward)
    head = weights.embedding_parameters(model) / tp
    expert = _expert_work(c, fullest)
    attention = flop.attention_work(c, fullest)
    network = traffic(c, fullest)
    return Work(
        projection_parameters=projections,
        projection_bytes=projections * bytes_per_element(precision.attention_weights),
        projection_flop_per_s=accelerator.flop_per_s(multiplied_as(precision.attention_weights)),
        dense_parameters=dense,
        dense_bytes=dense * bytes_per_element(precision.feed_forward_weights),
        dense_flop_per_s=accelerator.flop_per_s(multiplied_as(precision.feed_forward_weights)),
        router_parameters=router,
        router_bytes=router * bf16,
        head_parameters=head,
        head_bytes=head * bytes_per_element(precision.embedding_weights),
        per_token_attention=float(any(part.kind != "mla" for part in model.attention)),
        element_bytes_per_token=fullest * flop.element_bytes_per_token(model, tp),
        bf16_flop_per_s=accelerator.flop_per_s("bf16"),
        kv_flop_per_s=accelerator.flop_per_s(
            narrow_kv.attention_format(accelerator.architecture, precision.kv)
        ),
        pair_flop_per_s=_prompt_flop_per_s(c, {part.kind for part in model.attention}, precision.kv),
        memory_bytes_per_s=accelerator.memory_bandwidth_bytes_per_s,
        kernels=fullest
        * launch.kernels(
            model, launch.narrow_parts(accelerator, precision), c.engine, accelerator.architecture
        ),
        asynchronous=float(c.engine.async_scheduling),
        captured_tokens=launch.captured_tokens(c.engine),
        prompt_step_s=launch.prompt_step_s(c.engine, layout, expert["expert_layers"]),
        **expert,
        **attention,
        **_traffic_fields(network),
    )


def _prompt_flop_per_s(c: Configuration, kinds: set[str], kv: str) -> float:
    """Of the slowest kind of attention in the model; bf16 where it has none."""
    used = (narrow_kv.prompt_format(c.accelerator.architecture, kind, kv, c.engine.name) for kind in kinds)
    return min(map(c.accelerator.flop_per_s, used), default=c.accelerator.flop_per_s("bf16"))


def _traffic_fields(network: Traffic) -> dict[str, float]:
    return {field.name: getattr(network, field.name) for field in fields(Traffic)}


def _dense_parameters(hidden: int, part: FeedForward) -> float:
    if part.experts:
        return weights.shared_expert_parameters(hidden, part)
    return weights.expert_parameters(hidden, part)


def _expert_work(c: Configuration, fullest: float) -> dict[str, float]:
    """Routed experts; several expert widths in one model count as one of their mean."""
    parts = [part for part in c.model.feed_forward if part.experts]
    layout, number_format = c.layout, c.precision.expert_weights
    layers = sum(part.layers for part in parts)
    experts = max((part.experts for part in parts), default=1)
    ranks = max(1, min(layout.ep, layout.tp * layout.dp))
    one = sum(p.layers * weights.expert_parameters(c.model.hidden_size, p) for p in parts) / max(layers, 1)
    slice_parameters = one * ranks / (layout.tp * layout.dp)
    width = sum(p.layers * p.intermediate_size for p in parts) / layers if parts else 1.0
    width *= ranks / (layout.tp * layout.dp)
    untiled_s = launch.untiled_experts_s(c.accelerator.architecture, number_format, width)
    return {
        "expert_layers": fullest * layers,
        "experts": experts,
        "experts_per_rank": experts / ranks,
        "experts_per_token": max((part.experts_per_token for part in parts), default=1),
        "expert_parameters": slice_parameters,
        "expert_width": width,
        "expert_bytes": slice_parameters * bytes_per_element(number_format),
        "expert_flop_per_s": c.accelerator.flop_per_s(multiplied_as(number_format)),
        "expert_start_s": fullest * layers * untiled_s,
        "expert_chunk_tokens": launch.expert_chunk_tokens(c.engine, layout),
        "group_ranks": float(layout.dp if parts else 1),
        "expert_ranks": float(ranks),
    }


def stack(works: Sequence[Work]) -> Work:
    """Many configurations side by side: every field a [C, 1] column."""
    table = np.array([[getattr(work, name) for name in WORK_FIELDS] for work in works], dtype=float)
    return Work(*(np.ascontiguousarray(table[:, i : i + 1]) for i in range(len(WORK_FIELDS))))


def columns(configurations: Sequence[Configuration]) -> tuple[Work, Parameters]:
    """Configurations → their loads and their parameters, [C, 1] columns each."""
    return stack([work_of(c) for c in configurations]), parameter_columns(
        [c.parameters for c in configurations]
    )


def parameter_columns(parameters: Sequence[Parameters]) -> Parameters:
    """Many parameter sets side by side; basis and interval are those of the first."""
    table = np.array([[getattr(one, name) for name in NAMES] for one in parameters], dtype=float)
    values = {name: np.ascontiguousarray(table[:, i : i + 1]) for i, name in enumerate(NAMES)}
    return Parameters(**values)


def rows(work: Work, start: int, stop: int) -> Work:
    """Some of the configurations, for work in pieces that stay in cache."""
    return Work(*(getattr(work, name)[start:stop] for name in WORK_FIELDS))


def parameter_rows(parameters: Parameters, start: int, stop: int) -> Parameters:
    """The matching parameter columns."""
    return Parameters(**{name: getattr(parameters, name)[start:stop] for name in NAMES})
