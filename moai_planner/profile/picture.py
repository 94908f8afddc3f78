"""Two pictures of a profile as plain SVG: the roofline with its points, and measured over modelled.

Pure text: same points, same bytes. Light and dark backgrounds both work, since every mark carries its colour.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from moai_planner.domain import units
from moai_planner.domain.measured import PHASES, MeasuredPoint, StepShape

_COLOUR = {"prefill": "#1f6feb", "decode": "#d1571b", "mixed": "#2f8f4e"}
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 720, 420, 78, 52, 46, 18


def roofline(
    title: str,
    points: Sequence[tuple[StepShape, float, float]],
    seconds: Mapping[StepShape, float],
    ceilings: Mapping[str, float],
) -> str:
    """Achieved flop/s over intensity. points: shape, flop, bytes."""
    copy, matrix = ceilings["copy_bytes_per_s"], ceilings["matrix_bf16_flop_per_s"]
    marks = [(flop / size, flop / seconds[shape], shape) for shape, flop, size in points]
    left = min([x for x, _, _ in marks] + [matrix / copy / 8])
    right = max([x for x, _, _ in marks] + [matrix / copy * 8])
    low = min([y for _, y, _ in marks] + [left * copy])
    frame = _Frame(left, right, low / 1.5, matrix * 2)
    ridge = matrix / copy
    body = [
        frame.axes("flop a byte", "flop/s", lambda y: units.show(y, "flop_per_s", 2)),
        frame.line([(left, left * copy), (ridge, matrix), (right, matrix)], "#888"),
        frame.text(ridge, matrix * 1.15, f"matrix rate {units.show(matrix, 'flop_per_s')}", "#888"),
        frame.text(left * 1.2, left * copy * 2.6, f"copy rate {units.show(copy, 'bytes_per_s')}", "#888"),
        *(frame.dot(x, y, shape, f"{_name(shape)}: {units.show(y, 'flop_per_s')}") for x, y, shape in marks),
    ]
    return _document(title, body)


def ratios(title: str, points: Sequence[MeasuredPoint], modelled_s: Mapping[StepShape, float]) -> str:
    """Measured over modelled time by rows of the step, with each point's interval."""
    marks = [(p.shape.step_tokens, p.seconds / modelled_s[p.shape], p) for p in points]
    edge = max(1.1, *(max(y, 1 / y) for _, y, _ in marks)) * 1.05
    frame = _Frame(1, max(x for x, _, _ in marks) * 1.3, 1 / edge, edge)
    body = [
        frame.axes("rows of the step", "measured / modelled", lambda y: f"{y:.2f}", (1 / edge, 1.0, edge)),
        frame.line([(1, 1.0), (frame.right, 1.0)], "#888"),
    ]
    for x, y, p in marks:
        scale = y / p.seconds
        body.append(frame.line([(x, p.low_s * scale), (x, p.high_s * scale)], _COLOUR[p.shape.phase]))
        body.append(frame.dot(x, y, p.shape, f"{_name(p.shape)}: {y:.3f}"))
    return _document(title, body)


class _Frame:
    """Logarithmic axes from data to the picture's pixels."""

    def __init__(self, left: float, right: float, low: float, high: float):
        self.left, self.right, self.low, self.high = left, right, low, high

    def x(self, value: float) -> float:
        share = math.log(value / self.left) / math.log(self.right / self.left)
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - _TOP), 1)

    def axes(self, across: str, up: str, show_y, y_ticks: Sequence[float] = ()) -> str:
        ticks_y = y_ticks or _decades(self.low, self.high)
        parts = [
            f'<path d="M{_LEFT} {_TOP}V{_HEIGHT - _BOTTOM}H{_WIDTH - _RIGHT}" fill="none" stroke="#888"/>',
            _label((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 12, across, "middle"),
            _label(_LEFT - 66, _TOP - 10, up, "start"),
        ]
        for value in _decades(self.left, self.right):
            parts.append(_label(self.x(value), _HEIGHT - _BOTTOM + 18, f"{value:g}", "middle"))
        for value in ticks_y:
            parts.append(_label(_LEFT - 6, self.y(value) + 4, show_y(value), "end"))
        return "".join(parts)

    def line(self, corners: Sequence[tuple[float, float]], colour: str) -> str:
        path = "L".join(f"{self.x(x)} {self.y(y)}" for x, y in corners)
        return f'<path d="M{path}" fill="none" stroke="{colour}"/>'

    def text(self, x: float, y: float, text: str, colour: str) -> str:
        return _label(self.x(x), self.y(y), text, "start", colour)

    def dot(self, x: float, y: float, shape: StepShape, tip: str) -> str:
        colour = _COLOUR[shape.phase]
        return (
            f'<circle cx="{self.x(x)}" cy="{self.y(y)}" r="3.5" fill="{colour}" fill-opacity="0.75">'
            f"<title>{escape(tip)}</title></circle>"
        )


def _decades(low: float, high: float) -> list[float]:
    first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
    return [10.0**power for power in range(first, last + 1)]


def _label(x: float, y: float, text: str, anchor: str, colour: str = "#888") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _name(shape: StepShape) -> str:
    parts = [f"{shape.tokens} prompt tokens"] if shape.tokens else []
    parts += [f"{shape.batch} sequences"] if shape.batch else []
    parts += [f"at {shape.context_tokens} context"] if shape.context_tokens else []
    return f"{shape.phase}, {', '.join(parts)}"


def _document(title: str, body: Sequence[str]) -> str:
    legend = "".join(
        f'<circle cx="{_WIDTH - 250 + 80 * i}" cy="34" r="4" fill="{_COLOUR[phase]}"/>'
        + _label(_WIDTH - 242 + 80 * i, 38, phase, "start", _COLOUR[phase])
        for i, phase in enumerate(PHASES)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'font-family="sans-serif" font-size="12">'
        + _label(_LEFT - 66, 18, title, "start", "#555")
        + legend
        + "\n".join(body)
        + "</svg>\n"
    )
