"""GIT, BLIP-2 and InstructBLIP through the house: census, 4 bits, what is saved, cached features, the CLI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_backbones import KINDS, examples, fresh, picture, taken
from tiny_ways import NF4

from medvlm.models import adapters, merge, trained
from medvlm.models.backbones import BACKBONES
from medvlm.models.features import look, skip_tower, tower_of
from medvlm.models.load import Loaded, load_base, planned_config
from medvlm.recipe.load import check
from medvlm.recipe.models import Recipe
from medvlm.recipe.resolve import write_resolved
from medvlm.runs import Run

LORA = {"kind": "lora", "r": 4}
WAYS: dict[str, dict[str, Any]] = {
    "lora": {"language_model": LORA},
    "beside": {"language_model": LORA, "projector": "full", "vision_tower": {"kind": "lora", "r": 2}},
    "projector": {"language_model": "frozen", "projector": "full"},
    "whole": {"language_model": "full", "projector": "full", "vision_tower": "full", "head": "full"},
}
PREFIXES = {
    "git": {"vision_tower": ("git.image_encoder.",), "projector": ("git.visual_projection.",)},
    "blip2": {
        "vision_tower": ("vision_model.",),
        "projector": ("qformer.", "language_projection.", "query_tokens"),
    },
}


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each model as any checkpoint is saved."""
    made = {}
    for name in KINDS:
        made[name] = tmp_path_factory.mktemp(name)
        for part in fresh(name):
            part.save_pretrained(made[name])
    return made


def recipe(folder: Path, name: str, way: dict[str, Any], **changes: Any) -> Recipe:
    model = {"id": str(folder), "backbone": "git" if name == "git" else "blip2", "dtype": "float32"}
    return check({"name": "t", "model": model, "data": [{"path": "d"}], "adapters": way, **changes}, "test")


def wrapped(made: Recipe, shake: bool = True) -> Loaded:
    """The base with adapters, everything that is trained moved from where it began."""
    loaded = load_base(made)
    loaded.model = adapters.apply(loaded.model, made.adapters, BACKBONES.get(made.model.backbone))
    adapters.trainable_in_float32(loaded.model)
    torch.manual_seed(5)
    for parameter in loaded.model.parameters():
        if parameter.requires_grad and shake:
            parameter.data += 0.05 * torch.randn_like(parameter)
    return loaded


@torch.no_grad()
def logits(loaded: Loaded) -> torch.Tensor:
    found: torch.Tensor = loaded.model.eval()(**taken(loaded.backbone.collate(examples()))).logits
    return found


@pytest.mark.parametrize(
    ("way", "quantized"), [*((way, False) for way in WAYS), ("beside", True), ("projector", True)], ids=str
)
@pytest.mark.parametrize("name", KINDS)
def test_what_was_trained_comes_back(
    folders: dict[str, Path], tmp_path: Path, name: str, way: str, quantized: bool
) -> None:
    made = recipe(folders[name], name, WAYS[way], **({"quantization": NF4} if quantized else {}))
    loaded = wrapped(made)
    expected = logits(loaded)
    trained.save(loaded.model, loaded.processor, tmp_path)
    write_resolved(made, tmp_path / "recipe.yaml")
    run = Run(tmp_path)
    again = trained.load(run, made)
    assert torch.allclose(logits(again), expected, atol=1e-4)
    assert not torch.allclose(logits(load_base(made)), expected, atol=1e-2)
    said = loaded.backbone.answer(loaded.model, loaded.backbone.collate_prompts(examples()), 5, {})
    assert again.backbone.answer(again.model, again.backbone.collate_prompts(examples()), 5, {}) == said
    # A run that goes on from it begins with its weights.
    further = wrapped(made, shake=False)
    trained.begin_from(further.model, run, made, BACKBONES.get(made.model.backbone))
    assert torch.allclose(logits(further), expected, atol=1e-4)
    if way == "beside":
        whole = merge.merged(run, made, "dequantized" if quantized else "original")
        assert not hasattr(whole.model, "peft_config")
        assert torch.allclose(logits(whole), expected, atol=1e-3)


@pytest.mark.parametrize("name", KINDS)
def test_the_census_counts_each_component(folders: dict[str, Path], name: str) -> None:
    made = recipe(folders[name], name, WAYS["beside"], quantization=NF4)
    loaded = load_base(made)
    plain = fresh(name)[0]
    kind = BACKBONES.get(made.model.backbone)
    prefixes = PREFIXES["git" if name == "git" else "blip2"]
    sizes = {n: p.numel() for n, p in plain.named_parameters()}
    decoder = {n: m for n, m in plain.named_modules() if isinstance(m, torch.nn.Linear)}
    decoder = {
        n: m
        for n, m in decoder.items()
        if not f"{n}.".startswith(sum(prefixes.values(), ())) and m is not plain.get_output_embeddings()
    }
    census = adapters.census(adapters.apply(loaded.model, made.adapters, kind), kind)
    for component, own in prefixes.items():
        expected = sum(size for n, size in sizes.items() if n.startswith(own))
        added = census[component].trainable if component == "vision_tower" else 0
        assert census[component].total - added == expected
    assert census["projector"].trainable == census["projector"].total
    assert census["language_model"].trainable == sum(4 * (m.in_features + m.out_features) for m in decoder.values())
    # 4 bits are in the decoder, all of it, and nowhere else.
    assert census["language_model"].quantized == sum(m.weight.numel() for m in decoder.values())
    assert sum(count.quantized for count in census.values()) == census["language_model"].quantized
    added = sum(census[part].trainable for part in ("vision_tower", "language_model"))
    assert sum(count.total for count in census.values()) - added == sum(sizes.values())


@pytest.mark.parametrize("name", KINDS)
def test_gradients_in_four_bits_are_the_same_before_and_after_generating(folders: dict[str, Path], name: str) -> None:
    loaded = wrapped(recipe(folders[name], name, WAYS["beside"], quantization=NF4))
    batch = loaded.backbone.collate(examples())

    def gradients() -> dict[str, torch.Tensor]:
        loaded.model.zero_grad()
        loaded.backbone.losses(loaded.model.eval(), batch)[0].backward()  # type: ignore[no-untyped-call]
        return {n: p.grad.clone() for n, p in loaded.model.named_parameters() if p.grad is not None}

    before = gradients()
    loaded.backbone.answer(loaded.model, loaded.backbone.collate_prompts(examples()), 4, {})
    after = gradients()
    trained_ones = {n for n, p in loaded.model.named_parameters() if p.requires_grad}
    assert before.keys() == after.keys() == trained_ones
    for key, value in before.items():
        torch.testing.assert_close(after[key], value, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_cached_features_give_the_gradients_of_the_pictures(
    folders: dict[str, Path], name: str, checkpointed: bool
) -> None:
    loaded = wrapped(recipe(folders[name], name, {"language_model": LORA, "projector": "full"}))
    kind = type(loaded.backbone)
    if checkpointed:
        loaded.model.train()
        loaded.model.activation_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]

    def gradients(batch: Any) -> dict[str, torch.Tensor]:
        loaded.model.zero_grad()
        loaded.backbone.losses(loaded.model, batch)[0].backward()  # type: ignore[no-untyped-call]
        return {n: p.grad.clone() for n, p in loaded.model.named_parameters() if p.grad is not None}

    plain = loaded.backbone.collate(examples())
    expected = gradients(plain)
    tower = tower_of(loaded.model, kind)
    seen = look(tower, plain["pixel_values"], torch.float32)
    skip_tower(loaded.model, kind)
    import dataclasses

    cached = [
        dataclasses.replace(one, image=None, pixels=features) for one, features in zip(examples(), seen, strict=True)
    ]
    calls: list[int] = []
    tower.register_forward_pre_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        kept = [parameter.clone() for parameter in tower.parameters()]
        for parameter in tower.parameters():
            parameter.fill_(float("nan"))
    found = gradients(loaded.backbone.collate(cached))
    assert calls
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        for parameter, value in zip(tower.parameters(), kept, strict=True):
            parameter.copy_(value)
    torch.testing.assert_close(gradients(plain), expected)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        # What the Hub shows for their safetensors files.
        ("microsoft/git-base", 176_619_066),
        ("microsoft/git-base-coco", 176_619_066),
        ("microsoft/git-large", 394_196_026),
        # 480 px are 30 x 30 patches instead of 14 x 14.
        ("microsoft/git-base-vqav2", 176_619_066 + (900 - 196) * 768),
        ("Salesforce/blip2-opt-2.7b", 3_744_761_856),
    ],
)
def test_published_dimensions_give_the_published_parameters(name: str, count: int) -> None:
    backbone = "git" if "git-" in name else "blip2"
    raw = {"name": "t", "model": {"id": name, "backbone": backbone}, "data": [{"path": "d"}]}
    config = planned_config(check(raw, "test"))
    with torch.device("meta"):
        model = BACKBONES.get(backbone).build(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize(("name", "billions"), [("blip2-opt-6.7b", 7.75), ("instructblip-vicuna-7b", 7.91)])
def test_large_ones_have_the_parameters_that_their_pages_round(name: str, billions: float) -> None:
    raw = {"name": "t", "model": {"id": f"Salesforce/{name}", "backbone": "blip2"}, "data": [{"path": "d"}]}
    config = planned_config(check(raw, "test"))
    with torch.device("meta"):
        model = BACKBONES.get("blip2").build(config)
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e9, 2) == billions


def test_the_parts_of_blip_2_are_those_of_its_article() -> None:
    """ViT-g without its last layer, a Q-Former of 105 M with 32 queries (107 M with the projection), OPT-2.7B."""
    raw = {"name": "t", "model": {"id": "Salesforce/blip2-opt-2.7b", "backbone": "blip2"}, "data": [{"path": "d"}]}
    kind = BACKBONES.get("blip2")
    with torch.device("meta"):
        model = kind.build(planned_config(check(raw, "test")))
    census = adapters.census(model, kind, set())
    assert round(census["vision_tower"].total / 1e6) == 986
    assert round(census["projector"].total / 1e6) == 107
    # 107 M are trained, as table 2 there has it for both language models; OPT-2.7B with 32 rows for new tokens.
    assert census["language_model"].total + census["embeddings"].total == 2_651_596_800 + 32 * 2560


@pytest.mark.parametrize(
    ("base", "backbone"),
    [
        ("medvlm/tiny-random", "git"),
        pytest.param("medvlm/tiny-random", "blip2", marks=pytest.mark.slow),
        pytest.param("medvlm/tiny-random-instructblip", "blip2", marks=pytest.mark.slow),
    ],
)
def test_trained_scored_and_asked_by_the_command_line(
    base: str, backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import dataclasses

    from prepared import write_folder

    from medvlm.cli import run as medvlm
    from medvlm.data.sources.phantom.base_grammar import base_samples

    monkeypatch.chdir(tmp_path)
    rows = [next(s for s in base_samples(5, index) if s.prompt == "keywords") for index in range(8)]
    rows = [dataclasses.replace(row, prompt="") for row in rows]
    write_folder(tmp_path / "data", {"train": rows[:6], "validation": rows[6:7], "test": rows[7:]})
    raw = {
        "name": "run",
        "model": {"id": base, "backbone": backbone, "dtype": "float32"},
        "adapters": {"language_model": "full", "projector": "full", "vision_tower": "full"},
        "data": [{"path": "data", "cache_pixels": True}],
        "train": {"learning_rate": 1e-3, "batch_size": 6, "max_steps": 12, "trackers": [], "warmup": 0.0},
        "eval": {"max_new_tokens": 8},
    }
    Path("recipe.yaml").write_text(json.dumps(raw), encoding="utf-8")
    assert medvlm(["finetune", "recipe.yaml", "--quiet"]) == 0, capsys.readouterr().err
    lines = (tmp_path / "runs" / "latest" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [json.loads(line)["loss"] for line in lines if '"loss"' in line]
    assert losses[-1] < 0.8 * losses[0]
    assert medvlm(["eval", "latest", "--quiet"]) == 0, capsys.readouterr().err
    (predictions,) = sorted((tmp_path / "runs" / "latest").rglob("predictions.jsonl"))[:1]
    scored = [json.loads(line) for line in predictions.read_text(encoding="utf-8").splitlines()]
    assert [row["references"] for row in scored] == [[rows[7].target]]
    picture().save("chest.png")
    capsys.readouterr()
    assert medvlm(["predict", "latest", "chest.png", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["prediction"].strip()
