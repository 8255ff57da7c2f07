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
            "test_clean.csv is a part of test.csv; a question of both, with the same answer, is taken once.",
            "Version 1 has compound figures, version 2 panels of figures of the same collection: one is read.",
            "Choices begin with their letter (' A:Diffuse pattern'); it is taken off where all of a question do.",
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
        choices = _choices(record)
        label, problem, detail = _right(record, choices)
        if problem:
            return self.reject(place, problem, detail)
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


def _choices(record: Record) -> dict[str, str]:
    """Return the choices by letter, "" where there is none.

    " A:Diffuse" is "Diffuse" where each choice begins with its own letter; else "C:N ratio" stays what it is.
    """
    written = {letter: text_of(record.get(f"Choice {letter}")) or "" for letter in _LETTERS}
    bare = {letter: _without(letter, choice) for letter, choice in written.items()}
    return bare if all(bare[letter] != choice for letter, choice in written.items() if choice) else written


def _without(letter: str, text: str) -> str:
    """Return a text without that letter before it: of A, "A:Diffuse" is "Diffuse"; "A. baumannii" stays."""
    labeled = _LABELED.fullmatch(text)
    return labeled[2] if labeled and labeled[1] == letter else text


def _right(record: Record, choices: dict[str, str]) -> tuple[str, str, str]:
    """Return the letter of the right choice, "", ""; or "", the reason why none can be told, and what was stated."""
    answer = text_of(field(record, "Answer|Anwser")) or ""
    stated = (text_of(record.get("Answer_label")) or "").rstrip(":. ").upper()
    alone = answer.upper() if len(answer) == 1 and answer.upper() in _LETTERS else ""
    named = _LABELED.fullmatch(answer)
    label = stated if len(stated) == 1 and stated in _LETTERS else alone
    if not label:
        same = (letter for letter, choice in choices.items() if choice and _same(answer, choice))
        label = next(same, named[1] if named else "")
    if not label or not choices[label]:
        return "", "no right choice", label or answer[:80] or "no answer"
    # Either may have its letter before it: the answer, or a choice among others that have none.
    texts, right = {answer, _without(label, answer)}, {choices[label], _without(label, choices[label])}
    if answer and alone != label and not any(_same(one, other) for one in texts for other in right):
        return "", "answer and label differ", f"{label}: {answer[:80]}"
    return label, "", ""


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


def _asked(record: Record) -> tuple[str, ...] | None:
    """Return image, question, choices and the right one's letter; None for a row that gives no sample."""
    choices = _choices(record)
    label, problem, _ = _right(record, choices)
    question = text_of(record.get("Question"))
    return (
        None
        if problem or not question
        else (text_of(record.get("Figure_path")) or "", question, *choices.values(), label)
    )


def _clean(path: Path) -> frozenset[tuple[str, ...] | None]:
    """Return what each good row of test_clean.csv asks, nothing where it does not lie there."""
    return _read_clean(str(path), path.stat().st_mtime_ns) if path.is_file() else frozenset()


@functools.lru_cache(maxsize=4)
def _read_clean(path: str, changed: int) -> frozenset[tuple[str, ...] | None]:
    return frozenset(map(_asked, records.everything(Path(path)))) - {None}


@functools.lru_cache(maxsize=4)
def _listed(paths: tuple[Path, ...]) -> Lists:
    return Lists(paths)
