"""Load a base model as a recipe asks: dtype, 4-bit, image size; the same for training, prediction and merging."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlm.errors import InputError, RecipeError
from medvlm.models import quantize
from medvlm.models.backbones import BACKBONES
from medvlm.models.locate import Located, locate_config, locate_parts, weights_fingerprint
from medvlm.models.positions import image_tokens
from medvlm.models.published import PUBLISHED
from medvlm.recipe.models import Recipe

if TYPE_CHECKING:
    import torch

    from medvlm.models.backbones.base import Backbone


@dataclasses.dataclass(slots=True)
class Loaded:
    """A base model ready for adapters or prediction, with what was done to it on the way."""

    model: torch.nn.Module
    processor: Any
    backbone: Backbone
    facts: dict[str, Any]
    """For run.json: id, image sizes, whether position embeddings were resampled, image tokens, image backend."""


def load_base(recipe: Recipe, located: Mapping[str, Located] | None = None, *, trained: str | None = None) -> Loaded:
    """Load the recipe's base model and processor.

    Args:
        recipe: which model, dtype, quantization and image size.
        located: where its parts lie, role by role, if already known.
        trained: a folder with a wholly trained model to load in the base's place.

    Raises:
        AccessError, InputError, RecipeError: see `locate`; another architecture; an impossible image size.
    """
    from transformers.utils import logging

    # Ours are the only progress bars.
    logging.disable_progress_bar()
    found = dict(located or locate_parts(recipe.model))
    kind = BACKBONES.get(recipe.model.backbone)
    paths = {role: part.path for role, part in found.items() if part.path is not None}
    if trained is not None:
        paths = {"model": Path(trained)}
    model, processor = _pretrained(recipe, paths, kind) if paths else _untrained(recipe)
    config: Any = model.config
    checkpoint_size = int(config.vision_config.image_size)
    size = recipe.model.image_size or checkpoint_size
    resampled = kind.resize(model, processor, size)
    if not recipe.model.logit_softcapping:
        config.get_text_config().final_logit_softcapping = None
    tokens = kind.image_tokens_of(config)
    backbone = kind(
        processor,
        image_tokens=tokens,
        max_prefix_tokens=recipe.text.max_prefix_tokens,
        max_suffix_tokens=recipe.text.max_suffix_tokens,
    )
    facts = {
        "id": recipe.model.label,
        "parts": recipe.model.parts,
        "revision": recipe.model.revision,
        "image_size": size,
        "checkpoint_image_size": checkpoint_size,
        "resampled_position_embeddings": resampled,
        "image_tokens": tokens,
        "image_backend": "pil",
        "weights": {role: weights_fingerprint(part.path) for role, part in found.items()},
        "attention": attention(recipe, config),
        "dtype": recipe.model.dtype,
    }
    return Loaded(model, processor, backbone, facts)


def attention(recipe: Recipe, config: Any) -> str:
    """Return the attention of the text model: what the recipe says, `auto` being sdpa but for Gemma 2."""
    if recipe.model.attention != "auto":
        return recipe.model.attention
    return "eager" if config.get_text_config().model_type == "gemma2" else "sdpa"


def _untrained(recipe: Recipe) -> tuple[torch.nn.Module, Any]:
    import torch

    from medvlm.models.tiny import random_model

    if recipe.quantization.mode != "none":
        raise RecipeError("recipe", [f"quantization.mode: {recipe.model.id} is untrained; expected none"])
    torch.manual_seed(recipe.seed)
    model, processor = random_model(recipe.model.image_size)
    model.set_attn_implementation(attention(recipe, model.config))  # type: ignore[operator]
    return model.to(getattr(torch, recipe.model.dtype)), processor


def _pretrained(recipe: Recipe, paths: Mapping[str, Path], kind: type[Backbone]) -> tuple[torch.nn.Module, Any]:
    import torch
    from transformers import AutoConfig

    if recipe.model.dtype == "float16" and not torch.cuda.is_available():
        raise RecipeError("recipe", ["model.dtype: 'float16': expected bfloat16 or float32 where there is no GPU"])
    text = paths.get("language_model", paths.get("model"))
    config = AutoConfig.from_pretrained(text, local_files_only=True)
    options: dict[str, Any] = {
        "dtype": getattr(torch, recipe.model.dtype),
        "attn_implementation": attention(recipe, config),
    }
    quantized = recipe.quantization.mode != "none"
    if quantized:
        options["quantization_config"] = quantize.configuration(recipe.quantization, kind)
        if torch.cuda.is_available():
            options["device_map"] = {"": torch.cuda.current_device()}
    model, processor = kind.load(paths, options, recipe.seed)
    if quantized:
        quantize.check(model, kind)
        if not torch.cuda.is_available():
            quantize.mend_cpu_layers(model)
    return model, processor


def planned_config(recipe: Recipe) -> dict[str, Any]:
    """Return the model's configuration for a plan: from disk where it lies here, else the published dimensions.

    Raises:
        AccessError: neither a local copy nor published dimensions are at hand.
    """
    kind = BACKBONES.get(recipe.model.backbone)
    config = kind.compose({role: _planned(recipe, name) for role, name in recipe.model.parts.items()})
    if config.get("model_type") != recipe.model.backbone:
        raise InputError(
            f"model.id: {recipe.model.label} is a {config.get('model_type')} model; expected {recipe.model.backbone}"
        )
    if recipe.model.image_size:
        config = {**config, "vision_config": {**config["vision_config"], "image_size": recipe.model.image_size}}
    image_tokens(config["vision_config"]["image_size"], config["vision_config"].get("patch_size", 14))
    return config


def _planned(recipe: Recipe, name: str) -> dict[str, Any]:
    """Return the configuration of one part."""
    from transformers import AutoConfig

    from medvlm.models.locate import is_local

    if not is_local(name) and name in PUBLISHED:
        return PUBLISHED[name]
    located = locate_config(name, recipe.model.revision if name == recipe.model.id else None)
    if located.path is None:
        model, _ = _untrained(recipe)
        config: dict[str, Any] = model.config.to_dict()  # type: ignore[operator, union-attr]
        return config
    # Through its class, so that what the file leaves out has its default.
    config = AutoConfig.from_pretrained(str(located.path), local_files_only=True).to_dict()
    return config
