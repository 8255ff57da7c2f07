"""Pixel data to pictures for the eye: one frame at a time, of any transfer syntax, as 8-bit gray or RGB, then PNG."""

from __future__ import annotations

import importlib.util
import io
from typing import Any

import numpy as np
from PIL import Image as PILImage
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import as_pixel_options

from medvlm.data.look import MAX_PIXELS, PictureError
from medvlm.data.sources.dicom import apart, codestream, gray, jpeg12
from medvlm.data.sources.dicom.opened import Opened
from medvlm.data.sources.dicom.options import Window

NO_PIXELS, CUT, NO_DECODER = "no pixel data", "pixel data cut short", "no decoder for the compression"
UNREADABLE, TOO_LARGE, ODD_HEADER = "pixel data cannot be read", "image too large", "header does not describe a picture"

_PREFERRED = ("pydicom", "pyjpegls", "pylibjpeg", "pillow")
"""Decoders in the order in which they are tried; GDCM has what none of them has, see `apart`."""


def count_frames(found: Opened) -> int:
    """Return how many frames a file has, having made sure that each can be decoded within bounds.

    Raises:
        PictureError: it has no pixels, more than `MAX_PIXELS` in a frame, or less data than its header tells.
    """
    if found.pixels is None:
        raise PictureError(NO_PIXELS)
    try:
        return _count(found)
    except (PictureError, MemoryError):
        raise
    except Exception as error:
        # Elements are read when they are asked for, and damaged ones are answered with nearly any exception.
        raise PictureError(ODD_HEADER, type(error).__name__) from None


def _count(found: Opened) -> int:
    header = found.header
    rows, columns = _whole(header, "Rows"), _whole(header, "Columns")
    samples, bits = _whole(header, "SamplesPerPixel", 1), _whole(header, "BitsAllocated")
    frames = _whole(header, "NumberOfFrames", 1)
    if rows * columns > MAX_PIXELS:
        raise PictureError(TOO_LARGE, f"{columns}x{rows} pixels")
    if samples not in (1, 3) or not 1 <= bits <= 64:
        raise PictureError(ODD_HEADER, f"{samples} samples of {bits} bits")
    if not found.syntax.is_encapsulated:
        needed = (rows * columns * samples * frames * bits + 7) // 8
        if header.get("PhotometricInterpretation") == "YBR_FULL_422":
            needed = needed * 2 // 3
        if found.length < needed:
            raise PictureError(CUT, f"{found.length} of {needed} bytes")
    elif found.length < 8 * frames:
        # Each frame is an item of its own, with a head of 8 bytes.
        raise PictureError(CUT, f"{found.length} bytes for {frames} frames")
    return frames


def picture(found: Opened, frame: int, window: Window) -> bytes:
    """Return one frame (from 0) as a PNG: 8-bit gray or RGB, overlays and annotations of the header not drawn.

    Raises:
        PictureError: it cannot be decoded; the reason is "no decoder for the compression" where a package is missing.
    """
    try:
        pixels = _decoded(found, frame)
        shown = _for_the_eye(pixels, found, frame, window)
        file = io.BytesIO()
        PILImage.fromarray(shown).save(file, "PNG")
        return file.getvalue()
    except (PictureError, MemoryError):
        raise
    except Exception as error:
        raise PictureError(UNREADABLE, type(error).__name__) from None


def _whole(header: Dataset, keyword: str, default: int | None = None) -> int:
    """Return an element that must be a whole number from 1 on."""
    value = header.get(keyword)
    if (value is None or value == "") and default is not None:
        return default
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise PictureError(ODD_HEADER, f"{keyword} is no number") from None
    if number < 1 and default is not None:
        return default
    if number < 1:
        raise PictureError(ODD_HEADER, f"{keyword} is {number}")
    return number


def _decoded(found: Opened, frame: int) -> np.ndarray:
    """Return the stored values of one frame, [H, W] or [H, W, 3]; YBR becomes RGB."""
    try:
        decoder = get_decoder(found.syntax)
    except NotImplementedError:
        raise PictureError(NO_DECODER, _syntax_name(found.syntax)) from None
    if not decoder.is_available:
        raise _no_decoder(found.syntax)
    assert found.pixels is not None
    options: dict[str, Any] = as_pixel_options(found.header, pixel_keyword=found.keyword)
    options["transfer_syntax_uid"] = found.syntax
    if found.vr is not None:
        options["pixel_vr"] = found.vr
    if not found.syntax.is_encapsulated:
        found.stream.seek(found.pixels)
        return decoder.as_array(found.stream, index=frame, **options)[0]
    data = _compressed(found, frame, options)
    options.pop("extended_offsets", None)
    plugins = sorted(set(decoder.available_plugins) - {"gdcm"}, key=_PREFERRED.index)
    if jpeg12.applies(options) or not plugins:
        if importlib.util.find_spec("gdcm") is None:
            raise _no_decoder(found.syntax)
        return apart.decode(data, options)
    # Where others fail GDCM is not asked: it is the one that crashes.
    failed: Exception | None = None
    for plugin in plugins:
        try:
            whole = {**options, "number_of_frames": 1}
            return decoder.as_array(encapsulate([data]), index=0, decoding_plugin=plugin, **whole)[0]
        except MemoryError:
            raise
        except Exception as error:
            failed = failed or error
    raise PictureError(UNREADABLE, type(failed).__name__)


def _compressed(found: Opened, frame: int, options: dict[str, Any]) -> bytes:
    """Return a compressed frame, having made sure that it unpacks to no more than the header tells."""
    assert found.pixels is not None
    found.stream.seek(found.pixels)
    data = get_frame(
        found.stream,
        frame,
        number_of_frames=options["number_of_frames"],
        extended_offsets=options.get("extended_offsets"),
    )
    told = options["rows"] * options["columns"]
    if found.syntax == uid.RLELossless:
        stored = told * options["samples_per_pixel"] * options["bits_allocated"] // 8
        if len(data) > 2 * stored + 1024:
            raise PictureError(TOO_LARGE, f"{len(data)} compressed bytes for {stored}")
        return data
    size = codestream.size(data)
    if size is None:
        raise PictureError(UNREADABLE, "a compressed frame that does not tell its size")
    if size[0] * size[1] > told:
        raise PictureError(TOO_LARGE, f"{size[0]}x{size[1]} pixels in a frame of {told}")
    return data


def _for_the_eye(pixels: np.ndarray, found: Opened, frame: int, window: Window) -> np.ndarray:
    """Return uint8 [H, W] or [H, W, 3]."""
    header = found.header
    interpretation = str(header.get("PhotometricInterpretation", "")).strip()
    if interpretation == "PALETTE COLOR":
        # PyDicom needs to know the byte order of segmented palettes.
        header.file_meta.TransferSyntaxUID = found.syntax
        colors = apply_color_lut(pixels, header)[..., :3]
        # Entries of 16 bits whose values stay below 256 are a known mistake of writers. The whole palette tells: a dark
        # frame may use small entries alone.
        count, first = (int(part) for part in header.RedPaletteColorLookupTableDescriptor[:2])
        palette = apply_color_lut(np.arange(first, first + (count or 1 << 16)), header)[..., :3]
        return colors.astype(np.uint8) if palette.max() < 256 else (colors >> 8).astype(np.uint8)
    if pixels.ndim == 3:
        bits = max(int(header.BitsStored) - 8, 0)
        return (pixels >> bits).astype(np.uint8)
    if not interpretation.startswith("MONOCHROME"):
        raise PictureError(ODD_HEADER, "one sample, but neither MONOCHROME nor PALETTE COLOR")
    return gray.render(pixels, header, frame, window, found.syntax.is_little_endian)


def _no_decoder(syntax: uid.UID) -> PictureError:
    return PictureError(NO_DECODER, f"{_syntax_name(syntax)}: pip install 'medvlm[dicom]'")


def _syntax_name(syntax: uid.UID) -> str:
    """Return a transfer syntax by the standard's name; one that the standard does not have could say anything."""
    return syntax.name if syntax in uid.AllTransferSyntaxes else "a private transfer syntax"
