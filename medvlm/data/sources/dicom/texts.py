"""Texts to learn: structured reports beside the pictures, or a table or folder of reports by study.

A table (CSV, TSV, JSON, JSON lines, parquet) has a column with the study (StudyInstanceUID or AccessionNumber) and one
with the report, or two with its findings and impression. A folder holds one text file a study, named by either number.
Numbers of one kind are looked for among those of that kind alone: a running number may be somebody's accession number.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medvlm.data.pseudonyms import Key
from medvlm.data.reports.headings import PART_OF, REPORT
from medvlm.data.sources import records
from medvlm.errors import InputError
from medvlm.io import sha256_file

UID, ACCESSION = "uid", "accession"
KEYS = {
    **dict.fromkeys(("studyinstanceuid", "studyuid"), UID),
    **dict.fromkeys(("accessionnumber", "accession", "accessionno"), ACCESSION),
}
"""Columns that tell the study, best first, and what kind of number they hold."""
TEXTS = ("report", "reporttext", "text", "radiologyreport", "fulltext", "narrative", "befund")
FILE_BYTES = 4 << 20
DEPTH = 32
"""A structured report that is nested deeper is cut there."""

Number = tuple[str, str]
"""Kind of a study's number (UID or ACCESSION), and the number as it is."""
Given = tuple[str, str]
"""Where a report stands, and a digest of its words; DIFFERENT where reports of one number differ."""
DIFFERENT: Given = ("", "")

_SKIPPED = frozenset({"HAS OBS CONTEXT", "HAS ACQ CONTEXT", "HAS CONCEPT MOD"})
"""Relations of content that tell who observed what and when, not what was found."""
_SECTIONS = ("findings", "impression", "indication", "comparison", "technique", "addendum")
"""Parts of a report whose heading tells what stands below it."""


class Reports:
    """The reports of a table or a folder; what stands in them is read when it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def check(self) -> None:
        """Make sure that there are reports that can be told apart.

        Raises:
            InputError: no such file, or no column for the study or the report.
        """
        if not self.path.exists():
            raise InputError(f"{self.path}: no such file or folder of reports; give --reports a table or a folder")
        if not self.path.is_dir():
            self._columns()

    def describe(self, key: Key) -> dict[str, Any]:
        """Return the reports as an input, without their name."""
        digest, size = hashlib.sha256(), 0
        for file, usable in self._files() if self.path.is_dir() else [(self.path, True)]:
            try:
                told, bytes_there = (sha256_file(file), file.stat().st_size) if usable else ("no plain file", 0)
            except OSError as error:
                told, bytes_there = type(error).__name__, 0
            digest.update(f"{file.name}\0{told}\n".encode("utf-8", "surrogateescape"))
            size += bytes_there
        digits = "".join(key.pseudonym(f"reports {part}", digest.hexdigest()) for part in range(4))
        return {"path": "reports", "sha256": digits, "bytes": size}

    def index(self) -> tuple[dict[Number, Given], Counter[str]]:
        """Return study number -> where its report stands, and how many were left out by reason.

        Raises:
            InputError: the table cannot be read.
        """
        found: dict[Number, Given] = {}
        lost: Counter[str] = Counter()
        for numbers, place, text, problem in self._places():
            if problem or not numbers:
                lost[problem or "report without a study"] += 1
                continue
            if not text:
                lost["report without text"] += 1
                continue
            given = place, hashlib.sha256(" ".join(text.split()).encode()).hexdigest()[:16]
            before = found.get(numbers[0])
            if before is None:
                found.update(dict.fromkeys(numbers, given))
            elif before[1] == given[1]:
                lost["second report of a study"] += 1
            else:
                lost["second report of a study, and other words"] += 1
                found.update(dict.fromkeys(numbers, DIFFERENT))
        return found, lost

    def read(self, place: str) -> str:
        """Return the report that stands at a place of `index`.

        Raises:
            InputError: it is not there any more, or is no text.
        """
        told: list[str] = json.loads(place)
        if len(told) == 1:
            return self._of_file(self.path / told[0])
        for number, record in records.read((str(self.path), told[0], told[1], told[2])):
            if str(number) == told[3] and isinstance(record, dict):
                return _text(record, self._columns()[1]) or ""
        return ""

    def _files(self) -> Iterator[tuple[Path, bool]]:
        """Yield the text files of a folder, and whether each is a plain file."""
        for file in sorted(self.path.glob("*.txt")):
            yield file, file.is_file() and not file.is_symlink()

    def _of_file(self, path: Path) -> str:
        if path.stat().st_size > FILE_BYTES:
            raise InputError(f"a report of more than {FILE_BYTES >> 20} MiB; cut it")
        return records.decode(path.read_bytes(), "a report").strip()

    def _places(self) -> Iterator[tuple[list[Number], str, str, str]]:
        """Yield the numbers of each report, its place and text, and why it is left out."""
        if not self.path.is_dir():
            yield from self._rows()
            return
        for file, usable in self._files():
            number, text, problem = file.stem.strip(), "", "" if usable else "report is no plain file"
            try:
                text = self._of_file(file) if usable else ""
            except (InputError, OSError):
                problem = "report cannot be read"
            yield [(kind, number) for kind in (UID, ACCESSION)], json.dumps([file.name]), text, problem

    def _rows(self) -> Iterator[tuple[list[Number], str, str, str]]:
        keys, texts = self._columns()
        for locator in records.slices(self.path):
            for number, record in records.read(locator):
                if not isinstance(record, dict):
                    yield [], "", "", record.reason
                    continue
                # A slice of parquet is cut by its row groups, of lines by their bytes, of others by rows.
                one = locator[2:] if locator[1] == "parquet" else (str(number), str(number + 1))
                place, text = json.dumps([locator[1], *one, str(number)]), _text(record, texts)
                told = ((kind, _number(record.get(key), kind)) for key, kind in keys.items())
                best = next(([pair] for pair in told if pair[1]), [])
                yield best, place, text or "", "report is no text" if text is None else ""

    def _columns(self) -> tuple[dict[str, str], list[str]]:
        """Return the columns that tell the study with their kinds, best first, and those of the text."""
        names = records.columns(self.path)
        plain = {re.sub(r"[^a-z]", "", name.lower()): name for name in reversed(names)}
        keys = {plain[key]: kind for key, kind in KEYS.items() if key in plain}
        texts = [plain[text] for text in TEXTS if text in plain][:1]
        texts = texts or [plain[name] for name in ("findings", "impression") if name in plain]
        if not keys or not texts:
            lacking = "StudyInstanceUID or AccessionNumber" if not keys else "report (or findings and impression)"
            # Without a header the first row is a patient's: only words that are known as columns may be told.
            known = f" beside {', '.join([*keys, *texts])}" if keys or texts else ""
            raise InputError(
                f"{self.path}: no column {lacking} among {len(names)}{known}; name one so in the first line"
            )
        return keys, texts


def _number(value: Any, kind: str) -> str:
    """Return a study's number as headers write it: a column with empty fields may have become one of floats."""
    text = (records.text_of(value) or "").strip()
    return re.sub(r"^(\d+)\.0$", r"\1", text) if kind == ACCESSION else text


def _text(record: dict[str, Any], columns: list[str]) -> str | None:
    """Return the report of a row with its line breaks, None where a field is no text."""
    values = [record.get(name) for name in columns]
    flat = [text for value in values if (text := records.text_of(value)) is not None]
    if len(flat) < len(values):
        return None
    pairs = zip(values, flat, strict=True)
    parts = [value.replace("\0", " ").strip() if isinstance(value, str) else text for value, text in pairs]
    if len(columns) == 1:
        return parts[0]
    headed = zip(columns, parts, strict=True)
    return "\n".join(f"{re.sub('[^A-Z]', '', name.upper())}: {part}" for name, part in headed if part)


def of_structured_report(header: Any) -> str:
    """Return the text of a structured report (PS3.3, A.35): headings, texts, coded findings and measurements, in order.

    Names, dates, observers and references are left out by their kind (PNAME, DATETIME, UIDREF, observation context).
    """
    return "\n".join(_content(header, 0, False)).strip()


def _content(item: Any, depth: int, headed: bool) -> Iterator[str]:
    """Yield lines of text; a text below the heading of a section needs no second one ("Findings", then "Finding").

    Below other headings ("Radiology Report", "Chest") its own tells whether it is of the findings or the history.
    """
    for child in item.get("ContentSequence") or ():
        if depth >= DEPTH or str(child.get("RelationshipType", "")).strip() in _SKIPPED:
            continue
        kind, name = str(child.get("ValueType", "")).strip(), _meaning(child, "ConceptNameCodeSequence")
        if kind == "CONTAINER":
            below = list(_content(child, depth + 1, headed or _is_section(name)))
            yield from ([f"{name.upper()}:"] if name and below else [])
            yield from below
            continue
        if kind == "TEXT" and (said := str(child.get("TextValue") or "").strip()):
            yield from ([f"{name.upper()}:"] if name and not headed else [])
            yield said
        if kind == "CODE" and (said := _meaning(child, "ConceptCodeSequence")):
            yield f"{name}: {said}" if name else said
        if kind == "NUM" and (said := _measured(child)):
            yield f"{name}: {said}" if name else said
        yield from _content(child, depth + 1, headed)


def _is_section(name: str) -> bool:
    plain = " ".join(name.lower().split())
    return PART_OF.get(plain) in _SECTIONS and plain not in REPORT


def _measured(item: Any) -> str:
    """Return a measured value with its unit, "" where none was measured."""
    for value in item.get("MeasuredValueSequence") or ():
        number = value.get("NumericValue")
        if number is None or not str(number).strip():
            continue
        unit: Any = next(iter(value.get("MeasurementUnitsCodeSequence") or ()), {})
        short = str(unit.get("CodeValue") or "").strip()
        said = str(unit.get("CodeMeaning") or "").strip()
        if unit.get("CodingSchemeDesignator") == "UCUM" and re.fullmatch(r"[A-Za-z%/0-9]+", short):
            # 1 is no unit; symbols such as [hnsf'U] are for machines.
            said = "" if short == "1" else short
        return f"{str(number).strip()} {said}".strip()
    return ""


def _meaning(item: Any, sequence: str) -> str:
    codes = item.get(sequence) or ()
    return next((str(code.get("CodeMeaning") or "").strip() for code in codes), "")


def rank_of_structured_report(header: Any) -> tuple[bool, bool, str]:
    """Return how much a structured report counts beside others of its study: complete, verified, latest."""
    complete = str(header.get("CompletionFlag", "")).strip() == "COMPLETE"
    verified = str(header.get("VerificationFlag", "")).strip() == "VERIFIED"
    return complete, verified, f"{header.get('ContentDate', '')}{header.get('ContentTime', '')}"
