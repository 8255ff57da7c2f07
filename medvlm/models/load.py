"""Load a base model as a recipe asks: dtype, 4-bit, image size; the same for training, prediction and merging."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlm.errors import InputError, MissingExtraError, RecipeError
from medvlm.models import quantize
from medvlm.models.backbones import BACKBONES, name_of_type
from medvlm.models.components import cast
from medvlm.models.locate import Located, locate_config, locate_parts, random_family, weights_fingerprint
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
        AccessError, InputError, RecipeError: see `locate`; another architecture; an impossible image size;
            budgets of tokens past the decoder's positions.
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
    checkpoint_size = kind.image_size_of(config)
    size = recipe.model.image_size or checkpoint_size
    resampled = size is not None and kind.resize(model, processor, size)
    if not recipe.model.logit_softcapping:
        config.get_text_config().final_logit_softcapping = None
    tokens = kind.image_tokens_of(config)
    check_length(recipe, config, tokens)
    kind.check(recipe, config)
    backbone = kind(
        processor,
        image_tokens=tokens,
        max_prefix_tokens=recipe.text.max_prefix_tokens,
        max_suffix_tokens=recipe.text.max_suffix_tokens,
    )
    backbone.follow(model, recipe)
    facts = {
        "id": recipe.model.label,
        "parts": recipe.model.parts,
        "backbone": recipe.model.backbone,
        "output": kind.output,
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
    """Return the attention of the text model: what the recipe says, `auto` being sdpa where the family has it.

    Raises:
        RecipeError: sdpa is asked for by name, and the family has none (Gemma 2, MPT).
    """
    text = config.get_text_config()
    takes_sdpa = BACKBONES.get(recipe.model.backbone).takes_sdpa(config)
    if recipe.model.attention == "sdpa" and not takes_sdpa:
        raise RecipeError("recipe", [f"model.attention: 'sdpa': {text.model_type} has none; expected auto or eager"])
    if recipe.model.attention != "auto":
        return recipe.model.attention
    return "sdpa" if takes_sdpa else "eager"


_POSITIONS = {
    **dict.fromkeys(
        ("biogpt", "codegen", "git", "gpt2", "gpt_bigcode", "gpt_neo", "gptj", "opt"), "max_position_embeddings"
    ),
    "mpt": "max_seq_len",
}
"""Families that know just so many positions (a table of them, or MPT's of biases) -> what says how many."""


def check_length(recipe: Recipe, config: Any, image_tokens: int) -> None:
    """Raise where the recipe's budgets allow more tokens than the decoder has positions.

    Raises:
        RecipeError: says which budgets.
    """
    text = config.get_text_config()
    limit = getattr(text, _POSITIONS.get(text.model_type, ""), None)
    if limit is None:
        return
    if text.model_type == "git":
        # Its pictures' tokens have no positions.
        image_tokens = 0
    # One is the start token; the last token that is generated is not read.
    before = image_tokens + 1 + recipe.text.max_prefix_tokens
    longest = before + recipe.text.max_suffix_tokens
    lengths = {
        "text.max_suffix_tokens": longest,
        "eval.max_new_tokens": before + recipe.eval.max_new_tokens - 1,
    }
    if text.model_type == "mpt" and recipe.train.batching == "packed":
        # Its biases go by the place in the row.
        lengths["train.pack_tokens"] = max(longest, recipe.train.pack_tokens or 2 * longest)
    problems = [
        f"{name}: up to {length} tokens, {image_tokens} of the picture and {recipe.text.max_prefix_tokens} of "
        f"text.max_prefix_tokens among them, but {text.model_type} has {limit} positions; expected fewer"
        for name, length in lengths.items()
        if length > limit
    ]
    if problems:
        raise RecipeError("recipe", problems)


def read_config(path: Path) -> Any:
    """Return the configuration of a checkpoint's folder or a GGUF file.

    Raises:
        InputError: it cannot be read, or names an architecture that transformers does not know.
    """
    from transformers import AutoConfig

    gguf = {"gguf_file": path.name} if path.suffix == ".gguf" else {}
    try:
        return AutoConfig.from_pretrained(str(path.parent if gguf else path), local_files_only=True, **gguf)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"model.id: {path}: its configuration cannot be read ({reason})") from error


def _untrained(recipe: Recipe) -> tuple[torch.nn.Module, Any]:
    import torch

    if recipe.quantization.mode != "none":
        raise RecipeError("recipe", [f"quantization.mode: {recipe.model.id} is untrained; expected none"])
    torch.manual_seed(recipe.seed)
    family = random_family(str(recipe.model.id))
    model, processor = BACKBONES.get(recipe.model.backbone).tiny(recipe.model.image_size, family)
    model.set_attn_implementation(attention(recipe, model.config))  # type: ignore[operator]
    cast(model, getattr(torch, recipe.model.dtype))
    return model, processor


def _pretrained(recipe: Recipe, paths: Mapping[str, Path], kind: type[Backbone]) -> tuple[torch.nn.Module, Any]:
    import torch

    if recipe.model.dtype == "float16" and not torch.cuda.is_available():
        raise RecipeError("recipe", ["model.dtype: 'float16': expected bfloat16 or float32 where there is no GPU"])
    whole = read_config(paths.get("language_model", paths.get("model", Path())))
    check_type(recipe, whole.model_type if "model" in paths else None)
    wanted = attention(recipe, whole)
    options: dict[str, Any] = {
        "dtype": getattr(torch, recipe.model.dtype),
        # Where nothing is asked for, the tower has sdpa also beside a decoder that takes none.
        "attn_implementation": "sdpa" if recipe.model.attention == "auto" else wanted,
    }
    quantized = recipe.quantization.mode != "none"
    if quantized:
        options["quantization_config"] = quantize.configuration(recipe.quantization, kind, whole)
        if torch.cuda.is_available():
            options["device_map"] = {"": torch.cuda.current_device()}
    if recipe.model.sizes:
        options["sizes"] = recipe.model.sizes
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
        InputError, RecipeError: another architecture; an image size that is no multiple of the patch; budgets of
            tokens past the decoder's positions.
    """
    from transformers import AutoConfig

    kind = BACKBONES.get(recipe.model.backbone)
    config = kind.compose({role: _planned(recipe, role, name) for role, name in recipe.model.parts.items()})
    config |= recipe.model.sizes
    check_type(recipe, config.get("model_type"))
    if recipe.model.image_size:
        config = kind.resized(config, recipe.model.image_size)
    whole = AutoConfig.for_model(**config)
    check_length(recipe, whole, kind.image_tokens_of(whole))
    kind.check(recipe, whole)
    return config


def check_type(recipe: Recipe, model_type: str | None) -> None:
    """Raise where a checkpoint of this type is another backbone's.

    Raises:
        InputError: says which backbone takes it.
    """
    name = recipe.model.backbone
    if model_type is None or BACKBONES.get(name).takes(model_type):
        return
    here = name_of_type(model_type)
    there = f"; set model.backbone={here}" if here != name else ""
    raise InputError(f"model.id: {recipe.model.label} is a {model_type} model; expected {name}{there}")


def _planned(recipe: Recipe, role: str, name: str) -> dict[str, Any]:
    """Return the configuration of one part."""
    from medvlm.models.locate import is_local

    if not is_local(name) and name in PUBLISHED:
        return PUBLISHED[name]
    alone = role == "model"
    located = locate_config(name, recipe.model.revision if alone else None, "model.id" if alone else f"model.{role}")
    if located.path is None:
        model, _ = _untrained(recipe)
        config: dict[str, Any] = model.config.to_dict()  # type: ignore[operator, union-attr]
        return config
    # Through its class, so that what the file leaves out has its default.
    config = read_config(located.path).to_dict()
    return config


def speed_up(model: torch.nn.Module, recipe: Recipe) -> list[str]:
    """Make training steps faster where the recipe and this machine allow it, and return what was done.

    Args:
        model: as `adapters.apply` returned it.
        recipe: `train.compile` and `train.liger`.

    Returns:
        texts for run.json, such as "torch.compile of 18 decoder layers" and "liger-kernel for gemma".

    Raises:
        RecipeError: `train.liger: on` without a GPU, or for a family that it does not know.
        MissingExtraError: `train.liger: on` without the package.
    """
    bare: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    done = [_liger(bare, recipe)]
    if recipe.train.compile:
        layers = decoder_layers(bare, BACKBONES.get(recipe.model.backbone))
        for layer in layers:
            # In place, so that no name of a parameter changes.
            layer.compile()
        done.append(f"torch.compile of {len(layers)} decoder layers")
    return [text for text in done if text]


def decoder_layers(model: torch.nn.Module, kind: type[Backbone]) -> list[torch.nn.Module]:
    """Return the layers of a bare model's decoder, in their order."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    prefixes = kind.components_of(model.config)["language_model"]
    return [
        module
        for name, module in model.named_modules()
        if name.startswith(prefixes) and isinstance(module, GradientCheckpointingLayer)
    ]


def _liger(model: Any, recipe: Recipe) -> str:
    """Put liger-kernel's norms, rotary embeddings and gated layers in place; return what was done."""
    import importlib
    import importlib.util

    import torch

    asked = recipe.train.liger == "on"
    if recipe.train.liger == "off":
        return ""
    if not torch.cuda.is_available():
        if asked:
            raise RecipeError("recipe", ["train.liger: 'on': liger-kernel needs a GPU; expected auto or off"])
        return ""
    if importlib.util.find_spec("liger_kernel") is None:
        if asked:
            raise MissingExtraError("train.liger=on", "liger")
        return ""
    monkey_patch: Any = importlib.import_module("liger_kernel.transformers.monkey_patch")
    known = monkey_patch.MODEL_TYPE_TO_APPLY_LIGER_FN
    # Of GIT-LLM it knows the language model, not the whole around it.
    decoder = BACKBONES.get(recipe.model.backbone).components_of(model.config)["language_model"][0].removesuffix(".")
    part = model if model.config.model_type in known else model.get_submodule(decoder)
    # A decoder that lies open in the whole has no configuration of its own.
    family = getattr(part, "config", model.config).model_type
    if family not in known:
        if asked:
            raise RecipeError("recipe", [f"train.liger: 'on': liger-kernel knows no {family}; expected auto or off"])
        return ""
    # Its cross-entropy stays out: the loss is ours.
    monkey_patch._apply_liger_kernel_to_instance(part, cross_entropy=False, fused_linear_cross_entropy=False)
    return f"liger-kernel for {family}"
