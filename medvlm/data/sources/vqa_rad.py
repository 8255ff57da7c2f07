"""VQA-RAD, the classic layout: trainset.json, testset.json and images/ in one folder.

Questions and answers by clinicians about 315 radiology images of MedPix (Lau et al., Scientific Data 5:180251, 2018,
doi:10.1038/sdata.2018.251). The official test split shares its images with the train split, so samples are grouped by
image and no split is taken over; `card` tells how much is shared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from medvlm.data.look import PictureError, examine
from medvlm.data.sample import Image, Reject, Sample
from medvlm.data.sources.base import Unit
from medvlm.errors import InputError
from medvlm.io import sha256_bytes, sha256_file
from medvlm.licenses.expressions import commercial_use

LICENSE = "CC0-1.0"
EVIDENCE = "dataset card flaviagiammarino/vqa-rad: license cc0-1.0; Lau et al. 2018, doi:10.1038/sdata.2018.251"
FILES = ("trainset.json", "testset.json")


class VqaRadSource:
    """VQA-RAD on disk.

    Args:
        inputs: folders that hold trainset.json, testset.json (either may be absent) and images/.
    """

    name = "vqa-rad"

    def __init__(self, inputs: Sequence[Path | str]) -> None:
        self.inputs = [Path(path) for path in inputs]

    def describe(self) -> list[dict[str, Any]]:
        """Return path, hash and size of each question file, and of each folder of images as a whole.

        Raises:
            InputError: an input is no VQA-RAD folder.
        """
        entries = []
        for file in self._files():
            entries.append({"path": str(file), "sha256": sha256_file(file), "bytes": file.stat().st_size})
        for folder in self.inputs:
            digest, size = hashlib.sha256(), 0
            for image in sorted(path for path in (folder / "images").glob("*") if path.is_file()):
                digest.update(f"{image.name}\0{sha256_file(image)}\n".encode())
                size += image.stat().st_size
            entries.append({"path": str(folder / "images"), "sha256": digest.hexdigest(), "bytes": size})
        return entries

    def units(self) -> list[Unit]:
        """Return one unit for each question file.

        Raises:
            InputError: an input is no VQA-RAD folder, or one of its files is no list of questions.
        """
        files = self._files()
        for file in files:
            load_questions(file)
        return sorted((Unit(f"{f.parent.name}/{f.name}", (str(f),)) for f in files), key=lambda unit: unit.name)

    def prefetch(self, units: Sequence[Unit]) -> None:
        """Do nothing: the files lie on disk."""

    def read(self, unit: Unit) -> Iterator[Sample | Reject]:
        """Yield a sample for each question, or the reason why there is none."""
        file = Path(unit.locator[0])
        try:
            questions = load_questions(file)
        except InputError as error:
            yield Reject(self.name, unit.name, "question file cannot be read", str(error))
            return
        images: dict[str, Image | PictureError] = {}
        seen: dict[str, int] = {}
        for row, question in enumerate(questions):
            yield self._sample(question, f"{unit.name} row {row}", file, images, seen)

    def _files(self) -> list[Path]:
        files = []
        for folder in self.inputs:
            if not folder.is_dir():
                raise InputError(
                    f"{folder}: no such folder; --input takes a folder with {' or '.join(FILES)} and images/"
                )
            found = [folder / name for name in FILES if (folder / name).is_file()]
            if not found:
                raise InputError(f"{folder}: holds neither {' nor '.join(FILES)} (the classic layout of VQA-RAD)")
            files += found
        return files

    def _sample(
        self, question: Any, where: str, file: Path, images: dict[str, Image | PictureError], seen: dict[str, int]
    ) -> Sample | Reject:
        problem = _problem(question)
        if problem:
            return Reject(self.name, where, "malformed question", problem)
        name = str(question["image_name"])
        if name not in images:
            images[name] = _load_image(file.parent / "images", name)
        image = images[name]
        if isinstance(image, PictureError):
            return Reject(self.name, where, image.reason, image.detail)
        return self._vqa(question, image, file.stem, seen)

    def _vqa(self, question: dict[str, Any], image: Image, split: str, seen: dict[str, int]) -> Sample:
        group = Path(image.name).stem
        key = f"{split}-{question.get('qid', 'none')}"
        ordinal = seen[key] = seen.get(key, -1) + 1
        return Sample(
            id="/".join("_".join(part.split()) for part in (group, key, "-", "vqa", str(ordinal))),
            image=image,
            task="vqa",
            prompt=_text(question["question"]),
            target=_text(question["answer"]),
            language="en",
            kind="figure",
            organ=_text(question.get("image_organ")).lower() or None,
            question_type=_text(question.get("question_type")) or None,
            answer_type=_text(question.get("answer_type")).lower() or None,
            source=self.name,
            group=group,
            file_name=image.name,
            sha256=sha256_bytes(image.data),
            license=LICENSE,
            license_scope="dataset",
            license_evidence=EVIDENCE,
            commercial_use=commercial_use(LICENSE),
        )

    def card(self) -> dict[str, Any]:
        """Return the facts for the dataset card, with the leakage of the official splits as counted in the input."""
        return {
            "title": "VQA-RAD",
            "description": "Clinicians' questions and answers about radiology images of MedPix.",
            "homepage": "https://osf.io/89kps/",
            "citation": "Lau JJ, Gayen S, Ben Abacha A, Demner-Fushman D. A dataset of clinically generated visual "
            "questions and answers about radiology images. Scientific Data 5, 180251 (2018). "
            "doi:10.1038/sdata.2018.251",
            "known_problems": [problem for folder in self.inputs for problem in _leakage(folder)],
            "synthetic": False,
        }


def load_questions(file: Path) -> list[Any]:
    """Return the questions of a file.

    Raises:
        InputError: it cannot be read, or is no JSON list.
    """
    try:
        questions = json.loads(file.read_text("utf-8-sig"))
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}; name a readable folder") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not valid JSON ({error}); fetch the file again") from error
    if not isinstance(questions, list):
        raise InputError(f"{file}: not a list of questions; this is not VQA-RAD's classic layout")
    return questions


def _problem(question: Any) -> str:
    """Return what is wrong with a question, "" if nothing."""
    if not isinstance(question, dict):
        return "not an object"
    for key in ("image_name", "question", "answer"):
        value = question.get(key)
        if isinstance(value, bool) or not isinstance(value, str | int | float) or not _text(value):
            return f"no {key}"
        if isinstance(value, str) and not value.isprintable() and any("\ud800" <= c <= "\udfff" for c in value):
            return f"{key} holds half a character"
    return ""


def _text(value: Any) -> str:
    """Return a field as text without blanks at its ends; ten answers of the set are JSON numbers."""
    return "" if value is None else " ".join(str(value).split())


def _load_image(folder: Path, name: str) -> Image | PictureError:
    if not name or name != Path(name).name or name in (".", ".."):
        return PictureError("unsafe image name", name[:200])
    try:
        if not (folder / name).is_file():  # nor a pipe, which would be waited for
            return PictureError("no image file", name)
        data = (folder / name).read_bytes()
        look = examine(data)
    except (OSError, ValueError) as error:
        return PictureError("image cannot be read", f"{name}: {error}")
    except PictureError as error:
        return PictureError(error.reason, f"{name}: {error.detail}")
    return Image(data, name, look)


def _leakage(folder: Path) -> list[str]:
    """Return how many images and questions the two official files share."""
    splits = []
    for name in FILES:
        if not (folder / name).is_file():
            return []
        splits.append([q for q in load_questions(folder / name) if not _problem(q)])
    train, test = ({(q["image_name"], _text(q["question"]), _text(q["answer"])) for q in split} for split in splits)
    images = {image for image, _, _ in test}
    shared = images & {image for image, _, _ in train}
    repeats = sum((q["image_name"], _text(q["question"]), _text(q["answer"])) in train for q in splits[1])
    leak = f"{len(shared)} of {len(images)} test images are also in train"
    return [f"Official splits leak: {leak}, and {repeats} test questions repeat there. Splits here go by image."]
