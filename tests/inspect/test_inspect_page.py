"""The page in the system's own Chromium: it asks for nothing, complains of nothing, and keys reach every patch."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medvlm.inspect import draw, maps, page, words
from medvlm.inspect.opened import Grid
from medvlm.inspect.words import Near, Token, Words

HOSTILE = "</script><script>window.ran = 1</script>\u2028\"'<img src=x onerror=alert(1)>"


def made_up(names: list[str]) -> Words:
    tokens = [Token([Near(name, 0.5), Near("other", 0.25)], 0.125, Near("blank", 0.375)) for name in names]
    return Words(tokens, Grid(2, 2, extra=len(names) - 4), 100, 10)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from headless_browser import Browser

    with Browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


def written(made: page.Page, folder: Path) -> Path:
    path = folder / "page.html"
    path.write_text(page.render(made), encoding="utf-8")
    return path


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_packed_maps_keep_their_values(values: list[float]) -> None:
    given_map = np.array(values)[None]
    told = page.packed(given_map)
    shares = np.frombuffer(base64.b64decode(told["data"]), dtype="<u2") / 65535
    back = told["low"] + shares * (told["high"] - told["low"])
    assert np.allclose(back, values, atol=(max(values) - min(values)) / 65535 + 1e-9)


def test_words_are_shown_patch_by_patch(browser: Any, tmp_path: Path) -> None:
    picture = Image.new("L", (90, 60), 100)
    made = page.words_page(picture, made_up(["start", "heart", "heart", HOSTILE, "rib"]), "t", [("picture", HOSTILE)])
    path = written(made, tmp_path)
    browser.open(path)
    assert browser.value("Promise.all([...document.images].map((image) => image.decode())).then(() => 1)") == 1
    assert browser.complaints() == []
    assert browser.requests() == [path.resolve().as_uri()]
    assert browser.value("window.ran ?? null") is None
    cells = browser.value("[...document.querySelectorAll('.cell')].map((cell) => cell.textContent)")
    assert cells == ["heart", "heart", HOSTILE, "rib"]
    told = "document.querySelector('.patch').textContent"
    browser.value("document.querySelector('.cell').focus()")
    assert "Row 1, column 1" in browser.value(told)
    browser.press("ArrowRight", 39)
    browser.press("ArrowDown", 40)
    # At the edge a key leads no further.
    browser.press("ArrowDown", 40)
    said = browser.value(told)
    assert "Row 2, column 2, nearest words:rib: cosine 0.500, distance 0.500other: cosine 0.250, distance 0.750" in said
    assert "An average word: cosine 0.125, distance 0.875." in said
    assert "blank, cosine 0.375" in said
    # One cell at a time is a stop for the tab key.
    assert browser.value("[...document.querySelectorAll('.cell')].map((cell) => cell.tabIndex)") == [-1, -1, -1, 0]
    browser.value(
        "(() => { const s = document.querySelector('select'); s.selectedIndex = 1; "
        "s.dispatchEvent(new Event('change')); })()"
    )
    assert browser.value("document.querySelectorAll('.alike').length") == 2
    assert browser.value("document.querySelector('caption').textContent") == "Nearest words"
    assert "start (0.500)" in browser.value("document.querySelector('dl').textContent")


def test_without_script_the_picture_and_the_table_are_there(browser: Any, tmp_path: Path) -> None:
    made = page.words_page(Image.new("L", (90, 60)), made_up(["a", "b", "c", "d"]), "t", [])
    browser.open(written(made, tmp_path), script=False)
    assert browser.value("document.getElementById('explorer').checkVisibility()") is False
    assert browser.value("document.querySelectorAll('figure img, table').length") == 2
    assert browser.value("document.querySelectorAll('tbody tr').length") == 4


def test_maps_are_chosen_by_layer_and_token(browser: Any, tmp_path: Path, adapted: Any, chest: Image.Image) -> None:
    found = maps.of_picture(adapted, chest, maps.Asked("caption en", "There is a nodule."))
    path = written(found.page(chest, "t", [("run", "x")]), tmp_path)
    browser.open(path)
    assert browser.complaints() == []
    assert browser.requests() == [path.resolve().as_uri()]
    names = browser.value("[...document.querySelector('select').options].map((one) => one.value)")
    assert names == ["Occlusion", "Attention, rolled out", *(f"Attention, layer {number}" for number in (1, 2, 3, 4))]
    seen = found.attention
    assert seen is not None
    choose = (
        "((map, token) => {{ const [m, t] = document.querySelectorAll('select'); m.selectedIndex = map; "
        "m.dispatchEvent(new Event('input')); t.selectedIndex = token; t.dispatchEvent(new Event('input')); "
        "return [...document.querySelectorAll('.cell')].map((cell) => Number(cell.ariaLabel.split(': ')[1])) }})"
        "({}, {})"
    )
    for position, token, expected in (
        (1, 0, seen.map()),
        (3, 0, seen.map(1)),
        (5, 2, seen.map(3, 1)),
    ):
        values = browser.value(choose.format(position, token))
        assert values == pytest.approx(expected.ravel().tolist(), rel=0.01, abs=2e-5)
        peak = browser.value("[...document.querySelectorAll('.cell')].findIndex((c) => c.classList.contains('peak'))")
        assert expected.ravel()[peak] == pytest.approx(expected.max(), rel=1e-4)
    assert browser.value("[...document.querySelectorAll('.patch p')].length") >= 3


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_is_never_wider_than_its_window(browser: Any, tmp_path: Path, width: int, dark: bool) -> None:
    made = page.words_page(
        Image.new("L", (90, 60)), made_up(["wide" * 20, "b", "c", "d"]), "t" * 200, [("a", "b" * 300)]
    )
    browser.open(written(made, tmp_path), width=width, dark=dark)
    assert browser.value("document.documentElement.scrollWidth") <= width


def test_a_text_cannot_end_the_script(adapted: Any) -> None:
    made = page.words_page(Image.new("L", (9, 9)), made_up([HOSTILE, "b", "c", "d"]), HOSTILE, [])
    html = page.render(made)
    assert html.count("</script>") == 2
    assert "<img src=x" not in html
    assert not re.search(r"(?:src|href)=[\"'](?!data:)", html)


def test_drawn_peaks_and_scales(chest: Image.Image) -> None:
    values = np.zeros((4, 4))
    values[1, 2] = 5.0
    drawn = draw.Map("m", values, "nats")
    assert drawn.peak() == (0.5, 0.25, 0.75, 0.5)
    assert drawn.limits() == (0.0, 5.0)
    assert draw.Map("m", values - 1, "nats", (0.5, 0.0, 1.0, 1.0)).peak() == (0.75, 0.25, 0.875, 0.5)
    assert draw.Map("m", values - 1, "nats").limits() == (-1.0, 4.0)
    # Brighter is more, at both ends and between.
    light = draw.colored(np.linspace(0, 1, 50), (0.0, 1.0)).astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light) > -1).all()
    assert light[-1] > light[0] + 150
    shown = np.asarray(draw.heat(chest, drawn, 400))
    assert shown.shape == (400, 400, 3)
    ring = shown[100:200, 200]
    assert (ring == ring[0]).all()
    assert len(draw.png(draw.words_sheet(chest, made_up(["a", "b", "c", "d", "e"]), "t"))) > 1000
    flat = draw.colored(np.full((2, 2), 3.0), (3.0, 3.0))
    assert (flat == flat[0, 0]).all()


@pytest.mark.parametrize("size", [(3000, 2), (2, 3000), (1, 1)])
def test_a_thin_picture_is_drawn(size: tuple[int, int]) -> None:
    picture = Image.new("RGB", size, (90, 90, 90))
    for peak in ((0, 0), (7, 7)):
        values = np.zeros((8, 8))
        values[peak] = 1.0
        panel = draw.panel(picture, draw.Map("m", values, "nats", note="a note"))
        assert panel.width >= 240
        assert draw.sheet([panel], "t", ["said"]).height > panel.height
    assert draw.words_sheet(picture, made_up(["a", "b", "c", "d"]), "t").width >= 384


def test_tokens_in_no_grid_are_still_counted(chest: Image.Image) -> None:
    tokens = made_up(["a", "b", "c", "d"]).tokens
    found = Words(tokens[:3], None, 10, 2)
    made = page.words_page(chest, found, "t", [])
    assert made.explorer is None
    assert "Patch by patch" not in page.render(made)
    assert [row[0] for row in made.tables[0].rows] == ["a", "b", "c"]
    with pytest.raises(ValueError, match="no one grid"):
        draw.words(chest, found)
    assert words.NO_MEANING in found.sentences()
