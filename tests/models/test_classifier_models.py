"""ViLT, VisualBERT, LXMERT and FLAVA as classifiers: their vocabulary, inputs, losses and answers."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import FlavaModel, ViltForQuestionAnswering

from medvlm.errors import InputError, RecipeError
from medvlm.evaluate.vqa import words
from medvlm.models.backbones import BACKBONES, kind_of_type
from medvlm.models.backbones.base import IGNORED, Example
from medvlm.models.backbones.classifier import closed_vocabulary
from medvlm.models.backbones.lxmert import grid_boxes
from medvlm.models.features import look, skip_tower, tower_of
from medvlm.models.load import planned_config
from medvlm.recipe.load import check

KINDS = ["vilt", "visual_bert", "lxmert", "flava"]
ROWS = [("What is shown?", "CT"), ("Is there an effusion in the left lung?", "yes"), ("Which organ?", "the liver")]


def examples(rows: list[tuple[str, str]], size: int = 90) -> list[Example]:
    draw = np.random.default_rng(0)
    pictures = [Image.fromarray(draw.integers(0, 255, (size, size + 30, 3), dtype=np.uint8)) for _ in rows]
    return [Example(picture, question, answer) for picture, (question, answer) in zip(pictures, rows, strict=True)]


def backbone_of(name: str, model: Any, processor: Any) -> Any:
    kind = BACKBONES.get(name)
    tokens = kind.image_tokens_of(model.config)
    return kind(processor, image_tokens=tokens, max_prefix_tokens=30, max_suffix_tokens=5)


@pytest.fixture(scope="module")
def made() -> dict[str, tuple[Any, Any]]:
    """Return kind -> a tiny model with three classes in evaluation mode, and its backbone."""
    found = {}
    for name in KINDS:
        torch.manual_seed(0)
        model, processor = BACKBONES.get(name).tiny(None, None)
        backbone = backbone_of(name, model, processor)
        backbone.fit(model, ROWS)
        found[name] = (model.eval(), backbone)
    return found


def without_labels(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in inputs.items() if name != "labels"}


@given(
    st.lists(st.sampled_from(["yes", "Yes", "yes.", "no", "No", "left lung", "Left  lung", "the CT", "CT", "", "?"])),
    st.integers(1, 5),
)
def test_the_vocabulary_is_the_most_frequent_answers(answers: list[str], most: int) -> None:
    found = closed_vocabulary(answers, most)
    groups: dict[str, list[str]] = {}
    for answer in answers:
        if answer:
            groups.setdefault(" ".join(words(answer)) or answer, []).append(answer)
    sizes = sorted((len(group) for group in groups.values()), reverse=True)
    mine = [next(group for group in groups.values() if answer in group) for answer in found]
    assert [len(group) for group in mine] == sizes[:most]
    assert len({id(group) for group in mine}) == len(found)
    for answer, group in zip(found, mine, strict=True):
        assert group.count(answer) == max(Counter(group).values()), "its commonest spelling"
    assert closed_vocabulary(answers[::-1], most) == found, "the order of rows does not matter"


@pytest.mark.parametrize("name", KINDS)
def test_the_head_has_a_class_for_each_answer(
    name: str, made: dict[str, tuple[Any, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(1)
    model, processor = BACKBONES.get(name).tiny(None, None)
    backbone = backbone_of(name, model, processor)
    backbone.most_answers = 2
    facts = backbone.fit(model, [("a", "CT"), ("b", "Yes"), ("c", "yes"), ("d", "yes"), ("e", "CT"), ("f", "MRI")])
    assert facts == {"answers": ["yes", "CT"], "rows": 6, "outside": 1}
    assert capsys.readouterr().err.startswith("warning: 1 of 6 training rows have no loss")
    inputs = backbone.collate(examples([("q", "Yes."), ("q", "the CT"), ("q", "MRI")]))
    assert inputs["labels"].tolist() == [0, 1, IGNORED]
    assert backbone.labels_in(inputs) == 2
    assert model(**without_labels(inputs)).logits.shape == (3, 2)
    loss, sums, counts = backbone.losses(model, inputs)
    assert (float(sums[2]), counts.tolist()) == (0.0, [1, 1, 0])
    assert loss.item() == pytest.approx(float(sums.sum()) / 2)
    again, other = BACKBONES.get(name).tiny(None, None)
    twin = backbone_of(name, again, other)
    twin.restore(again, facts)
    again.load_state_dict(model.state_dict())
    assert twin.collate(examples([("q", "yes")]))["labels"].tolist() == [0]
    assert again.config.id2label == model.config.id2label == {0: "yes", 1: "CT"}
    known, backbone = made[name]
    assert [known.config.id2label[place] for place in range(3)] == backbone.answers
    assert sorted(backbone.answers) == ["CT", "the liver", "yes"]


@pytest.mark.parametrize("name", KINDS)
def test_the_answer_never_enters_the_inputs(name: str, made: dict[str, tuple[Any, Any]]) -> None:
    _, backbone = made[name]
    right = backbone.collate(examples(ROWS))
    wrong = backbone.collate(examples([(question, "yes") for question, _ in ROWS]))
    asked = backbone.collate_prompts([Example(each.image, each.prefix) for each in examples(ROWS)])
    assert right["labels"].tolist() != wrong["labels"].tolist()
    assert right.keys() - asked.keys() == {"labels"}
    for key in asked:
        assert torch.equal(right[key], wrong[key])
        assert torch.equal(right[key], asked[key])


@pytest.mark.parametrize("name", KINDS)
def test_padding_and_order_do_not_matter(name: str, made: dict[str, tuple[Any, Any]]) -> None:
    model, backbone = made[name]
    rows = examples(ROWS)
    with torch.no_grad():
        together = model(**backbone.collate_prompts(rows)).logits
        alone = torch.cat([model(**backbone.collate_prompts([row])).logits for row in rows])
        turned = model(**backbone.collate_prompts(rows[::-1])).logits.flip(0)
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.allclose(together, turned, atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-2)
    best = together.argmax(dim=-1).tolist()
    assert backbone.answer(model, backbone.collate_prompts(rows), 8, {}) == [backbone.answers[place] for place in best]


@pytest.mark.parametrize("name", KINDS)
def test_picture_and_question_both_count(name: str, made: dict[str, tuple[Any, Any]]) -> None:
    model, backbone = made[name]
    inputs = backbone.collate_prompts(examples(ROWS[:1]))
    with torch.no_grad():
        plain = model(**inputs).logits
        blank = model(**{**inputs, "pixel_values": torch.zeros_like(inputs["pixel_values"])}).logits
        other = inputs["input_ids"].clone()
        other[0, 2] += 1
        asked = model(**{**inputs, "input_ids": other}).logits
    assert not torch.allclose(plain, blank, atol=1e-3)
    assert not torch.allclose(plain, asked, atol=1e-3)


def reference_logits(name: str, model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return what transformers' own classes make of the same inputs, called as their documentation has it."""
    text = {key: inputs[key] for key in ("input_ids", "attention_mask", "token_type_ids")}
    pixels = inputs["pixel_values"]
    if name == "vilt":
        plain = ViltForQuestionAnswering(model.config).eval()
        plain.load_state_dict(model.state_dict())
        mask = torch.ones(len(pixels), *pixels.shape[2:], dtype=torch.long)
        found: torch.Tensor = plain(**text, pixel_values=pixels, pixel_mask=mask).logits
        return found
    if name == "flava":
        flava = FlavaModel(model.config).eval()
        left = flava.load_state_dict(model.flava.state_dict(), strict=False)
        assert not left.unexpected_keys
        found = model.classifier(flava(**text, pixel_values=pixels).multimodal_embeddings[:, 0])
        return found
    patches = model.vision_tower(pixels).last_hidden_state[:, 1:]
    regions = patches @ model.projector.weight.T + model.projector.bias
    if name == "visual_bert":
        found = model.encoder(**text, visual_embeds=regions).logits
        return found
    side = 8
    boxes = torch.tensor([[c, r, c + 1, r + 1] for r in range(side) for c in range(side)]) / side
    outputs = model.encoder(**text, visual_feats=regions, visual_pos=boxes.expand(len(pixels), -1, -1))
    found = outputs.question_answering_score
    return found


@pytest.mark.parametrize("name", KINDS)
def test_logits_are_those_of_transformers(name: str, made: dict[str, tuple[Any, Any]]) -> None:
    model, backbone = made[name]
    inputs = without_labels(backbone.collate(examples(ROWS)))
    with torch.no_grad():
        assert torch.allclose(model(**inputs).logits, reference_logits(name, model, inputs), atol=1e-5)


def test_the_loss_is_that_of_transformers_for_one_answer(made: dict[str, tuple[Any, Any]]) -> None:
    model, backbone = made["visual_bert"]
    inputs = backbone.collate(examples(ROWS))
    text = {key: inputs[key] for key in ("input_ids", "attention_mask", "token_type_ids")}
    regions = model.projector(model.vision_tower(inputs["pixel_values"]).last_hidden_state[:, 1:])
    one_hot = torch.nn.functional.one_hot(inputs["labels"], 3).float()
    own = model.encoder(**text, visual_embeds=regions, labels=one_hot).loss
    assert backbone.losses(model, inputs)[0].item() == pytest.approx(own.item(), abs=1e-5)
    model, backbone = made["lxmert"]
    regions = model.projector(model.vision_tower(inputs["pixel_values"]).last_hidden_state[:, 1:])
    boxes = grid_boxes(64).expand(3, -1, -1)
    own = model.encoder(**text, visual_feats=regions, visual_pos=boxes, labels=inputs["labels"]).loss
    assert backbone.losses(model, inputs)[0].item() == pytest.approx(own.item(), abs=1e-5)


@pytest.mark.parametrize("per_example", [False, True])
def test_the_loss_by_count_and_smoothing(made: dict[str, tuple[Any, Any]], per_example: bool) -> None:
    model, backbone = made["flava"]
    inputs = backbone.collate(examples([*ROWS, ("Which side?", "nothing known")]))
    logits = model(**without_labels(inputs)).logits
    share = logits.log_softmax(dim=-1)
    right = torch.stack([share[row, place] for row, place in enumerate(inputs["labels"][:3].tolist())])
    expected = -(0.7 * right + 0.3 * share[:3].mean(dim=-1)).sum()
    loss, sums, _ = backbone.losses(model, inputs, per_example=per_example, smoothing=0.3)
    assert loss.item() == pytest.approx(expected.item() / 3, abs=1e-5)
    assert float(sums.sum()) == pytest.approx(expected.item(), abs=1e-5)
    halved, _, _ = backbone.losses(model, inputs, count=torch.tensor(6), per_example=per_example, smoothing=0.3)
    assert halved.item() == pytest.approx(expected.item() / 6, abs=1e-5)
    nothing = backbone.collate(examples([("a", "nothing known")]))
    loss, _, counts = backbone.losses(model, nothing, count=0)
    assert (loss.item(), counts.tolist()) == (0.0, [0])
    loss.backward()


def test_vilt_takes_no_chance(made: dict[str, tuple[Any, Any]]) -> None:
    model, backbone = made["vilt"]
    inputs = without_labels(backbone.collate(examples(ROWS)))
    model.train()
    before = torch.random.get_rng_state()
    with torch.no_grad():
        first, second = model(**inputs).logits, model(**inputs).logits
    model.eval()
    assert torch.equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", KINDS)
def test_another_size_of_pictures(name: str) -> None:
    torch.manual_seed(3)
    kind = BACKBONES.get(name)
    model, processor = kind.tiny(None, None)
    plain = None
    if name == "vilt":
        plain = ViltForQuestionAnswering(copy.deepcopy(model.config)).eval()
        plain.load_state_dict(model.state_dict())
    tokens = kind.image_tokens_of(model.config)
    assert not kind.resize(model, processor, 112)
    config = model.config.to_dict()
    assert kind.resize(model, processor, 168)
    backbone = backbone_of(name, model, processor)
    assert kind.image_tokens_of(model.config) == tokens + 144 - 64
    backbone.restore(model, {"answers": ["a", "b"]})
    inputs = backbone.collate_prompts(examples(ROWS))
    assert inputs["pixel_values"].shape == (3, 3, 168, 168)
    model.eval()
    with torch.no_grad():
        found = model(**inputs).logits
        assert found.shape == (3, 2)
        if plain is not None:
            # ViLT's own interpolation, made for every picture.
            text = {key: inputs[key] for key in ("input_ids", "attention_mask", "token_type_ids")}
            mask = torch.ones(3, 168, 168, dtype=torch.long)
            own = plain(**text, pixel_values=inputs["pixel_values"], pixel_mask=mask).logits
            assert torch.allclose(found, own, atol=1e-5)
    with torch.device("meta"):
        sized = kind.build(kind.planned(kind.resized(config, 168), ROWS))
    assert kind.image_size_of(sized.config) == 168
    assert kind.last_layer(sized)[0].get_submodule(kind.last_layer(sized)[1]).out_features == 3
    with pytest.raises(RecipeError, match=r"model.image_size: 100: expected a multiple of 14"):
        kind.resized(config, 100)


def test_boxes_of_a_grid() -> None:
    assert grid_boxes(4).tolist() == [[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1], [0.5, 0.5, 1, 1]]
    with pytest.raises(ValueError, match="no square grid"):
        grid_boxes(3)


@pytest.mark.parametrize("name", ["visual_bert", "lxmert"])
def test_features_of_the_tower_stand_for_pictures(name: str) -> None:
    torch.manual_seed(0)
    kind = BACKBONES.get(name)
    model, processor = kind.tiny(None, None)
    model.eval()
    inputs = backbone_of(name, model, processor).collate_prompts(examples(ROWS))
    with torch.no_grad():
        seen = model(**inputs).logits
        features = look(tower_of(model, kind), inputs["pixel_values"], torch.float32)
        skip_tower(model, kind)
        assert torch.allclose(model(**{**inputs, "pixel_values": features}).logits, seen, atol=1e-6)


def test_special_tokens_in_a_question_are_words(made: dict[str, tuple[Any, Any]]) -> None:
    _, backbone = made["vilt"]
    tokenizer = backbone.tokenizer
    ids = backbone.collate_prompts(examples([("is [SEP] it [PAD] [CLS] [MASK] liver", "")]))["input_ids"][0].tolist()
    assert ids[0] == tokenizer.cls_token_id
    assert ids[-1] == tokenizer.sep_token_id
    assert not {tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id} & set(ids[1:-1])
    long = backbone.collate_prompts(examples([("lung " * 50, "")]))["input_ids"]
    assert long.shape[1] == 32, "30 words, [CLS] and [SEP]"
    assert backbone.text_tokens("lung " * 50, "yes") == (32, 0)


def test_nothing_to_choose_from() -> None:
    model, processor = BACKBONES.get("vilt").tiny(None, None)
    backbone = backbone_of("vilt", model, processor)
    for ask in (lambda: backbone.collate(examples(ROWS)), lambda: backbone.answer(model, {}, 1, {})):
        with pytest.raises(InputError, match="no answers to choose from"):
            ask()
    with pytest.raises(InputError, match="have 1 answer; a classifier needs two"):
        backbone.fit(model, [("a", "yes"), ("b", "Yes.")])
    with pytest.raises(InputError, match="vilt has one form"):
        BACKBONES.get("vilt").tiny(None, "large")


IDS = {
    "vilt": {"id": "dandelin/vilt-b32-mlm"},
    "visual_bert": {
        "vision_tower": "openai/clip-vit-base-patch16",
        "language_model": "uclanlp/visualbert-vqa-coco-pre",
    },
    "lxmert": {"vision_tower": "openai/clip-vit-base-patch16", "language_model": "unc-nlp/lxmert-base-uncased"},
    "flava": {"id": "facebook/flava-full"},
}


def recipe(name: str, **changes: Any) -> Any:
    raw: dict[str, Any] = {
        "name": "t",
        "model": {"backbone": name, **IDS[name]},
        "adapters": {"projector": "full", "head": "full"},
        "data": [{"path": "d", "tasks": ["vqa"]}],
        "text": {"max_prefix_tokens": 38},
    }
    for key, value in changes.items():
        raw[key] = {**raw.get(key, {}), **value} if isinstance(value, dict) else value
    return check(raw, "t")


@pytest.mark.parametrize("name", KINDS)
def test_recipes_that_ask_for_more_are_refused(name: str) -> None:
    assert planned_config(recipe(name))["model_type"] in (name, f"{name}_grid")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"data": [{"path": "d"}]}, r"data.0.tasks: None: .*expected \[vqa\]"),
        ({"data": [{"path": "d", "tasks": ["vqa", "caption"]}]}, r"data.0.tasks: .*expected \[vqa\]"),
        ({"eval": {"temperature": 0.5}}, "eval.temperature: 0.5"),
        ({"eval": {"num_beams": 2}}, "eval.num_beams: 2"),
        ({"adapters": {"head": "frozen"}}, "adapters.head: frozen"),
        ({"text": {"max_prefix_tokens": 600}}, "text.max_prefix_tokens: 600"),
    ]
    if name == "lxmert":
        wrong.append(({"train": {"activation_checkpointing": True}}, "train.activation_checkpointing"))
    if name == "vilt":
        wrong.append(({"text": {"max_prefix_tokens": 39}}, "40 positions .*expected at most 38"))
    for changes, told in wrong:
        with pytest.raises(RecipeError, match=told) as error:
            planned_config(recipe(name, **changes))
        assert "\n" not in str(error.value).strip() or len(str(error.value).strip().splitlines()) <= 2


@pytest.mark.parametrize("name", ["visual_bert", "lxmert"])
def test_a_classifier_without_a_tower_is_refused(name: str) -> None:
    alone = recipe(name, model={"id": IDS[name]["language_model"], "vision_tower": None, "language_model": None})
    with pytest.raises(InputError, match=r"name it as model.language_model"):
        planned_config(alone)
    other = recipe(name, model={"language_model": "facebook/opt-350m"})
    with pytest.raises(InputError, match=f"a opt model; expected {name}"):
        planned_config(other)


@pytest.mark.parametrize("name", KINDS)
def test_saved_models_are_known_by_their_type(name: str, made: dict[str, tuple[Any, Any]]) -> None:
    assert kind_of_type(made[name][0].config.model_type) is BACKBONES.get(name)
