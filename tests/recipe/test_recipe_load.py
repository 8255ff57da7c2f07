"""Recipes: every mistake at once with its dotted path, overrides, `extends`, and the shipped ones."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from medvlm.errors import InputError, RecipeError, UsageError
from medvlm.recipe import load_members, load_recipe
from medvlm.recipe.load import check
from medvlm.recipe.resolve import read_resolved, recipe_hash, write_resolved
from medvlm.resources import shipped

GOOD: dict[str, Any] = {"name": "r", "model": {"id": "m"}, "data": [{"path": "d"}]}


def write(folder: Path, content: Any, name: str = "r.yaml") -> str:
    path = folder / name
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return str(path)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    wrong = {
        "name": "r",
        "model": {"id": "m", "image_sze": 448},
        "adapters": {"projector": "ful", "language_model": {"kind": "lora", "r": "many"}},
        "data": [{"path": "d", "wieght": 2}],
        "train": {"epochs": -1, "learning_rate": "fast"},
    }
    with pytest.raises(RecipeError) as raised:
        load_recipe(write(tmp_path, wrong), ["train.warmup=2"])
    problems = {text.split(": ")[0]: text for text in raised.value.problems}
    assert set(problems) == {
        "model.image_sze",
        "adapters.projector.kind",
        "adapters.language_model.r",
        "data.0.wieght",
        "train.epochs",
        "train.learning_rate",
        "train.warmup",
    }
    assert 'did you mean "image_size"?' in problems["model.image_sze"]
    assert 'did you mean "weight"?' in problems["data.0.wieght"]
    assert "'ful': expected 'lora', 'dora', 'rslora', 'full' or 'frozen'" in problems["adapters.projector.kind"]
    assert "'fast': expected a valid number" in problems["train.learning_rate"]
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: [1", "not YAML"),
        ("- 1\n- 2", "expected keys and values, found a list"),
        ("", "expected keys and values, found nothing"),
        ("name: r", "model: missing"),
        ({**GOOD, "data": []}, "data"),
        ({**GOOD, "adapters": {"language_model": "frozen"}}, "nothing would be trained"),
        ({**GOOD, "adapters": {"vision_tower": "dora"}}, "dora cannot stand beside lora"),
        ({**GOOD, "adapters": {"vision_tower": {"kind": "lora", "dropout": 0.1}}}, "share one dropout"),
        (
            {**GOOD, "adapters": {"vision_tower": "lora"}, "data": [{"path": "d", "cache_features": True}]},
            "the vision tower is trained",
        ),
        ({**GOOD, "model": {"id": "m", "vision_tower": "v"}}, "expected either id, or vision_tower and language_model"),
        ({**GOOD, "model": {"vision_tower": "v", "backbone": "git_llm"}}, "expected either id, or vision_tower"),
        (
            {**GOOD, "model": {"vision_tower": "v", "language_model": "l"}},
            "backbone: git_llm, flamingo, visual_bert or lxmert",
        ),
        (
            {**GOOD, "model": {"vision_tower": "v", "language_model": "l", "backbone": "git_llm"}},
            "the projector between the two models is new",
        ),
        (
            {**GOOD, "adapters": {"language_model": "full"}, "quantization": {"mode": "nf4"}},
            "cannot be trained in full",
        ),
        ({**GOOD, "prompts": {"vqa": "answer {qestion}"}}, "only {prompt} and {language}"),
        ({**GOOD, "prompts": {"vqa": "Q: {prompt!s}"}}, "only {prompt} and {language}"),
        ({**GOOD, "prompts": {"vqa": "answer {language}"}}, "a question needs its place"),
        ({**GOOD, "model": {"id": "m", "attention": "flash_attention_2"}}, "expected 'auto', 'sdpa' or 'eager'"),
        ({**GOOD, "name": "../x"}, "name"),
        ({**GOOD, "seed": True}, "seed"),
    ],
)
def test_one_mistake(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(RecipeError) as raised:
        load_recipe(write(tmp_path, content))
    assert said in str(raised.value)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(RecipeError, match="not a text file"):
        load_recipe(str(path))


def test_a_missing_recipe_names_the_nearest_shipped_one() -> None:
    with pytest.raises(InputError, match=r'did you mean "paligemma448\.yaml"'):
        load_recipe("recipes/paligema448.yaml")


@pytest.mark.parametrize("name", ["recipes/tiny.yaml", "tiny.yaml", "tiny"])
def test_a_shipped_recipe_is_found_from_any_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_recipe(name).name == "tiny"


def test_a_recipe_here_goes_before_a_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, GOOD, "tiny.yaml")
    assert load_recipe("tiny.yaml").name == "r"


@pytest.mark.parametrize("path", sorted(shipped("recipes").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_recipe_is_right_and_opens_with_its_command(path: Path) -> None:
    load_members(str(path))
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# medvlm ")
    for word in ("Memory:", "License:"):
        assert word in text


def test_overrides_reach_every_level(tmp_path: Path) -> None:
    recipe = load_recipe(
        write(tmp_path, {**GOOD, "adapters": {"projector": "full", "language_model": "lora"}}),
        ["train.learning_rate=3e-5", "adapters.language_model.r=4", "data.0.cap=10", "data.0.weight=2", "seed=7"],
    )
    assert recipe.train.learning_rate == 3e-5
    assert recipe.adapters.language_model.r == 4
    assert (recipe.data[0].cap, recipe.data[0].weight) == (10, 2.0)
    assert recipe.seed == 7


@pytest.mark.parametrize(
    "text", ["seed", "=3", "seed=[", "data.7.path=x", "data.path.x=1", "model.id.x=1", "name.first=a.b.c", "a b=c"]
)
def test_malformed_overrides(tmp_path: Path, text: str) -> None:
    with pytest.raises((UsageError, RecipeError)):
        load_recipe(write(tmp_path, GOOD), [text])


def test_extends_lays_one_recipe_over_another(tmp_path: Path) -> None:
    write(tmp_path, {**GOOD, "train": {"batch_size": 4, "clip": 2.0}}, "base.yaml")
    recipe = load_recipe(write(tmp_path, {"extends": "base.yaml", "train": {"batch_size": 8}}))
    assert (recipe.train.batch_size, recipe.train.clip, recipe.model.id) == (8, 2.0, "m")
    write(tmp_path, {"extends": "b.yaml"}, "a.yaml")
    write(tmp_path, {"extends": "a.yaml"}, "b.yaml")
    with pytest.raises(RecipeError, match="circle"):
        load_recipe(str(tmp_path / "a.yaml"))


@pytest.mark.parametrize("word", ["on", "off"])
def test_on_and_off_need_no_quotes(tmp_path: Path, word: str) -> None:
    text = f"{yaml.safe_dump(GOOD)}train: {{liger: {word}}}\ncompute: {{energy: off}}\n"
    recipe = load_recipe(write(tmp_path, text))
    assert (recipe.train.liger, recipe.compute.energy) == (word, "off")
    assert load_recipe(write(tmp_path, GOOD), [f"train.liger={word}"]).train.liger == word
    assert load_recipe(write(tmp_path, GOOD), ["train.liger='" + word + "'"]).train.liger == word
    with pytest.raises(RecipeError, match=r"compute\.energy: 'on': expected"):
        load_recipe(write(tmp_path, GOOD), ["compute.energy=on"])


def test_resolved_recipe_comes_back_with_the_same_hash(tmp_path: Path) -> None:
    recipe = load_recipe("tiny", ["train.learning_rate=1e-4"])
    write_resolved(recipe, tmp_path / "recipe.yaml")
    again = read_resolved(tmp_path / "recipe.yaml")
    assert again == recipe
    assert recipe_hash(again) == recipe_hash(recipe) != recipe_hash(load_recipe("tiny"))


KEYS = st.sampled_from(
    ["extends", "name", "model", "data", "train", "adapters", "eval", "x", "id", "path", "batch_size"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_whatever_yaml_holds_the_error_is_ours(tmp_path_factory: pytest.TempPathFactory, content: Any) -> None:
    path = write(tmp_path_factory.mktemp("fuzz"), yaml.safe_dump(content))
    with contextlib.suppress(InputError):
        load_recipe(path)


@pytest.mark.parametrize(
    "model",
    [
        {"id": "m", "latents": 32},
        {"id": "m", "backbone": "flamingo", "cross_every": 2},
        {"vision_tower": "v", "language_model": "l", "backbone": "git_llm", "latents": 32},
    ],
)
def test_only_a_new_flamingo_takes_sizes(model: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="only a flamingo that is put together"):
        check({**GOOD, "model": model}, "t")
