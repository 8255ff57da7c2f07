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
from medvlm.data.sources.dicom.options import Options
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
    *("ImageType", "ConversionType", "PresentationIntentType"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class _Entry:
    """One readable file."""

    turn: tuple[float, str, float, str, str]
    """Number and stand-in of the series, number and stand-in of the instance, then the place: the order of a study."""
    place: str


@dataclasses.dataclass(slots=True)
class _Part:
    """Files of one study; where its files tell several patients, of one patient and accession number."""

    person: str
    entries: list[_Entry] = dataclasses.field(default_factory=list)
    numbers: set[Number] = dataclasses.field(default_factory=set)
    """Its UID and accession numbers as they are, to find its report by."""
    pictured: bool = False
    """Whether a file is a picture."""
    taken: bool = False
    """Whether one is a picture that is not refused by its header."""


@dataclasses.dataclass(slots=True)
class Index:
    """All units of the inputs, and sentences for the user."""

    units: list[Unit]
    notes: list[str]


class _Builder:
    def __init__(self, inputs: Inputs, key: Key, options: Options, reports: Reports | None, logging: bool) -> None:
        self.inputs, self.key, self.options, self.logging = inputs, key, options, logging
        self.parts: dict[tuple[str, str, str], _Part] = {}
        """(Study, patient by number or name, accession number) -> its files."""
        self.owners: defaultdict[str, set[str]] = defaultdict(set)
        """Study -> the patients that its files tell."""
        self.strays: defaultdict[str, Counter[str]] = defaultdict(Counter)
        """Study -> whom its files without a patient's number are taken for if no other file tells one."""
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
        taken = self._is_taken(header)
        part = self.parts.setdefault((study, person, accession), _Part(person))
        part.entries.append(_Entry(turn, place))
        if patient:
            self.owners[study].add(patient)
        else:
            self.strays[study][person or self._unknown(study)] += 1
        # A file cut short may tell no more than an accession number: too little to find a report by.
        told: list[Number] = [(UID, uids["Study"]), (ACCESSION, accession if uids["Study"] or person else "")]
        part.numbers |= {number for number in told if number[1]}
        part.pictured |= refuse.is_picture(header)
        part.taken |= taken
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

    def _unknown(self, study: str) -> str:
        """Return the stand-in of the patient of a study that tells none."""
        return self.key.pseudonym("patient of study", study)

    def _is_taken(self, header: Dataset) -> bool:
        try:
            refuse.check(header, self.options)
        except PictureError:
            return False
        return True

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
        people = {study: sorted(self.owners.get(study) or self.strays[study]) for study, _, _ in self.parts}
        one = joined(people.values())
        told: set[str] = set().union(*self.owners.values())
        self.counts["joined"] = sum(one[patient] != patient for patient in told)
        self.counts["largest"] = max(map(len, self.owners.values()), default=0)
        for study, strays in self.strays.items():
            self.counts["without PatientID"] += 0 if study in self.owners else strays.total()
        return {study: one[found[0]] for study, found in people.items()}

    def _studies(self, patients: dict[str, str]) -> dict[str, tuple[str, _Part]]:
        """Return the stand-in of each study -> its patient and files.

        Files of one UID that tell several patients are as many studies: a machine may give all of them one UID, and the
        report of one patient must not meet the pictures of another.
        """
        found: dict[str, tuple[str, _Part]] = {}
        for (study, person, accession), part in self.parts.items():
            people = self.owners.get(study) or set(self.strays[study]) - {self._unknown(study)}
            one = next(iter(people), self._unknown(study)) if len(people) < 2 else person
            name = study if len(people) < 2 else self.key.pseudonym("study", f"{study}\0{person}\0{accession}")
            _, whole = found.setdefault(name, (patients[study], _Part(one)))
            whole.entries += part.entries
            whole.numbers |= part.numbers
            whole.pictured |= part.pictured
            whole.taken |= part.taken
        return found

    def index(self) -> Index:
        units, matched = [], 0
        studies = self._studies(self._settle())
        ambiguous = self._ambiguous(studies)
        self.counts["studies"], self.counts["ambiguous"] = len(studies), len(ambiguous)
        for study, (patient, part) in studies.items():
            report = self._report(part.numbers - ambiguous) if part.taken else ""
            matched += bool(report)
            places = [entry.place for entry in sorted(part.entries, key=lambda entry: entry.turn)]
            units.append(Unit(f"{patient}/{study}", (STUDY, patient, study, report, *places), self._version(places)))
            for place in places if self.logging else []:
                self.log[place].update(patient=patient, study=study)
        for start in range(0, len(self.lost), LOST_AT_ONCE):
            lost = sorted(self.lost)[start : start + LOST_AT_ONCE]
            units.append(Unit(f"unreadable/{start:09}", (LOST, json.dumps(lost))))
        return Index(sorted(units, key=lambda unit: unit.name), list(self._notes(matched)))

    def _ambiguous(self, studies: dict[str, tuple[str, _Part]]) -> set[Number]:
        """Return the numbers of reports that stand for several studies with pictures to take, or several patients."""
        leads: defaultdict[Number, set[str]] = defaultdict(set)
        people: defaultdict[Number, set[str]] = defaultdict(set)
        for study, (_, part) in studies.items():
            for told in part.numbers & self.reports.keys():
                # A UID of several patients is one whatever their files are; copies of a screen do not count.
                leads[told] |= {study} if part.taken or told[0] == UID else set()
                people[told] |= {part.person} if part.pictured else set()
        return {told for told in leads if max(len(leads[told]), len(people[told])) > 1}

    def _report(self, numbers: set[Number]) -> str:
        """Return the place of the report of these numbers, "" where there is none, or several that differ."""
        found = {self.reports[told] for told in numbers if told in self.reports}
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
                f"{counts['joined']:,} PatientIDs are taken for another patient's, since files of one study tell both; "
                f"up to {counts['largest']:,} share one StudyInstanceUID, and are on one side of the split."
            )
        if self.reports or self.lost_reports:
            given = len({number for _, number in self.reports})
            yield f"Reports: {matched:,} of {counts['studies']:,} studies have one of the {given:,} given."
        if counts["ambiguous"]:
            yield (
                f"Reports: {counts['ambiguous']:,} accession numbers or UIDs stand for several studies or patients; "
                "none of those gets a report by them."
            )
        if counts["different"]:
            yield f"Reports: {counts['different']:,} studies have several that differ, and get none."
        for reason, count in sorted(self.lost_reports.items()):
            yield f"Reports left out: {count:,} ({reason})."


def build(inputs: Inputs, key: Key, options: Options, reports: Reports | None, names: Path | None) -> Index:
    """Look at every file once, and write the private list of what is what to `names` if it is given.

    Raises:
        InputError: an input or the table of reports cannot be read.
        UsageError: `names` is there, and no earlier list.
        ResourceError: the disk of `names` is full.
    """
    inputs.check()
    if names is not None:
        _check_list(names)
    builder = _Builder(inputs, key, options, reports, names is not None)
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
