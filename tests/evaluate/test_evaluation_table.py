"""The table of scores: rows, intervals, differences, tasks, groups, and which metrics fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medvlm.errors import InputError
from medvlm.evaluate.compare import scored
from medvlm.evaluate.findings import finding_accuracy
from medvlm.evaluate.metrics import Options, score
from medvlm.evaluate.score_table import Settings, automatic, grouped_by, table


def prediction(number: int, text: str, task: str = "caption", finding: str | None = "nodule") -> dict[str, Any]:
    reference = "A nodule in the left lung." if task == "caption" else "yes"
    return {
        "id": str(number), "prediction": text, "references": [reference, "other"], "group": f"g{number // 4}",
        "task": task, "finding": finding,
    }  # fmt: skip


GOOD = [prediction(i, "A nodule in the left lung.") for i in range(12)] + [
    prediction(20 + i, "Yes", "vqa") for i in range(4)
]
BAD = [row | {"prediction": "" if row["id"] == "0" else "No effusion."} for row in GOOD]


def test_the_table_holds_every_row_task_and_difference() -> None:
    found = table({"model": GOOD, "constant": BAD}, Settings(metrics=["bleu", "cider", "vqa"], bootstrap=100))
    assert (found["schema"], found["n"], found["groups"], found["tasks"]) == (2, 16, 4, ["caption", "vqa"])
    assert found["rows"]["model"]["finding_accuracy"] == 1.0
    assert found["rows"]["constant"]["finding_accuracy"] == 0.0
    assert found["by_task"]["vqa"]["n"] == 4
    assert found["by_task"]["vqa"]["rows"]["model"]["accuracy"] == 1.0
    assert found["by_task"]["vqa"]["rows"]["constant"]["accuracy"] == 0.0
    difference = found["comparisons"]["constant"]["cider"]
    assert difference["difference"] == pytest.approx(
        found["rows"]["model"]["cider"] - found["rows"]["constant"]["cider"]
    )
    assert difference["low"] <= difference["difference"] <= difference["high"]
    assert 0 < difference["p"] <= difference["p_holm"] <= 1
    low, high = found["intervals"]["model"]["bleu_1"]
    assert low <= found["rows"]["model"]["bleu_1"] <= high
    assert found["outputs"]["model"] == {"n": 16, "distinct": 2, "empty": 0, "mean_words": (12 * 6 + 4) / 16}
    assert found["outputs"]["constant"] == {"n": 16, "distinct": 2, "empty": 1, "mean_words": 15 * 2 / 16}
    assert found["references"] == {"n": 32, "distinct": 3, "mean_words": (12 * 7 + 4 * 2) / 32}
    assert set(found["signatures"]) == {"bleu", "cider", "vqa"}


def test_a_task_scores_as_its_rows_alone() -> None:
    mixed = table({"model": BAD}, Settings(metrics=["bleu", "rouge", "cider", "vqa"], bootstrap=0))
    for task, part in mixed["by_task"].items():
        alone = [row for row in BAD if row["task"] == task]
        expected = table({"model": alone}, Settings(metrics=["bleu", "rouge", "cider", "vqa"], bootstrap=0))
        assert part["n"] == len(alone)
        assert part["rows"]["model"] == pytest.approx(expected["rows"]["model"])


def test_a_task_differs_as_its_rows_alone() -> None:
    settings = Settings(metrics=["bleu", "cider", "vqa"], bootstrap=50)
    mixed = table({"model": GOOD, "constant": BAD}, settings)
    for task, part in mixed["by_task"].items():
        alone = {name: [row for row in rows if row["task"] == task] for name, rows in (("m", GOOD), ("constant", BAD))}
        expected = table(alone, settings)["comparisons"]["constant"]
        assert part["comparisons"]["constant"].keys() == expected.keys()
        for key, cell in expected.items():
            assert part["comparisons"]["constant"][key] == pytest.approx(cell)


@pytest.mark.parametrize(
    ("finding", "known"),
    [("Effusion", True), ("nodule, none", True), ("Pleural Effusion", False), ("No Finding", False)],
)
def test_findings_in_other_words_have_no_accuracy(finding: str, known: bool) -> None:
    rows = [*GOOD, prediction(99, "There is a pleural effusion.", finding=finding)]
    found = scored(rows, ["bleu"], Options()).values
    assert ("finding_accuracy" in found) == known
    if finding == "Effusion":
        assert found["finding_accuracy"] == 1.0


def test_the_settings_are_kept() -> None:
    options = Options("13a", "mixed", True, Path("idf.json"))
    settings = Settings(["bleu"], options=options, bootstrap=0, controls=None, exclude_leaked=True, base=False, seed=4)
    kept = table({"model": GOOD}, replace(settings, options=Options("13a", "mixed", True)))["settings"]
    assert kept | {"idf": "idf.json"} == settings.as_dict()
    assert (kept["tokenizer"], kept["controls"], kept["base"], kept["seed"]) == ("13a", "all", False, 4)


def test_values_are_those_of_score() -> None:
    found = table({"model": BAD}, Settings(metrics=["bleu", "rouge", "cider"], bootstrap=0))
    expected = score(["bleu", "rouge", "cider"], [row["prediction"] for row in BAD], [row["references"] for row in BAD])
    assert found["rows"]["model"] == expected.values | {"finding_accuracy": 0.0}
    assert found["bootstrap"] is None
    assert found["intervals"] == {"model": {}}
    assert found["comparisons"] == {}


def test_more_rows_are_corrected_for() -> None:
    rows = {"model": GOOD, "base": BAD, "constant": BAD}
    found = table(rows, Settings(metrics=["bleu"], bootstrap=50))["comparisons"]
    assert list(found) == ["base", "constant"]
    cell = found["base"]["bleu_1"]
    assert cell["p_holm"] == pytest.approx(min(1, 2 * cell["p"]))


@pytest.mark.parametrize(
    ("rows", "more"),
    [
        ([{"task": "caption"}], []),
        ([{}], []),
        ([{"task": "caption"}, {"task": "vqa", "finding": "nodule"}], ["vqa"]),
        ([{"task": "caption", "finding": "nodule"}], ["findings"]),
        ([{"task": "report", "modality": "X-Ray", "organ": "Chest"}], ["findings"]),
        ([{"task": "report", "modality": "chest radiograph"}, {"task": "vqa"}], ["vqa", "findings"]),
        ([{"task": "report", "modality": "radiograph", "organ": "knee"}], []),
        ([{"task": "report", "modality": "DR", "organ": "lung"}], ["findings"]),
        ([{"task": "report", "modality": "Chest film"}], ["findings"]),
        ([{"task": "report", "modality": "CXR"}], ["findings"]),
        ([{"task": "report", "modality": "DR"}], []),
        ([{"task": "report", "modality": "ct", "organ": "chest"}], []),
    ],
)
def test_the_metrics_that_fit(rows: list[dict[str, Any]], more: list[str]) -> None:
    assert automatic(rows) == ["bleu", "rouge", "cider", *more]


def test_groups_by_another_column() -> None:
    rows = [row | {"patient": "p" if row["id"] < "2" else None} for row in GOOD]
    found = table({"model": grouped_by(rows, "patient")}, Settings(metrics=["bleu"], bootstrap=10))
    alone = sum(row["id"] >= "2" for row in rows)
    assert found["groups"] == alone + 1
    assert grouped_by(GOOD, "group") == GOOD
    with pytest.raises(InputError, match='"doctor": no row has this column; there are finding, group, id'):
        grouped_by(GOOD, "doctor")


def test_the_share_that_names_the_known_finding_has_intervals_differences_and_tasks() -> None:
    half = [row if number % 2 else row | {"prediction": "No effusion."} for number, row in enumerate(GOOD)]
    found = table({"model": GOOD, "constant": half}, Settings(metrics=["bleu"], bootstrap=100))
    known = [row for row in half if row["task"] == "caption"]
    truth = finding_accuracy([row["prediction"] for row in known], [row["finding"] for row in known])
    assert found["rows"]["constant"]["finding_accuracy"] == truth == 0.5
    low, high = found["intervals"]["constant"]["finding_accuracy"]
    assert low <= 0.5 <= high
    cell = found["comparisons"]["constant"]["finding_accuracy"]
    assert cell["difference"] == pytest.approx(0.5)
    assert cell["low"] <= 0.5 <= cell["high"]
    caption, vqa = found["by_task"]["caption"], found["by_task"]["vqa"]
    assert caption["rows"]["constant"]["finding_accuracy"] == 0.5
    assert caption["intervals"]["constant"]["finding_accuracy"] == [low, high]
    assert "finding_accuracy" not in vqa["rows"]["model"]
    assert scored(half, ["bleu"], Options()).per_segment["finding_accuracy"][:2].tolist() == [0.0, 1.0]


def test_a_task_that_has_its_own_table_is_no_slice() -> None:
    rows = [
        row | {"id": f"{row['id']}/{copy}", "group": str(copy), "organ": row["task"]}
        for row in GOOD
        for copy in range(40)
    ]
    found = table({"model": rows}, Settings(metrics=["bleu"], bootstrap=0))
    assert set(found["by_task"]) == {"caption", "vqa"}
    columns = {part["column"] for part in [*found["slices"], *found["slices_left_out"]]}
    assert "task" not in columns
    assert "organ" in columns
