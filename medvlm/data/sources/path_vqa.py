"""PathVQA: questions about pathology images of two textbooks and a digital library.

He et al., arXiv:2003.10286. The original is pvqa/qas/SPLIT/SPLIT_qa.pkl (a pickled list of image, question and answer;
see `pickled`) with images/SPLIT/NAME.jpg, whose names stand without their ending in the list; SPLIT is train, val or
test. The Hub's form (flaviagiammarino/path-vqa) is parquet with image, question and answer, repeated rows left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medvlm.data.sample import Image, Sample
from medvlm.data.sources import pickled, records
from medvlm.data.sources.facts import Facts
from medvlm.data.sources.files import Place
from medvlm.data.sources.pictures import Pictures
from medvlm.data.sources.questions import QuestionSource, is_yes_no, picture_key, row_key
from medvlm.data.sources.records import Bad, Record, Slice, text_of

_ENDINGS = (".jpg", ".jpeg", ".png")


class PathVqaSource(QuestionSource):
    """PathVQA on disk: folders that hold qas/ and images/ (or pvqa/ with both), or parquet files."""

    facts = Facts(
        name="path-vqa",
        title="PathVQA",
        summary="Questions and answers about pathology images, made from the captions of textbooks.",
        tasks=("vqa",),
        size="19,654 / 6,259 / 6,719 questions, 4,289 images (the Hub's form)",
        license="MIT AND LicenseRef-all-rights-reserved",
        gate="none",
        download="the parquet files of the Hub's flaviagiammarino/path-vqa (785 MB), or the authors' pvqa folder",
        layout="a folder with the parquet files, or with qas/{train,val,test}/*_qa.pkl and images/{train,val,test}/",
        hub="flaviagiammarino/path-vqa",
        hub_files=("data/*.parquet",),
        homepage="https://github.com/UCSD-AI4H/PathVQA",
        citation="He X, Zhang Y, Mou L, Xing E, Xie P. PathVQA: 30000+ questions for medical visual question "
        "answering. arXiv:2003.10286 (2020)",
        known_problems=(
            "Images and captions belong to the publishers of two textbooks and the owners of the PEIR library.",
            "The MIT license of the Hub's card cannot give them away: samples are third_party, commercial use no.",
            "The questions were made from captions by a program; many are ungrammatical.",
            "The original holds repeated rows: 32,795 questions, of which the Hub's form keeps 32,632.",
        ),
        split="official",
    )
    evidence = (
        "dataset card flaviagiammarino/path-vqa: license mit; the authors' README: the copyrights of images and "
        "captions belong to the publishers and authors of the two books and the owners of PEIR"
    )
    classic = ("qas/*/*_qa.pkl", "pvqa/qas/*/*_qa.pkl")
    named = "image"

    def slices(self, table: Path) -> list[Slice]:
        """Return the slices of a file of records; a pickle is read without running it."""
        return pickled.slices(table) if table.suffix == ".pkl" else super().slices(table)

    def records(self, locator: Slice) -> Iterator[tuple[int, Record | Bad]]:
        """Yield the records of a slice."""
        return pickled.read(locator) if locator[1] == "pickle" else records.read(locator)

    def pictures(self, place: Place) -> list[Pictures]:
        """Return images/SPLIT/ beside qas/SPLIT/."""
        return [Pictures(place.table.parents[2] / "images" / place.table.parent.name, endings=_ENDINGS)]

    def picture_places(self, folder: Path) -> list[Path]:
        """Return the folder of images."""
        return [path for path in (folder / "images", folder / "pvqa" / "images") if path.is_dir()]

    def sample_of(self, record: Record, place: Place, image: Image) -> Sample:
        """Return the sample of a question.

        An answer of yes or no is closed, any other open: the set has these two kinds (He et al., section 3).
        """
        named = isinstance(record["image"], str)
        return self.question(
            record,
            place,
            image,
            group=Path(image.name).stem if named else picture_key(image),
            key=(row_key(place), "0"),
            modality="histology",
            modality_evidence=None,
            answer_type="closed" if is_yes_no(text_of(record["answer"]) or "") else "open",
            third_party=True,
        )
