"""ROCO, radiology objects in context: captions of figures of PubMed Central, as the repository of 2018 holds them.

Pelka et al., LABELS at MICCAI 2018, doi:10.1007/978-3-030-01364-6_20; layout and quirks read from the files of
razorx89/roco-dataset: `data/{train,validation,test}/{radiology,non-radiology}/` with

- captions.txt: id, tab, caption with a blank or two before it
- cuis.txt: id, an empty field, then UMLS concepts, all by tabs; a line without concepts is an id and a tab
- dlinks.txt: id, the wget line of the article's package, name of the image in it
- licences.txt: by commas and with a header: ROCO_ID, PMC_ID (package and image: PMC123_g001.jpg), CC
- images/: PMC123_g001.jpg, which scripts/fetch.py made; its addresses are gone since August 2026
"""

from __future__ import annotations

import codecs
import functools
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from medvlm.data.look import PictureError
from medvlm.data.sample import Image, Reject, Sample
from medvlm.data.sources import records
from medvlm.data.sources.base import Unit
from medvlm.data.sources.facts import Facts
from medvlm.data.sources.files import FileSource, Place
from medvlm.data.sources.pictures import NO_FILE, Pictures
from medvlm.data.sources.pmc.prose import code_license, combined
from medvlm.data.sources.records import Bad, Record
from medvlm.errors import InputError
from medvlm.licenses.expressions import commercial_use

if TYPE_CHECKING:
    from medvlm.data.phi import Scanner

SPLITS = ("train", "validation", "test")
KINDS = ("radiology", "non-radiology")
CAPTIONS = "captions.txt"

_ROCO_ID = re.compile(r"ROCO_\d+")
_PACKAGE_IMAGE = re.compile(r"(PMC\d+)_(.+)")
_LINK = re.compile(r"(PMC\d+)\.tar\.gz\b.*\t([^\t]+)$")
_CUI = re.compile(r"C\d{7}")

T = TypeVar("T")


class RocoSource(FileSource):
    """ROCO on disk; see `FileSource`."""

    facts: ClassVar[Facts] = Facts(
        name="roco",
        title="ROCO",
        summary="Captions of figures of PubMed Central articles: radiology, and a control group of other figures.",
        tasks=("caption",),
        size="81,825 radiology and 6,127 other figures in train, validation and test as published",
        license="by row",
        gate="none",
        download="github.com/razorx89/roco-dataset for the tables; its scripts/fetch.py gets no image any more: take "
        "the images from a copy fetched before August 2026, or the articles from PMC's cloud service",
        layout="a folder with data/{train,validation,test}/{radiology,non-radiology}/, in each captions.txt, cuis.txt, "
        "dlinks.txt, licences.txt and images/PMC123_g001.jpg (or images/PMC123/g001.jpg)",
        homepage="https://github.com/razorx89/roco-dataset",
        citation="Pelka O, Koitka S, Rückert J, Nensa F, Friedrich CM. Radiology Objects in COntext (ROCO): a "
        "multimodal image dataset. LABELS at MICCAI 2018, LNCS 11043, 180-189. doi:10.1007/978-3-030-01364-6_20",
        known_problems=(
            "Radiology and non-radiology were told apart by a classifier, not by a reader.",
            "Concepts come from a dictionary lookup in the caption; many are not meant by it.",
            "The addresses that its download script holds were removed in August 2026.",
            "Licenses are PMC's codes of 2018 for the article, without a version; a figure may have another.",
            "Some captions are in other languages than English, and some figures are compound in spite of the filter.",
        ),
    )

    def __init__(
        self,
        inputs: Sequence[Path | str],
        scanner: Scanner | None = None,
        only: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        super().__init__(inputs, scanner, only)
        self._pictures: dict[Path, Pictures] = {}

    def tables(self, folder: Path) -> list[Path]:
        """Return captions.txt of each split and kind that is there."""
        roots = (folder / "data", folder)
        found = [root / split / kind / CAPTIONS for root in roots for split in SPLITS for kind in KINDS]
        there = [path for path in found if path.exists()]
        if not there:
            raise InputError(f"{folder}: no train/radiology/{CAPTIONS} nor its like; --input takes {self.facts.layout}")
        return there

    def picture_places(self, folder: Path) -> list[Path]:
        """Return the other tables and the folders of images that are there."""
        names = ("licences.txt", "cuis.txt", "dlinks.txt", "images")
        return [path.parent / name for path in self.tables(folder) for name in names if (path.parent / name).exists()]

    def units(self) -> list[Unit]:
        """Return one unit for each `records.ROWS` lines of captions.

        Raises:
            InputError: as `FileSource.units`; a table beside the captions cannot be read.
        """
        for folder in self.inputs:
            for place in self.picture_places(folder) if folder.exists() else []:
                if place.suffix == ".txt":
                    _lines(place)
        return super().units()

    def slices(self, table: Path) -> list[records.Slice]:
        """Return one slice for each `records.ROWS` lines."""
        size = len(_lines(table))
        return [
            (str(table), "roco", str(start), str(min(start + records.ROWS, size)))
            for start in range(0, size, records.ROWS)
        ]

    def records(self, locator: records.Slice) -> Iterator[tuple[int, Record | Bad]]:
        """Yield id and caption of each line that is not empty; the number is the line's, from 0."""
        path, _, start, stop = locator
        for number, line in enumerate(_lines(Path(path))[int(start) : int(stop)], int(start)):
            if line.strip():
                yield number, _record(line)

    def samples(self, record: Record, place: Place) -> Iterator[Sample | Reject]:
        """Yield the caption's sample, or why there is none."""
        problem = records.need(record, "id", "caption")
        roco, here = record["id"], place.table.parent
        if not problem and not _ROCO_ID.fullmatch(roco):
            problem = f"{roco[:40]} is no id of ROCO"
        if problem:
            yield self.reject(place, "malformed record", problem)
            return
        article, name, codes = _origin(here, roco)
        image = self._image(here, roco, article, name)
        if isinstance(image, PictureError):
            yield self.without_picture(place, image)
            return
        license = _allowed_by_all(codes)
        text = records.text_of(record["caption"]) or ""
        yield self.sample(
            image,
            id=(article or roco, roco, "-", "caption", "0"),
            group=article or roco,
            task="caption",
            prompt="",
            target=text,
            original_text=record["caption"] if text != record["caption"].strip() else None,
            modality=here.name,
            modality_evidence=f"the folder {here.name}",
            concepts=_concepts(here, roco),
            official_split=here.parent.name,
            pmcid=article,
            figure_id=roco,
            license=license,
            license_scope="article" if license else None,
            license_evidence=f"licences.txt: {' and '.join(codes)}" if codes else "no license in licences.txt",
            commercial_use=commercial_use(license),
        )

    def _image(self, here: Path, roco: str, article: str | None, name: str) -> Image | PictureError:
        if here not in self._pictures:
            self._pictures = {here: Pictures(here / "images")}
        names = [f"{article}_{name}", f"{article}/{name}"] if article and name else []
        for one in [*names, f"{roco}.jpg"]:
            found = self._pictures[here].load(one)
            if isinstance(found, Image) or found.reason != NO_FILE:
                return found
        return PictureError(NO_FILE, names[0] if names else f"{roco}.jpg")


def _record(line: bytes) -> Record | Bad:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        return Bad("malformed record", f"not UTF-8 (byte {error.start} of the line)")
    name, tab, caption = text.rstrip("\r").partition("\t")
    if not tab:
        return Bad("malformed record", "no tab behind the id")
    return {"id": name.strip(), "caption": caption}


def _origin(here: Path, roco: str) -> tuple[str | None, str, list[str]]:
    """Return (PMC id, name of the image in the article's package, license codes) as far as the tables tell them."""
    rows = _table(here / "licences.txt", _of_licence).get(roco, [])
    codes = list(dict.fromkeys(code for _, code in rows if code))
    found = next((match for stated, _ in rows if (match := _PACKAGE_IMAGE.fullmatch(stated))), None)
    if found:
        return found[1], found[2], codes
    article, name = _table(here / "dlinks.txt", _of_link).get(roco, [(None, "")])[0]
    return article, name or "", codes


def _allowed_by_all(codes: Sequence[str]) -> str | None:
    """Return the license that allows only what all codes allow; None where there is none, or one names none."""
    licenses = [license for code in codes if (license := code_license(code))]
    return functools.reduce(combined, licenses) if licenses and len(licenses) == len(codes) else None


def _concepts(here: Path, roco: str) -> list[str]:
    return _table(here / "cuis.txt", _of_concepts).get(roco, [[]])[0]


def _of_licence(line: str) -> tuple[str, tuple[str, str]] | None:
    # The image's name may hold a comma; id and code do not.
    name, _, rest = line.partition(",")
    image, comma, code = rest.rpartition(",")
    return (name.strip(), (image.strip(), code.strip())) if comma and name.strip() != "ROCO_ID" else None


def _of_link(line: str) -> tuple[str, tuple[str | None, str]] | None:
    found = _LINK.search(line)
    return (line.partition("\t")[0].strip(), (found[1], found[2].strip())) if found else None


def _of_concepts(line: str) -> tuple[str, list[str]] | None:
    name, *found = line.split("\t")
    return name.strip(), list(dict.fromkeys(_CUI.findall(" ".join(found))))


def _table(path: Path, parse: Callable[[str], tuple[str, T] | None]) -> dict[str, list[T]]:
    """Return what the lines of a table tell of each id; {} where there is no table."""
    if not path.exists():
        return {}
    return cast(dict[str, list[T]], _parsed(str(path), parse, *records.state(path)))


def _lines(path: Path) -> list[bytes]:
    """Return the lines of a table.

    Raises:
        InputError: it cannot be read, or is too large to be one of ROCO's.
    """
    return _split(str(path), *records.state(path))


@functools.lru_cache(maxsize=8)
def _split(path: str, size: int, changed: int) -> list[bytes]:
    if size > records.WHOLE_BYTES:
        raise InputError(f"{path}: {size / 1e9:.1f} GB are no table of ROCO; fetch it again")
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; fetch it again, or make it readable") from error
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        data = records.decode(data, path).encode("utf-8", "replace")
    return data.removeprefix(codecs.BOM_UTF8).split(b"\n")


@functools.lru_cache(maxsize=8)
def _parsed(path: str, parse: Callable[[str], tuple[str, Any] | None], size: int, changed: int) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for line in _split(path, size, changed):
        told = parse(line.decode("utf-8", "replace").rstrip("\r"))
        if told is not None and told[0]:
            found.setdefault(told[0], []).append(told[1])
    return found
