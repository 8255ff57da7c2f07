"""What a run trained, merged into its base: a plain transformers model, no adapter left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from medvlm.errors import InputError
from medvlm.models import trained
from medvlm.models.components import cast, untie
from medvlm.models.load import Loaded
from medvlm.recipe.models import QuantizationPart, Recipe

if TYPE_CHECKING:
    import torch

    from medvlm.runs import Run

Into = Literal["dequantized", "original"]


def merged(run: Run, recipe: Recipe, into: Into) -> Loaded:
    """Return the run's model with everything that it trained in its weights, in the recipe's dtype.

    Args:
        run: a finished run.
        recipe: its own.
        into: `original`, the base as it was published; or `dequantized`, the 4-bit base unpacked, which is what the
            adapter was trained beside: it answers as the run did, the first has the better base and answers otherwise.

    Raises:
        InputError: the weights are missing; or `dequantized` of a base that was never 4-bit.
    """
    quantized = recipe.quantization.mode != "none"
    if into == "dequantized" and not quantized:
        raise InputError(f"{run.path}: its base was not 4-bit, so there is nothing to dequantize; merge into original")
    if into == "original":
        recipe = recipe.model_copy(update={"quantization": QuantizationPart()})

    def prepare(base: torch.nn.Module) -> None:
        if into == "dequantized":
            dequantize(base, recipe.model.dtype)
        if recipe.adapters.head.kind != "frozen":
            # An adapter merged into weights that are the embeddings' too would alter these.
            untie(base)

    loaded = trained.load(run, recipe, prepare)
    model: Any = loaded.model
    if hasattr(model, "peft_config"):
        model = model.merge_and_unload()
    loaded.model = _plain(model, recipe.model.dtype)
    return loaded


def _plain(model: Any, dtype: str) -> Any:
    """Return the model in one dtype and frozen, as any checkpoint is loaded."""
    import torch

    cast(model, getattr(torch, dtype))
    return model.requires_grad_(False).eval()


def dequantize(model: Any, dtype: str) -> None:
    """Replace every 4-bit layer by a plain one with the weights that it stood for.

    Args:
        model: bare, loaded in 4 bits.
        dtype: of the new layers.
    """
    import torch
    from bitsandbytes.nn import Linear4bit
    from transformers.integrations.bitsandbytes import dequantize_bnb_weight

    for name, module in list(model.named_modules()):
        if isinstance(module, Linear4bit):
            plain = torch.nn.Linear(module.in_features, module.out_features, bias=False, device="meta")
            weight = dequantize_bnb_weight(module.weight).to(getattr(torch, dtype))
            plain.weight = torch.nn.Parameter(weight, requires_grad=False)
            plain.bias = module.bias
            model.set_submodule(name, plain)
    model.hf_quantizer.remove_quantization_config(model)
    model.is_loaded_in_4bit = False
