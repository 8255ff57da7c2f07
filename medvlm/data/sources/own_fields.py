"""What the fields of a team's own tables and records say: texts, patients, splits, names of pictures, ids."""

from __future__ import annotations

import ast
import decimal
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from medvlm.data.look import PictureError
from medvlm.data.sources.pictures import Pictures
from medvlm.data.sources.records import Bad, Record, text_of

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trainset"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "validate", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "testset", "eval", "evaluation"), "test"),
}
"""What a split column, a folder or a file may call a split."""
MISSING = frozenset(("na", "n/a", "#n/a", "<na>", "nan", "nat", "null", "none", "-", "--"))
"""What tables write, in small letters, where there is nothing."""
NAME_CHARS = 4096
"""A longer text names no file."""
NO_PATIENT = "patient cannot be read"
_LITERAL_CHARS = 100_000
_SHOWN_ID = 80


def words(value: Any) -> str | None:
    """Return a field's text as it stands, without blanks at its ends; "" where it is empty (also the word "nan").

    None means that it is no text, or too long: see `records.text_of`.
    """
    text = text_of(value)
    if not text:
        return text
    # Tables that passed through pandas write an empty field as nan.
    return "" if text in ("nan", "NaN") else str(value).replace("\0", " ").replace("\r\n", "\n").strip()


def held(record: Record, column: str | None) -> Any:
    """Return a record's field, None where no column has the meaning: "None" may be the name of one."""
    return None if column is None else record.get(column)


def number_of(value: Any) -> str:
    """Return the number of a patient or a record, "" where there is none; 7.0 is 7.

    Where some numbers are missing, tables make the others floats.
    """
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, decimal.Decimal):
        return "" if value.is_nan() else str(int(value) if value.is_finite() and value == int(value) else value)
    text = words(value) or ""
    if text.lower() in MISSING:
        return ""
    return text.partition(".")[0] if re.fullmatch(r"[0-9]+\.0+", text) else text


def patient_in(value: Any, column: str | None) -> str | Bad:
    """Return the patient's number in a field, "" where there is none, or why what stands there is no number."""
    if number := number_of(value):
        return number
    if value in ([], {}, ()) or isinstance(value, decimal.Decimal) or words(value) is not None:
        return ""
    return Bad(NO_PATIENT, f"{column}: {type(value).__name__}")


def is_missing(text: str, asked: bool = False) -> bool:
    """Whether a text to learn says that there is none; to a question (`asked`) "none" is an answer."""
    return text.lower() in MISSING and not (asked and text.lower() == "none")


def split_word(value: Any) -> str | None:
    """Return train, validation or test for a split column's value, None for any other."""
    return SPLIT_WORDS.get((words(value) or "").lower())


def split_of_path(*names: str) -> str | None:
    """Return the split that one of some names of folders and files says: "train", "val.csv", "test-00000-of-1"."""
    for name in names:
        for token in re.split(r"[^a-z]+", name.lower()):
            if token in SPLIT_WORDS:
                return SPLIT_WORDS[token]
    return None


def part(text: str) -> str:
    """Return a text as one part of an id: no slash, not longer than an id should be, and no other text's."""
    plain = text.replace("/", "_")
    if plain == text and len(text) <= _SHOWN_ID:
        return text
    return f"{plain[: _SHOWN_ID - 17]}-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def name_in(cell: Any) -> str | None:
    """Return the file name that one picture's field gives, None where the picture itself stands there."""
    if isinstance(cell, dict):
        return None if cell.get("bytes") else name_in(cell.get("path") or cell.get("file_name"))
    if not isinstance(cell, str) or is_base64(cell):
        return None
    return re.sub(r"^(?:\./)+", "", cell.strip().replace("\\", "/"))


def is_base64(text: str) -> bool:
    """Whether a text is a picture and no name: a data URL, or a long run of base64."""
    return text.startswith("data:") or (len(text) > 500 and re.fullmatch(r"[A-Za-z0-9+/=_\s]+", text) is not None)


def parts_of(cell: Any, there: Pictures | None = None) -> list[Any]:
    """Return the pictures of a field one by one: of a list, of a text that is a list, or of names between ; or |.

    Args:
        cell: the field.
        there: where a name that holds ; or | may lead as it stands.
    """
    if isinstance(cell, list | tuple):
        return [one for one in cell if not _empty(one)]
    if not isinstance(cell, str) or is_base64(cell):
        return [] if _empty(cell) else [cell]
    text = cell.strip()
    if text.startswith("[") and text.endswith("]") and isinstance(listed := _literal(text), list):
        return [one for one in listed if not _empty(one)]
    if re.search("[;|]", text) and not (there is not None and _is_whole(text, there)):
        return [one.strip() for one in re.split("[;|]", text) if one.strip()]
    return [text] if text and text not in ("nan", "NaN") else []


def _is_whole(text: str, there: Pictures) -> bool:
    return len(text) <= NAME_CHARS and not isinstance(there.load(text), PictureError)


def listed(names: Iterable[object]) -> str:
    """Return names as an error lists them: the first ones, cut where they are long."""
    shown = [str(name) for name in names]
    return ", ".join(name if len(name) <= 60 else f"{name[:57]}..." for name in shown[:30])


def names_in(cell: Any) -> Iterator[str]:
    """Yield the file names in a field of pictures."""
    for one in parts_of(cell):
        if name := name_in(one):
            yield name


def _empty(cell: Any) -> bool:
    return cell is None or cell == "" or (isinstance(cell, float) and cell != cell)


def _literal(text: str) -> Any:
    """Return what a text like '["a.png", "b.png"]' lists, as JSON or as Python writes it."""
    if len(text) > _LITERAL_CHARS:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None
