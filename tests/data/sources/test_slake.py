"""SLAKE: the real questions with made-up pictures, its published forms small, and damaged ones."""

from __future__ import annotations

import collections
import itertools
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from layouts_vqa import SLAKE, cell, hub, loaded, picture, read, rejects, samples, slake, zipped

from medvlm.cli import run
from medvlm.data.prepare import Settings, prepare
from medvlm.data.sample import Reject, Sample
from medvlm.data.sources.slake import SlakeSource
from medvlm.errors import InputError
from medvlm.licenses.policy import of_sample

ANY = Settings(license="any")
ZH: dict[str, Any] = {**SLAKE, "qid": 1, "q_lang": "zh", "question": "图片中包含肝脏吗？", "answer": "是"}


@pytest.mark.parametrize("images", ["folder", "zip"])
def test_one_question(tmp_path: Path, images: str) -> None:
    (sample,) = samples(SlakeSource([slake(tmp_path / "s", images, train=[SLAKE])]))
    assert (sample.prompt, sample.target, sample.language) == ("What modality is used to take this image?", "MRI", "en")
    assert (sample.modality, sample.modality_evidence) == ("mri", "data set: MRI")
    assert (sample.organ, sample.question_type, sample.answer_type) == ("brain tissue", "Modality", "open")
    assert (sample.id, sample.group) == ("xmlab1/train-0/-/vqa/0", "xmlab1")
    assert (sample.file_name, sample.image.name) == ("xmlab1/source.jpg", "source.jpg")
    assert sample.image.data == picture(0, "JPEG")
    assert (sample.license, sample.official_split) == ("CC-BY-4.0", "train")


def test_rights(tmp_path: Path) -> None:
    """The set's own license cannot cover the images of other sets: whoever uses them must have asked for it."""
    (sample,) = samples(SlakeSource([slake(tmp_path / "s", train=[SLAKE])]))
    assert (sample.third_party, sample.commercial_use) == (True, "unknown")
    assert of_sample(sample.license, sample.license_scope, sample.third_party).endswith("AND unknown")
    with pytest.raises(InputError, match=r"license unknown \(1\); the policy .* --license any"):
        prepare(SlakeSource([tmp_path / "s"]), tmp_path / "out", Settings(), workers=1)
    stated = prepare(SlakeSource([tmp_path / "s"]), tmp_path / "out", Settings(license="CC-BY-4.0"), workers=1)
    assert stated.manifest["counts"]["samples"] == 1


def test_a_folder_comes_before_the_archive(tmp_path: Path) -> None:
    folder = slake(tmp_path / "s", "zip", train=[SLAKE])
    (folder / "imgs" / "xmlab1").mkdir(parents=True)
    (folder / "imgs" / "xmlab1" / "source.jpg").write_bytes(picture(77))
    (sample,) = samples(SlakeSource([folder]))
    assert sample.image.data == picture(77)


def test_languages(tmp_path: Path) -> None:
    rows = [SLAKE, ZH, {**SLAKE, "qid": 2, "q_lang": None}, {**SLAKE, "qid": 3, "q_lang": "xx"}]
    found = samples(SlakeSource([slake(tmp_path / "s", train=rows)]))
    assert [s.language for s in found] == ["en", "zh", "en", None]
    assert found[1].prompt == "图片中包含肝脏吗？"


@pytest.mark.parametrize("name", ["validate", "validation"])
def test_both_names_of_the_validation_split(tmp_path: Path, name: str) -> None:
    """The Hub calls validation.json what the authors' archive calls validate.json; the ids are the same."""
    (sample,) = samples(SlakeSource([slake(tmp_path / "s", **{name: [SLAKE]})]))
    assert (sample.id, sample.official_split) == ("xmlab1/validation-0/-/vqa/0", "validation")


def test_a_split_under_both_names_is_read_once(tmp_path: Path) -> None:
    folder = slake(tmp_path / "s", train=[SLAKE], validate=[ZH], validation=[ZH], test=[SLAKE])
    found = samples(SlakeSource([folder]))
    assert sorted(s.official_split or "" for s in found) == ["test", "train", "validation"]
    (folder / "validation.json").write_text(json.dumps([ZH, SLAKE]))
    with pytest.raises(InputError, match=r"validate\.json and validation\.json, .* differ; remove one"):
        SlakeSource([folder]).units()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"answer": ""}, "malformed question"),
        ({"img_name": "xmlab9/source.jpg"}, "no image file"),
        ({"img_name": "../s/imgs/xmlab1/source.jpg"}, "unsafe image name"),
        ({"img_name": None}, "malformed question"),
        ({"img_name": "xmlab1"}, "no image file"),
    ],
)
@pytest.mark.parametrize("images", ["folder", "zip"])
def test_bad_rows_are_counted(tmp_path: Path, images: str, change: dict[str, Any], reason: str) -> None:
    bad, good = read(SlakeSource([slake(tmp_path / "s", images, test=[{**SLAKE, **change}, SLAKE])]))
    assert isinstance(bad, Reject)
    assert (bad.where, bad.reason) == ("test.json row 0", reason)
    assert isinstance(good, Sample)


def test_names_as_windows_writes_them(tmp_path: Path) -> None:
    rows = [{**SLAKE, "img_name": "xmlab2\\source.jpg"}]
    for images in ("folder", "zip"):
        (sample,) = samples(SlakeSource([slake(tmp_path / images, images, train=rows)]))
        assert (sample.group, sample.file_name) == ("xmlab2", "xmlab2/source.jpg")
        assert sample.image.data == picture(1, "JPEG")


def test_a_broken_archive_loses_no_record_uncounted(tmp_path: Path) -> None:
    folder = slake(tmp_path / "s", "zip", train=[SLAKE, ZH])
    whole = (folder / "imgs.zip").read_bytes()
    (folder / "imgs.zip").write_bytes(whole[: len(whole) // 2])
    assert [bad.reason for bad in rejects(SlakeSource([folder]))] == ["archive cannot be read"] * 2


def test_parquet_with_all_fields(tmp_path: Path) -> None:
    """As OctoMed/SLAKE: every field but the image's name."""
    rows = [{**{k: v for k, v in row.items() if k != "img_name"}, "image": cell(4)} for row in (SLAKE, ZH)]
    hub(tmp_path / "data" / "test-00000-of-00001.parquet", rows)
    one, two = samples(SlakeSource([tmp_path]))
    assert (one.group, one.modality, one.organ, one.official_split) == ("xmlab1", "mri", "brain tissue", "test")
    assert (one.language, two.language) == ("en", "zh")
    assert one.id != two.id


def test_parquet_with_three_fields(tmp_path: Path) -> None:
    """As mdwiratathya/SLAKE-vqa-english: image, question and answer, in shards."""
    for shard in (0, 1):
        row = {"image": cell(shard), "question": "Is it healthy?", "answer": "No"}
        hub(tmp_path / "data" / f"train-0000{shard}-of-00002.parquet", [row, row, row])
    hub(tmp_path / "data" / "validation-00000-of-00001.parquet", [row])
    found = samples(SlakeSource([tmp_path]))
    assert len({s.id for s in found}) == 7
    assert collections.Counter(s.official_split for s in found) == {"train": 6, "validation": 1}
    assert len({s.group for s in found}) == 2
    assert {(s.language, s.answer_type, s.modality) for s in found} == {("en", None, None)}


def test_parquet_as_the_hub_converts_json(tmp_path: Path) -> None:
    """refs/convert/parquet: default/SPLIT/0000.parquet with names instead of pictures."""
    slake(tmp_path, "zip")
    for split in ("train", "test"):
        hub(tmp_path / "default" / split / "0000.parquet", [SLAKE])
    found = samples(SlakeSource([tmp_path]))
    assert {(s.official_split, s.group) for s in found} == {("train", "xmlab1"), ("test", "xmlab1")}
    assert len({s.id for s in found}) == 2


def test_foreign_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds neither train\.json") as caught:
        SlakeSource([tmp_path]).units()
    assert "imgs.zip" in str(caught.value)


def test_other_images_are_another_input(tmp_path: Path) -> None:
    folder = slake(tmp_path / "s", "zip", train=[SLAKE])
    before = SlakeSource([folder]).describe()
    assert SlakeSource([folder]).describe() == before
    zipped(folder / "imgs.zip", {"imgs/xmlab1/source.jpg": picture(9)})
    assert SlakeSource([folder]).describe() != before


def test_end_to_end(tmp_path: Path) -> None:
    folder = slake(tmp_path / "s", "zip", train=[SLAKE, ZH], validation=[{**SLAKE, "img_name": "xmlab2/source.jpg"}])
    prepare(SlakeSource([folder]), tmp_path / "out", ANY, workers=1)
    rows = loaded(tmp_path / "out", tmp_path / "cache")
    assert [(row["language"], row["prompt"], row["target"]) for row in rows[:2]] == [
        ("en", SLAKE["question"], "MRI"),
        ("zh", ZH["question"], "是"),
    ]
    assert rows[2]["official_split"] == "validation"
    assert rows[2]["image"].size == (16, 16)


@pytest.fixture(scope="module")
def real(realdata: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real questions, and for each of their images a tiny one of noise under its name."""
    folder = tmp_path_factory.mktemp("slake")
    names = set()
    for split in ("train", "validate", "test"):
        (folder / f"{split}.json").symlink_to(realdata / "slake" / f"{split}.json")
        names |= {row["img_name"] for row in json.loads((realdata / "slake" / f"{split}.json").read_text())}
    assert len(names) == 642
    zipped(folder / "imgs.zip", {f"imgs/{name}": picture(n, "PNG", 9) for n, name in enumerate(sorted(names))})
    return folder


@pytest.mark.realdata
def test_real_questions(real: Path, tmp_path: Path) -> None:
    done = prepare(SlakeSource([real]), tmp_path / "out", ANY, workers=1)
    # One question of train, qid 1622, has no answer.
    assert done.manifest["drops"] == {"malformed question": 1}
    assert done.manifest["counts"]["samples"] == 9835 + 2099 + 2094 - 1
    files = sorted((tmp_path / "out" / "data").iterdir())
    tables = [pq.read_table(path, columns=["official_split", "language"]) for path in files]
    rows = [row for table in tables for row in table.to_pylist()]
    assert collections.Counter(row["official_split"] for row in rows) == {
        "train": 9834,
        "validation": 2099,
        "test": 2094,
    }
    raw = [row for name in ("train", "validate", "test") for row in json.loads((real / f"{name}.json").read_text())]
    expected = collections.Counter(row["q_lang"] for row in raw if row["answer"])
    assert collections.Counter(row["language"] for row in rows) == expected
    leak = done.manifest["leakage"]["official"]
    assert {pair: counts["images"] for pair, counts in leak.items()} == {
        "train/test": 142,
        "train/validation": 130,
        "validation/test": 26,
    }
    of = {
        name: {row["img_name"] for row in json.loads((real / f"{name}.json").read_text())}
        for name in ("train", "validate", "test")
    }
    assert leak["train/test"]["of_images"] == len(of["test"])
    assert sorted(len(of[a] & of[b]) for a, b in itertools.combinations(of, 2)) == [26, 130, 142]
    assert not any(counts["images"] for counts in done.manifest["leakage"]["made"].values())


@pytest.mark.realdata
def test_absent_images_are_counted_with_what_to_download(
    realdata: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError) as caught:
        prepare(SlakeSource([realdata / "slake"]), tmp_path / "out", Settings(), workers=1)
    message = str(caught.value)
    assert "no image file (14027)" in message
    assert "imgs.zip" in message
    assert "\n" not in message
    assert run(["prepare", "slake", "--input", str(realdata / "slake"), "--out", str(tmp_path / "o")]) == 3
    printed = capsys.readouterr().err
    assert "14027" in printed.replace(",", "")
    assert printed.count("medvlm: error") == 1
