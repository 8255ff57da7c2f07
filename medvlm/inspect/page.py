"""A page to look at words or maps over a picture, patch by patch: one HTML file that asks for nothing.

Style, script, pictures and numbers are inside; the content security policy names the one style and the one script by
their hashes and forbids everything else. Without the script the drawn picture, the sentences and the tables are there.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image as PILImage

import medvlm
from medvlm.inspect import draw
from medvlm.inspect.words import Near, Words

_HERE = Path(__file__).parent
_SHOWN = 640
"""Longer side of the picture in the page, in pixels."""
CAUTION = "Not for clinical use: research output, not checked by a physician, no medical device."


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under a header; all but the first column are numbers."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """What a page shows.

    Attributes:
        title: its heading.
        facts: names with values: run, picture, question, answer.
        sentences: what the numbers say.
        explorer: for the script: picture, and words or maps (see `words_explorer` and `maps_explorer`); None for none.
        drawn: the same as one picture.
        alt: that picture in words.
        tables: below.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    sentences: Sequence[str]
    explorer: dict[str, Any] | None
    drawn: draw.Image
    alt: str
    tables: Sequence[Table] = ()


def render(page: Page) -> str:
    """Return the page as HTML; every text is escaped."""
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    # A text must not end the element that it stands in.
    data = json.dumps(page.explorer, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")
    template = _environment().get_template("page.html.j2")
    return template.render(
        page=page,
        style=style,
        script=script,
        policy=policy,
        data=data,
        drawn=draw.data_uri(page.drawn),
        size=page.drawn.size,
        caution=CAUTION,
        version=medvlm.__version__,
    )


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _hash(text: str) -> str:
    """Return the source expression of an inline text (Content Security Policy Level 2, section 4.2.5)."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _picture(image: draw.Image) -> dict[str, Any]:
    shown = draw.fitted(image, _SHOWN)
    # As large as it comes: the browser scales it.
    kept = image.convert("RGB") if max(image.size) <= _SHOWN else shown
    return {"src": draw.data_uri(kept), "width": shown.width, "height": shown.height}


def words_explorer(image: draw.Image, found: Words) -> dict[str, Any] | None:
    """Return what the script shows of a picture's words; None where the tokens are no one grid."""
    grid = found.grid
    if grid is None:
        return None

    def told(near: Near) -> list[Any]:
        return [near.word, round(near.cosine, 4)]

    tokens = [
        {"near": [told(near) for near in token.near], "mean": round(token.mean, 4), "blank": told(token.blank)}
        for token in found.tokens
    ]
    return {
        "kind": "words",
        "picture": _picture(image),
        "rows": grid.rows,
        "columns": grid.columns,
        "view": list(grid.view),
        "tokens": tokens[grid.extra :],
        "colors": draw.frequent_colors(found),
    }


@dataclasses.dataclass(frozen=True, slots=True)
class Layer:
    """A map that the page can show, with one map for each of the answer's tokens where there are such.

    Attributes:
        drawn: the map of all tokens that count.
        tokens: [A, R, C] or None.
    """

    drawn: draw.Map
    tokens: draw.Floats | None = None


def maps_explorer(
    image: draw.Image, layers: Sequence[Layer], tokens: Sequence[str], marks: Sequence[bool]
) -> dict[str, Any]:
    """Return what the script shows of maps.

    Args:
        image: below them.
        layers: the maps.
        tokens: the answer in pieces.
        marks: which of them the maps of all tokens are about.
    """
    return {
        "kind": "maps",
        "picture": _picture(image),
        "tokens": [{"text": text, "counts": mark} for text, mark in zip(tokens, marks, strict=True)],
        "ramps": {"above": draw.ABOVE, "below": draw.BELOW},
        "maps": [
            {
                "name": layer.drawn.title,
                "unit": layer.drawn.unit,
                "note": layer.drawn.note,
                "rows": layer.drawn.values.shape[0],
                "columns": layer.drawn.values.shape[1],
                "view": list(layer.drawn.view),
                "all": packed(layer.drawn.values),
                "tokens": [] if layer.tokens is None else [packed(values) for values in layer.tokens],
            }
            for layer in layers
        ],
    }


def packed(values: draw.Floats) -> dict[str, Any]:
    """Return a map as its least and greatest value and base64 of 16-bit shares between them, little-endian."""
    low, high = float(values.min()), float(values.max())
    shares = (values - low) / (high - low) if high > low else np.zeros_like(values)
    data = (shares * 65535).round().astype("<u2").tobytes()
    return {"low": low, "high": high, "data": base64.b64encode(data).decode()}


def words_page(image: PILImage.Image, found: Words, title: str, facts: Sequence[tuple[str, str]]) -> Page:
    """Return the page of a picture's words."""
    size = len(found.tokens)
    rows = [[word, str(count), f"{count / size:.0%}", f"{mean:.3f}"] for word, count, mean in found.counts()]
    vocabulary = f"{found.vocabulary:,} words; {found.left_out:,} rows left out (special, location, unused)"
    more = [("vocabulary", vocabulary)]
    if found.grid is not None and found.grid.extra:
        first = ", ".join(f"{near.word} ({near.cosine:.3f})" for near in found.tokens[0].near)
        more.append(("class token, which has no place", first))
    return Page(
        title,
        [*facts, *more],
        found.sentences(),
        words_explorer(image, found),
        draw.words_sheet(image, found, title),
        "The picture with each patch's nearest word on it; the table below counts the words.",
        [Table("Nearest words", ["word", "patches", "share", "mean cosine"], rows)],
    )
