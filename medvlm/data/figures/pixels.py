"""A picture's pixels: cheap statistics of its small copy (can it be a scan? is it drawn?), and shrinking it."""

from __future__ import annotations

import dataclasses
import io
import warnings
from pathlib import PurePosixPath

import numpy as np
from PIL import Image as PILImage
from PIL import ImageOps

from medvlm.data.images import to_rgb
from medvlm.data.look import PictureError, examine, look_of
from medvlm.data.sample import Image


@dataclasses.dataclass(frozen=True, slots=True)
class Traits:
    """Shares (0 to 1) of the small copy's 4096 pixels, but for `colors` (a count of 512 coarse ones)."""

    white: float
    black: float
    gray: float
    """Pixels without color."""
    middle: float
    """Pixels without color that are neither nearly white nor nearly black."""
    colors: int

    @property
    def drawn(self) -> bool:
        """True for lines and letters on white: plots, diagrams, tables."""
        return self.white > 0.6 and self.black < 0.15

    @property
    def filled(self) -> bool:
        """True for pictures with hardly any white ground, as photographs are and drawings are not."""
        return self.white < 0.25

    @property
    def scan(self) -> bool:
        """True for gray pictures that are mostly shades on dark, as scans are."""
        return self.gray > 0.97 and self.white < 0.3 and self.middle > 0.2


def traits(thumb: np.ndarray) -> Traits:
    """Return the statistics of `thumb`, uint8 [H, W, 3]."""
    pixels = thumb.reshape(-1, 3).astype(np.int16)
    low, high = pixels.min(axis=1), pixels.max(axis=1)
    gray = high - low <= 16
    white, black = low >= 235, high <= 25
    coarse = (pixels >> 5) @ np.array([64, 8, 1], dtype=np.int16)
    return Traits(
        white=float(white.mean()),
        black=float(black.mean()),
        gray=float(gray.mean()),
        middle=float((gray & ~white & ~black).mean()),
        colors=int(np.unique(coarse).size),
    )


def shrink(image: Image, max_side: int) -> Image:
    """Return the picture with its longer side at most `max_side` pixels (Lanczos), or as it is where it fits.

    JPEG stays JPEG, with quality 95 and full color resolution; all other formats become PNG. 16-bit gray stays so, CMYK
    becomes RGB. The name tells that the bytes are not the article's: `f1.jpg` -> `f1.max512.jpg`.

    Raises:
        PictureError: it cannot be decoded.
    """
    look = look_of(image)
    if max(look.width, look.height) <= max_side:
        return image
    smaller = _resized(upright(image.data), max_side)
    jpeg = look.format == "JPEG"
    buffer = io.BytesIO()
    smaller.info = {}
    if jpeg:
        smaller.save(buffer, "JPEG", quality=95, subsampling=0)
    else:
        smaller.save(buffer, "PNG")
    stem = PurePosixPath(image.name).stem
    data = buffer.getvalue()
    return Image(data, f"{stem}.max{max_side}.{'jpg' if jpeg else 'png'}", examine(data))


def upright(data: bytes) -> PILImage.Image:
    """Return the picture decoded whole and turned as its EXIF data says, in the mode it is stored in.

    16-bit gray of the other byte order becomes "I;16" with the same values: Pillow cuts and converts no other.

    Raises:
        PictureError: it cannot be decoded.
    """
    with warnings.catch_warnings():
        # Of odd tags and large sizes, which were looked at when the file was checked.
        warnings.simplefilter("ignore")
        try:
            with PILImage.open(io.BytesIO(data)) as picture:
                picture.load()
                return ImageOps.exif_transpose(_in_own_byte_order(picture))
        except Exception as error:  # damaged tags make it raise nearly anything
            raise PictureError("image cannot be read", str(error)[:200]) from error


def _in_own_byte_order(picture: PILImage.Image) -> PILImage.Image:
    if not picture.mode.startswith("I;16") or picture.mode == "I;16":
        return picture
    plain = PILImage.fromarray(np.asarray(picture).astype(np.uint16))
    plain.getexif().update(picture.getexif())
    return plain


def _resized(picture: PILImage.Image, max_side: int) -> PILImage.Image:
    scale = max_side / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    if picture.mode.startswith("I;16"):
        values = PILImage.fromarray(np.asarray(picture).astype(np.float32))
        resized = np.asarray(values.resize((width, height), PILImage.Resampling.LANCZOS))
        return PILImage.fromarray(resized.round().clip(0, 65535).astype(np.uint16))
    plain = picture if picture.mode in ("L", "RGB") and "transparency" not in picture.info else to_rgb(picture)
    return plain.resize((width, height), PILImage.Resampling.LANCZOS)
