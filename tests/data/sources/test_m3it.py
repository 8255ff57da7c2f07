"""M3IT: lines of JSON with pictures in them, as text or list of texts, and wordings that lie beside."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts_captions import jpeg, m3it

from medvlm.data.sample import Reject, Sample
from medvlm.data.sources import records
from medvlm.data.sources.m3it import M3itSource
from medvlm.errors import InputError
from medvlm.io import sha256_bytes

PICTURE = base64.b64encode(jpeg(1)).decode()
RECORD: dict[str, Any] = {
    "instruction": "Answer.",
    "inputs": "What is it?",
    "outputs": "A sign.",
    "image_base64_str": [PICTURE],
}


def read(folder: Path) -> list[Sample | Reject]:
    source = M3itSource([folder])
    return [item for unit in source.units() for item in source.read(unit)]


def samples(folder: Path) -> list[Sample]:
    found = read(folder)
    assert all(isinstance(item, Sample) for item in found), found
    return [item for item in found if isinstance(item, Sample)]


def one(folder: Path, *lines: object, wordings: object = None) -> Path:
    here = folder / "data" / "vqa" / "okvqa"
    here.mkdir(parents=True)
    (here / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if wordings is not None:
        (here / "instructions.json").write_text(json.dumps(wordings))
    return folder


@pytest.mark.parametrize("part", ["", "data", "data/vqa", "data/vqa/okvqa"])
def test_the_whole_and_its_parts(tmp_path: Path, part: str) -> None:
    found = samples(m3it(tmp_path / "m", 24) / part)
    assert len(found) == (24 if part in ("", "data") else 12)
    by_text = {sample.target: sample for sample in found}
    for n in range(24) if len(found) == 24 else range(1, 24, 2):
        sample = by_text[f"A sign that says {n}."]
        pictures = [sample.image, *sample.more_images]
        assert [image.data for image in pictures] == ([jpeg(n)] if n % 2 == 0 else [jpeg(n), jpeg(n + 128)])
        assert sample.group == sha256_bytes(jpeg(n))[:16]
        assert (sample.task, sample.question_type) == (
            ("caption", "captioning/textcap") if n % 2 == 0 else ("vqa", "vqa/okvqa")
        )
        assert sample.official_split == ("train", "validation", "test")[n // 2 % 3]
        assert sample.file_name.endswith("_0.jpeg")


def test_the_prompt_is_instruction_and_inputs(tmp_path: Path) -> None:
    (sample,) = samples(one(tmp_path, RECORD))
    assert sample.prompt == "Answer.\nWhat is it?"


def test_a_wording_is_chosen_for_good(tmp_path: Path) -> None:
    wordings = [f"Wording {n}." for n in range(5)]
    lines = [{**RECORD, "instruction": "", "inputs": f"Question {n}?"} for n in range(40)]
    first = [s.prompt for s in samples(one(tmp_path / "a", *lines, wordings=wordings))]
    again = [s.prompt for s in samples(one(tmp_path / "b", *lines, wordings=wordings))]
    assert first == again
    assert {prompt.split("\n")[0] for prompt in first} == set(wordings)
    assert [prompt.split("\n")[1] for prompt in first] == [f"Question {n}?" for n in range(40)]


@pytest.mark.parametrize("wordings", [{"vqa": ["Look."]}, ["Look."]])
def test_wordings_as_a_list_or_by_name(tmp_path: Path, wordings: object) -> None:
    (sample,) = samples(one(tmp_path, {**RECORD, "instruction": None}, wordings=wordings))
    assert sample.prompt == "Look.\nWhat is it?"


@pytest.mark.parametrize("wordings", [[], "", {}, [1], ["x", ["y"]], 7])
def test_other_wordings_are_named(tmp_path: Path, wordings: object) -> None:
    with pytest.raises(InputError, match=r"instructions\.json: not a list of instructions"):
        read(one(tmp_path, RECORD, wordings=wordings))


def test_line_breaks_of_a_dialog_stay(tmp_path: Path) -> None:
    (sample,) = samples(one(tmp_path, {**RECORD, "outputs": " a\nb \n"}))
    assert sample.target == "a\nb"


@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        ({"outputs": ""}, "malformed record", "no outputs"),
        ({"outputs": ["x"]}, "malformed record", "outputs is no text"),
        ({"outputs": "\ud800"}, "malformed record", "outputs is no text"),
        ({"inputs": {}}, "malformed record", "inputs is no text"),
        ({"inputs": "x" * (records.FIELD_CHARS + 1)}, "malformed record", "inputs is no text"),
        ({"inputs": "", "instruction": ""}, "malformed record", "neither instruction nor inputs"),
        ({"image_base64_str": []}, "no image file", "the record holds no picture"),
        ({"image_base64_str": ""}, "no image file", "the record holds no picture"),
        ({"image_base64_str": None}, "no image file", "the record holds no picture"),
        ({"image_base64_str": [7]}, "image cannot be read", "picture 0 is no text of base64"),
        ({"image_base64_str": [PICTURE, "%%"]}, "image cannot be read", "picture 1: not base64"),
        ({"image_base64_str": "aGVsbG8="}, "image cannot be read", "picture 0: not a picture that can be read"),
        ({"image_base64_str": [PICTURE] * 65}, "too many images", "65 in one record"),
    ],
)
def test_bad_records_are_counted(tmp_path: Path, change: dict[str, Any], reason: str, detail: str) -> None:
    bad, good = read(one(tmp_path, {**RECORD, **change}, RECORD))
    assert isinstance(bad, Reject)
    assert isinstance(good, Sample)
    assert (bad.where, bad.reason) == ("data/vqa/okvqa/train.jsonl byte 0", reason)
    assert bad.detail.startswith(detail)


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.just(PICTURE)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=5,
)


@given(st.lists(st.dictionaries(st.sampled_from(sorted(RECORD)), VALUES), max_size=4))
def test_whatever_a_record_holds_it_is_a_sample_or_a_reason(
    tmp_path_factory: pytest.TempPathFactory, changes: list[dict[str, Any]]
) -> None:
    folder = one(tmp_path_factory.mktemp("m3it"), *({**RECORD, **change} for change in changes))
    found = read(folder)
    assert len(found) == len(changes)
    for item in found:
        if isinstance(item, Sample):
            assert item.prompt
            assert item.target
            item.target.encode()


def test_no_license_is_made_up(tmp_path: Path) -> None:
    (sample,) = samples(one(tmp_path, RECORD))
    assert (sample.license, sample.license_scope, sample.commercial_use) == (None, None, "unknown")
    assert "okvqa keeps its own" in (sample.license_evidence or "")


def test_records_are_read_in_slices_of_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "LINES_BYTES", 1500)
    folder = m3it(tmp_path / "m", 40)
    source = M3itSource([folder])
    assert len(source.units()) > 20
    assert sorted(sample.target for sample in samples(folder)) == sorted(f"A sign that says {n}." for n in range(40))
    assert len({sample.id for sample in samples(folder)}) == 40


def test_another_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no data/<task>/<set>/train\.jsonl"):
        read(tmp_path)
