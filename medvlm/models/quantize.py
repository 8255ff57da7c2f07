"""4-bit loading with bitsandbytes: which modules, and the traps of its CPU path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medvlm.errors import MedvlmError, RecipeError
from medvlm.recipe.models import QuantizationPart

if TYPE_CHECKING:
    import torch

    from medvlm.models.backbones.base import Backbone


def configuration(part: QuantizationPart, backbone: type[Backbone], config: Any = None) -> Any:
    """Return the BitsAndBytesConfig that quantizes the language model's linear layers and nothing else.

    Skip patterns are anchored at the model's root: `vision_tower` alone would skip nothing. Any list given replaces
    the default that spares `lm_head`, so that is named again; a head of another name is among the components.

    Args:
        part: of the recipe.
        backbone: the model's.
        config: the model's, for a backbone whose components depend on it.

    Raises:
        RecipeError: the backbone has nothing that may be 4-bit.
    """
    import torch
    from transformers import BitsAndBytesConfig

    if backbone.quantizable is None:
        raise RecipeError("recipe", [f"quantization.mode: 'nf4': {backbone.__name__} has no 4-bit form; expected none"])
    components = backbone.components_of(config)
    spared = [
        prefix.removesuffix(".") for name, own in components.items() if name != backbone.quantizable for prefix in own
    ]
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=part.double,
        bnb_4bit_compute_dtype=getattr(torch, part.compute_dtype),
        bnb_4bit_quant_storage=getattr(torch, part.storage),
        llm_int8_skip_modules=[*spared, "lm_head"],
    )


def mend_cpu_layers(model: torch.nn.Module) -> None:
    """Switch off the AVX512-BF16 path of every 4-bit layer.

    Its first forward in eval mode repacks the weights in place; training steps after it then get wrong gradients
    without any error, and a merge gives a wrong model.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def quantized_modules(model: torch.nn.Module) -> list[str]:
    """Return the names of all 4-bit modules."""
    from bitsandbytes.nn import Linear4bit

    return [name for name, module in model.named_modules() if isinstance(module, Linear4bit)]


def would_be_quantized(model: torch.nn.Module, backbone: type[Backbone]) -> list[str]:
    """Return the names of the modules that 4-bit loading replaces: the quantizable component's linear layers.

    Not the head, which stays as it is whatever its name.
    """
    from medvlm.models.adapters import is_linear
    from medvlm.models.components import Places

    places = Places(model, backbone)
    return [
        name
        for name, module in model.named_modules()
        if is_linear(module) and places.component(name) == backbone.quantizable
    ]


def check(model: torch.nn.Module, backbone: type[Backbone]) -> None:
    """Raise where 4-bit loading touched another component or the head, or spared a layer it should have taken."""
    # Linear4bit is a subclass of Linear, so this counts what was meant to be 4-bit.
    meant, found = set(would_be_quantized(model, backbone)), set(quantized_modules(model))
    if meant != found:
        raise MedvlmError(
            f"4-bit loading went wrong: {len(found - meant)} modules outside the {backbone.quantizable} or in its head "
            f"are 4-bit, {len(meant - found)} inside are not"
        )
