"""Small charts as inline SVG, drawn without a plotting library or a script; colors come from the page's style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

Point = tuple[float, float]

_WIDTH, _HEIGHT = 640, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 34, 42
_MOST_POINTS = 400
_COLORS = 8
_SHORT, _LABEL = 17, 26
"""Letters of a name that fit above the chart, and below it."""
_ABOVE = 3
"""So many short names stand above a chart; others stand below it, in as many columns."""
# Differences and scales of such numbers still are numbers.
LARGEST = 1e150


@dataclass(frozen=True, slots=True)
class Series:
    """A line with its name in the legend."""

    label: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Bar:
    """A value with its interval."""

    label: str
    value: float
    low: float
    high: float


def line_chart(title: str, series: Sequence[Series], x_label: str, y_label: str) -> str:
    """Return an SVG of lines; points that are not finite, or beyond 1e150, are left out.

    Long lines are drawn as means of equal pieces, at most 400 points each. A line keeps its color whatever others are
    empty; from the ninth on lines are dashed. Returns "" where nothing can be drawn.
    """
    thin = [Series(one.label, _thin(sorted(filter(_finite, one.points)))) for one in series]
    lines = [(number, one) for number, one in enumerate(thin) if one.points]
    if not lines:
        return ""
    xs = [x for _, one in lines for x, _ in one.points]
    ys = [y for _, one in lines for _, y in one.points]
    x_ticks, y_ticks = ticks(min(xs), max(xs)), ticks(min(ys), max(ys))
    x_of = _scale(min(x_ticks[0], *xs), max(x_ticks[-1], *xs), _LEFT, _WIDTH - _RIGHT)
    y_of = _scale(min(y_ticks[0], *ys), max(y_ticks[-1], *ys), _HEIGHT - _BOTTOM, _TOP)
    parts = [_grid_y(y_of(tick), tick) for tick in y_ticks]
    parts += [_text(x_of(tick), _HEIGHT - _BOTTOM + 18, _number(tick), "middle") for tick in x_ticks]
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, x_label, "middle"))
    parts.append(_text(8, 14, y_label, "start"))
    for number, one in lines:
        parts.append(_line([(x_of(x), y_of(y)) for x, y in one.points], _color(number)))
    if len(lines) == 1:
        return _svg(title, _HEIGHT, parts)
    if len(lines) <= _ABOVE and all(len(one.label) <= _SHORT for _, one in lines):
        parts += [_legend(200 + 150 * place, 10, number, one.label) for place, (number, one) in enumerate(lines)]
        return _svg(title, _HEIGHT, parts)
    for place, (number, one) in enumerate(lines):
        row, column = divmod(place, _ABOVE)
        parts.append(_legend(_LEFT + 195 * column, _HEIGHT + 14 + 20 * row, number, one.label))
    return _svg(title, _HEIGHT + 10 + 20 * -(-len(lines) // _ABOVE), parts)


def interval_chart(title: str, bars: Sequence[Bar], x_label: str) -> str:
    """Return an SVG with one point and its interval a line, against a rule at zero; "" where nothing can be drawn."""
    bars = [bar for bar in bars if all(abs(value) < LARGEST for value in (bar.value, bar.low, bar.high))]
    if not bars:
        return ""
    left, height = 210, 56 + 30 * len(bars)
    marks = ticks(min(0.0, *(bar.low for bar in bars)), max(0.0, *(bar.high for bar in bars)))
    x_of = _scale(marks[0], marks[-1], left, _WIDTH - 24)
    parts = [f'<line class="zero" x1="{x_of(0):.1f}" y1="8" x2="{x_of(0):.1f}" y2="{height - 42}"/>']
    parts += [_text(x_of(mark), height - 24, _number(mark), "middle") for mark in marks]
    parts.append(_text((left + _WIDTH) / 2, height - 6, x_label, "middle"))
    for number, bar in enumerate(bars):
        y = 24 + 30 * number
        parts.append(_text(left - 14, y + 4, bar.label, "end"))
        parts.append(f'<line class="l1" x1="{x_of(bar.low):.1f}" y1="{y}" x2="{x_of(bar.high):.1f}" y2="{y}"/>')
        parts.append(f'<circle class="f1" cx="{x_of(bar.value):.1f}" cy="{y}" r="5"/>')
    return _svg(title, height, parts)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round numbers (1, 2 or 5 times a power of ten apart) that enclose low..high."""
    if high - low < max(1e-9 * max(abs(low), abs(high)), 1 / LARGEST):
        pad = abs(low) * 0.1 if abs(low) > 1 / LARGEST else 1.0
        low, high = low - pad, high + pad
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999), 10 * power)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def _finite(point: Point) -> bool:
    return all(abs(value) < LARGEST for value in point)


def _thin(points: Sequence[Point]) -> list[Point]:
    size = -(-len(points) // _MOST_POINTS)
    if size <= 1:
        return list(points)
    pieces = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in piece) / len(piece), sum(y for _, y in piece) / len(piece)) for piece in pieces]


@dataclass(frozen=True, slots=True)
class _scale:
    """A linear map from low..high to start..end."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        part = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self.start + part * (self.end - self.start)


def _number(value: float) -> str:
    text = f"{value:.6g}"
    return "0" if text in ("-0", "0") else text


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _grid_y(y: float, tick: float) -> str:
    rule = f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}"/>'
    return rule + _text(_LEFT - 8, y + 4, _number(tick), "end")


def _color(number: int) -> str:
    return f"{number % _COLORS + 1}" + (" dash" if number >= _COLORS else "")


def _line(points: Sequence[Point], color: str) -> str:
    marks = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    line = f'<polyline class="l{color}" points="{marks}"/>'
    if len(points) <= 40:
        line += "".join(f'<circle class="f{color}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in points)
    return line


def _legend(x: float, y: float, number: int, label: str) -> str:
    short = label if len(label) <= _LABEL else f"{label[: _LABEL - 1]}…"
    rule = f'<line class="l{_color(number)}" x1="{x}" y1="{y}" x2="{x + 24}" y2="{y}"/>'
    return rule + _text(x + 30, y + 4, short, "start")


def _svg(title: str, height: int, parts: Sequence[str]) -> str:
    name = escape(title, quote=True)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{name}"><title>{name}</title>'
        f"{''.join(parts)}</svg>"
    )
