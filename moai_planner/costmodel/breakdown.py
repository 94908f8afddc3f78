"""Where one step's time goes, operation by operation.

The same formulas as `step`, not summed; the parts add up to the step (a test holds them together).
"""

from __future__ import annotations

from dataclasses import dataclass

from moai_planner.costmodel import operations as op
from moai_planner.costmodel.arrays import Work, work_of
from moai_planner.costmodel.configuration import Configuration
from moai_planner.costmodel.step import largest_captured, padded_sizes
from moai_planner.domain.parameters import Parameters
from moai_planner.domain.provenance import Basis


@dataclass(frozen=True)
class OperationTime:
    """One operation of one step, on one rank, all layers together."""

    name: str
    seconds: float
    flop: float
    "0 where nothing is computed."
    moved_bytes: float
    "Memory traffic; of collectives the bytes a device sends."
    bound: str
    "What sets the time: `compute`, `memory`, `network`, `latency`, `host`."
    roofline_frac: float
    "Time that the data sheet's rates alone would allow over the time predicted; 0 for fixed times."
    basis: Basis


PHASES = ("prefill", "decode")


def breakdown(
    c: Configuration, phase: str, tokens_or_batch: int, context_tokens: float
) -> tuple[OperationTime, ...]:
    """One step: `prefill` of a chunk after `context_tokens` already computed, or `decode` of a batch.

    Parts without any time (a dense model's experts, one device's collectives) are left out.
    """
    if phase not in PHASES:
        raise ValueError(f"phase is one of {', '.join(PHASES)}")
    w, p = work_of(c), c.parameters
    if phase == "decode":
        rows = int(padded_sizes(int(tokens_or_batch), c.engine.graphs)[int(tokens_or_batch)])
        sampled, sequences = rows, float(tokens_or_batch)
        replayed = c.engine.graphs and rows <= largest_captured(c.engine.max_num_seqs, True)
    else:
        rows, sampled, sequences = tokens_or_batch, 1, 0.0
        replayed = rows <= w.captured_tokens
    build = _Builder(c.parameters.basis)
    _products(build, w, p, float(rows), float(sampled))
    _attention(build, w, p, phase, float(tokens_or_batch), context_tokens)
    _communication(build, w, p, float(rows))
    build.add("kernel starts", op.kernels_s(w, p), 0.0, 0.0, "latency", 0.0)
    if not replayed:
        build.add("launches by the host", w.kernels * p.host_kernel_s, 0.0, 0.0, "host", 0.0)
        if phase == "prefill":
            build.add("prompt beside decoding ranks", w.prompt_step_s, 0.0, 0.0, "latency", 0.0)
    engine_s = op.engine_s(w, p) + sequences * op.engine_s_per_sequence(w, p)
    build.add("engine", engine_s, 0.0, 0.0, "host", 0.0)
    return tuple(build.found)


class _Builder:
    """Collects operations; keeps those that take time."""

    def __init__(self, basis: Basis):
        self.basis, self.found, self.seconds = basis, [], 0.0

    def add(self, name, seconds, flop, moved_bytes, bound, ideal_s) -> None:
        seconds = float(seconds)
        if seconds <= 0:
            return
        share = min(1.0, float(ideal_s) / seconds)
        self.seconds += seconds
        self.found.append(
            OperationTime(name, seconds, float(flop), float(moved_bytes), bound, share, self.basis)
        )

    def roofline(self, name, seconds, flop, moved_bytes, flop_per_s, bytes_per_s) -> None:
        compute_s, memory_s = float(flop) / flop_per_s, float(moved_bytes) / bytes_per_s
        bound = "compute" if compute_s > memory_s else "memory"
        self.add(name, seconds, flop, moved_bytes, bound, max(compute_s, memory_s))


def _products(build: _Builder, w: Work, p: Parameters, tokens: float, rows: float) -> None:
    memory = w.memory_bytes_per_s
    for name, seconds, parameters, weight_bytes, flop_per_s, count in (
        ("projections", op.projections_s(w, p, tokens), w.projection_parameters, w.projection_bytes,
         w.projection_flop_per_s, tokens),
        ("dense and shared MLP", op.dense_s(w, p, tokens) if w.dense_parameters else 0.0, w.dense_parameters,
         w.dense_bytes, w.dense_flop_per_s, tokens),
        ("router", op.router_s(w, p, tokens) if w.router_parameters else 0.0, w.router_parameters,
         w.router_bytes, w.bf16_flop_per_s, tokens),
        ("head", op.head_s(w, p, rows), w.head_parameters, w.head_bytes, w.bf16_flop_per_s, rows),
    ):  # fmt: skip
        build.roofline(name, seconds, 2 * parameters * count, weight_bytes, flop_per_s, memory)
    if w.expert_layers:
        touched = float(op.touched_per_rank(w, p, tokens))
        flop = 2 * w.expert_layers * w.expert_parameters * float(op.expert_rows_per_rank(w, p, tokens))
        moved = w.expert_layers * w.expert_bytes * touched
        build.roofline("experts", op.experts_s(w, p, tokens), flop, moved, w.expert_flop_per_s, memory)
    moved = w.element_bytes_per_token * tokens
    build.roofline(
        "norms and activations", op.elements_s(w, p, tokens), 0.0, moved, w.bf16_flop_per_s, memory
    )


def _attention(build: _Builder, w: Work, p: Parameters, phase: str, count: float, context: float) -> None:
    if phase == "decode":
        inside = min(context, w.window_tokens)
        seconds = count * (context * op.kv_s_per_token(w, p) + inside * op.window_s_per_token(w, p))
        seconds += count * op.state_s_per_sequence(w, p)
        flop = count * (context * w.kv_flop_per_token + inside * w.window_flop_per_token)
        moved = count * (context * w.kv_bytes_per_token + inside * w.window_bytes_per_token + w.state_bytes)
        rate = w.kv_flop_per_s
    else:
        pairs, inside = token_pairs(count, context), window_pairs(count, context, w.window_tokens)
        seconds = (
            pairs * op.pair_s(w, p) + inside * op.window_pair_s(w, p) + count * op.state_s_per_token(w, p)
        )
        flop = pairs * w.pair_flop + inside * w.window_pair_flop + count * w.state_flop
        moved = (context + count) * w.kv_bytes_per_token
        rate = w.pair_flop_per_s
    build.roofline("attention", seconds, flop, moved, rate, w.memory_bytes_per_s)


def token_pairs(chunk: float, context: float) -> float:
    """Pairs of a chunk's tokens with all before them, chunk·(context + chunk/2).

    >>> token_pairs(4, 10)
    48.0
    """
    return chunk * (context + chunk / 2)


def window_pairs(chunk: float, context: float, window: float) -> float:
    """The same where a token sees at most `window` tokens.

    >>> window_pairs(4, 10, 100), window_pairs(4, 10, 2), window_pairs(10, 0, 4)
    (48.0, 8.0, 32.0)
    """
    free = min(chunk, max(0.0, window - context))
    return token_pairs(free, context) + (chunk - free) * window


def _communication(build: _Builder, w: Work, p: Parameters, tokens: float) -> None:
    reduced_s_per_token = w.quick_s_per_token if tokens > w.quick_tokens else w.reduce_s_per_token
    for name, total, fixed, ideal in (
        ("all-reduce", op.all_reduce_s(w, p, tokens), op.all_reduce_latency_s(w, p, tokens),
         (reduced_s_per_token + w.reduce_network_s_per_token) * tokens),
        ("expert dispatch and combine", op.exchange_s(w, p, tokens), op.exchange_latency_s(w, p, tokens),
         (w.exchange_s_per_token + w.exchange_network_s_per_token) * tokens),
        ("pipeline sends", op.send_s(w, p, tokens), op.send_s(w, p, 0.0),
         (w.send_s_per_token + w.send_network_s_per_token) * tokens),
    ):  # fmt: skip
        bound = "latency" if 2 * fixed > total else "network"
        build.add(name, total, 0.0, 0.0, bound, ideal)
