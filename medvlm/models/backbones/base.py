"""What a backbone is: everything that differs between model families, and nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from PIL import Image as PILImage


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """One picture with its prefix (the prompt) and suffix (the target; None when generating)."""

    image: PILImage.Image
    prefix: str
    suffix: str | None = None


class Backbone(Protocol):
    """A model family: which components it has, and how examples become its inputs."""

    components: Mapping[str, str]
    """Component -> prefix of its modules' names in the bare transformers model."""

    quantizable: str
    """The one component that may be 4-bit."""

    def __init__(self, processor: Any, *, image_tokens: int, max_prefix_tokens: int, max_suffix_tokens: int) -> None:
        """Take the checkpoint's processor and the token budgets of the recipe."""
        ...

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> torch.nn.Module:
        """Return the model of these dimensions with no meaningful weights (made on the meta device for a census)."""
        ...

    def collate(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return padded model inputs for training: suffixes present, padding on the right."""
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
