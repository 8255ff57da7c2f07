"""VQA-RAD: the real set whole, its published forms small, and damaged ones."""

from __future__ import annotations

import collections
import io
import json
import os
import pickle
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets.table import embed_table_storage
from layouts_vqa import RAD, cell, hub, loaded, picture, read, rejects, samples, vqa_rad
from PIL import Image as PILImage

from medvlm.data.prepare import Settings, prepare
from medvlm.data.sample import Reject, Sample
from medvlm.data.sources.vqa_rad import VqaRadSource
from medvlm.errors import InputError


def make(folder: Path, *questions: object) -> VqaRadSource:
    return VqaRadSource([vqa_rad(folder, questions)])


def test_one_question(tmp_path: Path) -> None:
    (sample,) = samples(make(tmp_path / "v", RAD))
    assert (sample.task, sample.prompt, sample.target) == ("vqa", "How many nodules?", "3")
    assert (sample.answer_type, sample.question_type, sample.organ) == ("closed", "COUNT", "chest")
    assert (sample.id, sample.group) == ("synpic1/trainset-7/-/vqa/0", "synpic1")
    assert (sample.license, sample.license_scope, sample.commercial_use) == ("CC0-1.0", "dataset", "yes")
    assert sample.official_split == "train"
    assert not sample.third_party


def test_each_file_is_a_split(tmp_path: Path) -> None:
    found = samples(VqaRadSource([vqa_rad(tmp_path / "v", [RAD], [RAD, RAD])]))
    assert [(s.id, s.official_split) for s in found] == [
        ("synpic1/testset-7/-/vqa/0", "test"),
        ("synpic1/testset-7/-/vqa/1", "test"),
        ("synpic1/trainset-7/-/vqa/0", "train"),
    ]


def test_repeated_question_ids_stay_distinct(tmp_path: Path) -> None:
    """Also far apart, in slices that different workers read, and among ids that are no ids."""
    odd = [{**RAD, "qid": qid} for qid in (None, [1], "x y", "x y", 2.0)]
    rows = [RAD, *({**RAD, "qid": 1000 + n} for n in range(700)), RAD, *odd, {k: RAD[k] for k in RAD if k != "qid"}]
    source = make(tmp_path / "v", *rows)
    assert len(source.units()) == 2
    found = samples(pickle.loads(pickle.dumps(source)))
    assert len({s.id for s in found}) == len(found) == len(rows)
    assert found[701].id == "synpic1/trainset-7/-/vqa/1"
    assert [s.id.split("/", 1)[1] for s in found[702:706]] == [
        "trainset-none/-/vqa/0",
        "trainset-none/-/vqa/1",
        "trainset-x_y/-/vqa/0",
        "trainset-x_y/-/vqa/1",
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image_name": "absent.jpg"}, "no image file"),
        ({"image_name": "../synpic1.jpg"}, "unsafe image name"),
        ({"image_name": "..\\synpic1.jpg"}, "unsafe image name"),
        ({"image_name": "C:\\synpic1.jpg"}, "unsafe image name"),
        ({"image_name": ""}, "malformed question"),
        ({"image_name": {"path": "synpic1.jpg"}}, "malformed question"),
        ({"answer": ""}, "malformed question"),
        ({"answer": None}, "malformed question"),
        ({"answer": True}, "malformed question"),
        ({"question": ["x"]}, "malformed question"),
        ({"question": "\ud800"}, "malformed question"),
        ({"question": "x" * ((1 << 20) + 1)}, "malformed question"),
    ],
)
def test_bad_rows_are_counted(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    bad, good = read(make(tmp_path / "v", {**RAD, **change}, RAD))
    assert isinstance(bad, Reject)
    assert isinstance(good, Sample)
    assert (bad.where, bad.reason) == ("trainset.json row 0", reason)


def test_what_is_no_text_is_left_empty(tmp_path: Path) -> None:
    odd = {"image_organ": ["x"], "question_type": {}, "answer_type": 3}
    (sample,) = samples(make(tmp_path / "v", {**RAD, **odd}))
    assert (sample.organ, sample.question_type, sample.answer_type) == (None, None, None)


@pytest.mark.parametrize("text", ["", "{", "{}", "[" * 100_000, '"x"'])
def test_malformed_file_is_named(tmp_path: Path, text: str) -> None:
    source = make(tmp_path / "v", RAD)
    (tmp_path / "v" / "trainset.json").write_text(text)
    with pytest.raises(InputError, match=r"trainset\.json") as caught:
        source.units()
    assert "\n" not in str(caught.value)


def test_absent_and_foreign_folders(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for folder in (tmp_path / "absent", tmp_path, file):
        with pytest.raises(InputError, match=str(folder)):
            VqaRadSource([folder]).units()


def test_folders_and_pipes_among_the_images_end_nothing(tmp_path: Path) -> None:
    images = tmp_path / "v" / "images"
    rows = [{**RAD, "image_name": name} for name in ("sub", "pipe.jpg", "synpic1.jpg")]
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


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    source = make(tmp_path / "v", {**RAD, "image_name": "link.jpg"})
    (tmp_path / "secret.jpg").write_bytes(picture(5))
    (tmp_path / "v" / "images" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (bad,) = rejects(source)
    assert bad.reason == "link out of the folder"


def hub_set(folder: Path) -> VqaRadSource:
    """The Hub's form: neither ids nor types; two rows share a picture, and one picture is in both splits."""
    train = [
        {"image": cell(1), "question": "is there a nodule?", "answer": "yes"},
        {"image": cell(1), "question": "where is it?", "answer": "left lung"},
        {"image": cell(2, "synpic2.jpg"), "question": "pneumothorax?", "answer": "No."},
    ]
    hub(folder / "data" / "train-00000-of-00001-eb88.parquet", train)
    hub(folder / "data" / "test-00000-of-00001-e5bc.parquet", [{**train[0], "question": "which organ?"}])
    return VqaRadSource([folder])


def test_the_form_of_the_hub(tmp_path: Path) -> None:
    test, one, two, three = samples(hub_set(tmp_path / "h"))
    assert one.group == two.group == test.group != three.group
    assert [s.official_split for s in (test, one, two, three)] == ["test", "train", "train", "train"]
    # Yes and no are closed questions wherever the classic form tells; of other answers it tells both.
    assert [s.answer_type for s in (one, two, three)] == ["closed", None, "closed"]
    assert (one.organ, one.question_type) == (None, None)
    assert one.image.data == picture(1)
    assert len({s.id for s in (test, one, two, three)}) == 4


def test_parquet_written_by_datasets(tmp_path: Path) -> None:
    """What push_to_hub uploads: pictures given as files keep their bytes and names, decoded ones become PNG."""
    (tmp_path / "synpic5.jpg").write_bytes(picture(5, "JPEG"))
    pixels = PILImage.open(io.BytesIO(picture(6)))
    columns = {"image": [str(tmp_path / "synpic5.jpg"), pixels], "question": ["a?", "b?"], "answer": ["no", "lung"]}
    kinds = {"image": datasets.Image(), "question": datasets.Value("string"), "answer": datasets.Value("string")}
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
    table = table.with_format("arrow").map(embed_table_storage, batched=True).with_format(None)
    table.to_parquet(tmp_path / "hub" / "data" / "train-00000-of-00001.parquet")
    one, two = samples(VqaRadSource([tmp_path / "hub"]))
    assert (one.image.data, one.image.name) == (picture(5, "JPEG"), "synpic5.jpg")
    assert PILImage.open(io.BytesIO(two.image.data)).tobytes() == pixels.tobytes()
    assert [(s.prompt, s.target, s.official_split) for s in (one, two)] == [
        ("a?", "no", "train"),
        ("b?", "lung", "train"),
    ]


@pytest.mark.parametrize("change", [{"image": None}, {"image": {"bytes": b"", "path": "x"}}, {"answer": None}])
def test_bad_cells_are_counted(tmp_path: Path, change: dict[str, Any]) -> None:
    row = {"image": cell(1), "question": "is it?", "answer": "yes"}
    hub(tmp_path / "train-0.parquet", [row, {**row, **change}, row])
    first, bad, last = read(VqaRadSource([tmp_path]))
    assert isinstance(bad, Reject)
    assert bad.reason in ("no image file", "empty image", "malformed question")
    assert bad.where == "train-0.parquet row 1"
    assert isinstance(first, Sample)
    assert isinstance(last, Sample)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    hub(tmp_path / "train-0.parquet", [{"image": cell(1), "question": "is it?"}])
    with pytest.raises(InputError, match=r"train-0\.parquet: has no column answer; it has image, question"):
        VqaRadSource([tmp_path]).units()


def test_end_to_end(tmp_path: Path) -> None:
    done = prepare(hub_set(tmp_path / "h"), tmp_path / "out", Settings(), workers=1)
    rows = loaded(tmp_path / "out", tmp_path / "cache")
    assert sorted(row["prompt"] for row in rows) == [
        "is there a nodule?",
        "pneumothorax?",
        "where is it?",
        "which organ?",
    ]
    assert rows[0]["image"].size == (16, 16)
    leak = done.manifest["leakage"]["official"]["train/test"]
    assert (leak["images"], leak["of_images"], leak["repeats"]) == (1, 1, 0)


@pytest.mark.realdata
def test_real_set(realdata: Path) -> None:
    found = samples(VqaRadSource([realdata / "vqa_rad"]))
    assert len(found) == 3064 + 451
    assert len({s.id for s in found}) == 3515
    assert {s.answer_type for s in found} == {"open", "closed"}
    raw = [q for f in ("testset.json", "trainset.json") for q in json.loads((realdata / "vqa_rad" / f).read_text())]
    assert collections.Counter(str(q["answer"]).split()[0] for q in raw) == collections.Counter(
        s.target.split()[0] for s in found
    )
    assert {s.file_name for s in found} == {q["image_name"] for q in raw}
    assert sum(isinstance(q["answer"], int) for q in raw) == 10
    # What the card says of answers of yes and no, and of the others.
    kinds = collections.Counter((s.target.lower() in ("yes", "no"), s.answer_type) for s in found)
    assert kinds == {(True, "closed"): 1964, (False, "open"): 1420, (False, "closed"): 131}


@pytest.mark.realdata
def test_the_leakage_of_the_real_set(realdata: Path, tmp_path: Path) -> None:
    done = prepare(VqaRadSource([realdata / "vqa_rad"]), tmp_path / "out", Settings(), workers=1)
    leak = done.manifest["leakage"]["official"]
    assert list(leak) == ["train/test"]
    assert (leak["train/test"]["images"], leak["train/test"]["of_images"]) == (203, 203)
    assert leak["train/test"]["repeats"] == 14
    assert {pair: counts["images"] for pair, counts in done.manifest["leakage"]["made"].items()} == {
        "train/test": 0,
        "train/validation": 0,
        "validation/test": 0,
    }
