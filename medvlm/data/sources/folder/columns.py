"""What the columns of an unknown table mean, guessed from their names and first values; its owner confirms it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from medvlm.data.sources.own import ENDINGS
from medvlm.data.sources.own_fields import held, is_base64, listed, number_of, parts_of, words
from medvlm.data.sources.records import Record
from medvlm.errors import UsageError
from medvlm.registry import nearest

NONE = "none"
"""Given for a column: nothing has this meaning, whatever the guess."""

STUDY_NAMES = ("case_id", "case", "study_id", "study")
"""Of columns that tell studies apart, several of which may be of one patient."""

NAMES: dict[str, tuple[str, ...]] = {
    "image": (
        *("file_name", "file_names", "image", "images", "image_path", "image_file", "image_name", "filename"),
        *("img", "img_path", "img_name", "figure_path", "picture", "file", "path", "image_id", "dicom_id", "bild"),
    ),
    "question": ("question", "questions", "query", "frage", "pregunta"),
    "answer": ("answer", "answers", "anwser", "response", "antwort", "respuesta", "label"),
    "text": (
        *("caption", "captions", "report", "report_text", "text", "findings", "impression", "description", "sentence"),
        *("befund", "beurteilung", "compte_rendu", "informe", "transcription", "target"),
    ),
    "group": (
        *("patient_id", "patient", "patientid", "subject_id", "subject", "mrn", "pid", "participant_id", "participant"),
        *("patient_number", "patienten_id", *STUDY_NAMES, "group"),
    ),
    "split": ("split", "subset", "partition", "set", "fold"),
    "license": ("license", "licence", "license_code", "rights"),
    "id": ("id", "uid", "sample_id", "record_id", "row_id", "qid", "question_id", "key"),
    "modality": ("modality", "image_modality", "imaging_modality", "modalitaet"),
    "organ": ("organ", "image_organ", "body_part", "bodypart", "body_part_examined", "anatomy", "koerperregion"),
    "question_type": ("question_type", "questiontype", "q_type", "qtype", "content_type", "fragetyp"),
    "answer_type": ("answer_type", "answertype", "a_type"),
    "language": ("language", "lang", "q_lang", "sprache"),
}
"""Meaning -> the names that say so, the surest first."""

NEEDED = ("image", "text", "question", "answer")
"""What the first table must have; all else may turn up later."""

DESCRIBED = ("modality", "organ", "question_type", "answer_type", "language")
"""The meanings that go into the column of `Sample` of the same name."""
ANSWER_TYPES = ("open", "closed", "choice")

REPORT_NAMES = ("report", "report_text", "findings", "impression", "befund", "beurteilung", "compte_rendu", "informe")
"""Columns of texts that are reports and no captions."""

_PATIENT = r"(?:pat|patient(?:en|s|_s)?|paciente|subject|participant|proband(?:en)?|piz|mrn|pid)"
_NUMBER = r"(?:id|ids|uid|nr|no|num|number|nummer|kennung|code|key|hash|identifier|pseudonym)"
_COUNT = r"(?:nr|no|num|number)_(?:patients|patienten)"
_PATIENTS = re.compile(rf"{_PATIENT}|(?:.*_)?{_PATIENT}_?{_NUMBER}|(?!{_COUNT}$){_NUMBER}_{_PATIENT}")
"""What columns with numbers of patients are called, as `plain` writes it: "Pat.-Nr.", "Patientennummer", "PIZ"."""
_STAYS = re.compile(rf"(?:.*_)?fall_?{_NUMBER}")
"""A "Fall" is a patient's stay in a hospital, with all studies made there."""


@dataclasses.dataclass(frozen=True, slots=True)
class Columns:
    """Which column holds what; None where none does."""

    image: str | None = None
    text: str | None = None
    question: str | None = None
    answer: str | None = None
    group: str | None = None
    split: str | None = None
    license: str | None = None
    id: str | None = None
    modality: str | None = None
    organ: str | None = None
    question_type: str | None = None
    answer_type: str | None = None
    language: str | None = None

    def meanings(self) -> dict[str, str]:
        """Return meaning -> column of those that are set."""
        return {name: column for name, column in dataclasses.asdict(self).items() if column is not None}

    def described(self, record: Record) -> dict[str, str | None]:
        """Return the fields of `Sample` that a record says of its picture and question, None where it says nothing."""
        told = {name: number_of(held(record, getattr(self, name))) for name in DESCRIBED}
        kept = {name: text if name == "question_type" else text.lower() for name, text in told.items()}
        if kept["answer_type"] not in ANSWER_TYPES:
            kept["answer_type"] = ""
        return {name: text or None for name, text in kept.items()}


def flag(meaning: str) -> str:
    """Return the option that gives the column of a meaning."""
    return f"--{meaning.replace('_', '-')}-column"


def guess(
    names: Sequence[str],
    rows: Sequence[Record],
    given: Columns,
    wanted: Sequence[str] = tuple(NAMES),
    later: Sequence[str] = (),
) -> Columns:
    """Return the meaning of a table's columns.

    Args:
        names: of the columns.
        rows: the first ones.
        given: what is known; never changed. `NONE` stands for "there is no such column".
        wanted: the meanings to look for.
        later: further names, of other tables and later records; none of these holds what every row must have.

    Raises:
        UsageError: a given column is not in the table.
    """
    known = given.meanings()
    for meaning, column in known.items():
        there = names if meaning in NEEDED else [*names, *later]
        if column not in there and column != NONE:
            hint = nearest(column, there)
            raise UsageError(f'{flag(meaning)}: no column "{column}"{hint}; there are: {listed(there)}')
    found = {meaning: column if column != NONE else None for meaning, column in known.items()}
    for meaning in wanted:
        if meaning not in found:
            there = names if meaning in NEEDED else [*names, *later]
            free = [name for name in there if name not in found.values()]
            found[meaning] = _image(free, rows) if meaning == "image" else _meant(free, meaning)
    if "text" in wanted and not (given.text or found.get("question")):
        free = [name for name in names if name not in found.values()]
        found["text"] = found["text"] or _longest(free, rows)
    if found.get("question") and not found.get("answer") and not given.answer:
        # A question and a text are a question and its answer.
        found["answer"], found["text"] = found.get("text"), None
    if not found.get("question") and not given.answer and found.get("text"):
        found["answer"] = None
    return Columns(**found)


def plain(name: str) -> str:
    """Return a column's name in small letters, words parted by "_": "Patient ID" and "patientId" are patient_id."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def of_patients(name: str) -> bool:
    """Whether a column's name says that it holds numbers of patients."""
    return plain(name).startswith(("patient", "subject", "mrn", "participant")) or _names_patients(name)


def _names_patients(name: str) -> bool:
    # Unlike names that only begin so, such as patient_age.
    return _PATIENTS.fullmatch(plain(name)) is not None


def of_stays(name: str) -> bool:
    """Whether a column's name says that it holds numbers of stays in a hospital, several of which may be of one."""
    return _STAYS.fullmatch(plain(name)) is not None and not _names_patients(name)


def of_studies(name: str) -> bool:
    """Whether a column's name says that it tells studies or stays apart, and not patients."""
    return plain(name) in STUDY_NAMES or of_stays(name)


def tells_groups(name: str) -> bool:
    """Whether a column's name says that its rows of one value belong together: to a patient, a stay or a study."""
    return plain(name) in NAMES["group"] or says(name, "group") or of_stays(name)


def says(name: str, meaning: str) -> bool:
    """Whether a column's name says that it has a meaning; of groups: that it tells patients apart."""
    return _names_patients(name) if meaning == "group" else plain(name) in NAMES[meaning]


def _meant(names: Sequence[str], meaning: str) -> str | None:
    found = _named(names, NAMES[meaning])
    if meaning == "group" and (found is None or not _names_patients(found)):
        return next((name for of in (_names_patients, of_stays) for name in names if of(name)), found)
    return found


def _named(names: Sequence[str], known: Sequence[str]) -> str | None:
    by_plain: Mapping[str, str] = {plain(name): name for name in reversed(names)}
    return next((by_plain[one] for one in known if one in by_plain), None)


def _image(names: Sequence[str], rows: Sequence[Record]) -> str | None:
    """Return the column whose values look like pictures, those of a telling name first."""
    rank = {name: number for number, name in enumerate(NAMES["image"])}
    shares = {name: _share_of_pictures([row.get(name) for row in rows]) for name in names}
    like = [name for name in names if shares[name] >= 0.5]
    if like:
        return min(like, key=lambda name: (rank.get(plain(name).removesuffix("_file_name"), len(rank)), -shares[name]))
    return _named(names, NAMES["image"])


def _share_of_pictures(cells: Sequence[Any]) -> float:
    """Return the share of fields that are pictures or names of picture files, among those that are not empty."""
    filled = [parts for cell in cells if (parts := parts_of(cell))]
    return sum(all(map(_is_picture, parts)) for parts in filled) / len(filled) if filled else 0.0


def _is_picture(cell: Any) -> bool:
    if isinstance(cell, dict):
        return isinstance(cell.get("bytes"), bytes) or _is_picture(cell.get("path"))
    if not isinstance(cell, str):
        return isinstance(cell, bytes)
    name = cell.strip().replace("\\", "/")
    return is_base64(cell) or (len(name) < 1000 and PurePosixPath(name).suffix.lower() in ENDINGS)


def _longest(names: Sequence[str], rows: Sequence[Record]) -> str | None:
    """Return the column with the longest texts, if they are sentences."""
    lengths = {}
    for name in names:
        texts = [text for row in rows if isinstance(row.get(name), str) and (text := words(row[name]))]
        if texts and sum(" " in text for text in texts) > len(texts) / 2:
            lengths[name] = sum(map(len, texts)) / len(texts)
    return max(lengths, key=lambda name: lengths[name], default=None)
