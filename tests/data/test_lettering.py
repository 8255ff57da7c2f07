"""Texts in pictures: only what the font has, never wider than asked."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvlm.data.lettering import font, plain, shorten, wrapped

FACE = font(13)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Chest  CT,\naxial\x00", "Chest CT, axial"),
        ("Müller, Å, naïve", "Muller, A, naive"),
        ("5 µm ± 2; α-smooth, ≤ 3", "5 um ± 2; alpha-smooth, <= 3"),
        ("Пример рисунка of CT", "[Cyrillic] of CT"),
        ("肺の CT", "[CJK][Hiragana] CT"),
        ("e\u0301", "e"),
        ("☃", "?"),
        ("", ""),
    ],
)
def test_plain(text: str, told: str) -> None:
    assert plain(text, FACE) == told


@settings(deadline=None, max_examples=60)
@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(40, 300), st.booleans())
def test_no_line_is_too_wide_and_any_text_can_be_drawn(text: str, width: int, middle: bool) -> None:
    told = plain(text, FACE)
    assert plain(told, FACE) == told
    assert FACE.getlength(shorten(told, FACE, width, middle=middle)) <= width
    lines = wrapped(told, FACE, width, 3)
    assert len(lines) <= 3
    assert all(FACE.getlength(line) <= width for line in lines)


def test_wrapping_keeps_every_word_that_fits() -> None:
    words = "one two three four five six seven eight nine ten"
    assert " ".join(wrapped(words, FACE, 120, 9)) == words
    cut = wrapped(words, FACE, 80, 2)
    assert len(cut) == 2
    assert cut[1].endswith("…")
    assert words.startswith(" ".join(cut).rstrip("…"))


def test_shorten_in_the_middle_keeps_both_ends() -> None:
    told = shorten("PMC1234567/figure-number-one/-/caption/0", FACE, 150, middle=True)
    assert told.startswith("PMC1234")
    assert told.endswith("tion/0")
    assert told.count("…") == 1
