"""Nearest words against a slow reference, the models' own image features, and controls that must come out so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medvlm.errors import InputError
from medvlm.evaluate.shown import blank
from medvlm.inspect import words
from medvlm.inspect.opened import bare
from medvlm.models.backbones.base import Example


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(2, 60), k=st.integers(1, 7), block=st.integers(1, 9))
def test_the_nearest_are_those_of_a_plain_search(seed: int, rows: int, k: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    table, vectors = rng.normal(size=(rows, 5)), rng.normal(size=(4, 5))
    ids = sorted(rng.choice(rows, size=rng.integers(1, rows + 1), replace=False).tolist())
    most = min(k, len(ids))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "_ROWS", block)
        best, places, mean = words.nearest(
            torch.tensor(vectors, dtype=torch.float32), torch.tensor(table, dtype=torch.float32), ids, most
        )
    for number, vector in enumerate(vectors):
        cosines = [float(vector @ table[i] / np.linalg.norm(vector) / np.linalg.norm(table[i])) for i in ids]
        order = sorted(range(len(ids)), key=lambda at: -cosines[at])[:most]
        assert places[number] == order
        assert best[number].tolist() == pytest.approx([cosines[at] for at in order], abs=1e-5)
        assert float(mean[number]) == pytest.approx(float(np.mean(cosines)), abs=1e-5)


def test_words_are_neither_special_nor_places(adapted: Any) -> None:
    tokenizer = adapted.loaded.processor.tokenizer
    ids, texts = words.vocabulary(tokenizer, 10**9)
    names = tokenizer.convert_ids_to_tokens(ids)
    assert not set(ids) & set(tokenizer.all_special_ids)
    assert not [name for name in names if name.startswith(("<loc", "<seg", "<image", "<unused"))]
    assert {"nodule", "effusion", "left"} <= set(texts)
    assert all(text and text == text.strip() and "\ufffd" not in text for text in texts)
    # Rows past the tokenizer belong to no token, and a shorter table has fewer.
    assert max(ids) < len(tokenizer)
    assert max(words.vocabulary(tokenizer, 700)[0]) < 700


@pytest.mark.parametrize("name", ["adapted", "git_llm"])
def test_what_is_compared_are_the_models_own_image_features(
    name: str, chest: Image.Image, request: pytest.FixtureRequest
) -> None:
    predictor = request.getfixturevalue(name)
    found, _ = words.image_embeddings(predictor, chest)
    pixels = predictor.loaded.backbone.collate_prompts([Example(chest, "any other words")])["pixel_values"]
    with torch.no_grad():
        features = bare(predictor.model).get_image_features(pixels)
    expected = features if isinstance(features, torch.Tensor) else features.pooler_output
    assert torch.allclose(found, expected[0], atol=1e-5)
    assert len(found) == predictor.loaded.facts["image_tokens"]


def test_git_gives_what_its_projection_gives(git: Any, chest: Image.Image) -> None:
    found, inputs = words.image_embeddings(git, chest)
    model = bare(git.model)
    with torch.no_grad():
        seen = model.git.image_encoder(inputs["pixel_values"]).last_hidden_state
        assert torch.allclose(found, model.git.visual_projection(seen)[0], atol=1e-5)


def test_a_planted_word_is_found_and_the_blank_picture_is_its_own_control(
    adapted: Any, chest: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = words.of_picture(adapted, blank(), k=3)
    assert own.controls()["same_as_blank"] == 1.0
    assert any("do not depend on what the picture shows" in said for said in own.sentences())
    tokenizer = adapted.loaded.processor.tokenizer
    number = tokenizer.encode("nodule", add_special_tokens=False)[0]
    row = bare(adapted.model).get_input_embeddings().weight[number].detach()
    real = words.image_embeddings

    def planted(predictor: Any, image: Image.Image) -> Any:
        vectors, inputs = real(predictor, image)
        if image is chest:
            vectors = vectors.clone()
            vectors[10] = 3 * row
        return vectors, inputs

    monkeypatch.setattr(words, "image_embeddings", planted)
    found = words.of_picture(adapted, chest, k=2)
    assert found.tokens[10].near[0].word == tokenizer.decode([number]).strip()
    assert found.tokens[10].near[0].cosine == pytest.approx(1.0, abs=1e-5)
    assert found.tokens[10].near[0].distance == pytest.approx(0.0, abs=1e-5)
    assert sum(count for _, count, _ in found.counts()) == len(found.tokens) == 64
    counts = [count for _, count, _ in found.counts()]
    assert counts == sorted(counts, reverse=True)


def test_the_blank_picture_has_the_pictures_own_shape(git: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    real = words.image_embeddings

    def remembered(predictor: Any, image: Image.Image) -> Any:
        sizes.append(image.size)
        return real(predictor, image)

    monkeypatch.setattr(words, "image_embeddings", remembered)
    words.of_picture(git, Image.new("RGB", (90, 40)))
    assert sizes == [(90, 40), (90, 40)]


def test_clips_class_token_stands_apart(git_llm: Any, chest: Image.Image) -> None:
    found = words.of_picture(git_llm, chest)
    assert found.grid is not None
    assert found.grid.extra == 1
    assert found.grid.rows * found.grid.columns + 1 == len(found.tokens)


def test_a_model_without_image_tokens_among_words_says_so(
    adapted: Any, chest: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(adapted.loaded.backbone), "in_sequence", classmethod(lambda cls, tokens: 1))
    with pytest.raises(InputError, match="no image tokens beside the embeddings of words"):
        words.of_picture(adapted, chest)
