"""`moai-plan estimate`: one configuration; memory, times, throughput, and where the time goes."""

from __future__ import annotations

from typing import Annotated

import typer


def estimate(
    model: Annotated[str, typer.Argument(help="Shipped name, or path of a Hugging Face config.json.")],
    on: Annotated[str, typer.Option("--on", help="Accelerator id, like h100_sxm or mi300x.")],
    tp: Annotated[int, typer.Option("--tp", help="Tensor-parallel ranks.")] = 1,
    pp: Annotated[int, typer.Option("--pp", help="Pipeline stages.")] = 1,
    dp: Annotated[int, typer.Option("--dp", help="Data-parallel ranks.")] = 1,
    ep: Annotated[int, typer.Option("--ep", help="Ranks that hold different whole experts; 1 = split.")] = 1,
    precision: Annotated[
        str | None, typer.Option("--precision", help="Of the weights; default: as published.")
    ] = None,
    kv_dtype: Annotated[str, typer.Option("--kv-dtype", help="auto, bf16 or fp8.")] = "auto",
    isl: Annotated[int, typer.Option("--isl", help="Prompt tokens of a request.")] = 1024,
    osl: Annotated[int, typer.Option("--osl", help="Output tokens of a request.")] = 512,
    batch: Annotated[
        int | None,
        typer.Option("--batch", help="Sequences per data-parallel rank; default 32, or what fits."),
    ] = None,
    context: Annotated[
        int | None, typer.Option("--context", help="Context of a decoding sequence; default isl + osl/2.")
    ] = None,
    engine: Annotated[str, typer.Option("--engine", help="Whose parameters are used.")] = "vllm",
    max_num_seqs: Annotated[int, typer.Option("--max-num-seqs", help="Most sequences per rank.")] = 256,
    max_num_batched_tokens: Annotated[
        int, typer.Option("--max-num-batched-tokens", help="Most tokens of a step.")
    ] = 8192,
    max_model_len: Annotated[
        int | None,
        typer.Option("--max-model-len", help="Context window; default 32768 or as the request needs."),
    ] = None,
    memory_utilization: Annotated[
        float, typer.Option("--gpu-memory-utilization", help="Share of memory the engine may use.")
    ] = 0.90,
    nodes: Annotated[
        int | None, typer.Option("--nodes", help="Nodes at hand; default as many as needed.")
    ] = None,
    devices_per_node: Annotated[
        int | None, typer.Option("--devices-per-node", help="Default 8, or what the fast network joins.")
    ] = None,
    network: Annotated[
        str | None, typer.Option("--network", help='Per node, like "400 Gbit/s"; default from the profile.')
    ] = None,
    confidence: Annotated[float, typer.Option("--confidence", help="Of the intervals shown.")] = 0.8,
    no_profile: Annotated[
        bool, typer.Option("--no-profile", help="Predict, even where steps were measured.")
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Predict one configuration: memory, prefill, decode, throughput, and where the time goes."""
    from moai_planner.cli import estimate_view, output
    from moai_planner.cli.estimate_question import Question, answer
    from moai_planner.domain.errors import Infeasible

    found = answer(
        Question(
            model=model,
            accelerator=on,
            tp=tp,
            pp=pp,
            dp=dp,
            ep=ep,
            precision=precision,
            kv_dtype=kv_dtype,
            isl_tokens=isl,
            osl_tokens=osl,
            batch=batch,
            context_tokens=context,
            engine=engine,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            max_model_len=max_model_len,
            memory_utilization_frac=memory_utilization,
            nodes=nodes,
            devices_per_node=devices_per_node,
            network=network,
            confidence=confidence,
            use_profile=not no_profile,
        )
    )
    if json_output:
        output.print_json(estimate_view.document(found))
    else:
        estimate_view.print_answer(found)
    if found.refusal:
        raise Infeasible(found.refusal)
