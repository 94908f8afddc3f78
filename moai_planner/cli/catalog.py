"""`moai-plan catalog accelerators|models|traces|targets [ID]`: what is known, and each number's source."""

from __future__ import annotations

from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Show what is known: accelerators, models, traces, targets.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command("accelerators")
def accelerators(
    accelerator: Annotated[
        str, typer.Argument(help="An id or a YAML file; all of them without it.", metavar="[ID]")
    ] = "",
    as_json: Json = False,
) -> None:
    """Device types: memory, bandwidth, peak rates, links, power, price, and the source of each number."""
    from moai_planner.catalog.accelerators import accelerator as read
    from moai_planner.catalog.accelerators import accelerator_ids

    if accelerator:
        _show_accelerator(read(accelerator, "command line", "ID"), as_json)
    else:
        _list_accelerators([read(each) for each in accelerator_ids()], as_json)


@app.command("models")
def models(
    model: Annotated[
        str, typer.Argument(help="A name or the path of a config.json; all without it.", metavar="[ID]")
    ] = "",
    as_json: Json = False,
) -> None:
    """Language models: sizes, attention, experts, number format, KV per token."""
    from moai_planner.catalog.models import model as read
    from moai_planner.catalog.models import model_names

    if model:
        _show_model(read(model, "command line", "ID"), as_json)
    else:
        _list_models([read(each) for each in model_names()], as_json)


@app.command("traces")
def traces(
    trace: Annotated[
        str, typer.Argument(help="A name or the path of a trace; all without it.", metavar="[ID]")
    ] = "",
    as_json: Json = False,
) -> None:
    """Request traces: length, rate, prompt and answer lengths, licence."""
    from moai_planner.catalog.traces import trace as read
    from moai_planner.catalog.traces import trace_facts, trace_names
    from moai_planner.cli.output import print_json, print_table

    names = (trace,) if trace else trace_names()
    found = [_trace_summary(read(name, "command line", "ID")) for name in names]
    if trace and trace in trace_names():
        facts = trace_facts(trace)
        found[0] |= {
            key: facts[key] for key in ("title", "licence", "attribution", "url", "notes") if key in facts
        }
    if as_json:
        print_json(found[0] if trace else found)
    elif trace:
        print_table(trace, ("what", "value"), [(key, _cell(value)) for key, value in found[0].items()])
    else:
        columns = ("name", "requests", "hours", "requests/s", "mean prompt", "mean answer", "prefix blocks")
        keys = ("name", "requests", "hours", "rate_req_per_s", "isl_mean", "osl_mean", "prefix_blocks")
        print_table("Traces", columns, [tuple(_cell(each[key]) for key in keys) for each in found])


@app.command("targets")
def targets(
    target: Annotated[str, typer.Argument(help="A target; all of them without it.", metavar="[ID]")] = "",
    as_json: Json = False,
) -> None:
    """What `emit` can write."""
    from moai_planner.cli.output import print_json, print_table
    from moai_planner.emit.templates import read_target, target_names

    found = [read_target(name) for name in ((target,) if target else target_names())]
    rows = [
        {"target": each.name, "title": each.title, "files": [f.path for f in each.files]} for each in found
    ]
    if as_json:
        print_json(rows[0] if target else rows)
    elif target:
        print_table(f"{target}: {rows[0]['title']}", ("file",), [(path,) for path in rows[0]["files"]])
    else:
        table = [(row["target"], row["title"], len(row["files"])) for row in rows]
        print_table("Targets", ("target", "what", "templates"), table)


def _list_accelerators(found: list[Any], as_json: bool) -> None:
    from moai_planner.catalog.mirror import to_document
    from moai_planner.cli.output import print_json, print_table
    from moai_planner.domain.units import show

    if as_json:
        print_json([to_document(each) for each in found])
        return
    rows = [
        (
            each.id,
            each.name,
            show(each.memory_bytes, "bytes"),
            show(each.memory_bandwidth_bytes_per_s, "bytes_per_s"),
            *(_rate(each.peak_flop_per_s.get(kind)) for kind in ("bf16", "fp8", "fp4")),
            show(each.tdp_w, "w", 4),
            f"{each.price_usd_per_h:.2f}" if each.price_usd_per_h else "–",
            each.confidence,
        )
        for each in found
    ]
    columns = ("id", "name", "memory", "bandwidth", "bf16", "fp8", "fp4", "TDP", "USD/h", "confidence")
    notes = ("Dense peaks. `moai-plan catalog accelerators ID` shows the source of each number.",)
    print_table("Accelerators", columns, rows, notes)


def _show_accelerator(found: Any, as_json: bool) -> None:
    from moai_planner.catalog.mirror import to_document
    from moai_planner.cli.output import print_json, print_table
    from moai_planner.domain.units import show

    if as_json:
        print_json(to_document(found))
        return
    link = found.scale_up
    shown = {
        "memory_bytes": ("memory", show(found.memory_bytes, "bytes", 4)),
        "memory_bandwidth_bytes_per_s": (
            "memory bandwidth",
            show(found.memory_bandwidth_bytes_per_s, "bytes_per_s", 4),
        ),
        **{
            f"peak_flop_per_s.{kind}": (f"{kind} peak, dense", show(rate, "flop_per_s", 4))
            for kind, rate in found.peak_flop_per_s.items()
        },
        "scale_up": (
            f"scale-up link ({link.kind}, {link.devices} devices)",
            f"{show(link.bytes_per_s, 'bytes_per_s', 4)} one way",
        ),
        "scale_out_bytes_per_s": (
            "network, per device",
            f"{show(found.scale_out_bytes_per_s, 'bytes_per_s', 4)} one way",
        ),
        "host_link_bytes_per_s": (
            "host link",
            f"{show(found.host_link_bytes_per_s, 'bytes_per_s', 4)} one way",
        ),
        "tdp_w": ("board power", show(found.tdp_w, "w", 4)),
        "all_in_w": ("power with host and cooling", show(found.all_in_w, "w", 4)),
        "price_usd_per_h": ("price", show(found.price_usd_per_h, "usd_per_h", 4)),
    }
    rows = [(label, value, *_source(found.sources.get(key))) for key, (label, value) in shown.items()]
    title = (
        f"{found.name} ({found.id}): {found.architecture}, {found.platform}, confidence {found.confidence}"
    )
    print_table(
        title, ("what", "value", "kind", "source", "date"), rows, (found.notes,) if found.notes else ()
    )


def _list_models(found: list[Any], as_json: bool) -> None:
    from moai_planner.cli.output import print_json, print_table

    summaries = [_model_summary(each) for each in found]
    if as_json:
        print_json(summaries)
        return
    keys = ("id", "parameters_b", "active_b", "layers", "attention", "native_precision", "kv_kib", "context")
    columns = ("model", "10^9 weights", "active", "layers", "attention", "format", "KV KiB/token", "context")
    rows = [tuple(_cell(each[key]) for key in keys) for each in summaries]
    notes = ("KV in bf16, all layers. Any Hugging Face config.json works by path.",)
    print_table("Models", columns, rows, notes)


def _show_model(found: Any, as_json: bool) -> None:
    from moai_planner.catalog.mirror import to_document
    from moai_planner.cli.output import print_json, print_table

    summary = _model_summary(found)
    if as_json:
        print_json(summary | {"model": to_document(found)})
        return
    rows = [(key, _cell(value)) for key, value in summary.items()]
    rows += [(f"attention, {part.layers} layers", _fields(part)) for part in found.attention]
    rows += [(f"feed-forward, {part.layers} layers", _fields(part)) for part in found.feed_forward]
    rows.append(("source", f"{found.source.title}: {found.source.where} ({found.source.date})"))
    print_table(found.id, ("what", "value"), rows)


def _model_summary(found: Any) -> dict[str, Any]:
    from moai_planner.costmodel.kv import kv_bytes_per_token
    from moai_planner.costmodel.weights import expert_parameters, total_parameters
    from moai_planner.domain.precision import precision
    from moai_planner.domain.units import GIGA, KIBI

    total = total_parameters(found)
    idle = sum(
        part.layers * (part.experts - part.experts_per_token) * expert_parameters(found.hidden_size, part)
        for part in found.feed_forward
        if part.experts
    )
    return {
        "id": found.id,
        "architecture": found.architecture,
        "parameters_b": round(total / GIGA, 2),
        "active_b": round((total - idle) / GIGA, 2),
        "layers": found.layers,
        "attention": " + ".join(_attention_words(found)),
        "native_precision": found.native_precision,
        "kv_kib": round(kv_bytes_per_token(found, precision("bf16")) / KIBI, 2),
        "context": found.max_context_tokens,
    }


def _attention_words(found: Any) -> list[str]:
    words = []
    for part in found.attention:
        kind = "mha" if part.kind == "gqa" and part.query_heads == part.kv_heads else part.kind
        if part.window_tokens:
            kind += f" window {part.window_tokens}"
        elif 0 < part.sparse_top_k_tokens < found.max_context_tokens:
            kind += f" top {part.sparse_top_k_tokens}"
        words.append(kind)
    return list(dict.fromkeys(words))


def _trace_summary(found: Any) -> dict[str, Any]:
    from moai_planner.domain.units import HOUR_S

    return {
        "name": found.name,
        "requests": len(found),
        "hours": round(found.duration_s / HOUR_S, 3),
        "rate_req_per_s": round(found.rate_req_per_s, 3),
        "isl_mean": round(float(found.isl_tokens.mean()), 1),
        "osl_mean": round(float(found.osl_tokens.mean()), 1),
        "isl_max": int(found.isl_tokens.max()),
        "osl_max": int(found.osl_tokens.max()),
        "prefix_blocks": found.block_hashes is not None,
        "left_out": dict(found.left_out),
    }


def _rate(flop_per_s: float | None) -> str:
    from moai_planner.domain.units import show

    return show(flop_per_s, "flop_per_s", 4) if flop_per_s else "–"


def _source(source: Any) -> tuple[str, str, str]:
    if source is None:
        return "unknown", "no source gives one", ""
    return source.kind, f"{source.title}: {source.where}" if source.where else source.title, source.date


def _fields(part: Any) -> str:
    """The fields of a layer form that are set."""
    return ", ".join(f"{key} {value}" for key, value in vars(part).items() if key != "layers" and value)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {each}" for key, each in value.items()) or "none"
    if isinstance(value, list | tuple):
        return "; ".join(map(str, value))
    return str(value)
