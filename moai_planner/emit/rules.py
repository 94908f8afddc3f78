"""What the engine would refuse or regret, checked before a file is written.

Rule ids: V one instance, N a prefill–decode pair, H mixed hardware, K ports. `refuse` stops the emission,
`warn` is listed in the README. Sources: vLLM 0.33 configuration classes, NIXL connector, its documentation,
llm-d's operations page.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from moai_planner.domain.layout import capture_sizes
from moai_planner.emit.engine_args import expert_arguments, model_location, number_formats
from moai_planner.emit.launch import Launch, Process
from moai_planner.emit.platforms import ACCELERATOR_NOTES, CPU_BLOCK_TOKENS, PLATFORMS


@dataclass(frozen=True)
class Finding:
    """One rule that does not hold somewhere."""

    rule: str
    severity: str
    "`refuse` or `warn`."
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.rule} {self.where}: {self.message}"


def refuse(rule: str, where: str, message: str) -> Finding:
    """The engine would not start, or would answer wrongly."""
    return Finding(rule, "refuse", where, message)


def warn(rule: str, where: str, message: str) -> Finding:
    """It starts; somebody should know."""
    return Finding(rule, "warn", where, message)


def check_instances(launch: Launch) -> tuple[Finding, ...]:
    """All findings on single instances; copies of one instance are checked once."""
    first = {process.instance.id: process for process in reversed(launch.processes)}
    found = [
        f for process in reversed(first.values()) for rule in INSTANCE_RULES for f in rule(process, launch)
    ]
    return (*found, *_memory_shared(launch))


def v01_heads_divide(process: Process, launch: Launch) -> Iterator[Finding]:
    """Query heads split evenly over tensor ranks; KV heads split evenly or are copied evenly."""
    tp = process.instance.layout.tp
    for part in process.deployment.model.attention:
        if part.query_heads % tp:
            yield refuse("V01", _where(process), f"{part.query_heads} query heads do not split over tp {tp}")
        if part.kv_heads and part.kv_heads % tp and tp % part.kv_heads and part.kind != "mla":
            yield refuse("V01", _where(process), f"{part.kv_heads} KV heads and tp {tp} do not divide")


def v04_hybrid_needs_ranks(process: Process, launch: Launch) -> Iterator[Finding]:
    """An endpoint per node needs several ranks there; one rank a node is another form."""
    if process.form == "data_hybrid" and process.dp_local < 2:
        yield refuse("V04", _where(process), "hybrid load balancing with one rank a node")


def v05_experts_spread(process: Process, launch: Launch) -> Iterator[Finding]:
    """Experts spread over all tp·dp ranks of a mixture model, as many on each."""
    layout, model = process.instance.layout, process.deployment.model
    if layout.ep == 1:
        return
    if not model.moe:
        yield refuse("V05", _where(process), f"ep {layout.ep} on a model without experts")
    if layout.ep != layout.tp * layout.dp:
        yield refuse(
            "V05", _where(process), f"ep {layout.ep}: vLLM spreads over tp·dp = {layout.tp * layout.dp}"
        )
    for part in model.feed_forward:
        if part.experts and part.experts % layout.ep:
            yield refuse("V05", _where(process), f"{part.experts} experts do not split over ep {layout.ep}")


def v07_step_holds_batch(process: Process, launch: Launch) -> Iterator[Finding]:
    """A step has room for one token of each sequence."""
    engine = process.instance.engine
    if engine.max_num_batched_tokens < engine.max_num_seqs:
        yield refuse("V07", _where(process), "max_num_batched_tokens below max_num_seqs")
    if engine.long_prefill_token_threshold > engine.max_model_len:
        yield refuse("V07", _where(process), "long_prefill_token_threshold above max_model_len")
    if engine.max_num_batched_tokens > engine.max_num_seqs * engine.max_model_len:
        yield warn("V07", _where(process), "max_num_batched_tokens can never be filled")
    limit = process.deployment.model.max_context_tokens
    if engine.max_model_len > limit:
        yield refuse(
            "V07", _where(process), f"max_model_len {engine.max_model_len} above the model's {limit}"
        )


def v08_graphs_cover_batch(process: Process, launch: Launch) -> Iterator[Finding]:
    """Decode batches above the largest captured size run eagerly."""
    engine, instance = process.instance.engine, process.instance
    if not engine.graphs or not PLATFORMS[process.pool.platform].graphs or instance.role == "prefill":
        return
    largest = max(capture_sizes(engine.max_num_seqs))
    if instance.batch > largest:
        yield warn(
            "V08", _where(process), f"planned batch {instance.batch}, largest captured graph {largest}"
        )


def v09_memory_fraction(process: Process, launch: Launch) -> Iterator[Finding]:
    """The fraction is one, and a request of full length has room."""
    engine = process.instance.engine
    if not 0 < engine.memory_utilization_frac <= 1:
        yield refuse("V09", _where(process), f"memory fraction {engine.memory_utilization_frac} outside 0…1")
    if process.instance.memory.get("kv_bytes", 1.0) <= 0:
        yield refuse("V09", _where(process), "weights and activations leave no memory for KV")
    tokens = process.instance.memory.get("kv_tokens", engine.max_model_len)
    if tokens < engine.max_model_len:
        message = (
            f"KV holds {tokens:.0f} tokens, max_model_len is {engine.max_model_len}: vLLM may refuse to start"
        )
        yield warn("V09", _where(process), message)


def v10_block_fits_backend(process: Process, launch: Launch) -> Iterator[Finding]:
    """Attention kernels take blocks of certain sizes."""
    block, platform = process.instance.engine.block_size_tokens, process.pool.platform
    latent = any(part.kind == "mla" for part in process.deployment.model.attention)
    if platform == "cpu":
        if block != CPU_BLOCK_TOKENS:
            message = f"planned with blocks of {block}; the CPU engine is started with {CPU_BLOCK_TOKENS}"
            yield warn("V10", _where(process), message)
        return
    if platform in ("cuda", "rocm") and (block <= 0 or block % 16):
        yield refuse("V10", _where(process), f"block size {block} is not a multiple of 16")
    elif platform == "cuda" and latent and block not in (32, 64, 128):
        yield warn(
            "V10", _where(process), f"block size {block}: FlashMLA wants 64, vLLM will choose another kernel"
        )
    elif platform == "rocm" and not latent and block not in (16, 32):
        yield warn(
            "V10", _where(process), f"block size {block}: AITER attention takes 16 or 32, another kernel runs"
        )


def weights_as_planned(process: Process, launch: Launch) -> Iterator[Finding]:
    """A precision other than the published one needs other weights."""
    deployment = process.deployment
    native, planned = deployment.model.native_precision, deployment.precision.id
    if native == planned or process.rank:
        return
    if "quantization" in number_formats(process, launch) or deployment.precision.made_on_load:
        message = f"published in {native}, made {planned} while loading"
    elif "" in launch.options.model_paths or deployment.name in launch.options.model_paths:
        return
    else:
        message = f"published in {native}, planned in {planned}: give such weights with --model-path"
    yield warn("V12", f"deployment {deployment.name}", message)


def weights_found_anywhere(process: Process, launch: Launch) -> Iterator[Finding]:
    """A repository name or an absolute path means the same on every host."""
    location = model_location(process, launch)
    if location.startswith("/") or re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", location):
        return
    message = (
        f"{location!r} is neither a repository name nor an absolute path: set it with --model-path or MODEL"
    )
    yield warn("V16", f"deployment {process.deployment.name}", message)


def platform_notes(process: Process, launch: Launch) -> Iterator[Finding]:
    """What the operator adds by hand on platforms outside the engine's main build."""
    for note in (
        PLATFORMS[process.pool.platform].note,
        ACCELERATOR_NOTES.get(process.instance.accelerator, ""),
    ):
        if note:
            yield warn("H00", f"pool {process.pool.name}", note)
    backend = expert_arguments(process).get("all2all-backend", "")
    if backend.startswith(("deepep", "mori")):
        yield warn("V06", _where(process), f"{backend} needs its package in the engine's environment")


def _memory_shared(launch: Launch) -> Iterator[Finding]:
    """V09: fractions on one device add up to one at most."""
    fractions: dict[tuple[str, int, int], float] = defaultdict(float)
    for process in launch.processes:
        for device in process.devices:
            key = (process.pool.name, process.node, device)
            fractions[key] += process.instance.engine.memory_utilization_frac
    for (pool, node, device), total in fractions.items():
        if total > 1:
            yield refuse(
                "V09", f"pool {pool} host {node} device {device}", f"memory fractions add up to {total}"
            )


def _where(process: Process) -> str:
    return f"instance {process.instance.id}"


INSTANCE_RULES: tuple[Callable[[Process, Launch], Iterator[Finding]], ...] = (
    v01_heads_divide,
    v04_hybrid_needs_ranks,
    v05_experts_spread,
    v07_step_holds_batch,
    v08_graphs_cover_batch,
    v09_memory_fraction,
    v10_block_fits_backend,
    weights_as_planned,
    weights_found_anywhere,
    platform_notes,
)
