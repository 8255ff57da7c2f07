"""One DICOM file opened: its header read, and where its pixels begin, whatever is wrong with it.

Files are told by "DICM" behind a preamble of 128 bytes (PS3.10, 7.1), or by a first data element of group 0008 where
preamble and file meta information are missing. Nothing of a file's own words gets into an error.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import re
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import Tag

from medvlm.data.look import PictureError

DEFER_BYTES = 16 << 20
"""Larger values are not read before they are asked for."""
INFLATED_BYTES = 512 << 20
"""A deflated file that unpacks to more is refused."""
LOOK_BYTES = 16 << 20
"""So much of a deflated file is unpacked where only a few elements are asked for."""

_PIXELS = {0x7FE00010: "PixelData", 0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData"}
_PIECE = 1 << 18
_EXPLICIT = re.compile(rb"[A-Z]{2}")

NOT_DICOM, BROKEN, EMPTY = "not a DICOM file", "header cannot be read", "empty file"


@dataclasses.dataclass(slots=True)
class Opened:
    """A file whose header was read."""

    header: Dataset
    """All elements before the pixels, or those that were asked for."""
    syntax: uid.UID
    """The transfer syntax: told by the file, or guessed where it tells none."""
    stream: BinaryIO
    pixels: int | None = None
    """Where the value of the pixel data begins in `stream`; None where there is none."""
    length: int = 0
    """Bytes of that value as far as they are there."""
    keyword: str = ""
    vr: str | None = None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom from telling what it finds odd: its remarks quote the values of headers."""
    logger = logging.getLogger("pydicom")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


@contextlib.contextmanager
def opened(path: Path, tags: Sequence[str] | None = None) -> Iterator[Opened]:
    """Open a file and read its header, or only the elements `tags` of it.

    Raises:
        PictureError: it is no DICOM file, or its header cannot be read.
    """
    try:
        file = path.open("rb")
    except (OSError, ValueError) as error:
        raise PictureError("file cannot be read", type(error).__name__) from None
    with file, quiet():
        yield _read(file, tags)


def _read(file: BinaryIO, tags: Sequence[str] | None) -> Opened:
    try:
        stream, syntax, whole = _start(file, INFLATED_BYTES if tags is None else LOOK_BYTES)
        wanted: Any = [Tag(tag) for tag in tags] if tags is not None else None
        reached = 0

        def stop(tag: int, vr: str | None, length: int) -> bool:
            nonlocal reached
            reached = max(reached, tag)
            return tag in _PIXELS

        header = read_partial(stream, stop, DEFER_BYTES, force=True, specific_tags=wanted)
        if not whole and (wanted is None or reached < max(wanted)):
            raise PictureError("file too large", f"header unpacks to more than {LOOK_BYTES >> 20} MiB")
        told = header.file_meta.get("TransferSyntaxUID") if syntax is None else None
        found = Opened(header, syntax or uid.UID(str(told or _guess(header))), stream)
        if not len(header):
            raise PictureError(NOT_DICOM, "no element could be read")
        if tags is None:
            _find_pixels(found)
        return found
    except (PictureError, MemoryError):
        raise
    except Exception as error:
        # Damaged headers are answered with nearly any exception, whose text may quote them.
        raise PictureError(BROKEN, type(error).__name__) from None


def _start(file: BinaryIO, most: int) -> tuple[BinaryIO, uid.UID | None, bool]:
    """Return a stream that pydicom can read, the transfer syntax where the stream does not tell it, and whether all is
    there: of a deflated file at most so many bytes are unpacked.
    """
    head = file.read(160)
    if not head:
        raise PictureError(EMPTY)
    if head[128:132] == b"DICM":
        if head[132:136] == b"\2\0\0\0":
            # The length of the file meta information; the data set begins behind it.
            (length,) = struct.unpack("<L", head[140:144])
            file.seek(144)
            if uid.DeflatedExplicitVRLittleEndian.encode() in file.read(min(length, 1 << 16)):
                stream, whole = _inflated(file, most)
                return stream, uid.ExplicitVRLittleEndian, whole
        file.seek(0)
        return file, None, True
    # What cut off the file meta information may have left the last byte of it, a filling blank.
    for skipped in (0, 1):
        if _looks_like_elements(head[skipped:]):
            file.seek(skipped)
            return (io.BytesIO(file.read()) if skipped else file), None, True
    raise PictureError(NOT_DICOM)


def _looks_like_elements(head: bytes) -> bool:
    """Whether bytes begin with the element that data sets begin with: group 0002 or 0008, and a length that may be."""
    if len(head) < 16:
        return False
    for order in "<>":
        group, element, short = struct.unpack(f"{order}HH2xH", head[:8])
        if group not in (2, 8) or element > 0x20:
            continue
        if _EXPLICIT.match(head[4:6]) and short <= 256:
            return True
        if order == "<" and struct.unpack("<L", head[4:8])[0] <= 256:
            return True
    return False


def _inflated(file: BinaryIO, most: int) -> tuple[io.BytesIO, bool]:
    """Return a deflated data set (PS3.5, A.5), or the beginning of it, and whether it is the whole.

    Raises:
        PictureError: it unpacks to more than `INFLATED_BYTES`.
    """
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    stream = io.BytesIO()
    for piece in iter(lambda: file.read(_PIECE), b""):
        unpacked = b" " * _PIECE
        # Whoever fills what it was given may hold back more.
        while (piece or len(unpacked) == _PIECE) and not unpacker.eof:
            unpacked = unpacker.decompress(piece, _PIECE)
            piece = unpacker.unconsumed_tail
            stream.write(unpacked)
            if stream.tell() > INFLATED_BYTES:
                raise PictureError("file too large", f"unpacks to more than {INFLATED_BYTES >> 20} MiB")
            if stream.tell() > most:
                stream.seek(0)
                return stream, False
    stream.seek(0)
    return stream, True


def _guess(header: Dataset) -> uid.UID:
    """Return the transfer syntax by which pydicom read a header that tells none; its pixels cannot be compressed."""
    implicit, little = header.original_encoding
    if implicit:
        return uid.ImplicitVRLittleEndian
    return uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian


def _find_pixels(found: Opened) -> None:
    """Note where the pixels' value begins: pydicom leaves the stream where their element does."""
    stream, order = found.stream, "<" if found.syntax.is_little_endian else ">"
    start = stream.read(8)
    if len(start) < 8:
        return
    group, element = struct.unpack(f"{order}HH", start[:4])
    keyword = _PIXELS.get(group << 16 | element)
    if keyword is None:
        return
    # Some files are written without the VRs that their transfer syntax says they have.
    if found.syntax.is_implicit_VR or not _EXPLICIT.match(start[4:6]):
        length = struct.unpack(f"{order}L", start[4:])[0]
    else:
        found.vr = start[4:6].decode("ascii", "replace")
        length = struct.unpack(f"{order}L", stream.read(4))[0]
    found.keyword, found.pixels = keyword, stream.tell()
    there = stream.seek(0, io.SEEK_END) - found.pixels
    found.length = there if length == 0xFFFFFFFF else min(length, there)
