"""Files of records (JSON, JSON lines, CSV, TSV, parquet) read in slices, whatever is wrong with them.

A slice is named by a locator: (path, kind, start, stop). JSON and tables of text are cut by rows, JSON lines by bytes,
parquet by row groups; so every worker reads its own part, and a file of any size is never in memory but for JSON and
CSV, which are read whole once in each process. Measured: that takes 1.2 times the size of a
CSV, and 3 times that of JSON.
"""

from __future__ import annotations

import codecs
import collections
import contextlib
import csv
import dataclasses
import functools
import itertools
import json
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from medvlm.errors import InputError

Record = dict[str, Any]

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
_SEPARATOR = re.compile(r'"?sep=([,;|\t])"?[\s,;]*', re.IGNORECASE)
_KEY = re.compile(r"\S*\d\S*")

KINDS = {".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}


@dataclasses.dataclass(frozen=True, slots=True)
class Bad:
    """A record that cannot be read, and why: `reason` is the key that is counted."""

    reason: str
    detail: str = ""


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
            return _header(str(path), lines, kind)[0]
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


class _Table(Sequence[Any]):
    """The rows of a table as they stand in its file, each parted into its fields when it is asked for."""

    def __init__(self, names: list[str], delimiter: str, rows: list[str | Bad]) -> None:
        self._names, self._delimiter, self._rows = names, delimiter, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: Any) -> Any:
        row = self._rows[number]
        return row if isinstance(row, Bad) else _row(self._names, _cells(row, self._delimiter))


class _Lines:
    """The lines of a file; those of the row that is being read are held, and can be read again."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._again: collections.deque[str] = collections.deque()
        self.held: list[str] = []
        self.number = 0
        """Of the line read last, from 1 on."""

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._file)
        self.held.append(line)
        self.number += 1
        return line

    def begin(self) -> int:
        """Begin a row; return the number of its first line."""
        self.held = []
        return self.number + 1

    def give_back(self, first: int) -> None:
        """Have the held lines from the one at `first` on read again."""
        lines = self.held[first:]
        self._again.extendleft(reversed(lines))
        self.number -= len(lines)


@contextlib.contextmanager
def _lines_of(path: str) -> Iterator[_Lines]:
    """Open a table of text.

    Raises:
        InputError: it is too large or cannot be read, there or while its lines are.
    """
    _check_size(path)
    try:
        with open(path, "rb") as file:
            start = file.read(2)
        wide = start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        with open(path, encoding="utf-16" if wide else "utf-8-sig", newline="") as text:
            yield _Lines(text)
    except UnicodeError:
        decode(_bytes(path), path)  # which tells the place
        raise
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; name a readable file") from error


def _table(path: str, kind: str) -> _Table:
    """Return the rows of a table with a header."""
    with _lines_of(path) as lines:
        names, delimiter = _header(path, lines, kind)
        keys = _key_shapes(lines, delimiter, len(names))
        return _Table(names, delimiter, list(_rows(path, lines, names, delimiter, keys)))


def _header(path: str, lines: _Lines, kind: str) -> tuple[list[str], str]:
    """Return the columns' names and what parts them.

    The separator of a .csv is what its first line holds most of outside quotation marks, unless a line above says it:
    Excel's "sep=;".
    """
    first = next(lines, "")
    said = _SEPARATOR.fullmatch(first)
    first = next(lines, "") if said else first
    outside = re.sub(r'"[^"]*"', "", first)
    delimiter = said[1] if said else "\t" if kind == "tsv" else max(",;\t|", key=outside.count)
    lines.give_back(len(lines.held) - bool(first))
    csv.field_size_limit(WHOLE_BYTES)
    try:
        names = [name.strip() for name in next(csv.reader(lines, delimiter=delimiter, strict=True), [])]
    except csv.Error as error:
        raise InputError(f"{path}: the first line is no {kind.upper()} ({error}); mend it") from error
    if not any(names):
        raise InputError(f"{path}: the first line names no columns; add a header")
    twice = [place for place, name in enumerate(names, 1) if name and names.count(name) > 1]
    if twice:
        # By number: where there is no header, the names are somebody's data.
        raise InputError(f"{path}: columns {twice[0]} and {twice[1]} have the same name; rename one")
    return names, delimiter


def _key_shapes(lines: _Lines, delimiter: str, width: int) -> dict[int, set[str]]:
    """Return the columns that mostly hold numbers, ids or names of files in the first rows, with the shapes they show.

    A shape that one row alone has may come from a line within a text.
    """
    lines.begin()
    first = list(itertools.islice(lines, ROWS))
    lines.give_back(0)
    rows = [cells for cells in csv.reader(first, delimiter=delimiter) if len(cells) == width]
    if max((cell.count("\n") for cells in rows for cell in cells), default=len(first)) * 2 > len(first):
        # A stray quotation mark takes in most of these lines: those without one are read.
        rows = [cells for line in first if '"' not in line and len(cells := _cells(line, delimiter)) == width]
    places = [place for place in range(width) if sum(_is_key(row[place]) for row in rows) * 2 > len(rows)]
    counts = {place: collections.Counter(_shape(row[place]) for row in rows) for place in places}
    return {place: {shape for shape, count in found.items() if count > 1} for place, found in counts.items()}


def _rows(path: str, lines: _Lines, names: list[str], delimiter: str, keys: dict[int, set[str]]) -> Iterator[str | Bad]:
    """Yield the rows of a table as they stand there, but for empty ones.

    A stray quotation mark opens a field that ends somewhere below: in a line that then makes no sense, or in a row
    with whole rows inside. Then the line with the mark is lost alone; the lines below it are read again, and each that
    is no whole row by itself is told.
    """
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    read_before = 0
    while True:
        first, again = lines.begin(), True
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problem = str(error)
            if "unexpected end" in problem:  # all lines to the end of the file are in one field
                problem = "opens a quotation mark that nothing closes"
                if first > read_before:
                    raise InputError(f"{path}: line {first} {problem}; mend it") from error
        else:
            row, below = _row(names, values), lines.held[1:]
            again = _takes_in_rows(below, values, names, delimiter, keys)
            if again:
                problem = "its quotation mark takes in other lines"
            elif first <= read_before and not below and any(values) and not _is_whole(values, names, keys):
                problem = "no whole row, below a stray quotation mark"
            else:
                problem = row.detail if isinstance(row, Bad) else ""
        if problem:
            if again:
                read_before = max(read_before, lines.number)
                lines.give_back(1)
            yield Bad("malformed record", f"line {first}: {problem}")
        elif any(values):
            yield "".join(lines.held)


def _takes_in_rows(
    below: list[str], values: list[str], names: list[str], delimiter: str, keys: dict[int, set[str]]
) -> bool:
    """Whether the lines below the first of a row are rows themselves, as they are below a stray quotation mark.

    A row of the right length is doubted only where all lines in its midst are rows: the lines of a report hold commas,
    too, and the last of them, with the columns behind it, often looks like a row.
    """
    if len(values) != len(names):
        return any(_is_row(line, names, delimiter, keys) for line in below)
    inside = [line for line in below[:-1] if line.strip()]
    return bool(inside) and all(_is_row(line, names, delimiter, keys) for line in inside)


def _is_row(line: str, names: list[str], delimiter: str, keys: dict[int, set[str]]) -> bool:
    """Whether a line within a field is a row by itself."""
    if not keys or line.count(delimiter) < len(names) - 1:
        return False
    try:
        return _is_whole(_cells(line, delimiter), names, keys)
    except csv.Error:
        return False


def _is_whole(values: list[str], names: list[str], keys: dict[int, set[str]]) -> bool:
    return len(values) == len(names) and all(_shape(values[place]) in shapes for place, shapes in keys.items())


def _is_key(value: str) -> bool:
    """Whether a field is a number, an id or a file's name."""
    return len(value) < 300 and _KEY.fullmatch(value.strip()) is not None


def _shape(value: str) -> str:
    """Return a key as it is built: 12.png is 9.a, L4-L5 is a9-a9, and a mix of digits and letters, as in a hash, w."""
    letters = re.sub(r"[^\W\d_]+", "a", value[:300].replace('"', ""))
    return re.sub(r"[a9]{3,}", "w", re.sub(r"\d+", "9", letters))


def _cells(row: str, delimiter: str) -> list[str]:
    return next(csv.reader([row], delimiter=delimiter, strict=True), [])


def _row(names: list[str], values: list[str]) -> Record | Bad:
    if len(values) > len(names) and any(values[len(names) :]):
        return Bad("malformed record", f"{len(values)} fields in {len(names)} columns")
    # A row may end early, as spreadsheets write it; a field that is not there is None, an empty one "".
    return dict(zip(names, [*values, *[None] * (len(names) - len(values))], strict=False))


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
