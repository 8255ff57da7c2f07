"""Drawn tokens: the right law, and independence of the batch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import TemperatureLogitsWarper, TopPLogitsWarper

from medvlm.evaluate.predict import Predictor, decoding
from medvlm.evaluate.sampling import SeededDraw
from medvlm.models.load import Loaded, load_base
from medvlm.recipe.load import check
from medvlm.recipe.models import EvalPart, Recipe


def nucleus(logits: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """The probabilities that transformers would draw from."""
    scores = TemperatureLogitsWarper(temperature)(None, logits)
    return TopPLogitsWarper(top_p)(None, scores).softmax(-1)


@given(st.integers(0, 10**6), st.floats(0.1, 3.0), st.floats(0.05, 1.0))
def test_only_tokens_of_the_nucleus_are_drawn(seed: int, temperature: float, top_p: float) -> None:
    logits = 3 * torch.randn(16, 40, generator=torch.Generator().manual_seed(seed))
    drawn = SeededDraw([f"{seed}:{row}" for row in range(16)], temperature, top_p)(torch.zeros(16, 1), logits)
    assert (drawn == 0).sum(-1).tolist() == [1] * 16
    chances = nucleus(logits, temperature, top_p)
    assert chances.gather(-1, drawn.argmax(-1, keepdim=True)).min() > 0


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    rows = 20_000
    logits = torch.tensor([1.0, 0.5, 2.0, -1.0, 0.0, -4.0])
    drawn = SeededDraw([str(row) for row in range(rows)], 0.8, 0.95)(torch.zeros(rows, 1), logits.repeat(rows, 1))
    counts = torch.bincount(drawn.argmax(-1), minlength=6).double()
    expected = nucleus(logits[None], 0.8, 0.95)[0].double() * rows
    inside = expected > 0
    assert counts[~inside].sum() == 0
    # Chi square with at most five degrees of freedom stays below 25.7 but once in ten thousand.
    assert ((counts - expected)[inside] ** 2 / expected[inside]).sum() < 25.7


def recipe_of(**of: object) -> Recipe:
    model = {"id": "medvlm/tiny-base", "dtype": "float32"}
    part = {"max_new_tokens": 10, **of}
    return check({"name": "r", "model": model, "data": [{"path": "d"}], "eval": part}, "test")


PICTURES = [Image.new("RGB", (40, 40), (shade, shade, shade)) for shade in (0, 90, 200)]
PREFIXES = ["caption en", "answer en is there a nodule in the left lung?", "report en"]


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load_base(recipe_of())


def test_an_answer_does_not_depend_on_its_neighbors(loaded: Loaded) -> None:
    drawing = Predictor(loaded, recipe_of(temperature=1.5, top_p=0.9), seed=7)
    together = drawing.answers(PICTURES, PREFIXES)
    alone = [drawing.answers([image], [prefix])[0] for image, prefix in zip(PICTURES, PREFIXES, strict=True)]
    turned = drawing.answers(PICTURES[::-1], PREFIXES[::-1])[::-1]
    assert together == alone == turned
    other = Predictor(loaded, recipe_of(temperature=1.5, top_p=0.9), seed=8)
    assert other.answers(PICTURES, PREFIXES) != together


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("beams", [1, 3])
def test_greedy_and_beams_are_those_of_transformers(loaded: Loaded, beams: int) -> None:
    asked = Predictor(loaded, recipe_of(num_beams=beams))
    for image, prefix in zip(PICTURES, PREFIXES, strict=True):
        processed = loaded.processor(text=f"<image>{prefix}", images=image, return_tensors="pt")
        with torch.inference_mode():
            tokens = asked.model.generate(**processed, max_new_tokens=10, do_sample=False, num_beams=beams)
        text = loaded.processor.decode(tokens[0, processed["input_ids"].shape[1] :], skip_special_tokens=True)
        assert asked.answers([image], [prefix]) == [text.strip()]


def test_decoding_is_recorded_as_it_is() -> None:
    assert decoding(recipe_of()) == {"max_new_tokens": 10, "do_sample": False, "num_beams": 1}
    assert decoding(recipe_of(num_beams=4))["num_beams"] == 4
    drawn = decoding(recipe_of(temperature=0.7, top_p=0.9), seed=3)
    assert drawn == {
        "max_new_tokens": 10,
        "do_sample": True,
        "num_beams": 1,
        "temperature": 0.7,
        "top_p": 0.9,
        "seed": 3,
    }


@pytest.mark.parametrize("of", [{"num_beams": 2, "temperature": 0.5}, {"top_p": 0.9}])
def test_ways_of_decoding_that_exclude_each_other(of: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="set "):
        EvalPart.model_validate(of)
