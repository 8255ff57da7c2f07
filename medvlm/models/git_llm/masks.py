"""GIT's attention mask as each family of decoders takes it."""

from __future__ import annotations

from typing import Any

import torch
from transformers.masking_utils import create_masks_for_generate


def positions(attention_mask: Any, past: int, embeds: torch.Tensor) -> torch.Tensor:
    """Return position ids [B, T] that count attended tokens, so that padding on the left moves none."""
    if isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 2:
        return (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)[:, past:]
    count = torch.arange(past, past + embeds.shape[1], device=embeds.device)
    return count.expand(len(embeds), -1)


def git_mask(
    config: Any,
    embeds: torch.Tensor,
    attention_mask: torch.Tensor | dict[str, torch.Tensor],
    position_ids: torch.Tensor,
    past_key_values: Any,
    is_image: torch.Tensor | None,
) -> Any:
    """Return the mask to hand to a decoder: a tensor, or one for each kind of layer where the family mixes kinds.

    Args:
        config: the language model's; its attention decides between bool (sdpa) and additive floats (eager).
        embeds: [B, T, W], for shape, dtype and device.
        attention_mask: [B, T] with 0 on padding, or [B, 1, T, T] bool.
        position_ids: [B, T].
        past_key_values: the cache; with tokens in it, the image is among them.
        is_image: [B, T] bool.
    """
    if isinstance(attention_mask, dict):
        return attention_mask
    if attention_mask.ndim == 4:
        return _packed(config, embeds, attention_mask, position_ids, is_image)
    blocks = None
    if is_image is not None and (past_key_values is None or not past_key_values.get_seq_length()):
        blocks = torch.where(is_image, 0, -1)
    return create_masks_for_generate(
        config=config,
        inputs_embeds=embeds,
        attention_mask=attention_mask,
        past_key_values=past_key_values,
        position_ids=position_ids,
        block_sequence_ids=blocks,
    )


def _packed(
    config: Any,
    embeds: torch.Tensor,
    mask: torch.Tensor,
    position_ids: torch.Tensor,
    is_image: torch.Tensor | None,
) -> Any:
    """Return a ready bool mask [B, 1, T, T] for each kind of layer; sliding ones see their window and the image block.

    Raises:
        ValueError: the family has layers of another kind, which a ready mask cannot serve.
    """
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ())
    window = getattr(text, "sliding_window", None)
    whole = _as_taken(mask, text, embeds.dtype)
    if not kinds:
        return whole if window is None else _as_taken(_near(mask, position_ids, is_image, window), text, embeds.dtype)
    if kinds - {"full_attention", "sliding_attention"}:
        raise ValueError(f"{text.model_type} has layers of {sorted(kinds)}, which take no packed rows")
    if "sliding_attention" not in kinds:
        return {"full_attention": whole}
    near = _as_taken(_near(mask, position_ids, is_image, int(window or 0)), text, embeds.dtype)
    return {kind: whole if kind == "full_attention" else near for kind in kinds}


def _near(mask: torch.Tensor, position_ids: torch.Tensor, is_image: torch.Tensor | None, window: int) -> torch.Tensor:
    """Return the mask without keys that lie `window` or more before their query; an image block stays whole."""
    near = position_ids[:, None, :, None] - position_ids[:, None, None, :] < window
    if is_image is not None:
        near = near | (is_image[:, None, :, None] & is_image[:, None, None, :])
    return mask & near


def _as_taken(mask: torch.Tensor, text: Any, dtype: torch.dtype) -> torch.Tensor:
    """Return bool for sdpa; additive floats for eager attention, which would add True as 1 and so leak.

    MPT reads True as hidden: handed bools, each step with a cache would see nothing, which softmax evens out silently.
    """
    if mask.dtype != torch.bool or text._attn_implementation == "sdpa":
        return mask
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)
