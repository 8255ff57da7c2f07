"""BLIP-2's and InstructBLIP's inputs: those of transformers' processors, what the Q-Former reads, packed rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_backbones import PAIRS, SIZE, backbone_of, examples, fresh, picture, shared, taken

from medvlm.errors import InputError
from medvlm.models.backbones.base import IGNORED, Example
from medvlm.models.backbones.blip2 import Blip2Backbone
from medvlm.models.load import planned_config
from medvlm.recipe.load import check

BOTH = ["blip2", "instructblip"]
PROMPT = "Question: is there a nodule? Answer:"


@pytest.mark.parametrize("name", BOTH)
def test_a_prompt_is_what_the_processor_of_transformers_makes_of_it(name: str) -> None:
    _, processor = shared(name)
    made = backbone_of(name, processor)
    theirs = processor(images=picture(), text=PROMPT, return_tensors="pt")
    ours = made.collate_prompts([Example(picture(), PROMPT)])
    # The published tokenizers put their start token before a text, which the tiny ones leave to the backbone.
    image, text = theirs["input_ids"][0, :32], theirs["input_ids"][0, 32:]
    assert ours["input_ids"][0].tolist() == [*image.tolist(), made.tokenizer.bos_token_id, *text.tolist()]
    for key in {"pixel_values", "qformer_input_ids", "qformer_attention_mask"} & theirs.keys():
        assert torch.equal(ours[key], theirs[key]), key


@pytest.mark.parametrize("name", BOTH)
def test_a_row_reads_as_the_running_text_does(name: str) -> None:
    made = backbone_of(name, shared(name)[1])
    ids = made.collate([Example(picture(), PROMPT, "the left lung")])["input_ids"][0, 33:-1].tolist()
    assert ids == made.tokenizer(f"{PROMPT} the left lung", add_special_tokens=False)["input_ids"]
    # Without a prompt the answer begins the text.
    ids = made.collate([Example(picture(), "", "the left lung")])["input_ids"][0, 33:-1].tolist()
    assert ids == made.tokenizer("the left lung", add_special_tokens=False)["input_ids"]


def test_the_end_is_that_of_the_checkpoint_and_no_line_ends_an_answer_of_opt() -> None:
    report = "Findings: a nodule.\n\nImpression:\n  nodule."
    made = backbone_of("blip2", shared("blip2")[1])
    assert made.tokenizer.decode([made.end_token_id]) == "\n"
    batch = made.collate([Example(picture(), "a photo of", report)])
    learned = batch["labels"][batch["labels"] != IGNORED]
    assert (learned == made.end_token_id).sum() == 1
    assert made.decode(learned[None]) == ["Findings: a nodule. Impression: nodule."]
    other = backbone_of("instructblip", shared("instructblip")[1])
    assert other.end_token_id == other.tokenizer.eos_token_id
    learned = other.collate([Example(picture(), "a photo of", report)])["labels"]
    assert other.decode(learned[learned != IGNORED][None]) == [report]


@pytest.mark.parametrize(("name", "end"), [("blip2", "\n"), ("instructblip", "</s>")])
def test_the_end_is_no_other_for_the_numbers_of_an_early_llama(name: str, end: str, tmp_path: Path) -> None:
    """The published InstructBLIP says of its Vicuna that text begins with 0, ends with 1 and is padded with -1."""
    model, processor = fresh(name)
    if name == "instructblip":
        text = model.config.text_config
        text.bos_token_id, text.eos_token_id, text.pad_token_id = 0, 1, -1
        model.generation_config.eos_token_id, model.generation_config.pad_token_id = 1, None
    for part in (model, processor):
        part.save_pretrained(tmp_path / "base")
    loaded, again = Blip2Backbone.load({"model": tmp_path / "base"}, {"dtype": torch.float32}, 0)
    made = backbone_of(name, again)
    labels = made.collate([Example(picture(), PROMPT, "the left lung")])["labels"]
    assert made.tokenizer.decode([int(labels[0, -1])]) == end
    # Merged, plain transformers loads it, and ends there, too.
    loaded.save_pretrained(tmp_path / "merged")
    plain = type(loaded).from_pretrained(tmp_path / "merged")
    assert plain.generation_config.eos_token_id == int(labels[0, -1])


@torch.no_grad()
def queries(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """What stands for the pictures [B, 32, D]."""
    read = {key: value for key, value in batch.items() if key.startswith("qformer_")}
    found: torch.Tensor = model.get_image_features(batch["pixel_values"], **read).pooler_output
    return found


def test_the_q_former_of_instructblip_reads_the_prompt_and_never_the_answer() -> None:
    model, processor = shared("instructblip")
    made = backbone_of("instructblip", processor)
    plain = queries(model, made.collate([Example(picture(), "where?", "left")]))
    answered = queries(model, made.collate([Example(picture(), "where?", "a much longer answer to it")]))
    asked = queries(model, made.collate([Example(picture(), "how many?", "left")]))
    assert torch.equal(plain, answered)
    assert not torch.allclose(plain, asked, atol=1e-2)
    # Padding is not read.
    padded = queries(model, made.collate([Example(picture(), "where?", "left"), Example(picture(1), PROMPT, "no")]))
    torch.testing.assert_close(padded[:1], plain, atol=1e-5, rtol=1e-5)


def test_the_q_former_reads_no_more_of_a_prompt_than_the_budget() -> None:
    short = backbone_of("instructblip", shared("instructblip")[1], prefix=3)
    words = short.reader("is there a nodule in the lung", add_special_tokens=False)["input_ids"]
    batch = short.collate_prompts([Example(picture(), "is there a nodule in the lung")])
    assert batch["qformer_input_ids"][0, 1:-1].tolist() == words[-3:]
    assert batch["input_ids"].shape[1] == 32 + 1 + 3


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", BOTH)
def test_packed_rows_give_the_losses_of_padded_ones(name: str, attention: str) -> None:
    model, processor = shared(name)
    model.set_attn_implementation(attention)
    made = backbone_of(name, processor)
    packed = made.collate_packed(examples(), 200)
    assert len(packed["input_ids"]) < len(PAIRS)
    _, plain, counts = made.losses(model, made.collate(examples()))
    _, found, others = made.losses(model, packed)
    torch.testing.assert_close(found, plain, atol=1e-4, rtol=1e-5)
    assert others.tolist() == counts.tolist()
    assert sorted(made.true_lengths(packed)) == sorted(made.true_lengths(made.collate(examples())))
    model.set_attn_implementation("sdpa")


@pytest.mark.parametrize("name", BOTH)
def test_another_size_of_picture_takes_as_many_tokens(name: str) -> None:
    model, processor = fresh(name)
    old = model.vision_model.embeddings.position_embedding.detach().clone()
    assert not Blip2Backbone.resize(model, processor, SIZE)
    assert Blip2Backbone.resize(model, processor, 84)
    new = model.vision_model.embeddings.position_embedding
    assert new.shape == (1, 37, old.shape[2])
    # The class token keeps its position, and corners of the picture stay corners.
    assert torch.equal(new[0, 0], old[0, 0])
    torch.testing.assert_close(new[0, [1, 6, 31, 36]].detach(), old[0, [1, 4, 13, 16]])
    made = backbone_of(name, processor)
    batch = made.collate(examples(0))
    assert batch["pixel_values"].shape[-2:] == (84, 84)
    assert int((batch["input_ids"] == made.image_token_id).sum()) == 32
    assert torch.isfinite(model(**taken(batch)).logits).all()


def recipe(model: str) -> Any:
    return check({"name": "t", "model": {"id": model, "backbone": "blip2"}, "data": [{"path": "d"}]}, "test")


def test_an_encoder_beside_the_decoder_is_refused_in_one_line(tmp_path: Path) -> None:
    from transformers import Blip2Config, T5Config

    config = Blip2Config(text_config=T5Config(d_model=64, num_layers=1, d_kv=16, num_heads=2, d_ff=64))
    config.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").touch()
    words = r"^model\.id: its language model, t5, has an encoder beside its decoder, .*; expected a BLIP-2 with OPT or"
    with pytest.raises(InputError, match=words):
        planned_config(recipe(str(tmp_path)))
    with pytest.raises(InputError, match=words):
        Blip2Backbone.load({"model": tmp_path}, {}, 0)


def test_a_copy_from_before_the_image_token_is_refused_in_one_line(tmp_path: Path) -> None:
    model, processor = fresh("blip2")
    model.resize_token_embeddings(processor.tokenizer.convert_tokens_to_ids("<image>"))
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"its tokenizer has <image> at \d+, where the model has no embedding: an old"):
        Blip2Backbone.load({"model": tmp_path}, {"dtype": torch.float32}, 0)


def test_another_architecture_names_its_own_backbone() -> None:
    with pytest.raises(InputError, match=r"is a git model; expected blip2; set model\.backbone=git"):
        planned_config(recipe("microsoft/git-base"))
