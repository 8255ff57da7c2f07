"""Maps and words over a picture, drawn with Pillow alone: heat with a scale and a marked peak, words on patches."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL import ImageDraw

from medvlm.data.lettering import font, plain, shorten, wrapped
from medvlm.inspect.opened import WHOLE, Box

if TYPE_CHECKING:
    from medvlm.inspect.words import Words

Floats = NDArray[np.float64]
Image = PILImage.Image

SIDE = 384
"""Longer side of a picture under a map, in pixels."""
_MOST = 2048
_CELL = 56
"""Least side of a patch with a word on it."""
_GAP, _LINE, _BAR = 14, 18, 12
_INK, _SOFT = (25, 25, 25), (95, 95, 95)
# Dark to bright, so that the order is seen without color, too; blue is what lies below zero.
ABOVE = ((0.0, (68, 1, 84)), (0.35, (190, 55, 82)), (0.7, (249, 142, 9)), (1.0, (252, 255, 164)))
BELOW = ((0.0, (68, 1, 84)), (1.0, (120, 190, 255)))
_OPAQUE = 0.62
_FREQUENT = ((0, 76, 130), (163, 32, 32), (0, 98, 60), (118, 60, 150), (140, 80, 0), (0, 105, 115))
_OTHER = (40, 40, 40)


@dataclasses.dataclass(frozen=True, slots=True)
class Map:
    """A map over a picture.

    Attributes:
        title: above it.
        values: [R, C] from the top left.
        unit: of the scale below it.
        view: the part of the picture that it covers.
        note: one line below the scale.
    """

    title: str
    values: Floats
    unit: str
    view: Box = WHOLE
    note: str = ""

    def peak(self) -> Box:
        """Return the place of the greatest value in shares of the picture, the first of equals."""
        rows, columns = self.values.shape
        row, column = divmod(int(self.values.argmax()), columns)
        x0, y0, x1, y1 = self.view
        wide, high = (x1 - x0) / columns, (y1 - y0) / rows
        return x0 + column * wide, y0 + row * high, x0 + (column + 1) * wide, y0 + (row + 1) * high

    def limits(self) -> tuple[float, float]:
        """Return the ends of its scale: its least and its greatest value; with values below 0 also 0 lies on it."""
        low, high = float(self.values.min()), float(self.values.max())
        return (min(low, 0.0), max(high, 0.0)) if low < 0 else (low, high)


def fitted(image: Image, side: int = SIDE) -> Image:
    """Return a copy in RGB whose longer side has so many pixels."""
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.convert("RGB").resize(size, PILImage.Resampling.LANCZOS)


def colored(values: Floats, limits: tuple[float, float]) -> NDArray[np.uint8]:
    """Return colors [..., 3] of values: dark at the lower end (at 0 where there are values below it), bright above."""
    low, high = limits
    if low >= 0:
        return _ramp((values - low) / (high - low) if high > low else np.zeros_like(values), ABOVE)
    above = _ramp(np.clip(values / high if high > 0 else np.zeros_like(values), 0, 1), ABOVE)
    # One unit of loss has the same strength on both sides.
    below = _ramp(np.clip(-values / max(high, -low), 0, 1), BELOW)
    return np.where((values < 0)[..., None], below, above)


def _ramp(shares: Floats, anchors: Sequence[tuple[float, tuple[int, int, int]]]) -> NDArray[np.uint8]:
    at = [place for place, _ in anchors]
    channels = [np.interp(shares, at, [color[channel] for _, color in anchors]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def heat(image: Image, drawn: Map, side: int = SIDE) -> Image:
    """Return the picture with the map over it, its peak in a ring."""
    base = fitted(image, side)
    x0, y0, x1, y1 = _pixels(drawn.view, base.size)
    colors = PILImage.fromarray(colored(drawn.values, drawn.limits()))
    layer = colors.resize((x1 - x0, y1 - y0), PILImage.Resampling.NEAREST)
    base.paste(PILImage.blend(base.crop((x0, y0, x1, y1)), layer, _OPAQUE), (x0, y0))
    draw = ImageDraw.Draw(base)
    left, top, right, bottom = _pixels(drawn.peak(), base.size)
    for grown, color in ((2, "black"), (1, "white"), (0, "white"), (-1, "black")):
        ring = (left - grown, top - grown, right - 1 + grown, bottom - 1 + grown)
        # Of a cell that is a pixel or two thin there is no inside.
        if ring[0] <= ring[2] and ring[1] <= ring[3]:
            draw.rectangle(ring, outline=color)
    return base


def _pixels(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    wide, high = size
    x0, y0, x1, y1 = box
    left, top = round(x0 * wide), round(y0 * high)
    return left, top, max(round(x1 * wide), left + 1), max(round(y1 * high), top + 1)


def panel(image: Image, drawn: Map | None, side: int = SIDE) -> Image:
    """Return one map with its title, scale and note; without a map the picture alone."""
    shown = fitted(image, side) if drawn is None else heat(image, drawn, side)
    title = "picture" if drawn is None else drawn.title
    made = PILImage.new("RGB", (max(shown.width, 240), shown.height + 24 + _BAR + 3 * _LINE), "white")
    draw = ImageDraw.Draw(made)
    face, small = font(14), font(12)
    draw.text((0, 2), shorten(plain(title, face), face, made.width), _INK, face)
    made.paste(shown, (0, 24))
    if drawn is not None:
        low, high = drawn.limits()
        top = shown.height + 30
        scale = colored(np.linspace(low, high, made.width)[None].repeat(_BAR, axis=0), (low, high))
        made.paste(PILImage.fromarray(scale), (0, top))
        draw.text((0, top + _BAR + 3), f"{low:.3g}", _SOFT, small)
        draw.text((made.width, top + _BAR + 3), f"{high:.3g}", _SOFT, small, anchor="ra")
        draw.text((made.width // 2, top + _BAR + 3), plain(drawn.unit, small), _SOFT, small, anchor="ma")
        note = shorten(plain(drawn.note, small), small, made.width)
        draw.text((0, top + _BAR + 3 + _LINE), note, _SOFT, small)
    return made


def sheet(panels: Sequence[Image], title: str, lines: Sequence[str]) -> Image:
    """Return panels beside one another under a title, and sentences below them."""
    wide = max(sum(one.width + _GAP for one in panels) + _GAP, 560)
    face, text = font(18), font(14)
    told = [line for said in lines for line in wrapped(plain(said, text), text, wide - 2 * _GAP, 6)]
    high = max(one.height for one in panels)
    made = PILImage.new("RGB", (wide, 44 + high + len(told) * _LINE + 2 * _GAP), "white")
    draw = ImageDraw.Draw(made)
    draw.text((_GAP, 12), shorten(plain(title, face), face, wide - 2 * _GAP), _INK, face)
    left = _GAP
    for one in panels:
        made.paste(one, (left, 44))
        left += one.width + _GAP
    for number, line in enumerate(told):
        draw.text((_GAP, 44 + high + _GAP + number * _LINE), line, _INK, text)
    return made


def beside(panels: Sequence[Image]) -> Image | None:
    """Return panels beside one another, None where there are none."""
    if not panels:
        return None
    wide = sum(one.width + _GAP for one in panels) - _GAP
    made = PILImage.new("RGB", (wide, max(one.height for one in panels)), "white")
    left = 0
    for one in panels:
        made.paste(one, (left, 0))
        left += one.width + _GAP
    return made


def words(image: Image, found: Words) -> Image:
    """Return the picture, paled, with each patch's nearest word on it; the most frequent words have colors.

    Raises:
        ValueError: the image tokens are no one grid.
    """
    grid = found.grid
    if grid is None:
        raise ValueError("these image tokens are no one grid")
    side = min(_MOST, max(2 * SIDE, _CELL * max(grid.rows, grid.columns)))
    base = fitted(image, side)
    base = PILImage.blend(base, PILImage.new("RGB", base.size, "white"), 0.62)
    draw = ImageDraw.Draw(base)
    frequent = [word for word, count, _ in found.counts()[: len(_FREQUENT)] if count > 1]
    for number, token in enumerate(found.tokens[grid.extra :]):
        left, top, right, bottom = _pixels(grid.cell(number), base.size)
        draw.rectangle((left, top, right, bottom), outline=(170, 170, 170))
        word = token.near[0].word
        color = _FREQUENT[frequent.index(word)] if word in frequent else _OTHER
        face = font(max(9, min(15, (right - left) // 5)))
        shown = shorten(plain(word, face), face, right - left - 4)
        draw.text(((left + right) // 2, (top + bottom) // 2), shown, color, face, anchor="mm")
    return base


def words_sheet(image: Image, found: Words, title: str) -> Image:
    """Return the words over the picture, with the most frequent ones and the controls below."""
    counts = ", ".join(f"{word} ({count})" for word, count, _ in found.counts()[:20])
    told = [f"How often: {counts}"]
    if found.grid is None:
        return sheet([fitted(image)], title, ["These tokens lie in no one grid over the picture.", *told])
    if found.grid.extra:
        first = found.tokens[0].near[0]
        told.insert(0, f"Class token, which has no place: {first.word} (cosine {first.cosine:.3f})")
    return sheet([words(image, found)], title, [*told, *found.sentences()])


def frequent_colors(found: Words) -> dict[str, str]:
    """Return word -> color (#rrggbb) of the words that are drawn in one."""
    counts = Counter({word: count for word, count, _ in found.counts()})
    chosen = [word for word, count in counts.most_common(len(_FREQUENT)) if count > 1]
    return {word: "#{:02x}{:02x}{:02x}".format(*color) for word, color in zip(chosen, _FREQUENT, strict=False)}


def stacked(maps: Sequence[Floats]) -> Floats:
    """Return maps [R, C] as one array [N, R, C]."""
    return np.stack(maps)


def data_uri(image: Image, small: bool = False) -> str:
    """Return a picture as a data URI: a PNG, or where it must be small one of 256 colors."""
    made = image.quantize(256, PILImage.Quantize.MEDIANCUT, dither=PILImage.Dither.NONE) if small else image
    return f"data:image/png;base64,{base64.b64encode(png(made)).decode()}"


def png(image: Image) -> bytes:
    """Return a picture as the bytes of a PNG file."""
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()
