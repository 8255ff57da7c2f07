"""How large a picture a compressed frame unpacks to, told by its first bytes: asked before a decoder is let at it."""

from __future__ import annotations

import struct

_FRAME_STARTS = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
"""Markers SOF of JPEG (ITU-T T.81, table B.1) and of JPEG-LS (T.87)."""
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers without a length."""
_J2K = b"\xff\x4f\xff\x51"
"""Start of a JPEG 2000 codestream and of its marker SIZ (T.800, A.5.1)."""


def size(frame: bytes) -> tuple[int, int] | None:
    """Return (width, height) of a JPEG, JPEG-LS or JPEG 2000 frame, None where it does not tell."""
    start = frame.find(_J2K, 0, 1 << 12)
    if start >= 0 and len(frame) >= start + 24:
        right, bottom, left, top = struct.unpack(">4L", frame[start + 8 : start + 24])
        return max(right - left, 0), max(bottom - top, 0)
    return _jpeg(frame) if frame[:2] == b"\xff\xd8" else None


def _jpeg(frame: bytes) -> tuple[int, int] | None:
    place = 2
    while place + 9 <= len(frame):
        if frame[place] != 0xFF:
            return None
        marker = frame[place + 1]
        if marker in _FRAME_STARTS:
            height, width = struct.unpack(">HH", frame[place + 5 : place + 9])
            return width, height
        if marker == 0xFF:
            place += 1
        elif marker in _ALONE:
            place += 2
        else:
            (length,) = struct.unpack(">H", frame[place + 2 : place + 4])
            place += 2 + length
    return None
