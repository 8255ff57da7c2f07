"""Flamingo's model: text goes through the language model alone, and looks aside at pictures before some of its layers.

A token looks at the last picture before it and at no other (arXiv:2204.14198, section 2.3). The whole `...ForCausalLM`
is called with the masks that it makes itself, so that with closed gates its logits are those that it has alone, bit for
bit.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init

from medvlm.models.flamingo.configuration import FlamingoConfig
from medvlm.models.flamingo.crossing import crossed, layers_name
from medvlm.models.flamingo.layers import (
    CrossAttention,
    FeedForward,
    FlamingoProjector,
    GatedBlock,
    KeysValues,
    Resampler,
    Sight,
)
from medvlm.models.git_llm import masks
from medvlm.models.git_llm.modeling import TowerAndText, embedding_width

_MEMORY = "flamingo_memory"
"""Attribute of a cache of keys and values: the picture that its last tokens looked at."""


@dataclasses.dataclass(slots=True)
class Memory:
    """The last picture of each row, kept beside the cache of its tokens."""

    latents: torch.Tensor
    """[B, L, D]; zeros where a row has none."""
    had: torch.Tensor
    """[B] bool: True where it has one."""
    kept: dict[int, KeysValues] = dataclasses.field(default_factory=dict)
    """Their keys and values by decoder layer."""


class FlamingoForConditionalGeneration(TowerAndText):
    """An image tower, what is new, and a language model as one: see `TowerAndText`.

    Raises:
        InputError: the language model keeps no list of its layers.
    """

    config: FlamingoConfig
    projector: FlamingoProjector
    config_class = FlamingoConfig
    _no_split_modules = ["GatedBlock", "ResamplerLayer"]  # noqa: RUF012 (transformers reads it from the class)

    def __init__(
        self,
        config: FlamingoConfig,
        vision_tower: PreTrainedModel | None = None,
        language_model: PreTrainedModel | None = None,
    ) -> None:
        super().__init__(config, vision_tower, language_model)
        self._layers_name = layers_name(self.language_model)

    @staticmethod
    def make_projector(config: FlamingoConfig) -> FlamingoProjector:
        """Return resampler, gated blocks and the tokens' rows."""
        return FlamingoProjector(config, embedding_width(config.text_config))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Draw new weights; gates are closed."""
        if isinstance(module, Resampler):
            # Of the size that layer norm gives the features: smaller ones would all see the same at first.
            init.normal_(module.latents, mean=0.0, std=1.0)
        elif isinstance(module, (CrossAttention, FeedForward)):
            for part in module.children():
                if isinstance(part, nn.Linear):
                    # By their inputs, so that what is seen comes through at any width.
                    init.normal_(part.weight, mean=0.0, std=part.in_features**-0.5)
        elif isinstance(module, GatedBlock):
            init.zeros_(module.attention_gate)
            init.zeros_(module.feed_forward_gate)
        else:
            super()._init_weights(module)

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return latents [n, L, D] of pixel values [n, 3, S, S], or of the tower's features [n, N, D]."""
        features = self.vision_tower(pixel_values).last_hidden_state
        latents: torch.Tensor = self.projector.resampler(features)
        return latents

    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return embeddings [B, T, W]: the language model's, and ours of the tokens that it has not."""
        is_chunk = input_ids == self.config.chunk_token_id
        ours = is_chunk | (input_ids == self.config.image_token_id)
        embeds: torch.Tensor = self.get_input_embeddings()(input_ids.masked_fill(ours, 0))
        # For every token, so that the rows take part in each pass (data-parallel training waits for all parameters).
        rows = self.projector.tokens(is_chunk.long()).to(embeds.dtype)
        return torch.where(ours[..., None], rows, embeds)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_counts: torch.Tensor | None = None,
        attention_mask: torch.Tensor | dict[str, torch.Tensor] | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        image_latents: torch.Tensor | None = None,
        image_places: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> Any:
        """Return the language model's output: next-token logits, the cache, and the mean loss where labels are given.

        Args:
            input_ids: [B, T], `image_token_id` where a picture is shown.
            pixel_values: [B, M, 3, S, S], each row's pictures in order and zeros after them (M is 1 where no row has
                any); or the tower's features [B, M, N, D]. Needed in the pass that holds their tokens, and only there.
            image_counts: [B], how many of the M are a row's; None takes the image tokens at their word.
            attention_mask: [B, T] with 0 on padding; or [B, 1, T, T] bool, True where attended, for packed rows (with
                position_ids that restart at each example, whose pictures the next does not see).
            position_ids: [B, T]; None counts the attended tokens.
            inputs_embeds: [B, T, W] in the place of input_ids, with the two arguments that follow.
            image_latents: [B, M, L, D], of `get_image_features`.
            image_places: [B, T], number of the picture that each token looks at, -1 for none.
            labels: [B, T] unshifted, -100 where there is no loss; all logits are computed then.
            logits_to_keep: the last so many, an index of positions, or a bool mask [B, T], as transformers takes it.

        Raises:
            ValueError: image tokens without pictures or of another number; neither or both of ids and embeddings.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        memory: Memory | None = getattr(past_key_values, _MEMORY, None)
        after = memory
        kept: dict[int, KeysValues] = {}
        if input_ids is not None:
            is_image = input_ids == self.config.image_token_id
            restarts = _restarts(attention_mask, position_ids)
            image_places = _places(is_image, restarts, memory)
            image_latents, after, kept = self._looked(is_image, pixel_values, image_counts, memory)
            inputs_embeds = self.embed(input_ids)
        outputs = self._decode(
            inputs_embeds,
            _sight(image_latents, image_places),
            kept,
            attention_mask,
            position_ids,
            past_key_values,
            use_cache=False if use_cache is None and self.training else use_cache,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )
        if after is not None and outputs.get("past_key_values") is not None:
            setattr(outputs.past_key_values, _MEMORY, after)
        if labels is not None:
            vocabulary = self.config.get_text_config().vocab_size
            outputs["loss"] = self.loss_function(outputs.logits, labels, vocab_size=vocabulary)
        return outputs

    def _looked(
        self,
        is_image: torch.Tensor,
        pixel_values: torch.Tensor | None,
        given: torch.Tensor | None,
        memory: Memory | None,
    ) -> tuple[torch.Tensor | None, Memory | None, dict[int, KeysValues]]:
        """Return the latents [B, M, L, D] that a pass looks at, the memory's first; the memory after it; keys known."""
        counts = is_image.sum(dim=1)
        if pixel_values is None:
            if bool(counts.any()):
                raise ValueError(f"{int(counts.sum())} image tokens and no pixel_values")
            return (None, None, {}) if memory is None else (memory.latents[:, None], memory, memory.kept)
        most = max(1, int(counts.max()))
        if pixel_values.shape[:2] != (len(counts), most) or not (given is None or torch.equal(counts, given)):
            shown = [pixel_values.shape[1]] * len(pixel_values) if given is None else given.tolist()
            raise ValueError(f"rows of {counts.tolist()} image tokens and of {shown} pictures")
        latents = self._latents(counts, pixel_values)
        last = (counts - 1).clamp(min=0)[:, None, None, None].expand(-1, 1, *latents.shape[2:])
        seen, had = latents.gather(1, last)[:, 0], counts > 0
        if memory is None:
            return latents, Memory(seen, had), {}
        seen = torch.where(had[:, None, None], seen, memory.latents.to(seen))
        return torch.cat([memory.latents[:, None].to(latents), latents], dim=1), Memory(seen, had | memory.had), {}

    def _latents(self, counts: torch.Tensor, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return latents [B, M, L, D] of pictures [B, M, ...], the first `counts` of each row; zeros after them."""
        shown = torch.arange(pixel_values.shape[1], device=counts.device) < counts[:, None]
        # Some picture passes in any case: a pass that left parameters out would hang data-parallel training.
        shown[0, 0] |= ~shown.any()
        found = self.get_image_features(pixel_values[shown])
        empty = found.new_zeros(*shown.shape, *found.shape[1:])
        return empty.masked_scatter(shown[..., None, None], found)

    def _decode(
        self,
        embeds: Any,
        sight: Sight | None,
        kept: dict[int, KeysValues],
        attention_mask: torch.Tensor | dict[str, torch.Tensor] | None,
        position_ids: torch.Tensor | None,
        past_key_values: Any,
        **kwargs: Any,
    ) -> Any:
        """Return the language model's output for embeddings [B, T, W], gated blocks before its layers."""
        past = int(past_key_values.get_seq_length()) if past_key_values is not None else 0
        if isinstance(attention_mask, torch.Tensor):
            if position_ids is None:
                position_ids = masks.positions(attention_mask, past, embeds)
            if attention_mask.ndim == 4:
                text = self.language_model.config
                attention_mask = masks.git_mask(text, embeds, attention_mask, position_ids, past_key_values, None)
        if self._takes_positions and position_ids is not None:
            kwargs["position_ids"] = position_ids
        # PEFT names it too.
        kwargs["return_dict"] = True
        layers = self.language_model.get_submodule(self._layers_name)
        blocks = dict(zip(self.config.crossed, self.projector.blocks, strict=True))
        with crossed(layers, blocks, sight, kept):
            return self.language_model(
                inputs_embeds=embeds, attention_mask=attention_mask, past_key_values=past_key_values, **kwargs
            )


def _restarts(attention_mask: Any, position_ids: torch.Tensor | None) -> torch.Tensor | None:
    """Return [B, T] bool: True at the first token of each example of packed rows; None where rows are not packed."""
    if position_ids is None or getattr(attention_mask, "ndim", 0) != 4:
        return None
    return torch.cat([torch.ones_like(position_ids[:, :1], dtype=torch.bool), position_ids.diff(dim=1) != 1], dim=1)


def _places(is_image: torch.Tensor, restarts: torch.Tensor | None, memory: Memory | None) -> torch.Tensor:
    """Return [B, T]: number of the last picture up to each token among those of this pass, -1 for none.

    With a memory, its picture is number 0.
    """
    counts = is_image.long().cumsum(dim=1)
    if memory is not None:
        return torch.where((counts == 0) & ~memory.had[:, None], -1, counts)
    if restarts is None:
        return counts - 1
    before = torch.where(restarts, counts - is_image.long(), 0).cummax(dim=1).values
    return torch.where(counts > before, counts - 1, -1)


def _sight(latents: torch.Tensor | None, places: torch.Tensor | None) -> Sight | None:
    """Return what tokens look at, of latents [B, M, L, D] and places [B, T]."""
    if latents is None or places is None:
        return None
    owners = torch.arange(latents.shape[1], device=places.device).repeat_interleave(latents.shape[2])
    blind = (places < 0)[..., None]
    # A token with nothing to look at may look at all, for a row of no scores has no softmax; it is taken out after.
    mask = (places[..., None] == owners) | blind
    return Sight(latents.flatten(1, 2), mask[:, None], blind)
