"""Efficiencies that public operator timings imply: `anchors.yaml` and a table in docs/cost-model.md.

    python benchmarks/operator_anchors.py            # print the table
    python benchmarks/operator_anchors.py --write    # and write both files

Each (device, number format) gets one curve an operator, of the cost model's own form, fitted to the
logarithm of time with every shape weighing the same. `start_s` (launch, ramp and tail of one kernel, launched
alone) is fitted beside it and left out of the anchors: a replayed graph hides most of it. The spread of a
value is that of refits to resampled shapes, in the value's real form (log or logit), never below the curve's
own error nor FLOOR: tuned kernels are not an engine's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import operator_tables
import pandas as pd
from scipy.optimize import least_squares

from moai_planner.catalog.accelerators import accelerator
from moai_planner.catalog.parameters import assumed_for
from moai_planner.cli.output import write_text
from moai_planner.costmodel.comm import group_rate
from moai_planner.costmodel.roofline import paid_rows, product_s, roofline_s, width_share
from moai_planner.domain.accelerator import Accelerator
from moai_planner.domain.parameters import BOUNDS
from moai_planner.domain.precision import bytes_per_element, multiplied_as, precision
from moai_planner.domain.units import MICRO

HERE = Path(__file__).resolve().parent.parent
ANCHORS = HERE / "hardware_profiles" / "parameters" / "anchors.yaml"
TABLE = HERE / "docs" / "cost-model.md"
BEGIN, END = "<!-- operators -->", "<!-- /operators -->"
RESAMPLES = 16
MOST_ROWS = 1200
FLOOR = 0.1
FEWEST_SHAPES = 4
LEFT_OUT = {("h100_sxm", "decode attention"), ("h100_sxm", "prompt attention")}
"""Timed on caches that fit the second-level cache: they tell nothing of memory."""
LAUNCHED_ALONE = ("collective_hop_s",)
"""Fitted beside `start_s`, which a timing of one collective cannot tell from it: no anchor."""
UNOVERLAPPED = 0.1
START_S = 6 * MICRO
PRIOR_WEIGHT, REACH = 0.05, 5.0
"""Pull towards the starting values, and how far from them a fit may go (real form)."""
LONG_S = 100 * MICRO
"""Errors are told for operators at least this long: shorter ones are start and tail."""

Curve = Callable[[Accelerator, str, pd.DataFrame, Mapping[str, float]], np.ndarray]


@dataclass(frozen=True)
class Operator:
    """One kind of operation, the fields that its time depends on, and its formula (without start)."""

    name: str
    rows: Callable[[], pd.DataFrame]
    start: Mapping[str, float]
    "Field → where the fit begins."
    seconds: Curve


def _products_s(a: Accelerator, number_format: str, d: pd.DataFrame, p: Mapping[str, float]) -> np.ndarray:
    peak = a.flop_per_s(multiplied_as(number_format))
    compute = product_s(d.weights, d.rows, p["matmul_half_tokens"], peak, p["matmul_frac"])
    memory = (
        d.weights
        * bytes_per_element(number_format)
        / (a.memory_bandwidth_bytes_per_s * p["weight_bandwidth_frac"])
    )
    return roofline_s(compute, memory, UNOVERLAPPED)


def _experts_s(a: Accelerator, number_format: str, d: pd.DataFrame, p: Mapping[str, float]) -> np.ndarray:
    peak = a.flop_per_s(multiplied_as(number_format))
    rows = paid_rows(d.rows, d.touched * p["expert_half_tokens"])
    memory = d.touched * d.weights * bytes_per_element(number_format)
    memory = memory / (a.memory_bandwidth_bytes_per_s * p["expert_bandwidth_frac"])
    half_width = assumed_for(a, "vllm", precision(number_format)).expert_half_width
    reached = peak * p["expert_matmul_frac"] * width_share(d.width, half_width)
    return roofline_s(2 * d.weights * rows / reached, memory, UNOVERLAPPED)


def _decode_s(a: Accelerator, number_format: str, d: pd.DataFrame, p: Mapping[str, float]) -> np.ndarray:
    return d.kv_bytes / (a.memory_bandwidth_bytes_per_s * p["kv_bandwidth_frac"])


def _prompt_s(a: Accelerator, number_format: str, d: pd.DataFrame, p: Mapping[str, float]) -> np.ndarray:
    return d.flop / (a.flop_per_s("bf16") * p["attention_frac"])


def _reduce_s(a: Accelerator, number_format: str, d: pd.DataFrame, p: Mapping[str, float]) -> np.ndarray:
    rate = np.array([group_rate(a.scale_up, int(n)) for n in d.ranks])
    return p["collective_hop_s"] + d.bytes / (rate * p["collective_bandwidth_frac"])


OPERATORS = (
    Operator(
        "linear layers",
        operator_tables.products,
        {"matmul_frac": 0.6, "matmul_half_tokens": 150.0, "weight_bandwidth_frac": 0.8},
        _products_s,
    ),
    Operator(
        "fused experts",
        operator_tables.experts,
        {"expert_matmul_frac": 0.4, "expert_half_tokens": 80.0, "expert_bandwidth_frac": 0.7},
        _experts_s,
    ),
    Operator("decode attention", operator_tables.decode_attention, {"kv_bandwidth_frac": 0.7}, _decode_s),
    Operator("prompt attention", operator_tables.prompt_attention, {"attention_frac": 0.5}, _prompt_s),
    Operator(
        "all-reduce",
        operator_tables.all_reduce,
        {"collective_hop_s": 8 * MICRO, "collective_bandwidth_frac": 0.7},
        _reduce_s,
    ),
)


@dataclass(frozen=True)
class Anchor:
    """What one table says about one device and number format."""

    operator: str
    device: str
    number_format: str
    timings: int
    shapes: int
    values: Mapping[str, float]
    spreads: Mapping[str, float]
    "Standard deviation in the field's real form."
    start_s: float
    fitted_error: float
    "Median over timings of at least LONG_S."
    assumed_error: float
    "The same with the shipped assumed parameters."


def anchors() -> list[Anchor]:
    """Every operator, device and number format with enough shapes."""
    found = []
    for operator in OPERATORS:
        for (device, number_format), d in _timed(operator).groupby(["device", "number_format"], sort=True):
            few = d["shape"].nunique() < FEWEST_SHAPES and operator.name != "all-reduce"
            if not few and (device, operator.name) not in LEFT_OUT:
                found.append(_anchor(operator, str(device), str(number_format), d.reset_index(drop=True)))
    return found


def _timed(operator: Operator) -> pd.DataFrame:
    """Without the tuners' placeholders for kernels that failed."""
    d = operator.rows()
    numbers = d.select_dtypes("number")
    return d[(np.isfinite(numbers) & (numbers > 0)).all(axis=1)]


def _anchor(operator: Operator, device: str, number_format: str, d: pd.DataFrame) -> Anchor:
    a, names = accelerator(device), list(operator.start)
    rng = np.random.default_rng(0)
    real = _fit(operator, a, number_format, _sample(d, rng))
    shapes = d["shape"].unique()
    refits = [
        _fit(operator, a, number_format, _sample(_resampled(d, shapes, rng), rng), real)[: len(names)]
        for _ in range(RESAMPLES)
    ]
    values = dict(zip(names, _values(names, real), strict=True))
    assumed = assumed_for(a, "vllm", precision(number_format))
    own = {name: getattr(assumed, name) for name in names}
    start_s = float(np.exp(real[-1]))
    error = _error(operator, a, number_format, d, values, start_s)
    return Anchor(
        operator=operator.name,
        device=device,
        number_format=number_format,
        timings=len(d),
        shapes=len(shapes),
        values=values,
        spreads=dict(zip(names, np.maximum(np.std(refits, axis=0), max(FLOOR, error)), strict=True)),
        start_s=start_s,
        fitted_error=error,
        assumed_error=_error(operator, a, number_format, d, own, 0.0),
    )


def _resampled(d: pd.DataFrame, shapes: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    drawn = rng.choice(shapes, len(shapes))
    return pd.concat([d[d["shape"] == shape] for shape in drawn], ignore_index=True)


def _sample(d: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """At most MOST_ROWS timings; shapes and kinds of kernel equally likely."""
    weight = 1 / d.groupby(["kind", "shape"])["s"].transform("size")
    weight = weight / d.groupby("kind")["shape"].transform("nunique")
    if len(d) <= MOST_ROWS:
        return d.assign(weight=np.sqrt(weight / weight.mean()))
    rows = rng.choice(len(d), MOST_ROWS, p=(weight / weight.sum()).to_numpy())
    return d.iloc[rows].assign(weight=1.0)


def _values(names: list[str], real: np.ndarray) -> list[float]:
    return [BOUNDS[name].to_value(float(x)) for name, x in zip(names, real, strict=False)]


def _fit(
    operator: Operator, a: Accelerator, number_format: str, d: pd.DataFrame, begin: np.ndarray | None = None
) -> np.ndarray:
    """Real form of the fields, logarithm of the start; a weak prior holds what the rows do not tell."""
    names = list(operator.start)
    prior = np.array([*(BOUNDS[n].to_real(v) for n, v in operator.start.items()), np.log(START_S)])
    measured, weight = np.log(d.s.to_numpy()), d.weight.to_numpy()

    def residuals(real: np.ndarray) -> np.ndarray:
        p = dict(zip(names, _values(names, real), strict=True))
        predicted = np.asarray(operator.seconds(a, number_format, d, p)) + np.exp(real[-1])
        return np.concatenate([weight * (np.log(predicted) - measured), (real - prior) * PRIOR_WEIGHT])

    reach = np.full(len(prior), REACH)
    begin = prior if begin is None else begin
    bounds = (prior - reach, prior + reach)
    return least_squares(residuals, begin, bounds=bounds, loss="soft_l1", f_scale=0.1).x


def _error(operator, a, number_format, d: pd.DataFrame, values: Mapping[str, float], start_s: float) -> float:
    d = d[d.s >= LONG_S]
    if not len(d):
        return float("nan")
    predicted = np.asarray(operator.seconds(a, number_format, d, values)) + start_s
    return float(np.median(np.abs(predicted / d.s.to_numpy() - 1)))


def table(found: list[Anchor]) -> str:
    """Predicted operator time against timed."""
    lines = [
        "| operator | device | format | timings | shapes | fitted | start | error, fitted | error, assumed |",
        "| --- | --- | --- | ---: | ---: | --- | ---: | ---: | ---: |",
    ]
    for one in found:
        fields = ", ".join(f"`{name}` {_text(value)}" for name, value in one.values.items())
        lines.append(
            f"| {one.operator} | {one.device} | {one.number_format} | {one.timings} | {one.shapes} "
            f"| {fields} | {one.start_s / MICRO:.1f} us | {one.fitted_error:.0%} | {one.assumed_error:.0%} |"
        )
    return "\n".join(lines)


def _text(value: float) -> str:
    return f"{value:.3g}"


def document(found: list[Anchor]) -> str:
    """The anchors as YAML."""
    lines = [
        "# What public operator timings say about a device in a format: value of a parameter and spread",
        "# (standard deviation in the parameter's real form, `domain/parameters.py`). Written by",
        "# benchmarks/operator_anchors.py; sources and licences in NOTICE.",
        "format: moai-anchors/1",
        "anchors:",
    ]
    for one in found:
        a = accelerator(one.device)
        lines.append(
            f"- {{device: {one.device}, architecture: {a.architecture}, platform: {a.platform}, "
            f"number_format: {one.number_format}, operator: {one.operator}, timings: {one.timings},"
        )
        parts = [
            f"{n}: [{_text(v)}, {one.spreads[n]:.2f}]"
            for n, v in one.values.items()
            if n not in LAUNCHED_ALONE
        ]
        lines.append("   values: {" + ", ".join(parts) + "}}")
    return "\n".join(lines) + "\n"


def main(write: bool) -> None:
    found = anchors()
    print(table(found))
    if write:
        write_text(ANCHORS, document(found))
        text = TABLE.read_text(encoding="utf-8")
        before, rest = text.split(BEGIN)
        write_text(TABLE, before + BEGIN + "\n" + table(found) + "\n" + END + rest.split(END)[1])


if __name__ == "__main__":
    main("--write" in sys.argv[1:])
