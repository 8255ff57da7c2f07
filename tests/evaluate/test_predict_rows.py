"""Predictions: each row once whatever happens, by its own picture or another's, told with what is known of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from predict_rows_kit import Rows, predicted, recipe_of

from medvlm.errors import InputError
from medvlm.evaluate import predict, resume
from medvlm.evaluate.predict import Predictor, row_of
from medvlm.evaluate.shown import Pictures


@pytest.fixture(scope="module")
def tiny() -> Predictor:
    return Predictor(predict.load_plain(recipe_of()), recipe_of())


class Sees:
    """Answers with the color it is shown."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def answers(self, images: Any, prefixes: Any) -> list[str]:
        self.asked.append(list(prefixes))
        return [str(image.getpixel((0, 0))) for image in images]


def test_killed_and_gone_on_with_it_is_the_same_file(tmp_path: Path, tiny: Predictor) -> None:
    path = tmp_path / "eval" / "predictions.jsonl"
    partial = path.with_name(".predictions.jsonl.partial")
    script = Path(__file__).with_name("predict_rows_kit.py")
    process = subprocess.Popen([sys.executable, str(script), str(path)], stdout=subprocess.PIPE)
    deadline = time.monotonic() + 300
    while not partial.is_file() or partial.read_bytes().count(b"\n") < 12:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(InputError, match="another process is writing predictions there"):
        predicted(Rows(60), Sees(), path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = partial.read_bytes()
    assert 12 <= before.count(b"\n") < 60
    assert not path.exists()
    rows = predicted(Rows(60), tiny, path)
    again = tmp_path / "whole.jsonl"
    assert predicted(Rows(60), tiny, again) == rows
    assert path.read_bytes() == again.read_bytes()
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == [f"r{n}" for n in range(60)]
    # What was synced before the kill was not made again: the lines stand in the file as they stood.
    assert set(before.splitlines()[:-1]) <= set(path.read_bytes().splitlines())
    assert not partial.exists()


def test_long_prompts_first_by_their_tokens(tiny: Predictor, tmp_path: Path) -> None:
    class Counting(Sees):
        lengths = staticmethod(tiny.lengths)

    model = Counting()
    predicted(Rows(20), model, tmp_path / "p.jsonl")
    counted = [len(tiny.loaded.processor.tokenizer(text)["input_ids"]) for batch in model.asked for text in batch]
    assert counted == sorted(counted, reverse=True)
    assert len(set(counted)) == 3


def test_answers_do_not_depend_on_the_batch(tiny: Predictor, tmp_path: Path) -> None:
    many = predicted(Rows(9), tiny, tmp_path / "a.jsonl", recipe_of(batch_size=9))
    single = predicted(Rows(9), tiny, tmp_path / "b.jsonl", recipe_of(batch_size=1))
    assert many == single


@settings(max_examples=40, deadline=None)
@given(count=st.integers(2, 30), groups=st.integers(2, 30), seed=st.integers(0, 5), each=st.booleans())
def test_nobody_is_shown_the_own_picture(count: int, groups: int, seed: int, each: bool) -> None:
    """Nor one of the own group: a patient's other pictures look alike, even where each row has its own."""
    rows = Rows(count, min(count, groups), count if each else None)
    pictures = Pictures(rows, "shuffled", seed)  # type: ignore[arg-type]
    for place in range(count):
        shown = pictures.of(place)
        other = int(str(shown.of)[1:])
        assert shown.image == rows.image(other) != rows.image(place)
        assert rows.text(other)["group"] != rows.text(place)["group"]
    assert pictures.alone == []
    again = Pictures(rows, "shuffled", seed)  # type: ignore[arg-type]
    assert [again.of(place).of for place in reversed(range(count))] == [
        pictures.of(place).of for place in reversed(range(count))
    ]


def test_most_pictures_are_shown_once() -> None:
    """Where every row has a picture of its own, the shuffle is a permutation."""
    pictures = Pictures(Rows(40, 40), "shuffled", 3)  # type: ignore[arg-type]
    assert sorted(str(pictures.of(place).of) for place in range(40)) == sorted(f"r{n}" for n in range(40))
    assert [Pictures(Rows(40, 40), "shuffled", 4).of(n).of for n in range(40)] != [  # type: ignore[arg-type]
        pictures.of(n).of for n in range(40)
    ]


def test_within_one_group_another_picture_serves() -> None:
    class OneGroup(Rows):
        def text(self, place: int) -> dict[str, Any]:
            return {**super().text(place), "group": "g"}

    pictures = Pictures(OneGroup(6, 3), "shuffled", 0)  # type: ignore[arg-type]
    assert all(pictures.of(place).image != OneGroup(6, 3).image(place) for place in range(6))


def test_rows_without_another_picture_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = predicted(Rows(4, 1), Sees(), tmp_path / "p.jsonl", picture="shuffled")
    assert [row["picture_of"] for row in rows] == ["r0", "r1", "r2", "r3"]
    assert "warning: 4 rows (" in capsys.readouterr().err


def test_pictures_are_part_of_what_a_file_was_made_by(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    own = predicted(Rows(6), Sees(), path)
    shuffled = predicted(Rows(6), Sees(), path, picture="shuffled", seed=1)
    assert all(a["prediction"] != b["prediction"] for a, b in zip(own, shuffled, strict=True))
    blank = predicted(Rows(6), Sees(), path, picture="blank")
    assert {row["prediction"] for row in blank} == {"(127, 127, 127)"}
    model = Sees()
    assert predicted(Rows(6), model, path, picture="blank") == blank
    assert model.asked == []
    predicted(Rows(6), model, path, picture="shuffled", seed=2)
    assert model.asked != []


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("facts", {"recipe_hash": "another"}),
        ("facts", {"finished": "later"}),
        ("data", [{"fingerprint": "e"}]),
        ("eval", {"max_new_tokens": 7}),
        ("eval", {"num_beams": 2}),
        ("row", "base"),
        ("engine", "vllm"),
    ],
)
def test_predictions_are_known_by_all_that_they_depend_on(tmp_path: Path, part: str, change: Any) -> None:
    def made(**parts: Any) -> str:
        run = SimpleNamespace(facts=lambda: {"recipe_hash": "r", "finished": "t"} | parts.get("facts", {}))
        run.model = tmp_path
        mixture = SimpleNamespace(facts=lambda: parts.get("data", [{"fingerprint": "d"}]))
        words = [parts.get("row", "model"), parts.get("engine", "transformers")]
        return predict.fingerprint(run, recipe_of(**parts.get("eval", {})), mixture, *words)  # type: ignore[arg-type]

    assert made(**{part: change}) != made() == made()


def test_a_smaller_evaluation_shows_the_same_pictures(tmp_path: Path) -> None:
    whole = {row["id"]: row for row in predicted(Rows(12), Sees(), tmp_path / "a.jsonl", picture="shuffled")}
    few = Rows(12)
    pictures = Pictures(few, "shuffled", 0)  # type: ignore[arg-type]
    assert [pictures.of(place).of for place in (7, 2)] == [whole[f"r{place}"]["picture_of"] for place in (7, 2)]


def test_a_damaged_line_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    rows = predicted(Rows(6), Sees(), path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b"\xff\xfe{\n", *lines[2:]]))
    model = Sees()
    assert predicted(Rows(6), model, path) == rows
    assert sum(map(len, model.asked)) == 1


def test_the_lock_ends_with_its_block(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    with resume.held(path), pytest.raises(InputError, match="wait for it"), resume.held(path):
        pass
    with resume.held(path):
        pass


def test_a_row_tells_what_its_data_set_tells() -> None:
    text = {"id": 3, "target": "yes", "task": "vqa", "prompt": "?", "group": "g", "modality": "CT", "organ": None}
    text |= {"choices": ["a", "b"], "answer_type": "closed", "question_type": "", "language": "en", "source": "slake"}
    assert row_of(text) == {
        "id": "3",
        "prediction": "",
        "references": ["yes"],
        "group": "g",
        "task": "vqa",
        "prompt": "?",
        "finding": None,
        "modality": "CT",
        "answer_type": "closed",
        "choices": ["a", "b"],
        "source": "slake",
        "language": "en",
    }


def test_the_blank_picture_has_no_structure() -> None:
    shown = Pictures(Rows(2), "blank", 0).of(0)  # type: ignore[arg-type]
    assert isinstance(shown.image, Image.Image)
    assert shown.image.getextrema() == ((127, 127),) * 3
    assert shown.of is None
