"""MIMIC-CXR: chest radiographs of Beth Israel Deaconess Medical Center with their reports, as PhysioNet gives them out.

Johnson et al., Scientific Data 6:317, 2019, doi:10.1038/s41597-019-0322-0; MIMIC-CXR-JPG: arXiv:1901.07042. One input
or several hold together:

- `files/pNN/pNNNNNNNN/sNNNNNNNN/<dicom_id>.jpg` and `mimic-cxr-2.0.0-{split,metadata,chexpert}.csv.gz` (MIMIC-CXR-JPG)
- `files/pNN/pNNNNNNNN/sNNNNNNNN.txt`, or mimic-cxr-reports.zip that holds them (MIMIC-CXR)

What is asked for is what is on disk: a part of the folders is a data set, too. Patients are read in slices; of the
tables each process keeps one tenth at a time (14 MB), of the archive of reports its index (150 MB for all 227,835
reports, nothing where they are unpacked).
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import is_zipfile

from medvlm.data.reports import sections
from medvlm.data.sample import Reject, Sample
from medvlm.data.sources.base import Unit
from medvlm.data.sources.facts import Facts
from medvlm.data.sources.files import Place, one_of, relative
from medvlm.data.sources.mimic_tables import TABLES, Rows, lookup, table_of
from medvlm.data.sources.mimic_texts import ARCHIVE, TEXT_FOLDERS, report
from medvlm.data.sources.pictures import Pictures
from medvlm.data.sources.records import Bad, Record, Slice
from medvlm.data.sources.studies import Shot, Study, StudySource
from medvlm.errors import InputError
from medvlm.io import sha256_file

if TYPE_CHECKING:
    from medvlm.data.phi import Scanner

PATIENTS = 50
"""Patient folders that are read as one unit: about 175 studies."""

_GROUP, _PATIENT, _STUDY = (re.compile(pattern) for pattern in (r"p\d\d", r"p\d{8}", r"s\d{8}"))


class MimicCxrSource(StudySource):
    """MIMIC-CXR-JPG and the reports of MIMIC-CXR on disk; it is never fetched, and what is made of it stays private."""

    facts = Facts(
        name="mimic-cxr",
        title="MIMIC-CXR and MIMIC-CXR-JPG",
        summary="Chest radiographs of emergency patients with free-text reports, de-identified.",
        tasks=("report",),
        size="377,110 images, 227,835 studies, 65,379 patients",
        license="LicenseRef-PhysioNet-credentialed",
        gate="PhysioNet account with credentials, training (CITI) and signed data use agreement",
        download="MIMIC-CXR-JPG (physionet.org/content/mimic-cxr-jpg, 570 GB) and mimic-cxr-reports.zip of MIMIC-CXR "
        "(physionet.org/content/mimic-cxr)",
        layout="one or several folders with files/pNN/pNNNNNNNN/sNNNNNNNN/*.jpg, mimic-cxr-2.0.0-{split,metadata,"
        "chexpert}.csv.gz, and mimic-cxr-reports.zip or the reports files/pNN/pNNNNNNNN/sNNNNNNNN.txt",
        homepage="https://physionet.org/content/mimic-cxr-jpg/",
        citation="Johnson AEW, Pollard TJ, Berkowitz SJ, et al. MIMIC-CXR, a de-identified publicly available database "
        "of chest radiographs with free-text reports. Scientific Data 6, 317 (2019). doi:10.1038/s41597-019-0322-0",
        known_problems=(
            "Words that may identify a patient are ___ in the reports.",
            "Of 227,835 reports 156,011 have headed findings, 189,465 an impression, 10,589 one heading for both.",
            "Reports compare with earlier studies that are not among the pictures of a sample.",
            "The labels of chexpert.csv.gz come from a program that reads the report, not from a person.",
        ),
        split="official",
    )
    evidence = "PhysioNet Credentialed Health Data License 1.5.0; physionet.org/content/mimic-cxr-jpg/2.1.0"

    def __init__(
        self,
        inputs: Sequence[Path | str],
        scanner: Scanner | None = None,
        only: Mapping[str, Collection[str]] | None = None,
        sections: str = "both",
        views: str = "study",
    ) -> None:
        super().__init__(inputs, scanner, only, sections, views)
        self.inputs = sorted(set(self.inputs))

    def tables(self, folder: Path) -> list[Path]:
        """Return the folders files/pNN of an input, each with a tenth of the patients.

        Raises:
            InputError: no input has any, there are no reports, or what --views asks for cannot be told.
        """
        self._check()
        return _numbered(folder / "files", _GROUP)

    def describe(self) -> list[dict[str, Any]]:
        """Return path, name, hash and size of the tables, the archive of reports, and each folder files/pNN.

        A folder is told apart by the names and sizes of its files: reading 570 GB takes hours.

        Raises:
            InputError: as `tables`.
        """
        entries = []
        for folder in self.inputs:
            for table in self._tables(folder):
                entries.append({"name": relative(folder, table), **_described(table)})
            for path in [*(table for name in TABLES for table in table_of(folder, name)), *_archive(folder)]:
                told = {"path": str(path), "sha256": sha256_file(path), "bytes": path.stat().st_size}
                entries.append({"name": relative(folder, path), **told})
            for texts in _text_folders(folder):
                entries.append({"name": relative(folder, texts), **_described(texts)})
        return entries

    def slices(self, table: Path) -> list[Slice]:
        """Return slices of patient folders."""
        count = len(_patients(str(table), os.stat(table).st_mtime_ns))
        return [(str(table), "patients", str(at), str(min(at + PATIENTS, count))) for at in range(0, count, PATIENTS)]

    def read(self, unit: Unit) -> Iterator[Sample | Reject]:
        """Yield the samples of some patients, or for each study the reason why there is none."""
        folder, path, _, start, stop = unit.locator
        try:
            patients = _patients(path, os.stat(path).st_mtime_ns)[int(start) : int(stop)]
            rows = lookup(tuple(map(str, self.inputs)), Path(path).name[1:])
        except OSError as error:
            yield Reject(self.name, unit.name, "folder cannot be read", str(error.strerror))
            return
        except InputError as error:
            yield Reject(self.name, unit.name, "file of records cannot be read", str(error))
            return
        pictures = Pictures(Path(folder) / "files")
        for patient in patients:
            for study in _numbered(Path(path) / patient, _STUDY):
                place = _StudyPlace(Path(folder), study, 0)
                yield from self._guarded(self._study(study, rows, pictures, place), place)

    def samples(self, record: Record, place: Place) -> Iterator[Sample | Reject]:
        """Yield nothing: studies are folders, and `read` goes through them."""
        return iter(())

    def records(self, locator: Slice) -> Iterator[tuple[int, Record | Bad]]:
        """Yield nothing; see `samples`."""
        return iter(())

    def _study(self, folder: Path, rows: Rows, pictures: Pictures, place: Place) -> Iterator[Sample | Reject]:
        """Yield what one study folder gives."""
        patient, key = folder.parent.name, folder.name
        name = f"{folder.parent.parent.name}/{patient}/{key}"
        try:
            files = sorted(entry.name for entry in os.scandir(folder))
        except OSError as error:
            yield self.reject(place, "folder cannot be read", str(error.strerror))
            return
        jpegs = [file for file in files if file.lower().endswith((".jpg", ".jpeg"))]
        if not jpegs:
            dicom = any(file.lower().endswith(".dcm") for file in files)
            yield self.reject(place, "only DICOM files, MIMIC-CXR-JPG is read" if dicom else "no picture in the folder")
            return
        text = report(tuple(map(str, self.inputs)), name)
        if isinstance(text, Bad):
            yield self.reject(place, text.reason, text.detail)
            return
        shots = [
            Shot(file, pictures.load(f"{name}/{file}"), rows.views.get(file.rpartition(".")[0], "")) for file in jpegs
        ]
        fields = {"official_split": rows.splits.get(key), "finding": rows.findings.get(key)}
        yield from self.of_study(Study(patient, key, shots, sections(text), text, fields), place)

    def _check(self) -> None:
        missing = next((folder for folder in self.inputs if not folder.is_dir()), None)
        if missing is not None:
            raise InputError(f"{missing}: no such folder; --input takes {self.facts.layout}")
        named = ", ".join(map(str, self.inputs))
        if not any(_numbered(folder / "files", _GROUP) for folder in self.inputs):
            raise InputError(f"{named}: no folders files/p10 to files/p19; --input takes {self.facts.layout}")
        # The archive first: to find that no patient has a report beside the pictures takes a look at each of them.
        if not any(told(folder) for told in (_archive, _text_folders, _has_texts) for folder in self.inputs):
            raise InputError(
                f"{named}: no reports; {ARCHIVE} of MIMIC-CXR must lie beside files/, or in another --input"
            )
        broken = next((path for folder in self.inputs for path in _archive(folder) if not is_zipfile(path)), None)
        if broken is not None:
            raise InputError(f"{broken}: not a zip archive that can be read; fetch it again")
        if self.views == "frontal" and not any(table_of(folder, "metadata") for folder in self.inputs):
            raise InputError(f"{named}: --views frontal needs mimic-cxr-2.0.0-metadata.csv.gz, which tells the views")


class _StudyPlace(Place):
    """Where a study stands: its folder."""

    @property
    def where(self) -> str:
        return self.table.relative_to(self.folder).as_posix()


def _numbered(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    """Return the folders below `folder` whose names are of a kind, sorted; none where it cannot be read."""
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if pattern.fullmatch(entry.name))
    except OSError:
        return []
    return [folder / name for name in names if (folder / name).is_dir()]


@functools.lru_cache(maxsize=4)
def _patients(folder: str, changed: int) -> list[str]:
    """Return the patients of files/pNN that have a folder of a study, sorted."""
    return [path.name for path in _numbered(Path(folder), _PATIENT)]


def _archive(folder: Path) -> list[Path]:
    """Return the archive of reports where an input has it."""
    return one_of(folder, ARCHIVE)


def _text_folders(folder: Path) -> list[Path]:
    """Return where reports lie as files apart from the pictures."""
    return [folder / name for name in TEXT_FOLDERS if name != "files" and (folder / name).is_dir()][:1]


def _has_texts(folder: Path) -> bool:
    """Whether reports lie as files beside the pictures: the first patients tell, unless there are none."""
    groups = _numbered(folder / "files", _GROUP)
    patients = (patient for group in groups for patient in _numbered(group, _PATIENT))
    return any(next(patient.glob("s*.txt"), None) is not None for patient in patients)


def _described(folder: Path) -> dict[str, Any]:
    """Return path, size and a hash of the names and sizes of all files of a folder."""
    digest, size = hashlib.sha256(), 0
    for name, length in _listed(str(folder), ""):
        digest.update(f"{name}\0{length}\n".encode("utf-8", "surrogateescape"))
        size += length
    return {"path": str(folder), "sha256": digest.hexdigest(), "bytes": size}


def _listed(folder: str, inside: str) -> Iterator[tuple[str, int]]:
    """Yield name and size of each file below a folder, in a fixed order; folders are not held in memory together."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _listed(entry.path, f"{inside}{entry.name}/")
        elif Path(entry.path).is_file():  # no pipe, and no link to itself, over which an entry stumbles
            yield f"{inside}{entry.name}", entry.stat().st_size
