"""What of each kind of backbone can be looked into, and what it says where something cannot."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from untrained_models import untrained

from medvlm.errors import InputError, UsageError
from medvlm.inspect import maps, words
from medvlm.inspect.opened import _view
from medvlm.models.backbones.base import Example

PROMPT = "is there a nodule?"


def test_a_chat_model_has_everything(chest: Image.Image) -> None:
    predictor = untrained("generic", "-smolvlm")
    found = maps.of_picture(predictor, chest, maps.Asked(PROMPT, "yes"))
    assert found.attention is not None
    assert found.occlusion is not None
    assert found.occlusion.losses.shape == (8, 8)
    grid = found.attention.grid
    assert grid is not None
    assert grid.rows * grid.columns == found.attention.layers.shape[2] == len(words.of_picture(predictor, chest).tokens)


def test_queries_have_words_and_a_share_but_no_places(chest: Image.Image) -> None:
    predictor = untrained("blip2")
    found = words.of_picture(predictor, chest)
    assert len(found.tokens) == 32
    assert found.grid is None
    seen = maps.of_picture(predictor, chest, maps.Asked(PROMPT, "yes", occlude=False))
    assert seen.attention is not None
    assert 0 < seen.attention.share() < 1
    assert seen.layers() == []
    assert any("no one grid" in said for said in seen.sentences())


def test_what_looks_aside_or_chooses_has_the_occlusion_map_alone(chest: Image.Image) -> None:
    for predictor, why in (
        (untrained("flamingo"), "its text does not attend to tokens of the picture in one sequence"),
        (untrained("vilt"), "it writes no tokens, so none of them looks anywhere"),
    ):
        found = maps.of_picture(predictor, chest, maps.Asked(PROMPT, "yes"))
        assert found.attention is None
        assert why in found.no_attention
        assert [one.drawn.title for one in found.layers()] == ["Occlusion"]
        with pytest.raises(InputError, match="no image tokens beside the embeddings of words"):
            words.of_picture(predictor, chest)


def test_a_chosen_answer_has_the_classifiers_own_probability(chest: Image.Image) -> None:
    predictor = untrained("vilt")
    found = maps.of_picture(predictor, chest, maps.Asked(PROMPT, "yes"))
    other = maps.of_picture(predictor, chest, maps.Asked(PROMPT, "no"))
    assert found.occlusion is not None
    assert other.occlusion is not None
    inputs = predictor.loaded.backbone.collate_prompts([Example(chest, PROMPT)])
    with torch.no_grad():
        logits = predictor.model(**inputs).logits[0].float()
    expected = sorted(logits.log_softmax(dim=0).tolist())
    assert sorted([found.occlusion.whole, other.occlusion.whole]) == pytest.approx(expected, rel=1e-4)
    unknown = maps.of_picture(predictor, chest, maps.Asked(PROMPT, "maybe"))
    assert unknown.no_occlusion == 'the answer "maybe" is none that this model can give'
    with pytest.raises(UsageError, match="this model chooses a whole answer"):
        maps.of_picture(predictor, chest, maps.Asked(PROMPT, "yes", words=["yes"]))


def test_a_contrastive_model_has_neither(chest: Image.Image) -> None:
    found: Any = maps.of_picture(untrained("contrastive"), chest, maps.Asked(PROMPT, "yes"))
    assert (found.attention, found.occlusion) == (None, None)
    assert "writes none" in found.no_occlusion


def test_a_cut_out_middle_is_all_that_is_seen() -> None:
    processor = SimpleNamespace(size={"shortest_edge": 100}, crop_size={"height": 80, "width": 80}, do_center_crop=True)
    assert _view(processor, Image.new("L", (400, 200))) == pytest.approx((0.3, 0.1, 0.7, 0.9))
    processor.do_center_crop = False
    assert _view(processor, Image.new("L", (400, 200))) == (0.0, 0.0, 1.0, 1.0)
    square = SimpleNamespace(
        size={"height": 80, "width": 80}, crop_size={"height": 80, "width": 80}, do_center_crop=True
    )
    assert _view(square, Image.new("L", (400, 200))) == (0.0, 0.0, 1.0, 1.0)
