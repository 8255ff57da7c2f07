"""Files of records (JSON, JSON lines, CSV, TSV, parquet) read in slices, whatever is wrong with them.

A slice is named by a locator: (path, kind, start, stop). JSON and tables of text are cut by rows, JSON lines by bytes,
parquet by row groups; so every worker reads its own part, and a file of any size is never in memory but for JSON and
CSV, which are read whole once in each process. Measured: that takes 1.2 times the size of a
CSV, and 3 times that of JSON.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import functools
import json
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medvlm.data.sources import text_tables
from medvlm.data.sources.text_tables import Bad as Bad
from medvlm.data.sources.text_tables import Record as Record
from medvlm.errors import InputError

ROWS = 500
"""Records of a JSON list or a table that are read as one unit."""
LINES_BYTES = 16 << 20
"""Bytes of JSON lines that are read as one unit."""
LINE_BYTES = 128 << 20
"""A longer line is left out; a picture in base64 may well be long."""
WHOLE_BYTES = 1 << 30
"""A JSON or CSV file of more bytes is refused: it is parsed in memory."""
GROUP_ROWS = 1 << 20
"""So many rows a row group has at most; as many are told one by one where it cannot be read."""
FIELD_CHARS = 1 << 20
"""A longer text is no question, caption or report."""

KINDS = {".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}


Slice = tuple[str, str, str, str]
"""(path, kind, start, stop); texts, since a unit's locator holds texts."""


def kind_of(path: Path) -> str:
    """Return json, jsonl, csv, tsv or parquet by the file's ending.

    Raises:
        InputError: it has another one.
    """
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"{path}: cannot tell what it is; name a file that ends in {', '.join(KINDS)}")
    return kind


def slices(path: Path, kind: str | None = None) -> list[Slice]:
    """Return the locators of all slices of a file, in order; a file without records has none.

    Raises:
        InputError: it cannot be read, or is not what its ending says.
    """
    kind = kind or kind_of(path)
    if kind == "jsonl":
        size, step = state(path)[0], LINES_BYTES
    elif kind == "parquet":
        size, step = _parquet(str(path)).metadata.num_row_groups, 1
    else:
        size, step = len(_whole(str(path), kind)), ROWS
    return [(str(path), kind, str(start), str(min(start + step, size))) for start in range(0, size, step)]


def read(locator: Slice) -> Iterator[tuple[int, Record | Bad]]:
    """Yield the records of a slice, each with its number: the row in its file, or for JSON lines the byte it begins at.

    Raises:
        InputError: the file cannot be read any more.
    """
    path, kind, first, last = locator
    start, stop = int(first), int(last)
    if kind == "jsonl":
        yield from _lines(path, start, stop)
    elif kind == "parquet":
        yield from _row_groups(path, start, stop)
    else:
        whole = _whole(path, kind)
        for number in range(start, min(stop, len(whole))):
            record = whole[number]
            yield number, record if isinstance(record, dict | Bad) else Bad("malformed record", "not an object")


def everything(path: Path, kind: str | None = None) -> Iterator[Record]:
    """Yield all records of a file that can be read, for what is counted over the whole set.

    Raises:
        InputError: as `slices`.
    """
    for locator in slices(path, kind):
        for _, record in read(locator):
            if isinstance(record, dict):
                yield record


def columns(path: Path, kind: str | None = None) -> list[str]:
    """Return the names of a file's columns: its header, its schema, or the keys of its first hundred records.

    Raises:
        InputError: as `slices`.
    """
    kind = kind or kind_of(path)
    if kind == "parquet":
        return [str(name) for name in _parquet(str(path)).schema_arrow.names]
    if kind in ("csv", "tsv"):
        with _lines_of(str(path)) as lines:
            return text_tables.header(str(path), lines, kind)[0]
    names: dict[str, None] = {}
    for number, record in enumerate(everything(path, kind)):
        if number == 100:
            break
        names.update(dict.fromkeys(map(str, record)))
    return list(names)


def text_of(value: Any) -> str | None:
    """Return a field as one line of text, blanks at its ends removed; numbers are written out, None is "".

    None means that it is no text: a list, a truth value, half a character, or more than `FIELD_CHARS`.
    """
    if value is None:
        return ""
    if isinstance(value, float) and value != value:  # NaN is how tables write an empty field
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = str(value)
    if len(text) > FIELD_CHARS or any("\ud800" <= letter <= "\udfff" for letter in text):
        return None
    return " ".join(text.replace("\0", " ").split())


def need(record: Mapping[str, Any], *names: str) -> str:
    """Return what is wrong with the texts that a record must have, "" if nothing.

    Each of `names` may give alternatives: "answer|Anwser".
    """
    for name in names:
        value = field(record, name)
        text = text_of(value)
        if text is None:
            long = isinstance(value, str) and len(value) > FIELD_CHARS
            return f"{name} is {f'longer than {FIELD_CHARS:,} letters' if long else 'no text'}"
        if not text:
            return f"no {name}"
    return ""


def field(record: Mapping[str, Any], names: str) -> Any:
    """Return the first field that is there of "one|other", None where there is none."""
    return next((record[name] for name in names.split("|") if record.get(name) is not None), None)


def state(path: Path) -> tuple[int, int]:
    """Return (size in bytes, time of the last change in ns) of a plain file.

    Raises:
        InputError: there is none; a pipe, which would be waited for, is none either.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; name a readable file") from error
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path}: a folder or device, not a file; put the published file there")
    return found.st_size, found.st_mtime_ns


def _check_size(path: str) -> None:
    size = state(Path(path))[0]
    if size > WHOLE_BYTES:
        raise InputError(f"{path}: {size / 1e9:.1f} GB are too much for one JSON or CSV file; cut it, or use .jsonl")


def _bytes(path: str) -> bytes:
    """Return a whole file, if it is of bearable size."""
    _check_size(path)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; name a readable file") from error


def decode(data: bytes, path: str) -> str:
    """Return the text of a file: UTF-8, or UTF-16 with its mark.

    Raises:
        InputError: it is neither.
    """
    try:
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return data.decode("utf-16")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not UTF-8 (byte {error.start} is {data[error.start]:#04x}); save it as UTF-8"
        ) from error


@functools.lru_cache(maxsize=2)
def _parsed(path: str, kind: str, size: int, changed: int) -> Sequence[Any]:
    return _json(path, decode(_bytes(path), path)) if kind == "json" else _table(path, kind)


def _whole(path: str, kind: str) -> Sequence[Any]:
    """Return all records of a JSON or text table, read once in this process while it stays the same."""
    return _parsed(path, kind, *state(Path(path)))


def _json(path: str, text: str) -> list[Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); fetch the file again") from error
    if not isinstance(value, list):
        raise InputError(f"{path}: not a list of records")
    return value


@contextlib.contextmanager
def _lines_of(path: str) -> Iterator[text_tables.Lines]:
    """Open a table of text.

    Raises:
        InputError: it is too large or cannot be read, there or while its lines are.
    """
    _check_size(path)
    csv.field_size_limit(WHOLE_BYTES)
    try:
        with open(path, "rb") as file:
            start = file.read(2)
        wide = start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        with open(path, encoding="utf-16" if wide else "utf-8-sig", newline="") as text:
            yield text_tables.Lines(text)
    except UnicodeError:
        decode(_bytes(path), path)  # which tells the place
        raise
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; name a readable file") from error


def _table(path: str, kind: str) -> text_tables.Table:
    """Return the rows of a table with a header."""
    with _lines_of(path) as lines:
        names, delimiter = text_tables.header(path, lines, kind)
        keys = text_tables.key_shapes(lines, delimiter, len(names))
        return text_tables.Table(names, delimiter, list(text_tables.rows(path, lines, names, delimiter, keys)))


def _lines(path: str, start: int, stop: int) -> Iterator[tuple[int, Record | Bad]]:
    """Yield the records of the lines that begin from `start` on and before `stop`."""
    try:
        with open(path, "rb") as file:
            if start:
                # A line that began before belongs to the slice before.
                file.seek(start - 1)
                _skip_line(file)
            while (place := file.tell()) < stop:
                line = file.readline(LINE_BYTES)
                if not line:  # the file has become shorter
                    return
                if len(line) == LINE_BYTES and not line.endswith(b"\n"):
                    _skip_line(file)
                    yield place, Bad("record too large", f"a line of more than {LINE_BYTES >> 20} MiB")
                elif (line if place else line.removeprefix(codecs.BOM_UTF8)).strip():
                    yield place, _line(line, first=not place)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; name a readable file") from error


def _skip_line(file: Any) -> None:
    """Read on to the end of the line, in pieces."""
    while True:
        piece = file.readline(LINE_BYTES)
        if len(piece) < LINE_BYTES or piece.endswith(b"\n"):
            return


def _line(line: bytes, first: bool) -> Record | Bad:
    try:
        value = json.loads(line.decode("utf-8-sig" if first else "utf-8"))
    except UnicodeDecodeError as error:
        return Bad("malformed record", f"not UTF-8 (byte {error.start} of the line)")
    except (ValueError, RecursionError) as error:
        return Bad("malformed record", f"not valid JSON ({error})")
    return value if isinstance(value, dict) else Bad("malformed record", "not an object")


def _parquet(path: str) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    state(Path(path))
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        said = " ".join(str(error).split())[:160]
        raise InputError(f"{path}: not a parquet file that can be read ({said}); fetch it again") from error


def _row_groups(path: str, start: int, stop: int) -> Iterator[tuple[int, Record | Bad]]:
    import pyarrow as pa

    file = _parquet(path)
    number = sum(file.metadata.row_group(group).num_rows for group in range(start))
    for group in range(start, stop):
        end, said = number + file.metadata.row_group(group).num_rows, "it ends early"
        try:
            for batch in file.iter_batches(batch_size=32, row_groups=[group]):
                for record in _of_batch(batch):
                    yield number, record
                    number += 1
        except (OSError, pa.ArrowException, ValueError) as error:
            said = " ".join(str(error).split())[:160]
            end = max(end, number + 1)
        # A damaged file may state any number of rows.
        for lost in range(number, min(end, number + GROUP_ROWS)):
            yield lost, Bad("malformed record", f"row group {group}: {said}")
        number = max(number, end)


def _of_batch(batch: Any) -> Iterator[Record | Bad]:
    """Yield the rows of a batch; one that cannot be taken out, as for a text that is no UTF-8, does not cost others."""
    try:
        yield from batch.to_pylist()
    except Exception:  # nothing was yielded: the list is made first
        for place in range(batch.num_rows):
            try:
                (record,) = batch.slice(place, 1).to_pylist()
            except Exception as error:
                record = Bad("malformed record", " ".join(str(error).split())[:160])
            yield record
