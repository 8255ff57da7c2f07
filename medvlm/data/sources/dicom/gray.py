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
    voi = of_frame(header, frame, "FrameVOILUTSequence")
    shares = _shown(scaled, np.where(used, values.counts, 0), header, voi, window, little)
    if header.get("PhotometricInterpretation") == "MONOCHROME1":
        shares = 1.0 - shares
    gray = np.where(used, np.floor(np.clip(shares, 0.0, 1.0) * 255.0 + 0.5), 0).astype(np.uint8)
    return np.asarray(gray[values.where].reshape(pixels.shape))


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
    fill = number(header, "PixelPaddingValue")
    used = np.isfinite(stored.astype(np.float64))
    if fill is None:
        return used
    limit = number(header, "PixelPaddingRangeLimit")
    ends = sorted((fill, fill if limit is None else limit))
    kept = used & ~((stored >= ends[0]) & (stored <= ends[1]))
    # A filling that is all there is would leave nothing to show.
    return kept if kept.any() else used


def _modality(stored: np.ndarray, elements: Dataset, little: bool) -> np.ndarray:
    """Return what stored values stand for: Hounsfield units, optical density, ..."""
    items = elements.get("ModalityLUTSequence")
    if items:
        table, first, _ = _lut(items[0], little)
        return table[np.clip(stored.astype(np.int64) - first, 0, len(table) - 1)]
    slope, intercept = number(elements, "RescaleSlope"), number(elements, "RescaleIntercept")
    return stored.astype(np.float64) * (slope or 1.0) + (intercept or 0.0)


def _shown(
    scaled: np.ndarray, counts: np.ndarray, header: Dataset, voi: Dataset, window: Window, little: bool
) -> np.ndarray:
    """Return each value's share of white, before clipping."""
    # The presets are in Hounsfield units, which CT alone has.
    if window.kind == "numbers" or (window.kind == "preset" and header.get("Modality") == "CT"):
        return windowed(scaled, window.center, window.width, "LINEAR")
    if window.kind != "percentile":
        items = voi.get("VOILUTSequence")
        if items and items[0].get("LUTData") is not None:
            table, first, bits = _lut(items[0], little)
            return table[np.clip(np.floor(scaled + 0.5).astype(np.int64) - first, 0, len(table) - 1)] / (2.0**bits - 1)
        center, width = number(voi, "WindowCenter"), number(voi, "WindowWidth")
        function = str(voi.get("VOILUTFunction") or "LINEAR").strip().upper()
        if center is not None and width is not None and (width >= 1 or (width > 0 and function != "LINEAR")):
            return windowed(scaled, center, width, function)
        if header.get("BitsStored") == 8 and header.get("PixelRepresentation") == 0 and _as_stored(header):
            return scaled / 255.0
    return _between_percentiles(scaled, counts)


def _as_stored(header: Dataset) -> bool:
    """Whether values are shown as they are stored: nothing says that they stand for others."""
    return header.get("RescaleSlope") is None and not header.get("ModalityLUTSequence")


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


def _lut(item: Dataset, little: bool) -> tuple[np.ndarray, int, int]:
    """Return a LUT's entries, the first value that it maps, and the bits of an entry (PS3.3, C.11.1.1)."""
    descriptor: Any = item.get("LUTDescriptor")
    data: Any = item.get("LUTData")
    if descriptor is None or len(descriptor) != 3 or data is None:
        raise PictureError("lookup table cannot be used", "no LUTDescriptor or LUTData")
    count, first, bits = (int(part) for part in descriptor)
    count = count or 1 << 16
    if isinstance(data, bytes):
        words = len(data) // 2
        data = struct.unpack(f"{'<' if little else '>'}{words}H", data[: 2 * words])
    if not 1 <= bits <= 16 or len(data) < count:
        raise PictureError("lookup table cannot be used", f"{len(data)} entries of {count}")
    return np.asarray(data[:count], np.float64), first, bits
