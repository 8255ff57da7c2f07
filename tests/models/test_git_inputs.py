"""GIT's inputs: those of transformers' own use of it, its mask, whole pictures, and texts that come back as written."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_backbones import SIZE, backbone_of, fresh, picture, shared

from medvlm.errors import InputError, RecipeError
from medvlm.models.backbones.base import IGNORED, Example
from medvlm.models.backbones.git import GitBackbone
from medvlm.models.load import planned_config
from medvlm.recipe.load import check

TOKENS = (SIZE // 14) ** 2 + 1


@pytest.fixture(scope="module")
def made() -> Any:
    return backbone_of("git", shared("git")[1])


def test_a_caption_is_what_the_processor_makes_of_it(made: Any) -> None:
    _, processor = shared("git")
    theirs = processor(images=picture(), text="a small nodule", return_tensors="pt")
    ours = made.collate([Example(picture(), "", "a small nodule")])
    assert torch.equal(ours["input_ids"], theirs["input_ids"])
    assert torch.equal(ours["pixel_values"], theirs["pixel_values"])
    # [CLS] is given, all else is learned; the picture has no labels.
    assert ours["labels"][0].tolist() == [IGNORED] * (TOKENS + 1) + theirs["input_ids"][0, 1:].tolist()


def test_a_question_is_asked_as_the_documentation_of_transformers_does(made: Any) -> None:
    tokenizer = made.tokenizer
    question = "which side is the nodule on?"
    expected = [tokenizer.cls_token_id, *tokenizer(question, add_special_tokens=False)["input_ids"]]
    assert made.collate_prompts([Example(picture(), question)])["input_ids"][0].tolist() == expected
    assert made.collate_prompts([Example(picture(), "")])["input_ids"][0].tolist() == [tokenizer.cls_token_id]


def test_a_long_prompt_keeps_its_end() -> None:
    short = backbone_of("git", shared("git")[1], prefix=3)
    words = short.tokenizer("is there a nodule in the left lung", add_special_tokens=False)["input_ids"]
    ids = short.collate_prompts([Example(picture(), "is there a nodule in the left lung")])["input_ids"][0].tolist()
    assert ids == [short.tokenizer.cls_token_id, *words[-3:]]


def test_the_picture_sees_itself_whole_and_the_text_sees_all_of_it(made: Any) -> None:
    model, _ = shared("git")
    batch = made.collate([Example(picture(), "where?", "left")])
    caught: list[torch.Tensor] = []
    handle = model.git.encoder.register_forward_pre_hook(
        lambda module, args, kwargs: caught.append(kwargs["attention_mask"]), with_kwargs=True
    )
    with torch.no_grad():
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], pixel_values=batch["pixel_values"])
    handle.remove()
    length = batch["labels"].shape[1]
    expected = torch.ones(length, length, dtype=torch.bool).tril()
    expected[:TOKENS, :TOKENS] = True
    assert torch.equal(caught[0][0, 0] == 0, expected)


def test_another_size_of_picture() -> None:
    model, processor = fresh("git")
    before = model.git.image_encoder.vision_model.embeddings.position_embedding.weight[0].clone()
    assert GitBackbone.resize(model, processor, 84)
    assert not GitBackbone.resize(model, processor, 84)
    # The class token's position is no place in the picture.
    assert torch.equal(model.git.image_encoder.vision_model.embeddings.position_embedding.weight[0], before)
    assert GitBackbone.image_tokens_of(model.config) == 37
    made = GitBackbone(processor, image_tokens=37, max_prefix_tokens=16, max_suffix_tokens=16)
    samples = [Example(picture(), "where?", "left"), Example(picture(1), "", "a nodule")]
    batch = made.collate(samples)
    assert batch["pixel_values"].shape[-2:] == (84, 84)
    loss, _, _ = made.losses(model, batch)
    with torch.no_grad():
        # By the picture's length the model's own loss finds the text, and its cache finds what padding hides.
        inputs = {name: value for name, value in batch.items() if name != "logits_to_keep"}
        theirs = model(**{**inputs, "labels": batch["labels"][:, 37:]}).loss
    torch.testing.assert_close(loss.detach(), theirs)
    cached, plain = (
        model.generate(**made.collate_prompts(samples), max_new_tokens=5, do_sample=False, use_cache=cache)
        for cache in (True, False)
    )
    assert torch.equal(cached, plain)


def test_nothing_of_a_picture_is_cut_off() -> None:
    from PIL import Image
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    model, processor = fresh("git")
    # As the published processors have it: the shorter edge, then the middle.
    processor.image_processor = CLIPImageProcessorPil(
        size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}
    )
    wide = Image.new("RGB", (300, 100))
    wide.paste((255, 255, 255), (0, 0, 30, 100))
    assert processor.image_processor(wide, return_tensors="pt")["pixel_values"][0, 0].std() < 1e-6
    GitBackbone.resize(model, processor, SIZE)
    assert backbone_of("git", processor).pixels([Example(wide, "")])[0, 0].std() > 0.1


ENGLISH = [
    "a 1.5 cm left-sided nodule (t2-weighted), 50% of the lung; no effusion!",
    "patient's x-ray: left/right lower lobe. no change.",
    "findings: 3.2 x 4.1 cm mass [arrow] in the right upper lobe.",
]


@pytest.mark.parametrize("text", ENGLISH)
def test_answers_read_as_they_were_written(made: Any, text: str) -> None:
    ids = made.collate([Example(picture(), "", text)])["input_ids"]
    assert made.decode(ids) == [text]


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="ab1 -/.,:;()[]%'!?", max_size=30))
def test_decoding_takes_blanks_out_and_nothing_else(text: str) -> None:
    made = backbone_of("git", shared("git")[1])
    ids = made.collate([Example(picture(), "", text)])["input_ids"]
    (said,) = made.decode(ids)
    assert said.replace(" ", "") == text.replace(" ", "")
    # Said again it is the same.
    assert made.decode(made.collate([Example(picture(), "", said)])["input_ids"]) == [said]


def recipe(**changes: Any) -> Any:
    model = {"id": "microsoft/git-base", "backbone": "git", **changes.pop("model", {})}
    return check({"name": "t", "model": model, "data": [{"path": "d"}], **changes}, "test")


def test_what_is_refused() -> None:
    from medvlm.models.load import attention

    with pytest.raises(InputError, match=r"^model\.id: this GIT takes videos of 6 pictures; expected one for single"):
        GitBackbone.compose({"model": {"model_type": "git", "num_image_with_embedding": 6}})
    with pytest.raises(RecipeError, match=r"text\.max_suffix_tokens: up to 1257 tokens, .* but git has 1024 positions"):
        planned_config(recipe(text={"max_prefix_tokens": 1000}))
    # A picture of 901 tokens takes none of them.
    planned_config(recipe(text={"max_prefix_tokens": 700}, model={"id": "microsoft/git-base-vqav2"}))
    with pytest.raises(RecipeError, match="'sdpa': git has none; expected auto or eager"):
        attention(recipe(model={"attention": "sdpa"}), shared("git")[0].config)
    from medvlm.train.mixing import check_abilities

    with pytest.raises(RecipeError, match=r"train\.batching: 'packed': git keeps examples apart"):
        check_abilities(recipe(train={"batching": "packed"}))


def test_a_card_that_names_what_is_spared_of_four_bits_names_the_head() -> None:
    from transformers import BitsAndBytesConfig

    from medvlm.models import quantize
    from medvlm.recipe.models import QuantizationPart

    made: BitsAndBytesConfig = quantize.configuration(QuantizationPart(mode="nf4"), GitBackbone)
    model, _ = shared("git")
    (head,) = [name for name, module in model.named_modules() if module is model.get_output_embeddings()]
    assert head in made.llm_int8_skip_modules
