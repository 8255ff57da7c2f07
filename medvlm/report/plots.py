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
_COLORS, _DASHES = 8, 4
_MARKED, _MARKS = 40, 12
"""A line of so many points has a mark at each; a longer one so many along it."""
_SIDE, _LETTER = (110, 330), 6.6
"""Least and greatest width of the names left of intervals, and that of a letter of them."""
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
    """A value with its interval; bars of one `group` stand under its name, each `series` has a shape of its own."""

    label: str
    value: float
    low: float
    high: float
    group: str = ""
    n: int | None = None
    series: str = ""


def line_chart(title: str, series: Sequence[Series], x_label: str, y_label: str) -> str:
    """Return an SVG of lines; points that are not finite, or beyond 1e150, are left out.

    Long lines are drawn as means of equal pieces, at most 400 points each. A line keeps its color, dashes and marks
    whatever others are empty; they repeat together only after 32 lines. Returns "" where no line has two points.
    """
    thin = [Series(one.label, _thin(sorted(filter(_finite, one.points)))) for one in series]
    lines = [(number, one) for number, one in enumerate(thin) if one.points]
    if all(len(one.points) < 2 for _, one in lines):
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
        parts.append(_line([(x_of(x), y_of(y)) for x, y in one.points], number))
    height = _HEIGHT
    if len(lines) > 1:
        legend, height = _legends([(number, one.label) for number, one in lines])
        parts += legend
    said = "; ".join(f"{one.label}: {_ends(one.points)}" for _, one in lines)
    return _svg(title, f"{y_label} by {x_label}. {said}.", height, parts)


def interval_chart(title: str, bars: Sequence[Bar], x_label: str, whole: float | None = None) -> str:
    """Return an SVG with one point and its interval a line, against a rule at zero; "" where nothing can be drawn.

    Args:
        title: said by screen readers.
        bars: in their order; those of one `group` under its name, with several `series` in shapes of their own.
        x_label: under the axis.
        whole: where a dashed rule stands, for the score of all samples together.
    """
    bars = [bar for bar in bars if all(abs(value) < LARGEST for value in (bar.value, bar.low, bar.high))]
    if not bars:
        return ""
    names = list(dict.fromkeys(bar.series for bar in bars))
    places, bottom = _places(bars)
    height = bottom + 44
    rules = [] if whole is None or not abs(whole) < LARGEST else [whole]
    ends = [0.0, *rules, *(value for bar in bars for value in (bar.low, bar.value, bar.high))]
    marks = ticks(min(ends), max(ends))
    side = min(max(_SIDE[0], *(_LETTER * len(_label(bar)) + 22 for bar in bars)), _SIDE[1])
    x_of = _scale(marks[0], marks[-1], side, _WIDTH - 24)
    parts = [_rule("grid", x_of(mark), bottom) for mark in marks]
    parts += [_rule("zero", x_of(0), bottom), *(_rule("whole", x_of(value), bottom) for value in rules)]
    parts += [_text(x_of(mark), height - 24, _number(mark), "middle") for mark in marks]
    parts.append(_text((side + _WIDTH) / 2, height - 6, x_label, "middle"))
    for y, group in places[0]:
        parts.append(_text(8, y + 4, _cut(group, _LABEL), "start", "group"))
    for y, bar in zip(places[1], bars, strict=True):
        number = names.index(bar.series)
        parts.append(_text(side - 14, y + 4, _label(bar), "end"))
        parts.append(_span(x_of(bar.low), x_of(bar.high), y, number))
        parts.append(_mark(x_of(bar.value), y, number, 5))
    if len(names) > 1:
        legend, height = _legends(list(enumerate(names)), height)
        parts += legend
    return _svg(title, "; ".join(map(_in_words, bars)) + ".", height, parts)


def _places(bars: Sequence[Bar]) -> tuple[tuple[list[tuple[int, str]], list[int]], int]:
    """Return where the names of groups and the bars stand from above, and where the chart ends."""
    heads: list[tuple[int, str]] = []
    ys: list[int] = []
    y, last = 24, ""
    for bar in bars:
        if bar.group != last:
            last = bar.group
            heads.append((y, bar.group))
            y += 24
        ys.append(y)
        y += 24
    return (heads, ys), y - 10


def _label(bar: Bar) -> str:
    behind = f" (n = {bar.n:,})" if bar.n is not None else ""
    room = int((_SIDE[1] - 22) / _LETTER) - len(behind)
    if len(bar.label) > room:
        # The ends of names that begin alike tell them apart.
        half = max(room // 2, 1)
        return f"{bar.label[: half - 1]}…{bar.label[-half:]}{behind}"
    return bar.label + behind


def _in_words(bar: Bar) -> str:
    before = " ".join(part for part in (bar.group, bar.label, bar.series) if part)
    return f"{before}: {_number(bar.value)}, {_number(bar.low)} to {_number(bar.high)}"


def _ends(points: Sequence[Point]) -> str:
    (x0, y0), (x1, y1) = points[0], points[-1]
    return f"{_number(y0)} at {_number(x0)}, {_number(y1)} at {_number(x1)}"


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


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: max(longest, 2) - 1]}…"


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}>{escape(text)}</text>'


def _grid_y(y: float, tick: float) -> str:
    rule = f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}"/>'
    return rule + _text(_LEFT - 8, y + 4, _number(tick), "end")


def _rule(kind: str, x: float, bottom: int) -> str:
    return f'<line class="{kind}" x1="{x:.1f}" y1="8" x2="{x:.1f}" y2="{bottom}"/>'


def _span(low: float, high: float, y: float, number: int) -> str:
    return f'<line class="l{number % _COLORS + 1}" x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}"/>'


def _dashed(number: int) -> str:
    """Return the classes of line `number`: eight colors, and dashes that go on where the colors begin anew."""
    return f"l{number % _COLORS + 1} d{(number + number // _COLORS) % _DASHES + 1}"


def _mark(x: float, y: float, number: int, size: float) -> str:
    """Return a circle, square, diamond or triangle about a point: not the color alone tells lines apart."""
    kind = f'class="f{number % _COLORS + 1}"'
    if number % 4 == 0:
        return f'<circle {kind} cx="{x:.1f}" cy="{y:.1f}" r="{size:g}"/>'
    corners = {
        1: ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
        2: ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
        3: ((0, -1.2), (1.2, 1), (-1.2, 1)),
    }[number % 4]
    points = " ".join(f"{x + size * right:.1f},{y + size * down:.1f}" for right, down in corners)
    return f'<polygon {kind} points="{points}"/>'


def _line(points: Sequence[Point], number: int) -> str:
    marks = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    line = f'<polyline class="{_dashed(number)}" points="{marks}"/>'
    step = 1 if len(points) <= _MARKED else -(-len(points) // _MARKS)
    return line + "".join(_mark(x, y, number, 2.8) for x, y in points[step // 2 :: step])


def _legends(named: Sequence[tuple[int, str]], height: int = _HEIGHT) -> tuple[list[str], int]:
    """Return the names of lines, and the height of the chart with them: above it where they are few and short."""
    if height == _HEIGHT and len(named) <= _ABOVE and all(len(label) <= _SHORT for _, label in named):
        return [_legend(200 + 150 * place, 10, number, label) for place, (number, label) in enumerate(named)], height
    parts = []
    for place, (number, label) in enumerate(named):
        row, column = divmod(place, _ABOVE)
        parts.append(_legend(_LEFT + 195 * column, height + 14 + 20 * row, number, label))
    return parts, height + 10 + 20 * -(-len(named) // _ABOVE)


def _legend(x: float, y: float, number: int, label: str) -> str:
    rule = f'<line class="{_dashed(number)}" x1="{x}" y1="{y}" x2="{x + 24}" y2="{y}"/>'
    return rule + _mark(x + 12, y, number, 3.5) + _text(x + 30, y + 4, _cut(label, _LABEL), "start")


def _svg(title: str, words: str, height: int, parts: Sequence[str]) -> str:
    name = escape(title, quote=True)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{name}"><title>{name}</title>'
        f"<desc>{escape(words)}</desc>{''.join(parts)}</svg>"
    )
