"""The frozen vision tower by itself: what it makes of pictures, and a model that takes that in the pictures' place."""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING, Any

from medvlm.io import stable_hash

if TYPE_CHECKING:
    import torch

    from medvlm.models.backbones.base import Backbone


def tower_of(model: torch.nn.Module, kind: type[Backbone]) -> torch.nn.Module:
    """Return the vision tower of a model, bare or wrapped by PEFT."""
    bare: Any = model
    if hasattr(bare, "get_base_model"):
        bare = bare.get_base_model()
    (prefix,) = kind.components_of(bare.config)["vision_tower"]
    tower: torch.nn.Module = bare.get_submodule(prefix.removesuffix("."))
    return tower


def skip_tower(model: torch.nn.Module, kind: type[Backbone]) -> None:
    """Make `model` take features [B, N, D] or [B, 1, N, D] for `pixel_values`; pictures [B, 3, S, S] it takes, too.

    Doing so twice changes nothing.
    """
    tower = tower_of(model, kind)
    if "forward" not in tower.__dict__:
        # A partial, not a closure: it is copied along when PEFT or a data-parallel wrapper copies the module.
        tower.forward = functools.partial(_features_or_pictures, tower)


def _features_or_pictures(tower: torch.nn.Module, pixel_values: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    if pixel_values.dim() == 4 and pixel_values.shape[1] == 1:
        pixel_values = pixel_values[:, 0]
    if pixel_values.dim() != 3:
        return type(tower).forward(tower, pixel_values, *args, **kwargs)
    return BaseModelOutputWithPooling(last_hidden_state=pixel_values)


def look(tower: torch.nn.Module, pixels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the tower's last hidden state [B, N, D] in `dtype`, on the CPU, as training in `dtype` would compute it.

    Args:
        tower: on any device; its mode is that of evaluation for the time.
        pixels: [B, 3, S, S] as the image processor gives them.
        dtype: of the run; below float32 training runs under autocast, and so does this.
    """
    import torch

    device = next(tower.parameters()).device
    training = tower.training
    tower.eval()
    try:
        with torch.no_grad(), torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            seen: torch.Tensor = tower(pixels.to(device)).last_hidden_state
    finally:
        tower.train(training)
    return seen.to(dtype).cpu()


def fingerprint(tower: torch.nn.Module) -> str:
    """Return a hash of the tower's dimensions and of every weight as it is now, resampled or trained before."""
    import torch

    digest = hashlib.sha256()
    config: Any = getattr(tower, "config", None)
    if config is not None:
        facts = {key: value for key, value in config.to_dict().items() if not key.startswith("_")}
        digest.update(stable_hash({key: str(value) for key, value in facts.items()}).encode())
    for name, value in tower.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
