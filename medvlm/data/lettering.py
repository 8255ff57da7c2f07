"""Short texts drawn into pictures with Pillow's own font, which has few letters beyond ASCII.

Accents are left off, Greek letters spelled, and words in other scripts replaced by the script's name: "[Cyrillic]".
"""

from __future__ import annotations

import functools
import re
import unicodedata

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_SPELLED = dict(
    pair.split(" ")
    for pair in (
        *(
            "– -",
            "— -",
            "− -",
            "‐ -",
            "‑ -",
            "× x",
            "≤ <=",
            "≥ >=",
            "≈ ~",
            "→ ->",
            "← <-",
            "↑ ^",
            "▲ ^",
            "► >",
            "● *",
            "• *",
        ),
        *("µ u", "′ '", '″ "', "ß ss", "æ ae", "œ oe", "ø o", "Ø O", "ł l", "ı i", "° deg", "® (R)", "™ (TM)"),
    )
)


@functools.cache
def font(size: int) -> Font:
    """Return the packaged font at `size` pixels, laid out in the same way on every machine."""
    face = ImageFont.load_default(size)
    if isinstance(face, ImageFont.FreeTypeFont):
        return face.font_variant(layout_engine=ImageFont.Layout.BASIC)
    return face


def plain(text: str, face: Font) -> str:
    """Return a text on one line with nothing in it that the font cannot draw."""
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    told = "".join(_drawable(letter, face) for letter in text)
    # Of a run of words in one script its name is told once.
    told = re.sub(r"(\[[A-Za-z]+\])(?:\W*\1)+", r"\1", told)
    return " ".join(told.split())


@functools.lru_cache(maxsize=8192)
def _drawable(letter: str, face: Font) -> str:
    """Return what to draw for one character."""
    if letter == " " or _has(letter, face):
        return letter
    if letter in _SPELLED:
        return _SPELLED[letter]
    base = "".join(part for part in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(part))
    if base and all(part == " " or _has(part, face) for part in base):
        return base
    if unicodedata.combining(letter):
        return ""
    script, _, rest = unicodedata.name(letter, "").partition(" ")
    if script == "GREEK" and " LETTER " in f" {rest} ":
        return rest.partition("LETTER ")[2].split(" ")[0].lower()
    return f"[{script.title() if script != 'CJK' else script}]" if letter.isalpha() and script.isalpha() else "?"


def _has(letter: str, face: Font) -> bool:
    """Whether the font draws this character otherwise than one that no font has."""
    return _drawn(letter, face) != _drawn("\uffff", face)


def _drawn(letter: str, face: Font) -> tuple[tuple[int, int], bytes]:
    mask = face.getmask(letter)
    return mask.size, bytes(mask)


def shorten(text: str, face: Font, width: int, *, middle: bool = False) -> str:
    """Return a text cut with an ellipsis, at its end or in its middle, so that it is at most `width` pixels wide."""
    if face.getlength(text) <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        kept = (low + high + 1) // 2
        low, high = (kept, high) if face.getlength(_cut(text, kept, middle)) <= width else (low, kept - 1)
    return _cut(text, low, middle)


def _cut(text: str, kept: int, middle: bool) -> str:
    """Return `kept` characters of a text and an ellipsis."""
    tail = kept // 2 if middle else 0
    return f"{text[: kept - tail].rstrip()}…{text[len(text) - tail :]}"


def wrapped(text: str, face: Font, width: int, lines: int) -> list[str]:
    """Break a text into at most `lines` lines of at most `width` pixels; the last one ends with an ellipsis if cut."""
    done: list[str] = []
    # Long before this many characters the lines are full.
    words = text[: lines * width].split()
    while words and len(done) < lines - 1:
        count = 1
        while count < len(words) and face.getlength(" ".join(words[: count + 1])) <= width:
            count += 1
        done.append(shorten(" ".join(words[:count]), face, width))
        words = words[count:]
    if words:
        done.append(shorten(" ".join(words), face, width))
    return done
