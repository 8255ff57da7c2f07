"""ROCOv2: captions and UMLS concepts of radiological figures of PubMed Central, from Zenodo or the Hugging Face Hub.

Rückert et al., Scientific Data 11:688, 2024, doi:10.1038/s41597-024-03496-6. Two layouts:

- Zenodo 10.5281/zenodo.10821435: `{train,valid,test}_captions.csv` (ID, Caption), `*_concepts.csv` and
  `*_concepts_manual.csv` (ID, CUIs by semicolons), `license_information.csv` (ID, PMCID, Attribution, Link), and the
  archives `{train,valid,test}_images.zip`, which hold `train/ROCOv2_2023_train_000001.jpg`
- Hub eltorio/ROCOv2-radiology: `data/{train,validation,test}-*.parquet` with image, image_id, caption, cui[]
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from medvlm.data.look import PictureError
from medvlm.data.sample import Image, Reject, Sample
from medvlm.data.sources import records
from medvlm.data.sources.base import Unit
from medvlm.data.sources.facts import Facts
from medvlm.data.sources.files import FileSource, Place, one_of
from medvlm.data.sources.pictures import NO_FILE, Pictures, from_cell
from medvlm.data.sources.pmc.prose import UNREAD, combined, prose_license, stated_license
from medvlm.data.sources.records import Bad, Record
from medvlm.errors import InputError
from medvlm.licenses.expressions import commercial_use

if TYPE_CHECKING:
    from medvlm.data.phi import Scanner

LICENSE = "CC-BY-NC-SA-4.0"
RIGHTS = "license_information.csv"
RIGHTS_COLUMNS = ("PMCID", "Attribution", "Link")
CONCEPTS = ("CUIs",)
SPLITS = {"train": "train", "valid": "validation", "validation": "validation", "test": "test"}

MODALITIES = {
    "C0040405": "ct",
    "C1306645": "radiograph",
    "C0024485": "mri",
    "C0041618": "ultrasound",
    "C0002978": "angiography",
    "C0032743": "pet",
    "C1699633": "pet",
}
"""The concepts of the modality that the authors gave by hand; C1699633 is PET with CT."""

_CUI = re.compile(r"C\d{7}")
_PMCID = re.compile(r"PMC\d+")
_CAPTIONS = "_captions.csv"


class Rocov2Source(FileSource):
    """ROCOv2 on disk; see `FileSource`."""

    facts: ClassVar[Facts] = Facts(
        name="rocov2",
        title="ROCOv2",
        summary="Captions and UMLS concepts of radiological figures of PubMed Central articles.",
        tasks=("caption",),
        size="59,958 / 9,904 / 9,927 figures in train, validation and test",
        license=LICENSE,
        gate="none",
        download="zenodo.org/records/10821435: the tables and {train,valid,test}_images.zip (6.4 GB); or the dataset "
        "eltorio/ROCOv2-radiology of the Hugging Face Hub (18.6 GB)",
        layout="a folder with {train,valid,test}_captions.csv, *_concepts.csv, *_concepts_manual.csv, "
        "license_information.csv and {train,valid,test}_images.zip, packed or unpacked; or data/*.parquet of the Hub",
        hub="eltorio/ROCOv2-radiology",
        hub_files=("data/*.parquet",),
        homepage="https://zenodo.org/records/10821435",
        citation="Rückert J, Bloch L, Brüngel R, et al. ROCOv2: Radiology Objects in COntext version 2, an updated "
        "multimodal image dataset. Scientific Data 11, 688 (2024). doi:10.1038/s41597-024-03496-6",
        known_problems=(
            "The copy on the Hub states 59,962 figures in train, the paper 59,958.",
            "The copy on the Hub does not say which article a figure is from, nor under which license; Zenodo's does.",
            "So from the Hub figures of one article may come to lie on both sides of a split.",
            "Radiology was chosen by a classifier, and most concepts were found by a program.",
        ),
    )
    evidence = "Zenodo 10.5281/zenodo.10821435 and dataset card eltorio/ROCOv2-radiology: cc-by-nc-sa-4.0"

    def __init__(
        self,
        inputs: Sequence[Path | str],
        scanner: Scanner | None = None,
        only: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        super().__init__(inputs, scanner, only)
        self._pictures: dict[Path, Pictures] = {}

    def tables(self, folder: Path) -> list[Path]:
        """Return Zenodo's tables of captions, or where there is none the parquet files of the Hub."""
        found = [path for name in SPLITS if (path := folder / f"{name}{_CAPTIONS}").exists()]
        found = found or one_of(folder, "data/*.parquet", "*.parquet")
        if not found:
            raise InputError(
                f"{folder}: neither train{_CAPTIONS} nor data/train-*.parquet nor their like; --input takes "
                f"{self.facts.layout}"
            )
        return found

    def picture_places(self, folder: Path) -> list[Path]:
        """Return the tables beside the captions, and the folders and archives of images."""
        names = [RIGHTS, *(f"{split}_concepts{kind}.csv" for split in SPLITS for kind in ("", "_manual"))]
        names += [name for split in SPLITS for name in (f"{split}_images.zip", f"{split}_images", split)]
        return [folder / name for name in names if (folder / name).exists()]

    def units(self) -> list[Unit]:
        """Return one unit for each slice of a table.

        Raises:
            InputError: as `FileSource.units`; a table beside the captions or a row of it cannot be read, or it lacks
                its columns.
        """
        for folder in self.inputs:
            for path in self.picture_places(folder):
                if path.suffix == ".csv":
                    _rows_of(path, "", RIGHTS_COLUMNS if path.name == RIGHTS else CONCEPTS)
        return super().units()

    def samples(self, record: Record, place: Place) -> Iterator[Sample | Reject]:
        """Yield the caption's sample, or why there is none."""
        problem = records.need(record, "ID|image_id", "Caption|caption")
        if problem:
            yield self.reject(place, "malformed record", problem)
            return
        name = records.text_of(records.field(record, "ID|image_id")) or ""
        name = name.removesuffix(".jpg")
        split = _split_of(place.table)
        image = self._image(record, place, name, split)
        if isinstance(image, PictureError):
            yield self.without_picture(place, image)
            return
        caption = records.field(record, "Caption|caption")
        text = records.text_of(caption) or ""
        concepts = _cuis(record["cui"]) if record.get("cui") is not None else _concepts_of(place, split, name)
        modality = {MODALITIES[cui]: cui for cui in concepts if cui in MODALITIES}
        one = next(iter(modality)) if len(modality) == 1 else None
        article, rights = self._rights(place, name)
        yield self.sample(
            image,
            id=(article or name, name, "-", "caption", "0"),
            group=article or name,
            task="caption",
            prompt="",
            target=text,
            original_text=caption if isinstance(caption, str) and text != caption.strip() else None,
            language="en",
            modality=one,
            modality_evidence=f"concept {modality[one]}" if one else None,
            concepts=concepts,
            official_split=SPLITS.get(split),
            pmcid=article,
            figure_id=name,
            **rights,
        )

    def _image(self, record: Record, place: Place, name: str, split: str) -> Image | PictureError:
        if "image" in record:
            return from_cell(record["image"], f"{name}.jpg")
        if place.table not in self._pictures:
            archive = place.folder / f"{split}_images.zip"
            self._pictures = {place.table: Pictures(place.folder, [archive], endings=(".jpg",))}
        for one in (f"{split}/{name}", f"{split}_images/{split}/{name}", f"{split}_images/{name}"):
            found = self._pictures[place.table].load(one)
            if isinstance(found, Image) or found.reason != NO_FILE:
                return found
        return PictureError(NO_FILE, f"{name}.jpg of {split}_images.zip")

    def _rights(self, place: Place, name: str) -> tuple[str | None, dict[str, Any]]:
        """Return (PMC id, license fields): what the set's license and those of all rows of the figure allow.

        Without the table, as on the Hub, the set's license stands alone. A figure that the table leaves out has none,
        nor has one with a row that names no license.
        """
        table = place.folder / RIGHTS
        if not table.exists():
            return None, {}
        rows = _rows_of(table, name, RIGHTS_COLUMNS)
        if not rows:
            said = f"{self.evidence}; figure: no row in {RIGHTS}"
            return None, {"license": None, "license_scope": None, "license_evidence": said}
        found = next((match for pmcid, _, _ in rows if (match := _PMCID.search(pmcid))), None)
        own = [_license_of(attribution, link) for _, attribution, link in rows]
        quoted = " and ".join(dict.fromkeys(f"{attribution} {link}".strip() for _, attribution, link in rows))
        said = f"{self.evidence}; figure: {quoted or 'an empty row'} ({RIGHTS})"
        article = found[0] if found else None
        if None in own:
            return article, {"license": None, "license_scope": None, "license_evidence": said}
        license = functools.reduce(combined, filter(None, own), LICENSE)
        return article, {"license": license, "license_evidence": said, "commercial_use": commercial_use(license)}


def _license_of(attribution: str, link: str) -> str | None:
    """Return what both the words and the address of a row allow, or None where they name no license."""
    named = [one for one in (prose_license(attribution), stated_license(link)) if one]
    # An address of Creative Commons that cannot be read may be of any license.
    return functools.reduce(combined, named) if named and UNREAD not in named else None


def _split_of(table: Path) -> str:
    """Return the split as the file's name writes it: train, valid, validation or test."""
    return re.split(r"[_\-.]", table.name.lower())[0]


def _cuis(value: Any) -> list[str]:
    """Return the concepts of a list, or of a text that holds them with semicolons between."""
    words = value if isinstance(value, list) else str(value or "").split(";")
    found = (word.strip() for word in words if isinstance(word, str))
    return list(dict.fromkeys(word for word in found if _CUI.fullmatch(word)))


def _concepts_of(place: Place, split: str, name: str) -> list[str]:
    """Return the concepts of both tables, the automatic ones first."""
    tables = (place.folder / f"{split}_concepts{kind}.csv" for kind in ("", "_manual"))
    rows = (_rows_of(table, name, CONCEPTS)[:1] for table in tables)
    return _cuis([cui for found in rows for row in found for cui in row[0].split(";")])


def _rows_of(table: Path, name: str, columns: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return the rows of a table beside the captions that tell of a figure; none where the table is not there.

    Raises:
        InputError: it or a row of it cannot be read, or it lacks a column.
    """
    return _rows(str(table), columns, *records.state(table)).get(name, []) if table.exists() else []


@functools.lru_cache(maxsize=4)
def _rows(path: str, columns: tuple[str, ...], size: int, changed: int) -> dict[str, list[tuple[str, ...]]]:
    found: dict[str, list[tuple[str, ...]]] = {}
    cuts = records.slices(Path(path))
    for number, record in (row for cut in cuts for row in records.read(cut)):
        if isinstance(record, Bad):
            why = record.detail or record.reason
            raise InputError(f"{path} row {number}: {why}; mend the row, or fetch the file again")
        missing = [name for name in ("ID", *columns) if name not in record]
        if missing:
            raise InputError(f"{path}: no column {', '.join(missing)}; fetch the file again")
        name = (records.text_of(record["ID"]) or "").removesuffix(".jpg")
        values = tuple(records.text_of(record[column]) or "" for column in columns)
        found.setdefault(name, []).append(values)
    return found
