r"""Runs that are faster than the device's peaks allow as described: something of them is not in their row.

beyond = beyond_peaks(prepared)
beyond[0].run.id, beyond[0].tpot_s, beyond[0].least_s

Two bounds hold at 100 % of every data-sheet figure, with nothing lost to launches, links or the engine.
A sequence gets one token a step, and a step streams the weights of a token and that sequence's KV:

.. math:: t \ge (w + k\,c) / b \qquad\text{[alone]}

A rank with :math:`X` requests a second has one second of memory and one of products a second:

.. math:: X \cdot \max\bigl((o - 1)(w / n + k\,c) / b,\; f / r\bigr) \le 1 \qquad\text{[together]}

t: time per token.  w: weight bytes that one token touches.  k: KV bytes a context token.  c: mean context.
b: bytes/s.  o: tokens generated.  n: sequences that may share a step (all of the run).  f: products of a
request, its prompt's too where this instance computes it.  r: their rate.

What a row leaves open counts in its favour: KV in 8 bits, every layer as narrow as the narrowest and
multiplied at the rate of that width, of a batch's experts only those of one token, prompts computed wholly
beside memory traffic. Drafts, single batches and layouts that had to be guessed are left out. Predictions and
their errors stay as they are.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from moai_planner.accuracy.prepare import Prepared
from moai_planner.accuracy.run import DP_NOT_GIVEN, Run
from moai_planner.costmodel.arrays import work_of
from moai_planner.costmodel.configuration import Configuration
from moai_planner.costmodel.flop import attention_limit_tokens
from moai_planner.costmodel.kv import layer_kv_bytes_per_token
from moai_planner.domain.accelerator import Accelerator
from moai_planner.domain.model import Attention
from moai_planner.domain.precision import Precision, bytes_per_element
from moai_planner.domain.units import MILLI

ALONE, MEMORY, PRODUCTS = "weights and KV of one sequence", "memory traffic of all", "products of all"


@dataclass(frozen=True)
class Beyond:
    """A run whose time per token is below the least that its description allows."""

    run: Run
    tpot_s: float
    "Measured: the mean, else the median."
    least_s: float
    limit: str
    "What would take that long."


@dataclass(frozen=True)
class Loads:
    """What a rank must do at least, in seconds at its peaks, for a pass through all pipeline stages."""

    weights_s: float
    "Weights that one token touches."
    kv_s: tuple[tuple[float, float], ...]
    "Of each kind of layer: per context token, and how many of them it reads at most."
    token_s: float
    "Weight products of one token, the head left out."
    pair_s: float
    "Prompt attention per token pair, layers that see all of it."

    def sequence_s(self, context_tokens: float) -> float:
        """KV that one sequence reads in a step."""
        return sum(seconds * min(context_tokens, most) for seconds, most in self.kv_s)

    def prompt_s(self, tokens: float, found_tokens: float) -> float:
        """Products of a prompt of which some tokens were found in the cache."""
        pairs = (tokens**2 - found_tokens**2) / 2.0
        return self.token_s * (tokens - found_tokens) + self.pair_s * pairs


def beyond_peaks(prepared: Prepared) -> tuple[Beyond, ...]:
    """The runs that cannot be what they say, in their order."""
    known: dict[tuple[int, bool], Loads] = {}
    found: list[Beyond] = []
    for run, configuration in zip(prepared.runs, prepared.records["decode"], strict=True):
        tpot_s = _tpot_s(run)
        if not tpot_s or not _is_bounded(run):
            continue
        key = (int(configuration), bool(run.kv))
        if key not in known:
            known[key] = loads_of(prepared.configurations[key[0]], kv_is_stated=key[1])
        least_s, limit = least_tpot_s(run, known[key], tpot_s)
        if tpot_s < least_s:
            found.append(Beyond(run, tpot_s, least_s, limit))
    return tuple(found)


def least_tpot_s(run: Run, loads: Loads, tpot_s: float) -> tuple[float, str]:
    """The least time per token beside the measured one, and what takes it.

    A run that would keep a rank busy for U seconds a second at its peaks needs U times its time per token.
    """
    found_tokens = run.prefix_hit_frac * run.isl_tokens
    alone_s = loads.weights_s + loads.sequence_s(run.isl_tokens - found_tokens + run.osl_tokens / 2.0)
    prompt_s = 0.0 if run.disaggregated else loads.prompt_s(run.isl_tokens, found_tokens)
    workers, decoded = run.workers[-1], run.osl_tokens - 1.0
    ranks = workers.count * workers.dp
    is_most = run.arrivals == "closed" and float(run.concurrency).is_integer()  # a fraction is a mean
    together = run.concurrency if is_most else math.inf
    request_s = {
        MEMORY: decoded * (loads.weights_s / together + alone_s - loads.weights_s),
        PRODUCTS: decoded * loads.token_s + prompt_s,
    }
    rate = requests_per_s(run, tpot_s) / (ranks * workers.pp)
    busy = ((rate * seconds * tpot_s, limit) for limit, seconds in request_s.items())
    return max((alone_s, ALONE), *busy)


def requests_per_s(run: Run, tpot_s: float) -> float:
    r"""Measured throughput; else, of a closed loop, the least that its mean latencies leave.

    .. math:: X \ge \frac{N}{N + C} \cdot \frac{C}{\bar E}

    C streams serve N requests of latency Ē in at most N·Ē/C + Ē seconds. 0 where neither is known.
    """
    measured, devices = run.metrics, run.devices
    output = measured.get("output_tps", devices * measured.get("output_tps_per_accel", 0.0))
    total = measured.get("total_tps", devices * measured.get("total_tps_per_accel", 0.0))
    if output or total:
        return output / run.osl_tokens if output else total / (run.isl_tokens + run.osl_tokens)
    latency_s = measured.get("e2el_s_mean", 0.0)
    if "ttft_ms_mean" in measured and not latency_s:
        latency_s = measured["ttft_ms_mean"] * MILLI + (run.osl_tokens - 1.0) * tpot_s
    if run.arrivals != "closed" or not latency_s:
        return 0.0
    return run.requests / (run.requests + run.concurrency) * run.concurrency / latency_s


def loads_of(c: Configuration, kv_is_stated: bool = True) -> Loads:
    """Of one rank of a configuration.

    Llama-3.1-8B in bf16 on one H100: 15.0 GB of weights (input embeddings aside) at 3.35 TB/s, 131 kB of KV a
    token, 14.0 Gflop a token at 989 Tflop/s.

    >>> from moai_planner.costmodel.example import llama_on_h100
    >>> loads = loads_of(llama_on_h100())
    >>> round(loads.weights_s / MILLI, 2), round(loads.sequence_s(1000) / MILLI, 4)
    (4.48, 0.0391)
    >>> round(loads.prompt_s(1000, 0) / MILLI, 2)  # 14.1 ms of products, 0.3 of attention
    14.38
    """
    stored = _narrowest(c.precision, kv_is_stated)
    work = work_of(replace(c, precision=stored, layout=replace(c.layout, pp=1)))
    bandwidth = c.accelerator.memory_bandwidth_bytes_per_s
    dense_bytes = work.projection_bytes + work.dense_bytes + work.router_bytes + work.head_bytes
    dense = work.projection_parameters + work.dense_parameters + work.router_parameters
    experts = work.expert_layers * work.experts_per_token / work.expert_ranks
    rate = _rate_flop_per_s(c.accelerator, stored.expert_weights)
    return Loads(
        weights_s=(dense_bytes + experts * work.expert_bytes) / bandwidth,
        kv_s=tuple(_layers_kv_s(part, c, stored.kv) for part in c.model.attention),
        token_s=2.0 * (dense + experts * work.group_ranks * work.expert_parameters) / rate,
        pair_s=work.pair_flop / max(rate, _rate_flop_per_s(c.accelerator, stored.kv)),
    )


def _layers_kv_s(part: Attention, c: Configuration, kv: str) -> tuple[float, float]:
    """Seconds a context token, and the tokens they stop at."""
    each = layer_kv_bytes_per_token(part, kv, c.layout.tp) / c.accelerator.memory_bandwidth_bytes_per_s
    return part.layers * each, attention_limit_tokens(part, c.engine.max_model_len) or math.inf


def _narrowest(precision: Precision, kv_is_stated: bool) -> Precision:
    """Every layer as the narrowest one, KV in 8 bits unless the row says how it is kept."""
    narrow = precision.expert_weights
    kv = precision.kv if kv_is_stated else min(precision.kv, "fp8", key=bytes_per_element)
    return replace(precision, attention_weights=narrow, feed_forward_weights=narrow, kv=kv)


def _rate_flop_per_s(accelerator: Accelerator, number_format: str) -> float:
    """The fastest products of the device in formats of that many bits or more."""
    least = int(8 * bytes_per_element(number_format))
    return max(
        rate
        for name, rate in accelerator.peak_flop_per_s.items()
        if name == "bf16" or int(re.sub(r"\D", "", name)) >= least
    )


def _tpot_s(run: Run) -> float:
    tpot_ms = run.metrics.get("tpot_ms_mean", run.metrics.get("tpot_ms_median", 0.0))
    return tpot_ms * MILLI * run.events_per_token


def _is_bounded(run: Run) -> bool:
    """One token a step, a steady stream of requests, a layout that is known."""
    return (
        run.spec_decode in ("", "none")
        and run.arrivals in ("closed", "open")
        and run.osl_tokens > 1.0
        and not any(DP_NOT_GIVEN in text for text in run.assumed)
    )
