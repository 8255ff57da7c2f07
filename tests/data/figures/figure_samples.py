"""Caption samples for the tests of what is made of figures."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw

from medvlm.data.sample import Image, Sample
from medvlm.io import sha256_bytes


def encoded(picture: PIL.Image.Image, form: str = "PNG", **settings: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **settings)
    return buffer.getvalue()


def scan(seed: int, width: int = 160, height: int = 120) -> PIL.Image.Image:
    """Return a gray picture of soft shades, filled to its edges."""
    shades = np.random.default_rng(seed).integers(60, 190, (6, 6), dtype=np.uint8)
    return PIL.Image.fromarray(shades).resize((width, height), PIL.Image.Resampling.BICUBIC)


def slice_on_black(seed: int, side: int = 160) -> PIL.Image.Image:
    """Return a round slice of soft shades amid black."""
    inside = PIL.Image.new("L", (side, side))
    PIL.ImageDraw.Draw(inside).ellipse((side // 10, side // 8, side - side // 10, side - side // 8), fill=255)
    return PIL.Image.composite(scan(seed, side, side), PIL.Image.new("L", (side, side)), inside)


def in_a_row(count: int, form: str = "PNG", **settings: Any) -> bytes:
    """Return `count` scans of 160x120 pixels side by side with white gutters of 10 pixels."""
    whole = PIL.Image.new("L", (170 * count - 10, 120), 255)
    for index in range(count):
        whole.paste(scan(index), (170 * index, 0))
    return encoded(whole, form, **settings)


def figure(caption: str, data: bytes | None = None, name: str = "f1.png", **changes: Any) -> Sample:
    """Return a caption sample as the reader makes it."""
    data = encoded(scan(0)) if data is None else data
    panel = changes.get("panel") or "-"
    fields: dict[str, Any] = {
        "id": f"PMC1/F1/{panel}/caption/0",
        "image": Image(data, name),
        "task": "caption",
        "prompt": "",
        "target": caption,
        "language": "en",
        "kind": "figure",
        "source": "pmc",
        "group": "PMC1",
        "figure_id": "F1",
        "file_name": name,
        "sha256": sha256_bytes(data),
    }
    return Sample(**{**fields, **changes})
