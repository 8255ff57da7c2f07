"""Which rows of the data are scored, and by which the constant answer is chosen."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from prepared import write_folder

from medvlm.data.rows import Shards
from medvlm.data.sample import Image, Sample
from medvlm.errors import InputError
from medvlm.evaluate import baseline_run, baselines, evaluation
from medvlm.io import sha256_bytes
from medvlm.recipe.load import check


def sample(**changes: Any) -> Sample:
    fields = {"id": "x/1", "task": "vqa", "prompt": "Is there a nodule?", "target": "yes", "source": "x", "group": "x"}
    picture = changes.pop("picture", b"one")
    return Sample(image=Image(picture, "x"), sha256=sha256_bytes(picture), **fields | changes)


def rows_to_score(folder: Path, *parts: list[Sample], limit: int | None = None) -> list[str]:
    paths = [write_folder(folder / str(number), {"test": samples}) for number, samples in enumerate(parts)]
    data = [{"path": str(path)} for path in paths]
    recipe = check({"name": "r", "model": {"id": "m"}, "data": data, "eval": {"limit": limit}}, "test")
    mixture, places = evaluation._rows(recipe)
    return [mixture.text(place)["id"] for place in places]


@pytest.mark.parametrize("change", [{"prompt": "Is it an MRI?"}, {"target": "no"}, {"picture": b"other"}])
def test_rows_of_one_id_are_one_only_where_they_ask_the_same(change: dict[str, Any], tmp_path: Path) -> None:
    assert rows_to_score(tmp_path / "same", [sample()], [sample()]) == ["x/1"]
    with pytest.raises(InputError, match="the id x/1 stands for different rows"):
        rows_to_score(tmp_path / "different", [sample()], [sample(**change)])


def test_a_limit_takes_rows_evenly_spread(tmp_path: Path) -> None:
    samples = [sample(id=str(number)) for number in range(10)]
    assert rows_to_score(tmp_path / "a", samples, limit=4) == ["0", "2", "5", "7"]
    assert rows_to_score(tmp_path / "b", samples, limit=20) == [str(number) for number in range(10)]


def test_one_row_to_choose_a_constant_by_is_too_few() -> None:
    train = [{"task": "vqa", "target": text} for text in ("no", "no", "yes")]
    held_out = {"task": "vqa", "target": "yes"}
    assert baselines.best_constants(train, [held_out], seed=0)["vqa"].text == "no"
    assert baselines.best_constants(train, [held_out] * 2, seed=0)["vqa"].text == "yes"


def test_constant_answers_are_looked_for_alike_whatever_the_seed_of_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = []
    for place in ("a", "b"):
        rows = [sample(id=f"{place}/{number}", target=f"{place} {number}") for number in range(8)]
        parts.append({"path": str(write_folder(tmp_path / place, {"train": rows, "validation": rows}))})
    parts[0]["weight"] = 0.3
    asked: list[Any] = []
    monkeypatch.setattr(baselines, "best_constants", lambda *given: asked.append(given))
    for seed in (0, 7):
        evaluation._constants(check({"name": "r", "seed": seed, "model": {"id": "m"}, "data": parts}, "test"))
    assert asked[0] == asked[1]
    assert {row["target"] for row in asked[0][0]} == {f"{place} {number}" for place in "ab" for number in range(8)}
    assert [row.keys() for row in asked[0][1]] == [{"task", "target"}] * 16


def test_what_streams_in_training_streams_in_evaluation_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [sample(id=str(number), target=str(number % 3)) for number in range(12)]
    path = write_folder(tmp_path / "a", dict.fromkeys(("train", "validation", "test"), listed))
    raw = {"name": "r", "model": {"id": "m"}, "data": [{"path": str(path)}]}
    whole, streamed = (check(raw | {"mixture": {"streaming": on}}, "test") for on in (False, True))
    expected = evaluation._constants(whole), evaluation._rows(whole)[1]
    monkeypatch.setattr(Shards, "texts", _at_most_one_group(Shards.texts))
    assert (evaluation._constants(streamed), evaluation._rows(streamed)[1]) == expected
    with pytest.raises(AssertionError, match="a second list"):
        evaluation._rows(whole)


def _at_most_one_group(plain: Any) -> Any:
    """Return what gives the texts of a row group unless all are read when the data set is opened."""

    def texts(self: Shards, group: int) -> list[dict[str, Any]]:
        assert inspect.stack()[1].function != "__init__", "a second list of all texts"
        found: list[dict[str, Any]] = plain(self, group)
        return found

    return texts


def test_a_baseline_tells_the_weights_that_a_temperature_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = []
    for name, count in (("a", 16), ("b", 4)):
        listed = [sample(id=f"{name}/{number}") for number in range(count)]
        paths.append(str(write_folder(tmp_path / name, {"train": listed, "test": listed})))
    raw = {"name": "r", "model": {"id": "m"}, "data": [{"path": path} for path in paths], "mixture": {"temperature": 2}}
    told: list[Any] = []
    monkeypatch.setattr(baseline_run, "_recipe", lambda *_: check(raw, "test"))
    monkeypatch.setattr(baseline_run, "_facts", lambda recipe, data, *_: {"data": data})
    monkeypatch.setattr(baseline_run, "_earlier", lambda facts, _: told.append(facts) or "earlier")
    baseline_run.make("m", None, paths, (), "eval", tmp_path)
    # Sixteen rows to four, as square roots go: each of the four twice.
    assert [part["weight"] for part in told[0]["data"]] == [1, 2]
