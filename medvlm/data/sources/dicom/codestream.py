"""How large a picture a compressed frame unpacks to, told by its first bytes: asked before a decoder is let at it."""

from __future__ import annotations

import struct

_FRAME_STARTS = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
"""Markers SOF of JPEG (ITU-T T.81, table B.1) and of JPEG-LS (T.87)."""
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers without a length."""
_J2K = b"\xff\x4f\xff\x51"
"""Start of a JPEG 2000 codestream and of its marker SIZ (T.800, A.5.1)."""
_JP2 = b"\0\0\0\x0cjP  \r\n\x87\n"
"""Signature of a JP2 file (T.800, I.5.1), which a frame should not be, and often is."""
_COMPONENTS = range(1, 5)
"""A codestream can have thousands of components; a picture has not."""


def size(frame: bytes) -> tuple[int, int] | None:
    """Return (width, height) of a JPEG, JPEG-LS or JPEG 2000 frame, None where it does not tell."""
    start = _codestream(frame) if frame.startswith(_JP2) else 0
    if start is not None and frame.startswith(_J2K, start):
        found = _j2k(frame, start)
    else:
        found = _jpeg(frame) if frame[:2] == b"\xff\xd8" else None
    return found if found is not None and min(found) > 0 else None


def _codestream(frame: bytes) -> int | None:
    """Return where the codestream of a JP2 file begins: the first box jp2c, wherever it is (T.800, I.4)."""
    place = 0
    while place + 8 <= len(frame):
        length, kind = struct.unpack_from(">L4s", frame, place)
        head = 8
        if length == 1 and place + 16 <= len(frame):
            (length,) = struct.unpack_from(">Q", frame, place + 8)
            head = 16
        if kind == b"jp2c":
            return place + head
        if length < head:
            return None
        place += length
    return None


def _j2k(frame: bytes, start: int) -> tuple[int, int] | None:
    if len(frame) < start + 42:
        return None
    right, bottom, left, top = struct.unpack_from(">4L", frame, start + 8)
    (components,) = struct.unpack_from(">H", frame, start + 40)
    return (right - left, bottom - top) if components in _COMPONENTS else None


def _jpeg(frame: bytes) -> tuple[int, int] | None:
    place = 2
    while (place := frame.find(b"\xff", place)) >= 0 and place + 10 <= len(frame):
        # Decoders skip what stands between two markers, so it hides nothing here either.
        marker = frame[place + 1]
        if marker in _FRAME_STARTS:
            height, width, components = struct.unpack_from(">HHB", frame, place + 5)
            return (width, height) if components in _COMPONENTS else None
        if marker == 0xFF:
            place += 1
        elif marker == 0 or marker in _ALONE:
            place += 2
        else:
            (length,) = struct.unpack_from(">H", frame, place + 2)
            place += 2 + length
    return None
