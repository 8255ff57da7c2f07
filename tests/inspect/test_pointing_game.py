"""The pointing game: places of findings against the generator's own boxes, chance by counting, intervals."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medvlm.data.sample import Sample
from medvlm.data.sources.phantom.articles import ANNOTATIONS, build_article, finding_masks
from medvlm.data.sources.phantom.source import read_article
from medvlm.errors import InputError
from medvlm.inspect import hits
from medvlm.inspect.hits import Case, Hit, Looked


@pytest.mark.parametrize("index", range(6))
def test_a_mask_fills_the_box_that_the_article_states(index: int) -> None:
    _, files = build_article(3, index)
    masks = finding_masks(3, index)
    notes = [json.loads(line) for line in files[ANNOTATIONS].splitlines()]
    assert masks.keys() == {note["figure_id"] for note in notes}
    for note in notes:
        mask = masks[note["figure_id"]]
        assert (mask is None) == (note["finding"] == "none") == (note["finding_box"] is None)
        if mask is None:
            continue
        ys, xs = np.nonzero(mask)
        box = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        assert [side / len(mask) for side in box] == pytest.approx(note["finding_box"], abs=1e-4)
        name = next(name for name in files if name.endswith(f"-g{note['figure_id'][3:]:>03}.jpg"))
        pixels = np.asarray(Image.open(io.BytesIO(files[name])), dtype=float)
        if note["finding"] == "nodule":
            # Brighter than the lung about it.
            about = np.zeros_like(mask)
            about[max(ys.min() - 6, 0) : ys.max() + 7, max(xs.min() - 6, 0) : xs.max() + 7] = True
            assert pixels[mask].mean() > pixels[about & ~mask].mean() + 20


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(1, 6), columns=st.integers(1, 6))
def test_chance_is_the_mean_over_all_places_of_the_peak(seed: int, rows: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((48, 40), dtype=bool)
    y, x = rng.integers(0, 40), rng.integers(0, 30)
    mask[y : y + rng.integers(1, 9), x : x + rng.integers(1, 11)] = True
    found = []
    for place in range(rows * columns):
        values = np.zeros(rows * columns)
        values[place] = 1.0
        found.append(hits.hit(values.reshape(rows, columns), mask))
    assert np.mean([one.touch for one in found]) == pytest.approx(found[0].touch_chance)
    assert {one.point_chance for one in found} == {mask.mean()}
    # Who is on it touches it, and a finding is always touched somewhere.
    assert all(one.touch >= one.point for one in found)
    assert max(one.touch for one in found) == 1.0


def test_a_hit_by_hand() -> None:
    mask = np.zeros((80, 80), dtype=bool)
    mask[22:28, 42:48] = True
    values = np.zeros((8, 8))
    values[2, 4] = 3.0
    assert hits.hit(values, mask) == Hit(1.0, 1.0, 1 / 64, 36 / 6400, 0.0, 0.0)
    values[2, 5] = 4.0
    assert hits.hit(values, mask).touch == 0.0
    # Of a picture whose left half alone is seen, the same cell lies elsewhere.
    assert hits.hit(values, mask, (0.0, 0.0, 0.5, 1.0)).touch == 0.0
    middle = np.zeros((80, 80), dtype=bool)
    middle[36:40, 36:40] = True
    told = hits.hit(values, middle)
    assert (told.touch_center, told.point_center) == (1.0, 0.0)


class Rows:
    """A mixture in memory."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def texts(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)


def sample(articles: int) -> list[dict[str, Any]]:
    return [
        dataclasses.asdict(found)
        for index in range(articles)
        for found in read_article(0, index)
        if isinstance(found, Sample)
    ]


def test_cases_are_pictures_with_a_finding_each_once() -> None:
    rows = sample(5)
    for task in ("caption", "vqa"):
        cases = hits.cases_of(Rows(rows), task, None)  # type: ignore[arg-type]
        pictures = [case.id.rsplit("/", 2)[0] for case in cases]
        assert len(set(pictures)) == len(pictures)
        figures = {row["id"].rsplit("/", 2)[0] for row in rows if row["finding"] != "none" and row["task"] == task}
        assert set(pictures) == figures
        assert all(rows[case.place]["id"] == case.id and rows[case.place]["finding"] == case.finding for case in cases)
        assert all(case.mask.any() and case.mask.shape == (224, 224) for case in cases)
    few = hits.cases_of(Rows(rows), "caption", 3)  # type: ignore[arg-type]
    assert len(few) == 3
    assert {case.id for case in few} <= {row["id"] for row in rows}


def test_other_data_have_no_places() -> None:
    rows = [{**row, "source": "pmc"} for row in sample(2)]
    with pytest.raises(InputError, match="only of the embedded sample"):
        hits.cases_of(Rows(rows), "caption", None)  # type: ignore[arg-type]


def looked(group: str, **touch: float) -> Looked:
    case = Case(0, "id", group, "nodule", np.ones((2, 2), dtype=bool))
    return Looked(case, "a nodule", True, {name: Hit(on, on, 0.25, 0.1, 0.0, 0.0) for name, on in touch.items()})


def test_the_layer_that_touches_most_is_chosen() -> None:
    some = [
        looked("a", **{"occlusion": 1.0, "rolled out": 1.0, "layer 1": 0.0, "layer 2": 1.0, "layer 3": 1.0}),
        looked("b", **{"occlusion": 1.0, "rolled out": 1.0, "layer 1": 1.0, "layer 2": 1.0, "layer 3": 1.0}),
    ]
    assert hits.best_layer(some) == "layer 2"
    assert hits.best_layer([looked("a", occlusion=1.0)]) is None


def test_a_summary_counts_and_draws_whole_articles() -> None:
    some = [looked(f"g{number % 4}", occlusion=float(number % 4 == 0)) for number in range(40)]
    told = hits.summary(some, ["occlusion"])
    own = told["maps"]["occlusion"]
    assert (told["n"], told["groups"]) == (40, 4)
    assert own["touch"] == pytest.approx(0.25)
    assert own["touch_above_chance"] == pytest.approx(0.0)
    low, high = own["touch_interval"]
    # Ten pictures of an article hit or miss together: one of four articles is drawn 0 to 3 times in most draws.
    assert (low, high) == (0.0, 0.75)
    alone = hits.interval(np.array([float(number % 4 == 0) for number in range(40)]), [str(n) for n in range(40)], 0)
    assert high - low > 2 * (alone[1] - alone[0])


def test_answers_are_about_their_own_finding(adapted: Any, chest: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    class Pictures:
        def image(self, place: int) -> Image.Image:
            return chest

        def text(self, place: int) -> dict[str, Any]:
            return {"task": "caption", "prompt": "", "language": "en"}

    said = ["There is a small nodule.", "There is a small nodule. No pleural effusion."]
    monkeypatch.setattr(adapted, "answers", lambda images, prefixes: said[: len(images)])
    mask = np.ones((224, 224), dtype=bool)
    cases = [Case(0, "a", "g", "nodule", mask), Case(1, "b", "g", "effusion", mask)]
    found = list(hits.look(adapted, Pictures(), cases))  # type: ignore[arg-type]
    # What is denied is not named.
    assert [one.named for one in found] == [True, False]
    assert list(found[0].hits) == ["occlusion", "rolled out", *(f"layer {number}" for number in (1, 2, 3, 4))]
    assert all(hit.touch == hit.touch_chance == 1.0 for one in found for hit in one.hits.values())
