"""VQA-RAD: questions and answers by clinicians about 315 radiology images of MedPix.

Lau et al., Scientific Data 5:180251 (2018), doi:10.1038/sdata.2018.251. The classic form is trainset.json and
testset.json with images/; the Hub's (flaviagiammarino/vqa-rad) is parquet with image, question and answer, without
organ and types, and without the images' names: there the group is the hash of the picture.
"""

from __future__ import annotations

from pathlib import Path

from medvlm.data.sample import Image, Sample
from medvlm.data.sources.facts import Facts
from medvlm.data.sources.files import Place
from medvlm.data.sources.pictures import Pictures
from medvlm.data.sources.questions import (
    QuestionSource,
    answer_type,
    is_yes_no,
    numbered,
    picture_key,
    row_key,
    word,
)
from medvlm.data.sources.records import Record, text_of


class VqaRadSource(QuestionSource):
    """VQA-RAD on disk: folders that hold trainset.json, testset.json (either may be absent) and images/, or parquet."""

    facts = Facts(
        name="vqa-rad",
        title="VQA-RAD",
        summary="Clinicians' questions and answers about radiology images of MedPix.",
        tasks=("vqa",),
        size="3,064 / 451 questions, 315 images",
        license="CC0-1.0",
        gate="none",
        download="trainset.json, testset.json and the images from osf.io/89kps, or the Hub's flaviagiammarino/vqa-rad",
        layout="a folder with trainset.json, testset.json and images/synpic*.jpg, or with the Hub's parquet files",
        hub="flaviagiammarino/vqa-rad",
        hub_files=("data/*.parquet",),
        homepage="https://osf.io/89kps/",
        citation="Lau JJ, Gayen S, Ben Abacha A, Demner-Fushman D. A dataset of clinically generated visual "
        "questions and answers about radiology images. Scientific Data 5, 180251 (2018). "
        "doi:10.1038/sdata.2018.251",
        known_problems=(
            "The official splits leak: all 203 test images are also in train, and 14 test questions repeat there.",
            "There is no official validation split.",
            "Ten answers are numbers instead of texts; they are read as texts.",
            'answer_type is "CLOSED " with a trailing blank twice; it is read as closed.',
            "The Hub's parquet files hold 1,793 + 451 of the 3,064 + 451 questions, and no types or image names.",
        ),
        split="by-group",
    )
    evidence = "dataset card flaviagiammarino/vqa-rad: license cc0-1.0; Lau et al. 2018, doi:10.1038/sdata.2018.251"
    classic = ("trainset.json", "testset.json")
    named = "image_name"

    def pictures(self, place: Place) -> list[Pictures]:
        """Return the folder of images beside the questions."""
        return [Pictures(place.table.parent / "images")]

    def picture_places(self, folder: Path) -> list[Path]:
        """Return the folder of images."""
        return [path for path in [folder / "images"] if path.is_dir()]

    def sample_of(self, record: Record, place: Place, image: Image) -> Sample:
        """Return the sample of a question.

        Without a stated answer_type an answer of yes or no is closed, as all 1,964 of them are in the classic form; of
        the other 1,551 answers 131 are closed as well, so nothing is said of them.
        """
        if "image_name" in record:
            group = Path(image.name).stem
            key = numbered(record, place, place.table.stem)
        else:
            group, key = picture_key(image), (row_key(place), "0")
        closed = "closed" if is_yes_no(text_of(record["answer"]) or "") else None
        return self.question(
            record,
            place,
            image,
            group=group,
            key=key,
            organ=word(record.get("image_organ")),
            question_type=text_of(record.get("question_type")) or None,
            answer_type=answer_type(record) if "answer_type" in record else closed,
        )
