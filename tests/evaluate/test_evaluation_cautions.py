"""Each thing that limits what scores say has its sentence, and nothing else has."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from medvlm.evaluate.cautions import cautions, judged

FINE: dict[str, Any] = {
    "n": 400,
    "groups": 200,
    "tasks": ["caption"],
    "bootstrap": {"resamples": 1000},
    "rows": {"model": {"bleu_4": 0.2, "cider": 1.0}},
    "comparisons": {"constant": {"cider": {"difference": 0.5, "low": 0.2, "high": 0.8}}},
    "outputs": {"model": {"n": 400, "distinct": 300, "empty": 0, "mean_words": 11.0}},
    "references": {"n": 400, "distinct": 390, "mean_words": 10.0},
    "controls": {
        "n": 200,
        "kept_without_image": {"cider": 0.3},
        "visual_reliance": {"cider": {"difference": 0.4, "low": 0.1, "high": 0.7}},
    },
    "leakage": {
        "n": 400,
        "leaked": 0,
        "images_same": 5,
        "images_near": 0,
        "texts_same": 2,
        "groups_shared": 0,
        "missing": [],
    },
}


def changed(path: str, value: Any) -> dict[str, Any]:
    table = copy.deepcopy(FINE)
    *keys, last = path.split(".")
    part = table
    for key in keys:
        part = part[key]
    part[last] = value
    return table


def test_what_a_classifier_can_get_right_at_most_is_said() -> None:
    told = {"answers": 12, "n": 400, "known": 300, "share": 0.75}
    (said,) = cautions({**FINE, "vocabulary": told})
    assert "chooses from 12 answers" in said
    assert "300 of 400 samples have a reference among them: no more than 75% can be right" in said


def test_good_scores_are_said_nothing_against() -> None:
    assert cautions(FINE) == []


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("comparisons.constant.cider.low", -0.1, "does not clearly beat the best constant answer in CIDEr"),
        ("comparisons.constant.cider", {"difference": -0.5, "low": -0.8, "high": -0.2}, "scores lower than the best"),
        ("outputs.model.distinct", 1, "all 400 answers of the model are the same text"),
        ("outputs.model.distinct", 20, "20 distinct answers to 400 samples, whose references are 390"),
        (
            "outputs.model",
            {"n": 400, "distinct": 1, "empty": 400, "mean_words": 0.0},
            "all 400 answers of the model are empty",
        ),
        ("outputs.model.empty", 3, "3 of 400 answers of the model are empty"),
        ("outputs.model.mean_words", 4.0, "much shorter than the references: 4.0 words against 10.0"),
        ("outputs.model.mean_words", 40.0, "much longer"),
        ("controls.kept_without_image.cider", 0.81, "keeps 81% of its CIDEr"),
        ("controls.visual_reliance.cider.low", -0.1, "not clearly better than another sample's in CIDEr: "),
        (
            "controls.visual_reliance.cider",
            {"difference": -0.889, "low": -1.0, "high": -0.7},
            "another sample's picture does the model better than the right one in CIDEr",
        ),
        ("controls", None, "left out (--controls none)"),
        (
            "leakage.leaked",
            7,
            "in the training data too (the same image 5, the same text 2); --exclude-leaked",
        ),
        ("leakage.missing", ["data/x was not looked at"], "data/x was not looked at"),
        ("n", 99, "99 samples are few"),
        ("n", 1, "1 sample is few"),
        ("outputs.model.empty", 1, "1 of 400 answers of the model is empty; it is scored as it is"),
        ("leakage", FINE["leakage"] | {"leaked": 1}, "1 of 400 samples is in the training data too"),
        ("groups", 29, "come from 29 groups only"),
        ("bootstrap", None, "no intervals were computed (--bootstrap 0)"),
    ],
)
def test_each_has_one_sentence(path: str, value: Any, said: str) -> None:
    (sentence,) = cautions(changed(path, value))
    assert said in sentence
    assert "\n" not in sentence


def test_controls_of_several_tasks_are_said_to_be_over_all() -> None:
    table = changed("controls.visual_reliance.cider.low", -0.1) | {"tasks": ["caption", "vqa"]}
    table["controls"]["kept_without_image"]["cider"] = 0.9
    found = cautions(table)
    assert [sentence.count(" CIDEr over all tasks: ") for sentence in found] == [1, 1]


def pair(difference: float, p: float) -> dict[str, float]:
    return {"difference": difference, "p": p, "p_holm": p}


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (pair(0.5, 0.001), None),
        (pair(0.5, 0.05), "does not clearly beat the best constant answer in CIDEr: difference +0.500 (p = 0.05)"),
        (pair(0.0, 0.001), "does not clearly beat"),
        (pair(-0.5, 0.2), "does not clearly beat"),
        (pair(-0.5, 0.001), "scores lower than the best constant answer in CIDEr: difference -0.500 (p = 0.001)"),
    ],
)
def test_without_intervals_the_p_value_decides(cell: dict[str, float], said: str | None) -> None:
    table = changed("bootstrap", None)
    table["comparisons"]["constant"]["cider"] = cell
    *found, _ = cautions(table)
    assert [said in sentence for sentence in found] == ([] if said is None else [True])
    table = changed("bootstrap", None)
    table["controls"]["visual_reliance"]["cider"] = cell
    *found, _ = cautions(table)
    assert len(found) == (said is not None)
    assert all("picture does the model " in sentence and "another sample's" in sentence for sentence in found)


def test_each_task_is_held_against_the_constant_by_itself() -> None:
    good, bad = ({"cider": {"difference": d, "low": d - 0.1, "high": d + 0.1}} for d in (0.5, -0.5))
    tasks = {
        "caption": {"rows": {"model": {"cider": 0.0}}, "comparisons": {"constant": bad}},
        "vqa": {"rows": {"model": {"cider": 2.0, "accuracy": 0.9}}, "comparisons": {"constant": bad}},
        "report": {"rows": {"model": {"cider": 2.0}}, "comparisons": {"constant": good}},
    }
    (sentence,) = cautions(changed("tasks", sorted(tasks)) | {"by_task": tasks})
    assert "scores lower than the best constant answer in CIDEr of caption: difference -0.500" in sentence


def test_texts_alone_are_no_alarm() -> None:
    table = changed("leakage.leaked", 2)
    table["leakage"]["images_same"] = 0
    assert cautions(table) == []


def test_an_unknown_training_set_is_said() -> None:
    (sentence,) = cautions(changed("leakage", None), train_known=False)
    assert "is not known" in sentence


def test_answers_to_questions_are_judged_by_accuracy() -> None:
    rows = {"model": {"cider": 1.0, "accuracy": 0.5}}
    assert judged({"tasks": ["vqa"], "rows": rows}) == ["accuracy"]
    assert judged({"tasks": ["caption", "vqa"], "rows": rows}) == ["cider", "accuracy"]
    assert judged({"tasks": [], "rows": {"model": {"bleu_1": 0.5, "bleu_4": 0.1}}}) == ["bleu_4"]
    assert judged({"tasks": [], "rows": {"model": {"closed_accuracy": 0.5}}}) == ["closed_accuracy"]
