"""From encoded bytes to the RGB picture that a model sees."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image as PILImage
from PIL import ImageOps, UnidentifiedImageError

from medvlm.errors import InputError


def decode(data: bytes, name: str = "image", advice: str = "prepare the data set again") -> PILImage.Image:
    """Return the picture in RGB, upright: 16-bit gray is scaled to 8, transparency lies on white.

    `advice` ends the error's text.

    Raises:
        InputError: the bytes are no picture, or cut off.
    """
    try:
        with PILImage.open(io.BytesIO(data)) as image:
            image.load()
            # In place: else a picture that is upright already would be copied.
            ImageOps.exif_transpose(image, in_place=True)
            return to_rgb(image)
    except (OSError, ValueError, SyntaxError, PILImage.DecompressionBombError) as error:
        reason: object = error
        if isinstance(error, UnidentifiedImageError):
            # Its own text names an object's address.
            reason = "not a known picture format" if data else "the file is empty"
        raise InputError(f"{name}: the image cannot be read ({reason}); {advice}") from error


def to_rgb(image: PILImage.Image) -> PILImage.Image:
    """Return `image` in mode RGB."""
    if image.mode.startswith("I") or image.mode == "F":
        return PILImage.fromarray(_to_bytes(np.asarray(image))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = PILImage.new("RGBA", rgba.size, "white")
        return PILImage.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _to_bytes(values: np.ndarray) -> np.ndarray:
    """Scale [H, W] gray values to 0..255: by 65535 where they are 16-bit, else from their smallest to largest."""
    pixels = values.astype(np.float64)
    words = values.dtype.kind == "u" and values.dtype.itemsize == 2
    low, high = (0.0, 65535.0) if words else (float(pixels.min()), float(pixels.max()))
    scaled = (pixels - low) / (high - low) if high > low else np.zeros_like(pixels)
    return (scaled * 255).round().astype(np.uint8)
