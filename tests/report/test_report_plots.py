"""Charts: ticks that enclose, lines that keep their points, and nothing that is not well-formed SVG."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from medvlm.report.plots import LARGEST, Bar, Series, interval_chart, line_chart, ticks

FLOATS = st.floats(allow_nan=True, allow_infinity=True)


def svg(text: str) -> etree._Element:
    return etree.fromstring(text.encode())


@given(st.floats(-1e12, 1e12), st.floats(-1e12, 1e12))
def test_ticks_enclose_the_range_and_are_few(a: float, b: float) -> None:
    low, high = sorted((a, b))
    found = ticks(low, high)
    assert found == sorted(found)
    assert 2 <= len(found) <= 14
    slack = 1e-6 * (abs(low) + abs(high))
    assert found[0] <= low + slack
    assert found[-1] >= high - slack


def test_ticks_by_hand() -> None:
    assert ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert ticks(-1, 0.9) == [-1, -0.5, 0, 0.5, 1]
    flat = ticks(3, 3)
    assert flat[0] < 3 < flat[-1]


@given(
    st.lists(st.tuples(FLOATS, FLOATS), max_size=30), st.text(st.characters(codec="utf-8", exclude_categories=["C"]))
)
def test_any_points_and_any_label_make_a_picture_or_nothing(points: list[tuple[float, float]], label: str) -> None:
    drawn = line_chart(label, [Series(label, points), Series("other", points)], label, label)
    finite = [point for point in points if all(abs(value) < LARGEST for value in point)]
    assert bool(drawn) == bool(finite)
    if drawn:
        assert "nan" not in drawn.replace(label, "") or "nan" in label
        svg(drawn)


def test_points_lie_where_they_should() -> None:
    root = svg(line_chart("loss", [Series("training", [(0, 4), (10, 0), (5, 2)])], "step", "loss"))
    line = root.find("polyline")
    assert line is not None
    (x0, y0), (x1, y1), (x2, y2) = [tuple(map(float, pair.split(","))) for pair in line.get("points", "").split()]
    assert x0 < x1 < x2
    assert y0 < y1 < y2, "SVG counts downward: the loss falls"
    assert math.isclose(x1, (x0 + x2) / 2, abs_tol=0.06)
    assert math.isclose(y1, (y0 + y2) / 2, abs_tol=0.06)


def test_long_lines_are_thinned_to_means() -> None:
    root = svg(line_chart("loss", [Series("training", [(x, x % 2) for x in range(10_000)])], "step", "loss"))
    line = root.find("polyline")
    assert line is not None
    points = line.get("points", "").split()
    assert len(points) == 400
    assert len({point.split(",")[1] for point in points}) <= 2, "each mean of 25 alternating points is 12/25 or 13/25"


def test_intervals_straddle_their_value() -> None:
    root = svg(interval_chart("d", [Bar("minus <base>", 1.0, 0.5, 2.0), Bar("bad", math.nan, 0, 1)], "CIDEr"))
    bars = [line for line in root.iter("line") if line.get("class") == "l1"]
    (dot,) = root.iter("circle")
    assert len(bars) == 1
    zero = next(line for line in root.iter("line") if line.get("class") == "zero")
    low, high, middle = (float(value or "nan") for value in (bars[0].get("x1"), bars[0].get("x2"), dot.get("cx")))
    assert float(zero.get("x1") or "nan") < low < middle < high
    assert interval_chart("d", [], "x") == ""
