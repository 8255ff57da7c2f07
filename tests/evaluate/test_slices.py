"""Slices against scoring their rows alone, and what is too small to be one."""

from __future__ import annotations

import numpy as np
import pytest

from medvlm.evaluate.metrics import score
from medvlm.evaluate.slices import slices, with_normal

WORDS = ["the", "heart", "is", "large", "no", "effusion", "seen", "lungs", "are", "clear", "today"]


def table(n: int = 120) -> tuple[list[dict], list[str]]:
    chance = np.random.default_rng(0)
    rows = []
    for place in range(n):
        words = list(chance.choice(WORDS, 9))
        rows.append(
            {
                "id": str(place),
                "prediction": " ".join(words[:6]),
                "references": [" ".join(words)],
                "modality": "ct" if place % 3 else "radiograph",
                "organ": "liver" if place < 29 else " chest ",
                "language": "en",
                "question_type": None if place % 2 else "",
            }
        )
    return rows, [f"g{place // 3}" for place in range(n)]


def scored(rows):
    return score(["bleu", "rouge"], [row["prediction"] for row in rows], [row["references"] for row in rows])


def test_a_slice_is_scored_as_its_rows_alone():
    rows, groups = table()
    kept, _ = slices(rows, groups, {"model": scored(rows)}, resamples=50)
    assert [(one["column"], one["value"], one["n"]) for one in kept] == [
        ("modality", "ct", 80),
        ("modality", "radiograph", 40),
        ("organ", "chest", 91),
    ]
    alone = scored([row for row in rows if row["modality"] == "ct"]).values
    found = kept[0]["rows"]["model"]
    assert {key: cell[0] for key, cell in found.items()} == pytest.approx(alone)
    assert all(low - 1e-9 <= value <= high + 1e-9 for value, low, high in found.values())
    assert kept[0]["groups"] == 40


def test_small_slices_and_few_groups_are_named_and_not_scored():
    rows, groups = table()
    _, small = slices(rows, groups, {"model": scored(rows)}, resamples=0)
    assert small == [{"column": "organ", "value": "liver", "n": 29}]
    few = ["one" if row["modality"] == "radiograph" else group for row, group in zip(rows, groups, strict=True)]
    kept, small = slices(rows, few, {"model": scored(rows)}, resamples=0, columns=["modality"])
    assert [one["value"] for one in kept] == ["ct"]
    assert [one["value"] for one in small] == ["radiograph"]
    assert kept[0]["rows"]["model"]["bleu_4"][1:] == [None, None]


def test_values_beyond_the_largest_are_counted():
    rows, groups = table()
    for place, row in enumerate(rows):
        row["organ"] = "chest" if place < 30 else f"organ {place // 2}"
    kept, small = slices(rows, groups, {"model": scored(rows)}, resamples=0, columns=["organ"])
    assert [(one["value"], one["n"]) for one in kept] == [("chest", 30)]
    # 45 organs of two rows each: with the chest, forty values are looked at.
    assert [one["n"] for one in small[:-1]] == [2] * 39
    assert small[-1] == {"column": "organ", "value": "6 further values", "n": 12}
    assert sum(one["n"] for one in kept + small) == len(rows)


def test_cider_keeps_the_document_frequencies_of_the_whole():
    rows, groups = table()
    whole = score(["cider"], [row["prediction"] for row in rows], [row["references"] for row in rows])
    kept, _ = slices(rows, groups, {"model": whole}, resamples=0, columns=["modality"])
    inside = np.array([row["modality"] == "ct" for row in rows])
    assert kept[0]["rows"]["model"]["cider"][0] == pytest.approx(whole.per_segment["cider"][inside].mean())


def test_normal_is_what_is_known_else_what_the_reference_says():
    words = ("CR", "DR", "X ray", "x_ray", "plain film", "chest film", "Unknown")
    rows = [
        {"finding": "none", "task": "caption", "references": ["Large pleural effusion."]},
        {"finding": "nodule", "task": "caption", "references": ["x"]},
        {"task": "report", "references": ["There is a large left pleural effusion."]},
        {"task": "report", "references": ["No acute cardiopulmonary abnormality. The lungs are clear."]},
        {"task": "vqa", "references": ["pneumothorax"]},
        {"finding": "No Finding", "task": "report", "references": ["x"]},
        {"finding": "Normal ", "task": "vqa", "references": ["x"]},
        {"finding": "Cardiomegaly", "task": "vqa", "references": ["x"]},
        {"finding": "age-related change", "task": "report", "references": ["The lungs are clear. No effusion."]},
        {"finding": "melanoma", "task": "vqa", "references": ["yes"]},
        {"modality": "MRI", "task": "report", "references": ["No joint effusion. No fracture. Normal study."]},
        {"modality": "Chest X-ray", "task": "report", "references": ["No pleural effusion."]},
        *({"modality": word, "task": "report", "references": ["Left effusion."]} for word in words),
    ]
    normal = ["normal", "normal", "abnormal", "normal", None, None, "normal", *["abnormal"] * len(words)]
    assert [row["normal"] for row in with_normal(rows)] == ["normal", "abnormal", "abnormal", "normal", None, *normal]
