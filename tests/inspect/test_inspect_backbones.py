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
from medvlm.inspect.opened import _view, bare, grid_of
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


@pytest.mark.parametrize(
    ("backbone", "family", "size"),
    [("paligemma", "", (112, 112)), ("git", "", (90, 90)), ("generic", "-llava", (300, 180))],
)
def test_a_dot_changes_the_token_whose_cell_it_lies_in(backbone: str, family: str, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    predictor = untrained(backbone, family)
    base = Image.new("RGB", size, (127, 127, 127))
    before, inputs = words.image_embeddings(predictor, base)
    grid = grid_of(predictor, inputs, len(before), base)
    assert grid is not None
    for row, column in ((1, 5), (6, 2), (3, 7)):
        number = row * grid.columns + column
        x0, y0, x1, y1 = (edge * size[at % 2] for at, edge in enumerate(grid.cell(number)))
        dotted = base.copy()
        dotted.paste((255, 255, 255), (round(x0) + 3, round(y0) + 3, round(x1) - 3, round(y1) - 3))
        after, _ = words.image_embeddings(predictor, dotted)
        assert int((after - before).norm(dim=1)[grid.extra :].argmax()) == number


def test_what_only_looks_like_a_square_is_no_grid(chest: Image.Image) -> None:
    def grid(kind: str, shape: tuple[int, ...], tokens: int, **more: Any) -> Any:
        config = SimpleNamespace(model_type=kind, **more)
        loaded = SimpleNamespace(backbone=SimpleNamespace(image_processor=None))
        fake: Any = SimpleNamespace(model=SimpleNamespace(config=config), loaded=loaded)
        return grid_of(fake, {"pixel_values": torch.zeros(shape)}, tokens, chest)

    assert grid("llava", (1, 3, 64, 64), 16) is not None
    assert grid("llava", (1, 3, 64, 144), 36) is None
    assert grid("idefics2", (1, 1, 3, 70, 70), 64, perceiver_config=object()) is None
    predictor = untrained("generic", "-idefics")
    with pytest.raises(
        InputError, match=r"model.backbone: generic: it has no image tokens beside the embeddings of words"
    ):
        words.of_picture(predictor, chest)
    found = maps.of_picture(predictor, chest, maps.Asked(PROMPT, "yes", occlude=False))
    assert "does not attend to tokens of the picture in one sequence" in found.no_attention


@pytest.mark.parametrize(("backbone", "family"), [("paligemma", ""), ("git_llm", ""), ("generic", "-smolvlm")])
def test_a_cut_answer_is_said_to_be_cut(backbone: str, family: str, chest: Image.Image) -> None:
    predictor = untrained(backbone, family)
    budget = predictor.recipe.text.max_suffix_tokens
    longest = "nodule " * budget
    while (found := maps.left_out(predictor, PROMPT, longest.strip())) > 1:
        longest = longest[: -len("nodule ")]
    assert found == 1
    shown = maps.of_picture(predictor, chest, maps.Asked(PROMPT, longest.strip(), occlude=False))
    assert shown.left_out == 1
    assert "longer than text.max_suffix_tokens of the recipe: its last token is left out" in shown.sentences()[0]
    # With the end token the budget is full now, and nothing is cut.
    whole = longest[: -len("nodule ")].strip()
    assert predictor.loaded.backbone.text_tokens(PROMPT, whole)[1] == budget
    assert maps.left_out(predictor, PROMPT, whole) == 0


def test_damaged_weights_are_said_to_be_damaged(chest: Image.Image) -> None:
    predictor = untrained("git")
    bare(predictor.model).git.visual_projection.visual_projection[0].weight.data.fill_(float("nan"))
    with pytest.raises(InputError, match="no finite numbers: the weights are damaged"):
        words.of_picture(predictor, chest)
    found = maps.of_picture(predictor, chest, maps.Asked(PROMPT, "yes"))
    assert (found.attention, found.occlusion) == (None, None)
    assert "no finite number" in found.no_attention
    assert "no finite number" in found.no_occlusion


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
