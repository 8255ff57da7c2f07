"""PMC-VQA: multiple-choice questions that a language model asked about figures of PubMed Central.

Zhang et al., arXiv:2305.10415; the Hub's xmcmic/PMC-VQA. Version 1 is train.csv, test.csv, test_clean.csv (2,000
questions of test.csv that were checked by hand) and images.zip with images/; version 2, of single panels, is
train_2.csv, test_2.csv and images_2.zip with figures/. In version 1 the answer is a text ("Answer", in places "Anwser")
with its letter in "Answer_label"; in version 2 "Answer" is the letter alone.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from medvlm.data.sample import Image, Reject, Sample
from medvlm.data.sources import records
from medvlm.data.sources.facts import Facts
from medvlm.data.sources.files import Place, one_of
from medvlm.data.sources.pictures import Pictures
from medvlm.data.sources.pmc.filelists import NAMES, Lists
from medvlm.data.sources.questions import QuestionSource, row_key
from medvlm.data.sources.records import Record, field, text_of
from medvlm.errors import InputError
from medvlm.licenses.expressions import commercial_use

TEXTS_LICENSE = "LicenseRef-CC-BY-SA-unversioned"
"""Of questions and answers: "PMC-VQA, is under CC BY-SA licenses" (dataset card), without a version."""
LISTS = ("oa_comm_use_file_list.csv", *NAMES)
"""Lists of PMC that are asked where they lie in the folder; the first is in the set's own repository."""

_LETTERS = "ABCD"
_LABELED = re.compile(r"([A-D]) ?: ?(.*)")
_ARTICLE = re.compile(r"PMC\d{1,12}(?![\dx])", re.IGNORECASE)
_PLACES = {"images.zip": ("images", ""), "images_2.zip": ("figures", "images_2", "")}


class PmcVqaSource(QuestionSource):
    """PMC-VQA on disk: folders that hold the CSV files and images.zip or images_2.zip, as they are or unpacked.

    Args:
        inputs: the folders.
        version: "1" or "2"; None takes the one that a folder holds.
        licenses: a file list of PMC (`oa_file_list.csv`, `oa_comm_use_file_list.csv`, `oa_file_list.txt`) that gives
            the licenses of articles; those of `LISTS` that lie in a folder are asked after it.
        options: as `FileSource` takes them.

    Raises:
        InputError: there is no file `licenses`.
    """

    facts = Facts(
        name="pmc-vqa",
        title="PMC-VQA",
        summary="Multiple-choice questions, written by a language model, about figures of PubMed Central.",
        tasks=("vqa",),
        size="227,000 questions, 149,000 images (version 1)",
        license="by row",
        gate="none",
        download="the CSV files, images.zip (18.9 GB) or images_2.zip (2.2 GB) and oa_comm_use_file_list.csv, the "
        "articles' licenses, from the Hub's xmcmic/PMC-VQA",
        layout="a folder with train.csv, test.csv, images.zip (version 1) or train_2.csv, test_2.csv, images_2.zip",
        hub="xmcmic/PMC-VQA",
        hub_files=("train_2.csv", "test_2.csv", "images_2.zip", "oa_comm_use_file_list.csv"),
        homepage="https://xiaoman-zhang.github.io/PMC-VQA/",
        citation="Zhang X, Wu C, Zhao Z, Lin W, Zhang Y, Wang Y, Xie W. PMC-VQA: visual instruction tuning for medical "
        "visual question answering. arXiv:2305.10415 (2023)",
        known_problems=(
            "A language model wrote questions and answers from captions; only test_clean.csv was checked by hand.",
            "An image is under the license of its article; without a file list of PMC that is unknown.",
            "test_clean.csv is a part of test.csv; a question of both is taken once.",
            "Version 1 has compound figures, version 2 panels of figures of the same collection: one is read.",
            "Choices begin with their letter (' A:Diffuse pattern'); the letter is taken off.",
        ),
        split="by-group",
    )
    hub_files_1 = ("train.csv", "test.csv", "test_clean.csv", "images.zip", "oa_comm_use_file_list.csv")
    """Of version 1 on the Hub; without a choice version 2 is fetched, a ninth of its bytes."""
    classic = ("train.csv", "test_clean.csv", "test.csv", "train_2.csv", "test_2.csv")
    named = "Figure_path"
    texts = ("Question",)

    def __init__(
        self,
        inputs: Sequence[Path | str],
        licenses: Path | str | None = None,
        version: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(inputs, **options)
        self.version = version
        self.licenses = Path(licenses) if licenses else None
        if self.licenses and not self.licenses.is_file():
            raise InputError(f"{self.licenses}: no such file; --licenses takes a file list of PMC (oa_file_list.csv)")

    def tables(self, folder: Path) -> list[Path]:
        """Return the tables of one version, whose figures are the other's too.

        Raises:
            InputError: there are none, or those of both and no version is chosen.
        """
        found = super().tables(folder)
        there = sorted({_version(table) for table in found})
        if self.version is None and len(there) > 1:
            raise InputError(
                f"{folder}: holds both versions, which show the same figures; --version 2 takes single panels, "
                "--version 1 whole figures"
            )
        if self.version not in (None, *there):
            raise InputError(f"{folder}: holds no version {self.version}; --version {there[0]} is there")
        return [table for table in found if self.version in (None, _version(table))]

    def pictures(self, place: Place) -> list[Pictures]:
        """Return where the images of a version lie: unpacked or in its archive, then those of the other version."""
        table = place.table
        first, second = _PLACES if _version(table) == "1" else reversed(_PLACES)
        return [
            Pictures(table.parent / (inside or archive.removesuffix(".zip")), [table.parent / archive], inside)
            for archive in (first, second)
            for inside in _PLACES[archive]
        ]

    def picture_places(self, folder: Path) -> list[Path]:
        """Return the folders and archives of images, and the lists that tell licenses."""
        names = {name for archive, inside in _PLACES.items() for name in (archive, *inside) if name}
        return [*(path for name in sorted(names) if (path := folder / name).exists()), *self._lists(folder)]

    def samples(self, record: Record, place: Place) -> Iterator[Sample | Reject]:
        """Yield the sample of one question, or the reason why there is none."""
        if place.table.name == "test.csv" and _asked(record) in _clean(place.table.with_name("test_clean.csv")):
            yield self.reject(place, "question of test_clean.csv")
        else:
            yield from super().samples(record, place)

    def sample_of(self, record: Record, place: Place, image: Image) -> Sample | Reject:
        """Return the sample of a question, under its article's license and that of the questions."""
        choices = {letter: _choice(record, letter) for letter in _LETTERS}
        label, answer = _answer(record)
        if label is None:
            label = next((letter for letter, choice in choices.items() if choice and _same(choice, answer)), None)
        if label is None or not choices[label]:
            return self.reject(place, "no right choice", f"{label or answer[:80] or 'no answer'}")
        if answer and not _same(answer, choices[label]):
            return self.reject(place, "answer and label differ", f"{label}: {answer[:80]}")
        article = _ARTICLE.match(PurePosixPath(image.name).name)
        pmcid = article[0].upper() if article else None
        lists = _listed(tuple(self._lists(place.folder)))
        if lists.retracted(pmcid):
            return self.reject(place, "retracted article", "PMC file list")
        return self.question(
            record,
            place,
            image,
            group=pmcid or PurePosixPath(image.name).stem,
            figure_id=PurePosixPath(image.name).stem,
            key=(row_key(place), "0"),
            prompt=text_of(record["Question"]) or "",
            target=choices[label],
            choices=[choice for choice in choices.values() if choice],
            answer_type="choice",
            pmcid=pmcid,
            **_rights(lists, pmcid),
        )

    def _lists(self, folder: Path) -> list[Path]:
        return [*([self.licenses] if self.licenses else []), *one_of(folder, *LISTS)]


def _version(table: Path) -> str:
    return "2" if table.stem.endswith("_2") else "1"


def _choice(record: Record, letter: str) -> str:
    """Return a choice without its own letter: " A:Diffuse" is "Diffuse"; "A. baumannii" stays."""
    text = text_of(record.get(f"Choice {letter}")) or ""
    labeled = _LABELED.fullmatch(text)
    return labeled[2] if labeled and labeled[1] == letter else text


def _answer(record: Record) -> tuple[str | None, str]:
    """Return the letter of the right choice, None where none is told, and its text, "" where only the letter is."""
    stated = (text_of(record.get("Answer_label")) or "").rstrip(":. ").upper()
    text = text_of(field(record, "Answer|Anwser")) or ""
    labeled = _LABELED.fullmatch(text)
    label = stated if len(stated) == 1 and stated in _LETTERS else labeled[1] if labeled else None
    if len(text) == 1 and text.upper() in _LETTERS and label in (None, text.upper()):
        return text.upper(), ""
    return label, labeled[2] if labeled and labeled[1] == label else text


def _rights(lists: Lists, pmcid: str | None) -> dict[str, Any]:
    """Return a sample's fields of rights: the article's license and that of the questions, or that nothing is known."""
    found = lists.rights(pmcid)
    if found is None or found.license is None:
        return {"license": None, "license_scope": None, "license_evidence": None, "commercial_use": "unknown"}
    license = f"{found.license} AND {TEXTS_LICENSE}"
    said = f"{found.evidence}; questions: dataset card xmcmic/PMC-VQA, CC BY-SA"
    use = commercial_use(license)
    return {"license": license, "license_scope": "article", "license_evidence": said, "commercial_use": use}


def _same(one: str, other: str) -> bool:
    return one.casefold().rstrip(".") == other.casefold().rstrip(".")


def _asked(record: Record) -> tuple[str, str]:
    return text_of(record.get("Figure_path")) or "", text_of(record.get("Question")) or ""


def _clean(path: Path) -> frozenset[tuple[str, str]]:
    """Return image and question of each row of test_clean.csv, nothing where it does not lie there."""
    return _read_clean(str(path), path.stat().st_mtime_ns) if path.is_file() else frozenset()


@functools.lru_cache(maxsize=4)
def _read_clean(path: str, changed: int) -> frozenset[tuple[str, str]]:
    return frozenset(_asked(record) for record in records.everything(Path(path)))


@functools.lru_cache(maxsize=4)
def _listed(paths: tuple[Path, ...]) -> Lists:
    return Lists(paths)
