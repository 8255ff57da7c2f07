"""A team's own images: what each column means is settled once, then every row is a sample or a counted reason.

Images that no row names are counted too, since a forgotten table looks just like them.
"""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from medvlm.data import reports
from medvlm.data.look import PictureError
from medvlm.data.sample import Reject, Sample
from medvlm.data.sources import records
from medvlm.data.sources.base import Unit
from medvlm.data.sources.facts import Facts
from medvlm.data.sources.files import Place, relative
from medvlm.data.sources.folder import looking, tables
from medvlm.data.sources.folder.columns import Columns
from medvlm.data.sources.folder.looking import View
from medvlm.data.sources.own import ENDINGS, MISSING_TEXT, NO_FILE_READ, OwnSource, Shown, below
from medvlm.data.sources.own_fields import (
    NAME_CHARS,
    held,
    is_missing,
    names_in,
    number_of,
    patient_in,
    split_of_path,
    split_word,
    words,
)
from medvlm.data.sources.records import Bad, Record, Slice
from medvlm.errors import InputError, UsageError

if TYPE_CHECKING:
    from medvlm.data.phi import Scanner
    from medvlm.data.pseudonyms import Key

LEFT = "left"
"""The kind of the unit that tells which images no row names."""
NO_ROW = "image without a row"


class FolderSource(OwnSource):
    """Images with a table of their texts.

    Args:
        inputs: folders, or tables whose images lie beside them.
        scanner: looks for identifiers in the texts.
        only: column of `Sample` -> the values that are asked for.
        columns: what is known of the table's columns; the rest is guessed.
        task: caption, vqa or report; None guesses it from the columns.
        images: where names of images lead; None looks around the table.
        data_license: of all rows that state none.
        key: replaces patients, ids and file names by stand-ins.
        sections: of reports: findings, impression or both, cleaned, the whole kept as `original_text`; None takes the
            text as it stands.

    Raises:
        UsageError: `sections` or `data_license` is malformed, or sections are asked of what is no report.
    """

    facts = Facts(
        name="folder",
        title="Own images with texts",
        summary="Your own images with a table of captions, reports or questions and answers.",
        tasks=("caption", "vqa", "report"),
        size="yours",
        license="by row",
        gate="none; say whose the data are: --data-license",
        download="nothing",
        layout="a folder of images with one table (.csv, .tsv, .jsonl, .parquet; metadata.csv in train/, validation/ "
        "and test/ too), the table itself, or images with a .txt file of the same name beside each",
        known_problems=("Images are copied byte for byte: names of patients in pixels or in EXIF stay in them.",),
    )

    def __init__(
        self,
        inputs: Sequence[Path | str],
        scanner: Scanner | None = None,
        only: Mapping[str, Collection[str]] | None = None,
        *,
        columns: Columns | None = None,
        task: str | None = None,
        images: Path | None = None,
        data_license: str | None = None,
        key: Key | None = None,
        sections: str | None = None,
    ) -> None:
        super().__init__(inputs, scanner, only, images=images, data_license=data_license, key=key)
        if sections and task not in (None, "report"):
            raise UsageError(f"--sections {sections}: only reports have sections; --task report, or leave it out")
        self.sections = reports.check_choice(sections) if sections else None
        self.given, self.given_task = columns or Columns(), "report" if sections else task
        self._view: View | None = None
        self._found: dict[Path, list[Path]] = {}
        self._tokens: dict[Path, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        # The first rows may hold pictures, and would travel to worker processes.
        view = self._view and dataclasses.replace(self._view, rows=[])
        return {**self.__dict__, "_view": view}

    def tables(self, folder: Path) -> list[Path]:
        """Return the tables of an input; the folder itself where texts lie beside the images."""
        if folder not in self._found:
            self._found[folder] = tables.find(folder)
        return self._found[folder]

    def look(self) -> View:
        """Return what the input seems to hold, with the meaning of each column settled.

        Raises:
            InputError: there are no images with texts that could be told.
            UsageError: a given column is not there.
        """
        if self._view is None:
            found = [(folder, table) for folder in self.inputs for table in self._tables(folder)]
            self._view = looking.look(found, self.given, self.given_task, self.find_root)
        return self._view

    def picture_places(self, folder: Path) -> list[Path]:
        """Return the folders that names of images lead to."""
        if self.look().embedded:
            return []
        places = [self.roots[str(table)] for table in self.tables(folder) if not table.is_dir()]
        return list(dict.fromkeys(places))

    def slices(self, table: Path) -> list[Slice]:
        """Return the slices of a table, or of a folder with texts beside the images."""
        return tables.slices(table) if table.is_dir() else records.slices(table)

    def units(self) -> list[Unit]:
        """Return one unit for each slice of a table, and one for the images of each folder that no row names."""
        view = self.look()
        units = super().units()
        for folder in self.inputs:
            if not view.embedded and not any(table.is_dir() for table in self.tables(folder)):
                of = self.stand_in("table", folder.name)
                units.append(Unit(f"{of}/images without a row", (str(folder), str(folder), LEFT, "0", "0")))
        return sorted(units, key=lambda unit: (unit.name, unit.locator))

    def read(self, unit: Unit) -> Iterator[Sample | Reject]:
        """Yield the samples of a slice, or the images without a row, and for each thing lost the reason."""
        if unit.locator[2] != LEFT:
            yield from super().read(unit)
            return
        try:
            yield from self._left(Path(unit.locator[0]))
        except InputError as error:
            yield Reject(self.name, unit.name, NO_FILE_READ, "" if self.key else str(error))

    def records(self, locator: Slice) -> Iterator[tuple[int, Record | Bad]]:
        """Yield the records of a slice."""
        if locator[1] != tables.PAIRS:
            yield from records.read(locator)
            return
        for number, record in tables.read(locator):
            # What is wrong with a pair is told by its files' names.
            yield number, Bad(record.reason) if isinstance(record, Bad) and self.key else record

    def samples(self, record: Record, place: Place) -> Iterator[Sample | Reject]:
        """Yield the sample of a row, or why there is none."""
        columns, task = self.look().columns, self.look().task
        question, answer = (columns.question, columns.answer) if task == "vqa" else (None, columns.text)
        texts: list[str] = []
        for column in filter(None, (question, answer)):
            text = words(record.get(column))
            if not text:
                yield self.reject(place, *_lost(column, record.get(column), text))
                return
            if is_missing(text, asked=task == "vqa" and column == answer):
                yield self.reject(place, MISSING_TEXT, f"{column}: {text}")
                return
            texts.append(text)
        patient = patient_in(held(record, columns.group), columns.group)
        if isinstance(patient, Bad):
            yield self.reject(place, patient.reason, patient.detail)
            return
        shown = self.load(record.get(str(columns.image)), place)
        if isinstance(shown, PictureError):
            yield self.without_picture(place, shown)
            return
        sample = self._sample(record, place, shown, texts)
        yield sample if self.sections is None else self._sectioned(sample, place)

    def _sectioned(self, sample: Sample, place: Place) -> Sample | Reject:
        """Return a report's sample with the sections that were asked for, or why it lacks them."""
        found = reports.sections(sample.target)
        text = reports.target(found, str(self.sections))
        if text is None:
            return self.reject(place, reports.lacking(found, str(self.sections)))
        indication = reports.clean(found.indication) if reports.says_something(found.indication) else None
        whole = sample.target
        return dataclasses.replace(sample, target=text, original_text=whole, indication=indication)

    def _sample(self, record: Record, place: Place, shown: Shown, texts: list[str]) -> Sample:
        view = self.look()
        columns = view.columns

        own = number_of(held(record, columns.id))
        behind = (self.stand_in("id", own), "-", view.task, "0") if own else self._place_id(place, shown, view.task)
        return self.own_sample(
            shown,
            behind,
            number_of(held(record, columns.group)),
            task=view.task,
            prompt=texts[0] if view.task == "vqa" else "",
            target=texts[-1],
            **columns.described(record),
            official_split=self._split(held(record, columns.split), place, shown),
            **self.rights(held(record, columns.license), columns.license or ""),
        )

    def _place_id(self, place: Place, shown: Shown, task: str) -> tuple[str, str, str, str]:
        """Return the id of a row that has none of its own: its picture, its table and its number there."""
        if place.table not in self._tokens:
            self._tokens[place.table] = self.token(place)
        return shown.key, self._tokens[place.table], task, str(place.number)

    def _split(self, stated: Any, place: Place, shown: Shown) -> str | None:
        """Return the official split: of the column, else of the table's name and folders, else of the image's."""
        if self.look().columns.split:
            return split_word(stated)
        base = self.base(place.folder)
        above = () if place.table.is_dir() else PurePosixPath(relative(base, place.table)).parts
        return split_of_path(*above, *shown.folders)

    def _left(self, folder: Path) -> Iterator[Reject]:
        """Yield each image of an input that no row of its tables names."""
        column = str(self.look().columns.image)
        there = {root: set(tables.walk(root)) for root in {self.roots[str(table)] for table in self.tables(folder)}}
        taken: set[Path] = set()
        for table in self.tables(folder):
            root = self.roots[str(table)]
            for cell in tables.values(table, column):
                # A name may hold what parts names elsewhere.
                for name in (*names_in(cell), *([cell] if isinstance(cell, str) and len(cell) < NAME_CHARS else [])):
                    found = next(
                        (one for one in _spelled(posixpath.normpath(below(root, name))) if one in there[root]), None
                    )
                    taken.update([root / found] if found else [])
        every = sorted({root / name for root, names in there.items() for name in names})
        for number, path in enumerate(every):
            if path.suffix.lower() in ENDINGS and path not in taken:
                where = f"image {number}" if self.key else relative(self.base(folder), path)
                yield Reject(self.name, where, NO_ROW)

    def options(self) -> dict[str, Any]:
        """Return what the columns mean, as settled, and the settings of all own data."""
        view = self.look()
        chosen = {"sections": self.sections} if self.sections else {}
        return {**super().options(), "task": view.task, "columns": view.columns.meanings(), **chosen}

    def card(self) -> dict[str, Any]:
        """Return the facts for the dataset card."""
        return {**super().card(), "pictures_from": "--input, and --images where it is given"}


def _spelled(name: str) -> tuple[str, ...]:
    """Return the file that a name stands for, and those that it may leave the ending of."""
    return (name, *(name + ending for ending in ENDINGS))


def _lost(column: str, value: Any, text: str | None) -> tuple[str, str]:
    """Return reason and detail of a row whose text cannot be used."""
    if text is not None:
        return "empty text", column
    long = isinstance(value, str) and len(value) > records.FIELD_CHARS
    return "text cannot be used", f"{column}: {'longer than a million letters' if long else type(value).__name__}"
