"""IU X-ray: chest radiographs of Indiana University with their reports, in the three layouts in which it is passed on.

Demner-Fushman et al., JAMIA 23(2):304-310, 2016, doi:10.1093/jamia/ocv080.

- Open-i, as published: `ecgen-radiology/N.xml` of NLMCXR_reports.tgz, each with `AbstractText@Label` (COMPARISON,
  INDICATION, FINDINGS, IMPRESSION), `MeSH/major`, and a `parentImage@id` for each picture; NLMCXR_png.tgz holds ID.png
- Kaggle raddar/chest-xrays-indiana-university: `indiana_reports.csv` (uid, MeSH, Problems, image, indication,
  comparison, findings, impression), `indiana_projections.csv` (uid, filename, projection), images/images_normalized/
- R2Gen (Chen et al., EMNLP 2020, arXiv:2010.16056): `annotation.json`, an object of train, val and test, each a list of
  (id, report, image_path[], split), and images/. Its split is R2Gen's, not one of the data's authors
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medvlm.data.look import PictureError
from medvlm.data.reports import Sections, sections
from medvlm.data.sample import Image, Reject, Sample
from medvlm.data.sources import records
from medvlm.data.sources.facts import Facts
from medvlm.data.sources.files import Place, one_of
from medvlm.data.sources.open_i import read_report, sorted_names
from medvlm.data.sources.pictures import NO_FILE, Pictures
from medvlm.data.sources.pmc.prose import address_license, combined
from medvlm.data.sources.records import Bad, Record, Slice, text_of
from medvlm.data.sources.studies import Shot, Study, StudySource
from medvlm.errors import InputError

REPORTS, PROJECTIONS, ANNOTATION = "indiana_reports.csv", "indiana_projections.csv", "annotation.json"
XML_FOLDERS = ("", "ecgen-radiology", "NLMCXR_reports", "NLMCXR_reports/ecgen-radiology", "reports")
PICTURE_FOLDERS = ("NLMCXR_png", "images/images_normalized", "images_normalized", "images", "png", "")
COLUMNS = ("uid", "findings", "impression")
SPLITS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
LABELS = ("COMPARISON", "INDICATION", "FINDINGS", "IMPRESSION")
_UID = re.compile(r"(?:CXR)?(\d+)(?=_|$)")


class IuXraySource(StudySource):
    """IU X-ray on disk: folders in one of the three layouts, or an annotation.json or indiana_reports.csv."""

    facts = Facts(
        name="iu-xray",
        title="Indiana University Chest X-ray Collection (IU X-ray, Open-i)",
        summary="Chest radiographs with de-identified reports, most with a frontal and a lateral view.",
        tasks=("report",),
        size="7,470 images, 3,955 reports",
        license="CC-BY-NC-ND-4.0",
        gate="none",
        download="NLMCXR_png.tgz and NLMCXR_reports.tgz from openi.nlm.nih.gov/faq, unpacked; or Kaggle "
        "raddar/chest-xrays-indiana-university; or the iu_xray folder that R2Gen names",
        layout="a folder with ecgen-radiology/*.xml and NLMCXR_png/, or indiana_reports.csv, indiana_projections.csv "
        "and images/images_normalized/, or annotation.json and images/",
        homepage="https://openi.nlm.nih.gov/faq#collection",
        citation="Demner-Fushman D, Kohli MD, Rosenman MB, Shooshan SE, Rodriguez L, Antani S, Thoma GR, McDonald CJ. "
        "Preparing a collection of radiology examinations for distribution and retrieval. J Am Med Inform Assoc "
        "23(2):304-310 (2016). doi:10.1093/jamia/ocv080",
        known_problems=(
            "Words that may identify a patient are XXXX, and many harmless ones too (x-XXXX); here they read ___.",
            "514 of the 3,851 reports of the Kaggle copy lack findings, and 3,050 hold XXXX.",
            "The authors publish no split; that of annotation.json is R2Gen's.",
        ),
        split="by-group",
    )
    evidence = "licenseURL of each Open-i XML, as the Hub's copies repeat it: CC BY-NC-ND 4.0; doi:10.1093/jamia/ocv080"

    def tables(self, folder: Path) -> list[Path]:
        """Return the folder of XML files, the table of reports or annotation.json, whichever is there.

        Raises:
            InputError: none is there, several are, or what is asked for cannot be told from it.
        """
        found = [folder] if folder.is_file() else _layouts(folder)
        if len(found) != 1:
            names = " and ".join(path.name or str(path) for path in found)
            held = f"holds {names}: the same studies again; name one of them" if found else "holds no IU X-ray"
            raise InputError(f"{folder}: {held}; --input takes {self.facts.layout}")
        self._check(found[0])
        return found

    def picture_places(self, folder: Path) -> list[Path]:
        """Return the folders and archives of pictures."""
        base = folder.parent if folder.is_file() else folder
        roots = [base / name for name in PICTURE_FOLDERS if name and (base / name).is_dir()]
        outer = [root for root in roots if not any(other in root.parents for other in roots)]
        return [*(outer or one_of(base, "*.png")), *one_of(base, "*.zip")]

    def slices(self, table: Path) -> list[Slice]:
        """Return slices of files, of rows, or of what annotation.json lists."""
        kind = _kind(table)
        if kind == "csv":
            return records.slices(table)
        count, step = len(sorted_names(table) if kind == "xml" else _annotation(table)), records.ROWS
        return [(str(table), kind, str(at), str(min(at + step, count))) for at in range(0, count, step)]

    def records(self, locator: Slice) -> Iterator[tuple[int, Record | Bad]]:
        """Yield the reports of a slice as records with the columns of the Kaggle copy, `image_path` and `split`."""
        path, kind, start, stop = Path(locator[0]), locator[1], int(locator[2]), int(locator[3])
        if kind == "csv":
            yield from records.read(locator)
        elif kind == "annotation":
            yield from enumerate(_annotation(path)[start:stop], start)
        else:
            for number, name in enumerate(sorted_names(path)[start:stop], start):
                yield number, read_report(path / name)

    def samples(self, record: Record, place: Place) -> Iterator[Sample | Reject]:
        """Yield what one report gives."""
        uid = _UID.match(str(text_of(record.get("id" if "report" in record else "uid"))))
        if uid is None:
            yield self.reject(place, "malformed record", "no id of a report")
            return
        texts = _texts(record)
        if isinstance(texts, str):
            yield self.reject(place, "malformed record", texts)
            return
        found, original = texts
        kind, group = _kind(place.table), f"CXR{uid[1]}"
        base = place.folder if place.folder.is_dir() else place.folder.parent
        shots = self._projected(base, uid[1]) if kind == "csv" else self._named(base, record)
        if isinstance(shots, str):
            yield self.reject(place, "malformed record", shots)
            return
        split = SPLITS.get(str(record.get("split")))
        fields = {"finding": findings(record), "official_split": split, **self._rights(record)}
        key = str(text_of(record["id"])) if kind == "annotation" else "study"
        yield from self.of_study(Study(group, key, shots, found, original, fields), place)

    def card(self) -> dict[str, Any]:
        """Return the facts, with what is missing in the reports of this input."""
        card = super().card()
        counted = [_counted(self, folder) for folder in self.inputs]
        return {**card, "known_problems": [*card["known_problems"], *(line for line in counted if line)]}

    def _rights(self, record: Record) -> dict[str, Any]:
        """Return the license fields of a record that states an address: what that and the set's license allow."""
        if not (address := record.get("license")):
            return {}
        own = address_license(str(address))
        return {
            "license": combined(self.facts.license, own) if own else None,
            "license_scope": "dataset" if own else None,
            "license_evidence": f"licenseURL of its XML: {address}",
        }

    def _check(self, table: Path) -> None:
        kind = _kind(table)
        if kind == "annotation" and self.sections != "both":
            raise InputError(
                f"{table}: does not tell findings from impression; use --sections both, or Open-i's or Kaggle's files"
            )
        if kind != "csv":
            if self.views == "frontal":
                raise InputError(f"{table}: does not tell frontal from lateral views, {PROJECTIONS} does (Kaggle)")
            return
        if not (table.parent / PROJECTIONS).is_file():
            raise InputError(f"{table}: {PROJECTIONS} must lie beside it: it tells which pictures belong to a report")
        for path, columns in ((table, COLUMNS), (table.parent / PROJECTIONS, ("uid", "filename", "projection"))):
            missing = [name for name in columns if name not in records.columns(path)]
            if missing and records.slices(path):
                raise InputError(f"{path}: has no column {', '.join(missing)}; fetch it again")

    def _projected(self, base: Path, uid: str) -> list[Shot]:
        """Return the pictures of a report as indiana_projections.csv lists them."""
        rows = _projections(base / PROJECTIONS).get(uid, [])
        return [Shot(name, _picture(base, name), view.upper()) for name, view in dict(rows).items()]

    def _named(self, base: Path, record: Record) -> list[Shot] | str:
        """Return the pictures that a record names itself, or what is wrong with its list."""
        names = record.get("image_path") or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return "image_path is no list of names"
        return [Shot(name, _picture(base, name)) for name in dict.fromkeys(names)]


def findings(record: Mapping[str, Any]) -> str | None:
    """Return the indexers' problems in lower case, "none" where the study is normal, None where nothing was indexed.

    These are MeSH headings and terms of RadLex, without their qualifiers ("Opacity/lung/base/left"). One that is
    written the other way round is turned ("Aorta, Thoracic": thoracic aorta), since a comma separates findings.
    """
    text = text_of(record.get("Problems")) or text_of(record.get("MeSH")) or ""
    heads = (term.partition("/")[0].strip().lower() for term in text.split(";"))
    terms = dict.fromkeys(" ".join(" ".join(reversed(head.split(","))).split()) for head in heads)
    named = [term for term in terms if term not in ("", "normal", "no indexing")]
    return ", ".join(named) or ("none" if "normal" in terms else None)


def _layouts(folder: Path) -> list[Path]:
    """Return the tables of all layouts that a folder holds."""
    xml = [folder / name for name in XML_FOLDERS if (folder / name).is_dir() and sorted_names(folder / name)]
    return [*xml[:1], *one_of(folder, REPORTS, ANNOTATION)]


def _kind(table: Path) -> str:
    """Return xml, csv or annotation."""
    return "annotation" if table.suffix.lower() == ".json" else "csv" if table.suffix.lower() == ".csv" else "xml"


def _texts(record: Record) -> tuple[Sections, str] | str:
    """Return the sections of a record and its whole text, or what is wrong with it."""
    names = ["report"] if "report" in record else [label.lower() for label in LABELS]
    for name in names:
        if text_of(record.get(name)) is None:
            return f"{name} is no text, or too long a one"
    texts = {name: str(record.get(name) or "") for name in names}
    if "report" in texts:
        return sections(texts["report"]), texts["report"]
    original = "\n".join(f"{name.upper()}: {text}" for name, text in texts.items() if text)
    parts: dict[str, Any] = {name: text.strip() for name, text in texts.items()}
    return Sections(**parts, once=False), original


def _picture(base: Path, name: str) -> Image | PictureError:
    found: Image | PictureError = PictureError(NO_FILE, name)
    for pictures in _pictures(base, os.getpid()):
        found = pictures.load(name)
        if isinstance(found, Image) or found.reason != NO_FILE:
            break
    return found


@functools.lru_cache(maxsize=4)
def _pictures(base: Path, pid: int) -> list[Pictures]:
    """Return where the pictures may lie, opened once in each process: folders, and archives as fetched."""
    archives = sorted(base.glob("*.zip"))
    names = [name for name in PICTURE_FOLDERS if archives or (base / name).is_dir()]
    return [Pictures(base / name, archives, inside=name) for name in names]


@functools.lru_cache(maxsize=2)
def _projections(path: Path) -> dict[str, list[tuple[str, str]]]:
    """Return uid -> (file name, projection) of each picture."""
    found: dict[str, list[tuple[str, str]]] = {}
    for row in records.everything(path):
        uid, name = text_of(row.get("uid")), text_of(row.get("filename"))
        if uid and name:
            found.setdefault(uid, []).append((name, text_of(row.get("projection")) or ""))
    return found


@functools.lru_cache(maxsize=2)
def _annotation(path: Path) -> list[Record | Bad]:
    """Return the records of an annotation.json, the split that each is listed under in it.

    Raises:
        InputError: it cannot be read, or is no object of lists.
    """
    try:
        size = path.stat().st_size
        if size > records.WHOLE_BYTES:
            raise InputError(f"{path}: {size / 1e9:.1f} GB are no annotation.json; fetch it again")
        value = json.loads(records.decode(path.read_bytes(), str(path)))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; name a readable file") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); fetch the file again") from error
    if not isinstance(value, dict) or not all(isinstance(listed, list) for listed in value.values()):
        raise InputError(f"{path}: not an object of lists named train, val and test, as R2Gen's annotation.json is")
    return [
        {"report": None, "id": None, **record, "split": split}
        if isinstance(record, dict)
        else Bad("malformed record", "not an object")
        for split, listed in value.items()
        for record in listed
    ]


def _counted(source: IuXraySource, folder: Path) -> str:
    """Return in words how many reports of an input lack a section or hold marks."""
    counts: Counter[str] = Counter()
    for table in source.tables(folder):
        for locator in source.slices(table):
            for _, record in source.records(locator):
                texts = _texts(record) if isinstance(record, dict) else "unreadable"
                if isinstance(texts, str):
                    continue
                found, original = texts
                counts["reports"] += 1
                counts["findings"] += not found.findings
                counts["impression"] += not found.impression
                counts["marks"] += "XXXX" in original
    if not counts["reports"]:
        return ""
    marks = f"{counts['marks']:,} hold XXXX"
    lacking = f"{counts['findings']:,} lack findings, {counts['impression']:,} an impression, and {marks}"
    plain = marks if any(_kind(table) == "annotation" for table in source.tables(folder)) else lacking
    return f"Of the {counts['reports']:,} reports of this input {plain}."
