"""Several pictures of a sample and examples before it, from the data through training to what is predicted."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from prepared import write_folder
from small_sets import png, sample

from medvlm.cli import run as medvlm
from medvlm.data.mixture import Mixture
from medvlm.data.sample import Image, Sample
from medvlm.errors import UsageError
from medvlm.evaluate import engines, predict
from medvlm.io import write_json
from medvlm.models import load, trained
from medvlm.models.backbones.base import Example
from medvlm.recipe.load import check
from medvlm.recipe.models import DataPart, Recipe
from medvlm.runs import Run
from medvlm.train import few_shot
from medvlm.train.few_shot import tokens_of, trained_with

ANSWERS = ("black", "white")


def noisy(seed: int, level: int) -> bytes:
    """Return a PNG about as dark or bright as `level`, unlike every other one."""
    import io

    values = np.clip(np.random.default_rng(seed).normal(level, 12, (24, 24)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    PILImage.fromarray(values).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def studies(first: int, count: int) -> list[Sample]:
    """Return studies of two views each: the first is gray, the second black or white, which is asked for."""
    chance = random.Random(first)
    found = []
    for number in range(first, first + count):
        white = chance.randrange(2)
        second = Image(noisy(2 * number + 1, 30 + 195 * white), f"{number}b.png")
        one = sample(
            f"p{number}",
            number,
            image=Image(noisy(2 * number, 128), f"{number}a.png"),
            more_images=[second],
            prompt="What shade?",
            target=ANSWERS[white],
        )
        found.append(one)
    return found


def recipe_of(data: Path, model: dict[str, str], train: dict[str, Any] | None = None, **prompts: Any) -> Recipe:
    values: dict[str, Any] = {
        "name": "views",
        "seed": 1,
        "model": {"dtype": "float32", "image_size": 56, **model},
        "adapters": dict.fromkeys(("vision_tower", "projector", "language_model", "head"), "full"),
        "data": [{"path": str(data)}],
        "prompts": prompts,
        "text": {"max_prefix_tokens": 48, "max_suffix_tokens": 8},
        "train": {
            "learning_rate": 1e-3,
            "batch_size": 4,
            "max_steps": 3,
            "epochs": 1000,
            "trackers": [],
            "eval_samples": 4,
            **(train or {}),
        },
        "eval": {"batch_size": 3, "max_new_tokens": 5},
    }
    return check(values, "test")


SMOLVLM = {"backbone": "generic", "id": "medvlm/tiny-random-smolvlm"}
FLAMINGO = {"backbone": "flamingo", "id": "medvlm/tiny-random"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    splits = {"train": studies(0, 24), "validation": studies(100, 4), "test": studies(200, 7)}
    return write_folder(tmp_path_factory.mktemp("views") / "set", splits)


def finetuned(place: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> Run:
    from medvlm.recipe.resolve import write_resolved

    monkeypatch.chdir(place)
    write_resolved(recipe, place / "views.yaml")
    assert medvlm(["finetune", "views.yaml", "--quiet"]) == 0
    return Run((place / "runs" / "latest").resolve())


def test_a_training_batch_holds_all_pictures_and_the_loss_depends_on_each(data: Path) -> None:
    recipe = recipe_of(data, SMOLVLM, max_images=2, shots=1, shots_in="both")
    torch.manual_seed(0)
    loaded = load.load_base(recipe)
    mixture = Mixture([DataPart(path=str(data))], "train", 0)
    shots = trained_with(mixture, recipe, loaded)
    from medvlm.train.collate import Examples

    example = Examples(mixture, recipe.prompts, few_shot=shots)[0]
    inputs = loaded.backbone.collate([example])
    # Two views of an example and two of the row.
    assert loaded.backbone.images_in(inputs) == 4
    assert len(example.shots) == 1
    (before,) = example.shots

    def loss(one: Example) -> float:
        with torch.no_grad():
            return float(loaded.backbone.losses(loaded.model.eval(), loaded.backbone.collate([one]))[0])

    import dataclasses

    other = PILImage.fromarray(np.full((24, 24, 3), (255, 0, 90), np.uint8))
    plain = loss(example)
    assert plain == loss(example)
    changed = [
        dataclasses.replace(example, image=other),
        dataclasses.replace(example, more_images=(other,)),
        dataclasses.replace(example, shots=(dataclasses.replace(before, image=other),)),
        dataclasses.replace(example, shots=(dataclasses.replace(before, more_images=(other,)),)),
        dataclasses.replace(example, shots=(dataclasses.replace(before, suffix="gray"),)),
    ]
    assert all(loss(one) != plain for one in changed)


def own_pictures(rows: Sequence[Sample]) -> dict[str, tuple[Any, ...]]:
    """Return id -> pictures, decoded by Pillow alone."""
    import io

    return {
        row.id: tuple(PILImage.open(io.BytesIO(one.data)).convert("RGB") for one in (row.image, *row.more_images))
        for row in rows
    }


def asked_by_hand(row: dict[str, Any], rows: Sequence[Sample]) -> Example:
    """Return what a line of predictions.jsonl says that the model was asked, made of the samples themselves."""
    known, pictures = {one.id: one for one in rows}, own_pictures(rows)

    def example(name: str, shots: tuple[Example, ...] = (), answer: bool = True) -> Example:
        one, (first, *more) = known[name], pictures[name]
        suffix = one.target if answer else None
        return Example(first, f"answer en {one.prompt}", suffix, more_images=tuple(more), shots=shots)

    return example(row["id"], tuple(example(name) for name in row["shots"]), answer=False)


@pytest.mark.parametrize("model", [SMOLVLM, FLAMINGO], ids=["smolvlm", "flamingo"])
def test_what_is_predicted_is_what_the_model_says_of_all_of_it(
    data: Path, model: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(data, model, max_images=2, shots=2, shots_in="both")
    run = finetuned(tmp_path, recipe, monkeypatch)
    assert medvlm(["eval", str(run.path), "--no-base", "--controls", "3", "--quiet"]) == 0
    scores = json.loads((run.path / "eval" / "test" / "scores.json").read_text())
    assert (scores["decoding"]["max_images"], scores["decoding"]["shots"], scores["decoding"]["shots_seed"]) == (
        2,
        2,
        1,
    )
    rows = [json.loads(line) for line in (run.path / "eval" / "test" / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 7
    loaded = trained.load(run, recipe)
    loaded.model.eval()
    for row in rows:
        inputs = loaded.backbone.collate_prompts([asked_by_hand(row, [*studies(0, 24), *studies(200, 7)])])
        with torch.inference_mode():
            # One row at a time, without padding.
            found = loaded.backbone.answer(loaded.model, inputs, 5, {"do_sample": False, "num_beams": 1})
        assert [row["prediction"]] == found, row["id"]


def test_a_run_is_scored_with_other_numbers_of_examples_and_pictures(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from medvlm.report.context import read
    from medvlm.report.reproduce import commands

    run = finetuned(tmp_path, recipe_of(data, FLAMINGO, max_images=2, shots=2), monkeypatch)
    asked = ["eval", str(run.path), "--no-base", "--controls", "none", "--quiet"]
    for shots, pictures, told in ((0, 1, {}), (1, 2, {"shots": 1, "shots_seed": 1, "max_images": 2})):
        assert medvlm([*asked, "--shots", str(shots), "--max-images", str(pictures)]) == 0, capsys.readouterr().err
        scores = json.loads((run.path / "eval" / "test" / "scores.json").read_text())
        assert {key: scores["decoding"].get(key) for key in told} == told
        assert ("shots" in scores["decoding"]) == (shots > 0)
        lines = (run.path / "eval" / "test" / "predictions.jsonl").read_text().splitlines()
        assert {len(json.loads(line).get("shots", [])) for line in lines} == {shots}
    again = next(line for line in commands(read(run.path)) if line.startswith("medvlm eval"))
    assert "--shots 1 --max-images 2" in again


def test_views_of_a_study_and_examples_with_pictures_by_the_command_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_of(data, SMOLVLM, max_images=2)
    run = finetuned(tmp_path, recipe, monkeypatch)
    pictures = {}
    for name, level in (("a", 128), ("b", 30), ("c", 140), ("d", 225), ("e", 90)):
        pictures[name] = tmp_path / f"{name}.png"
        pictures[name].write_bytes(noisy(900 + level, level))
    line = {"prompt": "What shade?", "answer": "white", "image": ["c.png", "d.png"]}
    (tmp_path / "shots.jsonl").write_text(json.dumps(line) + "\n")
    asked = ["--prompt", "What shade?", "--examples", "shots.jsonl", "--together", "--out", "said.jsonl"]
    views = [str(pictures["a"]), str(pictures["b"])]
    assert medvlm(["predict", str(run.path), *views, *asked]) == 0, capsys.readouterr().err
    (row,) = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()]
    assert [row["image"], *(one["image"] for one in row["more_images"])] == views
    assert row["examples"] == {"used": 1, "dropped": 0}
    assert row["prefix"] == "answer en What shade?"
    assert "and 1 more: " in capsys.readouterr().out

    loaded = trained.load(run, recipe)
    loaded.model.eval()
    a, b, c, d = (PILImage.open(pictures[name]).convert("RGB") for name in "abcd")
    shot = Example(c, "answer en What shade?", "white", more_images=(d,))
    whole = Example(a, "answer en What shade?", more_images=(b,), shots=(shot,))
    with torch.inference_mode():
        inputs = loaded.backbone.collate_prompts([whole])
        found = loaded.backbone.answer(loaded.model, inputs, 5, {"do_sample": False, "num_beams": 1})
    assert [row["prediction"]] == found

    # Called again nothing is asked; another picture of an example, or other views, are another question.
    assert medvlm(["predict", str(run.path), *views, *asked]) == 0
    assert "1 predictions, 1 of them made before" in capsys.readouterr().out
    more = [*views, str(pictures["e"])]
    assert medvlm(["predict", str(run.path), *more, *asked]) == 0
    told = capsys.readouterr()
    assert "1 predictions, 0 of them made before" in told.out
    assert "--together: 3 pictures; this run's recipe shows at most 2 of a sample" in told.err
    (tmp_path / "d.png").write_bytes(noisy(1, 10))
    assert medvlm(["predict", str(run.path), *views, *asked]) == 3
    assert "made by another model, question or decoding" in capsys.readouterr().err


def test_a_view_that_cannot_be_read_is_not_left_out(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finetuned(tmp_path, recipe_of(data, FLAMINGO, max_images=2), monkeypatch)
    (tmp_path / "a.png").write_bytes(png(5))
    (tmp_path / "b.png").write_bytes(b"no picture")
    views = [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert medvlm(["predict", str(run.path), *views, "--prompt", "What shade?", "--together", "--out", "x.jsonl"]) != 0
    assert "with --together nothing is asked without it" in capsys.readouterr().err
    assert not (tmp_path / "x.jsonl").exists() or not (tmp_path / "x.jsonl").read_text()


def test_a_model_of_one_picture_says_which_take_several(
    adapter_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(png(ord(name)))
    views = [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert medvlm(["predict", str(adapter_run), *views, "--prompt", "What?", "--together"]) == 2
    said = capsys.readouterr().err
    assert "--together: paligemma takes one picture" in said
    assert "generic, flamingo" in said


def test_what_chooses_its_answers_takes_no_examples(
    adapter_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from medvlm.models.backbones.paligemma import PaliGemmaBackbone

    monkeypatch.setattr(PaliGemmaBackbone, "output", "class")
    (tmp_path / "a.png").write_bytes(png(1))
    (tmp_path / "shots.jsonl").write_text('{"prompt": "q", "answer": "a"}\n')
    asked = ["--prompt", "What?", "--examples", str(tmp_path / "shots.jsonl")]
    assert medvlm(["predict", str(adapter_run), str(tmp_path / "a.png"), *asked]) == 2
    assert "--examples: paligemma chooses among answers it knows" in capsys.readouterr().err


def test_examples_have_all_a_picture_or_none(data: Path, tmp_path: Path) -> None:
    from medvlm.errors import InputError
    from medvlm.evaluate import prompting

    (tmp_path / "a.png").write_bytes(png(3))
    shots = (prompting.Shot("q", "a", "a.png"), prompting.Shot("q", "b"))
    with pytest.raises(InputError, match="example 2 has no image and others have"):
        prompting.with_pictures(shots, tmp_path)
    (seen,) = prompting.with_pictures(shots[:1], tmp_path)
    assert [one.size for one in seen.pictures] == [(8, 6)]
    assert prompting.with_pictures(shots[1:], tmp_path) == shots[1:]


def test_examples_with_pictures_give_way_to_the_models_room() -> None:
    from medvlm.evaluate.prompting import Composer, Question, Shot
    from medvlm.recipe.models import PromptsPart
    from medvlm.train.few_shot import Room

    one = PILImage.new("RGB", (8, 8))
    shots = tuple(Shot("q?", f"a{n}", "x.png", pictures=(one,) * (n + 1)) for n in range(3))
    question = Question("vqa", "q?", shots=shots)
    # Words: own 3, each example 4. Pictures of 10 tokens: two of the question, then 1 + 2 + 3.
    full = 3 + 3 * 4 + 10 * (2 + 6) + 5

    def composed(positions: int) -> Any:
        room = Room(positions, ten_a_picture)
        return Composer(question, PromptsPart(), 99, lambda text: len(text.split()), room, views=2, answer=5).plain()

    assert (composed(full).shots, composed(full).dropped) == (3, 0)
    tight = composed(full - 1)
    assert (tight.prefix, tight.shots, tight.dropped) == ("answer en q?", 2, 1)
    assert [shot.suffix for shot in tight.before] == ["a1", "a2"]
    with pytest.raises(UsageError, match="2 pictures and the prompt take more than the 27 tokens"):
        composed(3 + 20 + 5 - 1)


def ten_a_picture(example: Example) -> int:
    """Tokens of an example by its words, and 10 for each picture."""
    own = len(f"{example.prefix} {example.suffix or ''}".split()) + 10 * len(example.images)
    return own + sum(map(ten_a_picture, example.shots))


def test_a_rationale_gives_way_to_the_models_room() -> None:
    from medvlm.evaluate.prompting import Composer, Question
    from medvlm.recipe.models import PromptsPart
    from medvlm.train.few_shot import Room

    question = Question("vqa", "q?", rationale=True)
    # Words: "answer en q? Reasons:" and the rationale; two pictures of 10; an answer of 5.
    room = Room(4 + 7 + 20 + 5, ten_a_picture)
    made = Composer(question, PromptsPart(), 99, lambda text: len(text.split()), room, views=2, answer=5)
    composed, cut = made.second_pass("word " * 50)
    assert (composed.prefix.count("word"), cut) == (7, True)


@pytest.mark.parametrize("name", ["a\\u0000b.png", "\\ud800.png"])
def test_a_name_that_no_file_can_have_is_told_in_one_line(tmp_path: Path, name: str) -> None:
    from medvlm.errors import InputError
    from medvlm.evaluate.prompting import read_shots

    (tmp_path / "shots.jsonl").write_text(f'{{"prompt": "q", "answer": "a", "image": "{name}"}}\n')
    with pytest.raises(InputError, match=r"shots\.jsonl:1: expected [^\n]*optional path or paths[^\n]*$"):
        read_shots(tmp_path / "shots.jsonl")


def test_vllm_refuses_what_it_cannot_show() -> None:
    from medvlm.evaluate.engines.vllm_engine import VllmEngine

    engine = object.__new__(VllmEngine)
    one = PILImage.new("RGB", (8, 8))
    with pytest.raises(UsageError, match="--engine vllm: one picture a question"):
        engine.answers([(one, one)], ["what?"])
    with pytest.raises(UsageError, match="no examples with pictures"):
        engine.answers([one], ["what?"], [(Example(one, "q", "a"),)])


def test_what_counts_tokens_goes_to_worker_processes(data: Path) -> None:
    import pickle

    recipe = recipe_of(data, FLAMINGO, shots=1, shots_in="both")
    loaded = load.load_base(recipe)
    made = trained_with(Mixture([DataPart(path=str(data))], "train", 0), recipe, loaded)
    assert made is not None
    again = pickle.loads(pickle.dumps(made))
    test = Mixture([DataPart(path=str(data))], "test", 0)
    assert [again.of(test, place).ids for place in range(7)] == [made.of(test, place).ids for place in range(7)]
    assert tokens_of(loaded)("a nodule") > 0


@pytest.mark.parametrize("model", [SMOLVLM, FLAMINGO], ids=["smolvlm", "flamingo"])
def test_the_plan_counts_pictures_and_examples(data: Path, model: dict[str, str]) -> None:
    from medvlm.models.backbones import BACKBONES
    from medvlm.train.collate import Examples
    from medvlm.train.flops import FlopModel
    from medvlm.train.plan import make_plan

    mixture = Mixture([DataPart(path=str(data))], "train", 0)
    plain = make_plan(recipe_of(data, model), mixture)
    recipe = recipe_of(data, model, max_images=2, shots=1, shots_in="both")
    plan = make_plan(recipe, mixture)
    assert plan.batch.images == 4 * plain.batch.images
    assert plan.memory.total > plain.memory.total
    # Every row has two views, and texts of like length.
    loaded = load.load_base(recipe)
    kind = BACKBONES.get(recipe.model.backbone)
    examples = Examples(mixture, recipe.prompts, few_shot=trained_with(mixture, recipe, loaded))
    for parameter in loaded.model.parameters():
        parameter.requires_grad_(True)
    inputs = loaded.backbone.collate([examples[place] for place in range(4)])
    lengths, labels = kind.true_lengths(inputs), loaded.backbone.labels_in(inputs)
    real = FlopModel(loaded.model, recipe, kind).training(lengths, labels, kind.images_in(inputs))
    assert 4 * plan.flops_a_sample.parts["vision_tower"].forward == real.parts["vision_tower"].forward
    # The texts are estimated by their words where a base has no files; counted, they are about as long as they are.
    counts = [loaded.backbone.text_tokens(*examples_words(examples, place)) for place in range(4)]
    tokens = 4 * kind.in_sequence(kind.image_tokens_of(loaded.model.config))
    told = [tokens + before + after for before, after in few_shot.lengthened(recipe, counts)]
    assert told == pytest.approx(lengths, rel=0.15)


def test_pictures_that_no_model_of_this_size_reads_are_refused_before_training(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medvlm.errors import RecipeError
    from medvlm.models.backbones.generic import GenericBackbone
    from medvlm.train.plan import make_plan

    mixture = Mixture([DataPart(path=str(data))], "train", 0)
    # Of 2048 positions; the recipe allows more pictures than the two that a row has.
    recipe = recipe_of(data, SMOLVLM, max_images=5)
    monkeypatch.setattr(GenericBackbone, "image_tokens_of", classmethod(lambda cls, config: 1000))
    make_plan(recipe, mixture)
    monkeypatch.setattr(GenericBackbone, "image_tokens_of", classmethod(lambda cls, config: 1023))
    with pytest.raises(RecipeError) as caught:
        make_plan(recipe, mixture)
    (problem,) = caught.value.problems
    assert problem.startswith(
        "prompts.max_images: 5: the 2 pictures of p0/0, its prompt and an answer of 8 tokens take"
    )
    loaded = load.load_base(recipe)
    loaded.backbone.image_tokens = 1023
    with pytest.raises(RecipeError, match=r"this model reads 2,048 at once; expected fewer pictures"):
        trained_with(mixture, recipe, loaded)


def examples_words(examples: Any, place: int) -> tuple[str, str]:
    text = examples.mixture.text(place)
    return f"answer en {text['prompt']}", str(text["target"])


@pytest.mark.slow
def test_the_second_view_is_learned_from_and_answered_by(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = {}
    for most in (1, 2):
        place = tmp_path / str(most)
        place.mkdir()
        recipe = recipe_of(data, SMOLVLM, {"max_steps": 80, "batch_size": 8}, max_images=most)
        run = finetuned(place, recipe, monkeypatch)
        assert medvlm(["eval", str(run.path), "--no-base", "--controls", "none", "--quiet"]) == 0
        rows = [json.loads(line) for line in (run.path / "eval/test/predictions.jsonl").read_text().splitlines()]
        right[most] = sum(row["prediction"] == row["references"][0] for row in rows)
    assert right[2] == 7
    # The first view tells nothing.
    assert right[1] < 7


@pytest.mark.slow
def test_pictures_travel_to_other_processes(data: Path, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="the extra medvlm[ray] is not installed")
    recipe = recipe_of(data, FLAMINGO, max_images=2, shots=1)
    folder = tmp_path / "baseline"
    folder.mkdir()
    write_json(folder / "run.json", {"status": "finished", "kind": "baseline"})
    run = Run(folder)
    test = Mixture([DataPart(path=str(data))], "test", 0)
    found = []
    try:
        for choice in (engines.Choice(), engines.Choice(workers=2)):
            torch.manual_seed(0)
            out = tmp_path / f"{choice.workers}.jsonl"

            def engine(choice: engines.Choice = choice) -> engines.Engine:
                return engines.load(choice, run, recipe)

            from medvlm.cli.common import progress

            with progress("test", quiet=True) as bar:
                found.append(predict.predict_rows(test, range(7), recipe, engine, out, bar, fingerprint="f"))
    finally:
        ray.shutdown()
    assert [row["shots"] for row in found[0]] == [row["shots"] for row in found[1]]
    assert found[0] == found[1]
