"""Predictions on disk, ours or anybody's: read from several forms, written as JSON lines.

One JSON object a line, `{"id", "prediction", "references": [...]}`, is what we write. Read are, besides, a JSON list of
such objects; a table (CSV, TSV) with the columns id, prediction and reference, reference_1, ... or references; results
of COCO captions (`[{"image_id", "caption"}]`) and of VQA (`[{"question_id", "answer"}]`), whose references come from a
file of their own; and the tables of VLMEvalKit (index, question, answer, prediction, A, B, ..., category, split).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medvlm.errors import InputError
from medvlm.evaluate.prediction_records import kind, load, records
from medvlm.io import atomic_write

_OPTIONAL = ("group", "task", "finding")
_IDS = ("id", "index", "question_id", "image_id")
# "text" first: where "answer" stands beside it, that is the reference.
_RESULTS = (("image_id", "caption"), ("question_id", "text"), ("question_id", "answer"))
_REFERENCES = ("references", "reference", "answer")
_LETTER = re.compile(r"\W*([A-Za-z])\W*")


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


def read(path: Path | str, references: Path | str | None = None) -> list[PredictionRow]:
    """Return the rows of a predictions file in its order; blank lines are skipped.

    Numbers and true or false become their text (4.0 that of 4), one string as `references` a list of one. A letter as
    `answer` beside the choices A, B, ... becomes the text of that choice; the choices stay in `extra`.

    Args:
        path: in any of the forms that this module's first lines name; the content tells which.
        references: file that has the references instead: COCO's captions (`{"annotations": [{"image_id", "caption"}]}`)
            or any of the same forms with id and references. References that nothing was predicted for are warned of.

    Raises:
        InputError: not a readable text file, no row in it, a bad line, or no references for an id. One line says file,
            line number and what is wrong with the first bad line, and how many more there are.
    """
    path = Path(path)
    rows = _rows(path, load(path), references is not None)
    if references is None:
        return rows
    known = _known(Path(references))
    missing = [row.id for row in rows if row.id not in known]
    if missing:
        raise InputError(
            f"{references}: no references for id {_shown(missing[0])} of {path}"
            + (f" (and {len(missing) - 1} more)" if len(missing) > 1 else "")
        )
    for row in rows:
        other = known[row.id]
        row.references = other.references
        row.group, row.task, row.finding = (
            row.group or other.group,
            row.task or other.task,
            row.finding or other.finding,
        )
        row.extra = other.extra | row.extra
    _tell_of_gaps(path, len(known) - len(rows), len(known))
    return rows


def _tell_of_gaps(path: Path, absent: int, of: int) -> None:
    from medvlm.cli.common import warn

    if absent > 0:
        warn(f"{path}: {absent} of {of} references have no prediction there; the scores are of the others only")


def _rows(path: Path, text: str, elsewhere: bool) -> list[PredictionRow]:
    """Return the rows of a file; their references may be empty where they are `elsewhere`."""
    rows: list[PredictionRow] = []
    problems: list[str] = []
    seen: dict[str, int] = {}
    for number, record in records(path, text):
        try:
            if isinstance(record, ValueError):
                raise record
            row = _row(record, elsewhere)
            if row.id in seen:
                raise ValueError(f"id {_shown(row.id)} was used in line {seen[row.id]} already; ids must be unique")
        except ValueError as error:
            problems.append(f"{path}:{number}: {error}")
            continue
        seen[row.id] = number
        rows.append(row)
    if problems:
        raise InputError(_first(problems))
    if not rows:
        raise InputError(
            f'{path}: no predictions; each line must be {{"id": ..., "prediction": ..., "references": [...]}}'
        )
    return rows


def _first(problems: Sequence[str]) -> str:
    more = len(problems) - 1
    return problems[0] + (f" (and {more} more {'line is' if more == 1 else 'lines are'} wrong)" if more else "")


def _known(path: Path) -> dict[str, PredictionRow]:
    """Return what a file of references says of each id."""
    text = load(path)
    if text.lstrip().startswith("{"):
        try:
            whole = json.loads(text)
        except (ValueError, RecursionError):
            whole = None
        if isinstance(whole, dict) and isinstance(whole.get("annotations"), list):
            return _captions(path, whole["annotations"])
    found: dict[str, PredictionRow] = {}
    for number, record in records(path, text):
        try:
            if isinstance(record, ValueError):
                raise record
            row = _row({"prediction": "", **record}, False)
        except ValueError as error:
            raise InputError(f"{path}:{number}: {error}") from None
        if row.id in found:
            raise InputError(f"{path}:{number}: id {_shown(row.id)} was used before; ids must be unique")
        found[row.id] = row
    return found


def _captions(path: Path, annotations: Sequence[object]) -> dict[str, PredictionRow]:
    """Return the captions of COCO's annotations as the references of each image."""
    found: dict[str, PredictionRow] = {}
    for number, annotation in enumerate(annotations, start=1):
        try:
            if not isinstance(annotation, dict) or not {"image_id", "caption"} <= annotation.keys():
                raise ValueError('needs "image_id" and "caption"')
            name = _id(annotation["image_id"], "image_id")
            caption = _text(annotation["caption"], "caption")
        except ValueError as error:
            raise InputError(f"{path}: annotation {number}: {error}") from None
        found.setdefault(name, PredictionRow(name, "", [])).references.append(caption)
    return found


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


def columns(row: PredictionRow) -> dict[str, Any]:
    """Return what else is known of a row, as metrics and slices read it: task, prompt, answer_type, choices, ...

    A `question` is the prompt, a `category` the question type; choices come as a list of texts, the task in lower
    case; a row that has choices or a question is of the task vqa where it names none.
    """
    found = {key: value for key, value in row.extra.items() if value is not None}
    choices = found.pop("choices", None)
    if isinstance(choices, dict):
        choices = _lettered(choices) if set(choices) <= set(string.ascii_uppercase) else list(choices.values())
    if isinstance(choices, list) and choices:
        found["choices"] = [_clean(str(choice)) for choice in choices]
    for name, other in (("prompt", "question"), ("question_type", "category")):
        if other in found:
            found.setdefault(name, found[other])
    task = (row.task or "").strip().lower() or ("vqa" if "choices" in found or "question" in found else None)
    return found | {key: value for key, value in (("task", task), ("finding", row.finding)) if value is not None}


def _row(value: dict[str, Any], elsewhere: bool) -> PredictionRow:
    """Return the row that a record holds; ValueError says what is wrong with it."""
    value = dict(value)
    if "prediction" not in value and {"question_id", "answer", "text"} <= value.keys() and not _asked(value):
        if elsewhere and str(value["text"]).rstrip().endswith("?"):
            value["question"] = value.pop("text")
        else:
            raise ValueError('has "answer" and "text"; call the one that the model said "prediction"')
    pair = next((pair for pair in _RESULTS if "prediction" not in value and value.keys() >= set(pair)), None)
    if pair is not None:
        value["prediction"] = value.pop(pair[1])
    key = next((key for key in _IDS if key in value), None)
    known = next((key for key in _REFERENCES if key in value), None)
    for wanted, there in (("id", key), ("prediction", "prediction" in value), ("references", known or elsewhere)):
        if not there:
            raise ValueError(
                f'no "{wanted}"; a line needs "id", "prediction" and "references"'
                + (" (or name a file with --references)" if wanted == "references" else "")
            )
    name = _id(value.pop(str(key)), str(key))
    prediction = _text(value.pop("prediction"), "prediction")
    choices = _choices(value)
    references = _references(value.pop(known)) if known else []
    optional = {key: _optional(key, value.pop(key)) for key in _OPTIONAL if key in value}
    if choices:
        value["choices"] = choices
        references = [_chosen(reference, choices) for reference in references]
    return PredictionRow(name, prediction, references, **optional, extra=value)


def _listed(value: object) -> list[Any] | dict[str, Any] | None:
    """Return stated choices, of which a table's cell may hold the JSON; None where there are none."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(value) if value.strip() else None
    if value is not None and not isinstance(value, list | dict):
        raise ValueError(f'"choices" must be a list of texts, found {kind(value)}; write it as ["first", "second"]')
    return value or None


def _asked(value: Mapping[str, Any]) -> bool:
    """Whether a record says its question by that name, so that its "text" is none."""
    return "question" in value or "prompt" in value


def _choices(value: dict[str, Any]) -> list[str]:
    """Take the columns A, B, C, ... out of a record that has two choices or more, and return their texts in place.

    One that is empty stays "" where others follow, so that each stands where its letter says.
    """
    if "choices" in value:
        value["choices"] = _listed(value["choices"])
        return []
    columns = {letter: value[letter] for letter in itertools.takewhile(value.__contains__, string.ascii_uppercase)}
    texts = _lettered(columns)
    if sum(map(bool, texts)) < 2:
        return []
    for letter in columns:
        del value[letter]
    return texts


def _lettered(choices: Mapping[str, object]) -> list[str]:
    """Return the texts of choices by their letters, each in its place, "" for one that is missing before others."""
    known = {letter: _text(choice, letter) for letter, choice in choices.items() if not _missing(choice)}
    last = string.ascii_uppercase.index(max(known)) if known else -1
    return [known.get(letter, "") for letter in string.ascii_uppercase[: last + 1]]


def _missing(value: object) -> bool:
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def _chosen(answer: str, choices: Sequence[str]) -> str:
    """Return the choice that a letter names, or the answer as it is."""
    match = _LETTER.fullmatch(answer)
    place = string.ascii_lowercase.index(match[1].lower()) if match else len(choices)
    return choices[place] if place < len(choices) and choices[place] and answer not in choices else answer


def _id(value: object, key: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f'"{key}" must be text, found {kind(value)}')
    return _clean(str(value))


def _text(value: object, key: str) -> str:
    """Return a text, or a number or a truth value as its text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() else str(value)
    if not isinstance(value, str | int):
        raise ValueError(f'"{key}" must be text (it may be empty), found {kind(value)}')
    return _clean(str(value))


def _references(value: object) -> list[str]:
    if not isinstance(value, list):
        if value is None or isinstance(value, dict):
            raise ValueError(f'"references" must be a list of texts, found {kind(value)}')
        return [_text(value, "references")]
    if not value:
        raise ValueError('"references" is empty; give at least one reference text')
    for item in value:
        if item is None or isinstance(item, list | dict):
            raise ValueError(f'"references" must hold texts only, found {kind(item)}')
    return [_text(item, "references") for item in value]


def _optional(key: str, value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f'"{key}" must be text, found {kind(value)}')


def _clean(text: str) -> str:
    """Return `text` with lone surrogates, which JSON can spell but no file can hold, as U+FFFD."""
    # Most text is ASCII, and told so at once.
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _shown(text: str) -> str:
    """Return `text` quoted on one line, at most 60 characters of it."""
    return json.dumps(text if len(text) <= 60 else text[:57] + "...", ensure_ascii=False)
