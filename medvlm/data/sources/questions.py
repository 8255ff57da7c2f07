"""What the sets of questions about pictures share: tables by split, a picture by its name or in its cell, answer types.

Each of them is published as files with a folder of pictures (the classic form), and by others as parquet files with the
picture in each row (the form of the Hugging Face Hub). The classic form is read where a folder holds both.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import re
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from medvlm.data.look import PictureError
from medvlm.data.sample import Image, Reject, Sample
from medvlm.data.sources import records
from medvlm.data.sources.files import FileSource, Place, one_of, relative
from medvlm.data.sources.pictures import NO_FILE, Pictures, cell_name, from_cell
from medvlm.data.sources.records import Record, field, need, text_of
from medvlm.errors import InputError
from medvlm.io import sha256_bytes

PARQUET = ("*.parquet", "data/*.parquet", "default/*/*.parquet")
"""Where repositories of the Hub keep their parquet files; the last is how the Hub itself converts other files."""
MALFORMED = "malformed question"

_SPLITS = {
    "train": "train",
    "trainset": "train",
    "val": "validation",
    "valid": "validation",
    "validate": "validation",
    "validation": "validation",
    "test": "test",
    "testset": "test",
}
_ANSWER_TYPES = ("open", "closed", "choice")
_KEY_CHARS = 64
_CELLS = 16


class QuestionSource(FileSource):
    """Questions about pictures, one a record.

    A subclass names its files and fields, says where pictures lie, and turns a record with its picture into samples.
    """

    classic: ClassVar[tuple[str, ...]]
    """Patterns of the files of records of the classic form, in order."""
    named: ClassVar[str]
    """The field that names the picture."""
    texts: ClassVar[tuple[str, ...]] = ("question", "answer")
    """The fields that a record must have besides."""

    def __init__(self, inputs: Sequence[Path | str], **options: Any) -> None:
        super().__init__(inputs, **options)
        self._pictures: dict[Path, list[Pictures]] = {}
        self._cells: OrderedDict[str, Image | PictureError] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        # What was found so far is of no use to worker processes.
        return {**self.__dict__, "_pictures": {}, "_cells": OrderedDict()}

    @abc.abstractmethod
    def pictures(self, place: Place) -> list[Pictures]:
        """Return where the pictures of a record's file lie, in the order in which they are looked for."""

    @abc.abstractmethod
    def sample_of(self, record: Record, place: Place, image: Image) -> Sample | Reject:
        """Return what a record and its picture give; the texts that it must have are there."""

    def tables(self, folder: Path) -> list[Path]:
        """Return the files of records: those of the classic form, else parquet files."""
        found = one_of(folder, *self.classic) or one_of(folder, *PARQUET)
        if not found:
            files = " nor ".join((*self.classic, "*.parquet"))
            raise InputError(f"{folder}: holds neither {files}; --input takes {self.facts.layout}")
        return found

    def slices(self, table: Path) -> list[records.Slice]:
        """Return the slices of a file of records; one that has no column for what every question must have is refused.

        Raises:
            InputError: it cannot be read, or has no such column.
        """
        if records.kind_of(table) in ("csv", "tsv", "parquet"):
            there = records.columns(table)
            for names in (*self.texts, f"{self.named}|image"):
                if not set(names.split("|")) & set(there):
                    found = ", ".join(there)[:200]
                    raise InputError(f"{table}: has no column {names.replace('|', ' or ')}; it has {found}")
        return records.slices(table)

    def samples(self, record: Record, place: Place) -> Iterator[Sample | Reject]:
        """Yield the sample of one question, or the reason why there is none."""
        if problem := need(record, *self.texts) or self._unnamed(record):
            yield self.reject(place, MALFORMED, problem)
            return
        image = self._picture(record, place)
        if isinstance(image, PictureError):
            yield self.without_picture(place, image)
        else:
            yield self.sample_of(record, place, image)

    def question(
        self, record: Record, place: Place, image: Image, *, group: str, key: tuple[str, str], **fields: Any
    ) -> Sample:
        """Return the sample of a question, with what all sets have in common.

        Args:
            record: with question and answer.
            place: where it stands.
            image: with its name.
            group: the picture, article or patient; it is the figure's id as well, where `fields` give none.
            key: what tells the question apart in its group: by split or table, and the ordinal of a repeated one.
            fields: of `Sample`; they come before what is said here.
        """
        said = {
            "prompt": text_of(field(record, "question")) or "",
            "target": text_of(field(record, "answer")) or "",
            "language": "en",
            "official_split": split_named(place.folder, place.table),
            "figure_id": group,
        }
        return self.sample(image, id=(group, key[0], "-", "vqa", key[1]), group=group, task="vqa", **{**said, **fields})

    def _unnamed(self, record: Record) -> str:
        """Return what is wrong with the name of the picture, "" where there is one or a cell that holds the picture."""
        cell = isinstance(record.get("image"), dict | bytes) or (self.named != "image" and "image" in record)
        return "" if cell else need(record, self.named)

    def _picture(self, record: Record, place: Place) -> Image | PictureError:
        name = text_of(record.get(self.named))
        if not name:
            return self._cell(record.get("image"), place)
        if place.table not in self._pictures:
            self._pictures[place.table] = self.pictures(place)
        found: Image | PictureError = PictureError(NO_FILE, name)
        for pictures in self._pictures[place.table]:
            found = pictures.load(name)
            if isinstance(found, Image) or found.reason != NO_FILE:
                break
        return found

    def _cell(self, cell: Any, place: Place) -> Image | PictureError:
        """Return the picture of a parquet cell, under the name that its own row gives it, else one by its bytes.

        Rows that share a picture follow each other, so it is decoded but once.
        """
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(data, bytes):
            return from_cell(cell, f"row-{place.number}")
        key = sha256_bytes(data)
        if key not in self._cells:
            self._cells[key] = from_cell(data, f"image-{key[:16]}")
        self._cells.move_to_end(key)
        while len(self._cells) > _CELLS:
            self._cells.popitem(last=False)
        found, name = self._cells[key], cell_name(cell)
        return dataclasses.replace(found, name=name) if name and isinstance(found, Image) else found


def split_named(folder: Path, table: Path) -> str | None:
    """Return the official split that the name of a file, else of its folder, begins with: train, validation or test."""
    path = PurePosixPath(relative(folder, table))
    for part in (path.name, *reversed(path.parent.parts)):
        word = re.match(r"[a-z]*", part.lower())
        if word and word[0] in _SPLITS:
            return _SPLITS[word[0]]
    return None


def row_key(place: Place) -> str:
    """Return what tells a row apart in the whole set where no question has an id: its file and number."""
    table = PurePosixPath(relative(place.folder, place.table)).with_suffix("")
    return f"{'-'.join(table.parts)}-{place.number}"


def picture_key(image: Image) -> str:
    """Return a name for a picture that has none: the beginning of the hash of its bytes."""
    return f"image-{sha256_bytes(image.data)[:16]}"


def numbered(record: Record, place: Place, split: str) -> tuple[str, str]:
    """Return what tells a question with a `qid` apart: "split-qid", and how often the file had the id before it."""
    repeats = _repeats(str(place.table), place.table.stat().st_mtime_ns)
    return f"{split}-{_qid(record)}", str(repeats.get(place.number, 0))


def is_yes_no(answer: str) -> bool:
    """Whether an answer is yes or no, in whatever case and with or without a full stop."""
    return answer.strip().rstrip(".").lower() in ("yes", "no")


def answer_type(record: Record) -> str | None:
    """Return the record's own `answer_type` if it is one that `Sample` knows; the sets write "CLOSED ", too."""
    stated = (text_of(record.get("answer_type")) or "").lower()
    return stated if stated in _ANSWER_TYPES else None


def word(value: Any) -> str | None:
    """Return a field as lower-case words, None for none: "Brain_Tissue" is "brain tissue"."""
    return (text_of(value) or "").replace("_", " ").lower() or None


def _qid(record: Record) -> str:
    return (text_of(record.get("qid")) or "none")[:_KEY_CHARS]


@functools.lru_cache(maxsize=8)
def _repeats(path: str, changed: int) -> dict[int, int]:
    """Return for each row of a file whose id stood before how often it did."""
    seen = Counter[str]()
    repeats = {}
    for locator in records.slices(Path(path)):
        for number, record in records.read(locator):
            if isinstance(record, dict):
                qid = _qid(record)
                if seen[qid]:
                    repeats[number] = seen[qid]
                seen[qid] += 1
    return repeats
