"""Load a base model as a recipe asks: dtype, 4-bit, image size; the same for training, prediction and merging."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from medvlm.errors import InputError, RecipeError
from medvlm.models import quantize
from medvlm.models.backbones import BACKBONES
from medvlm.models.locate import Located, locate, locate_config, weights_fingerprint
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


def image_tokens(image_size: int, patch_size: int) -> int:
    """Return how many tokens a square image takes.

    Raises:
        RecipeError: the side is no multiple of the patch.
    """
    if image_size % patch_size:
        near = max(1, round(image_size / patch_size)) * patch_size
        raise RecipeError("recipe", [f"model.image_size: {image_size}: expected a multiple of {patch_size}, as {near}"])
    return (image_size // patch_size) ** 2


def resample_positions(grid: torch.Tensor, new_side: int) -> torch.Tensor:
    """Return position embeddings [new_side², D] resampled from [side², D].

    Linear between the old grid's corner points, as big_vision's `resample_posemb` does through
    `scipy.ndimage.zoom(order=1)`, whose corners coincide.
    """
    import torch

    side = math.isqrt(grid.shape[0])
    if side == new_side:
        return grid
    picture = grid.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    picture = torch.nn.functional.interpolate(picture, (new_side, new_side), mode="bilinear", align_corners=True)
    return picture.permute(0, 2, 3, 1).reshape(new_side**2, -1).to(grid.dtype)


def resize(model: torch.nn.Module, processor: Any, image_size: int) -> bool:
    """Make a PaliGemma take images of `image_size`; return whether position embeddings had to be resampled."""
    import torch

    config: Any = model.config
    vision = config.vision_config
    tokens = image_tokens(image_size, vision.patch_size)
    changed = bool(vision.image_size != image_size)
    if changed:
        embeddings: Any = next(m for m in model.modules() if type(m).__name__ == "SiglipVisionEmbeddings")
        old = embeddings.position_embedding.weight
        new = resample_positions(old.data, image_size // vision.patch_size)
        embeddings.position_embedding = torch.nn.Embedding(*new.shape)
        embeddings.position_embedding.weight = torch.nn.Parameter(new, requires_grad=old.requires_grad)
        embeddings.image_size = image_size
        embeddings.num_patches = embeddings.num_positions = tokens
        embeddings.position_ids = torch.arange(tokens, device=old.device).expand((1, -1))
    vision.image_size = image_size
    vision.num_image_tokens = config.text_config.num_image_tokens = tokens
    if hasattr(config, "num_image_tokens"):
        config.num_image_tokens = tokens
    processor.image_processor.size = {"height": image_size, "width": image_size}
    processor.image_processor.image_seq_length = processor.image_seq_length = tokens
    return changed


def load_base(recipe: Recipe, located: Located | None = None, *, trained: str | None = None) -> Loaded:
    """Load the recipe's base model and processor.

    Args:
        recipe: which model, dtype, quantization and image size.
        located: where it lies, if already known.
        trained: a folder with a wholly trained model to load in the base's place.

    Raises:
        AccessError, InputError, RecipeError: see `locate`; another architecture; an impossible image size.
    """
    from transformers.utils import logging

    # Ours are the only progress bars.
    logging.disable_progress_bar()
    found = located or locate(recipe.model.id, recipe.model.revision)
    kind = BACKBONES.get(recipe.model.backbone)
    model, processor = (
        _untrained(recipe)
        if found.path is None and trained is None
        else _pretrained(recipe, trained or str(found.path), kind)
    )
    checkpoint_size = int(model.config.vision_config.image_size)  # type: ignore[union-attr, arg-type]
    size = recipe.model.image_size or checkpoint_size
    resampled = resize(model, processor, size)
    tokens = image_tokens(size, model.config.vision_config.patch_size)  # type: ignore[union-attr, arg-type]
    backbone = kind(
        processor,
        image_tokens=tokens,
        max_prefix_tokens=recipe.text.max_prefix_tokens,
        max_suffix_tokens=recipe.text.max_suffix_tokens,
    )
    facts = {
        "id": recipe.model.id,
        "revision": recipe.model.revision,
        "image_size": size,
        "checkpoint_image_size": checkpoint_size,
        "resampled_position_embeddings": resampled,
        "image_tokens": tokens,
        "image_backend": "pil",
        "weights": weights_fingerprint(found.path),
        "attention": recipe.model.attention,
        "dtype": recipe.model.dtype,
    }
    return Loaded(model, processor, backbone, facts)


def _untrained(recipe: Recipe) -> tuple[torch.nn.Module, Any]:
    import torch

    from medvlm.models.tiny import random_model

    if recipe.quantization.mode != "none":
        raise RecipeError("recipe", [f"quantization.mode: {recipe.model.id} is untrained; expected none"])
    torch.manual_seed(recipe.seed)
    model, processor = random_model(recipe.model.image_size)
    model.set_attn_implementation(recipe.model.attention)  # type: ignore[operator]
    return model.to(getattr(torch, recipe.model.dtype)), processor


def _pretrained(recipe: Recipe, path: str, kind: type[Backbone]) -> tuple[torch.nn.Module, Any]:
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    config = AutoConfig.from_pretrained(path, local_files_only=True)
    if config.model_type != recipe.model.backbone:
        raise InputError(
            f"model.id: {recipe.model.id} is a {config.model_type} model; expected {recipe.model.backbone}"
        )
    if recipe.model.dtype == "float16" and not torch.cuda.is_available():
        raise RecipeError("recipe", ["model.dtype: 'float16': expected bfloat16 or float32 where there is no GPU"])
    options: dict[str, Any] = {}
    quantized = recipe.quantization.mode != "none"
    if quantized:
        options["quantization_config"] = quantize.configuration(recipe.quantization, kind)
        if torch.cuda.is_available():
            options["device_map"] = {"": torch.cuda.current_device()}
    model = AutoModelForImageTextToText.from_pretrained(
        path,
        dtype=getattr(torch, recipe.model.dtype),
        attn_implementation=recipe.model.attention,
        local_files_only=True,
        **options,
    )
    if quantized:
        quantize.check(model, kind)
        if not torch.cuda.is_available():
            quantize.mend_cpu_layers(model)
    processor = AutoProcessor.from_pretrained(path, local_files_only=True, backend="pil")
    return model, processor


def planned_config(recipe: Recipe) -> dict[str, Any]:
    """Return the model's configuration for a plan: from disk where it lies here, else the published dimensions.

    Raises:
        AccessError: neither a local copy nor published dimensions are at hand.
    """
    from transformers import AutoConfig

    from medvlm.models.locate import is_local

    if not is_local(recipe.model.id) and recipe.model.id in PUBLISHED:
        config = PUBLISHED[recipe.model.id]
    else:
        located = locate_config(recipe.model.id, recipe.model.revision)
        if located.path is None:
            model, _ = _untrained(recipe)
            config = model.config.to_dict()  # type: ignore[operator, union-attr]
        else:
            # Through its class, so that what the file leaves out has its default.
            config = AutoConfig.from_pretrained(str(located.path), local_files_only=True).to_dict()
    if config.get("model_type") != recipe.model.backbone:
        raise InputError(
            f"model.id: {recipe.model.id} is a {config.get('model_type')} model; expected {recipe.model.backbone}"
        )
    if recipe.model.image_size:
        config = {**config, "vision_config": {**config["vision_config"], "image_size": recipe.model.image_size}}
    image_tokens(config["vision_config"]["image_size"], config["vision_config"].get("patch_size", 14))
    return config
