"""Predictions on disk: one JSON object a line, `{"id", "prediction", "references": [...]}`, ours or anybody's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medvlm.errors import InputError
from medvlm.io import atomic_write

_OPTIONAL = ("group", "task", "finding")


@dataclass(slots=True)
class PredictionRow:
    """One prediction with what it is scored against.

    Attributes:
        id: unique in its file.
        prediction: may be empty; it is scored like any other.
        references: at least one.
        group: what bootstrap clusters go by (patient, article, image); None where the file does not say.
        task: caption, vqa or report.
        finding: the finding that the image shows, where known.
        extra: any further keys of the line, kept as they are.
    """

    id: str
    prediction: str
    references: list[str]
    group: str | None = None
    task: str | None = None
    finding: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the row as a JSON object, without the keys that are None."""
        optional = {key: value for key in _OPTIONAL if (value := getattr(self, key)) is not None}
        return {"id": self.id, "prediction": self.prediction, "references": self.references, **optional, **self.extra}


def read(path: Path | str) -> list[PredictionRow]:
    """Return the rows of a predictions file in its order; blank lines are skipped.

    A number as `id` becomes its text; one string as `references` becomes a list of one.

    Raises:
        InputError: not a readable UTF-8 file, no row in it, or a bad line. One line says file, line number and what is
            wrong with the first bad line, and how many more there are.
    """
    rows: list[PredictionRow] = []
    problems: list[str] = []
    seen: dict[str, int] = {}
    for number, line in _lines(Path(path)):
        try:
            row = _row(line)
            if row.id in seen:
                raise ValueError(f"id {_shown(row.id)} was used in line {seen[row.id]} already; ids must be unique")
        except ValueError as error:
            problems.append(f"{path}:{number}: {error}")
            continue
        seen[row.id] = number
        rows.append(row)
    if problems:
        more = len(problems) - 1
        rest = f" (and {more} more {'line is' if more == 1 else 'lines are'} wrong)" if more else ""
        raise InputError(problems[0] + rest)
    if not rows:
        raise InputError(
            f'{path}: no predictions; each line must be {{"id": ..., "prediction": ..., "references": [...]}}'
        )
    return rows


def write(path: Path | str, rows: Iterable[PredictionRow]) -> None:
    """Write `rows` to `path`, one JSON object a line; the file is whole or absent.

    Raises:
        ResourceError: the disk is full.
    """
    with atomic_write(path) as file:
        for row in rows:
            file.write(_clean(json.dumps(row.as_json(), ensure_ascii=False)) + "\n")


def texts(rows: Sequence[PredictionRow]) -> tuple[list[str], list[list[str]]]:
    """Return the predictions [n] and their references [n][r], as `score` takes them."""
    return [row.prediction for row in rows], [row.references for row in rows]


def groups(rows: Sequence[PredictionRow]) -> list[str]:
    """Return the bootstrap cluster [n] of each row: its group, or its own id where none is stated."""
    return [row.group if row.group is not None else row.id for row in rows]


def _lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines that are not blank, with their numbers from 1."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def _row(line: str) -> PredictionRow:
    """Return the row that a line holds; ValueError says what is wrong with it."""
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg}, column {error.colno})") from None
    except RecursionError:
        raise ValueError("not JSON that can be read (nested too deep)") from None
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, found {_kind(value)}")
    for key in ("id", "prediction", "references"):
        if key not in value:
            raise ValueError(f'no "{key}"; a line needs "id", "prediction" and "references"')
    name = value.pop("id")
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise ValueError(f'"id" must be text, found {_kind(name)}')
    prediction = value.pop("prediction")
    if not isinstance(prediction, str):
        raise ValueError(f'"prediction" must be text (it may be empty), found {_kind(prediction)}')
    references = _references(value.pop("references"))
    optional = {key: _optional(key, value.pop(key)) for key in _OPTIONAL if key in value}
    return PredictionRow(_clean(str(name)), _clean(prediction), references, **optional, extra=value)


def _references(value: object) -> list[str]:
    if isinstance(value, str):
        return [_clean(value)]
    if not isinstance(value, list):
        raise ValueError(f'"references" must be a list of texts, found {_kind(value)}')
    if not value:
        raise ValueError('"references" is empty; give at least one reference text')
    for item in value:
        if not isinstance(item, str):
            raise ValueError(f'"references" must hold texts only, found {_kind(item)}')
    return [_clean(item) for item in value]


def _optional(key: str, value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f'"{key}" must be text, found {_kind(value)}')


def _clean(text: str) -> str:
    """Return `text` with lone surrogates, which JSON can spell but no file can hold, as U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _kind(value: object) -> str:
    """Return the JSON name of a value's type."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    names = {str: "text", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names[type(value)]


def _shown(text: str) -> str:
    """Return `text` quoted on one line, at most 60 characters of it."""
    return json.dumps(text if len(text) <= 60 else text[:57] + "...", ensure_ascii=False)
