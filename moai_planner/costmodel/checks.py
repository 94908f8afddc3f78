"""Whether a layout can run a model at all, and a platform its number format: problems with remedies."""

from __future__ import annotations

from moai_planner.domain.errors import Problem
from moai_planner.domain.layout import Layout
from moai_planner.domain.model import Model
from moai_planner.domain.precision import PRECISIONS, Precision


def precision_problems(precision: Precision, platform: str, file: str, field: str) -> list[Problem]:
    """A format that no engine of the platform reads; empty where one does.

    >>> precision_problems(PRECISIONS["bfp8"], "cuda", "capacity.yaml", "precision")[0].value
    'bfp8'
    >>> precision_problems(PRECISIONS["bfp8"], "tt", "capacity.yaml", "precision")
    []
    """
    if precision.read_on(platform):
        return []
    others = ", ".join(name for name, one in PRECISIONS.items() if one.read_on(platform))
    remedy = f"engines of platform {platform} do not read it; take one of {others}"
    return [Problem(file, field, precision.id, remedy)]


def layout_problems(model: Model, layout: Layout, file: str = "layout") -> list[Problem]:
    """Everything that keeps an engine from splitting `model` this way; empty when it can."""
    problems = [
        Problem(file, degree, str(value), "give a whole number, 1 or more")
        for degree, value in vars(layout).items()
        if value < 1
    ]
    if problems:
        return problems
    return [
        *_tensor_problems(model, layout.tp, file),
        *_pipeline_problems(model, layout.pp, file),
        *_expert_problems(model, layout, file),
    ]


def _tensor_problems(model: Model, tp: int, file: str) -> list[Problem]:
    heads = sorted({part.query_heads for part in model.attention if part.kind != "linear"})
    uneven = [count for count in heads if count % tp]
    if uneven:
        possible = [n for n in range(1, max(heads) + 1) if all(count % n == 0 for count in heads)]
        shown = ", ".join(map(str, possible[:12]))
        return [
            Problem(file, "tp", str(tp), f"{model.id} has {uneven[0]} query heads; tp divides them: {shown}")
        ]
    kv_heads = {part.kv_heads for part in model.attention if part.kind == "gqa"}
    odd = [count for count in kv_heads if count % tp and tp % count]
    return [
        Problem(file, "tp", str(tp), f"{model.id} has {count} KV heads; take a multiple or a divisor of it")
        for count in odd
    ]


def _pipeline_problems(model: Model, pp: int, file: str) -> list[Problem]:
    if pp <= model.layers:
        return []
    return [
        Problem(file, "pp", str(pp), f"{model.id} has {model.layers} layers; give at most as many stages")
    ]


def _expert_problems(model: Model, layout: Layout, file: str) -> list[Problem]:
    if layout.ep == 1:
        return []
    if not model.moe:
        return [Problem(file, "ep", str(layout.ep), f"{model.id} has no experts; leave ep at 1")]
    ranks = layout.tp * layout.dp
    if layout.ep > ranks or ranks % layout.ep:
        return [Problem(file, "ep", str(layout.ep), f"give tp·dp = {ranks} (experts spread whole) or 1")]
    experts = min(part.experts for part in model.feed_forward if part.experts)
    if layout.ep > experts:
        return [
            Problem(file, "ep", str(layout.ep), f"{model.id} has {experts} experts; give at most as many")
        ]
    return []
