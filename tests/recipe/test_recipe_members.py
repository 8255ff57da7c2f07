"""Stages and variants: overlays, overrides, all mistakes of all members at once, names, hashes."""

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

COMMON: dict[str, Any] = {
    "name": "two",
    "model": {"id": "m"},
    "adapters": {"projector": "full", "language_model": {"kind": "lora", "r": 4}},
    "data": [{"path": "a"}, {"path": "b"}],
    "train": {"epochs": 3, "batch_size": 2},
}
FIRST = {"name": "captions", "train": {"epochs": 5}}
SECOND = {"name": "questions", "data": [{"path": "c"}], "prompts": {"vqa": "Q {prompt}"}}


def write(folder: Path, content: Any, name: str = "r.yaml") -> str:
    path = folder / name
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return str(path)


def staged(folder: Path, *stages: Any, **changes: Any) -> str:
    return write(folder, {**COMMON, **changes, "stages": list(stages) or [FIRST, SECOND]})


def test_a_recipe_without_members_is_one_member_named_as_itself(tmp_path: Path) -> None:
    found = load_members(write(tmp_path, COMMON), ["train.clip=2"])
    assert (found.kind, found.names) == ("single", ["two"])
    assert found.members[0][1] == load_recipe(write(tmp_path, COMMON), ["train.clip=2"])


def test_overlays_merge_maps_and_replace_lists(tmp_path: Path) -> None:
    found = load_members(staged(tmp_path))
    assert (found.name, found.kind, found.names) == ("two", "stages", ["captions", "questions"])
    first, second = (recipe for _, recipe in found.members)
    assert (first.name, second.name) == ("two-captions", "two-questions")
    assert (first.train.epochs, second.train.epochs) == (5, 3)
    assert (first.train.batch_size, second.train.batch_size) == (2, 2)
    assert [part.path for part in first.data] == ["a", "b"]
    assert [part.path for part in second.data] == ["c"]
    assert (first.prompts.vqa, second.prompts.vqa) == ("answer {language} {prompt}", "Q {prompt}")


def test_overrides_reach_every_member_or_one(tmp_path: Path) -> None:
    overrides = ["stages.questions.train.epochs=9", "train.epochs=1", "stages.captions.data.1.cap=7", "name=other"]
    found = load_members(staged(tmp_path), overrides)
    first, second = (recipe for _, recipe in found.members)
    assert (first.train.epochs, second.train.epochs) == (1, 9)
    assert [part.cap for part in first.data] == [None, 7]
    assert (found.name, first.name) == ("other", "other-captions")


def test_a_key_below_a_list_is_set_in_every_element(tmp_path: Path) -> None:
    found = load_members(staged(tmp_path), ["data.cache_features=true", "stages.captions.data.weight=2"])
    first, second = (recipe for _, recipe in found.members)
    assert [part.cache_features for part in (*first.data, *second.data)] == [True] * 3
    assert [part.weight for part in (*first.data, *second.data)] == [2, 2, 1]


def test_an_override_of_one_member_leaves_the_others(tmp_path: Path) -> None:
    path = staged(tmp_path, {"name": "x"}, {"name": "y"})
    found = load_members(path, ["stages.x.data.0.cap=3", "stages.x.adapters.projector.learning_rate=1e-3"])
    first, second = (recipe for _, recipe in found.members)
    assert (first.data[0].cap, second.data[0].cap) == (3, None)
    assert (first.adapters.projector.learning_rate, second.adapters.projector.learning_rate) == (1e-3, None)


def test_names_with_dots_are_told_apart(tmp_path: Path) -> None:
    content = {**COMMON, "variants": [{"name": "opt"}, {"name": "opt.2"}]}
    found = load_members(write(tmp_path, content), ["variants.opt.2.seed=5", "variants.opt.seed=6"])
    assert [recipe.seed for _, recipe in found.members] == [6, 5]


def test_extends_works_through(tmp_path: Path) -> None:
    staged(tmp_path)
    write(tmp_path, {"extends": "r.yaml", "name": "child", "train": {"batch_size": 8}}, "child.yaml")
    found = load_members(str(tmp_path / "child.yaml"))
    assert [recipe.train.batch_size for _, recipe in found.members] == [8, 8]
    assert [recipe.name for _, recipe in found.members] == ["child-captions", "child-questions"]


def test_all_mistakes_of_all_members_are_told_at_once(tmp_path: Path) -> None:
    wrong = staged(
        tmp_path,
        {"name": "captions", "train": {"epochs": 1}},
        {"name": "questions", "train": {"batchsize": 2}, "adapters": {"head": "ful"}},
        train={"epochs": -1, "clipp": 1},
    )
    with pytest.raises(RecipeError) as raised:
        load_members(wrong, ["stages.questions.seed=-1"])
    problems = {text.split(": ")[0]: text for text in raised.value.problems}
    assert len(problems) == len(raised.value.problems)
    assert set(problems) == {
        "train.clipp",
        "stages.questions.train.epochs",
        "stages.questions.train.batchsize",
        "stages.questions.adapters.head.kind",
        "stages.questions.seed",
    }
    assert 'did you mean "clip"?' in problems["train.clipp"]
    assert 'did you mean "batch_size"?' in problems["stages.questions.train.batchsize"]


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"stages": []}, "stages: expected a list of maps"),
        ({"stages": "captions"}, "stages: expected a list of maps"),
        ({"stages": [{"train": {}}, {"name": 3}]}, "stages.0.name: missing; stages.1.name: 3: expected letters"),
        ({"variants": [{"name": "a"}, {"name": "a"}]}, "variants.1.name: 'a': the name of another one too"),
        ({"variants": [{"name": "a/b"}]}, "variants.0.name: 'a/b': expected letters"),
        ({"variants": [{"name": "a"}], "stages": [{"name": "b"}]}, "either stages or variants"),
        ({"stages": [{"name": "a", "stages": [{"name": "b"}]}]}, "stages.a.stages: unknown key"),
        ({"stages": [{"name": "a", "adapters": {"head": "dora"}}]}, "dora cannot stand beside"),
    ],
)
def test_malformed_members(tmp_path: Path, members: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as raised:
        load_members(write(tmp_path, {**COMMON, **members}))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_unknown_member_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r'no "question" among the stages .did you mean "questions"'):
        load_members(staged(tmp_path), ["stages.question.seed=1"])
    with pytest.raises(UsageError, match='no "variants'):
        load_members(staged(tmp_path), ["variants.captions.seed=1"])
    with pytest.raises(UsageError, match="neither stages nor variants"):
        load_members(write(tmp_path, COMMON), ["stages.captions.seed=1"])


@pytest.mark.parametrize(
    ("adapters", "lost"),
    [
        ({}, ""),
        ({"projector": "frozen"}, "stages.questions.adapters.projector: frozen"),
        ({"language_model": {"r": 8}}, "stages.questions.adapters.language_model: lora"),
        ({"language_model": {"kind": "full"}}, "stages.questions.adapters.language_model: full"),
        ({"projector": {"kind": "full", "learning_rate": 1e-3}, "head": "lora"}, ""),
    ],
)
def test_what_a_stage_trained_is_not_lost_in_the_next(tmp_path: Path, adapters: dict[str, Any], lost: str) -> None:
    path = staged(tmp_path, FIRST, {**SECOND, "adapters": adapters})
    if not lost:
        assert len(load_members(path).members) == 2
        return
    with pytest.raises(RecipeError, match=lost):
        load_members(path)


def test_variants_may_differ_where_stages_may_not(tmp_path: Path) -> None:
    content = {**COMMON, "variants": [FIRST, {**SECOND, "adapters": {"projector": "frozen"}}]}
    assert load_members(write(tmp_path, content)).kind == "variants"


def test_a_recipe_of_several_runs_is_not_one(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="several runs"):
        load_recipe(staged(tmp_path))


def test_only_selects_in_the_order_of_the_recipe(tmp_path: Path) -> None:
    found = load_members(staged(tmp_path))
    assert found.selected(None) == ["captions", "questions"]
    assert found.selected("questions, captions") == ["captions", "questions"]
    with pytest.raises(UsageError, match='did you mean "captions"'):
        found.selected("caption")
    with pytest.raises(UsageError, match="neither stages nor variants"):
        load_members(write(tmp_path, COMMON)).selected("two")


def test_the_hash_of_a_group_is_that_of_its_resolved_recipes(tmp_path: Path) -> None:
    found = load_members(staged(tmp_path))
    assert load_members(staged(tmp_path), ["train.batch_size=2"]).hash == found.hash
    assert load_members(staged(tmp_path), ["stages.questions.seed=1"]).hash != found.hash


MEMBERS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "train", "data", "model", "stages", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(MEMBERS, st.sampled_from(["stages", "variants"]))
def test_whatever_the_members_hold_the_error_is_ours(
    tmp_path_factory: pytest.TempPathFactory, content: Any, kind: str
) -> None:
    path = write(tmp_path_factory.mktemp("fuzz"), {**COMMON, kind: content})
    with contextlib.suppress(InputError):
        load_members(path)
