"""The few numbers the cost model gets neither from a data sheet nor from a model's config.

One set belongs to (accelerator family, engine, number format) and serves every model. Each field is a
physical quantity with bounds, so that a fit can move it: `FIELDS` lists them in a fixed order, and
`to_vector` / `from_vector` go to and from a vector whose entries may take any real value.

>>> p = Parameters()
>>> round(from_vector(to_vector(p, ("matmul_frac",)) - 1.0, p, ("matmul_frac",)).matmul_frac, 3)
0.528
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from moai_planner.domain.provenance import ASSUMED, Basis, Source
from moai_planner.domain.units import MICRO, MILLI, NANO

OWN_ROWS = "own rows: "
"""How the note of a set that a user's own rows corrected begins."""


@dataclass(frozen=True)
class Parameters:
    """Efficiencies and fixed times. Defaults are what a well-tuned GPU engine does (assumed)."""

    matmul_frac: float = 0.75
    "Share of the dense peak that a large matrix product reaches."
    matmul_half_tokens: float = 150.0
    "Rows that a large matrix product loses to filling and padding; few rows run at half of that share."
    weight_bandwidth_frac: float = 0.85
    "Share of the memory bandwidth when dense weights and activations stream."
    unoverlapped_frac: float = 0.10
    "A roofline pays the longer of computing and streaming, and this share of the shorter."
    attention_frac: float = 0.50
    "Share of the bf16 peak in attention products (prompt attention, and MLA decode where it computes)."
    kv_bandwidth_frac: float = 0.75
    "Share of the memory bandwidth when decode attention reads KV."
    expert_matmul_frac: float = 0.55
    "Share of the dense peak in grouped expert products."
    expert_half_width: float = 1.0
    "Inner width of an expert's slice on a rank at which products reach half of that share."
    expert_half_tokens: float = 60.0
    "The same rows lost, per expert (tiles are padded)."
    expert_bandwidth_frac: float = 0.70
    "Share of the memory bandwidth when expert weights stream."
    expert_skew: float = 0.3
    "How unevenly experts are chosen: squared coefficient of variation of their popularity, 0 = evenly."
    expert_imbalance: float = 1.25
    "Tokens of the busiest expert-parallel rank over the mean."
    kernel_s: float = 1.8 * MICRO
    "Each kernel's start, ramp and tail beyond its roofline time."
    host_kernel_s: float = 5.0 * MICRO
    "Per kernel of a step that the host launches instead of replaying a graph, beyond `kernel_s`."
    step_s: float = 1.5 * MILLI
    "Engine time per step: scheduling, input preparation, sampling, output."
    step_hidden_frac: float = 0.7
    "Share of `step_s` and `sequence_s` that asynchronous scheduling hides behind the device."
    sequence_s: float = 8.0 * MICRO
    "Engine time per sequence in a step."
    context_token_s: float = 0.5 * NANO
    "Per context token of a step beside the roofline, block tables and the like; not where attention is MLA."
    request_s: float = 12.0 * MILLI
    "Outside the engine, once per request."
    warmup_s: float = 0.3
    """What the first requests of a benchmark wait beside that: kernels are loaded, compiled and tuned at
    first use. Service that goes on has none."""
    prompt_token_s: float = 2.0 * MICRO
    "Outside the engine, per prompt token (tokenising, copying)."
    collective_hop_s: float = 8.0 * MICRO
    "Latency of an all-reduce inside the fast network, however many take part."
    collective_bandwidth_frac: float = 0.70
    "Share of the fast network's rate that collectives reach."
    network_hop_s: float = 33.0 * MICRO
    """Latency of a collective between nodes, per doubling of the nodes (2 KiB between two DGX A100: 43 µs,
    within one 10, in Vidur's network profiles); also of a pipeline send."""
    network_bandwidth_frac: float = 0.75
    "Share of the network between nodes that collectives reach."
    all_to_all_s: float = 25.0 * MICRO
    "Latency of one expert dispatch or combine over eight ranks."
    exchange_network_s: float = 60.0 * MICRO
    """What that grows by for a doubling of the nodes: from one server to two, exchanges of 128 tokens take
    longer by 41 (dispatch) and 75 µs (combine) with MORI-EP on MI300X, 53 and 72 on MI355X, 41 and 81 with
    DeepEP on H800, bytes included; calibration rows of two nodes agree with fewer tokens."""
    all_to_all_bandwidth_frac: float = 0.55
    "Share of a network's rate that dispatch and combine reach."
    transfer_s: float = 4.0 * MILLI
    "Handshake and descriptors of one KV transfer."
    transfer_bandwidth_frac: float = 0.70
    "Share of the network that a direct KV transfer reaches."
    staged_bandwidth_frac: float = 0.04
    """The same through host memory on both sides: 1 GB/s of 200 Gb/s, from what 7K more prompt tokens take
    over a staged and a direct path with one request in flight (calibration rows)."""
    transfer_slowdown_frac: float = 0.03
    "Decode steps that overlap with an incoming direct transfer take this much longer."
    staged_slowdown_frac: float = 0.12
    "The same through host memory."
    draft_accept_frac: float = 0.75
    "Speculative decoding: chance that the first drafted token is kept; the i-th with its i-th power."

    basis: Basis = Basis.ASSUMED
    low_frac: float = 0.6
    "A step takes at least this fraction of the prediction (80 % interval)."
    high_frac: float = 1.6
    "… and at most this fraction."
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    "Metric (`tpot_s`, `ttft_s`, `total_tokens_per_s` …) → low and high factor, where residuals are known."
    models: tuple[str, ...] = ()
    "Models that the set was fitted to; empty = the intervals hold for any."
    new_model_power: Mapping[str, float] = field(default_factory=dict)
    "Kind → power on the ends of an interval for a model that was not fitted."
    paces: Mapping[str, float] = field(default_factory=dict)
    "Period → factor on the times of runs made then (`accuracy/pace.py`); today's is 1 and not listed."
    sources: Mapping[str, Source] = field(default_factory=lambda: {"*": ASSUMED})
    "Field → where its number is from; `*` for all others."
    note: str = ""
    "How the set was found (own fit, fitted on the family, assumed for the platform)."

    def power_for(self, model: str, kind: str) -> float:
        """Power on an interval's ends for a model: 1 for those that were fitted."""
        if not self.models or model in self.models:
            return 1.0
        return self.new_model_power.get(kind, 1.0)


@dataclass(frozen=True)
class FieldBounds:
    """One number that a fit may move, with the range that is physically possible."""

    name: str
    lower: float
    upper: float
    transform: str
    "`log` (a positive scale) or `logit` (a share between the bounds)."

    def clipped(self, value: float) -> float:
        """The nearest value inside the bounds."""
        return min(max(value, self.lower), self.upper)

    def to_real(self, value: float) -> float:
        """Value inside the bounds → any real number. Values on a bound move a hair inside."""
        if self.transform == "log":
            return math.log(self.clipped(value))
        share = (value - self.lower) / (self.upper - self.lower)
        share = min(max(share, _EDGE), 1 - _EDGE)
        return math.log(share / (1 - share))

    def to_value(self, real: float) -> float:
        """Any real number → a value inside the bounds."""
        if self.transform == "log":
            return self.clipped(math.exp(min(real, _LARGEST_EXPONENT)))
        share = 1 / (1 + math.exp(-min(max(real, -_LARGEST_EXPONENT), _LARGEST_EXPONENT)))
        return self.lower + share * (self.upper - self.lower)


_EDGE = 1e-9
_LARGEST_EXPONENT = 700.0

FIELDS: tuple[FieldBounds, ...] = (
    FieldBounds("matmul_frac", 0.02, 1.0, "logit"),
    FieldBounds("matmul_half_tokens", 1.0, 2048.0, "log"),
    FieldBounds("weight_bandwidth_frac", 0.05, 1.0, "logit"),
    FieldBounds("unoverlapped_frac", 0.0, 1.0, "logit"),
    FieldBounds("attention_frac", 0.01, 1.0, "logit"),
    FieldBounds("kv_bandwidth_frac", 0.02, 1.0, "logit"),
    FieldBounds("expert_matmul_frac", 0.01, 1.0, "logit"),
    FieldBounds("expert_half_width", 1.0, 4096.0, "log"),
    FieldBounds("expert_half_tokens", 0.5, 1024.0, "log"),
    FieldBounds("expert_bandwidth_frac", 0.02, 1.0, "logit"),
    FieldBounds("expert_skew", 0.01, 10.0, "log"),
    FieldBounds("expert_imbalance", 1.0, 4.0, "logit"),
    FieldBounds("kernel_s", 0.05 * MICRO, 200 * MICRO, "log"),
    FieldBounds("host_kernel_s", 0.1 * MICRO, 400 * MICRO, "log"),
    FieldBounds("step_s", 10 * MICRO, 200 * MILLI, "log"),
    FieldBounds("step_hidden_frac", 0.0, 1.0, "logit"),
    FieldBounds("sequence_s", 0.05 * MICRO, 2 * MILLI, "log"),
    FieldBounds("context_token_s", 0.001 * NANO, 1 * MICRO, "log"),
    FieldBounds("request_s", 0.1 * MILLI, 2.0, "log"),
    FieldBounds("warmup_s", 0.1 * MILLI, 100.0, "log"),
    FieldBounds("prompt_token_s", 0.01 * MICRO, 1 * MILLI, "log"),
    FieldBounds("collective_hop_s", 0.2 * MICRO, 200 * MICRO, "log"),
    FieldBounds("collective_bandwidth_frac", 0.02, 1.0, "logit"),
    FieldBounds("network_hop_s", 1 * MICRO, 1 * MILLI, "log"),
    FieldBounds("network_bandwidth_frac", 0.02, 1.0, "logit"),
    FieldBounds("all_to_all_s", 1 * MICRO, 1 * MILLI, "log"),
    FieldBounds("exchange_network_s", 1.0 * MICRO, 1.0 * MILLI, "log"),
    FieldBounds("all_to_all_bandwidth_frac", 0.02, 1.0, "logit"),
    FieldBounds("transfer_s", 0.01 * MILLI, 1.0, "log"),
    FieldBounds("transfer_bandwidth_frac", 0.02, 1.0, "logit"),
    FieldBounds("staged_bandwidth_frac", 0.01, 1.0, "logit"),
    FieldBounds("transfer_slowdown_frac", 0.0, 2.0, "logit"),
    FieldBounds("staged_slowdown_frac", 0.0, 4.0, "logit"),
    FieldBounds("draft_accept_frac", 0.01, 0.99, "logit"),
)
"""Every number of `Parameters` that a fit may move, in the order of the class."""

NAMES: tuple[str, ...] = tuple(bounds.name for bounds in FIELDS)

BOUNDS: dict[str, FieldBounds] = {bounds.name: bounds for bounds in FIELDS}


def to_vector(parameters: Parameters, names: Sequence[str] = NAMES) -> np.ndarray:
    """The named fields as unbounded reals, [len(names)]."""
    return np.array([BOUNDS[name].to_real(getattr(parameters, name)) for name in names])


def from_vector(
    vector: np.ndarray, base: Parameters | None = None, names: Sequence[str] = NAMES
) -> Parameters:
    """`base` with the named fields replaced by the values that the reals stand for."""
    values = {name: BOUNDS[name].to_value(float(real)) for name, real in zip(names, vector, strict=True)}
    return replace(base or Parameters(), **values)


def values(parameters: Parameters) -> dict[str, float]:
    """Field → number, without basis, interval and sources."""
    return {name: getattr(parameters, name) for name in NAMES}


def out_of_bounds(values: Mapping[str, float]) -> tuple[str, ...]:
    """Why these numbers cannot be parameters; empty when they can.

    >>> out_of_bounds({"matmul_frac": 1.4, "speed": 1})
    ('matmul_frac: 1.4 is outside 0.02..1.0', 'speed: is not a parameter')
    """
    reasons = []
    for name, value in values.items():
        bounds = BOUNDS.get(name)
        if bounds is None:
            reasons.append(f"{name}: is not a parameter")
        elif not (isinstance(value, int | float) and bounds.lower <= value <= bounds.upper):
            reasons.append(f"{name}: {value} is outside {bounds.lower:g}..{bounds.upper}")
    return tuple(reasons)


def widened(parameters: Parameters, factor: float, basis: Basis, note: str) -> Parameters:
    """The same numbers for something they were not found on: a wider interval, a weaker basis.

    `factor` 1.5 turns an interval of −20 % into −27 % (powers of the ends, so it stays above zero).

    >>> round(widened(Parameters(low_frac=0.8, high_frac=1.25), 1.5, Basis.EXTRAPOLATED, "").low_frac, 2)
    0.72
    """
    low_frac, high_frac = parameters.low_frac**factor, parameters.high_frac**factor
    return replace(parameters, low_frac=low_frac, high_frac=high_frac, basis=basis, note=note)
