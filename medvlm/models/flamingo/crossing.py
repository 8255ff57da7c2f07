"""Gated blocks before the layers of a language model that knows nothing of them, for the time of one forward pass.

The language model keeps its own modules and names: what is saved, adapted, quantized or compiled of it is its alone.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from medvlm.errors import InputError
from medvlm.models.flamingo.layers import KeysValues, Sight

_TURN = threading.RLock()
"""Layers are exchanged in place, so two threads must not run a Flamingo at one time."""


class Crossing(nn.Module):
    """A decoder layer with a gated block before it.

    Args:
        layer: of the language model.
        block: a GatedBlock that its hidden states pass first.
        sight: what its tokens look at; None where no row has a picture.
        kept: keys and values of the sight by number of the layer; filled here.
        number: of the layer.
    """

    def __init__(
        self, layer: nn.Module, block: nn.Module, sight: Sight | None, kept: dict[int, KeysValues], number: int
    ) -> None:
        super().__init__()
        self.layer, self.block = layer, block
        self.sight, self.kept, self.number = sight, kept, number
        self.thread = threading.get_ident()

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return what the layer makes of what the block made."""
        if threading.get_ident() != self.thread:
            # Somebody else uses the language model by itself meanwhile.
            return self.layer(hidden_states, *args, **kwargs)
        sight = self.sight
        seen = (None, None, None) if sight is None else (sight.latents, sight.mask, sight.blind)
        hidden_states, made = self.block(hidden_states, *seen, self.kept.get(self.number))
        if made is not None and not torch.is_grad_enabled():
            self.kept[self.number] = made
        return self.layer(hidden_states, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            # Some families ask a layer for its kind of attention.
            return getattr(super().__getattr__("layer"), name)


@contextlib.contextmanager
def crossed(
    layers: nn.ModuleList, blocks: Mapping[int, nn.Module], sight: Sight | None, kept: dict[int, KeysValues]
) -> Iterator[None]:
    """Put gated blocks before decoder layers for the time of the block.

    Args:
        layers: the language model's list of them.
        blocks: by number of the layer.
        sight: what the tokens look at; None where no row has a picture.
        kept: keys and values of the sight by number of the layer, filled where none is known.
    """
    with _TURN:
        plain = {number: layers[number] for number in blocks}
        try:
            for number, block in blocks.items():
                layers[number] = Crossing(plain[number], block, sight, kept, number)
            yield
        finally:
            for number, layer in plain.items():
                layers[number] = layer


def layers_name(language_model: Any) -> str:
    """Return the name of the list of decoder layers within a language model.

    Raises:
        InputError: it keeps none, or several.
    """
    count = language_model.config.num_hidden_layers
    found = [
        name
        for name, module in language_model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == count
        and all(isinstance(layer, GradientCheckpointingLayer) for layer in module)
    ]
    if len(found) != 1:
        raise InputError(
            f"model.language_model: {language_model.config.model_type} keeps no one list of its {count} decoder "
            "layers, so nothing can stand between them; choose another, as OPT or Llama"
        )
    return str(found[0])
