"""The records of a predictions file, whatever its form: JSON lines, a JSON list, or a table with a header.

The form is told by the content: `[` begins a JSON list, `{` JSON lines, and a first line that names the column
"prediction" (or a file called .csv or .tsv) a table, separated by tabs, commas or semicolons as that line is.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medvlm.errors import InputError

Record = tuple[int, "dict[str, Any] | ValueError"]
"""The line where a record begins, and the record or what is wrong with it."""

_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
_DECODER = json.JSONDecoder()
_BLANK = re.compile(r"[ \t\r\n]*")
_WHOLE = re.compile(r"-?\d+\.0")
_REFERENCE = re.compile(r"references?[ _.]?\d+")
_REFERENCES = ("references", "reference")
_CHOICES = frozenset(string.ascii_uppercase)
_LARGEST_CELL = 2**31 - 1


def load(path: Path) -> str:
    """Return a file's text; UTF-8, or UTF-16 with its mark as Excel writes it.

    Raises:
        InputError: it cannot be read, is no such text, or is a workbook of Excel.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if data.startswith(_WORKBOOKS):
        raise InputError(
            f'{path}: an Excel workbook; save its sheet as "Text (Tab delimited)" or "CSV UTF-8" and name that file'
        )
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from error


def records(path: Path, text: str) -> Iterator[Record]:
    """Yield the records of a file's `text` in order; blank lines are skipped."""
    start = text.lstrip()[:1]
    head = text.lstrip("\r\n").split("\n", 1)[0]
    if start == "[":
        return _listed(text)
    named = re.search(r"(?i)(?:^|[\t,;\"])\s*prediction\s*(?:$|[\t,;\"\r])", head) is not None
    if start and start != "{" and (named or path.suffix.lower() in (".csv", ".tsv")):
        return _tabled(text, next((mark for mark in "\t,;" if mark in head), "\t"))
    return _lines(text)


def _lines(text: str) -> Iterator[Record]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, _object(json.loads(line))
            except json.JSONDecodeError as error:
                yield number, ValueError(f"not JSON ({error.msg}, column {error.colno})")
            except RecursionError:
                yield number, ValueError("not JSON that can be read (nested too deep)")
            except ValueError as error:
                yield number, error


def _listed(text: str) -> Iterator[Record]:
    """Yield the items of a JSON list, each with the line where it begins; after what is no JSON nothing."""
    place, line, counted = _skip(text, text.index("[") + 1), 1, 0
    while text[place : place + 1] != "]":
        line, counted = line + text.count("\n", counted, place), place
        try:
            value, place = _DECODER.raw_decode(text, place)
        except json.JSONDecodeError as error:
            yield error.lineno, ValueError(f"not JSON ({error.msg}, column {error.colno})")
            return
        except RecursionError:
            yield line, ValueError("not JSON that can be read (nested too deep)")
            return
        except ValueError as error:
            yield line, error
            return
        try:
            yield line, _object(value)
        except ValueError as error:
            yield line, error
        place = _skip(text, place)
        if text[place : place + 1] == ",":
            place = _skip(text, place + 1)
        elif text[place : place + 1] != "]":
            yield line + text.count("\n", counted, place), ValueError("not JSON (expected , or ] after this item)")
            return
    rest = _skip(text, place + 1)
    if rest < len(text):
        yield 1 + text.count("\n", 0, rest), ValueError("not JSON (text after the end of the list)")


def _skip(text: str, place: int) -> int:
    match = _BLANK.match(text, place)
    return match.end() if match else place


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, found {kind(value)}")
    return value


def _tabled(text: str, delimiter: str) -> Iterator[Record]:
    """Yield the rows of a table, without its empty cells; a row may go over several lines."""
    before = csv.field_size_limit(_LARGEST_CELL)
    try:
        yield from _rows(text, delimiter)
    finally:
        csv.field_size_limit(before)


def _rows(text: str, delimiter: str) -> Iterator[Record]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] = []
    line = 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield line, ValueError(f"not a row of a table ({error})")
            return
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            if not names:
                names = [_name(cell) for cell in cells]
                twice = next((name for name in names if name and names.count(name) > 1), None)
                if twice:
                    yield line, ValueError(f'two columns are called "{twice}"; rename one')
                    return
            elif len(cells) != len(names):
                yield line, ValueError(f"{len(cells)} cells, but the first line names {len(names)} columns")
            else:
                yield line, _cells(names, cells)
        line = reader.line_num + 1


def _name(cell: str) -> str:
    """Return a column's name in lower case; those of one capital letter, which hold choices, stay."""
    name = cell.strip()
    return name if len(name) == 1 else name.lower()


def _cells(names: list[str], cells: list[str]) -> dict[str, Any]:
    """Return the row as a JSON object would say it.

    Empty cells and NaN, which pandas writes for nothing, are left out; but an empty prediction stays one, so does a
    reference where a row has no other, and an empty choice, A, B, ..., holds its place. Columns without a name are left
    out too, and the column "image", which may hold the whole picture. "4.0" is 4: pandas makes whole numbers so in a
    column with empty cells. A column "reference" without a number is the first of those with one.
    """
    row: dict[str, Any] = {}
    references: list[str] = []
    for name, cell in zip(names, cells, strict=True):
        known = cell.strip().lower() not in ("", "nan")
        if name == "prediction":
            row[name] = _number(cell) if known else ""
        elif known and _REFERENCE.fullmatch(name):
            references.append(_number(cell))
        elif known and name and name != "image":
            row[name] = _several(cell) if name in ("references", "choices") else _number(cell)
        elif name in _CHOICES:
            row[name] = ""
    if not references:
        stated = next((name for name in names if name in _REFERENCES or _REFERENCE.fullmatch(name)), None)
        return {"references": ""} | row if stated and not row.keys() & set(_REFERENCES) else row
    first = row.pop("references", row.pop("reference", []))
    return row | {"references": [*(first if isinstance(first, list) else [first]), *references]}


def _number(cell: str) -> str:
    return cell.strip()[:-2] if _WHOLE.fullmatch(cell.strip()) else cell


def _several(cell: str) -> Any:
    """Return the texts of a cell that holds a JSON list, or else its text."""
    if cell.lstrip().startswith("["):
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            pass
    return _number(cell)


def kind(value: object) -> str:
    """Return the JSON name of a value's type."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, float) and value != value:
        return "NaN"
    names = {str: "text", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names[type(value)]
