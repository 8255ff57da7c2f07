"""Features in the pictures' place: the same loss and gradients, for both backbones, bare and wrapped."""

from __future__ import annotations

import copy
from typing import Any

import git_llm_tiny
import numpy as np
import pytest
import torch
from PIL import Image

from medvlm.models import tiny
from medvlm.models.backbones.base import Example
from medvlm.models.backbones.git_llm import GitLlmBackbone
from medvlm.models.backbones.paligemma import PaliGemmaBackbone
from medvlm.models.features import fingerprint, look, skip_tower, tower_of
from medvlm.train.loss import forward_loss

Pair = tuple[Any, Any]


def example(seed: int, prefix: str, suffix: str) -> Example:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    return Example(Image.fromarray(pixels), prefix, suffix)


EXAMPLES = [
    example(0, "caption", "a nodule"),
    example(1, "is there a nodule in the left lung?", "no"),
    example(2, "report", "no pleural effusion is seen. a small nodule in the lung."),
    example(3, "caption", "the right lower lobe"),
]


def git_llm(family: str, attention: str) -> Pair:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    from medvlm.models.git_llm import GitLlmProcessor

    model = git_llm_tiny.model_of(family, attention)
    side = {"height": git_llm_tiny.IMAGE_SIZE, "width": git_llm_tiny.IMAGE_SIZE}
    images = CLIPImageProcessorPil(size=side, crop_size=side)
    processor = GitLlmProcessor(images, git_llm_tiny.tokenizer("opt"))
    tokens = GitLlmBackbone.image_tokens_of(model.config)
    model.config.image_token_id = processor.image_token_id
    return model, GitLlmBackbone(processor, image_tokens=tokens, max_prefix_tokens=32, max_suffix_tokens=32)


def paligemma() -> Pair:
    torch.manual_seed(0)
    model, processor = tiny.random_model()
    return model.eval(), PaliGemmaBackbone(processor, image_tokens=64, max_prefix_tokens=32, max_suffix_tokens=32)


@pytest.fixture(params=["paligemma", "git_llm"])
def pair(request: pytest.FixtureRequest) -> Pair:
    return paligemma() if request.param == "paligemma" else git_llm("llama", "sdpa")


def gradients(model: Any, inputs: dict[str, torch.Tensor]) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = forward_loss(model, inputs)[0]
    loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def in_features(model: Any, backbone: Any, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    seen = look(tower_of(model, type(backbone)), inputs["pixel_values"], torch.float32)
    return {**inputs, "pixel_values": seen}


@pytest.mark.parametrize("how", ["bare", "peft", "checkpointed", "copied", "packed"])
def test_loss_and_gradients_are_those_of_the_pictures(how: str, pair: Pair) -> None:
    model, backbone = pair
    tower_of(model, type(backbone)).requires_grad_(False)
    if how == "peft":
        from peft import LoraConfig, get_peft_model

        saved = backbone.components["projector"].removesuffix(".").rsplit(".", 1)[-1]
        pattern = r".*language_model.*\.(q_proj|v_proj)"
        model = get_peft_model(model, LoraConfig(r=2, target_modules=pattern, modules_to_save=[saved]))
    if how == "checkpointed":
        model.train()
        model.activation_checkpointing_enable()
    inputs = backbone.collate_packed(EXAMPLES, 400) if how == "packed" else backbone.collate(EXAMPLES)
    loss, expected = gradients(model, inputs)
    skip_tower(model, type(backbone))
    if how == "copied":
        model = copy.deepcopy(model)
    skip_tower(model, type(backbone))
    features = in_features(model, backbone, inputs)
    assert features["pixel_values"].dim() == 3
    calls = []
    blocks = tower_of(model, type(backbone)).register_forward_hook(lambda *_: calls.append(1))
    for given in (features, inputs):
        ours, found = gradients(model, given)
        assert ours == pytest.approx(loss, abs=1e-6)
        assert found.keys() == expected.keys()
        assert all(torch.allclose(found[name], expected[name], atol=1e-5) for name in expected)
    blocks.remove()
    assert calls


def test_in_bfloat16_the_loss_is_that_of_the_pictures(pair: Pair) -> None:
    """As the loop trains: weights in bfloat16, the projector in float32, under autocast."""
    model, backbone = pair
    model = model.to(torch.bfloat16).train()
    projector = model.get_submodule(backbone.components["projector"].removesuffix("."))
    model.requires_grad_(False)
    projector.float().requires_grad_(True)
    inputs = backbone.collate(EXAMPLES)
    seen = look(tower_of(model, type(backbone)), inputs["pixel_values"], torch.bfloat16)
    assert seen.dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, expected = gradients(model, inputs)
        skip_tower(model, type(backbone))
        ours, found = gradients(model, {**inputs, "pixel_values": seen})
    assert ours == loss
    assert expected
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_tower_is_not_run_for_features(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    model, backbone = pair
    inputs = backbone.collate(EXAMPLES)
    features = in_features(model, backbone, inputs)
    skip_tower(model, type(backbone))
    tower = tower_of(model, type(backbone))
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.fill_(float("nan"))
        assert torch.isfinite(forward_loss(model, features)[0])
        assert not torch.isfinite(forward_loss(model, inputs)[0])


def test_texts_are_generated_from_pictures_still(pair: Pair) -> None:
    model, backbone = pair
    prompts = backbone.collate_prompts(EXAMPLES[:2])
    plain = model.generate(**prompts, max_new_tokens=6, do_sample=False)
    skip_tower(model, type(backbone))
    assert torch.equal(model.generate(**prompts, max_new_tokens=6, do_sample=False), plain)


def test_what_is_saved_knows_nothing_of_it(pair: Pair, tmp_path: Any) -> None:
    model, backbone = pair
    names = list(model.state_dict())
    skip_tower(model, type(backbone))
    assert list(model.state_dict()) == names
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path, local_files_only=True).eval()
    inputs = backbone.collate(EXAMPLES)
    with torch.no_grad():
        assert torch.allclose(forward_loss(again, inputs)[0], forward_loss(model, inputs)[0], atol=1e-6)


def test_looking_leaves_the_tower_as_it_was_and_needs_no_graph(pair: Pair) -> None:
    model, backbone = pair
    tower = tower_of(model, type(backbone)).train()
    pixels = backbone.collate(EXAMPLES)["pixel_values"]
    seen = look(tower, pixels, torch.bfloat16)
    assert seen.dtype == torch.bfloat16
    assert not seen.requires_grad
    assert tower.training
    assert torch.allclose(seen.float(), look(tower, pixels, torch.float32), atol=0.1)


def test_the_fingerprint_is_of_weights_and_dimensions(pair: Pair) -> None:
    tower = tower_of(*(pair[0], type(pair[1])))
    first = fingerprint(tower)
    assert fingerprint(copy.deepcopy(tower)) == first
    changed = copy.deepcopy(tower)
    next(iter(reversed(list(changed.parameters())))).data.view(-1)[-1] += 1e-3
    assert fingerprint(changed) != first
    other = copy.deepcopy(tower)
    other.config.hidden_act = "relu"
    assert fingerprint(other) != first
    assert fingerprint(tower.to(torch.bfloat16)) != first


@pytest.mark.parametrize("family", ["llama", "opt", "gemma2", "mpt", "qwen2", "mistral", "gpt2"])
@pytest.mark.parametrize("packed", [True, False])
def test_the_chunked_loss_of_git_llm_is_that_of_transformers(family: str, packed: bool) -> None:
    """Over whole logits, each example alone; packed rows are blind to each other."""
    model, backbone = git_llm(family, "eager" if family in ("gemma2", "mpt") else "sdpa")
    inputs = backbone.collate_packed(EXAMPLES, 200) if packed else backbone.collate(EXAMPLES)
    assert (len(inputs["input_ids"]) < len(EXAMPLES)) == packed
    _, sums, counts = forward_loss(model, inputs, chunk=5)
    for number, one in enumerate(EXAMPLES):
        alone = backbone.collate([one])
        with torch.no_grad():
            mean = model(**{k: v for k, v in alone.items() if k != "logits_to_keep"}).loss
        assert (sums[number] / counts[number]).item() == pytest.approx(mean.item(), abs=1e-5)
