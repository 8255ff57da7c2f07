"""What a backbone is: everything that differs between model families, and nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image as PILImage

IGNORED = -100
"""Label of a position that has no loss."""


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """One picture with its prefix (the prompt) and suffix (the target; None when generating)."""

    image: PILImage.Image | None
    """None where `pixels` is given."""
    prefix: str
    suffix: str | None = None
    pixels: torch.Tensor | None = None
    """What a cache holds of the picture: pixel values [3, S, S] as the model takes them, the same in 8 bits (before
    scaling and normalizing), or the vision tower's features [N, D], which `models.features` hands past the tower."""


class Backbone(Protocol):
    """A model family: which components it has, and how examples become its inputs."""

    components: Mapping[str, str]
    """vision_tower, projector, language_model -> prefix of their modules' names in the bare transformers model. The
    fourth, head, is the module that `get_output_embeddings` returns."""

    quantizable: str
    """The one component that may be 4-bit."""

    image_processor: Any
    """The checkpoint's image processor."""

    def __init__(self, processor: Any, *, image_tokens: int, max_prefix_tokens: int, max_suffix_tokens: int) -> None:
        """Take the checkpoint's processor and the token budgets of the recipe."""
        ...

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> torch.nn.Module:
        """Return the model of these dimensions with no meaningful weights (made on the meta device for a census)."""
        ...

    @classmethod
    def load(cls, paths: Mapping[str, Path], options: Mapping[str, Any], seed: int) -> tuple[torch.nn.Module, Any]:
        """Return model and processor.

        Args:
            paths: role -> folder or file, the roles as in `ModelPart.parts`.
            options: keyword arguments for `from_pretrained`: dtype, attn_implementation, and with quantization
                quantization_config and device_map.
            seed: of weights that no checkpoint has.
        """
        ...

    @classmethod
    def compose(cls, configs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Return the configuration of the whole model from those of its parts, role by role."""
        ...

    @classmethod
    def image_tokens_of(cls, config: Any) -> int:
        """Return how many tokens stand for a picture in a model of this configuration."""
        ...

    @classmethod
    def resize(cls, model: torch.nn.Module, processor: Any, image_size: int) -> bool:
        """Make model and processor take images of this side; return whether position embeddings were resampled."""
        ...

    def collate(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return padded model inputs for training: suffixes present, padding on the right.

        Returns:
            at least input_ids, attention_mask, labels [B, T], logits_to_keep [B, T] bool, pixel_values [B, ...].
        """
        ...

    def collate_packed(self, examples: Sequence[Example], pack_tokens: int | None) -> dict[str, torch.Tensor]:
        """Return the same examples in as few rows of at most `pack_tokens` tokens as fit, blind to each other.

        Returns:
            the keys of `collate`; attention_mask is [R, 1, T, T] bool (True where attended), position_ids [R, T]
            restart with each example, `example_ids` [R, T] hold the number of each label's example in `examples` (-1
            elsewhere; for the loss, not the model), and pixel_values are in the order of the rows.
        """
        ...

    def collate_prompts(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return padded model inputs for generation: no suffixes, padding on the left."""
        ...

    def text_tokens(self, prefix: str, suffix: str) -> tuple[int, int]:
        """Return how many tokens prefix and suffix take, after truncation, image tokens apart."""
        ...

    def decode(self, tokens: torch.Tensor) -> list[str]:
        """Return the texts of generated tokens [B, T], special tokens removed."""
        ...
