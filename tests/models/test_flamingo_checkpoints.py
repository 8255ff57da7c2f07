"""Flamingo put together from checkpoints, saved and loaded as one model, resized, in 4 bits, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from git_llm_tiny import IMAGE_SIZE, picture, save_text, save_tower, text_config, vision_config

from medvlm.errors import InputError
from medvlm.models.backbones.base import Example
from medvlm.models.backbones.flamingo import FlamingoBackbone
from medvlm.models.flamingo import FlamingoForConditionalGeneration, FlamingoProcessor
from medvlm.models.flamingo.configuration import cross_every_of

EXAMPLES = [
    Example(picture(0), "Question: which side? Answer:", "the right lung", shots=(Example(picture(2), "a", "b"),)),
    Example(picture(1), "a", "b c", more_images=(picture(3),)),
    Example(None, "what", "none"),
]
OPTIONS = {"dtype": torch.float32, "attn_implementation": "sdpa"}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    for tower in ("clip", "siglip"):
        save_tower(folder / tower, tower)
    for family, kind in (("opt", "opt"), ("llama", "llama"), ("mpt", "gpt2"), ("gemma3_text", "llama")):
        save_text(folder / family, family, kind)
    return folder


def together(
    parts: Path, text: str, tower: str = "clip", seed: int = 3, **options: Any
) -> tuple[Any, FlamingoBackbone]:
    paths = {"vision_tower": parts / tower, "language_model": parts / text}
    model, processor = FlamingoBackbone.load(paths, {**OPTIONS, **options}, seed)
    return model, backbone_of(model, processor)


def backbone_of(model: Any, processor: Any) -> FlamingoBackbone:
    count = FlamingoBackbone.image_tokens_of(model.config)
    return FlamingoBackbone(processor, image_tokens=count, max_prefix_tokens=64, max_suffix_tokens=64)


def open_gates(model: Any) -> None:
    with torch.no_grad():
        for block in model.projector.blocks:
            block.attention_gate.fill_(0.9)
            block.feed_forward_gate.fill_(0.4)


@torch.no_grad()
def logits_of(model: Any, backbone: FlamingoBackbone) -> torch.Tensor:
    batch = backbone.collate(EXAMPLES)
    logits: torch.Tensor = model.eval()(**{name: value for name, value in batch.items() if name != "labels"}).logits
    return logits


@pytest.mark.parametrize(("text", "tower"), [("opt", "clip"), ("mpt", "siglip"), ("gemma3_text", "clip")])
def test_saved_as_one_model_it_gives_the_same_logits(parts: Path, tmp_path: Path, text: str, tower: str) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model, backbone = together(parts, text, tower)
    assert model.config.latents == 64
    open_gates(model)
    before = logits_of(model, backbone)
    model.save_pretrained(tmp_path)
    backbone.processor.save_pretrained(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path, backend="pil")
    assert type(again) is FlamingoForConditionalGeneration
    assert type(processor) is FlamingoProcessor
    torch.testing.assert_close(logits_of(again, backbone_of(again, processor)), before, atol=1e-5, rtol=0)
    loaded, made = FlamingoBackbone.load({"model": tmp_path}, OPTIONS, 0)
    torch.testing.assert_close(logits_of(loaded, backbone_of(loaded, made)), before, atol=1e-5, rtol=0)
    # The language model's vocabulary is as it was: our tokens got no row.
    known = json.loads((parts / text / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    assert again.get_input_embeddings().weight.shape[0] == known
    batch = [made.tokenizer.convert_tokens_to_ids(token) for token in ("<image>", "<|endofchunk|>")]
    assert batch == [again.config.image_token_id, again.config.chunk_token_id]


@pytest.mark.parametrize("text", ["opt", "llama", "mpt", "gemma3_text"])
def test_new_from_parts_it_answers_as_its_language_model_bit_for_bit(parts: Path, text: str) -> None:
    from transformers import AutoModelForCausalLM

    model, backbone = together(parts, text)
    alone = AutoModelForCausalLM.from_pretrained(parts / text).eval()
    tok = backbone.tokenizer
    prompts = backbone.collate_prompts(EXAMPLES)
    start = tok.eos_token_id if tok.bos_token_id is None else tok.bos_token_id
    ids = prompts["input_ids"]
    plain = ids.masked_fill(ids == model.config.image_token_id, start)
    plain = plain.masked_fill(ids == model.config.chunk_token_id, tok.eos_token_id)
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": tok.pad_token_id, "output_logits": True}
    options |= {"return_dict_in_generate": True, "use_cache": True}
    ours, theirs = (
        made.generate(**inputs, **options)
        for made, inputs in (
            (model, prompts),
            (alone, {"input_ids": plain, "attention_mask": prompts["attention_mask"]}),
        )
    )
    assert torch.equal(torch.stack(ours.logits), torch.stack(theirs.logits))


def test_the_parts_keep_their_weights_and_what_is_new_follows_the_seed(parts: Path) -> None:
    from transformers import AutoModel

    model, backbone = together(parts, "opt")
    vision = AutoModel.from_pretrained(parts / "clip").eval().vision_model
    pixels = backbone.collate(EXAMPLES[:1])["pixel_values"][0]
    with torch.no_grad():
        expected = vision(pixels).last_hidden_state
        torch.testing.assert_close(model.vision_tower(pixels).last_hidden_state, expected)
        torch.testing.assert_close(model.get_image_features(pixels), model.projector.resampler(expected))
    new = dict(model.projector.named_parameters())
    same, other = (dict(together(parts, "opt", seed=seed)[0].projector.named_parameters()) for seed in (3, 4))
    assert all(torch.equal(value, same[name]) for name, value in new.items())
    changed = {name for name, value in new.items() if not torch.equal(value, other[name])}
    assert {name for name in new if name.endswith("_proj.weight")} | {"resampler.latents"} == changed
    assert all(not value.any() for name, value in new.items() if name.endswith("_gate"))
    assert float(new["resampler.latents"].detach().std()) == pytest.approx(1.0, abs=0.1)
    assert float(new["blocks.0.attention.q_proj.weight"].detach().std()) == pytest.approx(64**-0.5, rel=0.05)
    embedded = model.get_input_embeddings().weight
    assert torch.equal(
        new["tokens.weight"], embedded[[backbone.tokenizer.bos_token_id, backbone.tokenizer.eos_token_id]]
    )


@pytest.mark.parametrize("tower", ["clip", "siglip"])
def test_resizing_changes_no_number_of_latents(parts: Path, tower: str) -> None:
    model, backbone = together(parts, "llama", tower)
    assert not FlamingoBackbone.resize(model, backbone.processor, IMAGE_SIZE)
    assert FlamingoBackbone.resize(model, backbone.processor, 2 * IMAGE_SIZE)
    batch = backbone.collate(EXAMPLES)
    assert batch["pixel_values"].shape[-1] == 2 * IMAGE_SIZE
    assert FlamingoBackbone.image_tokens_of(model.config) == 64
    assert model.get_image_features(batch["pixel_values"][0]).shape[1] == 64
    assert torch.isfinite(logits_of(model, backbone)).all()


def test_only_the_language_model_is_in_4_bits(parts: Path, tmp_path: Path) -> None:
    from transformers import BitsAndBytesConfig

    from medvlm.models import quantize

    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    model, backbone = together(parts, "llama", quantization_config=config)
    open_gates(model)
    names = set(quantize.quantized_modules(model))
    linear = {
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.startswith("language_model.")
    }
    assert names == linear - {"language_model.lm_head"} != set()
    full, plain = together(parts, "llama")
    open_gates(full)
    full.save_pretrained(tmp_path)
    plain.processor.save_pretrained(tmp_path)
    saved, _ = FlamingoBackbone.load({"model": tmp_path}, {**OPTIONS, "quantization_config": config}, 3)
    assert set(quantize.quantized_modules(saved)) == names
    torch.testing.assert_close(logits_of(saved, backbone), logits_of(model, backbone), atol=1e-5, rtol=0)


def test_the_composed_configuration_is_that_of_the_model(parts: Path) -> None:
    from transformers import AutoConfig

    configs = {
        "vision_tower": AutoConfig.from_pretrained(parts / "siglip").to_dict(),
        "language_model": AutoConfig.from_pretrained(parts / "mpt").to_dict(),
    }
    composed = FlamingoBackbone.compose(configs)
    assert composed["model_type"] == "flamingo"
    model, _ = together(parts, "mpt", "siglip")
    with torch.device("meta"):
        planned = FlamingoBackbone.build(composed)
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    assert {name: tuple(value.shape) for name, value in planned.named_parameters()} == shapes
    assert FlamingoBackbone.compose({"model": composed}) == composed


@pytest.mark.parametrize(
    ("base", "every", "count"),
    [
        ("facebook/opt-350m", 1, 283_293_232),
        ("HuggingFaceTB/SmolLM2-1.7B", 1, None),
        ("Qwen/Qwen2.5-7B", 2, None),
        ("meta-llama/Llama-2-7b-hf", 4, None),
    ],
)
def test_blocks_are_as_far_apart_as_the_articles_have_them(base: str, every: int, count: int | None) -> None:
    from transformers import AutoConfig

    from medvlm.models.published import PUBLISHED

    text = AutoConfig.for_model(**PUBLISHED[base])
    assert cross_every_of(text) == every
    composed = FlamingoBackbone.compose(
        {"vision_tower": PUBLISHED["openai/clip-vit-base-patch16"], "language_model": PUBLISHED[base]}
    )
    with torch.device("meta"):
        model: Any = FlamingoBackbone.build(composed)
    blocks = -(-text.num_hidden_layers // every)
    assert len(model.projector.blocks) == blocks
    t, v, inner = text.hidden_size, 768, 512
    block = 2 * t * inner + 2 * v * inner + 8 * t * t + 4 * t + 2
    layer = 4 * v * inner + 8 * v * v + 6 * v
    rows = 2 * (getattr(text, "word_embed_proj_dim", None) or t)
    by_hand = blocks * block + 6 * layer + 64 * v + 2 * v + rows
    assert sum(parameter.numel() for parameter in model.projector.parameters()) == by_hand
    assert count in (None, by_hand)


def test_what_cannot_be_a_flamingo_is_refused_in_one_line(parts: Path) -> None:
    with pytest.raises(InputError, match="a vit model; expected CLIP or SigLIP"):
        FlamingoBackbone.compose(
            {"vision_tower": {"model_type": "vit"}, "language_model": text_config("opt").to_dict()}
        )
    with pytest.raises(InputError, match="a t5 model; expected a decoder"):
        FlamingoBackbone.compose({"vision_tower": vision_config().to_dict(), "language_model": {"model_type": "t5"}})
    with pytest.raises(InputError, match="is a llama model; expected flamingo"):
        FlamingoBackbone.load({"model": parts / "llama"}, OPTIONS, 0)
    with pytest.raises(InputError, match="one untrained form, no opt"):
        FlamingoBackbone.tiny(None, "opt")


def test_what_lies_between_takes_other_sizes(parts: Path) -> None:
    model, _ = together(parts, "llama", sizes={"latents": 5, "cross_every": 2})
    assert (model.config.latents, len(model.projector.blocks)) == (5, 1)
