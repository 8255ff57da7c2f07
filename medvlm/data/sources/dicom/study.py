"""One study read: its pictures, its report, and the samples made of both. Runs in worker processes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

from medvlm.data.look import PictureError
from medvlm.data.pseudonyms import Key
from medvlm.data.reports import chosen, clean, lacking, sections, target
from medvlm.data.sample import Image, Reject, Sample
from medvlm.data.sources.base import Unit
from medvlm.data.sources.dicom import headers, pixels, refuse, texts
from medvlm.data.sources.dicom.files import Inputs
from medvlm.data.sources.dicom.index import LOST, file_name
from medvlm.data.sources.dicom.opened import opened
from medvlm.data.sources.dicom.options import Options
from medvlm.errors import InputError
from medvlm.licenses.expressions import commercial_use

if TYPE_CHECKING:
    from medvlm.data.phi import Scanner

NAME = "dicom"
_PERSONAL = """
PatientName PatientID PatientBirthDate OtherPatientNames OtherPatientIDs PatientBirthName PatientMotherBirthName
AccessionNumber StudyID ReferringPhysicianName PerformingPhysicianName NameOfPhysiciansReadingStudy RequestingPhysician
OperatorsName PhysiciansOfRecord ConsultingPhysicianName ResponsiblePerson VerifyingObserverName PersonName
ScheduledPerformingPhysicianName AdmissionID RequestedProcedureID PatientTelephoneNumbers
PlacerOrderNumberImagingServiceRequest FillerOrderNumberImagingServiceRequest
"""
_PERSONS_WITHIN = """
OtherPatientIDsSequence VerifyingObserverSequence AuthorObserverSequence ContentSequence RequestAttributesSequence
ReferencedRequestSequence
"""


@dataclasses.dataclass(frozen=True, slots=True)
class _File:
    """A file that gives pictures, and what leaves its header."""

    place: str
    where: str
    series: str
    instance: str
    frames: range
    modality: str | None
    organ: str | None
    view: str | None
    year: int | None
    answer: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class _Text:
    """What a study's samples are to learn."""

    target: str
    original: str | None = None
    indication: str | None = None


class _Study:
    """The files of one unit."""

    def __init__(self, unit: Unit) -> None:
        _, self.patient, self.study, self.report, *self.places = unit.locator
        self.files: list[_File] = []
        self.seen: set[str] = set()
        self.known: set[str] = set()
        """Names, numbers and birth dates of the headers, to look for in the texts; they go nowhere else."""
        self.spoken: tuple[tuple[bool, bool, str], str] | None = None
        """The best structured report so far, and its rank."""


class StudyReader:
    """Reads units into samples; picklable."""

    def __init__(
        self, inputs: Inputs, key: Key, options: Options, reports: texts.Reports | None, scanner: Scanner | None
    ) -> None:
        self.inputs, self.key, self.options, self.reports, self.scanner = inputs, key, options, reports, scanner

    def read(self, unit: Unit) -> Iterator[Sample | Reject]:
        """Yield the samples of one unit, and one reject for each file or study that gives none."""
        if unit.locator[0] == LOST:
            for where, reason, detail in json.loads(unit.locator[1]):
                yield Reject(NAME, where, reason, detail)
            return
        study = _Study(unit)
        for place in study.places:
            reject = self._look_at(study, place)
            if reject is not None:
                yield reject
        if study.files:
            for item in self._samples(study, unit):
                if self.scanner is not None and isinstance(item, Sample):
                    item = self.scanner.judge(item, study.known)
                yield item
        elif study.spoken is not None:
            yield Reject(NAME, unit.name, "report without pictures")

    def _look_at(self, study: _Study, place: str) -> Reject | None:
        """Add one file to its study, or return why it is left out."""
        where = f"{study.study}/{file_name(self.key, place)}"
        try:
            with opened(self.inputs.path(place)) as found:
                header = found.header
                if self.scanner is not None and self.scanner.mode != "off":
                    study.known |= personal(header)
                if self.options.reports == "sr" and refuse.is_report(header):
                    return self._listen(study, header, where)
                refuse.check(header, self.options)
                frames = self.options.frames.of(pixels.count_frames(found))
                uid = str(header.get("SOPInstanceUID") or "").strip(" \0")
                instance = self.key.pseudonym("instance", uid or f"file {place}")
                if instance in study.seen:
                    raise PictureError("duplicate instance")
                study.seen.add(instance)
                study.files.append(self._file(study, place, where, instance, frames, header))
                return None
        except PictureError as error:
            return Reject(NAME, where, error.reason, error.detail)
        except MemoryError:
            raise
        except Exception as error:
            # The texts of other errors may quote a header.
            return Reject(NAME, where, "header cannot be read", type(error).__name__)

    def _file(self, study: _Study, place: str, where: str, instance: str, frames: range, header: Dataset) -> _File:
        series = str(header.get("SeriesInstanceUID") or "").strip(" \0")
        asked = self.options.target_from
        return _File(
            place=place,
            where=where,
            series=self.key.pseudonym("series", series or study.study),
            instance=instance,
            frames=frames,
            modality=headers.modality(header),
            organ=headers.body_part(header),
            view=headers.view(header),
            year=headers.year(header, self.key.shift(study.patient)) if self.options.dates == "shift" else None,
            answer=headers.answer(header, asked) if asked else None,
        )

    def _listen(self, study: _Study, header: Dataset, where: str) -> Reject | None:
        """Keep the best structured report of a study: several are drafts of one another."""
        text = texts.of_structured_report(header)
        if not text:
            return Reject(NAME, where, "structured report without text")
        rank = texts.rank_of_structured_report(header)
        if study.spoken is not None and study.spoken[0] >= rank:
            return Reject(NAME, where, "second report of a study")
        before, study.spoken = study.spoken, (rank, text)
        return Reject(NAME, study.study, "second report of a study") if before is not None else None

    def _samples(self, study: _Study, unit: Unit) -> Iterator[Sample | Reject]:
        whole = self.options.views == "study"
        if self.options.target_from is None:
            text = self._text(study)
            if isinstance(text, PictureError):
                for where in [unit.name] if whole else [file.where for file in study.files]:
                    yield Reject(NAME, where, text.reason, text.detail)
                return
            yield from self._of_study(study, text) if whole else self._of_each(study, text)
        else:
            yield from self._of_each(study, None)

    def _text(self, study: _Study) -> _Text | PictureError:
        """Return the report's part that was asked for, or why there is none."""
        if self.options.reports == "sr":
            report = study.spoken[1] if study.spoken is not None else ""
        else:
            try:
                report = self.reports.read(study.report) if study.report and self.reports else ""
            except (InputError, OSError) as error:
                return PictureError("report cannot be read", type(error).__name__)
        if not report.strip():
            return PictureError("no report text")
        found = sections(report)
        original = chosen(found, self.options.sections)
        text = target(found, self.options.sections)
        if not original or not text:
            return PictureError(lacking(found, self.options.sections))
        return _Text(text, original if original != text else None, clean(found.indication) or None)

    def _of_each(self, study: _Study, text: _Text | None) -> Iterator[Sample | Reject]:
        """Yield one sample a picture."""
        for file in study.files:
            if text is None and not file.answer:
                yield Reject(NAME, file.where, "no report text", f"the header has no {self.options.target_from}")
                continue
            for frame in file.frames:
                try:
                    image, label = self._image(file, frame)
                except PictureError as error:
                    yield Reject(NAME, file.where, error.reason, error.detail)
                    continue
                yield self._sample(study, file, [(file, image, label)], f"{file.series}-{image.name[:-4]}", text)

    def _of_study(self, study: _Study, text: _Text) -> Iterator[Sample | Reject]:
        """Yield one sample for the whole study, its pictures spread evenly over all, frontal ones first."""
        found: list[tuple[_File, Image, str]] = []
        for file, frame in spread(study.files, self.options.max_images):
            try:
                found.append((file, *self._image(file, frame)))
            except PictureError as error:
                yield Reject(NAME, file.where, error.reason, error.detail)
        if found:
            yield self._sample(study, found[0][0], found, "-", text)

    def _image(self, file: _File, frame: int) -> tuple[Image, str]:
        """Return a frame as a picture, and how it was stored and shown.

        Raises:
            PictureError: it cannot be decoded.
        """
        with opened(self.inputs.path(file.place)) as found:
            data = pixels.picture(found, frame, self.options.window)
            label = headers.label(found.header, frame, self.options.window)
        return Image(data, f"{file.instance}-{frame + 1}.png"), label

    def _sample(
        self, study: _Study, file: _File, pictures: list[tuple[_File, Image, str]], part: str, text: _Text | None
    ) -> Sample:
        images = [image for _, image, _ in pictures]
        views = [one.view for one, _, _ in pictures]
        task = "report" if text is not None else "vqa"
        asked = self.options.target_from or ""
        return Sample(
            id=f"{study.patient}/{study.study}/{part}/{task}/0",
            image=images[0],
            more_images=images[1:],
            views=[view or "" for view in views] if any(views) else None,
            task=task,
            prompt="" if text is not None else headers.QUESTIONS[asked],
            target=text.target if text is not None else file.answer or "",
            original_text=text.original if text is not None else None,
            indication=text.indication if text is not None else None,
            modality=file.modality,
            modality_evidence="header: Modality" if file.modality else None,
            organ=file.organ,
            kind="figure",
            label=pictures[0][2],
            question_type=asked or None,
            answer_type="open" if asked else None,
            language="en" if asked else None,
            year=file.year,
            source=NAME,
            group=study.patient,
            file_name=images[0].name,
            license=self.options.data_license,
            license_scope="dataset" if self.options.data_license else None,
            license_evidence="stated by the owner: --data-license" if self.options.data_license else None,
            commercial_use=commercial_use(self.options.data_license),
        )


def personal(header: Dataset, depth: int = 0) -> set[str]:
    """Return what tells a person in a header: names, numbers, the date of birth; of a report its observers, too.

    Values may be of any kind: a file may give an element another one (VR) than the standard does.
    """
    found: set[str] = set()
    for value in map(header.get, _PERSONAL.split()):
        values = value if isinstance(value, list | MultiValue) else [value]
        found |= {one.decode("latin-1") if isinstance(one, bytes) else str(one) for one in values if one is not None}
    below = map(header.get, _PERSONS_WITHIN.split() if depth < texts.DEPTH else ())
    items = (item for value in below if isinstance(value, Sequence) for item in value)
    return found.union(*(personal(item, depth + 1) for item in items))


def spread(files: list[_File], most: int) -> list[tuple[_File, int]]:
    """Return at most so many (file, frame), evenly over all in their order; files with a frontal view come first."""
    files = sorted(files, key=lambda file: (file.view or "").rpartition(" ")[2] not in ("PA", "AP"))
    total = sum(len(file.frames) for file in files)
    wanted = range(total) if total <= most else [(2 * turn + 1) * total // (2 * most) for turn in range(most)]
    chosen_frames, before, file_number = [], 0, 0
    for position in wanted:
        while position - before >= len(files[file_number].frames):
            before += len(files[file_number].frames)
            file_number += 1
        file = files[file_number]
        chosen_frames.append((file, file.frames[position - before]))
    return chosen_frames
