"""What the rows of a table come from: resumable predictions, and the best constant answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from medvlm.cli.common import progress
from medvlm.evaluate import baselines, predict, resume
from medvlm.evaluate.metrics import score
from medvlm.recipe.load import check

RECIPE = check({"name": "r", "model": {"id": "m"}, "data": [{"path": "d"}], "eval": {"batch_size": 3}}, "test")


class Table:
    """A mixture of ten rows whose pictures are their own numbers."""

    def text(self, place: int) -> dict[str, Any]:
        return {
            "id": f"g/{place}",
            "task": "vqa",
            "prompt": "x" * place,
            "target": f"t{place}",
            "group": f"g{place // 2}",
        }

    def texts(self) -> list[dict[str, Any]]:
        return [self.text(place) for place in range(10)]

    def image(self, place: int) -> Any:
        return place


class Answers:
    """Stands in for a model: answers with the picture it was shown, and dies on demand."""

    def __init__(self, dies_after: int | None = None) -> None:
        self.shown: list[Any] = []
        self.dies_after = dies_after

    def answers(self, images: list[Any], prefixes: list[str]) -> list[str]:
        if self.dies_after is not None and len(self.shown) >= self.dies_after:
            raise KeyboardInterrupt
        self.shown += images
        return [f"saw {image}" if isinstance(image, int) else "saw gray" for image in images]


def rows_of(
    path: Path, model: Answers, fingerprint: str = "f", picture: str = "own", places: Sequence[int] = range(10)
) -> list[dict[str, Any]]:
    with progress("test", quiet=True) as bar:
        return predict.predict_rows(
            Table(), places, RECIPE, lambda: model, path, bar, fingerprint=fingerprint, picture=picture  # type: ignore[arg-type,return-value]
        )  # fmt: skip


def test_an_interrupted_prediction_goes_on_without_a_lost_or_double_row(tmp_path: Path) -> None:
    path = tmp_path / "eval" / "predictions.jsonl"
    first = Answers(dies_after=6)
    with pytest.raises(KeyboardInterrupt):
        rows_of(path, first)
    assert not path.exists()
    partial = path.with_name(".predictions.jsonl.partial")
    # A kill in the middle of a line costs that line only.
    partial.write_text(partial.read_text(encoding="utf-8")[:-9], encoding="utf-8")
    again = Answers(dies_after=3)
    with pytest.raises(KeyboardInterrupt):
        rows_of(path, again)
    assert len(partial.read_text(encoding="utf-8").splitlines()) == 8
    second = Answers()
    rows = rows_of(path, second)
    assert len(second.shown) == 2
    assert [row["id"] for row in rows] == [f"g/{i}" for i in range(10)]
    assert [row["prediction"] for row in rows] == [f"saw {i}" for i in range(10)]
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == rows
    assert not partial.exists()
    third = Answers()
    assert rows_of(path, third) == rows
    assert third.shown == []


def test_predictions_of_another_model_are_not_used(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    rows_of(path, Answers())
    again = Answers()
    rows_of(path, again, fingerprint="other")
    assert len(again.shown) == 10


def test_rows_that_somebody_removed_are_generated_again(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    rows = rows_of(path, Answers())
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:4] + lines[6:]), encoding="utf-8")
    model = Answers()
    assert rows_of(path, model) == rows
    assert sorted(model.shown) == [4, 5]
    assert len(path.read_text(encoding="utf-8").splitlines()) == 10


def test_a_smaller_evaluation_later_loses_no_prediction(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    rows_of(path, Answers())
    model = Answers()
    rows = rows_of(path, model, places=[3])
    assert [row["id"] for row in rows] == ["g/3"]
    assert model.shown == []
    assert len(path.read_text(encoding="utf-8").splitlines()) == 10


class Killed(BaseException):
    pass


def killed_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, path: Path, call: Callable[[], Any]) -> None:
    """Call what dies where `owner.name` is about to be called with `path`."""
    real = getattr(owner, name)

    def dying(at: Path, *rest: Any) -> Any:
        if at == path:
            raise Killed
        return real(at, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dying)
        with pytest.raises(Killed):
            call()


@pytest.mark.parametrize("before", [("another", range(10)), ("f", range(4))])
@pytest.mark.parametrize("after", [range(10), range(2)])
def test_killed_before_the_file_takes_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: tuple[str, range], after: range
) -> None:
    path = tmp_path / "p.jsonl"
    rows_of(path, Answers(), before[0], places=before[1])
    killed_at(monkeypatch, predict, "atomic_write", path, lambda: rows_of(path, Answers()))
    again = Answers()
    rows = rows_of(path, again, places=after)
    assert again.shown == []
    assert [row["id"] for row in rows] == [f"g/{i}" for i in after]
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == [f"g/{i}" for i in range(10)]
    assert list(resume.known(path, "f")) == [f"g/{i}" for i in range(10)]
    assert not path.with_name(".p.jsonl.partial").exists()


def test_killed_before_it_is_recorded_who_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.jsonl"
    rows_of(path, Answers())
    killed_at(monkeypatch, resume, "write_fingerprint", path, lambda: rows_of(path, Answers(), "another"))
    again = Answers()
    rows_of(path, again)
    assert len(again.shown) == 10


def test_a_last_line_that_was_cut_off_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    rows = rows_of(path, Answers())
    # Cut between the brace and the line end it is JSON, but the next row would be appended to it.
    path.write_bytes(path.read_bytes()[:-1])
    assert list(resume.known(path, "f").values()) == rows[:-1]


def test_line_separators_within_a_text_are_no_line_ends(tmp_path: Path) -> None:
    class Odd(Answers):
        def answers(self, images: list[Any], prefixes: list[str]) -> list[str]:
            return [text + "\u2028\x85end" for text in super().answers(images, prefixes)]

    rows = rows_of(tmp_path / "p.jsonl", Odd())
    again = Odd()
    assert rows_of(tmp_path / "p.jsonl", again) == rows
    assert again.shown == []


def test_blank_images_show_nothing(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "p.jsonl", Answers(), picture="blank")
    assert {row["prediction"] for row in rows} == {"saw gray"}


def row(task: str, target: str) -> dict[str, Any]:
    return {"task": task, "target": target}


def test_the_constant_is_the_best_of_all_training_targets_by_exhaustive_search() -> None:
    texts = [
        "a small nodule in the left lung",
        "no nodule",
        "the heart is large",
        "a small nodule",
        "the lung is clear",
    ]
    train = [row("caption", text) for text in texts for _ in range(len(text) % 3 + 1)]
    held_out = [row("caption", t) for t in ("a small nodule in the right lung", "a nodule in the left lung", "clear")]
    found = baselines.best_constants(train, held_out, seed=0)
    references = [[r["target"]] for r in held_out]
    best = max(texts, key=lambda text: score(["cider"], [text] * 3, references).values["cider"])
    assert found == {"caption": baselines.Constant(best, 5, 5)}


def test_the_constant_answer_to_questions_is_the_most_frequent() -> None:
    train = [row("vqa", text) for text in ("yes", "no", "left", "no")]
    held_out = [row("vqa", text) for text in ("Yes", "no", "yes", "no", "yes")]
    assert baselines.best_constants(train, held_out, seed=0)["vqa"].text == "yes"


def test_the_constant_answer_is_found_by_words_as_accuracy_compares_them() -> None:
    train = [row("vqa", text) for text in ("Left lung", "the right lung.", "yes")]
    held_out = [row("vqa", text) for text in ("yes", "Right lung", "the right lung", "right lung!", "left lung")]
    text = baselines.best_constants(train, held_out, seed=0)["vqa"].text
    accuracy = {
        target: score(["vqa"], [target] * 5, [[r["target"]] for r in held_out], held_out).values["accuracy"]
        for target in ("Left lung", "the right lung.", "yes")
    }
    assert text == max(accuracy, key=accuracy.__getitem__) == "the right lung."


def test_many_candidates_are_sampled_and_the_order_of_rows_does_not_matter() -> None:
    train = [row("report", f"report number {i}") for i in range(2600)]
    held_out = [row("report", f"report number {i}") for i in range(0, 900, 100)]
    found = baselines.best_constants(train, held_out, 1)
    assert found == baselines.best_constants(train[::-1], held_out, 1)
    assert (found["report"].tried, found["report"].distinct) == (2000, 2600)


def test_the_screen_lets_the_best_through() -> None:
    """With 280 wordings of phantoms the winner is that of an exhaustive search."""
    import random

    from medvlm.data.sources.phantom import grammar
    from medvlm.data.sources.phantom.spec import random_spec

    rng = random.Random(5)
    texts = [grammar.caption(random_spec(rng), rng) for _ in range(400)]
    train, held_out = [row("caption", text) for text in texts[:300]], [row("caption", text) for text in texts[300:]]
    found = baselines.best_constants(train, held_out, seed=0)["caption"]
    assert found.tried > baselines.SCREENED
    references = [[r["target"]] for r in held_out]
    values = {text: score(["cider"], [text] * 100, references).values["cider"] for text in sorted(set(texts[:300]))}
    assert values[found.text] == pytest.approx(max(values.values()))
