"""Lists of records in a pickle, read without running anything.

A pickle is a program: loading one runs whatever it names. These are read by an unpickler that finds no global, and only
after every one of their instructions was looked at: lists, dictionaries, texts, numbers and nothing else, no larger
than their file warrants.
"""

from __future__ import annotations

import functools
import io
import pickle
import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from medvlm.data.sources.records import ROWS, Bad, Record, Slice
from medvlm.errors import InputError

FILE_BYTES = 64 << 20
"""The largest published list of the kind has about 2 MB."""
INSTRUCTIONS = 4_000_000
"""About ten a record."""
TEXT_CHARS = 256 << 20
"""Of all records together: a pickle can name one long text again and again."""

_NAMES = """
    PROTO FRAME STOP MARK EMPTY_LIST LIST APPEND APPENDS EMPTY_DICT DICT SETITEM SETITEMS NONE NEWTRUE NEWFALSE
    INT BININT BININT1 BININT2 LONG LONG1 FLOAT BINFLOAT UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
    STRING BINSTRING SHORT_BINSTRING MEMOIZE PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET
"""
_HARMLESS = frozenset(_NAMES.split())
_PUT = ("PUT", "BINPUT", "LONG_BINPUT")


class _NoGlobals(pickle.Unpickler):
    """Knows no global and no persistent object."""

    def find_class(self, module_name: str, global_name: str, /) -> NoReturn:
        raise pickle.UnpicklingError(f"asks for {module_name}.{global_name}")

    def persistent_load(self, pid: Any, /) -> NoReturn:
        raise pickle.UnpicklingError("asks for a persistent object")


def slices(path: Path) -> list[Slice]:
    """Return the locators of the slices of a pickled list, as `records.slices` does.

    Raises:
        InputError: it cannot be read, is no list, or holds anything but plain data.
    """
    size = len(_whole(path))
    return [(str(path), "pickle", str(start), str(min(start + ROWS, size))) for start in range(0, size, ROWS)]


def read(locator: Slice) -> Iterator[tuple[int, Record | Bad]]:
    """Yield the records of a slice with their rows, as `records.read` does.

    Raises:
        InputError: the file cannot be read any more.
    """
    path, _, start, stop = locator
    for number, record in enumerate(_whole(Path(path))[int(start) : int(stop)], int(start)):
        yield number, record if isinstance(record, dict) else Bad("malformed record", "not an object")


def _whole(path: Path) -> list[Any]:
    try:
        stat = path.stat()
        return _loaded(str(path), stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; name a readable file") from error


@functools.lru_cache(maxsize=4)
def _loaded(path: str, size: int, changed: int) -> list[Any]:
    if size > FILE_BYTES:
        raise InputError(f"{path}: {size / 1e6:,.0f} MB are too much for a pickled list; fetch it again")
    data = Path(path).read_bytes()
    try:
        _inspect(data)
        value = _NoGlobals(io.BytesIO(data), encoding="utf-8", errors="surrogateescape").load()
    except Exception as error:
        # A damaged pickle ends the unpickler with nearly any exception; none of its instructions has an effect.
        said = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(
            f"{path}: not a pickled list of plain records ({said}); it was not run. Fetch it again, or the parquet form"
        ) from error
    if not isinstance(value, list):
        raise InputError(f"{path}: not a list of records; fetch it again")
    rows = [row for row in value if isinstance(row, dict)]
    if sum(len(text) for row in rows for text in row.values() if isinstance(text, str)) > TEXT_CHARS:
        raise InputError(f"{path}: unfolds to more than {TEXT_CHARS >> 20} million letters; fetch it again")
    return value


def _inspect(data: bytes) -> None:
    """Look at every instruction without following it.

    Raises:
        ValueError: one of them is not among those that build plain data, or asks for more memory than it has a right
            to.
    """
    end = 0
    for number, (opcode, argument, position) in enumerate(pickletools.genops(data)):
        if opcode.name not in _HARMLESS:
            asked = " ".join(str(argument).split())[:80] if argument is not None else ""
            raise ValueError(f"instruction {opcode.name} {asked}".rstrip() + f" at byte {position}")
        if number >= INSTRUCTIONS:
            raise ValueError(f"more than {INSTRUCTIONS:,} instructions")
        if isinstance(argument, int) and argument.bit_length() > 64:
            raise ValueError(f"a number of {argument.bit_length()} bits at byte {position}")
        if opcode.name in _PUT and not 0 <= int(str(argument)) <= number:
            # The unpickler keeps a table as long as the largest number.
            raise ValueError(f"instruction {opcode.name} {argument} at byte {position}")
        end = (position or 0) + 1
    if end != len(data):
        raise ValueError(f"{len(data) - end} bytes after its end")
