"""PaliGemma 2: eager attention chosen, no leak, decoding with cache, soft-capping switched off where asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from paligemma2_tiny import SOFTCAP, save_paligemma2
from PIL import Image

from medvlm.errors import RecipeError
from medvlm.models import adapters, quantize, trained
from medvlm.models.backbones.base import Example
from medvlm.models.backbones.paligemma import PaliGemmaBackbone
from medvlm.models.load import Loaded, load_base
from medvlm.recipe.load import check
from medvlm.recipe.models import Recipe
from medvlm.runs import Run
from medvlm.train.loss import forward_loss


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_paligemma2(tmp_path_factory.mktemp("paligemma2"))


def recipe(folder: Path, quantization: dict[str, Any] | None = None, **model: Any) -> Recipe:
    raw: dict[str, Any] = {
        "name": "t",
        "model": {"id": str(folder), "dtype": "float32", **model},
        "adapters": {"language_model": {"kind": "lora", "r": 2}},
        "data": [{"path": "d"}],
        "quantization": quantization or {"mode": "none"},
    }
    return check(raw, "test")


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Loaded:
    found = load_base(recipe(folder))
    found.model.eval()
    return found


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (90, 70, 3), dtype=np.uint8))


def test_auto_takes_eager_for_the_decoder_and_sdpa_for_the_tower(loaded: Loaded) -> None:
    config: Any = loaded.model.config
    assert loaded.facts["attention"] == "eager"
    assert config.text_config._attn_implementation == "eager"
    assert config.vision_config._attn_implementation == "sdpa"


def test_sdpa_by_name_is_refused_in_one_line(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"model\.attention: 'sdpa': gemma2 has none; expected auto or eager"):
        load_base(recipe(folder, attention="sdpa"))


@pytest.mark.parametrize("padded", [True, False])
def test_no_suffix_token_is_seen_by_those_before_it(loaded: Loaded, padded: bool) -> None:
    examples = [Example(picture(), "caption en", "a small left nodule in the lung.")]
    if padded:
        examples.append(Example(picture(1), "answer en which side of the chest?", "left and right, a longer one"))
    batch = loaded.backbone.collate(examples)
    inputs = {k: v for k, v in batch.items() if k not in ("labels", "logits_to_keep")}

    def logits(ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = loaded.model(**{**inputs, "input_ids": ids}, use_cache=False).logits
        return found

    before = logits(batch["input_ids"])
    suffix = (batch["token_type_ids"][0] == 1).nonzero().flatten().tolist()
    for place in suffix:
        ids = batch["input_ids"].clone()
        ids[0, place] = (ids[0, place] + 7) % 200 + 5
        after = logits(ids)
        assert torch.allclose(before[0, :place], after[0, :place], atol=1e-5), f"token {place} leaks backwards"
        assert not torch.allclose(before[0, place], after[0, place], atol=1e-5)


def test_cached_left_padded_decoding_equals_uncached_alone(loaded: Loaded) -> None:
    model: Any = loaded.model
    made = loaded.backbone
    examples = [Example(picture(i), p) for i, p in enumerate(["caption en", "answer en is there a large nodule?"])]
    together = model.generate(**made.collate_prompts(examples), max_new_tokens=12, do_sample=False)
    for row, example in enumerate(examples):
        alone = made.collate_prompts([example])
        width = alone["input_ids"].shape[1]
        plain = model.generate(**alone, max_new_tokens=12, do_sample=False, use_cache=False)
        new = together[row, together.shape[1] - 12 :][: plain.shape[1] - width]
        assert new.tolist() == plain[0, width:].tolist()


def test_softcapping_off_holds_in_training_and_after_loading(folder: Path, tmp_path: Path) -> None:
    """The loss is that of logits written out: with the cap, tanh(x / cap) * cap of what it is without."""
    losses, logits = {}, {}
    for keep in (True, False):
        made = recipe(folder, logit_softcapping=keep)
        found = load_base(made)
        found.model = adapters.apply(found.model, made.adapters, PaliGemmaBackbone)
        batch = found.backbone.collate([Example(picture(), "caption en", "a nodule")])
        losses[keep] = forward_loss(found.model.eval(), dict(batch))[0].detach()
        inputs = {k: v for k, v in batch.items() if k not in ("labels", "logits_to_keep")}
        target = tmp_path / str(keep)
        target.mkdir()
        trained.save(found.model, found.processor, target)
        with torch.no_grad():
            logits[keep] = trained.load(Run(target), made).model.eval()(**inputs).logits
        labels = batch["labels"][:, 1:]
        kept = labels != -100
        written_out = torch.nn.functional.cross_entropy(logits[keep][:, :-1][kept], labels[kept])
        assert torch.allclose(losses[keep], written_out, atol=1e-5)
    assert torch.allclose(torch.tanh(logits[False] / SOFTCAP) * SOFTCAP, logits[True], atol=1e-5)
    assert not torch.allclose(losses[False], losses[True], atol=1e-3)


def test_gradients_in_4_bits_are_the_same_before_and_after_generating(folder: Path) -> None:
    made = recipe(folder, quantization={"mode": "nf4", "compute_dtype": "bfloat16"})
    found = load_base(made)
    found.model = adapters.apply(found.model, made.adapters, PaliGemmaBackbone)
    names = quantize.quantized_modules(found.model)
    assert len(names) == 7 * 4
    assert all(".language_model." in name for name in names)
    counts = adapters.census(found.model, PaliGemmaBackbone)
    assert counts["language_model"].quantized == 4 * (2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 256)
    assert sum(counts[name].quantized for name in counts if name != "language_model") == 0
    batch = found.backbone.collate([Example(picture(), "caption en", "a nodule")])

    def gradients() -> dict[str, torch.Tensor]:
        found.model.train()
        found.model.zero_grad()
        forward_loss(found.model, dict(batch))[0].backward()
        return {n: p.grad.clone() for n, p in found.model.named_parameters() if p.grad is not None}

    before = gradients()
    model: Any = found.model.eval()
    model.generate(**found.backbone.collate_prompts([Example(picture(), "caption en")]), max_new_tokens=3)
    after = gradients()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
