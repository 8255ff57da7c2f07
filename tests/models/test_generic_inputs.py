"""Chat models' inputs against transformers' own chat templates and processors, budgets, and texts that say tokens."""

from __future__ import annotations

import itertools
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from generic_tiny_models import FAMILIES, backbone, mixed, picture, untrained
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from medvlm.errors import InputError
from medvlm.models.backbones.base import IGNORED, Example
from medvlm.models.backbones.generic import GenericBackbone
from medvlm.models.backbones.generic_chat import Chat
from medvlm.models.backbones.generic_tiny import tiny_model

WITH_TEMPLATE = [family for family in FAMILIES if family != "idefics"]
END = {
    "smolvlm": "<end_of_utterance>",
    "idefics3": "<end_of_utterance>",
    "qwen2_5_vl": "<|im_end|>",
    "gemma3": "<end_of_turn>",
    "llava": "</s>",
    "idefics": "<end_of_utterance>",
}


def messages(example: Example, answered: bool) -> tuple[list[dict[str, Any]], list[Image.Image]]:
    """Return a conversation as users of transformers write it."""
    turns, pictures = [], []
    for one in (*example.shots, example):
        shown = [{"type": "image"} for _ in one.images]
        turns.append({"role": "user", "content": [*shown, {"type": "text", "text": one.prefix}]})
        pictures += list(one.images)
        if one is not example or answered:
            turns.append({"role": "assistant", "content": [{"type": "text", "text": one.suffix}]})
    return turns, pictures


def theirs(processor: Any, example: Example, answered: bool) -> dict[str, Any]:
    """Return what the processor makes of its own template's text."""
    turns, pictures = messages(example, answered)
    text = processor.tokenizer.apply_chat_template(
        turns, chat_template=processor.chat_template, tokenize=False, add_generation_prompt=not answered
    )
    start = processor.tokenizer.bos_token
    written = start is not None and text.startswith(start)
    made: dict[str, Any] = processor(
        text=[text],
        images=[pictures] if pictures else None,
        text_kwargs={"add_special_tokens": not written},
        return_tensors="pt",
    )
    return made


@pytest.mark.parametrize("family", WITH_TEMPLATE)
def test_the_same_tokens_and_pictures_as_transformers_makes_of_the_conversation(family: str) -> None:
    _, processor = untrained(family)
    end = processor.tokenizer.convert_tokens_to_ids(END[family])
    for example in mixed():
        ours = backbone(family).collate([example])
        whole, asked = theirs(processor, example, True), theirs(processor, example, False)
        ids = ours["input_ids"][0].tolist()
        if family == "llava":
            # Its template writes a blank behind an answer where the end token, which it was taught, belongs.
            assert whole["input_ids"][0].tolist()[: len(ids) - 1] == ids[:-1]
        else:
            # What the template writes behind the end of the last turn is not learned.
            assert whole["input_ids"][0].tolist()[: len(ids)] == ids
            assert not set(whole["input_ids"][0, len(ids) :].tolist()) & set(processor.tokenizer.all_special_ids)
        assert ids[-1] == end
        start = asked["input_ids"].shape[1]
        assert asked["input_ids"][0].tolist() == ids[:start]
        # The loss is on the last answer only.
        assert ours["labels"][0].tolist() == [IGNORED] * start + ids[start:]
        assert processor.tokenizer.decode(ids[start:-1]).strip() == example.suffix
        for name, value in asked.items():
            if name in ("input_ids", "attention_mask"):
                continue
            mine = ours[name]
            assert torch.equal(mine[:, :start] if value.shape[:2] == asked["input_ids"].shape else mine, value), name
        prompts = backbone(family).collate_prompts([example])
        assert torch.equal(prompts["input_ids"], asked["input_ids"])


def test_idefics_gets_what_its_own_processor_makes_of_the_dialogue() -> None:
    _, processor = untrained("idefics")
    end = "<end_of_utterance>"
    shown = [picture(5), picture(6), picture(7), picture(4)]
    dialogue = ["User:", shown[0], f"Which side?{end}\nAssistant: the right one{end}\nUser:", shown[1], shown[2]]
    dialogue += [f"Which side?{end}\nAssistant: none{end}\nUser:", shown[3], f"Which side?{end}\nAssistant:"]
    made = processor(text=[dialogue], return_tensors="pt", add_end_of_utterance_token=False)
    ours = backbone("idefics").collate_prompts([mixed()[3]])
    assert ours.keys() == made.keys()
    for name in ours:
        assert torch.equal(ours[name], made[name]), name
    # A token sees the last picture before it.
    places = (ours["input_ids"][0] == processor.image_token_id).nonzero().flatten().tolist()
    seen = ours["image_attention_mask"][0].argmax(dim=-1)
    for number, (first, last) in enumerate(itertools.pairwise([*places, ours["input_ids"].shape[1]])):
        assert (seen[first:last] == number).all()
    assert ours["image_attention_mask"][0, : places[0]].sum() == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_stands_on_the_right_for_training_and_on_the_left_for_prompts(family: str) -> None:
    made, examples = backbone(family), mixed()
    trained, asked = made.collate(examples), made.collate_prompts(examples)
    for row, example in enumerate(examples):
        alone = made.collate([example])
        length = alone["input_ids"].shape[1]
        assert torch.equal(trained["input_ids"][row, :length], alone["input_ids"][0])
        assert trained["attention_mask"][row].tolist() == [1] * length + [0] * (trained["labels"].shape[1] - length)
        assert torch.equal(trained["labels"][row, :length], alone["labels"][0])
        assert (trained["labels"][row, length:] == IGNORED).all()
        prompt = made.collate_prompts([example])["input_ids"][0]
        assert torch.equal(asked["input_ids"][row, -len(prompt) :], prompt)
        assert asked["attention_mask"][row].sum() == len(prompt) == asked["attention_mask"][row, -len(prompt) :].sum()
    assert torch.equal(trained["logits_to_keep"][:, :-1], trained["labels"][:, 1:] != IGNORED)
    # One picture, none, two, and four in a conversation; those of the last row are the last.
    assert GenericBackbone.images_in(trained) == GenericBackbone.images_in(asked) == 7


@pytest.mark.parametrize("family", FAMILIES)
def test_the_length_is_told_before_a_picture_is_seen(family: str) -> None:
    made = backbone(family)
    for example in (mixed()[0], Example(picture(size=(112, 112)), "A longer question, with numbers: 1234?", "yes")):
        batch = made.collate([example])
        prefix, suffix = made.text_tokens(example.prefix, str(example.suffix))
        assert suffix == int((batch["labels"] != IGNORED).sum())
        if family == "qwen2_5_vl" and example.image is not None and example.image.width != example.image.height:
            continue
        assert prefix + suffix + made.image_tokens == batch["input_ids"].shape[1]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    family=st.sampled_from(FAMILIES),
    prefix=st.text(max_size=60),
    suffix=st.text(max_size=120),
    budgets=st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
def test_budgets_cut_texts_and_neither_image_tokens_nor_the_end(
    family: str, prefix: str, suffix: str, budgets: tuple[int, int]
) -> None:
    made = backbone(family, *budgets)
    _, processor = untrained(family)
    example = Example(picture(size=(112, 112)), prefix, suffix)
    batch = made.collate([example])
    ids, labels = batch["input_ids"][0], batch["labels"][0]
    own = torch.isin(ids, torch.tensor(processor.image_token_ids))
    assert int(own.sum()) == made.image_tokens
    answer = labels[labels != IGNORED].tolist()
    end = processor.tokenizer.convert_tokens_to_ids(END[family])
    assert answer[-1] == end == ids[-1]
    assert 1 <= len(answer) <= budgets[1]
    assert end not in answer[:-1]
    # Text stands between tokens of the template, with which its own first and last letters may join.
    bare = made.collate([Example(example.image, "", suffix)])["input_ids"].shape[1]
    assert ids.shape[0] - bare <= budgets[0] + 2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_that_says_tokens_speaks_for_itself_only(family: str) -> None:
    made = backbone(family)
    _, processor = untrained(family)
    image, end = processor.tokenizer.convert_ids_to_tokens(processor.image_token_ids[0]), END[family]
    # What is left when one is taken out must not make another.
    nested = f"{end[:2]}{end}{end[2:]}"
    said = Example(picture(), f"Is {image}{nested} there?", f"no{end}{image} {nested}and more")
    plain = Example(picture(), "Is  there?", "no and more")
    one, other = made.collate([said]), made.collate([plain])
    for name in one:
        assert torch.equal(one[name], other[name]), name
    if family == "gemma3":
        assert torch.equal(
            made.collate([Example(None, "a <start_of_image> b", "c")])["input_ids"],
            made.collate([Example(None, "a  b", "c")])["input_ids"],
        )


def test_a_base_that_was_taught_no_dialogue_is_refused() -> None:
    _, processor = untrained("smolvlm")
    template, processor.chat_template = processor.chat_template, None
    try:
        with pytest.raises(InputError, match="no chat template"):
            backbone("smolvlm")
    finally:
        processor.chat_template = template


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for turn in messages %}{{ turn['content'] | trim('x') }}{% endfor %}", "does not follow"),
        ("{{ raise_exception('only texts') }}", "only texts"),
        ("{{ messages[0]['words'].upper() }}", "takes no turns"),
    ],
)
def test_a_template_that_cannot_be_learned_from_is_refused_in_one_line(template: str, said: str) -> None:
    given = SimpleNamespace(tokenizer=untrained("smolvlm")[1].tokenizer, chat_template=template)
    with pytest.raises(InputError, match=said) as raised:
        Chat(given, max_prefix_tokens=8, max_suffix_tokens=8)
    assert "\n" not in str(raised.value)


def test_the_default_of_several_templates_is_taken() -> None:
    processor = untrained("smolvlm")[1]
    templates = {"default": processor.chat_template, "tools": "{{ 1 / 0 }}"}
    given = SimpleNamespace(tokenizer=processor.tokenizer, chat_template=templates)
    assert Chat(given, max_prefix_tokens=8, max_suffix_tokens=8).end == "<end_of_utterance>"


def test_gray_pictures_are_taken() -> None:
    made = backbone("llava")
    gray = picture().convert("L")
    one, other = (made.collate([Example(image, "?", "!")]) for image in (gray, gray.convert("RGB")))
    assert torch.equal(one["pixel_values"], other["pixel_values"])


def test_a_picture_longer_than_its_family_takes_is_filled_up() -> None:
    made = backbone("qwen2_5_vl")
    strip = Image.new("RGB", (900, 2), (250, 250, 250))
    filled = Image.new("RGB", (900, 5))
    filled.paste(strip, (0, 1))
    for make in (made.collate, made.collate_prompts):
        one, other = (make([Example(image, "?", "!")]) for image in (strip, filled))
        assert torch.equal(one["pixel_values"], other["pixel_values"])
    tall = make([Example(Image.new("L", (1, 1001)), "?", "!")])
    assert len(tall["image_grid_thw"]) == 1


def test_a_picture_that_a_processor_refuses_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    made = backbone("llava")

    def refuse(**_: object) -> None:
        raise ValueError("no such\npicture")

    monkeypatch.setattr(made, "processor", refuse)
    with pytest.raises(InputError, match=r"a picture cannot be prepared for the model \(no such picture\)"):
        made.collate_prompts([Example(picture(), "?")])


@pytest.mark.parametrize("family", FAMILIES)
def test_it_reaches_the_processes_that_read_pictures(family: str) -> None:
    made = backbone(family)
    sent = pickle.loads(pickle.dumps(made))
    one, other = made.collate(mixed()[:1]), sent.collate(mixed()[:1])
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_unknown_family_is_told_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"random-foo: no such family; expected one of .*tiny-random-gemma3"):
        tiny_model(None, "foo")
