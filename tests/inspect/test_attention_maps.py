"""Attention against transformers' own outputs and a slow rollout; which tokens count; the way back from eager."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medvlm.errors import UsageError
from medvlm.inspect import attention
from medvlm.inspect.opened import Grid, bare, eager
from medvlm.models.backbones.base import IGNORED, Example

ANSWER = "There is a small round nodule."


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), layers=st.integers(1, 5), size=st.integers(2, 9))
def test_rollout_is_the_product_of_whole_matrices(seed: int, layers: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    # Causal over a seen prefix, as a prefix-LM has it.
    prefix = int(rng.integers(1, size + 1))
    mask = np.tril(np.ones((size, size)))
    mask[:prefix, :prefix] = 1
    each = [raw / raw.sum(axis=1, keepdims=True) for raw in (rng.random((size, size)) * mask for _ in range(layers))]
    whole = np.eye(size)
    for one in each:
        whole = (0.5 * one + 0.5 * np.eye(size)) @ whole
    queries = torch.arange(size)
    found = attention.rollout([torch.tensor(one) for one in each], queries).numpy()
    assert np.allclose(found, whole)
    assert np.allclose(found.sum(axis=1), 1.0)
    # Nothing comes from what no layer sees.
    assert np.all(found[mask == 0] == 0)


@pytest.mark.parametrize("name", ["adapted", "git_llm"])
def test_layers_are_what_transformers_gives_at_the_positions_before(
    name: str, chest: Image.Image, request: pytest.FixtureRequest
) -> None:
    predictor = request.getfixturevalue(name)
    found = attention.of_answer(predictor, chest, "caption en", ANSWER)
    assert not isinstance(found, str)
    batch = predictor.loaded.backbone.collate([Example(chest, "caption en", ANSWER)])
    labels, ids = batch.pop("labels")[0], batch["input_ids"][0]
    model = bare(predictor.model)
    model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            seen = predictor.model(**batch, output_attentions=True).attentions
    finally:
        model.set_attn_implementation("sdpa")
    first = int((labels != IGNORED).nonzero()[0])
    image = ids == predictor.loaded.backbone.image_token_id
    count = predictor.loaded.facts["image_tokens"]
    assert int(image.sum()) == count
    assert found.layers.shape == (len(seen), len(ids) - first, count)
    for layer, one in enumerate(seen):
        for number, position in enumerate(range(first - 1, len(ids) - 1)):
            expected = one[0, :, position].mean(dim=0)
            assert float(expected.sum()) == pytest.approx(1.0, abs=1e-4)
            assert np.allclose(found.layers[layer, number], expected[image].numpy(), atol=1e-6)
    one = attention.of_answer(predictor, chest, "caption en", ANSWER, head=1)
    assert not isinstance(one, str)
    assert np.allclose(one.layers[0, 0], seen[0][0, 1, first - 1][image].numpy(), atol=1e-6)
    # Rolled out is of the mean of the heads, whichever is shown.
    assert np.allclose(one.rolled, found.rolled)
    grid = found.grid
    assert grid is not None
    assert found.map().shape == (grid.rows, grid.columns)
    assert found.map(0).sum() <= found.share(0) + 1e-9 <= 1 + 1e-6
    assert "".join(found.tokens).startswith(("There is", " There is"))


def test_a_head_that_is_not_there(adapted: Any, chest: Image.Image) -> None:
    with pytest.raises(UsageError, match=r"--head 4: expected 0 to 3"):
        attention.of_answer(adapted, chest, "caption en", ANSWER, head=4)


def test_git_has_its_picture_in_front(git: Any, chest: Image.Image) -> None:
    found = attention.of_answer(git, chest, "", "a nodule")
    assert not isinstance(found, str)
    assert found.layers.shape[2] == git.loaded.facts["image_tokens"]
    assert found.grid is not None
    assert found.grid.extra == 1
    assert 0 < found.share() < 1
    batch = git.loaded.backbone.collate([Example(chest, "", "a nodule")])
    batch.pop("logits_to_keep", None)
    batch.pop("labels")
    model = bare(git.model)
    own = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            seen = git.model(**batch, output_attentions=True).attentions
    finally:
        model.set_attn_implementation(own)
    ahead = found.layers.shape[2]
    words = batch["input_ids"].shape[1]
    assert seen[0].shape[-1] == ahead + words
    assert found.layers.shape[1] == words - 1
    for layer, one in enumerate(seen):
        # Each token after the first is said by the one before it.
        expected = one[0, :, ahead : ahead + words - 1, :ahead].mean(dim=0)
        assert np.allclose(found.layers[layer], expected.numpy(), atol=1e-6)


def test_maps_are_rows_of_the_tokens_behind_the_class_token() -> None:
    layers = np.random.default_rng(0).random((2, 3, 7))
    grid = Grid(2, 3, extra=1)
    found = attention.Attention(["a", "b", "c"], [True, False, True], layers, layers.mean(axis=0), grid)
    for row in range(2):
        for column in range(3):
            at = 1 + row * 3 + column
            assert found.map(1, 2)[row, column] == layers[1, 2, at]
            assert found.map(0)[row, column] == pytest.approx(layers[0, [0, 2], at].mean())
            assert found.map()[row, column] == pytest.approx(layers[:, [0, 2], at].mean())
            assert grid.cell(at - 1) == pytest.approx((column / 3, row / 2, (column + 1) / 3, (row + 1) / 2))


def test_the_models_own_attention_comes_back(adapted: Any, git_llm: Any, chest: Image.Image) -> None:
    for predictor in (adapted, git_llm):
        model = bare(predictor.model)
        before = {
            id(part.config): part.config._attn_implementation for part in model.modules() if hasattr(part, "config")
        }
        answer = predictor.answers([chest], ["caption en"])[0]
        with eager(predictor.model):
            assert model.config.get_text_config()._attn_implementation == "eager"
        after = {
            id(part.config): part.config._attn_implementation for part in model.modules() if hasattr(part, "config")
        }
        assert before == after
        assert "sdpa" in after.values()
        assert attention.same_answer(predictor, chest, "caption en", answer)
        assert not attention.same_answer(predictor, chest, "caption en", answer + " x")


def test_words_that_can_be_about_a_picture_count(adapted: Any) -> None:
    tokenizer = adapted.loaded.processor.tokenizer
    ids = [*tokenizer(ANSWER, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    pieces, marks = attention.marked(tokenizer, ids)
    assert "".join(pieces[:-1]) == ANSWER
    counting = "".join(piece for piece, mark in zip(pieces, marks, strict=True) if mark)
    assert counting.split() == ["small", "round", "nodule"]
    _, only = attention.marked(tokenizer, ids, ["Nodule"])
    assert "".join(piece for piece, mark in zip(pieces, only, strict=True) if mark).strip() == "nodule"
    with pytest.raises(
        UsageError, match=r'"heart": none of these words is in the answer "There is a small round nodule\."'
    ):
        attention.marked(tokenizer, ids, ["heart"])
    # Where no word counts, every token of the text does; where there is no text, its end.
    assert attention.marked(tokenizer, [*tokenizer("is it", add_special_tokens=False)["input_ids"], 1])[1][-1] is False
    assert attention.marked(tokenizer, [tokenizer.eos_token_id])[1] == [True]


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=40))
def test_pieces_lose_no_letter(adapted: Any, text: str) -> None:
    tokenizer = adapted.loaded.processor.tokenizer
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    whole = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    if "\ufffd" not in whole:
        assert "".join(attention.split(tokenizer, ids)) == whole
