"""Stored values to 8 bits of gray: modality rescale or LUT, then window or VOI LUT (PS3.3, C.11.1 and C.11.2).

Everything is worked out once for each value that occurs, then looked up for each pixel: a picture of any size costs
little more memory than itself.
"""

from __future__ import annotations

import dataclasses
import struct
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from medvlm.data.look import PictureError
from medvlm.data.sources.dicom.options import Window

LOW, HIGH = 0.5, 99.5
"""Percentiles that become black and white where no window is known; fillings are left out."""
_SPAN = 1 << 20
"""Whole numbers that lie within so many are looked up directly."""


@dataclasses.dataclass(slots=True)
class _Values:
    """The values that occur in a picture: `stored` ascending, `where` each pixel's position in them, `counts`."""

    stored: np.ndarray
    where: np.ndarray
    counts: np.ndarray


def render(pixels: np.ndarray, header: Dataset, frame: int, window: Window, little: bool = True) -> np.ndarray:
    """Return gray values as uint8 [H, W], black first: MONOCHROME1 is inverted, filling is black.

    Args:
        pixels: stored values [H, W], whole numbers or floats.
        header: the file's; with functional groups, those of `frame` come before the shared and the file's own.
        frame: from 0.
        window: what is asked for; what a file does not tell is made up for by percentiles.
        little: the byte order of the file, for LUTs.

    Raises:
        PictureError: a LUT cannot be used.
    """
    values = _occurring(pixels)
    used = _used(values.stored, header)
    scaled = _modality(values.stored, of_frame(header, frame, "PixelValueTransformationSequence"), little)
    shares = _shown(scaled, np.where(used, values.counts, 0), header, frame, window, little)
    if header.get("PhotometricInterpretation") == "MONOCHROME1":
        shares = 1.0 - shares
    gray = np.where(used, np.floor(np.clip(shares, 0.0, 1.0) * 255.0 + 0.5), 0).astype(np.uint8)
    return np.asarray(gray[values.where].reshape(pixels.shape))


def window_used(header: Dataset, frame: int, window: Window) -> str:
    """Return what a frame of gray is shown by: the preset or CENTER/WIDTH that was asked for, "tag" (what the file
    tells), "percentile", or "none" where gray of 8 bits stays as it is.
    """
    # The presets are in Hounsfield units, which CT alone has.
    if window.kind == "numbers" or (window.kind == "preset" and header.get("Modality") == "CT"):
        return window.name
    if window.kind == "percentile":
        return "percentile"
    voi = of_frame(header, frame, "FrameVOILUTSequence")
    if _voi_lut(voi) is not None or _window(voi) is not None:
        return "tag"
    stored = header.get("BitsStored") == 8 and header.get("PixelRepresentation") == 0
    rescale = of_frame(header, frame, "PixelValueTransformationSequence")
    # Nothing says that the stored values stand for others.
    if stored and rescale.get("RescaleSlope") is None and not rescale.get("ModalityLUTSequence"):
        return "none"
    return "percentile"


def of_frame(header: Dataset, frame: int, macro: str) -> Dataset:
    """Return where a macro's elements stand: in the frame's functional groups, the shared ones, or the file itself."""
    for groups, number in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        items = header.get(groups) or []
        if number < len(items) and items[number].get(macro):
            found: Dataset = items[number].get(macro)[0]
            return found
    return header


def number(elements: Dataset, keyword: str) -> float | None:
    """Return an element's first value as a finite number, None where there is none."""
    value = elements.get(keyword)
    if isinstance(value, list | tuple) or hasattr(value, "append"):
        value = value[0] if len(value) else None
    try:
        found = float(value) if value not in (None, "") else None
    except (TypeError, ValueError):
        return None
    return found if found is not None and np.isfinite(found) else None


def _occurring(pixels: np.ndarray) -> _Values:
    if pixels.dtype.kind in "iu":
        low, high = int(pixels.min()), int(pixels.max())
        if high - low < _SPAN:
            where = (pixels.astype(np.int64) - low).ravel()
            stored = np.arange(low, high + 1, dtype=np.int64)
            return _Values(stored, where, np.bincount(where, minlength=len(stored)))
    stored, where, counts = np.unique(pixels, return_inverse=True, return_counts=True)
    return _Values(stored, where.ravel(), counts)


def _used(stored: np.ndarray, header: Dataset) -> np.ndarray:
    """Return which stored values show something: not the filling around the picture (PS3.3, C.7.5.1.1.2)."""
    fill = _filling(header, "PixelPaddingValue")
    used = np.isfinite(stored.astype(np.float64))
    if fill is None:
        return used
    limit = _filling(header, "PixelPaddingRangeLimit")
    ends = sorted((fill, fill if limit is None else limit))
    kept = used & ~((stored >= ends[0]) & (stored <= ends[1]))
    # A filling that is all there is would leave nothing to show.
    return kept if kept.any() else used


def _filling(header: Dataset, keyword: str) -> float | None:
    """Return a value of the filling, signed as the pixels are: some writers give 63536 (US) for -2000 (SS)."""
    value = number(header, keyword)
    if value is None:
        return None
    if header.get("PixelRepresentation") == 1:
        return value - 65536 if value >= 32768 else value
    return value + 65536 if value < 0 and header.get("PixelRepresentation") == 0 else value


def _modality(stored: np.ndarray, elements: Dataset, little: bool) -> np.ndarray:
    """Return what stored values stand for: Hounsfield units, optical density, ..."""
    items = elements.get("ModalityLUTSequence")
    if items:
        table, first, _ = _lut(items[0], little, bool(stored.min() < 0))
        return table[np.clip(stored.astype(np.int64) - first, 0, len(table) - 1)]
    slope, intercept = number(elements, "RescaleSlope"), number(elements, "RescaleIntercept")
    return stored.astype(np.float64) * (slope or 1.0) + (intercept or 0.0)


def _shown(
    scaled: np.ndarray, counts: np.ndarray, header: Dataset, frame: int, window: Window, little: bool
) -> np.ndarray:
    """Return each value's share of white, before clipping."""
    used = window_used(header, frame, window)
    if used == "percentile":
        return _between_percentiles(scaled, counts)
    if used == "none":
        return scaled / 255.0
    if used != "tag":
        return windowed(scaled, window.center, window.width, "LINEAR")
    voi = of_frame(header, frame, "FrameVOILUTSequence")
    item, told = _voi_lut(voi), _window(voi)
    if item is not None:
        table, first, bits = _lut(item, little, bool(scaled.min() < 0))
        return table[np.clip(np.floor(scaled + 0.5).astype(np.int64) - first, 0, len(table) - 1)] / (2.0**bits - 1)
    assert told is not None
    return windowed(scaled, *told)


def _voi_lut(voi: Dataset) -> Dataset | None:
    items = voi.get("VOILUTSequence")
    return items[0] if items and items[0].get("LUTData") is not None else None


def _window(voi: Dataset) -> tuple[float, float, str] | None:
    """Return center, width and function of the file's first window, None where it has none that can be used."""
    center, width = number(voi, "WindowCenter"), number(voi, "WindowWidth")
    function = str(voi.get("VOILUTFunction") or "LINEAR").strip().upper()
    if center is None or width is None or width <= 0 or (width < 1 and function == "LINEAR"):
        return None
    return center, width, function


def windowed(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """Return values' share of white, 0 to 1, by a window (PS3.3, C.11.2.1.2 and C.11.2.1.3)."""
    if function == "SIGMOID":
        with np.errstate(over="ignore"):
            return np.asarray(1.0 / (1.0 + np.exp(-4.0 * (values - center) / width)))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1.0
    if width == 0:
        return (values > center).astype(np.float64)
    return np.clip((values - center) / width + 0.5, 0.0, 1.0)


def _between_percentiles(scaled: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return values' share of the way between two percentiles of the pixels (nearest rank)."""
    order = np.argsort(scaled, kind="stable")
    ranks = np.cumsum(counts[order])
    low, high = (
        float(scaled[order][np.searchsorted(ranks, share / 100.0 * ranks[-1], side="left")]) for share in (LOW, HIGH)
    )
    if high <= low:
        # A picture of one value but for specks.
        shown = scaled[counts > 0]
        low, high = float(shown.min()), float(shown.max())
    return (scaled - low) / (high - low) if high > low else np.zeros(len(scaled))


def _lut(item: Dataset, little: bool, signed: bool) -> tuple[np.ndarray, int, int]:
    """Return a LUT's entries, the first value that it maps, and the bits of an entry (PS3.3, C.11.1.1).

    `signed`: the values to map go below zero, and so may the first. Without a VR in the file it is read as the stored
    pixels are, 64536 for -1000, though what is mapped are the rescaled ones.
    """
    descriptor: Any = item.get("LUTDescriptor")
    data: Any = item.get("LUTData")
    if descriptor is None or len(descriptor) != 3 or data is None:
        raise PictureError("lookup table cannot be used", "no LUTDescriptor or LUTData")
    count, first, bits = (int(part) for part in descriptor)
    # 0 is 65536, and a signed count is none.
    count = count % (1 << 16) or 1 << 16
    if signed and first >= 1 << 15:
        first -= 1 << 16
    if isinstance(data, bytes):
        words = len(data) // 2
        data = struct.unpack(f"{'<' if little else '>'}{words}H", data[: 2 * words])
    if not 1 <= bits <= 16 or len(data) < count:
        raise PictureError("lookup table cannot be used", f"{len(data)} entries of {count}")
    return np.asarray(data[:count], np.float64), first, bits
