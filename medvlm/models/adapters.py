"""What is trained of each component: LoRA by an anchored pattern, whole components, and the census of it all."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from medvlm.errors import RecipeError
from medvlm.recipe.models import AdapterPart, AdaptersPart
from medvlm.registry import nearest

if TYPE_CHECKING:
    import torch

    from medvlm.models.backbones.base import Backbone


@dataclasses.dataclass(slots=True)
class Count:
    """Parameters of one component."""

    total: int = 0
    trainable: int = 0
    quantized: int = 0


def lora_pattern(part: AdapterPart, prefix: str) -> str:
    """Return a pattern that matches whole module names inside one component only.

    A bare suffix such as `q_proj` would also hit the vision tower's attention.
    """
    words = "|".join(map(re.escape, part.modules)) if part.modules else "[a-zA-Z_]*proj"
    return rf"{re.escape(prefix)}.*\.({words})"


def apply(model: torch.nn.Module, adapters: AdaptersPart, backbone: type[Backbone]) -> torch.nn.Module:
    """Freeze, unfreeze and wrap `model` as the recipe says.

    Components trained whole beside LoRA go through `modules_to_save`, so that they are saved with the adapter; without
    LoRA the bare model is returned with `requires_grad` set by component.

    Raises:
        RecipeError: the LoRA modules match nothing.
    """
    parts = {name: adapters.part(name) for name in backbone.components}
    lora = {name: part for name, part in parts.items() if part.low_rank}
    if not lora:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(_kind(name, parts, backbone) == "full")
        return model
    ((name, part),) = lora.items()
    pattern = lora_pattern(part, backbone.components[name])
    _check_modules(model, name, part, backbone.components[name])
    from peft import LoraConfig, get_peft_model

    whole = [backbone.components[n].removesuffix(".").rsplit(".", 1)[-1] for n, p in parts.items() if p.kind == "full"]
    config = LoraConfig(
        r=part.r,
        lora_alpha=part.alpha,
        lora_dropout=part.dropout,
        target_modules=pattern,
        modules_to_save=whole or None,
        task_type="CAUSAL_LM",
    )
    wrapped: torch.nn.Module = get_peft_model(model, config)
    return wrapped


def _check_modules(model: torch.nn.Module, name: str, part: AdapterPart, prefix: str) -> None:
    """Raise where a module to adapt does not exist: a misspelt one would just be left out."""
    import torch

    linear = {
        place.rsplit(".", 1)[-1]
        for place, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and place.startswith(prefix)
    }
    unknown = [word for word in part.modules or [] if word not in linear]
    if unknown:
        problems = [
            f"adapters.{name}.modules: {word!r}: no linear layer of the {name}{nearest(word, sorted(linear))}"
            for word in unknown
        ]
        raise RecipeError("recipe", problems)


def trainable_in_float32(model: torch.nn.Module) -> None:
    """Keep what is trained in float32: a learning rate of 1e-5 vanishes in bfloat16's eight bits."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def census(model: torch.nn.Module, backbone: type[Backbone], quantized: set[str] | None = None) -> dict[str, Count]:
    """Count parameters by component: in all, trained, and stored in 4 bits.

    Args:
        model: bare or wrapped by PEFT; tied weights count once.
        quantized: names of modules that are 4-bit, in the bare model's names; looked up when None.

    Returns:
        Component -> Count; the token embeddings, tied to the output layer, stand apart as `embeddings`.
    """
    if quantized is None:
        from medvlm.models.quantize import quantized_modules

        quantized = {_bare(name) for name in quantized_modules(model)}
    counts = {name: Count() for name in [*backbone.components, "embeddings"]}
    for name, parameter in model.named_parameters():
        # PEFT keeps the frozen original of a module it saves; it is no parameter of the tuned model.
        if ".original_module." in name:
            continue
        bare = _bare(name)
        component = _component(bare, backbone)
        count = counts[component]
        size = _true_size(parameter)
        count.total += size
        count.trainable += size if parameter.requires_grad else 0
        count.quantized += size if bare.removesuffix(".weight") in quantized else 0
    return counts


def _true_size(parameter: torch.nn.Parameter) -> int:
    """Return the number of weights, also where bitsandbytes packs two into a byte."""
    state = getattr(parameter, "quant_state", None)
    if state is None:
        return parameter.numel()
    size = 1
    for side in state.shape:
        size *= int(side)
    return size


def _bare(name: str) -> str:
    """Return a parameter's name as the model without PEFT has it."""
    name = name.removeprefix("base_model.model.").replace(".base_layer", "")
    return re.sub(r"\.modules_to_save\.\w+", "", name)


def _component(name: str, backbone: type[Backbone]) -> str:
    if "embed_tokens" in name or name.startswith("lm_head"):
        return "embeddings"
    for component, prefix in backbone.components.items():
        if name.startswith(prefix):
            return component
    raise AssertionError(f"parameter {name} belongs to no component of {backbone.__name__}")


def _kind(name: str, parts: dict[str, AdapterPart], backbone: type[Backbone]) -> str:
    """Return what the recipe says of a parameter; the embeddings go with the language model."""
    component = _component(name, backbone)
    return parts["language_model" if component == "embeddings" else component].kind
