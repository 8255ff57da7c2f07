"""What is trained of each component: LoRA by anchored patterns, whole components, and their learning rates."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from medvlm.errors import RecipeError
from medvlm.models.components import (
    Count,
    Places,
    bare_name,
    census,
    component_of,
    output_layer,
    prefixes_of,
    tied,
    untie,
)
from medvlm.recipe.models import COMPONENTS, AdapterPart, AdaptersPart, Recipe
from medvlm.registry import nearest

if TYPE_CHECKING:
    import torch

    from medvlm.models.backbones.base import Backbone

__all__ = ["Count", "apply", "census", "component_of", "is_linear", "parameter_groups", "trainable_in_float32"]

ADAPTER = "default"
"""Name of the one adapter that PEFT keeps."""


def apply(model: torch.nn.Module, adapters: AdaptersPart, backbone: type[Backbone]) -> torch.nn.Module:
    """Freeze, unfreeze and wrap `model` as the recipe says.

    Components trained whole beside LoRA go through `modules_to_save`, so that they are saved with the adapter; without
    LoRA the bare model is returned with `requires_grad` set by component. The token embeddings go with the language
    model. A head that is trained is untied from them; a frozen head that is tied to trained embeddings stays tied.

    Raises:
        RecipeError: modules to adapt that do not exist, every one of them.
    """
    # What transformers and PEFT ask for under activation checkpointing: that the outputs of all embeddings require
    # gradients, the picture's too, which sends them through a frozen tower. The kind without reentry needs none.
    bare: Any = model
    bare.enable_input_require_grads = _nothing
    parts = {name: adapters.part(name) for name in COMPONENTS}
    targets = _targets(model, parts, backbone)
    if targets:
        return _wrapped(model, parts, targets, backbone)
    if parts["head"].kind == "full":
        untie(model)
    places = Places(model, backbone)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_part(places.component(name), parts).kind == "full")
    return model


def _nothing() -> None:
    """Do nothing."""


def _part(component: str, parts: Mapping[str, AdapterPart]) -> AdapterPart:
    return parts["language_model" if component == "embeddings" else component]


def is_linear(module: torch.nn.Module) -> bool:
    """Return True for what LoRA adapts and 4-bit loading replaces: linear layers, and GPT-2's way to write them."""
    import torch
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, (torch.nn.Linear, Conv1D))


def linear_layers(model: torch.nn.Module, backbone: type[Backbone]) -> dict[str, list[str]]:
    """Return component -> names of its linear layers that an adapter can stand beside.

    The output projection inside torch's MultiheadAttention (SigLIP's pooling head) is none: its weights are read
    without calling it, so an adapter there would change nothing.
    """
    import torch

    places = Places(model, backbone)
    found: dict[str, list[str]] = {name: [] for name in COMPONENTS}
    inside = [name + "." for name, m in model.named_modules() if isinstance(m, torch.nn.MultiheadAttention)]
    for name, module in model.named_modules():
        if is_linear(module) and not name.startswith(tuple(inside)):
            found[places.component(name)].append(name)
    return found


def _targets(
    model: torch.nn.Module, parts: Mapping[str, AdapterPart], backbone: type[Backbone]
) -> dict[str, list[str]]:
    """Return component -> names of the linear layers that get an adapter."""
    linear = linear_layers(model, backbone)
    problems: list[str] = []
    targets = {}
    for component, part in parts.items():
        if not part.low_rank:
            continue
        known = sorted({_last(name) for name in linear[component]})
        problems += [
            f"adapters.{component}.modules: {word!r}: no linear layer of the {component}{nearest(word, known)}"
            for word in part.modules or []
            if word not in known
        ]
        if not known:
            problems.append(
                f"adapters.{component}.kind: '{part.kind}': it has no linear layer; expected full or frozen"
            )
        targets[component] = [n for n in linear[component] if part.modules is None or _last(n) in part.modules]
    if problems:
        raise RecipeError("recipe", problems)
    return targets


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _wrapped(
    model: torch.nn.Module,
    parts: Mapping[str, AdapterPart],
    targets: Mapping[str, list[str]],
    backbone: type[Backbone],
) -> torch.nn.Module:
    from peft import get_peft_model

    # The copy of a frozen head that is tied to embeddings which are copied to be trained: tied to these again below.
    follow = tied(model) and parts["language_model"].kind == "full" and parts["head"].kind == "frozen"
    whole = _whole_modules(model, parts, backbone, follow)
    config = _lora_config(model, parts, targets, whole)
    # What PEFT calls a causal language model must generate.
    config.task_type = "CAUSAL_LM" if backbone.output == "text" else None
    with warnings.catch_warnings():
        # PEFT warns of adapters on a tied head, which `merge` unties, and of GPT-2's transposed layers, which it finds.
        warnings.filterwarnings("ignore", message="Model (with|has) `tie_word_embeddings=True`")
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")
        wrapped: torch.nn.Module = get_peft_model(model, config)
    if follow:
        embeddings: Any = wrapped.get_input_embeddings()  # type: ignore[operator]
        output_layer(wrapped).modules_to_save[ADAPTER].weight = embeddings.weight
    for name, parameter in lone(wrapped, backbone).items():
        parameter.requires_grad_(parts[component_of(name, wrapped, backbone)].kind == "full")
    return wrapped


def lone(model: torch.nn.Module, backbone: type[Backbone]) -> dict[str, torch.nn.Parameter]:
    """Return the parameters that a component names by themselves, as CLIP's temperature: PEFT does not keep them.

    Args:
        model: bare or wrapped by PEFT.
        backbone: the model's class.
    """
    named = {prefix.removesuffix(".") for prefix, _ in prefixes_of(model, backbone)}
    return {name: parameter for name, parameter in model.named_parameters() if bare_name(name) in named}


def _lora_config(
    model: torch.nn.Module, parts: Mapping[str, AdapterPart], targets: Mapping[str, list[str]], whole: list[str]
) -> Any:
    """Return a LoraConfig that plain PEFT reads: one anchored pattern, with rank and alpha of each component."""
    from peft import LoraConfig

    names = [name for name, _ in model.named_modules()]
    patterns = {component: lora_pattern(wanted, names) for component, wanted in targets.items()}
    low_rank = [parts[component] for component in targets]
    stabilized = all(part.kind == "rslora" for part in low_rank)
    # PEFT knows one scaling a configuration: alpha / r. In a mix, alpha / sqrt(r) is that with alpha times sqrt(r).
    alphas = {
        component: parts[component].alpha
        * (math.sqrt(parts[component].r) if parts[component].kind == "rslora" and not stabilized else 1.0)
        for component in targets
    }
    first = next(iter(targets))
    return LoraConfig(
        r=parts[first].r,
        lora_alpha=alphas[first],
        rank_pattern={f"^{patterns[c]}": parts[c].r for c in targets if parts[c].r != parts[first].r},
        alpha_pattern={f"^{patterns[c]}": alphas[c] for c in targets if alphas[c] != alphas[first]},
        lora_dropout=low_rank[0].dropout,
        use_rslora=stabilized,
        use_dora=low_rank[0].kind == "dora",
        target_modules="|".join(patterns.values()),
        modules_to_save=whole or None,
    )


def lora_pattern(wanted: list[str], names: list[str]) -> str:
    """Return a pattern that matches the whole names in `wanted`, and nothing else in `names`.

    A bare suffix such as `q_proj` would also hit the vision tower's attention.

    Args:
        wanted: names of modules of one component; not empty.
        names: those of all modules.
    """
    prefix = _common_prefix(wanted)
    words = "|".join(map(re.escape, sorted({_last(name) for name in wanted})))
    pattern = rf"{re.escape(prefix)}(?:.+\.)?(?:{words})"
    if {name for name in names if re.fullmatch(pattern, name)} == set(wanted):
        return pattern
    return f"(?:{'|'.join(map(re.escape, wanted))})"


def _common_prefix(names: list[str]) -> str:
    """Return the longest run of whole steps that all names begin with, `model.language_model.` for example."""
    shared = []
    for steps in zip(*(name.split(".")[:-1] for name in names), strict=False):
        if len(set(steps)) > 1:
            break
        shared.append(steps[0])
    return "".join(f"{step}." for step in shared)


def _whole_modules(
    model: torch.nn.Module, parts: Mapping[str, AdapterPart], backbone: type[Backbone], follow: bool
) -> list[str]:
    """Return the modules trained whole, by names of which PEFT, matching ends of names, finds just these."""
    places = Places(model, backbone)
    whole = []
    alone = lone(model, backbone)
    for prefix, component in places.prefixes:
        if parts[component].kind == "full" and prefix.removesuffix(".") not in alone:
            # A longer prefix inside belongs to another component.
            inner = {one.removesuffix(".") for one, other in places.prefixes if other != component and one != prefix}
            whole += _around(model, prefix.removesuffix("."), {places.head, *inner})
    if places.head is not None and (parts["head"].kind == "full" or follow):
        whole.append(places.head)
    keys = [name for name, _ in model.named_modules(remove_duplicate=False)]
    return [part for name in whole for part in _unmistakable(model, name, keys)]


def _unmistakable(model: torch.nn.Module, name: str, keys: list[str]) -> list[str]:
    """Return the module, or its parts where other modules' names end in its name.

    Raises:
        RecipeError: it has no such parts.
    """
    if sum(key.endswith(name) for key in keys) == 1:
        return [name]
    module = model.get_submodule(name)
    children = [child for child, _ in module.named_children()]
    if not children or next(module.parameters(recurse=False), None) is not None:
        others = [key for key in keys if key.endswith(name) and key != name]
        problem = f"adapters: {name} cannot be trained whole beside an adapter: {others[0]} ends in its name; use lora"
        raise RecipeError("recipe", [problem])
    return [found for child in children for found in _unmistakable(model, f"{name}.{child}", keys)]


def _around(model: torch.nn.Module, name: str, others: set[str | None]) -> list[str]:
    """Return the module, or where others (the head, another component's) lie inside it, its parts beside them.

    Raises:
        RecipeError: parameters that are no part's: PEFT trains modules whole, nothing else.
    """
    if name in others:
        return []
    inside = [other for other in others if other is not None and other.startswith(f"{name}." if name else "")]
    module = model.get_submodule(name)
    if not inside:
        return [name]
    if next(module.parameters(recurse=False), None) is not None:
        problem = f"adapters: {name} holds parameters of its own beside other components; use lora or frozen"
        raise RecipeError("recipe", [problem])
    stem = f"{name}." if name else ""
    children = [f"{stem}{child}" for child, _ in module.named_children()]
    return [found for child in children for found in _around(model, child, others)]


def trainable_in_float32(model: torch.nn.Module) -> None:
    """Keep what is trained in float32: a learning rate of 1e-5 vanishes in bfloat16's eight bits."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def parameter_groups(model: torch.nn.Module, recipe: Recipe, kind: type[Backbone]) -> list[dict[str, Any]]:
    """Return the optimizer's groups: one for each learning rate, without weight decay on norms and biases.

    Args:
        model: as `apply` returned it.
        recipe: for learning rates and weight decay.
        kind: the model's class.

    Returns:
        Dictionaries of params, lr and weight_decay, in an order that depends on the model and recipe only; parameters
        within them in the model's order. With one rate for all these are the groups that transformers makes, joined
        where weight decay is 0.
    """
    import torch
    from transformers.trainer_pt_utils import get_parameter_names

    # As Trainer.get_decay_parameter_names has it; and a temperature is a gain (arXiv:2103.00020, section 2.5).
    spared = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)", r"logit_scale"]
    decayed = set(get_parameter_names(model, [torch.nn.LayerNorm], spared))
    places = Places(model, kind)
    parts = {name: recipe.adapters.part(name) for name in COMPONENTS}
    rates = {name: part.learning_rate or recipe.train.learning_rate for name, part in parts.items()}
    found: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for rate in dict.fromkeys(rates.values()):
        found[rate, recipe.train.weight_decay] = []
        found.setdefault((rate, 0.0), [])
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            component = places.component(name)
            rate = rates["language_model" if component == "embeddings" else component]
            found[rate, recipe.train.weight_decay if name in decayed else 0.0].append(parameter)
    return [{"params": params, "lr": lr, "weight_decay": decay} for (lr, decay), params in found.items() if params]
