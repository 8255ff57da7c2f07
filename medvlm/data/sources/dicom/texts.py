"""Texts to learn: structured reports beside the pictures, or a table or folder of reports by study.

A table (CSV, TSV, JSON, JSON lines, parquet) has a column with the study (StudyInstanceUID or AccessionNumber) and one
with the report, or two with its findings and impression. A folder holds one text file a study, named by either number.
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
from medvlm.data.sources import records
from medvlm.errors import InputError
from medvlm.io import sha256_file

KEYS = ("studyinstanceuid", "studyuid", "studyid", "study", "accessionnumber", "accession", "accessionno")
TEXTS = ("report", "reporttext", "text", "radiologyreport", "fulltext", "narrative", "befund")
FILE_BYTES = 4 << 20
DEPTH = 32
"""A structured report that is nested deeper is cut there."""

_SKIPPED = frozenset({"HAS OBS CONTEXT", "HAS ACQ CONTEXT", "HAS CONCEPT MOD"})
"""Relations of content that tell who observed what and when, not what was found."""


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
        files = sorted(self.path.glob("*.txt")) if self.path.is_dir() else [self.path]
        digest = hashlib.sha256()
        for file in files:
            digest.update(f"{file.name}\0{sha256_file(file)}\n".encode("utf-8", "surrogateescape"))
        digits = "".join(key.pseudonym(f"reports {part}", digest.hexdigest()) for part in range(4))
        return {"path": "reports", "sha256": digits, "bytes": sum(file.stat().st_size for file in files)}

    def index(self) -> tuple[dict[str, str], Counter[str]]:
        """Return study number -> where its report stands, and how many were left out by reason.

        Raises:
            InputError: the table cannot be read.
        """
        found: dict[str, str] = {}
        lost: Counter[str] = Counter()
        for number, place, problem in self._places():
            if problem or not number:
                lost[problem or "report without a study"] += 1
            elif number in found:
                lost["second report of a study"] += 1
            else:
                found[number] = place
        return found, lost

    def read(self, place: str) -> str:
        """Return the report that stands at a place of `index`.

        Raises:
            InputError: it is not there any more, or is no text.
        """
        told: list[str] = json.loads(place)
        if len(told) == 1:
            path = self.path / told[0]
            data = path.read_bytes() if path.stat().st_size <= FILE_BYTES else b""
            return records.decode(data, "a report")
        for number, record in records.read((str(self.path), told[0], told[1], told[2])):
            if str(number) == told[3] and isinstance(record, dict):
                return _text(record, self._columns()[1])
        return ""

    def _places(self) -> Iterator[tuple[str, str, str]]:
        if self.path.is_dir():
            for file in sorted(self.path.glob("*.txt")):
                usable = file.is_file() and not file.is_symlink()
                yield file.stem.strip(), json.dumps([file.name]), "" if usable else "report is no plain file"
            return
        keys, _ = self._columns()
        for locator in records.slices(self.path):
            for number, record in records.read(locator):
                if not isinstance(record, dict):
                    yield "", "", record.reason
                    continue
                # A slice of parquet is cut by its row groups, of lines by their bytes, of others by rows.
                one = locator[2:] if locator[1] == "parquet" else (str(number), str(number + 1))
                place = json.dumps([locator[1], *one, str(number)])
                for key in keys:
                    if name := str(record.get(key) if record.get(key) is not None else "").strip():
                        yield name, place, ""
                        break
                else:
                    yield "", place, ""

    def _columns(self) -> tuple[list[str], list[str]]:
        """Return the columns that tell the study, best first, and those of the text."""
        names = records.columns(self.path)
        plain = {re.sub(r"[^a-z]", "", name.lower()): name for name in reversed(names)}
        keys = [plain[key] for key in KEYS if key in plain]
        texts = [plain[text] for text in TEXTS if text in plain][:1]
        texts = texts or [plain[name] for name in ("findings", "impression") if name in plain]
        if not keys or not texts:
            lacking = "StudyInstanceUID or AccessionNumber" if not keys else "report (or findings and impression)"
            raise InputError(f"{self.path}: no column {lacking} among {', '.join(names[:20])}; rename one")
        return keys, texts


def _text(record: dict[str, Any], columns: list[str]) -> str:
    parts = [str(record.get(name) or "").strip() for name in columns]
    if len(columns) == 1:
        return parts[0]
    headed = zip(columns, parts, strict=True)
    return "\n".join(f"{re.sub('[^A-Z]', '', name.upper())}: {part}" for name, part in headed if part)


def of_structured_report(header: Any) -> str:
    """Return the text of a structured report (PS3.3, A.35): headings, text items and coded findings in their order.

    Names, dates, observers and references are left out by their kind (PNAME, DATETIME, UIDREF, observation context).
    """
    return "\n".join(_content(header, 0, False)).strip()


def _content(item: Any, depth: int, headed: bool) -> Iterator[str]:
    """Yield lines of text; a text below a heading of its own needs no second one ("Findings", then "Finding")."""
    for child in item.get("ContentSequence") or ():
        if depth >= DEPTH or str(child.get("RelationshipType", "")).strip() in _SKIPPED:
            continue
        kind, name = str(child.get("ValueType", "")).strip(), _meaning(child, "ConceptNameCodeSequence")
        if kind == "CONTAINER":
            below = list(_content(child, depth + 1, headed or bool(name)))
            yield from ([f"{name.upper()}:"] if name and below else [])
            yield from below
            continue
        if kind == "TEXT" and (said := str(child.get("TextValue") or "").strip()):
            yield from ([f"{name.upper()}:"] if name and not headed else [])
            yield said
        if kind == "CODE" and (said := _meaning(child, "ConceptCodeSequence")):
            yield f"{name}: {said}" if name else said
        yield from _content(child, depth + 1, headed)


def _meaning(item: Any, sequence: str) -> str:
    codes = item.get(sequence) or ()
    return next((str(code.get("CodeMeaning") or "").strip() for code in codes), "")


def rank_of_structured_report(header: Any) -> tuple[bool, bool, str]:
    """Return how much a structured report counts beside others of its study: complete, verified, latest."""
    complete = str(header.get("CompletionFlag", "")).strip() == "COMPLETE"
    verified = str(header.get("VerificationFlag", "")).strip() == "VERIFIED"
    return complete, verified, f"{header.get('ContentDate', '')}{header.get('ContentTime', '')}"
