"""docs/accuracy.md and its pictures, from comparisons: the same measurements give the same text.

text, pictures = accuracy_report(pairs, unsupported, beyond, left, stories, about)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from moai_planner.accuracy.choices import CLOSE, DEVICES, PROMISES_MS, Duel, Pick, duels, picks
from moai_planner.accuracy.compare import Pair, group
from moai_planner.accuracy.leave_out import FEWEST_REFITTED
from moai_planner.accuracy.noise import NoiseRow, noise_floor
from moai_planner.accuracy.peaks import Beyond
from moai_planner.accuracy.picture import concurrency_picture, scatter_picture
from moai_planner.accuracy.run import Unsupported
from moai_planner.domain.units import MILLI

COVERED_METRICS = (
    "tpot_ms_mean",
    "tpot_ms_median",
    "itl_ms_mean",
    "itl_ms_p99",
    "ttft_ms_mean",
    "ttft_ms_median",
    "e2el_s_mean",
    "e2el_s_median",
    "total_tps",
    "total_tps_per_accel",
)
HEAD_METRICS = ("tpot_ms_mean", "tpot_ms_median", "total_tps", "total_tps_per_accel")
VLLM_DEVICES = ("h100_sxm", "h200_sxm", "mi300x")


@dataclass(frozen=True)
class Left:
    """Errors of one family with a group left out of its fit."""

    family: str
    left_out: str
    kind: str
    n: int
    median_error: float
    transfers: bool = True
    "Other rows of the family stayed in the fit."


def accuracy_report(
    pairs: Sequence[Pair],
    unsupported: Sequence[Unsupported],
    beyond: Sequence[Beyond],
    left: Sequence[Left],
    stories: str,
    about: str,
) -> tuple[str, Mapping[str, str]]:
    """Text of the page and name → SVG of its pictures."""
    held = [pair for pair in pairs if pair.run.split == "validate"]
    fought = duels(held)
    sections = (
        _opening(about, pairs, unsupported),
        _goals(held, fought, left),
        _pictures(),
        _by_group(held),
        _choices(picks(held), fought),
        _coverage(held),
        _left_out(left),
        "## What each parameter is worth\n\nIn [ablations.md](accuracy/ablations.md), field by field.",
        "## With a measured profile of an H200\n\nIn [h200.md](accuracy/h200.md): steps and serving runs on "
        "the device and published runs, predicted before and after; or that no profile is there yet.",
        "## Measurements found elsewhere\n\nIn [elsewhere.md](accuracy/elsewhere.md): runs out of issues, "
        "recipes and reports, with settings half stated, by origin, engine and source.",
        _noise(noise_floor([pair.run for pair in {p.run.id: p for p in pairs}.values()])),
        _peers(),
        "## Mispredictions, and what their shape says\n\n" + stories.strip(),
        _beyond_peaks(beyond),
        _not_predicted(unsupported),
    )
    pictures = {
        "scatter.svg": scatter_picture([p for p in held if p.metric.startswith("tpot_ms_me")]),
        "concurrency.svg": concurrency_picture([p for p in held if p.metric.startswith("tpot_ms_me")]),
    }
    return "\n\n".join(sections) + "\n", pictures


def _opening(about: str, pairs: Sequence[Pair], unsupported: Sequence[Unsupported]) -> str:
    runs = Counter(pair.run.split for pair in {p.run.id: p for p in pairs}.values())
    splits = ", ".join(f"{count} {split}" for split, count in sorted(runs.items()))
    return (
        "# How true the predictions are\n\n"
        f"Written by `python benchmarks/validate.py {about}`; every figure below is computed, none is "
        "typed in (except where a source is named). Parameters are fitted to rows marked `calibrate` "
        "only; the tables "
        "show rows marked `validate`, which no fit has seen. "
        f"Runs predicted: {splits}; not predicted: {len(unsupported)}, with reasons at the end. "
        "Errors are predicted over measured minus one; *median* is the median absolute error."
    )


def _vllm(pair: Pair) -> bool:
    return pair.run.engine == "vllm" and pair.run.accelerator in VLLM_DEVICES


def _other(pair: Pair) -> bool:
    return pair.run.engine in ("sglang", "trtllm", "atom")


def _other_colocated(pair: Pair) -> bool:
    return _other(pair) and not pair.run.disaggregated


def _from(source: str) -> Callable[[Pair], bool]:
    return lambda pair: pair.run.source.startswith(source)


TPOT = ("tpot_ms_mean", "tpot_ms_median")
ACROSS = "Moreh GPT-OSS"
OPEN, R1, OSS = _from("BLIS training"), _from("Moreh DeepSeek-R1"), _from(ACROSS)
GOALS = (
    ("vLLM on H100, H200, MI300X: TPOT", "7 %", _vllm, TPOT, median, "6.5 % (open loop); 13 % best planner"),
    ("the same: total throughput", "7 %", _vllm, ("total_tps",), median, "–"),
    ("open-loop vLLM runs: E2E mean", "6 %", OPEN, ("e2el_s_mean",), median, "6.8 %"),
    ("open-loop vLLM runs: TTFT mean", "15 %", OPEN, ("ttft_ms_mean",), median, "18.4 %"),
    ("open-loop vLLM runs: ITL mean", "6 %", OPEN, ("itl_ms_mean",), median, "6.5 %"),
    ("SGLang, TensorRT-LLM, ATOM: TPOT", "12 %", _other, TPOT, median, "–"),
    ("the same, colocated only", "12 %", _other_colocated, TPOT, median, "–"),
    ("DeepSeek-R1 on 5 × 8 MI300X: E2E median, mean error", "5 %", R1, ("e2el_s_median",), fmean, "–"),
    ("the same: total throughput, mean error", "5 %", R1, ("total_tps",), fmean, "–"),
    ("the same: p99 ITL", "25 %", R1, ("itl_ms_p99",), median, "–"),
    ("gpt-oss-120b across vendors: E2E median, mean error", "10 %", OSS, ("e2el_s_median",), fmean, "–"),
    ("the same: total throughput, mean error", "10 %", OSS, ("total_tps",), fmean, "–"),
    ("one MI300X, one MI308X server: mean", "10 %", _from("Moreh MI300X/"), ("output_tps",), fmean, "–"),
)
"""What, goal, rows, metrics, statistic of the absolute errors, best known elsewhere."""


def _goals(held: Sequence[Pair], fought: Sequence[Duel], left: Sequence[Left]) -> str:
    lines = []
    for what, goal, wanted, metrics, statistic, elsewhere in GOALS:
        sizes = [abs(pair.error) for pair in held if wanted(pair) and pair.metric in metrics]
        found = f"{statistic(sizes):.1%} (n {len(sizes)})" if sizes else "no rows"
        lines.append(f"| {what} | {goal} | {found} | {elsewhere} |")
    across = [duel.right for duel in fought if duel.differs == DEVICES and duel.source.startswith(ACROSS)]
    won = f"{sum(across)} of {len(across)}" if across else "no rows"
    lines.append(f"| gpt-oss-120b, prefill on H100 or MI300X: which wins, E2E and TPS | all | {won} | – |")
    for what, goal, group_name in (("device", "15 %", "accelerator"), ("model", "10 %", "model")):
        rows = [row for row in left if row.left_out == group_name and row.kind == "tpot_s"]
        found = "; ".join(_told(row) for row in rows) or "no rows"
        name = f"leave one {what} out: TPOT, by family and of all rows"
        lines.append(f"| {name} | {goal} | {found} | nobody reports it |")
    head = "| what | goal | found | best known elsewhere |\n| --- | --- | --- | --- |\n"
    return "## Goals and what is reached\n\nMedian absolute error unless said.\n\n" + head + "\n".join(lines)


def _told(row: Left) -> str:
    return f"{row.family} {row.median_error:.1%}" + ("" if row.transfers else " (nothing left of it)")


def _pictures() -> str:
    return (
        "## Pictures\n\n![TPOT predicted and measured](accuracy/scatter.svg)\n\n"
        "![TPOT error by concurrency](accuracy/concurrency.svg)"
    )


def _by_group(held: Sequence[Pair]) -> str:
    head = "| engine | accelerator | topology | metric | n | median | mean | bias | coverage |\n"
    rule = "| --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: |\n"
    chosen = [pair for pair in held if pair.metric in (*HEAD_METRICS, "ttft_ms_mean", "e2el_s_mean")]
    groups = group(chosen, lambda p: (p.run.engine, p.run.accelerator, p.run.topology, p.metric))
    lines = [
        f"| {' | '.join(g.labels)} | {g.n} | {g.median_ape:.1%} | {g.mape:.1%} | {g.bias:+.1%} "
        f"| {g.coverage:.0%} |"
        for g in groups
    ]
    return "## Validation rows by engine and device\n\n" + head + rule + "\n".join(lines)


def _choices(picked: Sequence[Pick], fought: Sequence[Duel]) -> str:
    by_engine: dict[str, list[Pick]] = {}
    for pick in picked:
        by_engine.setdefault(pick.engine, []).append(pick)
    by_difference: dict[tuple[str, str, str], list[Duel]] = {}
    for duel in fought:
        by_difference.setdefault((duel.differs, duel.source, duel.metric), []).append(duel)
    promises = ", ".join(f"{promise:g}" for promise in PROMISES_MS)
    lines = [
        f"| {engine} | {len(own)} | {fmean(p.right for p in own):.0%} | {fmean(p.kept for p in own):.0%} "
        f"| {fmean(p.share for p in own):.0%} | {fmean(p.any_share for p in own):.0%} |"
        for engine, own in (*sorted(by_engine.items()), ("all", picked))
        if own
    ]
    won = [
        f"| {' | '.join(key)} | {len(own)} | {fmean(duel.right for duel in own):.0%} "
        f"| {fmean(duel.by_size for duel in own):.0%} |"
        for key, own in sorted(by_difference.items())
    ]
    return (
        "## Would the choice have been right\n\n"
        f"Promises of {promises} ms a token, wherever runs of one source, model, number format, engine, "
        "devices and lengths have several layouts and one keeps them. The run predicted to keep the promise "
        "and to serve most tokens a device is picked, and judged as it was measured: *right* = it keeps the "
        f"promise and is as good as the best that does, both within {CLOSE:.0%}. *Share* = its tokens/s over "
        "those of the best, nothing where the promise is broken; *blind* = the same over all layouts, each "
        "at the best load that keeps the promise. Both are means. Of runs repeated the newest counts; "
        "promises of one contest are not independent.\n\n"
        "| engine | promises | right | kept | share | blind |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |\n" + "\n".join(lines) + "\n\n"
        f"Two runs under one load whose measurements differ by more than {CLOSE:.0%}: how often the one "
        "predicted to be better is. They differ in devices, in disaggregation, in engine or in layout; the "
        "first that applies is named. *By size* = how often a rule without a model is right: more devices "
        "answer sooner, and serve fewer tokens each (half, where both use as many).\n\n"
        "| they differ in | source | metric | n | right | by size |\n"
        "| --- | --- | --- | ---: | ---: | ---: |\n" + "\n".join(won)
    )


def _coverage(held: Sequence[Pair]) -> str:
    head = "| engine | metric | n | inside the 80 % interval | median width |\n"
    rule = "| --- | --- | ---: | ---: | ---: |\n"
    chosen = [pair for pair in held if pair.metric in COVERED_METRICS]
    groups = (*group(chosen, lambda p: ("all", p.metric)), *group(chosen, lambda p: (p.run.engine, p.metric)))
    lines = [
        f"| {g.labels[0]} | {g.labels[1]} | {g.n} | {g.coverage:.0%} | ×{g.low:.2f} … ×{g.high:.2f} |"
        for g in groups
    ]
    return (
        "## Coverage of the intervals\n\n"
        "The interval of a prediction is made of residuals of calibration rows whose engine configuration "
        "was left out of the fit, widened for models, devices and engines that no row of the set had by "
        "what leaving such out widened; the goal is 75 to 88 % on rows never fitted. Width: the median ends, "
        "over the prediction.\n\n" + head + rule + "\n".join(lines)
    )


def _left_out(left: Sequence[Left]) -> str:
    names = {
        "nothing": "fitted",
        "cell": "one engine configuration out",
        "model": "one model out",
        "accelerator": "one device out",
        "family": "the family out",
    }
    head = "| family | kind | n | " + " | ".join(names.values()) + " |\n"
    rule = "| --- | --- | ---: | " + " | ".join("---:" for _ in names) + " |\n"
    figures = {(row.family, row.kind, row.left_out): row for row in left}
    lines = []
    for family, kind in dict.fromkeys((row.family, row.kind) for row in left):
        cells = [figures.get((family, kind, name)) for name in names]
        texts = [f"{cell.median_error:.1%}{'' if cell.transfers else '*'}" if cell else "–" for cell in cells]
        lines.append(f"| {family} | {kind} | {cells[0].n if cells[0] else 0} | " + " | ".join(texts) + " |")
    return (
        "## Leaving groups out of the fit\n\n"
        "Calibration rows, median absolute error. A model, a device or a family (an engine on a platform) is "
        "left out by a refit of everything without any of its rows; an engine configuration, and what has "
        f"fewer than {FEWEST_REFITTED} values, to first order. "
        "\\* = the family had rows of nothing else: its error is that of corrections borrowed from other "
        "engines, fitted to other models.\n\n"
        + head + rule + "\n".join(lines)
    )  # fmt: skip


def _noise(rows: Sequence[NoiseRow]) -> str:
    head = "| source | metric | repeated cells | median spread |\n| --- | --- | ---: | ---: |\n"
    lines = [
        f"| {row.source} | {row.metric} | {row.cells} | {row.spread:.1%} |"
        if row.cells
        else f"| {row.source} | all | 0 | no repeats |"
        for row in rows
    ]
    return (
        "## Noise floor of the measurements\n\n"
        "The same configuration measured more than once, in runs that differ in what came out (a row listed "
        "twice is no repeat): half the range over the mean. No model can be more accurate than this. Across "
        "sources one configuration differs more, because software moved on.\n\n"
        + head + "\n".join(lines)
    )  # fmt: skip


def _peers() -> str:
    return (
        "## Errors others publish\n\n"
        "| who | on what | error |\n| --- | --- | --- |\n"
        "| BLIS (inference-sim) | its own open-loop runs, mostly H100 | E2E 6.8 %, ITL 6.5 %, TTFT 18.4 % |\n"
        "| AIConfigurator 0.12 | its vLLM runs, means | TPOT 32 % (dense 10 %, MoE 39 %), TTFT 43 % |\n"
        "| LLMServingSim 2.0 | four runs, every operator profiled | TPOT 1.7 %, E2E 2.2 % |\n\n"
        "Those sets are not these rows; only the open-loop runs are the same."
    )


def _beyond_peaks(beyond: Sequence[Beyond]) -> str:
    head = "| row | model | device | split | measured | at least | for |\n"
    rule = "| --- | --- | --- | --- | ---: | ---: | --- |\n"
    lines = [
        f"| {one.run.id} | {one.run.model}, {one.run.precision or 'as published'} | {one.run.accelerator} "
        f"| {one.run.split} | {one.tpot_s / MILLI:.4g} ms | {one.least_s / MILLI:.4g} ms | {one.limit} |"
        for one in beyond
    ]
    rows = f"{len(beyond)} {'row' if len(beyond) == 1 else 'rows'}"
    return (
        f"## Faster than the device's peaks allow, as described: {rows}\n\n"
        "Time per token below what weights, KV and products take at 100 % of every data-sheet figure "
        "(`accuracy/peaks.py`; generous where a row is silent). Something of these runs is not in their "
        "rows. They are predicted and counted like all others.\n\n" + head + rule + "\n".join(lines)
    )


def _not_predicted(unsupported: Sequence[Unsupported]) -> str:
    reasons = Counter((row.source, row.split, row.reason) for row in unsupported)
    head = "| source | split | reason | rows |\n| --- | --- | --- | ---: |\n"
    lines = [f"| {' | '.join(key)} | {count} |" for key, count in sorted(reasons.items())]
    return "## Rows without a prediction\n\n" + head + "\n".join(lines)
