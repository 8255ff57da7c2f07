"""Which component a parameter belongs to, and the census: what of each is trained and what is 4-bit.

Components are the backbone's (vision tower, projector, language model) by the prefix of their names, `head`, which is
the module that `get_output_embeddings` returns, and `embeddings`, that of `get_input_embeddings`. Those two by
identity, since every family names them otherwise (lm_head, embed_out, ...). Tied, they count once, as embeddings.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from medvlm.models.backbones.base import Backbone


@dataclasses.dataclass(slots=True)
class Count:
    """Parameters of one component."""

    total: int = 0
    trainable: int = 0
    quantized: int = 0


class Places:
    """Finds the component of a parameter by its name.

    Args:
        model: bare or wrapped by PEFT.
        kind: the backbone's class.
    """

    def __init__(self, model: torch.nn.Module, kind: type[Backbone]) -> None:
        self.kind = kind
        self.head = module_name(model, output_layer(model))
        self.embeddings = module_name(model, _accessible(model, "get_input_embeddings"))
        self.prefixes = prefixes_of(model, kind)

    def component(self, name: str) -> str:
        """Return the component of a parameter or module, its name as in the bare or in the wrapped model."""
        bare = bare_name(name)
        for component, place in (("head", self.head), ("embeddings", self.embeddings)):
            if place is not None and (bare == place or bare.startswith(f"{place}.")):
                return component
        for prefix, component in self.prefixes:
            if f"{bare}.".startswith(prefix):
                return component
        raise AssertionError(f"parameter {name} belongs to no component of {self.kind.__name__}")


def prefixes_of(model: torch.nn.Module, kind: type[Backbone]) -> list[tuple[str, str]]:
    """Return (prefix, component) of a model, bare or wrapped by PEFT; the longest prefixes first, so that they win."""
    config: Any = getattr(model, "config", None)
    found = [(prefix, name) for name, own in kind.components_of(config).items() for prefix in own]
    return sorted(found, key=lambda pair: -len(pair[0]))


def component_of(name: str, model: torch.nn.Module, kind: type[Backbone]) -> str:
    """Return vision_tower, projector, language_model, head or embeddings; for many names, `Places` looks once."""
    return Places(model, kind).component(name)


def bare_name(name: str) -> str:
    """Return a parameter's name as the model without PEFT, compilation or activation checkpointing has it."""
    name = name.removeprefix("base_model.model.").replace(".base_layer", "").replace("_orig_mod.", "")
    return re.sub(r"\.(modules_to_save\.\w+|original_module)", "", name)


def output_layer(model: torch.nn.Module) -> Any:
    """Return the head, as it stands in the model: a wrapper where PEFT trains it."""
    return _accessible(model, "get_output_embeddings")


def _accessible(model: torch.nn.Module, getter: str) -> Any:
    method = getattr(model, getter, None)
    try:
        return None if method is None else method()
    except NotImplementedError:
        # transformers cannot tell of every family; CLIP is one.
        return None


def module_name(model: torch.nn.Module, wanted: Any) -> str | None:
    """Return the bare name of a module of `model`, or None where it is no part of it."""
    if wanted is None:
        return None
    return next((bare_name(name) for name, module in model.named_modules() if module is wanted), None)


def tied(model: torch.nn.Module) -> bool:
    """Return True where the head's weights are those of the token embeddings."""
    head, embeddings = output_layer(model), _accessible(model, "get_input_embeddings")
    return head is not None and embeddings is not None and head.weight is embeddings.weight


def untie(model: torch.nn.Module) -> None:
    """Give the head weights of its own, equal to those it had, and say so in the configuration."""
    import torch

    if not tied(model):
        return
    head = output_layer(model)
    head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=head.weight.requires_grad)
    config: Any = model.config
    for part in (config, config.get_text_config()):
        part.tie_word_embeddings = False
    for module in model.modules():
        # What transformers would tie again when it saves or moves the model.
        keys = getattr(module, "all_tied_weights_keys", None)
        if isinstance(keys, dict):
            keys.clear()


def cast(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Give every parameter of floats this dtype, in place; buffers keep theirs, as in `from_pretrained`.

    `model.to(dtype)` would round the frequencies of rotary embeddings too, which families compute in float32.
    """
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def census(model: torch.nn.Module, backbone: type[Backbone], quantized: set[str] | None = None) -> dict[str, Count]:
    """Count parameters by component: in all, trained, and stored in 4 bits.

    Args:
        model: bare or wrapped by PEFT; tied weights count once, as embeddings.
        backbone: the model's class.
        quantized: names of modules that are 4-bit, in the bare model's names; looked up when None.

    Returns:
        Component -> Count, with `head` and `embeddings` beside the backbone's own.
    """
    if quantized is None:
        from medvlm.models.quantize import quantized_modules

        quantized = {bare_name(name) for name in quantized_modules(model)}
    names = ["vision_tower", "projector", "language_model", "head", "embeddings"]
    counts = {name: Count() for name in names}
    places = Places(model, backbone)
    for name, parameter in model.named_parameters():
        # PEFT keeps the frozen original of a module it saves; it is no parameter of the tuned model.
        if ".original_module." in name:
            continue
        count = counts[places.component(name)]
        size = true_size(parameter)
        count.total += size
        count.trainable += size if parameter.requires_grad else 0
        count.quantized += size if bare_name(name).removesuffix(".weight") in quantized else 0
    return counts


def true_size(parameter: torch.nn.Parameter) -> int:
    """Return the number of weights, also where bitsandbytes packs two into a byte."""
    state = getattr(parameter, "quant_state", None)
    if state is None:
        return parameter.numel()
    size = 1
    for side in state.shape:
        size *= int(side)
    return size
