"""Charts: ticks that enclose, lines that keep their points, and nothing that is not well-formed SVG."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from medvlm.report.plots import LARGEST, Bar, Series, interval_chart, line_chart, ticks

FLOATS = st.floats(allow_nan=True, allow_infinity=True)
PLAIN = st.characters(codec="utf-8", exclude_categories=["C"])


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


@given(st.lists(st.tuples(FLOATS, FLOATS), max_size=30), st.text(PLAIN))
def test_any_points_and_any_label_make_a_picture_or_nothing(points: list[tuple[float, float]], label: str) -> None:
    drawn = line_chart(label, [Series(label, points), Series("other", points)], label, label)
    finite = [point for point in points if all(abs(value) < LARGEST for value in point)]
    assert bool(drawn) == (len(finite) > 1)
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


def bars() -> list[Bar]:
    return [
        Bar("CT <1>", 0.5, 0.4, 0.6, "modality", 120),
        Bar("X-ray", 0.7, 0.6, 0.8, "modality", 2345),
        Bar("chest", 0.6, 0.5, 0.7, "organ", 80),
    ]


def test_bars_of_a_group_stand_under_its_name_with_their_n() -> None:
    root = svg(interval_chart("slices", bars(), "CIDEr", whole=0.62))
    texts = [(float(text.get("y", "nan")), text.text) for text in root.iter("text")]
    order = [said for _, said in sorted(texts)][:5]
    assert order == ["modality", "CT <1> (n = 120)", "X-ray (n = 2,345)", "organ", "chest (n = 80)"]
    (whole,) = [line for line in root.iter("line") if line.get("class") == "whole"]
    middles = [float(dot.get("cx", "nan")) for dot in root.iter("circle")]
    assert middles[0] < middles[2] < float(whole.get("x1", "nan")) < middles[1]
    assert root.findtext("desc") == (
        "modality CT <1>: 0.5, 0.4 to 0.6; modality X-ray: 0.7, 0.6 to 0.8; organ chest: 0.6, 0.5 to 0.7."
    )


def shapes(root: etree._Element) -> list[str]:
    """Return the kind of each mark: its tag and number of corners."""
    marks = [one for one in root.iter("circle", "polygon") if (one.get("class") or "").startswith("f")]
    return [f"{one.tag}{len(one.get('points', '').split())}" for one in marks]


def test_several_rows_differ_in_more_than_color() -> None:
    pair = [Bar("CT", 0.5, 0.4, 0.6, series="model"), Bar("CT", 0.2, 0.1, 0.3, series="constant")]
    root = svg(interval_chart("slices", pair, "CIDEr"))
    # One mark of each in the chart, one in the legend.
    assert shapes(root) == ["circle0", "polygon4"] * 2
    assert {"model", "constant"} <= {text.text for text in root.iter("text")}
    looks = set()
    for number in range(32):
        series = [Series("", [])] * number + [Series("x", [(0, 0), (1, 1)])]
        line = svg(line_chart("loss", series, "step", "loss"))
        (drawn,) = line.iter("polyline")
        looks.add((drawn.get("class"), shapes(line)[0]))
    assert len(looks) == 32


def test_a_chart_says_in_words_what_it_shows() -> None:
    root = svg(line_chart("a & b", [Series("training", [(1, 4.0), (200, 0.5)])], "step", "loss"))
    assert (root.findtext("title"), root.get("aria-label"), root.get("role")) == ("a & b", "a & b", "img")
    assert root.findtext("desc") == "loss by step. training: 4 at 1, 0.5 at 200."


@given(
    st.lists(st.builds(Bar, st.text(PLAIN), FLOATS, FLOATS, FLOATS, st.text(PLAIN), st.integers(), st.text(PLAIN))),
    FLOATS,
)
def test_any_bars_make_a_picture_or_nothing(found: list[Bar], whole: float) -> None:
    drawn = interval_chart("t", found, "x", whole)
    finite = [bar for bar in found if all(abs(value) < LARGEST for value in (bar.value, bar.low, bar.high))]
    assert bool(drawn) == bool(finite)
    if drawn:
        root = svg(drawn)
        _, _, width, height = map(float, root.get("viewBox", "").split())
        for mark in root.iter("text", "line", "circle"):
            for name in ("x", "x1", "x2", "cx"):
                assert -1 <= float(mark.get(name, "0")) <= width + 1
            for name in ("y", "y1", "y2", "cy"):
                assert 0 <= float(mark.get(name, "0")) <= height
