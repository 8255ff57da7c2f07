"""Classifiers from checkpoints as they are published, with heads of pretraining, and from what medvlm saved."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPModel,
    FlavaForPreTraining,
    LxmertForPreTraining,
    ViltForMaskedLM,
    VisualBertForPreTraining,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.flava.image_processing_pil_flava import FlavaImageProcessorPil
from transformers.models.vilt.image_processing_pil_vilt import ViltImageProcessorPil

from medvlm.errors import AccessError, InputError
from medvlm.io import stable_hash
from medvlm.models import adapters, trained
from medvlm.models.backbones import BACKBONES
from medvlm.models.backbones.base import Example
from medvlm.models.load import Loaded, load_base
from medvlm.recipe.load import check
from medvlm.recipe.resolve import write_resolved
from medvlm.runs import Run

KINDS = ["vilt", "visual_bert", "lxmert", "flava"]
PRETRAINED = {
    "vilt": ViltForMaskedLM,
    "visual_bert": VisualBertForPreTraining,
    "lxmert": LxmertForPreTraining,
    "flava": FlavaForPreTraining,
}
IMAGES = {"vilt": ViltImageProcessorPil, "flava": FlavaImageProcessorPil}
PAIRS = [("What is shown?", "CT"), ("Is there an effusion in the left lung?", "yes"), ("Which organ?", "liver")]


def save_tower(folder: Path) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = {**sizes, "image_size": 112, "patch_size": 14}
    CLIPModel(CLIPConfig(vision_config=vision, text_config=sizes, projection_dim=64)).save_pretrained(folder)
    CLIPImageProcessorPil(crop_size=112, size={"shortest_edge": 112}).save_pretrained(folder)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Return kind -> the model part of a recipe: small checkpoints with the heads that published ones have."""
    root = tmp_path_factory.mktemp("published")
    torch.manual_seed(0)
    save_tower(root / "tower")
    found = {}
    for name in KINDS:
        tiny, processor = BACKBONES.get(name).tiny(None, None)
        config = copy.deepcopy(getattr(tiny, "encoder", tiny).config)
        if name == "lxmert":
            config.num_qa_labels = 50
        PRETRAINED[name](config).save_pretrained(root / name)
        processor.tokenizer.save_pretrained(root / name)
        if name in IMAGES:
            IMAGES[name]().save_pretrained(root / name)
            found[name] = {"id": str(root / name)}
        else:
            found[name] = {"vision_tower": str(root / "tower"), "language_model": str(root / name)}
    return found


def recipe(name: str, model: dict[str, str], parts: dict[str, Any] | None = None) -> Any:
    raw = {
        "name": "t",
        "model": {"backbone": name, "dtype": "float32", **model},
        "adapters": parts or {"language_model": "full", "projector": "full", "head": "full"},
        "data": [{"path": "d", "tasks": ["vqa"]}],
        "text": {"max_prefix_tokens": 30},
    }
    return check(raw, "t")


def weights(model: torch.nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    return {n.removeprefix(prefix): v for n, v in model.state_dict().items() if n.startswith(prefix)}


@pytest.mark.parametrize("name", KINDS)
def test_a_published_checkpoint_gives_its_encoder(name: str, published: dict[str, dict[str, str]]) -> None:
    loaded = load_base(recipe(name, published[name]))
    source = PRETRAINED[name].from_pretrained(list(published[name].values())[-1])
    inner = {"vilt": "vilt.", "visual_bert": "visual_bert.", "lxmert": "lxmert.", "flava": "flava."}[name]
    outer = inner if name in ("vilt", "flava") else f"encoder.{inner}"
    theirs, ours = weights(source, inner), weights(loaded.model, outer)
    assert ours
    assert ours.keys() <= theirs.keys() | {"pooler.dense.weight", "pooler.dense.bias"}
    left_out = ("image_projection", "text_projection", "logit_scale")
    missing = {key for key in theirs.keys() - ours.keys() if "pooler" not in key and not key.startswith(left_out)}
    assert not missing
    for key in ours.keys() & theirs.keys():
        assert torch.equal(ours[key], theirs[key]), key
    again = load_base(recipe(name, published[name]))
    for key, value in loaded.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[key]), f"{key}: new weights follow the seed"
    size = loaded.backbone.collate_prompts([example("?")])["pixel_values"].shape
    assert size == (1, 3, 112, 112), "the whole picture, a square"
    assert loaded.facts["attention"] == "eager"


def example(question: str, answer: str | None = None) -> Example:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 60, 3), dtype=np.uint8))
    return Example(image, question, answer)


def logits(loaded: Loaded) -> torch.Tensor:
    inputs = loaded.backbone.collate_prompts([example(question) for question, _ in PAIRS])
    with torch.no_grad():
        found: torch.Tensor = loaded.model.eval()(**inputs).logits
    return found


WAYS: dict[str, dict[str, Any]] = {
    "whole": {"language_model": "full", "projector": "full", "head": "full"},
    "lora": {"language_model": {"kind": "lora", "r": 4}, "projector": "full", "head": "full"},
    "head": {"language_model": "frozen", "projector": "full", "head": "full"},
    "all": {"language_model": "full", "vision_tower": "full", "projector": "full", "head": "full"},
    "tower": {
        "language_model": {"kind": "rslora", "r": 2},
        "vision_tower": "full",
        "projector": "full",
        "head": "full",
    },
}


@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("name", KINDS)
def test_the_same_logits_and_answers_from_disk(
    name: str, way: str, published: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    made = recipe(name, published[name], WAYS[way])
    loaded = load_base(made)
    facts = loaded.backbone.fit(loaded.model, PAIRS)
    loaded.model = adapters.apply(loaded.model, made.adapters, BACKBONES.get(name))
    adapters.trainable_in_float32(loaded.model)
    torch.manual_seed(5)
    for parameter in loaded.model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn_like(parameter)
    expected = logits(loaded)
    run = Run(tmp_path / "run")
    run.path.mkdir()
    trained.save(loaded.model, loaded.processor, run.path)
    write_resolved(made, run.path / "recipe.yaml")
    run.keep_fitted(facts)
    again = trained.load(run, made)
    assert torch.allclose(logits(again), expected, atol=1e-5)
    asked = [example(question) for question, _ in PAIRS]
    answers = again.backbone.answer(again.model, again.backbone.collate_prompts(asked), 4, {})
    assert answers == [["CT", "liver", "yes"][place] for place in expected.argmax(dim=-1).tolist()]


@pytest.fixture
def finished(published: dict[str, dict[str, str]], tmp_path: Path) -> tuple[Any, Run]:
    """Return recipe and folder of a run of ViLT with three answers."""
    made = recipe("vilt", published["vilt"], WAYS["lora"])
    loaded = load_base(made)
    facts = loaded.backbone.fit(loaded.model, PAIRS)
    loaded.model = adapters.apply(loaded.model, made.adapters, BACKBONES.get("vilt"))
    run = Run(tmp_path / "run")
    run.path.mkdir()
    trained.save(loaded.model, loaded.processor, run.path)
    write_resolved(made, run.path / "recipe.yaml")
    run.keep_fitted(facts)
    run.record({"status": "finished", "fitted": stable_hash(facts)})
    return made, run


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "missing"),
        ("{", "damaged"),
        ("[1]", "damaged"),
        ('{"answers": ["liver", "CT", "yes"], "rows": 3, "outside": 0}', "not the one"),
    ],
)
def test_answers_that_are_not_those_of_training(content: str | None, told: str, finished: tuple[Any, Run]) -> None:
    made, run = finished
    path = run.path / "fitted.json"
    path.unlink() if content is None else path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=rf"fitted\.json: .*{told}"):
        trained.load(run, made)


@pytest.mark.parametrize("content", ['{"a": 1}', '{"answers": ["CT"]}', '{"answers": ["CT", 3]}', '{"answers": "CT"}'])
def test_answers_of_another_form(content: str, finished: tuple[Any, Run]) -> None:
    made, run = finished
    run.record({"status": "finished"})
    (run.path / "fitted.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"fitted\.json: damaged"):
        trained.load(run, made)


@pytest.mark.parametrize("way", ["lora", "tower", "whole"])
@pytest.mark.parametrize("name", KINDS)
def test_a_step_in_half_precision(name: str, way: str, published: dict[str, dict[str, str]]) -> None:
    made = recipe(name, {**published[name], "dtype": "bfloat16"}, WAYS[way])
    loaded = load_base(made)
    loaded.backbone.fit(loaded.model, PAIRS)
    model = adapters.apply(loaded.model, made.adapters, BACKBONES.get(name))
    adapters.trainable_in_float32(model)
    inputs = loaded.backbone.collate([example(*pair) for pair in PAIRS])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _, _ = loaded.backbone.losses(model.train(), inputs)
    loss.backward()
    assert 0.1 < loss.item() < 5
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("name", KINDS)
def test_weights_that_are_missing_are_told(name: str, published: dict[str, dict[str, str]], tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    source = Path(list(published[name].values())[-1])
    broken = tmp_path / "broken"
    shutil.copytree(source, broken)
    stored = load_file(broken / "model.safetensors")
    gone = next(
        key for key in sorted(stored) if (".encoder.layer.0" in key and "query.weight" in key) or "att.query" in key
    )
    del stored[gone]
    save_file(stored, broken / "model.safetensors", metadata={"format": "pt"})
    role = list(published[name])[-1]
    with pytest.raises(InputError, match="lacks weights"):
        load_base(recipe(name, {**published[name], role: str(broken)}))


def test_a_checkpoint_without_a_tokenizer(
    published: dict[str, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(published["visual_bert"]["language_model"], bare)
    for path in bare.glob("token*"):
        path.unlink()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = {**published["visual_bert"], "language_model": str(bare)}
    with pytest.raises(AccessError, match=r"brings no tokenizer and google-bert/bert-base-uncased"):
        load_base(recipe("visual_bert", model))
    (bare / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "lung"]), encoding="utf-8")
    assert load_base(recipe("visual_bert", model)).backbone.text_tokens("lung lung", "") == (4, 0)
