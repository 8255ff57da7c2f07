"""Planted and real leaks: what is found, what is left alone, and what a second look costs."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvlm.cli.common import progress
from medvlm.data import dedup
from medvlm.data.mixture import Mixture
from medvlm.data.prepare import Settings, prepare
from medvlm.data.sample import Image, Sample
from medvlm.data.schema import SCHEMA, arrays
from medvlm.data.sources.vqa_rad import VqaRadSource
from medvlm.errors import InputError
from medvlm.evaluate import leakage, near_images
from medvlm.evaluate.leakage import TrainData, find
from medvlm.io import sha256_bytes, write_json
from medvlm.licenses import exported
from medvlm.models.locate import weights_fingerprint
from medvlm.recipe.models import DataPart

LONG = "no acute cardiopulmonary abnormality is seen in either lung today"


def scene(seed: int, size: tuple[int, int] = (320, 240)) -> PIL.Image.Image:
    """Return a picture of soft gray blobs: another one for each seed."""
    small = np.random.default_rng(seed).uniform(0, 255, (9, 12)).astype(np.uint8)
    return PIL.Image.fromarray(small).resize(size, PIL.Image.Resampling.BICUBIC)


def encoded(picture: PIL.Image.Image, kind: str = "PNG", **options: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def row(name: str, picture: bytes, target: str, **changes: Any) -> Sample:
    fields = {"id": name, "task": "report", "prompt": "", "target": target, "source": "x", "group": name}
    return Sample(image=Image(picture, "x"), sha256=sha256_bytes(picture), **fields | changes)


def folder(path: Path, split: str, samples: Sequence[Sample]) -> Path:
    (path / "data").mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_arrays(arrays(samples), schema=SCHEMA)
    pq.write_table(table, path / "data" / f"{split}-00000-of-00001.parquet")
    write_json(path / "manifest.json", {"fingerprint": path.name})
    return path


def look(train: Sequence[Any], test: Path, **options: Any) -> leakage.Leakage:
    mixture = Mixture([DataPart(path=str(test))], "test", 0)
    with progress("leakage", True) as show:
        return find(train, mixture, range(len(mixture)), show, **options)


def cropped(picture: PIL.Image.Image) -> PIL.Image.Image:
    width, height = picture.size
    return picture.crop((width // 50, height // 50, width - width // 50, height - height // 50))


COPIES: dict[str, Callable[[PIL.Image.Image], bytes]] = {
    "jpeg": lambda picture: encoded(picture, "JPEG", quality=60),
    "half": lambda picture: encoded(picture.resize((160, 120))),
    "cropped": lambda picture: encoded(cropped(picture)),
    "brighter": lambda picture: encoded(picture.point(lambda value: min(255, value * 1.1 + 10))),
}


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Path:
    samples = [row(f"t{n}", encoded(scene(n)), f"report number {n}") for n in range(12)]
    samples += [
        row("t12", encoded(scene(12)), LONG),
        row("t13", encoded(scene(13)), "right upper lobe", task="vqa", prompt="Where is the nodule?"),
        row("t14", encoded(scene(14)), "yes", task="vqa", prompt="Is there a nodule?"),
        row("t15", encoded(scene(15)), "one", group="patient 7"),
    ]
    return folder(tmp_path_factory.mktemp("data") / "train", "train", samples)


def test_planted_copies_are_found_and_nothing_else(train: Path, tmp_path: Path) -> None:
    samples = [row("same", encoded(scene(0)), "a"), row("mirrored", encoded(scene(6).transpose(0)), "b")]
    samples += [row(name, copy(scene(n)), "c") for n, (name, copy) in enumerate(COPIES.items(), start=1)]
    samples += [row(f"other{n}", encoded(scene(100 + n)), "d") for n in range(20)]
    samples += [row("blank", encoded(PIL.Image.new("L", (320, 240), 127)), "e"), row("damaged", b"no picture", "f")]
    found = look([train], folder(tmp_path / "test", "test", samples))
    assert found.leaked == {"same": ["same image"], **{name: ["near image"] for name in COPIES}}
    told = found.as_dict()
    assert (told["n"], told["train_rows"], told["leaked"]) == (28, 16, 5)
    assert [told[key] for key in leakage.COUNTS] == [1, 4, 0, 0]
    assert found.parts == [{"path": str(train), "rows": 16, **dict(zip(leakage.COUNTS, [1, 4, 0, 0], strict=True))}]


def test_a_data_set_without_training_rows_is_said(train: Path, tmp_path: Path) -> None:
    test = folder(tmp_path / "test", "test", [row("a", encoded(scene(0)), "x")])
    found = look([TrainData(str(train), tasks=["caption"]), test], test)
    assert found.train_rows == 0
    assert found.missing == [
        f"{train} has no rows of caption in its train split: nothing was compared with it",
        f"{test} has no rows in its train split: nothing was compared with it",
    ]
    assert look([train], test).missing == []


def test_texts_and_groups(train: Path, tmp_path: Path) -> None:
    picture = encoded(scene(500))
    question = {"task": "vqa", "prompt": "where is the nodule"}
    samples = [
        row("long", picture, LONG.upper() + "."),
        row("pair", picture, "Right upper lobe.", **question),
        row("elsewhere", picture, "left upper lobe", **question),
        row("short", picture, "report number 3"),
        row("yes", picture, "yes", task="vqa", prompt="Is there a nodule?"),
        row("patient", picture, "two", group="patient 7"),
        row("namesake", picture, "two", group="patient 7", source="y"),
    ]
    test = folder(tmp_path / "test", "test", samples)
    assert look([train], test).leaked == {"long": ["same text"], "pair": ["same text"], "patient": ["same group"]}
    only = look([TrainData(str(train), tasks=["report"])], test)
    assert (only.leaked, only.train_rows) == ({"long": ["same text"], "patient": ["same group"]}, 14)


def test_a_text_that_is_said_of_many_is_no_leak(tmp_path: Path) -> None:
    common = "the heart is of normal size and both lungs are clear"
    samples = [row(f"t{n}", encoded(scene(n)), text) for n, text in enumerate([common, common, LONG, LONG])]
    one = folder(tmp_path / "one", "train", [*samples[:3], row("t5", encoded(scene(5)), LONG, group="t2")])
    two = folder(tmp_path / "two", "train", [row("t6", encoded(scene(6)), common)])
    test = folder(tmp_path / "test", "test", [row("a", encoded(scene(9)), common), row("b", encoded(scene(8)), LONG)])
    assert look([one], test).leaked == {"a": ["same text"], "b": ["same text"]}
    both = look([one, two], test)
    assert both.leaked == {"b": ["same text"]}
    assert [part["texts_same"] for part in both.parts] == [1, 0]
    assert (both.as_dict()["texts_same"], both.as_dict()["texts_common"]) == (1, 1)


def test_several_data_sets_and_reasons(train: Path, tmp_path: Path) -> None:
    other = folder(tmp_path / "other", "train", [row("o", encoded(scene(900)), LONG, group="g")])
    samples = [row("a", encoded(scene(900)), LONG, group="g"), row("b", encoded(scene(901)), "x")]
    found = look([train, other], folder(tmp_path / "test", "test", samples))
    assert found.leaked == {"a": ["same image", "same text", "same group"]}
    assert [part["rows"] for part in found.parts] == [16, 1]
    assert [part["texts_same"] for part in found.parts] == [1, 1]


def test_rows_without_the_hash_of_their_picture(tmp_path: Path) -> None:
    samples = [dataclasses.replace(row("t", encoded(scene(0)), "x"), sha256="")]
    bare = folder(tmp_path / "bare", "train", samples)
    assert look([bare], folder(tmp_path / "test", "test", [row("a", encoded(scene(0)), "y")])).count("same image") == 1


def test_all_pictures_that_are_shown_count_on_both_sides(tmp_path: Path) -> None:
    def views(*pictures: bytes) -> list[Image]:
        return [Image(picture, "x") for picture in pictures]

    jpeg = COPIES["jpeg"]
    trained = [
        row("t0", encoded(scene(0)), "x", more_images=views(encoded(scene(1)), encoded(scene(2)))),
        row("t3", encoded(scene(3)), "x"),
    ]
    asked = [
        row("first", encoded(scene(50)), "y", more_images=views(encoded(scene(0)))),
        row("second", encoded(scene(51)), "y", more_images=views(encoded(scene(52)), jpeg(scene(3)))),
        row("third", encoded(scene(2)), "y"),
        row("near", jpeg(scene(1)), "y"),
        row("none", encoded(scene(53)), "y", more_images=views(encoded(scene(54)))),
    ]
    train, test = folder(tmp_path / "a", "train", trained), folder(tmp_path / "b", "test", asked)
    cache = tmp_path / "leakage.json"

    def leaked(pictures: int | None, most: int) -> dict[str, list[str]]:
        return look([TrainData(str(train), pictures=pictures)], test, most=most, cache=cache).leaked

    assert leaked(1, 1) == {}
    assert leaked(1, 2) == {"first": ["same image"]}
    assert leaked(2, 1) == {"near": ["near image"]}
    everything = {"first": ["same image"], "second": ["near image"], "third": ["same image"], "near": ["near image"]}
    assert leaked(3, 3) == leaked(None, 9) == everything


def test_a_second_look_reads_no_picture(train: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test = folder(tmp_path / "test", "test", [row("a", COPIES["jpeg"](scene(1)), "x")])
    cache = tmp_path / "eval" / "leakage.json"
    first = look([train], test, cache=cache)
    with monkeypatch.context() as patch:
        patch.setattr(dedup, "mark", None)
        assert look([train], test, cache=cache) == first
        with pytest.raises(TypeError):
            look([TrainData(str(train), tasks=["report"])], test, cache=cache)
    cache.write_text("{")
    assert look([train], test, cache=cache) == first


def test_data_that_is_gone_or_has_changed_is_told(train: Path, tmp_path: Path) -> None:
    test = folder(tmp_path / "test", "test", [row("a", encoded(scene(0)), "x")])
    found = look([TrainData("gone"), TrainData(str(train), fingerprint="another")], test)
    assert (found.leaked, found.train_rows) == ({}, 0)
    assert "gone was trained on and is not there any more" in found.missing[0]
    assert "has changed since" in found.missing[1]


def test_a_damaged_shard(train: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(train, tmp_path / "broken"))
    next((broken / "data").glob("*")).write_bytes(b"PAR1")
    with pytest.raises(InputError, match="prepare again") as caught:
        look([broken], folder(tmp_path / "test", "test", [row("a", encoded(scene(0)), "x")]))
    assert "\n" not in str(caught.value)


def test_pictures_of_one_prepared_data_set_are_not_decoded_again(tmp_path: Path, monkeypatch: Any) -> None:
    path = folder(tmp_path / "both", "train", [row("t", encoded(scene(0)), "x")])
    folder(path, "test", [row("a", COPIES["jpeg"](scene(0)), "y")])
    assert look([path], path).count("near image") == 1
    write_json(path / "manifest.json", {"fingerprint": "both", "counts": {"near_duplicates": 0}})
    monkeypatch.setattr(dedup, "mark", None)
    assert look([path], path).leaked == {}


def test_near_images_within_the_split_that_was_trained_on_are_found(tmp_path: Path) -> None:
    """Preparing a data set keeps near images in one split, where a task that was not trained on may meet them."""
    asked = {"task": "vqa", "prompt": "where?"}
    samples = [row("asked", encoded(scene(0)), "left", **asked), row("told", COPIES["jpeg"](scene(0)), "x")]
    path = folder(tmp_path / "one", "train", samples)
    write_json(path / "manifest.json", {"fingerprint": "one", "counts": {"near_duplicates": 0}})
    mixture = Mixture([DataPart(path=str(path))], "train", 0)
    with progress("leakage", True) as show:
        found = find([TrainData(str(path), tasks=["vqa"])], mixture, range(2), show)
    assert found.leaked == {"asked": ["same image", "same group"], "told": ["near image"]}


def stage(name: str, start: str | None, facts: dict[str, Any], parents: dict[str, Any], tower: str = "") -> Any:
    model = SimpleNamespace(start=start, parts={"vision_tower": tower} if tower else {})
    parents[name] = SimpleNamespace(
        recipe=lambda: SimpleNamespace(model=model, prompts=SimpleNamespace(max_images=2)),
        facts=lambda: facts,
        path=Path(name),
    )
    return parents[name]


def test_training_data_of_earlier_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(name: str) -> Any:
        if name not in runs:
            raise InputError("gone")
        return runs[name]

    monkeypatch.setattr("medvlm.export.rights.open_run", opened)
    runs: dict[str, Any] = {}
    first, second = ({"path": f"data/{name}", "fingerprint": name, "tasks": None} for name in "ab")
    stage("one", "zero", {"data": [first]}, runs)
    two = stage("two", "one", {"data": [second, first]}, runs)
    parts = leakage.train_parts(two)
    assert parts == [TrainData("data/b", None, "b", 2), TrainData("data/a", None, "a", 2), TrainData("zero")]
    stage("zero", None, {"data": []}, runs)
    assert leakage.train_parts(two) == parts[:2]
    published = stage("published", None, {"kind": "baseline", "data": [first], "trained_on": ["data/c"]}, runs)
    assert leakage.train_parts(published) == [TrainData("data/c")]


def test_what_an_exported_tower_has_seen_leaks_too(tmp_path: Path) -> None:
    seen = folder(tmp_path / "data" / "seen", "train", [row("t", encoded(scene(0)), "one")])
    own = folder(tmp_path / "data" / "own", "train", [row("o", encoded(scene(1)), "two")])
    test = folder(tmp_path / "test", "test", [row("a", encoded(scene(0)), "x"), row("b", encoded(scene(2)), "y")])
    tower = tmp_path / "tower"
    tower.mkdir()
    (tower / "model.safetensors").write_bytes(b"weights")
    # An export names no folders of the machine that it was made on.
    told = [{"path": "seen", "fingerprint": "seen"}, {"path": "far", "fingerprint": "far", "tasks": ["vqa"]}]
    record = {"weights": weights_fingerprint(tower), "sha256": exported.digests(tower), "data": told, "max_images": 1}
    write_json(tower / "export.json", record)
    run = stage("git", None, {"data": [{"path": str(own), "fingerprint": "own"}]}, {}, str(tower))
    parts = leakage.train_parts(run)
    far = TrainData("far", ["vqa"], "far", 1)
    assert parts == [TrainData(str(own), None, "own", 2), TrainData(str(seen), None, "seen", 1), far]
    found = look(parts, test)
    assert found.leaked == {"a": ["same image"]}
    assert found.missing == ["far was trained on and is not there any more: it was not looked at"]
    # Other weights: nothing is known of what they have seen.
    (tower / "model.safetensors").write_bytes(b"others!")
    assert leakage.train_parts(run) == parts[:1]


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_near_places_against_all_pairs(seed: int) -> None:
    random = np.random.default_rng(seed)
    numbers = random.integers(0, 30, 12)
    marks = [dedup.mark(Image(encoded(scene(int(n), (64, 48))), "")) for n in numbers]
    ours, theirs = marks[:5], marks[5:]
    expected = [place for place in range(5) if numbers[place] in numbers[5:]]
    assert near_images.near_places(ours, theirs).tolist() == expected


def test_chunks_change_nothing(train: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [row(name, copy(scene(n)), "c") for n, (name, copy) in enumerate(COPIES.items(), start=1)]
    test = folder(tmp_path / "test", "test", samples)
    monkeypatch.setattr(near_images, "_CHUNK", 3)
    monkeypatch.setattr(near_images, "_WAITING", 0)
    assert list(look([train], test).leaked) == list(COPIES)


@pytest.mark.realdata
def test_the_official_split_of_vqa_rad_leaks_all_its_images(realdata: Path, tmp_path: Path) -> None:
    for name, kept in (("train", "trainset.json"), ("test", "testset.json")):
        inputs = tmp_path / f"input-{name}"
        inputs.mkdir()
        shutil.copy(realdata / "vqa_rad" / kept, inputs)
        (inputs / "images").symlink_to(realdata / "vqa_rad" / "images")
        ratios = (1.0, 0.0, 0.0) if name == "train" else (0.0, 0.0, 1.0)
        prepare(VqaRadSource([inputs]), tmp_path / name, Settings(ratios=ratios))
    found = look([tmp_path / "train"], tmp_path / "test")
    questions = json.loads((realdata / "vqa_rad" / "testset.json").read_text())
    assert found.n == len(questions) == 451
    assert found.count("same image") == found.count("same group") == len(found.leaked) == 451
    assert found.count("near image") == 0


@pytest.mark.slow
@pytest.mark.realdata
def test_real_radiographs_are_known_again_and_only_they(realdata: Path) -> None:
    """The published share of copies that dedup knows again holds here, and no picture is taken for another."""
    paths = sorted((realdata / "vqa_rad" / "images").glob("*.jpg"))
    pictures = [PIL.Image.open(path).convert("RGB") for path in paths]
    smaller = [picture.resize((picture.width // 2, picture.height // 2)) for picture in pictures]
    marks = [mark for mark in near_images.marked(path.read_bytes() for path in paths) if mark]
    copies = [mark for mark in near_images.marked(encoded(copy, "JPEG", quality=60) for copy in smaller) if mark]
    assert len(near_images.near_places(copies, marks)) >= 0.98 * len(copies) >= 0.95 * len(paths)
    assert len(near_images.near_places(marks[::2], marks[1::2])) == 0
