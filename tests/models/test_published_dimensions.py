"""Published dimensions against published numbers of parameters.

Sources: KerasHub's presets of PaliGemma (its `pali_gemma_presets.py` counts each, with a vocabulary of 257,152; the
checkpoints of the Hub have 64 rows more, which Hugging Face's conversion pads); the safetensors counts that the Hub
shows for the language models; CLIP's and SigLIP's towers from the counts of their vision-only models.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from medvlm.models.load import planned_config
from medvlm.models.published import PUBLISHED
from medvlm.recipe.load import check

PALIGEMMA = {
    "paligemma-3b-pt-224": 2_923_335_408,
    "paligemma-3b-mix-224": 2_923_335_408,
    "paligemma-3b-pt-448": 2_924_220_144,
    "paligemma-3b-mix-448": 2_924_220_144,
    "paligemma-3b-pt-896": 2_927_759_088,
    "paligemma2-3b-pt-224": 3_032_094_960,
    "paligemma2-3b-pt-448": 3_032_979_696,
    "paligemma2-3b-mix-448": 3_032_979_696,
    "paligemma2-3b-pt-896": 3_036_518_640,
    "paligemma2-10b-pt-224": 9_662_409_456,
    "paligemma2-10b-mix-448": 9_663_294_192,
    "paligemma2-10b-pt-896": 9_666_833_136,
    "paligemma2-28b-pt-224": 27_650_192_112,
}
LANGUAGE = {
    "facebook/opt-350m": 331_196_416,
    "facebook/opt-6.7b": 6_658_473_984,
    "meta-llama/Llama-2-7b-hf": 6_738_415_616,
    "mosaicml/mpt-7b": 6_649_286_656,
    "HuggingFaceTB/SmolLM2-135M": 134_515_008,
    "HuggingFaceTB/SmolLM2-360M": 361_821_120,
    "HuggingFaceTB/SmolLM2-1.7B": 1_711_376_384,
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-7B": 7_615_616_512,
    "mistralai/Mistral-7B-v0.1": 7_241_732_096,
    "mistralai/Mistral-7B-v0.3": 7_248_023_552,
}
TOWERS = {
    "openai/clip-vit-base-patch16": 85_799_424,
    "openai/clip-vit-large-patch14": 303_179_776,
    "openai/clip-vit-large-patch14-336": 303_507_456,
    "google/siglip-base-patch16-224": 92_884_224,
    "google/siglip-so400m-patch14-384": 428_225_600,
}


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def recipe(**model: Any) -> Any:
    adapters = {"projector": "full"}
    return check({"name": "t", "model": model, "adapters": adapters, "data": [{"path": "d"}]}, "test")


@pytest.mark.parametrize("name", list(PALIGEMMA))
def test_paligemma(name: str) -> None:
    from medvlm.models.backbones import BACKBONES

    config = planned_config(recipe(id=f"google/{name}"))
    with torch.device("meta"):
        model = BACKBONES.get("paligemma").build(config)
    assert parameters(model) == PALIGEMMA[name] + 64 * config["text_config"]["hidden_size"]


@pytest.mark.parametrize("name", list(LANGUAGE))
def test_language_models(name: str) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**PUBLISHED[name]))
    assert parameters(model) == LANGUAGE[name]


@pytest.mark.parametrize("name", list(TOWERS))
def test_towers(name: str) -> None:
    with torch.device("meta"):
        model = AutoModel.from_config(AutoConfig.for_model(**PUBLISHED[name]).vision_config)
    assert parameters(model) == TOWERS[name]


@pytest.mark.parametrize("tower", list(TOWERS))
@pytest.mark.parametrize("language", ["facebook/opt-350m", "mosaicml/mpt-7b", "Qwen/Qwen2.5-0.5B"])
def test_parts_are_put_together_without_any_network(tower: str, language: str) -> None:
    from medvlm.models.backbones import BACKBONES

    config = planned_config(recipe(backbone="git_llm", vision_tower=tower, language_model=language))
    kind = BACKBONES.get("git_llm")
    with torch.device("meta"):
        model: Any = kind.build(config)
    vision = PUBLISHED[tower]["vision_config"]
    side = vision["image_size"] // vision["patch_size"]
    assert kind.image_tokens_of(model.config) == side**2 + ("clip" in tower)
    width = model.get_input_embeddings().weight.shape[1]
    assert model.projector.linear.weight.shape == (width, vision["hidden_size"])


def test_every_paligemma_that_exists_is_known() -> None:
    names = {name for name in PUBLISHED if "paligemma" in name}
    assert len(names) == 4 * 5
    assert not any("mix-896" in name for name in names)
