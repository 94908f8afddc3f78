"""Write docs/accuracy/elsewhere.md: predictions beside measurements that no fit has seen.

python benchmarks/elsewhere.py [TABLE.csv]      # default docs/accuracy/elsewhere.csv
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from moai_planner.accuracy.compare import Pair, pairs_of, unpredicted
from moai_planner.accuracy.measurements import read_measurements
from moai_planner.accuracy.prepare import prepare
from moai_planner.accuracy.run import Run, Unsupported
from moai_planner.catalog.accelerators import accelerator
from moai_planner.catalog.models import model
from moai_planner.catalog.parameters import parameters_for
from moai_planner.cli.measured_profiles import profile_for
from moai_planner.cli.output import write_text

DOCS = Path(__file__).resolve().parent.parent / "docs" / "accuracy"
TABLE = DOCS / "elsewhere.csv"
KINDS = {
    "time per token": ("tpot_ms_mean", "tpot_ms_median", "itl_ms_mean", "itl_ms_median"),
    "throughput": ("output_tps", "total_tps"),
    "end to end": ("e2el_s_mean", "e2el_s_median"),
    "time to first token": ("ttft_ms_mean", "ttft_ms_median"),
    "p99 time per token": ("tpot_ms_p99", "itl_ms_p99"),
}
"""Of each kind a run counts once: with the first of these that it states."""
SAME_HARNESS, OTHERS = "InferenceX's harness", "all others"
FEWEST = 4
"""Values from which a line of a table is worth printing."""


def main(table: Path) -> None:
    """Predict every row and write the page."""
    measurements = read_measurements(table)
    prepared = prepare(measurements.runs, model, accelerator, parameters_for, profile_for)
    pairs = pairs_of(prepared)
    left_out = (*measurements.unsupported, *prepared.unsupported, *unpredicted(prepared, pairs))
    text = (DOCS / "elsewhere_about.md").read_text(encoding="utf-8").strip()
    sections = (
        text,
        _counts(prepared.runs, left_out),
        _by_origin(pairs),
        _by_engine(pairs),
        _by_source(pairs),
    )
    write_text(DOCS / "elsewhere.md", "\n\n".join((*sections, _left_out(left_out))) + "\n")


def _counts(runs: Sequence[Run], left_out: Sequence[Unsupported]) -> str:
    devices = Counter(run.accelerator for run in runs)
    return (
        f"{len(runs)} runs predicted, {len(left_out)} not (reasons at the end), from "
        f"{len({run.source for run in runs})} sources: {len({run.model for run in runs})} models, "
        f"{len(devices)} devices ({', '.join(f'{name} {count}' for name, count in sorted(devices.items()))})."
    )


def _by_origin(pairs: Sequence[Pair]) -> str:
    return "## By origin\n\n" + _table(pairs, ("origin",), lambda run: (_origin(run),))


def _by_engine(pairs: Sequence[Pair]) -> str:
    others = [pair for pair in pairs if _origin(pair.run) == OTHERS]
    head = "## By engine and device, without InferenceX's\n\n"
    return head + _table(others, ("engine", "accelerator"), lambda run: (run.engine, run.accelerator))


def _by_source(pairs: Sequence[Pair]) -> str:
    return "## By source\n\n" + _table(pairs, ("source",), lambda run: (run.source,))


def _origin(run: Run) -> str:
    return SAME_HARNESS if run.source.startswith("InferenceX") else OTHERS


def _table(pairs: Sequence[Pair], labels: Sequence[str], label_of) -> str:
    stated = {(pair.run.id, pair.metric): pair for pair in pairs}
    runs = {pair.run.id: pair.run for pair in pairs}
    found: dict[tuple[str, ...], list[Pair]] = defaultdict(list)
    for run in runs.values():
        for kind, metrics in KINDS.items():
            first = next((stated[run.id, m] for m in metrics if (run.id, m) in stated), None)
            if first:
                found[*label_of(run), kind].append(first)
    order = list(KINDS)
    head = f"| {' | '.join(labels)} | metric | runs | median | bias | coverage |\n"
    head += "| --- " * (len(labels) + 1) + "| ---: " * 4 + "|\n"
    lines = [
        f"| {' | '.join(key)} | {len(group)} | {median(abs(p.error) for p in group):.1%} "
        f"| {median(p.error for p in group):+.1%} | {sum(p.covered for p in group) / len(group):.0%} |"
        for key, group in sorted(found.items(), key=lambda item: (*item[0][:-1], order.index(item[0][-1])))
        if len(group) >= FEWEST
    ]
    return head + "\n".join(lines)


def _left_out(left_out: Sequence[Unsupported]) -> str:
    reasons = Counter((row.source, row.reason.partition(" (")[0]) for row in left_out)
    lines = [f"| {source} | {reason} | {count} |" for (source, reason), count in sorted(reasons.items())]
    if not lines:
        return "## Rows without a prediction\n\nNone."
    head = "## Rows without a prediction\n\n| source | reason | rows |\n| --- | --- | ---: |\n"
    return head + "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]) if len(sys.argv) == 2 else TABLE)
