"""The panels of a compound picture, found by the uniform gutters between them.

Recursive cuts: a run of lines in one color through the whole region, with panels filled with other colors right up to
it on both sides, is a gutter. Frames and rules of plots and tables, and the dark of a radiograph, are none. Panels
that are plots on white have no such sides and stay together.
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
_EMPTY = 0.55  # share of the gutter's color from which a piece is no picture but drawn on that color
_FLAT = 0.95  # share of one of 16 gray levels from which a piece is a bar


def find_panels(image: PILImage.Image) -> list[Box]:
    """Return the boxes of the panels in reading order (row by row); the whole picture alone where it is not cut."""
    factor = max(1, max(image.size) // WORK_SIDE)
    small = image if image.mode == "L" else to_rgb(image).convert("L")
    gray = np.asarray(small.reduce(factor) if factor > 1 else small)
    height, width = gray.shape
    least = (max(MIN_PANEL // factor, height // 12, 1), max(MIN_PANEL // factor, width // 12, 1))
    boxes = list(_cut(gray, (0, 0, width, height), least))
    if not 1 < len(boxes) <= _MAX_CUTS:
        return [(0, 0, *image.size)]
    (right, bottom) = image.size
    return [(x0 * factor, y0 * factor, min(x1 * factor, right), min(y1 * factor, bottom)) for x0, y0, x1, y1 in boxes]


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
