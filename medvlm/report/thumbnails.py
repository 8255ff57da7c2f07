"""Small pictures for a page that must stay small: how large each may be follows from how many there are."""

from __future__ import annotations

import base64
import io

from PIL import Image, features

from medvlm.errors import InputError

BUDGET = 11_000_000
"""Bytes of all pictures on a page together; base64 makes them a third larger."""
_LEAST, _MOST = 1000, 45_000
_QUALITIES = (82, 70, 55, 40)
_EDGES = (512, 400, 320, 256, 192, 128, 96, 64, 32)
_BYTES_OF_EDGE = 34
"""A radiograph as WebP takes about this many bytes for each pixel of its longer edge."""


class Thumbnails:
    """Makes data URIs of `count` pictures that together stay below `BUDGET` bytes, up to 11,000 of them.

    WebP, which every browser of the last five years shows; JPEG, somewhat larger, where Pillow was built without it.
    """

    def __init__(self, count: int) -> None:
        self.limit = min(_MOST, max(_LEAST, BUDGET // max(count, 1)))
        self.format = "WEBP" if features.check("webp") else "JPEG"
        likely = [edge for edge in _EDGES if edge * _BYTES_OF_EDGE <= self.limit]
        self.edges = likely or list(_EDGES[-1:])

    def __call__(self, data: bytes) -> tuple[str, tuple[int, int]] | None:
        """Return an encoded picture as a data URI with its width and height; None where it cannot be read."""
        from medvlm.data.images import decode

        try:
            picture = decode(data)
        except InputError:
            return None
        for edge in self.edges:
            # A gap of 1 averages whole blocks of pixels first, which costs a fraction.
            picture.thumbnail((edge, edge), Image.Resampling.BICUBIC, reducing_gap=1.0)
            for quality in _QUALITIES:
                encoded = self._encoded(picture, quality)
                if len(encoded) <= self.limit:
                    kind = f"image/{self.format.lower()}"
                    return f"data:{kind};base64,{base64.b64encode(encoded).decode()}", picture.size
        return None

    def _encoded(self, picture: Image.Image, quality: int) -> bytes:
        out = io.BytesIO()
        # WebP's quick way (method 2 of 6) takes two thirds of the time for a tenth more bytes; JPEG knows no method.
        picture.save(out, self.format, quality=quality, method=2)
        return out.getvalue()
