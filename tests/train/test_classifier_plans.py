"""What plans say of classifiers: parameters against published numbers, operations and memory against a real step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel, ViTConfig, ViTModel

from medvlm.models import adapters
from medvlm.models.backbones import BACKBONES
from medvlm.models.backbones.base import Example
from medvlm.models.load import load_base, planned_config
from medvlm.recipe import load_members
from medvlm.recipe.load import check
from medvlm.train import memory
from medvlm.train.devices import here
from medvlm.train.flops import FlopModel
from medvlm.train.memory_trace import Shape
from medvlm.train.mixing import HELD, Held
from medvlm.train.trainer import SuffixTrainer

KINDS = ["vilt", "visual_bert", "lxmert", "flava"]
FULL = {"vision_tower": "full", "projector": "full", "language_model": "full", "head": "full"}
LORA = {"language_model": {"kind": "lora", "r": 8}, "head": "full"}
FROZEN_TOWER = {"projector": "full", "language_model": "full", "head": "full"}


def recipe(name: str, parts: dict[str, Any], **changes: Any) -> Any:
    raw: dict[str, Any] = {
        "name": "t",
        "model": {"backbone": name, "id": "medvlm/tiny-random", "dtype": "float32"},
        "adapters": parts,
        "data": [{"path": "d", "tasks": ["vqa"]}],
        "text": {"max_prefix_tokens": 60},
    }
    return check({**raw, **changes}, "t")


def prepared(name: str, parts: dict[str, Any], size: int = 3) -> tuple[Any, Any, Any, dict[str, torch.Tensor]]:
    """Return recipe, backbone, model in training mode with its adapters, and a batch without padding."""
    made = recipe(name, parts)
    loaded = load_base(made)
    words = "is there an effusion in the left lung " * 4
    rows = [(words, f"answer {place % 12}") for place in range(max(12, size))]
    loaded.backbone.fit(loaded.model, rows)
    model = adapters.apply(loaded.model, made.adapters, type(loaded.backbone))
    draw = np.random.default_rng(0)
    pictures = [Image.fromarray(draw.integers(0, 255, (60, 60, 3), dtype=np.uint8)) for _ in range(size)]
    batch = [Example(picture, *row) for picture, row in zip(pictures, rows, strict=False)]
    return made, loaded.backbone, model.train(), loaded.backbone.collate(batch)


@pytest.mark.parametrize(("parts", "tolerance"), [(FULL, 0.025), (LORA, 0.025), (FROZEN_TOWER, 0.01)])
@pytest.mark.parametrize("name", KINDS)
def test_operations_are_those_that_torch_counts(name: str, parts: dict[str, Any], tolerance: float) -> None:
    made, backbone, model, inputs = prepared(name, parts)
    with FlopCounterMode(display=False) as counter:
        backbone.losses(model, inputs)[0].backward()
    found = FlopModel(model, made, type(backbone)).batch(inputs)
    assert found == pytest.approx(counter.get_total_flops(), rel=tolerance)


@pytest.mark.parametrize("parts", [FULL, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("name", KINDS)
def test_what_is_trained(name: str, parts: dict[str, Any]) -> None:
    _, backbone, model, inputs = prepared(name, parts)
    counts = adapters.census(model, type(backbone))
    trained = {part for part, count in counts.items() if count.trainable}
    expected = {part for part, kind in parts.items() if kind != "frozen" and counts[part].total}
    assert trained - {"embeddings"} == expected
    assert ("embeddings" in trained) == (parts is FULL)
    assert sum(count.total for count in counts.values()) == sum(p.numel() for p in unique(model))
    assert counts["head"].trainable == counts["head"].total > 0
    backbone.losses(model, inputs)[0].backward()
    for part in ("language_model", "head"):
        grown = [
            p
            for n, p in model.named_parameters()
            if p.grad is not None and p.grad.abs().sum() > 0 and adapters.component_of(n, model, type(backbone)) == part
        ]
        assert grown, part


def unique(model: Any) -> list[torch.nn.Parameter]:
    return [p for n, p in model.named_parameters() if ".original_module." not in n]


@pytest.mark.parametrize("name", KINDS)
def test_the_memory_of_a_step(name: str) -> None:
    """Against the bytes that autograd keeps in a real step: the peak is that, and what is on its way."""
    rows = 24
    made, backbone, model, inputs = prepared(name, FROZEN_TOWER, rows)
    kept: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        backbone.losses(model, inputs)[0].backward()
    length = backbone.true_lengths(inputs)[0]
    config = type(backbone).planned(planned_config(made), [("q", f"answer {place}") for place in range(12)])
    planned = memory.prepare(made, config)
    estimate = memory.estimate(made, planned, Shape(rows, length, 1, rows), "cpu")
    # Gradients come as activations go, so that those which are not there yet leave room.
    assert 1 <= (estimate.activations + estimate.gradients) / sum(kept.values()) <= 1.3
    trained = sum(p.numel() for p in unique(model) if p.requires_grad)
    assert estimate.adapters == estimate.gradients == 4 * trained
    assert estimate.optimizer == 8 * trained


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def layers(width: int, inner: int) -> int:
    """Return the parameters of a transformer layer: four projections, two linear layers, two norms, all with biases."""
    return 4 * (width * width + width) + 2 * width * inner + inner + width + 4 * width


def test_published_dimensions() -> None:
    """BERT-base uncased has 109,482,240 parameters, ViT-B/16 at 224 px 85,798,656 without a classifier."""
    with torch.device("meta"):
        assert parameters(BertModel(BertConfig())) == 109_482_240
        assert parameters(ViTModel(ViTConfig(), add_pooling_layer=False)) == 85_798_656
        built = {}
        for name in KINDS:
            _, made = load_members(f"recipes/{name}_vqa.yaml").members[0]
            kind = BACKBONES.get(name)
            pairs = [("q", f"answer {place}") for place in range(3129)]
            built[name] = kind.build(kind.planned(planned_config(made), pairs))
    layer = layers(768, 3072)
    vilt: Any = built["vilt"]
    # The paper, table 1: 87.4 M without the word embeddings: 12 layers and the embedding of 32 x 32 patches.
    counted = parameters(vilt.vilt.encoder) + parameters(vilt.vilt.embeddings.patch_embeddings)
    assert counted == 12 * layer + 3 * 32 * 32 * 768 + 768
    assert round(counted / 1e6, 1) == 87.4
    bert: Any = built["visual_bert"]
    pooler, visual = 768 * 768 + 768, (2 + 512) * 768 + 2048 * 768 + 768
    assert parameters(bert.encoder.visual_bert) == 109_482_240 - pooler + visual
    lxmert: Any = built["lxmert"]
    # A cross layer: attention both ways, then attention and feed-forward for each side.
    attention = 4 * (768 * 768 + 768) + 2 * 768
    cross = attention + 2 * layer
    entry = 2048 * 768 + 768 + 4 * 768 + 768 + 4 * 768
    embeddings = 109_482_240 - 12 * layer - pooler
    assert parameters(lxmert.encoder.lxmert) == embeddings + 14 * layer + 5 * cross + entry + pooler
    flava: Any = built["flava"]
    mask_token, norm, class_token = 768, 2 * 768, 768
    assert parameters(flava.flava.image_model) == 85_798_656 + mask_token
    assert parameters(flava.flava.text_model) == 109_482_240 - pooler + norm
    assert parameters(flava.flava.multimodal_model) == 6 * layer + norm + class_token
    for name in KINDS:
        holder, last = BACKBONES.get(name).last_layer(built[name])
        assert holder.get_submodule(last).out_features == 3129


@pytest.mark.parametrize(("output", "expected"), [("class", 1), ("text", 2)])
def test_the_mean_over_examples_counts_those_that_have_a_loss(output: str, expected: int) -> None:
    collator = SimpleNamespace(collator=SimpleNamespace(backbone=SimpleNamespace(output=output)))
    trainer: Any = SimpleNamespace(per_example=True, here=here(), data_collator=collator)
    batch = {HELD: Held(parts=(0, 0), tokens=9, labels=1, flops=0)}
    assert SuffixTrainer._get_num_items_in_batch(trainer, [batch], torch.device("cpu")) == expected
