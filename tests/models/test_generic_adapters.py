"""Chat models adapted, in 4 bits, resized, saved, loaded and merged; their components found; published sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from generic_tiny_models import EACH, FAMILIES, logits, mixed, picture, qwen3
from transformers import AutoConfig

from medvlm.errors import InputError, RecipeError
from medvlm.models import adapters, merge, quantize, trained
from medvlm.models.backbones import generic_families
from medvlm.models.backbones.base import Example
from medvlm.models.backbones.generic import GenericBackbone
from medvlm.models.backbones.generic_processor import load_processor
from medvlm.models.load import Loaded, load_base, planned_config
from medvlm.models.published_chat import CHAT_MODELS
from medvlm.recipe.load import check
from medvlm.recipe.models import Recipe
from medvlm.recipe.resolve import write_resolved
from medvlm.runs import Run

NF4 = {"mode": "nf4", "compute_dtype": "float32"}
LORA = {"kind": "lora", "r": 4}
WAYS: dict[str, dict[str, Any]] = {
    "lora": {"language_model": LORA, "projector": "full"},
    "everywhere": {"language_model": LORA, "projector": "full", "vision_tower": LORA},
    "projector": {"language_model": "frozen", "projector": "full"},
    "head": {"language_model": LORA, "head": "full"},
    "whole": {"language_model": "full", "projector": "full", "vision_tower": "full", "head": "full"},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every family as a checkpoint on disk."""
    made = {}
    for family in FAMILIES:
        torch.manual_seed(0)
        made[family] = tmp_path_factory.mktemp(family)
        for part in GenericBackbone.tiny(None, family):
            part.save_pretrained(made[family])
    return made


def recipe(name: Path | str, way: str = "lora", quantized: bool = False, **model: Any) -> Recipe:
    raw = {
        "name": "t",
        "model": {"id": str(name), "backbone": "generic", "dtype": "float32", **model},
        "data": [{"path": "d"}],
        "adapters": WAYS[way],
        "quantization": NF4 if quantized else {"mode": "none"},
    }
    return check(raw, "test")


def wrapped(made: Recipe, seed: int = 5) -> Loaded:
    """Return the model with everything that is trained moved from where it began."""
    loaded = load_base(made)
    loaded.model = adapters.apply(loaded.model, made.adapters, GenericBackbone)
    adapters.trainable_in_float32(loaded.model)
    torch.manual_seed(seed)
    for parameter in loaded.model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.02 * torch.randn_like(parameter)
    return loaded


def said(loaded: Loaded) -> torch.Tensor:
    return logits(loaded.model.eval(), loaded.backbone.collate(mixed()))


CASES = [
    *((family, "lora", family != "smolvlm") for family in FAMILIES if family != "idefics3"),
    ("idefics", "head", False),
    ("gemma3", "projector", False),
    *(
        pytest.param(family, way, False, marks=pytest.mark.slow)
        for family in ("qwen2_5_vl", "idefics", "gemma3", "llava")
        for way in WAYS
    ),
]


@pytest.mark.parametrize(("family", "way", "quantized"), CASES)
def test_the_same_logits_from_disk(
    folders: dict[str, Path], tmp_path: Path, family: str, way: str, quantized: bool
) -> None:
    made = recipe(folders[family], way, quantized)
    loaded = wrapped(made)
    expected = said(loaded)
    run = Run(tmp_path)
    trained.save(loaded.model, loaded.processor, tmp_path)
    write_resolved(made, tmp_path / "recipe.yaml")
    assert torch.allclose(said(trained.load(run, made)), expected, atol=1e-5)


@pytest.mark.parametrize("family", EACH)
def test_merged_it_needs_no_adapter(folders: dict[str, Path], tmp_path: Path, family: str) -> None:
    made = recipe(folders[family])
    loaded = wrapped(made)
    expected = said(loaded)
    trained.save(loaded.model, loaded.processor, tmp_path / "run")
    write_resolved(made, tmp_path / "run" / "recipe.yaml")
    merged = merge.merged(Run(tmp_path / "run"), made, "original")
    assert torch.allclose(said(merged), expected, atol=1e-4)
    merged.model.save_pretrained(tmp_path / "merged")  # type: ignore[operator]
    merged.processor.save_pretrained(tmp_path / "merged")
    again = load_base(recipe(tmp_path / "merged"))
    assert torch.allclose(said(again), expected, atol=1e-4)


@pytest.mark.parametrize("family", EACH)
def test_adapters_stand_where_they_are_asked_for(folders: dict[str, Path], family: str) -> None:
    model: Any = load_base(recipe(folders[family])).model
    total = {name: count.total for name, count in adapters.census(model, GenericBackbone).items()}
    assert sum(total.values()) == sum(parameter.numel() for parameter in model.parameters())
    assert all(total[name] for name in ("vision_tower", "projector", "language_model", "embeddings"))
    parts = check_adapters({"language_model": {**LORA, "modules": ["q_proj", "v_proj"]}})
    found = adapters.census(adapters.apply(model, parts, GenericBackbone), GenericBackbone)
    assert {name for name, count in found.items() if count.trainable} == {"language_model"}
    config = model.config.get_text_config()
    # Keys and values are narrower where heads share them.
    narrow = 64 if getattr(config, "num_key_value_heads", None) == 2 else 128
    expected = config.num_hidden_layers * 4 * (128 + 128 + 128 + narrow)
    if family == "idefics":
        # Before every second layer the cross-attention has such projections, too.
        expected += config.num_hidden_layers // 2 * 4 * 4 * 128
    assert found["language_model"].trainable == expected


def check_adapters(parts: dict[str, Any]) -> Any:
    return check({"name": "t", "model": {"id": "m"}, "data": [{"path": "d"}], "adapters": parts}, "test").adapters


@pytest.mark.parametrize("family", EACH)
def test_in_four_bits_are_the_layers_of_the_decoder_and_nothing_else(folders: dict[str, Path], family: str) -> None:
    loaded = load_base(recipe(folders[family], quantized=True))
    found = set(quantize.quantized_modules(loaded.model))
    inside = generic_families.COMPONENTS[family]["language_model"]
    linear = {
        name
        for name, module in loaded.model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.startswith(inside)
    }
    assert found == linear != set()
    # A whole decoder: seven in a layer, as many in IDEFICS's cross-attention.
    layers = loaded.model.config.get_text_config().num_hidden_layers
    assert len(found) == 7 * layers + (7 * layers // 2 if family == "idefics" else 0)
    batch = loaded.backbone.collate(mixed())
    before = gradients(loaded, batch)
    loaded.backbone.answer(loaded.model.eval(), loaded.backbone.collate_prompts(mixed()[:1]), 2, {"do_sample": False})
    # bitsandbytes' own way would repack the weights when the model answers.
    assert torch.equal(before, gradients(loaded, batch))


def gradients(loaded: Loaded, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    loaded.model.requires_grad_(False).train()
    embeddings: Any = loaded.model.get_input_embeddings()
    embeddings.weight.requires_grad_(True)
    embeddings.weight.grad = None
    loaded.backbone.losses(loaded.model, batch)[0].backward()
    found: torch.Tensor = embeddings.weight.grad.clone()
    return found


SMALLER = {"qwen2_5_vl": 56, "gemma3": 56, "llava": 70, "idefics": 70, "smolvlm": 56, "idefics3": 84}


@pytest.mark.parametrize("family", EACH)
def test_pictures_of_another_size(folders: dict[str, Path], tmp_path: Path, family: str) -> None:
    side = SMALLER[family]
    made = recipe(folders[family], "whole", image_size=side)
    loaded = load_base(made)
    tokens = {"qwen2_5_vl": 4, "gemma3": 16, "llava": 25, "idefics": 1, "smolvlm": 4, "idefics3": 9}[family]
    assert loaded.facts["image_tokens"] == loaded.backbone.image_tokens == tokens
    assert loaded.facts["resampled_position_embeddings"] == (family != "qwen2_5_vl")
    expected = said(loaded)
    # The plan knows the same sizes without weights.
    planned = planned_config(made)
    assert GenericBackbone.image_tokens_of(AutoConfig.for_model(**planned)) == tokens
    sizes = [parameter.shape for parameter in GenericBackbone.build(planned).parameters()]
    assert sizes == [parameter.shape for parameter in loaded.model.parameters()]
    for part in (loaded.model, loaded.processor):
        part.save_pretrained(tmp_path)  # type: ignore[operator, union-attr]
    again = load_base(recipe(tmp_path, "whole"))
    assert again.facts["image_size"] == side
    assert torch.allclose(said(again), expected, atol=1e-5)
    # Every square picture takes just as many tokens, however large.
    for size in (40, 700):
        batch = loaded.backbone.collate([Example(picture(size=(size, size)), "?", "!")])
        own = torch.isin(batch["input_ids"], torch.tensor(loaded.processor.image_token_ids))
        assert int(own.sum()) == tokens


@pytest.mark.parametrize("family", EACH)
def test_an_impossible_size_is_refused_with_one_that_is_possible(folders: dict[str, Path], family: str) -> None:
    made = recipe(folders[family], image_size=60)
    for load in (load_base, planned_config):
        with pytest.raises(RecipeError, match=r"expected a multiple of (14|28|56), as (56|70)"):
            load(made)


def test_settings_for_videos_outlive_a_processor_that_reads_none(folders: dict[str, Path], tmp_path: Path) -> None:
    processor = load_processor(folders["qwen2_5_vl"])
    processor.video_processor.settings = {"video_processor_type": "Qwen2VLVideoProcessor", "fps": 3}
    processor.save_pretrained(tmp_path)
    kept = json.loads((tmp_path / "processor_config.json").read_text(encoding="utf-8"))
    assert kept["processor_class"] == "Qwen2_5_VLProcessor"
    assert kept["video_processor"] == {"video_processor_type": "Qwen2VLVideoProcessor", "fps": 3}
    assert load_processor(tmp_path).video_processor.settings == kept["video_processor"]


def test_a_processor_kept_in_the_files_of_older_checkpoints(folders: dict[str, Path], tmp_path: Path) -> None:
    whole = json.loads((folders["idefics3"] / "processor_config.json").read_text(encoding="utf-8"))
    pictures = whole.pop("image_processor")
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        (tmp_path / name).write_bytes((folders["idefics3"] / name).read_bytes())
    template = (folders["idefics3"] / "chat_template.jinja").read_text(encoding="utf-8")
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": template}), encoding="utf-8")
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps(
            {**pictures, "image_processor_type": "Idefics3ImageProcessor", "processor_class": "Idefics3Processor"}
        ),
        encoding="utf-8",
    )
    (tmp_path / "processor_config.json").write_text(json.dumps(whole), encoding="utf-8")
    found = load_processor(tmp_path)
    assert type(found.image_processor).__name__.endswith("Pil")
    assert (found.chat_template, found.image_seq_len) == (template, whole["image_seq_len"])


def test_a_model_without_pictures_is_refused(tmp_path: Path) -> None:
    from transformers import LlamaConfig

    LlamaConfig(hidden_size=64, num_hidden_layers=1).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="answers no pictures with text"):
        GenericBackbone.load({"model": tmp_path}, {}, 0)


def test_a_model_that_cannot_be_trained_here_is_refused_in_one_line(tmp_path: Path) -> None:
    from transformers import Florence2Config, MllamaConfig

    for kind, said in ((Florence2Config, "reads with one text model"), (MllamaConfig, "with and without pictures")):
        kind().save_pretrained(tmp_path)
        with pytest.raises(InputError, match=said) as raised:
            GenericBackbone.load({"model": tmp_path}, {}, 0)
        assert "\n" not in str(raised.value)


def test_a_processor_that_cannot_be_put_together_is_refused_in_one_line(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import Idefics3Processor

    def missing(*_: object, **__: object) -> None:
        raise ImportError("PixtralProcessor requires\nthe Torchvision library")

    with monkeypatch.context() as patched:
        patched.setattr(Idefics3Processor, "get_processor_dict", missing)
        with pytest.raises(InputError, match=r"cannot be read .PixtralProcessor requires the Torchvision library"):
            load_processor(folders["idefics3"])
    # InternVL's asks its tokenizer for a token of its own.
    for file in folders["llava"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    settings = json.loads((tmp_path / "processor_config.json").read_text(encoding="utf-8"))
    (tmp_path / "processor_config.json").write_text(
        json.dumps({**settings, "processor_class": "InternVLProcessor"}), encoding="utf-8"
    )
    with pytest.raises(InputError, match="its processor cannot be read"):
        load_processor(tmp_path)


def test_the_projectors_of_qwen3_are_one_component(tmp_path: Path) -> None:
    model: Any = qwen3()[0]
    counts = adapters.census(model, GenericBackbone)
    assert sum(count.total for count in counts.values()) == sum(parameter.numel() for parameter in model.parameters())
    visual = model.model.visual
    parts = (visual.merger, visual.deepstack_merger_list)
    assert counts["projector"].total == sum(value.numel() for part in parts for value in part.parameters())
    trained_ = adapters.apply(model, check_adapters(WAYS["lora"]), GenericBackbone)
    assert adapters.census(trained_, GenericBackbone)["projector"].trainable == counts["projector"].total


def test_a_projector_that_cannot_be_told_apart_is_not_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    made = recipe("medvlm/tiny-random-qwen2_5_vl", image_size=112)
    found = {**generic_families.COMPONENTS["qwen2_5_vl"], "projector": ()}
    monkeypatch.setitem(generic_families.COMPONENTS, "qwen2_5_vl", found)
    with pytest.raises(RecipeError, match=r"adapters\.projector: full: .* expected frozen"):
        load_base(made)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "idefics"])
def test_parts_of_an_unknown_family_are_found_by_its_modules(family: str) -> None:
    config = GenericBackbone.tiny(None, family)[0].config
    known = generic_families.COMPONENTS[family]
    found = generic_families._found(json.dumps(config.to_dict(), sort_keys=True, default=str))  # type: ignore[attr-defined]
    assert found["language_model"] == known["language_model"]
    assert found["vision_tower"] == known["vision_tower"]
    # Qwen's projector lies within its tower, where nothing tells it from the rest.
    assert found["projector"] == (() if family == "qwen2_5_vl" else known["projector"])


def test_parameters_beside_modules_belong_to_a_component_too() -> None:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaNextConfig

    small = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**small, image_size=28, patch_size=14),
        text_config=LlamaConfig(**small, vocab_size=128),
        image_token_index=5,
    )
    model = GenericBackbone.build(config.to_dict())
    counts = adapters.census(model, GenericBackbone)
    assert sum(count.total for count in counts.values()) == sum(parameter.numel() for parameter in model.parameters())
    assert "model.image_newline." in GenericBackbone.components_of(config)["projector"]
    with pytest.raises(RecipeError, match="keep their own size; expected none, or 28"):
        generic_families.check_side(config, 56)
    # So a plan proposes no half of it.
    assert GenericBackbone.patch_size_of(config) == GenericBackbone.image_size_of(config) == 28


def test_an_unknown_family_without_a_tower_is_refused_in_one_line() -> None:
    from transformers import FuyuConfig, PersimmonConfig

    small = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = FuyuConfig(text_config=PersimmonConfig(**small, vocab_size=99).to_dict(), **small, vocab_size=99)
    with pytest.raises(InputError, match="expected one of each") as raised:
        generic_families.components(config)
    assert "\n" not in str(raised.value)


# As the Hub counts them from the checkpoints' safetensors.
PARAMETERS = {
    "Qwen/Qwen2.5-VL-3B-Instruct": 3_754_622_976,
    "Qwen/Qwen2.5-VL-7B-Instruct": 8_292_166_656,
    "HuggingFaceTB/SmolVLM-256M-Instruct": 256_484_928,
    "HuggingFaceTB/SmolVLM-500M-Instruct": 507_482_304,
    "HuggingFaceTB/SmolVLM-Instruct": 2_246_272_880,
    "google/gemma-3-4b-it": 4_300_079_472,
    "google/medgemma-4b-it": 4_300_079_472,
    "llava-hf/llava-1.5-7b-hf": 7_063_427_072,
}
TOKENS = {"SmolVLM-256M": 64, "SmolVLM-500M": 64, "SmolVLM-Instruct": 81, "gemma": 256, "llava": 576, "idefics": 1}


@pytest.mark.parametrize("name", list(CHAT_MODELS))
def test_published_dimensions_give_the_published_numbers(name: str) -> None:
    with torch.device("meta"):
        model = GenericBackbone.build(CHAT_MODELS[name])
    found = sum(parameter.numel() for parameter in model.parameters())
    if "idefics" in name:
        # The card says 9 billion.
        assert round(found / 1e9) == 9
    else:
        assert found == PARAMETERS[name]
    for part, tokens in TOKENS.items():
        if part in name:
            assert GenericBackbone.image_tokens_of(model.config) == tokens
    if "Qwen" in name:
        config = planned_config(recipe(name, image_size=448))
        assert GenericBackbone.image_tokens_of(AutoConfig.for_model(**config)) == 256
