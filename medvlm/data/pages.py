"""Where the values of a parquet column lie in its file, for columns that are stored as they are.

Pictures are written without compression, so each lies in the shard byte for byte. With its place known it is read
alone: decoding the row group around it costs a hundred pictures for one. pyarrow gives no places, so the headers of the
pages are read here, as the format's specification has them (apache/parquet-format: `parquet.thrift`; Encodings.md, RLE
and PLAIN; the headers are in Thrift's compact protocol).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

_DATA_PAGE, _DATA_PAGE_V2 = 0, 3
_PLAIN, _RLE = 0, 3
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
_NUMBERS = (4, 5, 6)
_HEADER = 1 << 16
"""Bytes that no page's header exceeds: it holds a few numbers, and statistics that are not written for pictures."""


class _Unknown(ValueError):
    """The bytes are not what this module reads."""


def places(data: Any, start: int, stop: int, count: int, level: int) -> np.ndarray | None:
    """Return the offset in the file and the length of each value [count, 2], or None where they cannot be told.

    Args:
        data: the file's bytes, by place; a place outside the file may raise ValueError.
        start: where the column's pages begin.
        stop: where they end.
        count: how many values there are to be.
        level: definition level of a value that is there; repeated values are not read.

    None is returned for pages with a dictionary, another encoding, absent values, or anything that does not add up.
    """
    try:
        found = [place for page in _pages(data, start, stop) for place in _values(data, page, level)]
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError, struct.error):
        # Whatever damaged bytes lead to.
        return None
    return np.array(found, dtype=np.int64).reshape(-1, 2) if len(found) == count else None


def _pages(data: Any, start: int, stop: int) -> Iterator[tuple[dict[int, Any], int, int]]:
    """Yield each page's header, where its content begins, and where it ends."""
    at = start
    while at < stop:
        header, size = _struct(data[at : min(stop, at + _HEADER)], 0)
        begin = at + size
        at = begin + int(header.get(3, -1))
        if not begin <= at <= stop:
            raise _Unknown
        yield header, begin, at


def _values(data: Any, page: tuple[dict[int, Any], int, int], level: int) -> Iterator[tuple[int, int]]:
    header, at, end = page
    kind = header.get(1)
    if kind == _DATA_PAGE:
        told = header.get(5, {})
        at = _after_levels(data, at, told, level) if level else at
        encoding = told.get(2)
    elif kind == _DATA_PAGE_V2:
        told = header.get(8, {})
        at += told.get(5, 0) + told.get(6, 0)
        encoding = None if told.get(2) else told.get(4)
    else:
        raise _Unknown
    if encoding != _PLAIN:
        raise _Unknown
    for _ in range(told.get(1, 0)):
        (length,) = struct.unpack("<I", data[at : at + 4])
        yield at + 4, length
        at += 4 + length
        if at > end:
            raise _Unknown
    if at != end:
        raise _Unknown


def _after_levels(data: Any, at: int, told: dict[int, Any], level: int) -> int:
    """Return where the values begin behind the definition levels, all of which must be `level`."""
    if told.get(3) != _RLE:
        raise _Unknown
    (size,) = struct.unpack("<I", data[at : at + 4])
    end: int = at + 4 + size
    left = int(told.get(1, 0))
    at, width = at + 4, level.bit_length()
    while left > 0:
        run, at = _varint(data, at)
        if run & 1:
            # Groups of eight levels, their bits one after the other.
            packed = np.frombuffer(data[at : min(end, at + (run >> 1) * width)], np.uint8)
            bits = np.unpackbits(packed, bitorder="little").reshape(-1, width)
            levels = bits @ (1 << np.arange(width))
            if not levels.size or (levels[:left] != level).any():
                raise _Unknown
            at, left = at + len(packed), left - len(levels)
        else:
            size = -(-width // 8)
            if not run or int.from_bytes(data[at : at + size], "little") != level:
                raise _Unknown
            at, left = at + size, left - (run >> 1)
    if at > end:
        raise _Unknown
    return end


def _varint(data: Any, at: int) -> tuple[int, int]:
    value: int = 0
    shift = 0
    while shift < 64:
        byte: int = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _Unknown


def _integer(data: Any, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _struct(data: Any, at: int) -> tuple[dict[int, Any], int]:
    """Return number -> value of a struct's fields, and where it ends."""
    found: dict[int, Any] = {}
    number = 0
    while byte := data[at]:
        at += 1
        kind = byte & 0x0F
        if byte >> 4:
            number += byte >> 4
        else:
            number, at = _integer(data, at)
        if kind in (_TRUE, _FALSE):
            found[number] = kind == _TRUE
        else:
            found[number], at = _value(data, at, kind)
    return found, at + 1


def _value(data: Any, at: int, kind: int) -> tuple[Any, int]:
    if kind in _NUMBERS:
        return _integer(data, at)
    if kind == _STRUCT:
        return _struct(data, at)
    if kind == _BINARY:
        size, at = _varint(data, at)
        return None, at + size
    if kind in (_BYTE, _TRUE, _FALSE):
        return data[at], at + 1
    if kind == _DOUBLE:
        return None, at + 8
    if kind in (_LIST, _SET):
        size, item = data[at] >> 4, data[at] & 0x0F
        at += 1
        if size == 15:
            size, at = _varint(data, at)
        for _ in range(size):
            _, at = _value(data, at, item)
        return None, at
    raise _Unknown
