"""Examples and rationales within the budget of the prefix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvlm.errors import InputError, UsageError
from medvlm.evaluate import prompting
from medvlm.evaluate.prompting import Composer, Question, Shot, read_shots
from medvlm.recipe.models import PromptsPart

PROMPTS = PromptsPart()


def words(text: str) -> int:
    return len(text.split())


def composer(budget: int = 1000, **of: Any) -> Composer:
    return Composer(Question(**{"task": "vqa", "prompt": "is it big?", **of}), PROMPTS, budget, words)


def test_examples_are_written_as_in_training() -> None:
    shots = (Shot("is it small?", "yes"), Shot("where is it?", "left"))
    made = composer(shots=shots, language="de").plain()
    assert made.prefix == "answer de is it small?\nyes\nanswer de where is it?\nleft\nanswer de is it big?"
    assert (made.shots, made.dropped) == (2, 0)


@given(st.lists(st.integers(1, 9), max_size=8), st.integers(5, 60))
def test_the_question_stays_whole_and_no_room_is_wasted(lengths: list[int], budget: int) -> None:
    shots = tuple(Shot("q" + " x" * n, f"answer{i}") for i, n in enumerate(lengths))
    made = composer(budget, shots=shots).plain()
    assert words(made.prefix) <= budget
    assert made.prefix.split("\n")[-1] == "answer en is it big?"
    # The last examples are those that stay.
    kept = [f"answer{i}" for i in range(made.dropped, len(shots))]
    assert [line for line in made.prefix.split("\n") if line in {shot.answer for shot in shots}] == kept
    if made.dropped:
        extra = f"answer en {shots[made.dropped - 1].prompt}\n{shots[made.dropped - 1].answer}"
        assert words(made.prefix) + words(extra) > budget


def test_a_question_too_long_is_refused_not_cut() -> None:
    with pytest.raises(UsageError, match=r"takes 5 tokens .* at most 4; .*--max-prefix-tokens"):
        composer(4).plain()


def test_two_passes() -> None:
    asked = composer(rationale=True, rationale_wording="why: {prompt}", answer_wording="{prompt} since {rationale}")
    assert asked.first_pass().prefix == "answer en why: is it big?"
    made, cut = asked.second_pass("it fills {prompt} the lung")
    # What the model said is text, whatever braces it holds.
    assert made.prefix == "answer en is it big? since it fills {prompt} the lung"
    assert not cut


def test_a_long_rationale_loses_its_end_before_the_question_loses_a_word() -> None:
    made, cut = composer(9, answer_wording="{rationale} so {prompt}").second_pass("a b c d e f g h")
    assert made.prefix == "answer en a b c so is it big?"
    assert cut


def test_examples_give_way_to_the_rationale() -> None:
    made, _ = composer(12, shots=(Shot("one?", "yes"), Shot("two?", "no"))).second_pass("a b")
    assert made.prefix == "answer en two?\nno\nanswer en is it big? Reasons: a b"
    assert made.dropped == 1


def test_an_impression_is_asked_as_a_question_without_examples() -> None:
    made = composer(task="report", prompt="", shots=(Shot("a", "b"),)).impression("what is the impression?")
    assert made == "answer en what is the impression?"


@pytest.mark.parametrize(
    ("of", "said"),
    [
        ({"task": "vqa", "prompt": " "}, "--task vqa needs the question"),
        ({"task": "caption", "prompt": "why?"}, r'--prompt: the caption template .* is "caption \{language\}"'),
        ({"task": "caption", "prompt": "", "rationale": True}, "--rationale: the caption template"),
        ({"rationale_wording": "why"}, r'--rationale-prompt "why": expected \{prompt\}'),
        ({"answer_wording": "x {prompt}"}, r"--answer-prompt .* \{rationale\}"),
    ],
)
def test_what_would_be_lost_is_refused(of: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        prompting.check(Question(**{"task": "vqa", "prompt": "is it big?", **of}), PROMPTS)


def test_examples_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "shots.jsonl"
    rows = [{"prompt": "a", "answer": "b", "image": "x.png"}, {"prompt": "", "answer": "c"}]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    assert read_shots(path) == (Shot("a", "b", "x.png"), Shot("", "c"))


@pytest.mark.parametrize(
    "line", ["[]", "{", '{"prompt": "a"}', '{"prompt": "a", "answer": " "}', '{"prompt": 1, "answer": "b"}']
)
def test_a_wrong_example_is_named_by_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "shots.jsonl"
    path.write_text('{"prompt": "a", "answer": "b"}\n' + line, encoding="utf-8")
    with pytest.raises(InputError, match=r"shots\.jsonl:2: expected"):
        read_shots(path)


def test_no_examples(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    for name in ("empty", "missing"):
        with pytest.raises(InputError, match=name):
            read_shots(tmp_path / name)
