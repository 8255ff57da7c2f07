"""VQA-RAD: the real set whole, and small damaged ones."""

from __future__ import annotations

import collections
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PILImage

from medvlm.data.sample import Reject, Sample
from medvlm.data.sources.vqa_rad import VqaRadSource
from medvlm.errors import InputError

QUESTION: dict[str, Any] = {
    "qid": 7,
    "image_name": "synpic1.jpg",
    "image_organ": "CHEST",
    "answer": 3,
    "answer_type": "CLOSED ",
    "question_type": "COUNT",
    "question": " How many  nodules? ",
}


def make(folder: Path, *questions: object) -> VqaRadSource:
    (folder / "images").mkdir(parents=True)
    file = io.BytesIO()
    PILImage.new("L", (9, 9)).save(file, "JPEG")
    (folder / "images" / "synpic1.jpg").write_bytes(file.getvalue())
    (folder / "trainset.json").write_text(json.dumps(questions))
    return VqaRadSource([folder])


def read(source: VqaRadSource) -> list[Sample | Reject]:
    return [item for unit in source.units() for item in source.read(unit)]


def test_one_question(tmp_path: Path) -> None:
    (sample,) = read(make(tmp_path / "v", QUESTION))
    assert isinstance(sample, Sample)
    assert (sample.task, sample.prompt, sample.target) == ("vqa", "How many nodules?", "3")
    assert (sample.answer_type, sample.question_type, sample.organ) == ("closed", "COUNT", "chest")
    assert (sample.id, sample.group) == ("synpic1/trainset-7/-/vqa/0", "synpic1")
    assert (sample.license, sample.license_scope, sample.commercial_use) == ("CC0-1.0", "dataset", "yes")


def test_repeated_question_ids_stay_distinct(tmp_path: Path) -> None:
    samples = read(make(tmp_path / "v", QUESTION, QUESTION))
    assert len({s.id for s in samples if isinstance(s, Sample)}) == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image_name": "absent.jpg"}, "no image file"),
        ({"image_name": "../synpic1.jpg"}, "unsafe image name"),
        ({"answer": ""}, "malformed question"),
        ({"answer": None}, "malformed question"),
        ({"question": ["x"]}, "malformed question"),
        ({"question": "\ud800"}, "malformed question"),
    ],
)
def test_bad_rows_are_counted(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    bad, good = read(make(tmp_path / "v", {**QUESTION, **change}, QUESTION))
    assert isinstance(bad, Reject)
    assert isinstance(good, Sample)
    assert (bad.where, bad.reason) == ("v/trainset.json row 0", reason)


@pytest.mark.parametrize("text", ["", "{", "{}", "[" * 100_000, '"x"'])
def test_malformed_file_is_named(tmp_path: Path, text: str) -> None:
    source = make(tmp_path / "v", QUESTION)
    (tmp_path / "v" / "trainset.json").write_text(text)
    with pytest.raises(InputError, match=r"trainset\.json") as caught:
        source.units()
    assert "\n" not in str(caught.value)


def test_absent_and_foreign_folders(tmp_path: Path) -> None:
    for folder in (tmp_path / "absent", tmp_path):
        with pytest.raises(InputError, match=str(folder)):
            VqaRadSource([folder]).units()


@pytest.mark.realdata
def test_real_set(realdata: Path) -> None:
    source = VqaRadSource([realdata / "vqa_rad"])
    samples = [s for s in read(source) if isinstance(s, Sample)]
    assert len(samples) == 3064 + 451
    assert len({s.id for s in samples}) == 3515
    assert {s.answer_type for s in samples} == {"open", "closed"}
    raw = [q for f in ("testset.json", "trainset.json") for q in json.loads((realdata / "vqa_rad" / f).read_text())]
    assert collections.Counter(str(q["answer"]).split()[0] for q in raw) == collections.Counter(
        s.target.split()[0] for s in samples
    )
    assert {s.file_name for s in samples} == {q["image_name"] for q in raw}
    assert sum(isinstance(q["answer"], int) for q in raw) == 10


@pytest.mark.realdata
def test_card_counts_the_leakage(realdata: Path) -> None:
    (problem,) = VqaRadSource([realdata / "vqa_rad"]).card()["known_problems"]
    assert "203 of 203 test images are also in train" in problem
    assert "14 test questions repeat" in problem


def test_folders_and_pipes_among_the_images_end_nothing(tmp_path: Path) -> None:
    images = tmp_path / "v" / "images"
    rows = [{**QUESTION, "image_name": name} for name in ("sub", "pipe.jpg", "synpic1.jpg")]
    source = make(tmp_path / "v", *rows)
    before = source.describe()
    (images / "sub").mkdir()
    os.mkfifo(images / "pipe.jpg")
    assert source.describe() == before
    folder, pipe, sample = read(source)
    assert isinstance(folder, Reject)
    assert isinstance(pipe, Reject)
    assert (folder.reason, pipe.reason) == ("no image file", "no image file")
    assert isinstance(sample, Sample)
