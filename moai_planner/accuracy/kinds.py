"""Kinds of metrics: what errors are pooled by."""

from __future__ import annotations

STEP, FIRST, WHOLE, RATE = "tpot_s", "ttft_s", "e2el_s", "tokens_per_s"
KINDS = {"ttft": FIRST, "tpot": STEP, "itl": STEP, "e2el": WHOLE, "output": RATE, "total": RATE}
"""First word of a metric's name → its plain kind."""
APART = ("mean", "p90", "p99")
"""Statistics that have residuals of their own: a run's mean is moved by its slowest requests."""
GAP_TAIL = "itl_s_p99"
"""One gap between tokens in a hundred, unlike the time per token of one request in a hundred."""


def kind_of(metric: str) -> str:
    """The kind of a metric; medians and rates have the plain one.

    >>> kind_of("tpot_ms_median"), kind_of("ttft_ms_mean"), kind_of("itl_ms_p99"), kind_of("total_tps")
    ('tpot_s', 'ttft_s_mean', 'itl_s_p99', 'tokens_per_s')
    """
    words = metric.split("_")
    plain, statistic = KINDS[words[0]], words[-1]
    if plain == RATE or statistic not in APART:
        return plain
    return GAP_TAIL if (words[0], statistic) == ("itl", "p99") else f"{plain}_{statistic}"


def plain_of(kind: str) -> str:
    """The kind without its statistic.

    >>> plain_of("ttft_s_mean"), plain_of("tokens_per_s")
    ('ttft_s', 'tokens_per_s')
    """
    return RATE if kind == RATE else KINDS[kind.split("_")[0]]
