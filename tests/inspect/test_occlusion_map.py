"""Occlusion against transformers' own loss, a model whose eye is known, and a slow mean over windows."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medvlm.errors import InputError, UsageError
from medvlm.evaluate.shown import blank
from medvlm.inspect import draw, occlusion
from medvlm.inspect.occlusion import Occlusion, Question, Windows
from medvlm.models.backbones.base import IGNORED, Example


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_cells_are_means_of_the_windows_over_them(data: st.DataObject) -> None:
    side = data.draw(st.integers(2, 60))
    window, stride = data.draw(st.integers(1, side)), data.draw(st.integers(1, side))
    windows = Windows(side, window, stride)
    boxes = windows.boxes()
    values = np.random.default_rng(side).random(len(boxes))
    found = windows.spread(values.tolist())
    cells = len(found)
    assert abs(cells * stride - side) <= stride / 2
    assert found.shape == (cells, cells)
    assert windows.spread([2.0] * len(boxes)) == pytest.approx(np.full((cells, cells), 2.0))
    assert all(0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1 for x0, y0, x1, y1 in boxes)
    if window < stride:
        assert found.min() >= values.min() - 1e-9
        assert found.max() <= values.max() + 1e-9
        return
    for row in range(cells):
        for column in range(cells):
            y, x = ((at + 0.5) / cells for at in (row, column))
            over = [v for v, b in zip(values, boxes, strict=True) if b[0] <= x < b[2] and b[1] <= y < b[3]]
            assert found[row, column] == pytest.approx(np.mean(over))


def test_windows_that_do_not_fit_are_refused() -> None:
    for window, stride in ((0, 4), (113, 14), (28, 0), (28, 200)):
        with pytest.raises(InputError, match=r"expected 1 to 112 pixels"):
            Windows(112, window, stride)


@pytest.mark.parametrize("name", ["adapted", "git_llm", "git"])
def test_probabilities_are_transformers_own_losses(
    name: str, chest: Image.Image, request: pytest.FixtureRequest
) -> None:
    predictor = request.getfixturevalue(name)
    answer = "a small nodule in the left lung"
    pictures = [chest, blank(), occlusion.hidden(chest, (0.2, 0.2, 0.6, 0.6))]
    found, tokens = occlusion.log_probabilities(predictor, iter(pictures), Question("caption en", answer))
    for picture, value in zip(pictures, found, strict=True):
        batch = predictor.loaded.backbone.collate([Example(picture, "caption en", answer)])
        batch.pop("logits_to_keep", None)
        labels = batch.pop("labels")
        with torch.no_grad():
            logits = predictor.model(**batch).logits[0].float()
        # GIT's logits begin with those of its picture.
        logits = logits[len(logits) - labels.shape[1] :]
        places = (labels[0] != IGNORED).nonzero()[:, 0]
        expected = logits.log_softmax(dim=-1)[places - 1, labels[0, places]]
        assert value == pytest.approx(float(expected.sum()), rel=1e-4)
        assert tokens == len(places)
    one, _ = occlusion.log_probabilities(predictor, iter(pictures), Question("caption en", answer), batch_size=1)
    assert one == pytest.approx(found, rel=1e-4)


def test_some_words_have_their_own_probability(adapted: Any, chest: Image.Image) -> None:
    answer = "a small nodule in the left lung"
    words = ["nodule", "left"]
    (value,), tokens = occlusion.log_probabilities(adapted, iter([chest]), Question("caption en", answer, words))
    batch = adapted.loaded.backbone.collate([Example(chest, "caption en", answer)])
    batch.pop("logits_to_keep")
    labels = batch.pop("labels")[0]
    tokenizer = adapted.loaded.processor.tokenizer
    wanted = {n for word in words for n in tokenizer(f" {word}", add_special_tokens=False)["input_ids"]}
    with torch.no_grad():
        scores = adapted.model(**batch).logits[0].log_softmax(dim=-1)
    places = [at for at in range(len(labels)) if int(labels[at]) in wanted]
    assert tokens == len(places) >= 2
    assert value == pytest.approx(sum(float(scores[at - 1, labels[at]]) for at in places), rel=1e-4)
    with pytest.raises(UsageError, match="none of these words"):
        occlusion.log_probabilities(adapted, iter([chest]), Question("caption en", answer, ["heart"]))


class Eye:
    """A model that sees brightness in one box, and is the surer of its answer the more there is."""

    output = "text"

    def __init__(self, box: tuple[int, int, int, int], side: int = 64) -> None:
        self.box, self.side = box, side
        self.sizes: set[tuple[int, int]] = set()

    def collate(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        pictures = [one.image for one in examples if one.image]
        self.sizes |= {picture.size for picture in pictures}
        seen = (picture.resize((self.side, self.side)).crop(self.box) for picture in pictures)
        return {"labels": torch.tensor([np.asarray(part, dtype=float).mean() for part in seen])}

    def losses(self, model: Any, inputs: Any) -> Any:
        seen = inputs["labels"]
        return None, 20 - seen / 10, torch.ones(len(seen))


def eye(box: tuple[int, int, int, int], side: int = 64) -> Any:
    return SimpleNamespace(
        loaded=SimpleNamespace(backbone=Eye(box, side), facts={"image_size": side}),
        recipe=SimpleNamespace(eval=SimpleNamespace(batch_size=5), model=SimpleNamespace(backbone="eye")),
        model=None,
        device="cpu",
        precision=contextlib.nullcontext,
    )


@pytest.mark.parametrize("corner", [(0, 0), (40, 8), (24, 48), (56, 56)])
def test_the_peak_is_where_the_model_looks(corner: tuple[int, int]) -> None:
    box = (corner[0], corner[1], corner[0] + 8, corner[1] + 8)
    picture = Image.new("RGB", (64, 64), (227, 227, 227))
    seen: list[tuple[int, int]] = []
    found = occlusion.of_answer(
        eye(box), picture, "p", "a", Windows(64, 16, 8), advance=lambda done, total: seen.append((done, total))
    )
    row, column = np.unravel_index(int(found.losses.argmax()), found.losses.shape)
    assert (column * 8, row * 8) == corner
    # Hidden whole it loses (227 - 127) / 10, and a cell's windows hide it whole.
    assert found.losses.max() == pytest.approx(10.0)
    assert found.whole - found.blank == pytest.approx(10.0)
    assert seen[-1] == (83, 83)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    far = found.losses[7 - row, 7 - column]
    assert far == pytest.approx(0.0)


@pytest.mark.parametrize(("side", "stride"), [(364, None), (420, None), (490, None), (364, 45), (64, 7), (101, 50)])
@pytest.mark.parametrize("spot", [(0.02, 0.02), (0.68, 0.19), (0.4, 0.83), (0.97, 0.97)])
def test_the_drawn_peak_is_there_where_strides_do_not_divide_the_side(
    side: int, stride: int | None, spot: tuple[float, float]
) -> None:
    box = [int(share * side) for share in (*spot, *spot)]
    model = eye((box[0], box[1], box[2] + 2, box[3] + 2), side)
    windows = occlusion.windows_of(model, stride=stride)
    found = occlusion.of_answer(model, Image.new("RGB", (side, side), (227, 227, 227)), "p", "a", windows)
    cells = len(found.losses)
    assert cells == 8 or stride is not None
    peak = draw.Map("m", found.losses, "nats").peak()
    # The strides lie so much beside equal cells.
    off = abs(cells * windows.stride - side) + 1e-6
    for low, high, at in zip(peak[:2], peak[2:], box[:2], strict=True):
        assert low * side - off <= at + 2
        assert at <= high * side + off


def test_the_blank_picture_is_as_oblong_as_the_picture() -> None:
    model = eye((0, 0, 8, 8))
    occlusion.of_answer(model, Image.new("RGB", (90, 40)), "p", "a", Windows(64, 32, 32))
    assert model.loaded.backbone.sizes == {(90, 40)}


def test_a_probability_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = eye((0, 0, 8, 8))
    bad = torch.tensor([math.nan])
    monkeypatch.setattr(Eye, "losses", lambda self, net, inputs: (None, bad, torch.ones(1)))
    with pytest.raises(InputError, match="probability is no finite number"):
        occlusion.log_probabilities(model, iter([blank()]), Question("p", "a"))


def test_a_picture_that_does_not_matter_is_said_to() -> None:
    flat, windows = np.zeros((8, 8)), Windows(64, 16, 8)
    said = " ".join(Occlusion(flat, -1.0, -1.05, 3, windows).sentences())
    assert "The picture does not matter for the answer: without it the same is just as probable." in said
    assert "36.8 % with the picture, 35 % with a blank one" in said
    against = Occlusion(flat, -2.0, -0.5, 3, windows, whole_answer=False).sentences()[1]
    assert against == "The picture does not speak for these words of the answer: without it the same is more probable."
    assert "Hiding any one part of the picture changes little" in Occlusion(flat, -1.0, -9.0, 3, windows).sentences()[1]
    peak = flat.copy()
    peak[2, 3] = 1.0
    assert (
        "costs most: 1.00 nats (the probability is divided by 2.72)"
        in Occlusion(peak, -1.0, -9.0, 3, windows).sentences()[1]
    )


def test_a_model_that_matches_has_no_probability_to_lose() -> None:
    model = eye((0, 0, 8, 8))
    model.loaded.backbone.output = "match"
    with pytest.raises(InputError, match="it matches pictures with texts and writes none"):
        occlusion.log_probabilities(model, iter([blank()]), Question("p", "a"))
