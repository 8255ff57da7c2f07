"""What CLIP and SigLIP are given, what of a batch they learn, and which training text answers."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medvlm.errors import InputError, RecipeError
from medvlm.models import adapters
from medvlm.models.backbones import BACKBONES, kind_of_type
from medvlm.models.backbones.base import Example
from medvlm.models.backbones.contrastive import (
    BiasedCLIPModel,
    ContrastiveBackbone,
    image_embeddings,
    picture_keys,
    text_embeddings,
)
from medvlm.models.load import Loaded, load_base
from medvlm.recipe.load import check
from medvlm.recipe.models import Recipe
from medvlm.train.callbacks import Bounded

FAMILIES = ["clip", "siglip"]
WHOLE = {"vision_tower": "full", "projector": "full", "language_model": "full"}


def recipe(family: str, **changes: Any) -> Recipe:
    model = {"id": f"medvlm/tiny-random-{family}", "backbone": "contrastive", "dtype": "float32", "image_size": 56}
    raw: dict[str, Any] = {"name": "t", "model": model, "adapters": WHOLE, "data": [{"path": "d"}]}
    return check({**raw, **changes}, "test")


@pytest.fixture(scope="module")
def loaded() -> dict[str, Loaded]:
    return {family: load_base(recipe(family)) for family in FAMILIES}


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 70, 3), dtype=np.uint8))


EXAMPLES = [
    Example(picture(0), "caption en", "a small nodule in the left lung."),
    Example(picture(1), "answer en which side?", "right"),
    Example(picture(2), "report en", "no finding."),
]


def words(backbone: Any, row: torch.Tensor) -> str:
    text: str = backbone.tokenizer.decode(row, skip_special_tokens=True)
    return " ".join(text.replace(" ?", "?").replace(" .", ".").split())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_question_stands_before_its_answer_and_a_caption_alone(loaded: dict[str, Loaded], family: str) -> None:
    backbone = loaded[family].backbone
    batch = backbone.collate(EXAMPLES)
    marks = "" if family == "siglip" else "."
    asked = "which side right" if family == "siglip" else "which side? right"
    texts = [words(backbone, row) for row in batch["input_ids"]]
    assert texts == [f"a small nodule in the left lung{marks}", asked, f"no finding{marks}"]


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_are_those_of_the_processor(loaded: dict[str, Loaded], family: str) -> None:
    backbone = loaded[family].backbone
    texts = ["a small nodule in the left lung.", "which side? right", "no finding."]
    padding = {"padding": "max_length", "max_length": 64} if family == "siglip" else {"padding": True}
    theirs = loaded[family].processor.tokenizer(texts, return_tensors="pt", **padding)
    ours = backbone.collate(EXAMPLES)
    assert torch.equal(ours["input_ids"], theirs["input_ids"])
    if family == "siglip":
        assert ours["input_ids"].shape == (3, 64)
        assert bool((ours["attention_mask"] == 1).all())
    else:
        assert torch.equal(ours["attention_mask"], theirs["attention_mask"])


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=40, deadline=None)
@given(
    question=st.text(max_size=400), target=st.text(max_size=900), most=st.tuples(st.integers(1, 90), st.integers(2, 90))
)
def test_no_text_is_longer_than_the_tower_reads_or_ends_otherwise(
    loaded: dict[str, Loaded], family: str, question: str, target: str, most: tuple[int, int]
) -> None:
    made = loaded[family]
    backbone = ContrastiveBackbone(
        made.processor, image_tokens=17, max_prefix_tokens=most[0], max_suffix_tokens=most[1]
    )
    row = backbone.row(question, target)
    limit, end = (64, 1) if family == "siglip" else (77, 1)
    assert len(row) <= limit
    assert row[-1] == end
    assert row.count(end) == 1
    assert sum(backbone.text_tokens(f"answer en {question}", target)) <= limit
    asked, answer = backbone.text_tokens("caption en", target)
    assert asked == len(backbone.start)
    assert answer <= most[1]


def test_a_text_cannot_end_itself(loaded: dict[str, Loaded]) -> None:
    backbone: Any = loaded["clip"].backbone
    assert backbone.row("", "a <|endoftext|> b") == backbone.row("", "a b")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_of_a_batch_is_that_of_transformers(loaded: dict[str, Loaded], family: str) -> None:
    model, backbone = loaded[family].model.eval(), loaded[family].backbone
    batch = backbone.collate(EXAMPLES)
    theirs = model(input_ids=batch["input_ids"], pixel_values=batch["pixel_values"], return_loss=True)
    loss, sums, counts = backbone.losses(model, batch)
    assert loss.item() == pytest.approx(theirs.loss.item(), abs=1e-5)
    assert sums.mean().item() == pytest.approx(theirs.loss.item(), abs=1e-5)
    assert counts.tolist() == [1, 1, 1]
    assert backbone.losses(model, batch, count=6)[0].item() == pytest.approx(theirs.loss.item() / 2, abs=1e-5)
    assert backbone.labels_in(batch) == 3


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_text_or_picture_in_a_batch_is_no_negative(loaded: dict[str, Loaded], family: str) -> None:
    model, backbone = loaded[family].model.eval(), loaded[family].backbone
    once = backbone.losses(model, backbone.collate(EXAMPLES))[1]
    twice = [*EXAMPLES, dataclasses.replace(EXAMPLES[0], image=picture(9))]
    sums = backbone.losses(model, backbone.collate(twice))[1]
    # To the first row the other picture of its text is nothing; to the second row both are negatives.
    assert sums[0].item() == pytest.approx(once[0].item(), abs=1e-4)
    assert sums[1].item() > once[1].item()


def test_pictures_are_told_apart_by_their_pixels() -> None:
    gray = torch.randint(0, 255, (2, 1, 4, 4), dtype=torch.uint8)
    color = gray.expand(2, 3, 4, 4)
    assert torch.equal(picture_keys(gray), picture_keys(color))
    assert len(set(picture_keys(gray).tolist())) == 2
    other = color.clone()
    other[0, 2, 0, 0] += 1
    assert picture_keys(other)[0] != picture_keys(color)[0]
    assert picture_keys(other)[1] == picture_keys(color)[1]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_embeddings_do_not_depend_on_order_padding_or_attention(
    loaded: dict[str, Loaded], family: str, implementation: str
) -> None:
    model: Any = loaded[family].model.eval()
    backbone: Any = loaded[family].backbone
    rows = [backbone.row("", text) for text in ("a", "a much longer text about the left lung", "no")]
    pixels = backbone.collate(EXAMPLES)["pixel_values"]
    before = model.config._attn_implementation
    try:
        with torch.no_grad():
            expected = torch.stack([text_embeddings(backbone, model, [row])[0] for row in rows])
            seen = torch.cat([image_embeddings(model, one[None]) for one in pixels])
            model.set_attn_implementation(implementation)
            assert torch.allclose(text_embeddings(backbone, model, rows), expected, atol=1e-5)
            assert torch.allclose(text_embeddings(backbone, model, rows[::-1]), expected.flip(0), atol=1e-5)
            assert torch.allclose(image_embeddings(model, pixels.flip(0)), seen.flip(0), atol=1e-5)
    finally:
        model.set_attn_implementation(before)


@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_are_seen_whole(loaded: dict[str, Loaded], family: str) -> None:
    backbone = loaded[family].backbone
    wide = np.zeros((40, 200, 3), np.uint8)
    marked = wide.copy()
    marked[:, :10] = 255
    seen = [backbone.collate([Example(Image.fromarray(one), "", "a")])["pixel_values"] for one in (wide, marked)]
    assert seen[0].shape == (1, 3, 56, 56)
    assert not torch.equal(*seen)


def test_a_clip_with_the_sigmoid_loss_gets_a_bias_and_begins_as_siglip() -> None:
    made = load_base(recipe("clip", train={"contrastive": "sigmoid"}))
    model: Any = made.model
    assert (model.logit_bias.item(), model.logit_scale.exp().item()) == (-10, pytest.approx(10))
    batch = made.backbone.collate(EXAMPLES)
    with torch.no_grad():
        seen = model(input_ids=batch["input_ids"], pixel_values=batch["pixel_values"])
        loss = made.backbone.losses(model, batch)[0]
    logits = 10 * seen.text_embeds @ seen.image_embeds.T - 10
    targets = torch.eye(3)
    # Binary cross-entropies by another of torch's functions, summed over pictures.
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / 3
    assert loss.item() == pytest.approx(wanted.item(), abs=1e-5)


def test_a_bias_is_saved_and_comes_back(tmp_path: Any) -> None:
    made = load_base(recipe("clip", train={"contrastive": "sigmoid"}))
    made.model.logit_bias.data.fill_(-3)
    made.model.save_pretrained(tmp_path)  # type: ignore[operator]
    made.processor.save_pretrained(tmp_path)
    model: Any = load_base(recipe("clip", model={"id": str(tmp_path), "backbone": "contrastive"})).model
    assert isinstance(model, BiasedCLIPModel)
    assert model.logit_bias.item() == -3


def test_siglip_takes_the_softmax_loss_and_its_bias_a_gradient_of_nothing() -> None:
    made = load_base(recipe("siglip", train={"contrastive": "softmax"}))
    batch = made.backbone.collate(EXAMPLES)
    loss = made.backbone.losses(made.model.train(), batch)[0]
    loss.backward()  # type: ignore[no-untyped-call]
    model: Any = made.model
    assert model.logit_bias.grad.item() == 0
    assert model.logit_scale.grad.item() != 0


def test_the_temperature_stays_below_a_hundred_and_still_learns() -> None:
    made = load_base(recipe("clip"))
    model: Any = made.model.train()
    model.logit_scale.data.fill_(5.0)
    made.backbone.losses(model, made.backbone.collate(EXAMPLES))[0].backward()  # type: ignore[no-untyped-call]
    assert model.logit_scale.item() == pytest.approx(math.log(100))
    # CLIP's published temperature is just that: clamped in the graph, it would never move again.
    assert model.logit_scale.grad.item() != 0
    # An update moves it past its bound.
    model.logit_scale.data.fill_(5.0)
    Bounded(made.backbone).on_optimizer_step(None, None, None, model=model)
    assert model.logit_scale.item() == pytest.approx(math.log(100))
    frozen = load_base(recipe("clip", adapters={**WHOLE, "projector": "frozen"}))
    adapters.apply(
        frozen.model, recipe("clip", adapters={**WHOLE, "projector": "frozen"}).adapters, ContrastiveBackbone
    )
    other: Any = frozen.model.train()
    other.logit_scale.data.fill_(5.0)
    frozen.backbone.losses(other, frozen.backbone.collate(EXAMPLES))
    assert other.logit_scale.item() == 5.0


def test_temperature_and_bias_do_not_decay() -> None:
    for family in FAMILIES:
        made = recipe(family, adapters={"projector": "full"}, train={"weight_decay": 0.1})
        model = adapters.apply(load_base(made).model, made.adapters, ContrastiveBackbone)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        groups = adapters.parameter_groups(model, made, ContrastiveBackbone)
        decays = {names[id(p)]: group["weight_decay"] for group in groups for p in group["params"]}
        assert {decay for name, decay in decays.items() if "logit_" in name} == {0.0}
        assert 0.1 in decays.values()


PAIRS = [
    ("caption en", "a nodule"),
    ("caption en", "an effusion"),
    ("caption en", "a nodule"),
    ("answer en which side?", "left"),
    ("answer en which side?", "right"),
    ("answer en is it normal?", "no"),
]


@pytest.mark.parametrize("family", FAMILIES)
def test_candidates_are_those_of_the_task_and_of_the_question(loaded: dict[str, Loaded], family: str) -> None:
    made = loaded[family]
    backbone: Any = made.backbone
    facts = backbone.fit(made.model, PAIRS)
    assert facts == {
        "candidates": {
            "caption": {"": ["a nodule", "an effusion"]},
            "vqa": {"which side?": ["left", "right"], "is it normal?": ["no"]},
        }
    }
    backbone.restore(made.model, facts)
    assert backbone.choices("caption en") == ("", ["a nodule", "an effusion"])
    assert backbone.choices("answer en which side?") == ("which side?", ["left", "right"])
    # A new question takes any answer, and a task that was not trained any text.
    assert backbone.choices("answer en where?") == ("where?", ["left", "right", "no"])
    assert backbone.choices("report en")[1] == ["a nodule", "an effusion", "left", "right", "no"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_answer_is_the_candidate_with_the_largest_cosine(loaded: dict[str, Loaded], family: str) -> None:
    made = loaded[family]
    model, backbone = made.model.eval(), made.backbone
    backbone.fit(model, PAIRS)
    asked = ["caption en", "answer en which side?", "answer en which side?", "answer en where?"]
    examples = [Example(picture(seed), prefix) for seed, prefix in enumerate(asked)]
    found = backbone.answer(model, backbone.collate_prompts(examples), 8, {})
    every = ["left", "right", "no"]
    candidates = [["a nodule", "an effusion"], ["left", "right"], ["left", "right"], every]
    for example, known, answer in zip(examples, candidates, found, strict=True):
        question = example.prefix.removeprefix("answer en ") if example.prefix.startswith("answer") else ""
        texts = [f"{question} {text}".strip() for text in known]
        padding = {"padding": "max_length", "max_length": 64} if family == "siglip" else {"padding": True}
        inputs = made.processor.tokenizer(texts, return_tensors="pt", **padding)
        pixels = backbone.collate_prompts([example])["pixel_values"]
        with torch.no_grad():
            logits = model(input_ids=inputs["input_ids"], pixel_values=pixels).logits_per_image[0]
        assert answer == known[int(logits.argmax())]


def test_a_training_step_makes_what_is_kept_of_texts_stale() -> None:
    made = load_base(recipe("clip"))
    model, backbone = made.model, made.backbone
    backbone.fit(model, PAIRS)
    inputs = backbone.collate_prompts([Example(picture(0), "caption en")])
    with torch.no_grad():
        backbone.answer(model.eval(), inputs, 8, {})
        before = backbone._embedded(model, "caption en")[1]  # type: ignore[attr-defined]
    backbone.losses(model.train(), backbone.collate(EXAMPLES))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01
        backbone.answer(model.eval(), inputs, 8, {})
        after = backbone._embedded(model, "caption en")[1]  # type: ignore[attr-defined]
    assert not torch.allclose(before, after, atol=1e-4)


def test_without_training_texts_there_is_no_answer() -> None:
    made = load_base(recipe("clip"))
    with pytest.raises(InputError, match=r"fitted\.json holds them"):
        made.backbone.answer(made.model, made.backbone.collate_prompts([Example(picture(0), "x")]), 8, {})


def test_other_templates_are_known_again() -> None:
    prompts = {"caption": "", "vqa": "Q: {prompt} ({language}) A:", "report": "write {language}"}
    backbone: Any = load_base(recipe("clip", prompts=prompts)).backbone
    assert backbone.task_of("") == ("caption", "")
    assert backbone.task_of("write de") == ("report", "")
    assert backbone.task_of("Q: a {b} (c)? (en) A:") == ("vqa", "a {b} (c)?")
    assert backbone.task_of("something else") == ("vqa", "something else")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"eval": {"num_beams": 2}}, r"eval\.num_beams: 2: contrastive matches texts and generates none; expected 1"),
        ({"eval": {"temperature": 0.5}}, r"eval\.temperature: 0\.5"),
        ({"train": {"label_smoothing": 0.1}}, r"train\.label_smoothing: 0\.1: .*expected 0"),
    ],
)
def test_what_matching_does_not_know_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_base(recipe("clip", **changes))


def test_the_loss_is_not_chosen_for_models_that_generate() -> None:
    with pytest.raises(RecipeError, match=r"train\.contrastive: 'sigmoid': expected auto, since paligemma has no such"):
        check(
            {
                "name": "t", "model": {"id": "medvlm/tiny-random"}, "data": [{"path": "d"}],
                "train": {"contrastive": "sigmoid"},
            },
            "test",
        )  # fmt: skip


def test_checkpoints_find_their_backbone() -> None:
    assert kind_of_type("clip") is kind_of_type("siglip") is BACKBONES.get("contrastive") is ContrastiveBackbone
