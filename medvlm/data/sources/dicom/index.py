"""The first look at all files: which study each belongs to, what cannot be read, and what the user must be told.

Only a few elements of each header are read. What is kept of a file are its place, its study and its turn in it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydicom.dataset import Dataset

from medvlm.data.look import PictureError
from medvlm.data.pseudonyms import Key
from medvlm.data.sources.base import Unit
from medvlm.data.sources.dicom import refuse
from medvlm.data.sources.dicom.files import Found, Inputs
from medvlm.data.sources.dicom.gray import number
from medvlm.data.sources.dicom.opened import opened
from medvlm.data.sources.dicom.texts import ACCESSION, DIFFERENT, UID, Number, Reports
from medvlm.errors import UsageError
from medvlm.io import disk_errors

STUDY, LOST = "study", "lost"
"""First word of a unit's locator: (STUDY, patient, study, place of the report, places of the files ...), or (LOST,
rejects as JSON)."""
LOST_AT_ONCE = 500

_TAGS = (
    *("SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality"),
    *("PatientID", "PatientName", "PatientBirthDate", "AccessionNumber", "SeriesNumber"),
    *("InstanceNumber", "BurnedInAnnotation", "DirectoryRecordSequence"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class _Entry:
    """One readable file."""

    turn: tuple[float, str, float, str, str]
    """Number and stand-in of the series, number and stand-in of the instance, then the place: the order of a study."""
    place: str


@dataclasses.dataclass(slots=True)
class Index:
    """All units of the inputs, and sentences for the user."""

    units: list[Unit]
    notes: list[str]


class _Builder:
    def __init__(self, inputs: Inputs, key: Key, reports: Reports | None, logging: bool) -> None:
        self.inputs, self.key, self.logging = inputs, key, logging
        self.studies: defaultdict[str, list[_Entry]] = defaultdict(list)
        self.owners: defaultdict[str, set[str]] = defaultdict(set)
        """Study -> the patients that its files tell."""
        self.strays: defaultdict[str, Counter[str]] = defaultdict(Counter)
        """Study -> whom its files without a patient's number are taken for if no other file tells one."""
        self.numbers: defaultdict[str, set[Number]] = defaultdict(set)
        """Study -> its UID and accession numbers as they are, to find its report by."""
        self.pictured: set[str] = set()
        """Studies with a picture."""
        self.lost: list[tuple[str, str, str]] = []
        self.seen: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.log: dict[str, dict[str, str]] = {}
        """Place -> which file is which stand-in, if that is to be kept."""
        self.reports, self.lost_reports = reports.index() if reports else ({}, Counter())

    def add(self, found: Found) -> None:
        if found.place in self.seen:
            return
        self.seen.add(found.place)
        if found.problem:
            self._lose(found.place, found.problem, "")
            return
        try:
            with opened(self.inputs.path(found.place), _TAGS) as file:
                header = file.header
                if refuse.sop_class(header) == refuse.DIRECTORY or "DirectoryRecordSequence" in header:
                    names = list(_references(header))
                else:
                    self._enter(found.place, header)
                    return
        except (PictureError, MemoryError) as error:
            if isinstance(error, MemoryError):
                raise
            self._lose(found.place, error.reason, error.detail)
            return
        except Exception as error:
            self._lose(found.place, "header cannot be read", type(error).__name__)
            return
        self._follow(found.place, names)

    def _follow(self, place: str, names: list[list[str]]) -> None:
        """Look for the files that a DICOMDIR names; those below a folder that is an input are found without it."""
        alone = self.inputs.paths[int(place.partition(":")[0])].is_file()
        for parts in names:
            found = self.inputs.referenced(place, parts)
            if alone or found.problem:
                self.add(found)

    def _enter(self, place: str, header: Dataset) -> None:
        uids = {kind: _id(header, f"{kind}InstanceUID") for kind in ("Study", "Series", "SOP")}
        accession, patient = _id(header, "AccessionNumber"), self._patient(header)
        person = patient or self._by_name(header)
        lone = f"series {uids['Series']}" if uids["Series"] else f"file {place}"
        lone = f"accession {accession} of {person}" if person and accession else lone
        study = self.key.pseudonym("study", uids["Study"] or lone)
        series = self.key.pseudonym("series", uids["Series"] or study)
        instance = self.key.pseudonym("instance", uids["SOP"] or f"file {place}")
        turn = (_number(header, "SeriesNumber"), series, _number(header, "InstanceNumber"), instance, place)
        self.studies[study].append(_Entry(turn, place))
        if patient:
            self.owners[study].add(patient)
        else:
            self.strays[study][person or self.key.pseudonym("patient of study", study)] += 1
        # A file cut short may tell no more than an accession number: too little to find a report by.
        told: list[Number] = [(UID, uids["Study"]), (ACCESSION, accession if uids["Study"] or person else "")]
        self.numbers[study] |= {number for number in told if number[1]}
        if refuse.is_picture(header):
            self.pictured.add(study)
        self._count(header)
        self._note(place, study=study, series=series, instance=instance)

    def _patient(self, header: Dataset) -> str:
        """Return the stand-in of the patient's number, "" where there is none.

        Spelling is evened out, and who gave the number is left aside: two patients taken for one do no harm to a split.
        """
        found = " ".join(_id(header, "PatientID").split()).casefold()
        return self.key.pseudonym("patient", found) if found else ""

    def _by_name(self, header: Dataset) -> str:
        """Return a stand-in for a patient without a number by name and birth date, "" where one is lacking."""
        name, born = _id(header, "PatientName"), _id(header, "PatientBirthDate")
        return self.key.pseudonym("patient by name", f"{name}\0{born}") if name and born else ""

    def _count(self, header: Dataset) -> None:
        if refuse.is_picture(header):
            self.counts["pictures"] += 1
            if not refuse.says_burned_in(header):
                self.counts["unsaid"] += 1
                self.counts["unsaid, written into"] += refuse.writes_into_pixels(header)

    def _lose(self, place: str, reason: str, detail: str) -> None:
        name = file_name(self.key, place)
        self.lost.append((name, reason, detail))
        self._note(place)

    def _note(self, place: str, **told: str) -> None:
        if self.logging:
            self.log[place] = {"file": str(self.inputs.path(place)), "as": file_name(self.key, place), **told}

    def _settle(self) -> dict[str, str]:
        """Return study -> its patient: whom its files tell, all of them as one, else whom they are taken for."""
        people = {study: sorted(self.owners[study] or self.strays[study]) for study in list(self.studies)}
        one = joined(people.values())
        told = set().union(*self.owners.values())
        self.counts["joined"] = sum(one[patient] != patient for patient in told)
        for study, strays in self.strays.items():
            self.counts["without PatientID"] += 0 if self.owners[study] else strays.total()
        return {study: one[found[0]] for study, found in people.items()}

    def index(self) -> Index:
        units, matched = [], 0
        patients = self._settle()
        leads = Counter(number for study in self.pictured for number in self.numbers[study])
        self.counts["ambiguous"] = sum(leads[number] > 1 for number in self.reports)
        for study, entries in self.studies.items():
            patient, report = patients[study], self._report(study, leads)
            matched += bool(report)
            places = [entry.place for entry in sorted(entries, key=lambda entry: entry.turn)]
            units.append(Unit(f"{patient}/{study}", (STUDY, patient, study, report, *places), self._version(places)))
            for place in places if self.logging else []:
                self.log[place]["patient"] = patient
        for start in range(0, len(self.lost), LOST_AT_ONCE):
            part = sorted(self.lost)[start : start + LOST_AT_ONCE]
            units.append(Unit(f"unreadable/{start:09}", (LOST, json.dumps(part))))
        return Index(sorted(units, key=lambda unit: unit.name), list(self._notes(matched)))

    def _report(self, study: str, leads: Counter[Number]) -> str:
        """Return the place of a study's report, "" where it has none, or several that differ."""
        found = {self.reports[number] for number in self.numbers[study] if number in self.reports and leads[number] < 2}
        if len({words for _, words in found}) > 1 or DIFFERENT in found:
            self.counts["different"] += 1
            return ""
        return min(found)[0] if found else ""

    def _version(self, places: list[str]) -> str:
        """Return what changes when a study's files do, as far as their sizes tell."""
        sizes = [f"{place}:{_size(self.inputs.path(place))}" for place in places]
        return self.key.pseudonym("version", "\0".join(sizes))

    def _notes(self, matched: int) -> Iterator[str]:
        counts = self.counts
        if counts["unsaid"]:
            yield (
                f"{counts['unsaid']:,} of {counts['pictures']:,} pictures do not say whether text is burned into them "
                f"(no BurnedInAnnotation); {counts['unsaid, written into']:,} of them are of a modality that usually "
                "writes names into pictures (ultrasound, endoscopy, other). Look at them: medvlm data sample --private"
            )
        if counts["without PatientID"]:
            yield (
                f"{counts['without PatientID']:,} files have no PatientID and are grouped by name and birth date, or "
                "by study: one patient may be on two sides of the split."
            )
        if counts["joined"]:
            yield (
                f"{counts['joined']:,} PatientIDs are taken for another patient's, since files of one study tell both."
            )
        if self.reports or self.lost_reports:
            given = len({number for _, number in self.reports})
            yield f"Reports: {matched:,} of {len(self.studies):,} studies have one of the {given:,} given."
        if counts["ambiguous"]:
            yield f"Reports: {counts['ambiguous']:,} accession numbers stand for several studies; none gets a report."
        if counts["different"]:
            yield f"Reports: {counts['different']:,} studies have several that differ, and get none."
        for reason, count in sorted(self.lost_reports.items()):
            yield f"Reports left out: {count:,} ({reason})."


def build(inputs: Inputs, key: Key, reports: Reports | None, names: Path | None) -> Index:
    """Look at every file once, and write the private list of what is what to `names` if it is given.

    Raises:
        InputError: an input or the table of reports cannot be read.
        UsageError: `names` is there, and no earlier list.
        ResourceError: the disk of `names` is full.
    """
    inputs.check()
    if names is not None:
        _check_list(names)
    builder = _Builder(inputs, key, reports, names is not None)
    for found in inputs.files():
        builder.add(found)
    index = builder.index()
    if names is not None:
        _write_private(names, list(builder.log.values()))
    return index


def file_name(key: Key, place: str) -> str:
    """Return the stand-in of a file's own name, as rejects show it."""
    return f"file-{key.pseudonym('file', place)}"


def joined(groups: Iterable[list[str]]) -> dict[str, str]:
    """Return each name -> the smallest of all that it is bound to by groups that share names."""
    above: dict[str, str] = {}

    def top(name: str) -> str:
        while above.setdefault(name, name) != name:
            above[name] = name = above[above[name]]
        return name

    for group in groups:
        tops = {top(name) for name in group}
        above.update(dict.fromkeys(tops, min(tops)))
    return {name: top(name) for name in list(above)}


def _references(header: Dataset) -> Iterator[list[str]]:
    for record in header.get("DirectoryRecordSequence") or ():
        named = record.get("ReferencedFileID")
        if named:
            yield [named] if isinstance(named, str) else [str(part) for part in named]


def _id(header: Dataset, keyword: str) -> str:
    value = header.get(keyword)
    return str(value).strip(" \0") if value is not None else ""


def _number(header: Dataset, keyword: str) -> float:
    found = number(header, keyword)
    return found if found is not None else float("inf")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # it is gone by now, which reading it will tell
        return -1


def _check_list(path: Path) -> None:
    """Make sure that a list written to `path` replaces nothing but an earlier list."""
    try:
        with open(path, "rb") as file:
            first = json.loads(file.readline(1 << 20) or b'{"file": "", "as": ""}')
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        first = None
    if not isinstance(first, dict) or not {"file", "as"} <= first.keys():
        raise UsageError(f"--names {path}: is there, and no list of this kind that may be replaced; name another file")


def _write_private(path: Path, rows: list[dict[str, str]]) -> None:
    """Write one JSON line for each file, readable for the user alone from the first moment."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with open(handle, "w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
                for row in rows:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
