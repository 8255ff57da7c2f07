"""The tables of MIMIC-CXR-JPG, read from their .csv.gz: split, view and labels of the patients of one folder files/pNN.

- split: dicom_id, study_id, subject_id, split (train, validate, test)
- metadata: dicom_id, subject_id, study_id, ..., ViewPosition (PA, AP, LATERAL, LL, ... or nothing)
- chexpert: subject_id, study_id, and 14 labels: 1.0 positive, 0.0 negative, -1.0 uncertain, nothing not mentioned
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import functools
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from medvlm.data.sources.files import one_of
from medvlm.data.sources.records import FIELD_CHARS
from medvlm.errors import InputError

TABLES = ("split", "metadata", "chexpert")
TABLE_BYTES = 512 << 20
"""A table that unpacks to more is none of these: the largest has some 60 MB."""

_SPLITS = {"train": "train", "validate": "validation", "validation": "validation", "test": "test"}


@dataclasses.dataclass(frozen=True, slots=True)
class Rows:
    """What the tables say of the patients of one folder files/pNN; empty where a table is not there."""

    splits: dict[str, str]
    """Study ("s50414267") -> train, validation or test."""
    views: dict[str, str]
    """Picture (dicom_id) -> its projection."""
    findings: dict[str, str]
    """Study -> labels, see `finding`."""


def table_of(folder: Path, name: str) -> list[Path]:
    """Return the table of that name in a folder, as fetched or unpacked; an empty list where it has none."""
    return one_of(folder, f"mimic-cxr-2.*-{name}.csv.gz", f"mimic-cxr-2.*-{name}.csv")[:1]


@functools.lru_cache(maxsize=2)
def lookup(folders: tuple[str, ...], group: str) -> Rows:
    """Return the rows of the patients whose number begins with `group`, of the first table of each name.

    Args:
        folders: where the tables may lie.
        group: two digits, as in files/p10.

    Raises:
        InputError: a table cannot be read, or lacks a column.
    """
    rows = Rows({}, {}, {})
    for row in _rows(folders, "split", group, ("study_id", "subject_id", "split")):
        if (split := _SPLITS.get(row["split"])) is not None:
            rows.splits[f"s{row['study_id']}"] = split
    for row in _rows(folders, "metadata", group, ("dicom_id", "subject_id", "ViewPosition")):
        if row["ViewPosition"]:
            rows.views[row["dicom_id"]] = row["ViewPosition"].upper()
    for row in _rows(folders, "chexpert", group, ("subject_id", "study_id")):
        if (labels := finding(row)) is not None:
            rows.findings[f"s{row['study_id']}"] = labels
    return rows


def finding(row: dict[str, str]) -> str | None:
    """Return the positive labels in lower case, "none" where only No Finding is, None where none is positive.

    Uncertain labels (-1.0) are left out: whether they are there is not known.
    """
    labels = [name for name, value in row.items() if name not in ("subject_id", "study_id") and _positive(value)]
    named = [name.lower() for name in labels if name != "No Finding"]
    return ", ".join(named) or ("none" if labels else None)


def _positive(value: str) -> bool:
    return value in ("1.0", "1")


def _rows(folders: tuple[str, ...], name: str, group: str, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """Yield the rows of a group's patients; a row that is cut short has "" for what it lacks."""
    path = next((path for folder in folders for path in table_of(Path(folder), name)), None)
    if path is None:
        return
    before = csv.field_size_limit(FIELD_CHARS)
    try:
        with _opened(path) as file:
            lines = csv.DictReader(file, restval="")
            missing = [column for column in columns if column not in (lines.fieldnames or ())]
            if missing:
                raise InputError(f"{path}: has no column {', '.join(missing)}; fetch it again")
            for row in lines:
                if (row["subject_id"] or "").startswith(group):
                    yield {key: (value or "").strip() for key, value in row.items() if isinstance(key, str)}
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())[:160]}); fetch it again") from error
    finally:
        csv.field_size_limit(before)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    with (
        gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as raw,
        io.TextIOWrapper(io.BufferedReader(_Bounded(raw)), encoding="utf-8-sig", newline="") as text,
    ):
        yield text


class _Bounded(io.RawIOBase):
    """A file of which no more than `TABLE_BYTES` are read: a small .gz may unpack to anything."""

    def __init__(self, raw: Any) -> None:
        self._raw, self._left = raw, TABLE_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._raw.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise OSError(f"unpacks to more than {TABLE_BYTES >> 20} MiB")
        buffer[: len(data)] = data
        return len(data)
