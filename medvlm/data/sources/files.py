"""What the sources of published data sets share: folders of record files and pictures, described, cut up and read.

A source says which files of a folder hold records, where the pictures lie, and what samples a record gives. All else is
here: hashes of the input, units that workers read side by side, and one counted reason for each record that is lost.
"""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from medvlm.data.look import PictureError
from medvlm.data.sample import Image, Reject, Sample
from medvlm.data.sources import records
from medvlm.data.sources.base import Unit
from medvlm.data.sources.facts import Facts, card_of
from medvlm.data.sources.records import Bad, Record
from medvlm.errors import InputError, MedvlmError
from medvlm.io import sha256_file
from medvlm.licenses.expressions import commercial_use

if TYPE_CHECKING:
    from medvlm.data.phi import Scanner

HASHED_BYTES = 2 << 30
"""Inputs of more bytes are told apart by the names and sizes of their files: hashing terabytes takes hours."""


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a record stands."""

    folder: Path
    """Of --input."""
    table: Path
    """The file of records."""
    number: int
    """Its row, or for JSON lines the byte it begins at: stable, and unique in its file."""

    @property
    def where(self) -> str:
        """Return the place as a reject names it, without the folders around the input."""
        unit = "byte" if self.table.suffix.lower() in (".jsonl", ".ndjson") else "row"
        return f"{relative(self.folder, self.table)} {unit} {self.number}"


class FileSource(abc.ABC):
    """A published data set on disk.

    Args:
        inputs: folders in the published layout (`facts.layout`); a source may take files too.
        scanner: looks for identifiers in the texts.
        only: column of `Sample` -> the values that are asked for; other samples are counted as left out.
    """

    facts: ClassVar[Facts]
    evidence: ClassVar[str] = ""
    """What says so, where one license holds for all: `license_evidence` of every sample."""

    def __init__(
        self,
        inputs: Sequence[Path | str],
        scanner: Scanner | None = None,
        only: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        self.inputs = [Path(path) for path in inputs]
        self.scanner = scanner
        self.only = {name: frozenset(values) for name, values in (only or {}).items()}

    @property
    def name(self) -> str:
        """Return the name of the source."""
        return self.facts.name

    @abc.abstractmethod
    def tables(self, folder: Path) -> list[Path]:
        """Return the files of records in `folder`, in a fixed order.

        Raises:
            InputError: it has none; say what must lie there.
        """

    @abc.abstractmethod
    def samples(self, record: Record, place: Place) -> Iterator[Sample | Reject]:
        """Yield what one record gives."""

    def picture_places(self, folder: Path) -> list[Path]:
        """Return the folders and archives of pictures below `folder`, for the hash of the input."""
        return []

    def options(self) -> dict[str, Any]:
        """Return the source's own settings that decide the result, for the manifest."""
        return {}

    def describe(self) -> list[dict[str, Any]]:
        """Return name, path, hash and size of each file of records, and of each folder or archive of pictures at once.

        The name, below its input, counts as the contents do: splits and ids are made of it.

        Raises:
            InputError: an input is not in the published layout.
        """
        entries = []
        for number, folder in enumerate(self.inputs):
            of = f"{number}/" if len(self.inputs) > 1 else ""
            for path in [*self._tables(folder), *self.picture_places(folder)]:
                entries.append({"name": of + relative(folder, path), **_described(path)})
        return entries

    def units(self) -> list[Unit]:
        """Return one unit for each slice of a file of records, sorted by name.

        Raises:
            InputError: an input is not in the published layout, or a file of it cannot be read.
        """
        units = []
        for folder in self.inputs:
            for table in self._tables(folder):
                cuts = self.slices(table)
                for cut in cuts:
                    name = f"{folder.name}/{relative(folder, table)}" + (f" {int(cut[2]):012}" if len(cuts) > 1 else "")
                    units.append(Unit(name, (str(folder), *cut)))
        return sorted(units, key=lambda unit: (unit.name, unit.locator))

    def slices(self, table: Path) -> list[records.Slice]:
        """Return the slices of a file of records; see `records.slices`."""
        return records.slices(table)

    def prefetch(self, units: Sequence[Unit]) -> None:
        """Do nothing: the files lie on disk."""
        return

    def read(self, unit: Unit) -> Iterator[Sample | Reject]:
        """Yield the samples of one slice, or for each record the reason why there is none."""
        folder, path, kind, start, stop = unit.locator
        try:
            for number, record in self.records((path, kind, start, stop)):
                place = Place(Path(folder), Path(path), number)
                if isinstance(record, Bad):
                    yield Reject(self.name, place.where, record.reason, record.detail)
                else:
                    yield from self._guarded(self.samples(record, place), place)
        except InputError as error:
            yield Reject(self.name, unit.name, "file of records cannot be read", str(error))

    def records(self, locator: records.Slice) -> Iterator[tuple[int, Record | Bad]]:
        """Yield the records of a slice; see `records.read`."""
        return records.read(locator)

    def card(self) -> dict[str, Any]:
        """Return the facts for the dataset card."""
        return {**card_of(self.facts), "pictures_from": f"{self.facts.download}; {self.facts.layout}"}

    def reject(self, place: Place, reason: str, detail: str = "") -> Reject:
        """Return the reason why a record gives no sample."""
        return Reject(self.name, place.where, reason, detail)

    def without_picture(self, place: Place, error: PictureError) -> Reject:
        """Return the reason why a record's picture cannot be had."""
        return Reject(self.name, place.where, error.reason, error.detail)

    def sample(self, image: Image, *, id: tuple[str, ...], group: str, **fields: Any) -> Sample:
        """Return a sample of this source, under the license of the whole set unless `fields` say otherwise.

        Args:
            image: with the file's own name.
            id: parts that make it unique in the set, the group first; blanks become underscores.
            group: patient, study or image.
            fields: of `Sample`.
        """
        rights = {
            "license": self.facts.license,
            "license_scope": "dataset",
            "license_evidence": self.evidence,
            "commercial_use": commercial_use(fields.get("license", self.facts.license)),
        }
        name = "/".join("_".join(part.split()) or "-" for part in id)
        known = {"source": self.name, "file_name": image.name, "kind": "figure", **rights, **fields}
        return Sample(id=name, image=image, group="_".join(group.split()), **known)

    def _guarded(self, found: Iterator[Sample | Reject], place: Place) -> Iterator[Sample | Reject]:
        """Yield what one record gives; whatever it makes a library raise costs that record alone."""
        try:
            yield from self._scanned(found)
        except MedvlmError:
            raise
        except Exception as error:
            # What it says may quote the record.
            yield self.reject(place, "record cannot be read", type(error).__name__)

    def _tables(self, folder: Path) -> list[Path]:
        if not folder.exists():
            raise InputError(f"{folder}: no such folder; --input takes {self.facts.layout}")
        return self.tables(folder)

    def _scanned(self, found: Iterator[Sample | Reject]) -> Iterator[Sample | Reject]:
        for item in found:
            if isinstance(item, Sample) and (other := self._not_asked_for(item)):
                yield Reject(self.name, item.id, "not asked for", other)
            else:
                yield self.scanner.judge(item) if self.scanner is not None and isinstance(item, Sample) else item

    def _not_asked_for(self, sample: Sample) -> str:
        """Return the first column whose value is not among those of `only`, "" where there is none."""
        values = ((name, str(getattr(sample, name)), wanted) for name, wanted in self.only.items())
        return next((f"{name} {value}" for name, value, wanted in values if value not in wanted), "")


def relative(folder: Path, path: Path) -> str:
    """Return a path below an input without the folders around the input; only its name where it lies elsewhere."""
    return path.relative_to(folder).as_posix() if path != folder and path.is_relative_to(folder) else path.name


def one_of(folder: Path, *names: str) -> list[Path]:
    """Return those of the named files that `folder` has, in order; names may hold * for a part."""
    return [path for name in names for path in sorted(folder.glob(name)) if path.is_file()]


def _described(path: Path) -> dict[str, Any]:
    if path.is_file():
        size = path.stat().st_size
        digest = sha256_file(path) if size <= HASHED_BYTES else _listed([(path.name, path)], contents=False)
        return {"path": str(path), "sha256": digest, "bytes": size}
    files = sorted(_walk(path))
    size = sum(file.stat().st_size for _, file in files)
    return {"path": str(path), "sha256": _listed(files, contents=size <= HASHED_BYTES), "bytes": size}


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            if path.is_file():
                yield path.relative_to(folder).as_posix(), path


def _listed(files: Sequence[tuple[str, Path]], contents: bool) -> str:
    digest = hashlib.sha256()
    for name, path in files:
        told = sha256_file(path) if contents else str(path.stat().st_size)
        digest.update(f"{name}\0{told}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
