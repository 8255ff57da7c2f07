"""Tables of text, CSV and TSV: header and rows out of lines, whatever a stray quotation mark does to them."""

from __future__ import annotations

import collections
import csv
import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from medvlm.errors import InputError

Record = dict[str, Any]

FIRST_LINES = 500
"""Of a table, to see what its columns hold."""
_SEPARATOR = re.compile(r'"?sep=([,;|\t])"?[\s,;]*', re.IGNORECASE)
_KEY = re.compile(r"\S*\d\S*")


@dataclasses.dataclass(frozen=True, slots=True)
class Bad:
    """A record that cannot be read, and why: `reason` is the key that is counted."""

    reason: str
    detail: str = ""


class Table(Sequence[Any]):
    """The rows of a table as they stand in its file, each parted into its fields when it is asked for."""

    def __init__(self, names: list[str], delimiter: str, rows: list[str | Bad]) -> None:
        self._names, self._delimiter, self._rows = names, delimiter, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: Any) -> Any:
        row = self._rows[number]
        return row if isinstance(row, Bad) else _row(self._names, _cells(row, self._delimiter))


class Lines:
    """The lines of a file; those of the row that is being read are held, and can be read again."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._again: collections.deque[str] = collections.deque()
        self.held: list[str] = []
        self.number = 0
        """Of the line read last, from 1 on."""

    def __iter__(self) -> Lines:
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


def header(path: str, lines: Lines, kind: str) -> tuple[list[str], str]:
    """Return the columns' names and what parts them.

    The separator of a .csv is what its first line holds most of outside quotation marks, unless a line above says it:
    Excel's "sep=;".

    Raises:
        InputError: there is no header, it is damaged, or it names a column twice.
    """
    first = next(lines, "")
    said = _SEPARATOR.fullmatch(first)
    first = next(lines, "") if said else first
    outside = re.sub(r'"[^"]*"', "", first)
    delimiter = said[1] if said else "\t" if kind == "tsv" else max(",;\t|", key=lambda one: _parts(one, outside))
    lines.give_back(len(lines.held) - bool(first))
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


def key_shapes(lines: Lines, delimiter: str, width: int) -> dict[int, set[str]]:
    """Return the columns that mostly hold numbers, ids or names of files in the first rows, with the shapes they show.

    A shape that one row alone has may come from a line within a text.
    """
    lines.begin()
    first = list(itertools.islice(lines, FIRST_LINES))
    lines.give_back(0)
    rows = [cells for cells in csv.reader(first, delimiter=delimiter) if len(cells) == width]
    if max((cell.count("\n") for cells in rows for cell in cells), default=len(first)) * 2 > len(first):
        # A stray quotation mark takes in most of these lines: those without one are read.
        rows = [cells for line in first if '"' not in line and len(cells := _cells(line, delimiter)) == width]
    places = [place for place in range(width) if sum(_is_key(row[place]) for row in rows) * 2 > len(rows)]
    counts = {place: collections.Counter(_shape(row[place]) for row in rows) for place in places}
    return {place: {shape for shape, count in found.items() if count > 1} for place, found in counts.items()}


def _parts(separator: str, line: str) -> tuple[int, int]:
    """Return how often a letter parts a line's names, first without those before a blank: commas within a name."""
    return len(re.findall(re.escape(separator) + r"(?! )", line)), line.count(separator)


def rows(path: str, lines: Lines, names: list[str], delimiter: str, keys: dict[int, set[str]]) -> Iterator[str | Bad]:
    """Yield the rows of a table as they stand there, but for empty ones.

    A stray quotation mark opens a field that ends somewhere below: in a line that then makes no sense, or in a row
    with whole rows inside. Then the line with the mark is lost alone; the lines below it are read again, and each that
    is no whole row by itself is told.

    Raises:
        InputError: a quotation mark takes in all the rest of the file.
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
            again = _takes_in_rows(lines.held, values, names, delimiter, keys)
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
    held: list[str], values: list[str], names: list[str], delimiter: str, keys: dict[int, set[str]]
) -> bool:
    """Whether the lines below the first of a row are rows themselves, as they are below a stray quotation mark.

    A row of the right length is doubted only where all its lines look like rows: the lines of a report hold commas,
    too. The line with a stray mark and the one that closes it are rows but for their marks; a report's first line ends
    within its text, and its last begins there.
    """
    first, below = held[0], held[1:]
    if len(values) != len(names):
        return any(_is_row(line, names, delimiter, keys) for line in below)
    inside = [line for line in below[:-1] if line.strip()]
    if not inside or not all(_is_row(line, names, delimiter, keys) for line in inside):
        return False
    last = below[-1].replace('"', "").rstrip("\r\n").split(delimiter)
    keyed = all(_shape(last[place]) in shapes for place, shapes in keys.items() if place < len(last))
    return first.count(delimiter) >= len(names) - 1 and keyed


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
