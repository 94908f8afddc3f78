"""Decode slots of TensorRT-LLM's published disaggregated runs of DeepSeek-R1.

`published_slots.csv`: the largest batch of a decode rank, by accelerator, number format, nominal lengths,
drafts, decode workers and their ranks, and concurrency; read out of the names and settings of NVIDIA's
recipes (github.com/NVIDIA/srt-slurm, `recipes/trtllm`, Apache-2.0), which InferenceX runs.

>>> published_slots("h100_sxm", "fp8", 1024, 1024, drafts=True, workers=3, tp=16, dp=1, concurrency=462)
128
>>> published_slots("h100_sxm", "fp8", 1024, 1024, drafts=True, workers=3, tp=16, dp=1, concurrency=463)
0
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_suffix(".csv")


def published_slots(
    accelerator: str,
    precision: str,
    isl: int,
    osl: int,
    *,
    drafts: bool,
    workers: int,
    tp: int,
    dp: int,
    concurrency: int,
) -> int:
    """Sequences that one rank decodes at once; 0 where no recipe says. Lengths are the nominal ones."""
    return _table().get((accelerator, precision, isl, osl, int(drafts), workers, tp, dp, concurrency), 0)


@cache
def _table() -> dict[tuple, int]:
    with FILE.open(encoding="utf-8", newline="") as handle:
        lines = list(csv.reader(handle))[1:]
    return {(*line[:2], *map(int, line[2:-1])): int(line[-1]) for line in lines}
