"""Several systems on the samples they share."""

from __future__ import annotations

import json

import pytest

from medvlm.cli.eval_table import in_words
from medvlm.errors import InputError
from medvlm.evaluate.compare import compare, in_common, verdict
from medvlm.evaluate.files import compare_rows
from medvlm.evaluate.metrics import score
from medvlm.evaluate.score_table import Settings
from medvlm.report.scored import Difference, Value

REFERENCES = [f"the {size} nodule lies in the {side} lung" for size in ("small", "large") for side in ("left", "right")]


def system(change: str, times: int = 8) -> list[dict]:
    rows = []
    for copy in range(times):
        for place, text in enumerate(REFERENCES):
            said = text.replace(change, "") if change else text
            rows.append({"id": f"{copy}/{place}", "group": f"g{copy}", "prediction": said, "references": [text]})
    return rows


def test_each_two_are_compared_on_common_samples():
    systems = {"good": system(""), "worse": system(" nodule lies")[:-4], "worst": system("the")}
    found = compare(systems, ["bleu", "rouge"], resamples=100, trials=200)
    assert found["runs"] == ["good", "worse", "worst"]
    assert (found["n"], found["groups"]) == (28, 7)
    assert found["left_out"] == {"good": 4, "worse": 0, "worst": 4}
    assert [(pair["a"], pair["b"]) for pair in found["pairs"]] == [
        ("good", "worse"),
        ("good", "worst"),
        ("worse", "worst"),
    ]
    alone = score(["bleu", "rouge"], *zip(*((r["prediction"], r["references"]) for r in systems["worse"]), strict=True))
    assert found["rows"]["worse"] == pytest.approx(alone.values)
    cell = found["pairs"][0]["keys"]["bleu_4"]
    assert cell["difference"] == pytest.approx(1.0 - alone.values["bleu_4"], abs=1e-6)
    assert cell["low"] <= cell["difference"] <= cell["high"]
    # Seven groups can be swapped in 128 ways; two of them leave a difference as large.
    assert cell["p"] == pytest.approx(2 / 128, abs=0.02)
    assert all(
        pair["keys"][key]["p"] <= pair["keys"][key]["p_holm"] <= 1 for pair in found["pairs"] for key in pair["keys"]
    )
    low, high = found["intervals"]["worse"]["rouge_l"]
    assert low <= found["rows"]["worse"]["rouge_l"] <= high
    assert json.loads(json.dumps(found)) == found


def test_without_a_bootstrap_there_are_tests_but_no_intervals():
    found = compare({"a": system(""), "b": system("the")}, ["bleu"], resamples=0, trials=50)
    assert found["bootstrap"] is None
    assert found["intervals"] == {"a": {}, "b": {}}
    assert set(found["pairs"][0]["keys"]["bleu_1"]) == {"difference", "p", "p_holm"}


@pytest.mark.parametrize(
    ("systems", "message"),
    [
        ({"a": system("")}, "at least two"),
        ({"a": system(""), "b": [dict(row, id="x" + row["id"]) for row in system("")]}, "no sample in common"),
        ({"a": system(""), "b": [dict(row, references=["other"]) for row in system("")]}, '"0/0" has other references'),
    ],
)
def test_what_cannot_be_compared_is_refused(systems, message):
    with pytest.raises(InputError, match=message):
        compare(systems, ["bleu"])


def test_what_one_system_says_of_a_sample_holds_for_all():
    options = {"task": "vqa", "choices": ["CT", "MRI", "US"]}
    rows = [{"id": str(n), "prediction": "ABC"[n % 3], "references": [["CT", "MRI"][n % 2]]} for n in range(40)]
    told = [row | options | {"group": str(n // 10), "prediction": "B"} for n, row in enumerate(rows)]
    found = compare_rows({"bare": rows, "told": told}, Settings(bootstrap=50))
    other = compare_rows({"told": told, "bare": rows}, Settings(bootstrap=50))
    assert found["rows"] == other["rows"]
    assert found["rows"]["told"]["choice_accuracy"] == 0.5
    assert found["rows"]["bare"]["choice_accuracy"] == sum(n % 3 == n % 2 for n in range(40)) / 40
    assert (found["groups"], found["tasks"]) == (other["groups"], other["tasks"]) == (4, ["vqa"])
    mine, theirs = (one["pairs"][0]["keys"]["accuracy"] for one in (found, other))
    assert mine["p"] == theirs["p"]
    assert mine["low"] == pytest.approx(-theirs["high"])


def test_each_of_several_tasks_is_compared_alone():
    captions = [row | {"task": "caption", "finding": "nodule"} for row in system("")]
    bad = [row | {"prediction": "yes"} for row in captions]
    right = [{"id": f"q{n}", "prediction": w, "references": [w], "task": "vqa"} for n, w in enumerate(["CT", "MR"] * 9)]
    wrong = [row | {"prediction": "skin"} for row in right]
    metrics = ["rouge", "cider", "vqa"]
    found = compare({"a": bad + right, "b": captions + wrong}, metrics, resamples=50, trials=50)["by_task"]
    assert [part["n"] for part in found.values()] == [32, 18]
    for task, a, b in (("caption", bad, captions), ("vqa", right, wrong)):
        alone = compare({"a": a, "b": b}, metrics, resamples=50, trials=50)
        assert alone["by_task"] == {}
        for key in ("rows", "intervals", "pairs"):
            assert found[task][key] == alone[key]
    assert found["caption"]["rows"]["b"]["finding_accuracy"] == 1.0
    assert found["caption"]["pairs"][0]["keys"]["finding_accuracy"]["difference"] == -1.0


def test_what_is_said_in_other_letters_is_said_alike():
    row = {"id": "1", "prediction": "A", "references": ["CT"], "task": "vqa"}
    one = row | {"group": 0, "answer_type": "open", "choices": ["CT", "MRI"], "modality": "CT", "organ": "head"}
    other = row | {"group": "0", "answer_type": "OPEN ", "choices": ["A: ct", "B: MRI"], "modality": "ct scan"}
    for systems in ({"one": one, "other": other}, {"other": other, "one": one}):
        found = in_common({name: [row] for name, row in systems.items()})
        first = next(iter(systems.values()))
        assert all(rows[0]["modality"] == first["modality"] and rows[0]["organ"] == "head" for rows in found.values())
    with pytest.raises(InputError, match='other: "1" has another choices than in one'):
        in_common({"one": [one], "other": [other | {"choices": ["A: MRI", "B: CT"]}]})


def test_systems_that_disagree_on_a_sample_are_refused():
    with pytest.raises(InputError, match='b: "0/0" has another group than in a; make them alike'):
        compare({"a": system(""), "b": [row | {"group": "x"} for row in system("")]}, ["bleu"])


@pytest.mark.parametrize(
    ("difference", "low", "high", "p", "found"),
    [
        (0.2, 0.1, 0.3, 0.003, "better"),
        (-0.2, -0.3, -0.1, 0.003, "worse"),
        (0.2, 0.1, 0.3, 0.05, "unclear"),
        (0.2, -0.1, 0.5, 0.003, "unclear"),
        (-0.2, -0.5, 0.0, 0.003, "unclear"),
        (0.2, 0.1, 0.3, None, "better"),
        (0.2, None, None, 0.003, "better"),
        (-0.2, None, None, 0.003, "worse"),
        (0.2, None, None, None, "unclear"),
    ],
)
def test_interval_and_test_must_agree_on_who_is_better(
    difference: float, low: float | None, high: float | None, p: float | None, found: str
) -> None:
    cell = {"difference": difference, "low": low, "high": high, "p_holm": p}
    assert verdict(cell) == found
    assert verdict({key: value for key, value in cell.items() if value is not None}) == found
    said = Difference("base", "cider", Value(difference, low, high), p, p).verdict
    assert said == ("" if low is None and p is None else found if found != "unclear" else "not clearly different")
    if p is not None:
        told = in_words("A", "B", "cider", {key: value for key, value in cell.items() if value is not None})
        assert told.startswith("A and B do not clearly" if found == "unclear" else f"A is {found} than B")
