"""The panels of a compound picture, found by the uniform gutters between them.

Recursive cuts: a run of lines in one color through the whole region, with panels filled with other colors right up to
it on both sides, is a gutter. Frames and rules of plots and tables, and the dark of a radiograph, are none. Panels
that are plots on white have no such sides and stay together.

Where the caption says how many panels there are, a regular grid of that many is looked for too: slices on black have
no filled sides, but black lines through the whole picture at equal distances are no chance.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image as PILImage

from medvlm.data.images import to_rgb

Box = tuple[int, int, int, int]
"""left, top, right, bottom in pixels; right and bottom lie outside."""

WORK_SIDE = 1024
"""Larger pictures are looked at reduced, in whole steps, so that their longer side is below twice this."""

MIN_PANEL = 32
"""A panel has at least this many pixels a side, and a twelfth of the picture's side."""

_TOLERANCE = 20  # JPEG rings about so far into a gutter, in gray levels
_PURE = 0.015  # share of other pixels in a line of a gutter
_LOOSE = 0.12  # the same where a label stands in the gutter
_FILLED = 0.5  # share of other pixels in the lines beside a gutter
_DEPTH = 8  # how many lines beside a gutter are looked at
_MAX_CUTS = 64
_GUESSES = 3  # how many levels other than white and black are tried along each axis
_EVEN = 0.004  # share of other pixels in a line between the cells of a grid: an axis drawn across it is more
_OFF = 0.02  # how far a line of a grid may lie from its place, as a share of the picture's side
_THIN = 0.1  # a band wider than this share of a cell is gutter and margins; it is halved
_SHADES = 0.1  # share of a cell's pixels that are of another shade than most
_FINER = ((2, 1), (1, 2), (3, 1), (1, 3))
_EMPTY = 0.55  # share of the gutter's color from which a piece is no picture but drawn on that color
_FLAT = 0.95  # share of one of 16 gray levels from which a piece is a bar


def find_panels(image: PILImage.Image) -> list[Box]:
    """Return the boxes of the panels in reading order (row by row); the whole picture alone where it is not cut."""
    gray, factor = _reduced(image)
    height, width = gray.shape
    boxes = list(_cut(gray, (0, 0, width, height), _least(gray, factor)))
    return _enlarged(boxes, factor, image.size) if 1 < len(boxes) <= _MAX_CUTS else [(0, 0, *image.size)]


def find_grid(image: PILImage.Image, count: int) -> list[Box]:
    """Return the cells of a grid of so many equal panels row by row; the whole picture alone where none is certain.

    Between the cells lie black or white lines through the whole picture. None is certain where grids of several shapes
    fit (2x2 slices on black, and a caption of two), or where the cells would come apart in the same way. Two limbs on
    one film do look like two panels: ask only where the caption tells panels.
    """
    gray, factor = _reduced(image)
    dark_or_light = [np.minimum(_differs(gray, 0).mean(axis=a), _differs(gray, 255).mean(axis=a)) for a in (1, 0)]
    even = (dark_or_light[0] <= _EVEN, dark_or_light[1] <= _EVEN)
    shapes = [(rows, count // rows) for rows in range(1, count + 1) if count % rows == 0]
    found = [(shape, cells) for shape in shapes if (cells := _grid(gray, even, shape, _least(gray, factor)))]
    if count < 2 or len(found) != 1:
        return [(0, 0, *image.size)]
    (rows, columns), boxes = found[0]
    finer = any(_grid(gray, even, (rows * r, columns * c), _least(gray, factor)) for r, c in _FINER)
    return [(0, 0, *image.size)] if finer else _enlarged(boxes, factor, image.size)


def _reduced(image: PILImage.Image) -> tuple[np.ndarray, int]:
    """Return the gray levels of a picture, uint8 [rows, columns], and by how much they are reduced."""
    factor = max(1, max(image.size) // WORK_SIDE)
    small = image if image.mode == "L" else to_rgb(image).convert("L")
    return np.asarray(small.reduce(factor) if factor > 1 else small), factor


def _least(gray: np.ndarray, factor: int) -> tuple[int, int]:
    height, width = gray.shape
    return max(MIN_PANEL // factor, height // 12, 1), max(MIN_PANEL // factor, width // 12, 1)


def _enlarged(boxes: list[Box], factor: int, size: tuple[int, int]) -> list[Box]:
    right, bottom = size
    return [(x0 * factor, y0 * factor, min(x1 * factor, right), min(y1 * factor, bottom)) for x0, y0, x1, y1 in boxes]


def _grid(
    gray: np.ndarray, even: tuple[np.ndarray, np.ndarray], shape: tuple[int, int], least: tuple[int, int]
) -> list[Box]:
    """Return the cells of a grid of a shape (rows, columns), each with a picture in it; none where it does not fit."""
    tall, wide = (_stretches(flags, parts) for flags, parts in zip(even, shape, strict=True))
    cells = [(left, top, right, bottom) for top, bottom in tall for left, right in wide]
    large = all(y1 - y0 >= least[0] and x1 - x0 >= least[1] for x0, y0, x1, y1 in cells)
    return cells if large and all(_has_shades(gray[y0:y1, x0:x1]) for x0, y0, x1, y1 in cells) else []


def _has_shades(cell: np.ndarray) -> bool:
    levels = np.bincount((cell >> 4).reshape(-1), minlength=16)
    return bool(levels.max() <= (1 - _SHADES) * levels.sum())


def _stretches(even: np.ndarray, parts: int) -> list[tuple[int, int]]:
    """Return so many equal stretches of lines parted by even ones, given which lines are even; none if they are not."""
    lines = len(even)
    slack = max(2, round(_OFF * lines))
    bands = [band for band in _runs(even) if band[1] - band[0] >= 2]
    edges = [0]
    for index in range(1, parts):
        place = round(lines * index / parts)
        start, end = min(bands, key=lambda b: max(b[0] - place, place - b[1] + 1, 0), default=(lines, lines))
        if start - place > slack or place - end + 1 > slack:
            return []
        edges += [start, end] if (end - start) * parts <= _THIN * lines else [place, place]
    edges.append(lines)
    return list(zip(edges[::2], edges[1::2], strict=True))


def _cut(gray: np.ndarray, box: Box, least: tuple[int, int]) -> Iterator[Box]:
    """Yield the panels within a box: cut by rows first, so that a grid is read row by row."""
    x0, y0, x1, y1 = box
    region = gray[y0:y1, x0:x1]
    for color in _colors(region):
        other = _differs(region, color)
        for axis in (0, 1):
            pieces = _pieces(other.mean(axis=1 - axis), least[axis])
            if len(pieces) < 2 or not all(_is_picture(region, other, axis, piece) for piece in pieces):
                continue
            for start, end in pieces:
                inner = (x0, y0 + start, x1, y0 + end) if axis == 0 else (x0 + start, y0, x0 + end, y1)
                yield from _cut(gray, _trimmed(gray, inner, color), least)
            return
    yield box


def _is_picture(region: np.ndarray, other: np.ndarray, axis: int, piece: tuple[int, int]) -> bool:
    """Tell whether a piece is filled with more than one shade, as photographs and scans are, and plots are not."""
    part = (slice(*piece), slice(None)) if axis == 0 else (slice(None), slice(*piece))
    levels = np.bincount((region[part] >> 4).reshape(-1), minlength=16)
    return bool(other[part].mean() > 1 - _EMPTY and levels.max() < _FLAT * levels.sum())


def _colors(region: np.ndarray) -> list[int]:
    """Return the gray levels that gutters may have: white, black, and those of the most even lines."""
    levels = [255, 0]
    for lines in (region, region.T):
        spread = np.ptp(lines, axis=1) if lines.size else np.zeros(0)
        even = np.flatnonzero(spread <= 2 * _TOLERANCE)
        if even.size:
            # In steps of 8: noise moves the lines of one gutter a little apart.
            steps = np.median(lines[even], axis=1).astype(int) >> 3
            ranked = steps[np.argsort(spread[even], kind="stable")]
            between = [step for step in dict.fromkeys(ranked.tolist()) if 2 < step < 29]
            levels += [step * 8 + 4 for step in between[:_GUESSES]]
    return list(dict.fromkeys(levels))


def _differs(region: np.ndarray, color: int) -> np.ndarray:
    low, high = max(color - _TOLERANCE, 0), min(color + _TOLERANCE, 255)
    return (region < low) | (region > high)


def _pieces(share: np.ndarray, least: int) -> list[tuple[int, int]]:
    """Return the stretches between gutters, given each line's share of pixels of another color, float [lines]."""
    pieces, start = [], 0
    for first, last in _runs(share <= _LOOSE):
        if first == 0 or last == len(share):
            continue
        if (share[first:last] <= _PURE).sum() < max(2, len(share) // 250):
            continue
        if not (_filled(share[max(0, first - _DEPTH) : first][::-1]) and _filled(share[last : last + _DEPTH])):
            continue
        pieces.append((start, first))
        start = last
    pieces.append((start, len(share)))
    return pieces if all(end - begin >= least for begin, end in pieces) else _without_slivers(pieces, least)


def _without_slivers(pieces: list[tuple[int, int]], least: int) -> list[tuple[int, int]]:
    """Return the pieces that are large enough; slivers are bars and borders, unless one could be a panel's half."""
    large = [(start, end) for start, end in pieces if end - start >= least]
    return large if len(large) > 1 else []


def _filled(beside: np.ndarray) -> bool:
    """Tell whether the lines beside a gutter, the nearest first, belong to a picture: a frame's line is not enough."""
    return len(beside) >= 4 and bool((beside[2:] >= _FILLED).all())


def _trimmed(gray: np.ndarray, box: Box, color: int) -> Box:
    """Return the box without the lines at its sides that hold nothing, or a label, in the gutter's color."""
    x0, y0, x1, y1 = box
    other = _differs(gray[y0:y1, x0:x1], color)
    top, bottom = _ends(other.mean(axis=1))
    left, right = _ends(other[top:bottom].mean(axis=0))
    return x0 + left, y0 + top, x0 + right, y0 + bottom


def _ends(share: np.ndarray) -> tuple[int, int]:
    lines = len(share)
    return _margin(share), lines - _margin(share[::-1])


def _margin(share: np.ndarray) -> int:
    """Return how many lines at the beginning are margin: empty ones, or such with a label before a filled panel."""
    full = np.flatnonzero(share > _LOOSE)
    edge = int(full[0]) if full.size else 0
    if edge and _filled(share[edge : edge + _DEPTH]):
        return edge
    marked = np.flatnonzero(share > _PURE)
    return int(marked[0]) if marked.size else 0


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Return the stretches of True as (first, one past the last)."""
    steps = np.flatnonzero(np.diff(np.concatenate(([0], flags.astype(np.int8), [0]))))
    return [(int(a), int(b)) for a, b in zip(steps[::2], steps[1::2], strict=True)]
