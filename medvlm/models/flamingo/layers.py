"""What Flamingo puts between its two models: the perceiver resampler and the gated cross-attention blocks.

Arithmetic of arXiv:2204.14198: figure 4 (gated blocks), figure 5 (resampler), table 5 (squared ReLU). Layer norm before
each part, no biases. Everything is computed in the dtype of its own weights, which may be wider than the language
model's.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

KeysValues = tuple[torch.Tensor, torch.Tensor]


class CrossAttention(nn.Module):
    """Attention of `width` over vectors of `seen`.

    Args:
        config: for heads, their dimension, and `_attn_implementation` (eager, or torch's own function).
        width: of what attends.
        seen: of what is attended to.
    """

    def __init__(self, config: Any, width: int, seen: int) -> None:
        super().__init__()
        self.config, self.heads = config, config.heads
        inner = config.heads * config.head_dim
        self.q_proj = nn.Linear(width, inner, bias=False)
        self.k_proj = nn.Linear(seen, inner, bias=False)
        self.v_proj = nn.Linear(seen, inner, bias=False)
        self.o_proj = nn.Linear(inner, width, bias=False)

    def keys_values(self, seen: torch.Tensor) -> KeysValues:
        """Return keys and values [B, heads, K, head_dim] of [B, K, D]."""
        return self._split(self.k_proj(seen)), self._split(self.v_proj(seen))

    def forward(self, values: torch.Tensor, seen: KeysValues, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return [B, T, W] of values [B, T, W]; mask [B, 1, T, K] is True where attended, somewhere in each row."""
        query = self._split(self.q_proj(values))
        key, value = (one.to(query.dtype) for one in seen)
        if self.config._attn_implementation == "eager":
            found = _eager(query, key, value, mask)
        else:
            found = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        made: torch.Tensor = self.o_proj(found.transpose(1, 2).flatten(2))
        return made

    def _split(self, values: torch.Tensor) -> torch.Tensor:
        return values.reshape(*values.shape[:2], self.heads, -1).transpose(1, 2)


def _eager(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights: torch.Tensor = scores.float().softmax(dim=-1).to(value.dtype)
    return weights @ value


class FeedForward(nn.Module):
    """Layer norm, a wider layer with squared ReLU, and back."""

    def __init__(self, config: Any, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.up_proj = nn.Linear(width, config.feed_forward * width, bias=False)
        self.down_proj = nn.Linear(config.feed_forward * width, width, bias=False)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return [..., W]."""
        made: torch.Tensor = self.down_proj(self.up_proj(self.norm(values)).relu().square())
        return made


class ResamplerLayer(GradientCheckpointingLayer):  # type: ignore[misc]
    """Latents attend to a picture's features and to themselves."""

    def __init__(self, config: Any, width: int) -> None:
        super().__init__()
        self.norm_features = nn.LayerNorm(width, eps=config.norm_eps)
        self.norm_latents = nn.LayerNorm(width, eps=config.norm_eps)
        self.attention = CrossAttention(config, width, width)
        self.feed_forward = FeedForward(config, width)

    def forward(self, latents: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Return [n, L, D] of latents [n, L, D] and features [n, N, D]."""
        own = self.norm_latents(latents)
        seen = torch.cat([self.norm_features(features), own], dim=1)
        latents = latents + self.attention(own, self.attention.keys_values(seen))
        made: torch.Tensor = latents + self.feed_forward(latents)
        return made


class Resampler(nn.Module):
    """Makes the same number of vectors of any number of features."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        width = config.vision_config.hidden_size
        self.latents = nn.Parameter(torch.zeros(config.latents, width))
        self.layers = nn.ModuleList(ResamplerLayer(config, width) for _ in range(config.resampler_layers))
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return latents [n, L, D] of features [n, N, D], one picture each."""
        features = features.to(self.latents.dtype)
        latents = self.latents.expand(len(features), -1, -1)
        for layer in self.layers:
            latents = layer(latents, features)
        made: torch.Tensor = self.norm(latents)
        return made


@dataclasses.dataclass(slots=True)
class Sight:
    """What each token of a forward pass may look at."""

    latents: torch.Tensor
    """[B, M * L, D]: those of every picture of the row, one after another."""
    mask: torch.Tensor
    """[B, 1, T, M * L] bool: True on the latents of the last picture before the token; everywhere if there is none."""
    blind: torch.Tensor
    """[B, T, 1] bool: True where there is none, so that what the token attends to counts for nothing."""


class GatedBlock(GradientCheckpointingLayer):  # type: ignore[misc]
    """Cross-attention and a feed-forward layer, each behind a tanh gate that starts closed.

    With both gates at 0 the hidden states pass as they are, bit for bit.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        width = config.text_config.hidden_size
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.attention = CrossAttention(config, width, config.vision_config.hidden_size)
        self.feed_forward = FeedForward(config, width)
        # One-dimensional: sharded training cannot cut a scalar.
        self.attention_gate = nn.Parameter(torch.zeros(1))
        self.feed_forward_gate = nn.Parameter(torch.zeros(1))

    def forward(
        self,
        hidden: torch.Tensor,
        latents: torch.Tensor | None,
        mask: torch.Tensor | None,
        blind: torch.Tensor | None,
        kept: KeysValues | None = None,
    ) -> tuple[torch.Tensor, KeysValues | None]:
        """Return hidden states [B, T, W] and the keys and values they attended to.

        Args:
            hidden: [B, T, W].
            latents: as in `Sight`, or None where no row has a picture.
            mask: likewise.
            blind: likewise.
            kept: keys and values of these latents, if known.
        """
        dtype = self.norm.weight.dtype
        if latents is not None:
            kept = kept or self.attention.keys_values(latents.to(dtype))
            attended = self.attention(self.norm(hidden.to(dtype)), kept, mask).masked_fill(blind, 0.0)
            hidden = hidden + (self.attention_gate.tanh() * attended).to(hidden.dtype)
        dense = self.feed_forward(hidden.to(dtype))
        return hidden + (self.feed_forward_gate.tanh() * dense).to(hidden.dtype), kept


class FlamingoProjector(nn.Module):
    """Everything new: resampler, gated blocks, and the rows of the two tokens that the language model has not.

    A container, not called itself: its parts are used at different places of the forward pass.
    """

    def __init__(self, config: Any, width: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(2, width)
        """Rows of <image> and <|endofchunk|>."""
        self.resampler = Resampler(config)
        self.blocks = nn.ModuleList(GatedBlock(config) for _ in config.crossed)
