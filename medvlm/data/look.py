"""One decoding of a picture, and what all later steps need of it: format, mode, size and a small copy.

A picture is decoded once, when its file is checked; hashes, statistics and its kind come from the small copy.
"""

from __future__ import annotations

import dataclasses
import io
import warnings
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as PILImage
from PIL import UnidentifiedImageError

from medvlm.data.images import to_rgb

if TYPE_CHECKING:
    from medvlm.data.sample import Image

MAX_PIXELS = 200_000_000
"""Larger pictures are refused before decoding: 200 megapixels, 600 MB as RGB."""

THUMB = 64
"""Width and height of the small copy, whatever the picture's shape."""

_FORMATS = ("TIFF", "PNG", "JPEG", "WEBP", "GIF", "BMP")
_SMOOTH_MODES = ("L", "RGB", "CMYK", "YCbCr")
_DRAFT = 4 * THUMB


class PictureError(Exception):
    """Bytes are no usable picture; `reason` is the key that is counted."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What one decoding tells: `width` and `height` in pixels as stored, `thumb` uint8 [64, 64, 3] RGB."""

    format: str
    mode: str
    width: int
    height: int
    thumb: np.ndarray


def examine(data: bytes) -> Look:
    """Decode a picture whole and return what it looks like.

    Raises:
        PictureError: it is empty, has more than `MAX_PIXELS`, is cut short, or is no picture that can be read.
    """
    if not data:
        raise PictureError("image cannot be read", "empty file")
    with warnings.catch_warnings():
        # Pillow warns of odd tags and of sizes that are checked here.
        warnings.simplefilter("ignore")
        try:
            with PILImage.open(io.BytesIO(data), formats=_FORMATS) as image:
                return _examined(image)
        except PictureError:
            raise
        except UnidentifiedImageError as error:
            # Its own words hold an address in memory, another one in each run.
            raise PictureError("image cannot be read", "not a picture that can be read") from error
        except PILImage.DecompressionBombError as error:
            raise PictureError("image too large", str(error)) from error
        except Exception as error:
            # Decoders answer damaged bytes with nearly any exception (OSError, SyntaxError, struct.error, ...).
            text = str(error)
            cut = "truncated" in text.lower() or isinstance(error, EOFError)
            raise PictureError("image truncated" if cut else "image cannot be read", text[:200]) from error


def look_of(image: Image) -> Look:
    """Return the look of a sample's image, decoding it only where that was not done before.

    Raises:
        PictureError: as `examine`.
    """
    if image.look is None:
        image.look = examine(image.data)
    return image.look


def _examined(image: PILImage.Image) -> Look:
    (width, height), mode = image.size, image.mode
    if width * height > MAX_PIXELS:
        raise PictureError("image too large", f"{width}x{height} pixels")
    # JPEG alone heeds this: all its bits are decoded, but not turned into all its pixels.
    image.draft(image.mode, (_DRAFT, _DRAFT))
    image.load()
    small: PILImage.Image = image if image.mode in _SMOOTH_MODES else to_rgb(image)
    small = small.resize((THUMB, THUMB), PILImage.Resampling.BOX, reducing_gap=2.0)
    return Look(image.format or "", mode, width, height, np.asarray(to_rgb(small)))
