"""The model without its pictures: which samples, what changes, what is kept."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvlm.evaluate import controls
from medvlm.evaluate.metrics import score
from medvlm.evaluate.score_table import Settings

TEXTS = ("a nodule in the left lung", "no effusion", "the heart is large", "air in the pleural space")


def row(number: int, prediction: str) -> dict[str, Any]:
    return {
        "id": str(number),
        "prediction": prediction,
        "references": [TEXTS[number % 4]],
        "group": f"g{number // 2}",
        "task": "caption",
    }


@given(st.integers(1, 500), st.integers(1, 500), st.integers(0, 50))
def test_the_samples_are_evenly_spread(count: int, most: int, seed: int) -> None:
    places = list(range(1000, 1000 + count))
    chosen = controls.choose(places, most, seed)
    assert len(chosen) == len(set(chosen)) == min(count, most)
    assert set(chosen) <= set(places)
    assert chosen == controls.choose(places, most, seed)
    gaps = {b - a for a, b in itertools.pairwise(chosen)}
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_all_and_other_seeds() -> None:
    assert controls.choose([4, 2, 9], None, 0) == [4, 2, 9]
    assert len({tuple(controls.choose(range(100), 7, seed)) for seed in range(20)}) > 3


def test_a_model_that_looks_and_one_that_does_not() -> None:
    own = [row(i, TEXTS[i % 4]) for i in range(40)]
    other = [row(i, TEXTS[(i + 1) % 4]) for i in range(40)]
    blind = [row(i, TEXTS[0]) for i in range(40)]
    settings = Settings(bootstrap=200)
    looks = controls.measure({"model": own, "blank": blind, "shuffled": other}, own, ["bleu", "cider"], settings)
    assert looks["image_sensitivity"] == {"blank": 0.75, "shuffled": 1.0}
    right, wrong = looks["rows"]["model"]["cider"], looks["rows"]["shuffled"]["cider"]
    assert looks["visual_reliance"]["cider"]["difference"] == pytest.approx(right - wrong)
    assert looks["visual_reliance"]["cider"]["low"] > 0
    assert looks["kept_without_image"]["cider"] == pytest.approx(looks["rows"]["blank"]["cider"] / right)
    assert looks["outputs"]["blank"]["distinct"] == 1
    same = controls.measure(dict.fromkeys(("model", "blank", "shuffled"), blind), own, ["bleu", "cider"], settings)
    assert same["image_sensitivity"] == {"blank": 0.0, "shuffled": 0.0}
    assert same["visual_reliance"]["cider"] == pytest.approx(
        dict.fromkeys(("difference", "low", "high"), 0.0) | {"p": 1, "p_holm": 1}
    )
    assert set(same["kept_without_image"].values()) == {1.0}


def test_scores_of_some_samples_compare_with_those_of_the_split() -> None:
    """CIDEr's document frequencies are those of the whole split: the mean over the chosen is what they add to it."""
    split = [row(i, TEXTS[(i * i) % 4]) for i in range(40)]
    chosen = [split[i] for i in range(0, 40, 5)]
    found = controls.measure(dict.fromkeys(("model", "blank", "shuffled"), chosen), split, ["cider"], Settings())
    whole = score(["cider"], [r["prediction"] for r in split], [r["references"] for r in split]).per_segment["cider"]
    assert found["rows"]["model"]["cider"] == pytest.approx(sum(whole[i] for i in range(0, 40, 5)) / 8)
    assert (found["n"], found["of"]) == (8, 40)


def test_what_the_right_pictures_score_nothing_in_has_no_share() -> None:
    assert controls.kept({"a": 0.0, "b": 0.5, "c": 0.2, "d": 0.001}, {"a": 0.1, "b": 0.4, "d": 0.1}) == {"b": 0.8}
    assert controls.changed([row(0, " yes\n")], [row(0, "yes")]) == 0.0
