r"""A trace → its summary for the integer programme: cells of similar requests, with rates, by window.

    workload = summarise(trace("azure_2023_conv"), rate_scale=3.0)
    workload.windows[0].cells[0].rate_req_per_s

The cells partition the requests (each belongs to exactly one), and every figure of a cell is a mean over
its own members, so rates add up to the trace's rate and rate × length to its tokens per second, exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moai_planner.catalog.trace_windows import demand_windows, equal_windows
from moai_planner.domain import units
from moai_planner.domain.errors import InputError, Problem
from moai_planner.domain.workload import Cell, Trace, Window, Workload

DEFAULT_CELLS = (4, 3)
"Bins of prompt length × bins of output length in each; docs/traces.md shows the error by count."

MOST_RATE_SCALE = units.GIGA
"Beyond it the figure is a mistake, and rates lose their meaning."


def summarise(
    trace: Trace,
    rate_scale: float = 1.0,
    cells: tuple[int, int] = DEFAULT_CELLS,
    windows: int | str | Sequence[tuple[float, float]] | None = None,
) -> Workload:
    """Bucket a trace. Rates are multiplied by `rate_scale`; lengths and times stay as they are.

    `cells` (prompt bins, output bins): prompts are cut at quantiles that weigh requests and tokens alike,
    and each prompt bin's outputs at their own. `windows`: None = one over the whole trace; a number =
    that many of equal length; "auto" = few steps that follow the demand; or (start_s, end_s) pairs, in
    trace time.
    """
    _check_arguments(trace, rate_scale, cells)
    member = assign_cells(trace, cells)
    cached_tokens = cached_prefix_tokens(trace)
    spans = _spans(trace, windows)
    return Workload(
        trace=trace.name,
        windows=tuple(
            _window(trace, name, start_s, end_s, member, cached_tokens, rate_scale, cells)
            for name, start_s, end_s in spans
        ),
    )


def assign_cells(trace: Trace, cells: tuple[int, int]) -> np.ndarray:
    """int [n]: the cell of each request, prompt bin × output bins + output bin. Equal lengths share one."""
    prompt_bins, output_bins = cells
    prompt_bin = _quantile_bin(trace.isl_tokens, prompt_bins)
    output_bin = np.zeros(len(trace), dtype=np.int64)
    for each in range(prompt_bins):
        inside = prompt_bin == each
        output_bin[inside] = _quantile_bin(trace.osl_tokens[inside], output_bins)
    return prompt_bin * output_bins + output_bin


def cached_prefix_tokens(trace: Trace) -> np.ndarray:
    """int [n]: prompt tokens that an unbounded prefix cache would hold when the request arrives.

    The leading blocks of the prompt that an earlier request had; zero for a trace without block ids.
    """
    if trace.block_hashes is None or trace.block_offsets is None or len(trace.block_hashes) == 0:
        return np.zeros(len(trace), dtype=np.int64)
    starts, counts = trace.block_offsets[:-1], np.diff(trace.block_offsets)
    leading = counts.copy()
    _, first_seen = np.unique(trace.block_hashes, return_index=True)
    rows = np.searchsorted(trace.block_offsets, first_seen, side="right") - 1
    np.minimum.at(leading, rows, first_seen - starts[rows])
    return np.minimum(leading * trace.block_tokens, trace.isl_tokens)


def burstiness_cv(arrival_s: np.ndarray) -> float:
    """Coefficient of variation of the gaps between arrivals; 1 (Poisson) where fewer than two gaps tell."""
    gaps = np.diff(arrival_s)
    if len(gaps) < 2 or gaps.sum() <= 0:
        return 1.0
    return float(gaps.std() / gaps.mean())


def _quantile_bin(values: np.ndarray, bins: int) -> np.ndarray:
    """Bins of equal weight, where a request weighs 1 + length / mean length: half by number, half by tokens.

    Plain quantiles leave a long tail in one bin, where most of the tokens are; docs/traces.md compares.
    """
    if len(values) == 0:
        return np.zeros(0, dtype=np.int64)
    lengths, counts = np.unique(values, return_counts=True)
    weight_up_to = np.cumsum(counts * (1 + lengths / values.mean()))
    cuts = np.searchsorted(weight_up_to, weight_up_to[-1] * np.arange(1, bins) / bins)
    return np.searchsorted(lengths[np.minimum(cuts, len(lengths) - 1)], values, side="left")


def _window(
    trace: Trace,
    name: str,
    start_s: float,
    end_s: float,
    member: np.ndarray,
    cached_tokens: np.ndarray,
    rate_scale: float,
    cells: tuple[int, int],
) -> Window:
    # The last window also holds a request at the very end of the trace.
    low, high = np.searchsorted(trace.arrival_s, (start_s, end_s))
    high = len(trace) if end_s >= trace.duration_s else high
    inside = slice(low, high)
    return Window(
        name=name,
        start_s=start_s,
        end_s=end_s,
        cells=tuple(
            _cells(
                trace.isl_tokens[inside],
                trace.osl_tokens[inside],
                cached_tokens[inside],
                member[inside],
                rate_scale / (end_s - start_s),
                cells,
            )
        ),
        burstiness_cv=burstiness_cv(trace.arrival_s[inside]),
    )


def _cells(
    isl: np.ndarray,
    osl: np.ndarray,
    cached: np.ndarray,
    member: np.ndarray,
    rate_of_one_req_per_s: float,
    cells: tuple[int, int],
) -> list[Cell]:
    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(member, weights=values, minlength=cells[0] * cells[1])

    isl_float, osl_float = isl.astype(float), osl.astype(float)
    count, isl_sum, osl_sum = total(np.ones(len(isl))), total(isl_float), total(osl_float)
    isl_squared, cached_sum = total(isl_float**2), total(cached.astype(float))
    context = total(osl_float * (isl_float + osl_float / 2))
    found = []
    for cell in np.flatnonzero(count):
        n, here = count[cell], member == cell
        found.append(
            Cell(
                id=f"i{cell // cells[1] + 1}o{cell % cells[1] + 1}",
                isl_tokens=float(isl_sum[cell] / n),
                osl_tokens=float(osl_sum[cell] / n),
                isl_squared_tokens=float(isl_squared[cell] / n),
                isl_max_tokens=int(isl[here].max()),
                osl_max_tokens=int(osl[here].max()),
                cached_frac=float(cached_sum[cell] / isl_sum[cell]),
                rate_req_per_s=float(n * rate_of_one_req_per_s),
                context_tokens=float(context[cell] / osl_sum[cell]),
            )
        )
    return found


def _spans(
    trace: Trace, windows: int | str | Sequence[tuple[float, float]] | None
) -> list[tuple[str, float, float]]:
    if windows is None:
        return [("all", 0.0, trace.duration_s)]
    if windows == "auto":
        pairs = demand_windows(trace)
    elif isinstance(windows, int) and not isinstance(windows, bool) and windows > 0:
        pairs = equal_windows(trace, windows)
    elif isinstance(windows, Sequence) and not isinstance(windows, str) and windows:
        pairs = _checked_pairs(trace, windows)
    else:
        raise InputError(
            Problem(trace.name, "windows", str(windows), 'write a number above zero, "auto" or pairs')
        )
    return [(f"w{number}", start_s, end_s) for number, (start_s, end_s) in enumerate(pairs, start=1)]


def _checked_pairs(trace: Trace, pairs: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    wrong = [pair for pair in pairs if len(pair) != 2 or not 0 <= pair[0] < pair[1] <= trace.duration_s]
    if wrong:
        remedy = f"write (start_s, end_s) inside 0 to {trace.duration_s:g} s"
        raise InputError([Problem(trace.name, "windows", str(pair), remedy) for pair in wrong])
    return [(float(start_s), float(end_s)) for start_s, end_s in pairs]


def _check_arguments(trace: Trace, rate_scale: float, cells: tuple[int, int]) -> None:
    problems = []
    if not 0 < rate_scale <= MOST_RATE_SCALE:
        remedy = f"give a number above zero, at most {MOST_RATE_SCALE:g}"
        problems.append(Problem(trace.name, "rate_scale", f"{rate_scale}", remedy))
    if len(cells) != 2 or not all(isinstance(n, int) and n >= 1 for n in cells):
        problems.append(Problem(trace.name, "cells", str(cells), "give two whole numbers, 1 or more"))
    if len(trace) == 0:
        problems.append(Problem(trace.name, "", "no requests", "give a trace with at least one request"))
    if problems:
        raise InputError(problems)
