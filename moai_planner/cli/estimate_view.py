"""The answer of `estimate` as one JSON document, and as tables for people."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from moai_planner.cli.estimate_question import Answer, asked, source
from moai_planner.cli.output import print_table, print_text
from moai_planner.costmodel.breakdown import OperationTime
from moai_planner.costmodel.kv import kv_bytes_per_token
from moai_planner.costmodel.memory import usable_bytes
from moai_planner.costmodel.weights import checkpoint_bytes, total_parameters
from moai_planner.domain.provenance import Interval
from moai_planner.domain.units import show


def document(found: Answer) -> dict[str, Any]:
    """Everything, units in the names."""
    c = found.configuration
    return {
        "model": c.model.id,
        "accelerator": c.accelerator.id,
        "devices": c.layout.devices,
        "layout": vars(c.layout),
        "precision": c.precision.id,
        "kv_dtype": c.precision.kv,
        "engine": vars(c.engine),
        "question": asked(found.question),
        "fits": found.memory.fits,
        "refusal": found.refusal,
        "batch": found.batch,
        "context_tokens": found.context_tokens,
        "sequences_that_fit": found.sequences_that_fit,
        "parameters": total_parameters(c.model),
        "checkpoint_bytes": checkpoint_bytes(c.model, c.precision),
        "kv_bytes_per_token": kv_bytes_per_token(c.model, c.precision),
        "memory": vars(found.memory) | {"device_bytes": c.accelerator.memory_bytes},
        "predicted": _predicted(found),
        "source": source(c),
        "basis": found.basis.value,
        "interval": {
            "confidence": found.question.confidence,
            "low_frac_80": found.low_frac,
            "high_frac_80": found.high_frac,
        },
        "power_w": found.power_w,
        "prefill_operations": [_operation(one) for one in found.prefill],
        "decode_operations": [_operation(one) for one in found.decode],
        "assumptions": list(found.assumptions),
    }


def _predicted(found: Answer) -> dict[str, Any]:
    if found.point is None:
        return {}
    return {field.name: _interval(getattr(found.point, field.name)) for field in fields(found.point)}


def _interval(interval: Interval) -> dict[str, Any]:
    return {
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
        "basis": interval.basis.value,
    }


def _operation(one: OperationTime) -> dict[str, Any]:
    return vars(one) | {"basis": one.basis.value}


def print_answer(found: Answer) -> None:
    """Tables: memory, predictions, and where the time of a step goes."""
    c, memory = found.configuration, found.memory
    print_text(
        f"{c.model.id} in {c.precision.id} (KV {c.precision.kv}) on "
        f"{c.layout.devices} x {c.accelerator.name}, {c.layout}, {c.engine.name}"
    )
    parts = (
        ("weights", memory.weights_bytes),
        ("activations", memory.activations_bytes),
        ("captured graphs", memory.graphs_bytes),
        ("runtime", memory.runtime_bytes),
        ("KV cache", memory.kv_bytes),
    )
    total = c.accelerator.memory_bytes
    usable = usable_bytes(c, sum(size for _, size in parts[:-1]))
    rows = [(name, show(size, "bytes"), f"{size / total:.1%}") for name, size in parts]
    print_table(
        f"Memory of one device ({show(total, 'bytes')}, {usable / total:.0%} usable)",
        ("part", "size", "share"),
        rows,
        notes=(
            f"KV: {show(memory.kv_bytes_per_token, 'bytes')} a token and device, {memory.kv_tokens} tokens "
            f"({memory.kv_blocks} blocks) a rank; {found.sequences_that_fit} requests of full length",
        ),
    )
    if found.point is not None:
        _print_predictions(found)
        modelled = ", as modelled" if c.measured else ""
        _print_operations(f"Prefill step{modelled}", found.prefill)
        _print_operations(
            f"Decode step, batch {found.batch}, context {found.context_tokens:.0f}{modelled}", found.decode
        )
    for line in found.assumptions:
        print_text(f"assumed: {line}")


_SHOWN = (
    ("prefill of one prompt", "prefill_s", "s"),
    ("time to first token, alone", "ttft_s", "s"),
    ("decode step", "decode_step_s", "s"),
    ("time per output token", "tpot_s", "s"),
    ("prefill only, tokens/s", "prefill_tokens_per_s", ""),
    ("decode only, tokens/s", "decode_tokens_per_s", ""),
    ("output tokens/s", "output_tokens_per_s", ""),
    ("total tokens/s", "total_tokens_per_s", ""),
    ("requests/s", "requests_per_s", ""),
)


def _print_predictions(found: Answer) -> None:
    q = found.question
    rows = []
    for label, name, unit in _SHOWN:
        interval = getattr(found.point, name)
        ends = (interval.value, interval.low, interval.high)
        rows.append(
            (label, *(show(end, unit) if unit else f"{end:.4g}" for end in ends), interval.basis.value)
        )
    print_table(
        f"Predicted for {q.isl_tokens} in, {q.osl_tokens} out, batch {found.batch} a rank "
        f"({q.confidence:.0%} interval)",
        ("what", "value", "low", "high", "basis"),
        rows,
        notes=(f"power at full use: {show(found.power_w, 'w')}",),
    )


def _print_operations(title: str, operations: tuple[OperationTime, ...]) -> None:
    total = sum(one.seconds for one in operations)
    rows = [
        (
            one.name,
            show(one.seconds, "s"),
            f"{one.seconds / total:.1%}",
            one.bound,
            f"{one.roofline_frac:.0%}" if one.roofline_frac else "–",
        )
        for one in sorted(operations, key=lambda one: -one.seconds)
    ]
    print_table(
        f"{title}: {show(total, 's')}", ("operation", "time", "share", "bound by", "of roofline"), rows
    )
