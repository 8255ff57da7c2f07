"""Examples of the training rows before each row: which they are, what is cut, and what the engine is given."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage
from prepared import write_folder
from small_sets import png, sample, scan

from medvlm.cli.common import progress
from medvlm.data import dedup
from medvlm.data.mixture import Mixture
from medvlm.data.sample import Image, Sample
from medvlm.errors import RecipeError
from medvlm.evaluate import predict, questions
from medvlm.evaluate.prompting import Composer, Question, Shot
from medvlm.evaluate.shown import Pictures
from medvlm.models.backbones.base import Example
from medvlm.models.backbones.paligemma import PaliGemmaBackbone
from medvlm.recipe.load import check
from medvlm.recipe.models import DataPart, Recipe
from medvlm.train import few_shot
from medvlm.train.collate import Examples
from medvlm.train.few_shot import FewShot, Room


def words(text: str) -> int:
    return len(text.split())


def recipe_of(path: Path, shots: int = 2, budget: int = 1000, seed: int = 0, **prompts: Any) -> Recipe:
    values = {
        "name": "r",
        "seed": seed,
        "model": {"id": "medvlm/tiny-base", "dtype": "float32"},
        "data": [{"path": str(path)}],
        "prompts": {"shots": shots, **prompts},
        "text": {"max_prefix_tokens": budget},
        "eval": {"batch_size": 2, "max_new_tokens": 4},
    }
    return check(values, "test")


def views(*shades: int) -> list[Image]:
    return [Image(png(shade), f"{shade}.png") for shade in shades]


def colors(pictures: Sequence[Any]) -> list[int]:
    """Return the numbers that `png` drew."""
    found = [picture.getpixel((0, 0)) for picture in pictures]
    return [red + 256 * green + 65536 * blue for red, green, blue in found]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Twelve training rows of six patients, two tasks, some with further views; rows to ask among known patients."""
    train = [
        sample(f"p{n % 6}", n, shade=n, more_images=views(100 + n) if n % 2 else [], task="vqa" if n < 9 else "caption")
        for n in range(12)
    ]
    asked = [
        sample("p1", 50, shade=50),
        # Another patient's name, and a picture of p2's: as first, and as a further one.
        sample("q2", 51, shade=2),
        sample("q3", 52, shade=52, more_images=views(53, 103)),
        sample("q4", 54, shade=54, task="caption"),
    ]
    return write_folder(tmp_path / "set", {"train": train, "test": asked, "validation": asked[:1]})


def mixture(path: Path, split: str) -> Mixture:
    return Mixture([DataPart(path=str(path))], split, 0)


class Recording:
    """Answers with what it was asked, and keeps it."""

    def __init__(self) -> None:
        self.asked: dict[str, tuple[Any, str, Any]] = {}

    def answers(self, images: Any, prefixes: Any, shots: Any = ()) -> list[str]:
        for image, prefix, own in zip(images, prefixes, shots or [()] * len(prefixes), strict=True):
            self.asked[prefix.splitlines()[-1]] = (image, prefix, own)
        return [f"to {prefix}" for prefix in prefixes]

    def count(self, text: str) -> int:
        return words(text)


def predicted(path: Path, recipe: Recipe, out: Path, **of: Any) -> tuple[list[dict[str, Any]], Recording]:
    engine, asked = Recording(), mixture(path, "test")
    given_: dict[str, Any] = {"places": range(len(asked)), "fingerprint": "f", **of}
    with progress("test", quiet=True) as bar:
        found = predict.predict_rows(asked, recipe=recipe, predictor=lambda: engine, path=out, show=bar, **given_)
    return found, engine


def before(row: dict[str, Any]) -> str:
    """Return the prefix of a row by itself."""
    return "caption en" if row["task"] == "caption" else f"answer en {row['prompt']}"


@pytest.fixture
def several(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny base as one that takes several pictures; it is not loaded here."""
    monkeypatch.setattr(PaliGemmaBackbone, "several", True)


def test_examples_are_training_rows_of_other_patients_with_other_pictures(rows: Path) -> None:
    train, test = mixture(rows, "train"), mixture(rows, "test")
    chosen = FewShot(train, recipe_of(rows, shots=99), words)
    got = [set(chosen.of(test, place).ids) for place in range(4)]
    vqa = {f"p{n % 6}/{n}" for n in range(9)}
    # Of the same task; without p1's; without the row whose picture is asked about, be it a first or a further view.
    assert got == [vqa - {"p1/1", "p1/7"}, vqa - {"p2/2"}, vqa - {"p3/3"}, {"p3/9", "p4/10", "p5/11"}]
    # A training row is no example of itself, nor its patient's other rows.
    assert set(chosen.of(train, 0).ids) == vqa - {"p0/0", "p0/6"}


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), shots=st.integers(1, 8), order=st.permutations(range(4)))
def test_they_depend_on_seed_and_row_alone(
    tmp_path_factory: pytest.TempPathFactory, seed: int, shots: int, order: list[int]
) -> None:
    path = made_once(tmp_path_factory)
    recipe = recipe_of(path, shots, seed=seed)
    train, test = mixture(path, "train"), mixture(path, "test")
    alone = [FewShot(train, recipe, words).of(test, place).ids for place in range(4)]
    together = FewShot(train, recipe, words)
    assert {place: together.of(test, place).ids for place in order} == dict(enumerate(alone))
    # Fewer are the first drawn of more, so that 2 shots and 4 compare.
    more = [FewShot(train, recipe_of(path, shots + 1, seed=seed), words).of(test, place).ids for place in range(4)]
    assert [ids[: len(own)] for ids, own in zip(more, alone, strict=True)] == alone
    assert all(len(set(ids)) == len(ids) == shots for ids in alone)


_MADE: list[Path] = []


def made_once(factory: pytest.TempPathFactory) -> Path:
    if not _MADE:
        train = [sample(f"p{n}", n, shade=n) for n in range(20)]
        asked = [sample(f"q{n}", 50 + n, shade=50 + n) for n in range(4)]
        _MADE.append(write_folder(factory.mktemp("few") / "set", {"train": train, "test": asked}))
    return _MADE[0]


def test_every_row_that_may_be_shown_is_about_equally_often(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = made_once(tmp_path_factory)
    train, test = mixture(path, "train"), mixture(path, "test")
    counted = dict.fromkeys((f"p{n}/{n}" for n in range(20)), 0)
    for seed in range(300):
        for name in FewShot(train, recipe_of(path, 2, seed=seed), words).of(test, 0).ids:
            counted[name] += 1
    # 600 draws among 20: 30 each, with a spread of about 5.
    assert min(counted.values()) > 10
    assert max(counted.values()) < 60


def test_a_row_that_a_weight_lists_twice_is_drawn_once(rows: Path) -> None:
    twice = Mixture([DataPart(path=str(rows), weight=2.0)], "train", 0)
    ids = FewShot(twice, recipe_of(rows, 99), words).of(mixture(rows, "test"), 0).ids
    assert len(set(ids)) == len(ids) == 7


@given(budget=st.integers(1, 60), shots=st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_as_texts_they_are_written_as_predict_writes_them(
    tmp_path_factory: pytest.TempPathFactory, budget: int, shots: int
) -> None:
    path = made_once(tmp_path_factory)
    recipe = recipe_of(path, shots, budget)
    train, test = mixture(path, "train"), mixture(path, "test")
    whole = FewShot(train, recipe_of(path, shots), words).of(test, 1)
    told = [train.text(place) for place in whole.places]
    listed = tuple(Shot(text["prompt"], text["target"]) for text in told)
    question = Question("vqa", test.text(1)["prompt"], shots=listed)
    found = FewShot(train, recipe, words).of(test, 1)
    own = f"answer en {test.text(1)['prompt']}"
    if words(own) > budget:
        # A question that alone is too long is cut by the backbone, as without examples.
        assert (found.prefix, found.dropped) == (own, shots)
        return
    expected = Composer(question, recipe.prompts, budget, words).plain()
    assert (found.prefix, len(found.ids), found.dropped) == (expected.prefix, expected.shots, expected.dropped)
    assert found.ids == whole.ids[found.dropped :]


def test_pictures_take_of_the_models_room(rows: Path, several: None) -> None:
    train, test = mixture(rows, "train"), mixture(rows, "test")
    recipe = recipe_of(rows, shots=3, max_images=2)
    whole = FewShot(train, recipe, words).of(test, 0)
    shown = [len(train.pictures(place, 2)) for place in whole.places]
    # All text, an answer as long as the recipe's longest, and 10 tokens for each picture.
    fixed = words(whole.whole) + recipe.text.max_suffix_tokens
    room = Room(fixed + 10 * (1 + sum(shown)), ten_a_picture)
    assert FewShot(train, recipe, words, room).of(test, 0).dropped == 0
    tight = FewShot(train, recipe, words, Room(room.positions - 1, ten_a_picture)).of(test, 0)
    assert (tight.dropped, tight.places) == (1, whole.places[1:])


def ten_a_picture(example: Example) -> int:
    """Tokens of an example by its words, and 10 for each picture."""
    own = words(f"{example.prefix} {example.suffix or ''}") + 10 * len(example.images)
    return own + sum(map(ten_a_picture, example.shots))


MODELS = {
    "flamingo": {"backbone": "flamingo", "id": "medvlm/tiny-random"},
    "smolvlm": {"backbone": "generic", "id": "medvlm/tiny-random-smolvlm"},
    "idefics": {"backbone": "generic", "id": "medvlm/tiny-random-idefics"},
}


@pytest.mark.parametrize("model", MODELS)
def test_what_fits_is_what_the_model_is_given(rows: Path, model: str) -> None:
    from medvlm.models.load import load_base

    recipe = check(
        {
            "name": "r",
            "model": {"dtype": "float32", **MODELS[model]},
            "data": [{"path": str(rows)}],
            "prompts": {"shots": 3, "max_images": 2},
            "eval": {"max_new_tokens": 4},
        },
        "test",
    )
    loaded = load_base(recipe)
    room = few_shot.room_of(loaded)
    assert room is not None
    train, test = mixture(rows, "train"), mixture(rows, "test")

    def given_tokens(made: FewShot) -> tuple[int, int]:
        """Return how many examples are shown, and the tokens that the model then reads."""
        chosen = made.of(test, 2)
        first, *more = test.pictures(2, 2)
        asked = Example(first, chosen.prefix, more_images=tuple(more), shots=made.examples(chosen))
        return len(asked.shots), loaded.backbone.collate_prompts([asked])["input_ids"].shape[1]

    answer = max(4, recipe.text.max_suffix_tokens)
    count = few_shot.tokens_of(loaded)
    shown, tokens = given_tokens(FewShot(train, recipe, count, room))
    assert shown == 3
    assert given_tokens(FewShot(train, recipe, count, Room(tokens + answer, room.length))) == (3, tokens)
    fewer, short = given_tokens(FewShot(train, recipe, count, Room(tokens + answer - 1, room.length)))
    assert fewer == 2
    assert short < tokens
    # Without any example the row itself must fit.
    alone = loaded.backbone.collate_prompts([Example(*_first_two(test, recipe))])["input_ids"].shape[1]
    few_shot.check_room(recipe, Room(alone + answer, room.length), test, 2)
    with pytest.raises(RecipeError, match=r"prompts\.max_images: 2: the 2 pictures of q3/52, its prompt and an answer"):
        few_shot.check_room(recipe, Room(alone + answer - 1, room.length), test, 2)


def _first_two(asked: Mixture, recipe: Recipe) -> tuple[Any, str, None, None, tuple[Any, ...]]:
    from medvlm.train.collate import prefix

    first, second = asked.pictures(2, 2)
    return first, prefix(asked.text(2), recipe.prompts), None, None, (second,)


def test_the_same_picture_stored_otherwise_is_no_example(tmp_path: Path) -> None:
    def stored(picture: PILImage.Image, kind: str, **options: int) -> Image:
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        return Image(buffer.getvalue(), "x")

    body = _read(scan(7)).convert("RGB")
    flat = _read(png(9)).convert("RGB")
    assert not dedup.mark(stored(flat, "PNG"))
    train = [
        sample("p0", 0, image=stored(body, "PNG")),
        sample("p1", 1, image=stored(flat, "PNG")),
        sample("p2", 2, shade=2, more_images=[stored(body, "JPEG", quality=90)]),
        sample("p3", 3, shade=3),
    ]
    asked = [
        sample("q0", 50, image=stored(body, "PNG", compress_level=1)),
        sample("q1", 51, shade=60, more_images=[stored(flat, "BMP")]),
        sample("q2", 52, image=stored(body.resize((body.width // 2, body.height // 2)), "JPEG", quality=80)),
    ]
    path = write_folder(tmp_path / "set", {"train": train, "test": asked})
    made = FewShot(mixture(path, "train"), recipe_of(path, 9), words)
    found = [set(made.of(mixture(path, "test"), place).ids) for place in range(3)]
    assert found == [{"p1/1", "p3/3"}, {"p0/0", "p2/2", "p3/3"}, {"p1/1", "p3/3"}]


def test_one_that_is_handed_on_tells_once_and_reads_no_split_anew(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_of(rows, 9)
    made = FewShot(mixture(rows, "train"), recipe, words)
    monkeypatch.setattr(questions, "few_shot_of", None)
    for picture in ("own", "blank", "shuffled"):
        predicted(rows, recipe, tmp_path / f"{picture}.jsonl", picture=picture, few_shot=lambda engine: made)
    assert capsys.readouterr().err.count("do not exist") == 1
    from medvlm.train.validation import generated

    engine: Any = Recording()
    assert len(generated(engine, mixture(rows, "test"), range(4), recipe, made)) == 4


def test_the_engine_sees_each_example_with_its_own_pictures(rows: Path, tmp_path: Path, several: None) -> None:
    recipe = recipe_of(rows, shots=2, max_images=2)
    found, engine = predicted(rows, recipe, tmp_path / "p.jsonl")
    train, by_id = mixture(rows, "train"), {}
    for place in range(len(train)):
        by_id[train.text(place)["id"]] = place
    assert [colors(engine.asked["answer en What is number 52?"][0])] == [[52, 53]]
    assert colors([engine.asked["answer en What is number 50?"][0]]) == [50]
    for row in found:
        _, prefix, shots = engine.asked[before(row)]
        assert prefix == before(row)
        assert len(row["shots"]) == len(shots) == 2
        for name, shot in zip(row["shots"], shots, strict=True):
            text, number = train.text(by_id[name]), int(name.split("/")[1])
            expected = [number, 100 + number] if number % 2 else [number]
            assert colors(shot.images) == expected
            assert shot.suffix == text["target"]
            assert shot.prefix == before(text)
    assert [json.loads(line)["shots"] for line in (tmp_path / "p.jsonl").read_text().splitlines()] == [
        row["shots"] for row in found
    ]


def test_batches_and_order_do_not_change_them(rows: Path, tmp_path: Path, several: None) -> None:
    recipe = recipe_of(rows, shots=3)
    whole, _ = predicted(rows, recipe, tmp_path / "whole.jsonl")
    one = recipe.model_copy(update={"eval": recipe.eval.model_copy(update={"batch_size": 1})})
    some, _ = predicted(rows, one, tmp_path / "some.jsonl", places=[3, 1])
    assert {row["id"]: row["shots"] for row in some}.items() <= {row["id"]: row["shots"] for row in whole}.items()


def test_controls_replace_the_questions_pictures_alone(rows: Path, tmp_path: Path, several: None) -> None:
    recipe = recipe_of(rows, shots=2, max_images=3)
    _, own = predicted(rows, recipe, tmp_path / "own.jsonl")
    found, shuffled = predicted(rows, recipe, tmp_path / "shuffled.jsonl", picture="shuffled", seed=1)
    _, gray = predicted(rows, recipe, tmp_path / "blank.jsonl", picture="blank")
    test = mixture(rows, "test")
    shades = {test.text(place)["id"]: colors(test.pictures(place, 3)) for place in range(4)}
    assert shades["q3/52"] == [52, 53, 103]
    for asked, (image, _, shots) in own.asked.items():
        (other, _, same), (blank, _, kept) = shuffled.asked[asked], gray.asked[asked]
        assert [colors(one.images) for one in same] == [colors(one.images) for one in kept]
        assert [colors(one.images) for one in same] == [colors(one.images) for one in shots]
        images, others, blanks = (x if isinstance(x, tuple) else (x,) for x in (image, other, blank))
        # All of them, by as many gray ones, or by all of one other row's.
        assert len(blanks) == len(images)
        assert {one.getpixel((0, 0)) for one in blanks} == {(127, 127, 127)}
        row = next(row for row in found if asked == before(row))
        assert colors(others) == shades[row["picture_of"]]
        assert not set(colors(others)) & set(shades[row["id"]])


def test_rows_that_share_a_view_are_not_each_others_stand_in(tmp_path: Path) -> None:
    asked = [sample(f"p{n}", n, shade=n, more_images=views(n + 1)) for n in (0, 1, 5)]
    test = mixture(write_folder(tmp_path / "set", {"test": asked}), "test")
    for seed in range(8):
        shown = Pictures(test, "shuffled", seed, most=2)
        # Rows 0 and 1 both show shade 1.
        assert [shown.of(place).of for place in (0, 1)] == ["p5/5", "p5/5"]
        assert shown.of(2).of in ("p0/0", "p1/1")


def test_predictions_with_other_examples_are_not_gone_on_with(rows: Path, tmp_path: Path) -> None:
    from medvlm.evaluate.generation import asking
    from medvlm.io import stable_hash

    one, two = recipe_of(rows, 1), recipe_of(rows, 2)
    assert asking(recipe_of(rows, 0)) == {}
    assert asking(two) == {"shots": 2, "shots_seed": 0}
    assert asking(recipe_of(rows, 0, max_images=2)) == {"max_images": 2}
    predicted(rows, one, tmp_path / "p.jsonl", fingerprint=stable_hash(asking(one)))
    found, engine = predicted(rows, two, tmp_path / "p.jsonl", fingerprint=stable_hash(asking(two)))
    assert len(engine.asked) == 4
    assert all(len(row["shots"]) == 2 for row in found)


def test_what_has_no_room_or_does_not_exist_is_told(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A question takes 6 words and one with its answer 8: one of two fits; both do where only captions are asked for.
    predicted(rows, recipe_of(rows, 2, budget=14), tmp_path / "a.jsonl")
    assert "prompts.shots: 3 of the 8 examples for 4 rows have no room" in capsys.readouterr().err.replace("\n", " ")
    predicted(rows, recipe_of(rows, 9), tmp_path / "b.jsonl")
    # 7, 8, 8 and 3 of 9 each.
    assert "prompts.shots: 10 of the 36 examples for 4 rows do not exist" in capsys.readouterr().err.replace("\n", " ")


def test_in_training_they_are_shown_only_where_asked(rows: Path, several: None) -> None:
    train = mixture(rows, "train")
    assert not few_shot.in_training(recipe_of(rows))
    recipe = recipe_of(rows, shots_in="both", max_images=2)
    assert few_shot.in_training(recipe)
    made = FewShot(train, recipe, words)
    example = Examples(train, recipe.prompts, few_shot=made)[3]
    assert colors(example.images) == [3, 103]
    assert [shot.suffix for shot in example.shots] == [train.text(p)["target"] for p in made.of(train, 3).places]
    plain = Examples(train, recipe_of(rows, 0).prompts)[3]
    assert colors(plain.images) == [3]
    assert plain.shots == ()


def test_a_backbone_that_takes_one_picture_is_told_so(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_shot, "taking_several", lambda: ["flamingo", "generic"])
    with pytest.raises(RecipeError) as caught:
        few_shot.check_shown(recipe_of(rows, max_images=2))
    expected = (
        "prompts.max_images: 2: paligemma takes one picture; expected 1, or a backbone that takes several (flamingo, "
        "generic)"
    )
    assert caught.value.problems == [expected]
    # Its examples are texts, which neither caches nor packed rows hinder.
    few_shot.check_shown(recipe_of(rows, 2, shots_in="both"))


def test_a_cache_keeps_one_picture_a_row(rows: Path, several: None) -> None:
    recipe = recipe_of(rows, 0, max_images=2)
    cached = recipe.model_copy(update={"data": [recipe.data[0].model_copy(update={"cache_pixels": True})]})
    with pytest.raises(RecipeError, match=r"data.0.cache_pixels: expected false with prompts.max_images above 1"):
        few_shot.check_shown(cached)
    few_shot.check_shown(cached, training=False)


def test_answers_that_are_chosen_take_no_examples(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PaliGemmaBackbone, "output", "class")
    with pytest.raises(RecipeError, match=r"prompts\.shots: 2: paligemma does not generate its answers; expected 0"):
        few_shot.check_shown(recipe_of(rows, 2))


def _read(data: bytes) -> PILImage.Image:
    return PILImage.open(io.BytesIO(data))


def test_further_pictures_are_read_in_order_whatever_the_reader(tmp_path: Path) -> None:
    listed = [sample("p", n, shade=n, more_images=views(*range(100 * n, 100 * n + n))) for n in range(5)]
    path = write_folder(tmp_path / "set", {"train": listed})
    whole = mixture(path, "train")
    streamed = Mixture([DataPart(path=str(path))], "train", 0, how=_streaming())
    for place, one in enumerate(listed):
        expected = [one.image.data, *(image.data for image in one.more_images)]
        for most in (1, 2, 9):
            assert whole.encoded(place, most) == streamed.encoded(place, most) == expected[:most]
            assert colors(whole.pictures(place, most)) == colors([_read(data) for data in expected[:most]])


def _streaming() -> Any:
    from medvlm.recipe.models import MixturePart

    return MixturePart(streaming=True)


def test_a_row_without_the_column_has_one_picture(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    listed: list[Sample] = [sample("p", 1, shade=1, more_images=views(2))]
    path = write_folder(tmp_path / "set", {"train": listed})
    shard = next((path / "data").glob("*.parquet"))
    table = pq.read_table(shard)
    pq.write_table(table.drop_columns(["more_images"]), shard)
    assert mixture(path, "train").encoded(0, 5) == [listed[0].image.data]
