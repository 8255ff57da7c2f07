"""SLAKE: questions in English and Chinese about 642 CT, MRI and X-ray images.

Liu et al., ISBI 2021, arXiv:2102.09542. The classic form is train.json, validate.json (validation.json on the Hub) and
test.json beside imgs/xmlabN/source.jpg or the imgs.zip that holds them. Others have made parquet files of it, with the
picture in each row and some of the fields: mdwiratathya/SLAKE-vqa-english (image, question, answer) and OctoMed/SLAKE
(all fields but img_name). Those are read with what they have.
"""

from __future__ import annotations

import filecmp
from pathlib import Path, PurePosixPath

from medvlm.data.sample import Image, Sample
from medvlm.data.sources.facts import Facts
from medvlm.data.sources.files import Place
from medvlm.data.sources.pictures import Pictures
from medvlm.data.sources.questions import (
    QuestionSource,
    answer_type,
    numbered,
    picture_key,
    row_key,
    split_named,
    word,
)
from medvlm.data.sources.records import Record, text_of
from medvlm.errors import InputError

_MODALITIES = {"ct": "ct", "mri": "mri", "x-ray": "radiograph"}
_LANGUAGES = ("en", "zh")


class SlakeSource(QuestionSource):
    """SLAKE on disk: folders that hold the three JSON files and imgs/ or imgs.zip, or parquet files."""

    facts = Facts(
        name="slake",
        title="SLAKE 1.0",
        summary="Physicians' questions and answers, English and Chinese, about CT, MRI and X-ray images.",
        tasks=("vqa",),
        size="9,835 / 2,099 / 2,094 questions, 642 images",
        license="CC-BY-4.0",
        gate="none",
        download="imgs.zip (212 MB) and the JSON files from the Hub's BoKelvin/SLAKE or www.med-vqa.com/slake",
        layout="a folder with train.json, validate.json (or validation.json), test.json and imgs.zip or imgs/",
        hub="BoKelvin/SLAKE",
        hub_files=("train.json", "validation.json", "test.json", "imgs.zip"),
        homepage="https://www.med-vqa.com/slake/",
        citation="Liu B, Zhan LM, Xu L, Ma L, Yang Y, Wu XM. SLAKE: a semantically-labeled knowledge-enhanced dataset "
        "for medical visual question answering. IEEE ISBI 2021. arXiv:2102.09542",
        known_problems=(
            "The official splits leak: train shares 142 images with test and 130 with validation.",
            "Validation shares 26 images with test.",
            "One question has no answer (qid 1622 of train); it is left out.",
            "The images come from other sets (MSD, CHAOS, ChestX-ray8), whose own terms SLAKE does not repeat.",
            "So samples are third_party, commercial use unknown; prepare needs --license CC-BY-4.0 or any.",
        ),
        split="by-group",
    )
    evidence = "dataset card BoKelvin/SLAKE: license cc-by-4.0; Liu et al. 2021, arXiv:2102.09542"
    classic = ("train.json", "validate.json", "validation.json", "test.json")
    named = "img_name"

    def tables(self, folder: Path) -> list[Path]:
        """Return the files of records; of a validation split that lies there under both its names the first.

        Raises:
            InputError: it has none, or the two differ.
        """
        found = super().tables(folder)
        named = {path.name: path for path in found}
        first, second = named.get("validate.json"), named.get("validation.json")
        if first is None or second is None:
            return found
        if not filecmp.cmp(first, second, shallow=False):
            raise InputError(f"{folder}: validate.json and validation.json, two names of one split, differ; remove one")
        return [path for path in found if path != second]

    def pictures(self, place: Place) -> list[Pictures]:
        """Return imgs/, and imgs.zip as it was fetched."""
        return [Pictures(place.folder / "imgs", [place.folder / "imgs.zip"], inside="imgs")]

    def picture_places(self, folder: Path) -> list[Path]:
        """Return the folder and the archive of images."""
        return [path for path in (folder / "imgs", folder / "imgs.zip") if path.exists()]

    def sample_of(self, record: Record, place: Place, image: Image) -> Sample:
        """Return the sample of a question; `location` is the organ, `content_type` the question type."""
        name = (text_of(record.get("img_name")) or "").replace("\\", "/")
        modality = text_of(record.get("modality")) or ""
        language = (text_of(record.get("q_lang")) or "").lower()
        split = split_named(place.folder, place.table)
        return self.question(
            record,
            place,
            image,
            group=_group(record, name) or picture_key(image),
            key=numbered(record, place, split or place.table.stem) if name else (row_key(place), "0"),
            language=language if language in _LANGUAGES else None if language else "en",
            modality=_MODALITIES.get(modality.lower(), modality) or None,
            modality_evidence=f"data set: {modality}" if modality else None,
            organ=word(record.get("location")),
            question_type=text_of(record.get("content_type")) or None,
            answer_type=answer_type(record),
            file_name=name or image.name,
            # What the card licenses cannot cover images of other sets, whose terms it does not tell.
            third_party=True,
            commercial_use="unknown",
        )


def _group(record: Record, name: str) -> str:
    """Return the image as the set calls it, "xmlab1": the folder in its name, or by its number; "" without both."""
    if name:
        path = PurePosixPath(name)
        return path.parent.name or path.stem
    number = text_of(record.get("img_id"))
    return f"xmlab{number}" if number else ""
