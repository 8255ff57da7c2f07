"""What differs between chat models: where their components lie, how large a picture is, how many tokens it takes.

Families known by name: Qwen2-VL, Qwen2.5-VL (arXiv:2502.13923) and Qwen3-VL (arXiv:2511.21631), Idefics3
(arXiv:2408.12637) with SmolVLM (arXiv:2504.05299), Gemma 3 (arXiv:2503.19786) with MedGemma (arXiv:2507.05201), LLaVA
(arXiv:2310.03744) and IDEFICS, the open Flamingo (arXiv:2306.16527). Of others the components are found in the model's
own modules, and pictures keep the size that the checkpoint's processor gives them.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from medvlm.errors import InputError, RecipeError
from medvlm.models.positions import resize_embeddings

QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
IDEFICS3 = ("idefics3", "smolvlm")

Components = Mapping[str, tuple[str, ...]]

_LLAVA: Components = {
    "vision_tower": ("model.vision_tower.",),
    "projector": ("model.multi_modal_projector.",),
    "language_model": ("model.language_model.",),
}
_QWEN: Components = {
    "vision_tower": ("model.visual.",),
    "projector": ("model.visual.merger.",),
    "language_model": ("model.language_model.",),
}
_IDEFICS3: Components = {
    "vision_tower": ("model.vision_model.",),
    "projector": ("model.connector.",),
    "language_model": ("model.text_model.",),
}
COMPONENTS: dict[str, Components] = {
    "gemma3": _LLAVA,
    "llava": _LLAVA,
    **dict.fromkeys(QWEN, _QWEN),
    **dict.fromkeys(IDEFICS3, _IDEFICS3),
    "idefics": {
        "vision_tower": ("model.vision_model.",),
        "projector": ("model.perceiver_resampler.",),
        # The gated cross-attention stands between the decoder's layers, and is adapted and stored with them.
        "language_model": ("model.layers.", "model.gated_cross_attn_layers.", "model.embed_tokens.", "model.norm."),
    },
}

IDEFICS_TEMPLATE = (
    "{{ bos_token }}{% for turn in messages %}{{ '' if loop.first else '\n' }}{{ turn['role'] | capitalize }}:"
    "{{ ' ' if turn['content'][0]['type'] == 'text' else '' }}"
    "{% for part in turn['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
    # Pictures that follow each other share the token between them.
    "{% else %}{{ '' if not loop.first else '<fake_token_around_image>' }}<image><fake_token_around_image>{% endif %}"
    "{% endfor %}<end_of_utterance>{% endfor %}"
    # A line end behind a block would be dropped.
    "{{ '\nAssistant:' if add_generation_prompt else '' }}"
)
"""The dialogue of IDEFICS, whose files hold no template (model card of HuggingFaceM4/idefics-9b-instruct)."""

MOST_QWEN_TOKENS = 16384
"""Of a picture, where nothing fixes its size: the published processors' most pixels / those of a token (12,845,056 /
28² of Qwen2.5-VL, 16,777,216 / 32² of Qwen3-VL)."""


def components(config: Any) -> Components:
    """Return component -> prefixes of its parameters' names, in the bare model of this configuration.

    Raises:
        InputError: an unknown family, without one vision tower and one language model that can be told apart.
    """
    known = COMPONENTS.get(config.model_type)
    if known is not None and config.model_type == "qwen3_vl":
        # Some blocks of its tower have a projector of their own, each adapted by itself.
        some = range(len(config.vision_config.deepstack_visual_indexes))
        deeper = tuple(f"model.visual.deepstack_merger_list.{number}." for number in some)
        return {**known, "projector": (*known["projector"], *deeper)}
    return known if known is not None else _found(json.dumps(config.to_dict(), sort_keys=True, default=str))


@functools.lru_cache(maxsize=8)
def _found(config: str) -> Components:
    """Return the components of an unknown family: modules whose configurations are the whole's parts; then the rest."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    whole = AutoConfig.for_model(**json.loads(config))
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(whole)
    text = _outermost(model, type(whole.get_text_config()))
    tower = _outermost(model, type(getattr(whole, "vision_config", None)))
    if len(text) != 1 or len(tower) != 1 or text == tower:
        raise InputError(
            f"model.id: a {whole.model_type} model has {len(tower)} modules of its vision configuration and "
            f"{len(text)} of its text configuration; expected one of each, or a family that is known by name"
        )
    head = model.get_output_embeddings()
    spared = (*text, *tower, *(f"{name}." for name, module in model.named_modules() if module is head))
    rest = {name for name, _ in model.named_parameters() if not name.startswith(spared)}
    return {"vision_tower": tower, "projector": _prefixes(rest, spared), "language_model": text}


def _outermost(model: torch.nn.Module, kind: type) -> tuple[str, ...]:
    """Return the prefixes of the whole models inside that have a configuration of this class."""
    from transformers import PreTrainedModel

    found: list[str] = []
    for name, module in model.named_modules():
        inside = any(f"{name}.".startswith(prefix) for prefix in found)
        if name and not inside and isinstance(module, PreTrainedModel) and type(module.config) is kind:
            found.append(f"{name}.")
    return tuple(found)


def _prefixes(names: set[str], spared: tuple[str, ...]) -> tuple[str, ...]:
    """Return the shortest prefixes, whole steps long, that all these names begin with and none of `spared` does."""
    found = set()
    for name in names:
        steps = name.split(".")
        lengths = range(1, len(steps) + 1)
        prefixes = (".".join(steps[:length]) + "." for length in lengths)
        found.add(next(one for one in prefixes if not any(other.startswith(one) for other in spared)))
    return tuple(sorted(found))


def side(config: Any) -> int | None:
    """Return the side of the square picture in pixels; None where pictures keep their shape."""
    size = getattr(config.vision_config, "image_size", None)
    if isinstance(size, (list, tuple)) and len(set(size)) == 1:
        # InternVL's.
        return int(size[0])
    return size if isinstance(size, int) else None


def step(config: Any) -> int:
    """Return of what the side must be a multiple, in pixels: a patch, or those that become one token."""
    own = side(config)
    if config.model_type not in COMPONENTS and own is not None:
        # Takes no other side, see `check_side`.
        return own
    patch = int(config.vision_config.patch_size)
    if config.model_type in QWEN:
        return patch * int(config.vision_config.spatial_merge_size)
    if config.model_type in IDEFICS3:
        return patch * int(config.scale_factor)
    if config.model_type == "gemma3":
        return patch * math.isqrt(config.mm_tokens_per_image)
    return patch


def image_tokens(config: Any) -> int:
    """Return how many tokens stand for a picture; for Qwen, of a square one."""
    kind, square = config.model_type, side(config)
    if kind == "idefics":
        return 1
    if kind in QWEN or kind in IDEFICS3:
        return MOST_QWEN_TOKENS if square is None else (square // step(config)) ** 2
    if kind == "llava" and square is not None:
        # Other towers than CLIP's have no class token to drop.
        with_class = config.vision_feature_select_strategy == "full" and "clip" in config.vision_config.model_type
        return tower_patches(config) + int(with_class)
    for name in ("mm_tokens_per_image", "image_seq_length"):
        if isinstance(getattr(config, name, None), int):
            return int(getattr(config, name))
    return tower_patches(config)


def tower_patches(config: Any) -> int:
    """Return how many patches the vision tower sees of a square picture, its class token apart."""
    square = side(config)
    if square is None:
        merge = int(config.vision_config.spatial_merge_size) if config.model_type in QWEN else 1
        return MOST_QWEN_TOKENS * merge * merge
    return (square // int(config.vision_config.patch_size)) ** 2


def patches_in(config: Any, tower_tokens: int, inputs: Mapping[str, torch.Tensor]) -> list[int]:
    """Return how many tokens each picture of a batch has inside the tower; where pictures are cut, each tile.

    Args:
        config: of the model.
        tower_tokens: of a picture or tile of the usual size.
        inputs: as `collate` makes them.
    """
    if "image_grid_thw" in inputs:
        found: list[int] = inputs["image_grid_thw"].prod(dim=1).tolist()
        return found
    pictures = inputs.get("pixel_values")
    if pictures is None:
        return []
    if "image_sizes" in inputs and pictures.dim() == 4:
        # Pixtral's tower keeps a picture's shape.
        found = (inputs["image_sizes"] // int(config.vision_config.patch_size)).prod(dim=1).tolist()
        return found
    # Missing ones are 0 throughout, which no picture's values are.
    return [tower_tokens] * int(pictures.flatten(-3).any(dim=-1).sum())


def tower_pairs(config: Any, tokens: int) -> int:
    """Return the pairs of tokens in attention of one picture, as a mean over the tower's layers.

    Args:
        config: of the model.
        tokens: inside the tower.
    """
    vision: Any = config.vision_config
    if config.model_type != "qwen2_5_vl":
        return tokens * tokens
    across = int(vision.window_size) // int(vision.patch_size)
    whole = len([layer for layer in vision.fullatt_block_indexes if layer < vision.depth])
    pairs = whole * tokens * tokens + (int(vision.depth) - whole) * tokens * min(across * across, tokens)
    return pairs // int(vision.depth)


def idefics_amounts(config: Any, tower_tokens: int, lengths: Sequence[int], images: int) -> dict[str, tuple[int, int]]:
    """Return (tokens, pairs of tokens in attention) of IDEFICS's resampler and of its decoder with cross-attention.

    Some of their layers see the text or the latents, others what these look at: the tokens are means, weighted by the
    layers' sizes.

    Args:
        config: of the model.
        tower_tokens: inside the vision tower, for one picture.
        lengths: true tokens of each example.
        images: pictures.
    """
    part, vision = config.perceiver_config, config.vision_config
    hidden, inner, seen = int(config.hidden_size), int(config.intermediate_size), int(vision.embed_dim)
    latents = int(part.resampler_n_latents) if config.use_resampler else tower_tokens
    inside = int(part.resampler_n_heads) * int(part.resampler_head_dim)
    context = latents + tower_tokens
    # Queries, outputs and two layers four times as wide see latents; keys and values see the picture, too.
    share = 2 * seen * inside / (4 * seen * inside + 8 * seen * seen)
    projector = images * (share * context + (1 - share) * latents)
    layers = int(config.num_hidden_layers)
    crossed = layers // int(config.cross_layer_interval)
    keys = crossed * 2 * seen * hidden
    own = layers * (4 * hidden * hidden + 3 * hidden * inner) + crossed * (2 * hidden * hidden + 3 * hidden * inner)
    share = keys / (keys + own)
    text = sum(lengths)
    squares = layers * sum(length * length for length in lengths)
    across = crossed * text * latents * images / max(1, len(lengths))
    return {
        "projector": (round(projector), images * latents * context),
        "language_model": (
            round((1 - share) * text + share * images * latents),
            round((squares + across) / (layers + crossed)),
        ),
    }


def check_side(config: Any, size: int) -> None:
    """Raise where pictures cannot have this side.

    Raises:
        RecipeError: says what is expected.
    """
    own = side(config)
    if size == own:
        return
    if config.model_type not in COMPONENTS:
        expected = "none" if own is None else f"none, or {own}"
        raise RecipeError(
            "recipe",
            [f"model.image_size: {size}: pictures of {config.model_type} keep their own size; expected {expected}"],
        )
    every = step(config)
    if size % every:
        near = max(1, round(size / every)) * every
        raise RecipeError("recipe", [f"model.image_size: {size}: expected a multiple of {every}, as {near}"])


def resize(model: torch.nn.Module, processor: Any, size: int) -> bool:
    """Make model and processor take pictures of this side; return whether position embeddings were resampled.

    Raises:
        RecipeError: as `check_side`.
    """
    config: Any = model.config
    check_side(config, size)
    kind = config.model_type
    if kind not in COMPONENTS:
        return False
    _fix_pictures(processor, config, size)
    if kind in QWEN:
        # Rotary positions fit any size; the configuration remembers it for plans.
        config.vision_config.image_size = size
        return False
    embeddings: Any = next(module for module in model.modules() if hasattr(module, "position_embedding"))
    changed = resize_embeddings(embeddings, size, class_token=hasattr(embeddings, "class_embedding"))
    if hasattr(embeddings, "num_patches_per_side"):
        embeddings.num_patches_per_side = size // int(config.vision_config.patch_size)
    config.vision_config.image_size = size
    if kind == "gemma3":
        _pool_again(model.get_submodule("model.multi_modal_projector"), config)
    if kind == "llava":
        config.image_seq_length = image_tokens(config)
    return changed


def _fix_pictures(processor: Any, config: Any, size: int) -> None:
    """Make the image processor give pictures of one size: no tiles, no crops beside the whole."""
    pictures, kind = processor.image_processor, config.model_type
    if kind in QWEN:
        pictures.size = type(pictures)(size={"shortest_edge": size**2, "longest_edge": size**2}).size
    elif kind in IDEFICS3:
        made = type(pictures)(size={"longest_edge": size}, max_image_size={"longest_edge": size})
        pictures.size, pictures.max_image_size = made.size, made.max_image_size
        pictures.do_image_splitting = False
        processor.image_seq_len = (size // step(config)) ** 2
    elif kind == "gemma3":
        pictures.size = type(pictures)(size={"height": size, "width": size}).size
        pictures.do_pan_and_scan = False
    elif kind == "idefics":
        pictures.size = type(pictures)(image_size=size).size
        pictures.image_size = size
        processor.default_image_dims = (processor.image_processor.image_num_channels, size, size)
    else:
        square = {"height": size, "width": size}
        if getattr(pictures, "crop_size", None) is None:
            pictures.size = type(pictures)(size=square).size
        else:
            made = type(pictures)(size={"shortest_edge": size}, crop_size=square)
            pictures.size, pictures.crop_size = made.size, made.crop_size


def _pool_again(projector: Any, config: Any) -> None:
    """Let Gemma 3's projector pool a picture of another size into as many tokens."""
    projector.patches_per_image = int(config.vision_config.image_size) // int(config.vision_config.patch_size)
    projector.kernel_size = projector.patches_per_image // projector.tokens_per_side
    projector.avg_pool = torch.nn.AvgPool2d(kernel_size=projector.kernel_size, stride=projector.kernel_size)
