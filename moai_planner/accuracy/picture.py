"""Two small pictures as SVG text: predicted against measured, and error against concurrency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from statistics import median

from moai_planner.accuracy.compare import Pair

SIZE, MARGIN = 480, 56
COLOURS = {"vllm": "#1f6fb2", "sglang": "#c05a1a", "trtllm": "#4c8c2b", "atom": "#7b4bb3"}
OTHER_COLOUR = "#666666"
LARGEST_ERROR = 1.0


def scatter_picture(pairs: Sequence[Pair]) -> str:
    """Both axes logarithmic; the line is a perfect prediction."""
    if not pairs:
        return _frame("no rows", "", "", [])
    low = math.log10(min(min(p.measured, p.predicted) for p in pairs))
    high = math.log10(max(max(p.measured, p.predicted) for p in pairs))
    scale = (SIZE - 2 * MARGIN) / max(high - low, 1e-9)

    def at(value: float) -> float:
        return MARGIN + (math.log10(value) - low) * scale

    body = [_line(MARGIN, SIZE - MARGIN, SIZE - MARGIN, MARGIN, "#999999")]
    for pair in pairs:
        colour = COLOURS.get(pair.run.engine, OTHER_COLOUR)
        body.append(_dot(at(pair.measured), SIZE - at(pair.predicted), colour))
    for exponent in range(math.ceil(low), math.floor(high) + 1):
        value = 10.0**exponent
        body.append(_text(at(value), SIZE - MARGIN + 16, f"{value:g}"))
        body.append(_text(MARGIN - 20, SIZE - at(value) + 4, f"{value:g}"))
    return _frame("TPOT, validation rows", "measured, ms", "predicted, ms", body)


def concurrency_picture(pairs: Sequence[Pair]) -> str:
    """Signed error by concurrency (logarithmic), with the median of each engine."""
    known = [pair for pair in pairs if pair.run.concurrency > 0]
    if not known:
        return _frame("no rows", "", "", [])
    most = max(math.log2(max(pair.run.concurrency, 2)) for pair in known)

    def across(concurrency: float) -> float:
        return MARGIN + math.log2(concurrency) / most * (SIZE - 2 * MARGIN)

    def up(error: float) -> float:
        shown = min(max(error, -LARGEST_ERROR), LARGEST_ERROR)
        return SIZE / 2 - shown / LARGEST_ERROR * (SIZE / 2 - MARGIN)

    body = [_line(MARGIN, up(0), SIZE - MARGIN, up(0), "#999999")]
    body += [
        _dot(across(p.run.concurrency), up(p.error), COLOURS.get(p.run.engine, OTHER_COLOUR)) for p in known
    ]
    for engine, colour in COLOURS.items():
        own = [pair for pair in known if pair.run.engine == engine]
        points = [
            (across(c), up(median([p.error for p in own if p.run.concurrency == c])))
            for c in sorted({p.run.concurrency for p in own})
        ]
        if points:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
    body += [_text(MARGIN - 24, up(e) + 4, f"{e:+.0%}") for e in (-0.5, 0.0, 0.5)]
    body += [_text(across(2.0**k), SIZE - MARGIN + 16, f"{2**k}") for k in range(0, int(most) + 1, 2)]
    return _frame(
        "TPOT error by concurrency, validation rows", "concurrency", "predicted / measured - 1", body
    )


def _frame(title: str, across: str, up: str, body: Sequence[str]) -> str:
    legend = [
        _dot(SIZE - MARGIN - 64, MARGIN + 14 * i, colour, 4)
        + _text(SIZE - MARGIN - 30, MARGIN + 14 * i + 4, name)
        for i, (name, colour) in enumerate((*COLOURS.items(), ("other", OTHER_COLOUR)))
    ]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIZE} {SIZE}" width="{SIZE}" height="{SIZE}" '
        'font-family="sans-serif" font-size="11" text-anchor="middle">'
    )
    parts = [
        head,
        f"<title>{escape(title)}</title>",
        f'<rect width="{SIZE}" height="{SIZE}" fill="white"/>',
        _text(SIZE / 2, 24, title),
        _text(SIZE / 2, SIZE - 12, across),
        f'<text transform="translate(14 {SIZE // 2}) rotate(-90)">{escape(up)}</text>',
        *body,
        *legend,
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _dot(x: float, y: float, colour: str, radius: float = 1.6) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}" fill-opacity="0.5"/>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
