"""GIT-LLM's model: image features in the placeholders' place, and GIT's mask for whichever decoder follows.

The image block comes first, sees itself whole and no text; text is causal and sees the image (arXiv:2205.14100,
figure 2). The whole `...ForCausalLM` is called, so that each family scales embeddings and caps logits as it does alone.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, GenerationMixin, PreTrainedModel

from medvlm.models.git_llm import masks
from medvlm.models.git_llm.configuration import GitLlmConfig


class GitLlmProjector(nn.Module):
    """GIT's projection of image features [B, N, D] into the language model's width: linear, then layer norm."""

    def __init__(self, config: GitLlmConfig) -> None:
        super().__init__()
        vision, text = config.vision_config, embedding_width(config.text_config)
        self.linear = nn.Linear(vision.hidden_size, text)  # type: ignore[union-attr]
        self.layer_norm = nn.LayerNorm(text, eps=config.projector_eps)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return [B, N, W]; features are taken in the projection's dtype, which may be wider than the tower's."""
        projected: torch.Tensor = self.layer_norm(self.linear(features.to(self.layer_norm.weight.dtype)))
        return projected


def embedding_width(text_config: Any) -> int:
    """Return the width of token embeddings, which OPT-350m has smaller than its hidden states."""
    return int(getattr(text_config, "word_embed_proj_dim", None) or text_config.hidden_size)


class TowerAndText(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """An image tower, a projector and a language model as one; what runs through them, subclasses say in `forward`.

    Args:
        config: of the whole.
        vision_tower: a tower with weights; None makes one from the configuration.
        language_model: a `...ForCausalLM` with weights; None makes one from the configuration.
    """

    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(
        self,
        config: Any,
        vision_tower: PreTrainedModel | None = None,
        language_model: PreTrainedModel | None = None,
    ) -> None:
        super().__init__(config)
        text: Any = config.text_config
        text._attn_implementation = text_attention(text, text._attn_implementation)
        self.vision_tower = vision_tower or AutoModel.from_config(config.vision_config)
        self.projector = self.make_projector(config)
        self.language_model = language_model or AutoModelForCausalLM.from_config(text)
        self._takes_positions = "position_ids" in inspect.signature(type(self.language_model).forward).parameters
        self.post_init()

    @staticmethod
    def make_projector(config: Any) -> nn.Module:
        """Return what lies between tower and language model, newly drawn."""
        raise NotImplementedError

    def get_input_embeddings(self) -> nn.Module:
        """Return the language model's token embeddings."""
        module: nn.Module = self.language_model.get_input_embeddings()
        return module

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the language model's token embeddings."""
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """Return the language model's output layer."""
        module: nn.Module = self.language_model.get_output_embeddings()
        return module

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the language model's output layer."""
        self.language_model.set_output_embeddings(new_embeddings)

    def set_attn_implementation(
        self, attn_implementation: str | dict[str, Any], allow_all_kernels: bool = False
    ) -> None:
        """Set the attention of tower and language model; a family without sdpa stays eager."""
        if isinstance(attn_implementation, str):
            text = text_attention(self.config.text_config, attn_implementation)
            attn_implementation = {"": attn_implementation, "vision_config": attn_implementation, "text_config": text}
        super().set_attn_implementation(attn_implementation, allow_all_kernels)

    @staticmethod
    def create_masks_for_generate(attention_mask: torch.Tensor | None, **kwargs: Any) -> torch.Tensor | None:
        """Return the 2-D mask as it is: what else a token may see, only `forward` knows."""
        return attention_mask


class GitLlmForConditionalGeneration(TowerAndText):
    """A tower, GIT's projection and a language model behind GIT's mask: see `TowerAndText`."""

    config: GitLlmConfig
    projector: GitLlmProjector
    config_class = GitLlmConfig

    @staticmethod
    def make_projector(config: GitLlmConfig) -> GitLlmProjector:
        """Return GIT's projection."""
        return GitLlmProjector(config)

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the image block [B, N, W] of pixel values [B, 3, S, S]."""
        features = self.vision_tower(pixel_values).last_hidden_state
        block: torch.Tensor = self.projector(features)
        return block

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | dict[str, torch.Tensor] | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> Any:
        """Return the language model's output: next-token logits, the cache, and the mean loss where labels are given.

        Args:
            input_ids: [B, T], `image_token_id` where an image feature goes.
            pixel_values: [B, 3, S, S]; needed in the forward pass that holds the placeholders, and only there.
            attention_mask: [B, T] with 0 on padding; or [B, 1, T, T] bool, True where attended, for packed rows (with
                position_ids that restart at each example).
            position_ids: [B, T]; None counts the attended tokens.
            inputs_embeds: [B, T, W] in the place of input_ids; they hold the image already. Without a cache they need
                attention_mask as [B, 1, T, T], for they do not tell where the image is.
            labels: [B, T] unshifted, -100 where there is no loss; all logits are computed then.
            logits_to_keep: the last so many, an index of positions, or a bool mask [B, T], as transformers takes it.

        Raises:
            ValueError: image tokens without features or of another number; inputs_embeds without a mask.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        is_image = None
        first = past_key_values is None or not past_key_values.get_seq_length()
        if input_ids is None:
            if first and not (isinstance(attention_mask, dict) or getattr(attention_mask, "ndim", 0) == 4):
                raise ValueError("inputs_embeds do not tell where the image is; give attention_mask as [B, 1, T, T]")
        else:
            is_image = input_ids == self.config.image_token_id
            if first and pixel_values is None and bool(is_image.any()):
                raise ValueError(f"{int(is_image.sum())} image tokens and no pixel_values")
            inputs_embeds = self._embedded(input_ids, is_image, pixel_values)
        outputs = self.decode(
            inputs_embeds,
            is_image,
            attention_mask,
            position_ids,
            past_key_values=past_key_values,
            use_cache=False if use_cache is None and self.training else use_cache,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )
        if labels is not None:
            vocabulary = self.config.get_text_config().vocab_size
            outputs["loss"] = self.loss_function(outputs.logits, labels, vocab_size=vocabulary)
        return outputs

    def decode(
        self,
        embeds: Any,
        is_image: torch.Tensor | None,
        attention_mask: torch.Tensor | dict[str, torch.Tensor] | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Return the language model's output for embeddings [B, T, W] behind GIT's mask; is_image is [B, T] bool."""
        past = int(past_key_values.get_seq_length()) if past_key_values is not None else 0
        if attention_mask is None:
            attention_mask = embeds.new_ones(len(embeds), past + embeds.shape[1], dtype=torch.long)
        if position_ids is None:
            position_ids = masks.positions(attention_mask, past, embeds)
        mask = masks.git_mask(
            self.language_model.config, embeds, attention_mask, position_ids, past_key_values, is_image
        )
        if self._takes_positions:
            kwargs["position_ids"] = position_ids
        # PEFT names it too.
        kwargs["return_dict"] = True
        return self.language_model(inputs_embeds=embeds, attention_mask=mask, past_key_values=past_key_values, **kwargs)

    def _embedded(
        self, input_ids: torch.Tensor, is_image: torch.Tensor, pixel_values: torch.Tensor | None
    ) -> torch.Tensor:
        """Return embeddings [B, T, W] with image features in the placeholders' place."""
        # The placeholder has no embedding: its id may lie past the vocabulary.
        embeds: torch.Tensor = self.get_input_embeddings()(input_ids.masked_fill(is_image, 0))
        if pixel_values is None:
            return embeds
        features = self.get_image_features(pixel_values).to(embeds.device, embeds.dtype)
        places = int(is_image.sum())
        if places != features.shape[0] * features.shape[1]:
            raise ValueError(f"{places} image tokens for {tuple(features.shape[:2])} image features")
        return embeds.masked_scatter(is_image[..., None], features)


def text_attention(text_config: Any, wanted: str | None) -> str | None:
    """Return the attention a family can have: eager where sdpa is wanted and it has none (MPT, Gemma 2)."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    if wanted == "sdpa" and not MODEL_FOR_CAUSAL_LM_MAPPING[type(text_config)]._supports_sdpa:
        return "eager"
    return wanted
