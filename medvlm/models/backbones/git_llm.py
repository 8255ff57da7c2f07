"""GIT-LLM: image tokens, the language model's start token if it has one, the prompt, then the answer and its end token.

The image block sees itself whole and no text; text is causal and sees the image; the loss is on the answer only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from medvlm.models.backbones.base import Example
from medvlm.models.backbones.rows import pack_rows, pad_prompts, pad_rows, pixel_values
from medvlm.models.backbones.two_parts import TwoParts

# What is imported from here makes transformers' Auto classes know it.
from medvlm.models.git_llm import GitLlmConfig, GitLlmForConditionalGeneration, GitLlmProcessor, assemble


class GitLlmBackbone(TwoParts):
    """Turns examples into GIT-LLM's inputs.

    Args:
        processor: a GitLlmProcessor.
        image_tokens: how many image tokens stand before the text: patches, and CLIP's class token.
        max_prefix_tokens: the last so many tokens of the prompt are kept, the start token apart.
        max_suffix_tokens: the answer is cut to so many tokens, its end token included and always kept.
    """

    model_class = GitLlmForConditionalGeneration
    config_class = GitLlmConfig
    processor_class = GitLlmProcessor
    assembly: ClassVar = assemble

    def __init__(self, processor: Any, *, image_tokens: int, max_prefix_tokens: int, max_suffix_tokens: int) -> None:
        processor.image_seq_length = image_tokens
        super().__init__(
            processor,
            image_tokens=image_tokens,
            max_prefix_tokens=max_prefix_tokens,
            max_suffix_tokens=max_suffix_tokens,
        )

    @classmethod
    def prove(cls, model: Any) -> None:
        """Raise InputError where the language model's family does not obey GIT's mask."""
        assemble.check_mask(model)

    @classmethod
    def together(cls, vision: Any, text: Any) -> GitLlmConfig:
        """Return the configuration of the whole for those of its parts."""
        # The placeholder's id is the tokenizer's to say; it has no weights, so a plan does not depend on it.
        return GitLlmConfig(vision_config=vision, text_config=text, image_token_id=text.vocab_size)

    @classmethod
    def tiny_of(cls, vision: Any, text: Any, processor: Any) -> torch.nn.Module:
        """Return the untrained GIT-LLM of two small configurations."""
        config = GitLlmConfig(vision_config=vision, text_config=text, image_token_id=processor.image_token_id)
        processor.image_seq_length = config.image_tokens
        model: torch.nn.Module = GitLlmForConditionalGeneration(config)
        return model

    @classmethod
    def image_tokens_of(cls, config: Any) -> int:
        """Return (image size / patch size)², and one for CLIP's class token."""
        return int(config.image_tokens)

    @classmethod
    def resize(cls, model: torch.nn.Module, processor: Any, image_size: int) -> bool:
        """Make model and processor take images of `image_size`; return whether position embeddings were resampled."""
        changed = super().resize(model, processor, image_size)
        processor.image_seq_length = cls.image_tokens_of(model.config)
        return changed

    def _prefix(self, text: str) -> list[int]:
        tokens: list[int] = self.processor.prompt_tokens(text, self.max_prefix_tokens)
        return tokens

    def text_tokens(self, prefix: str, suffix: str) -> tuple[int, int]:
        """Return (prompt tokens with the start token, answer tokens with the end token), after truncation."""
        return len(self._prefix(prefix)) - self.image_tokens, len(self._suffix(suffix))

    def pixels(self, examples: Sequence[Example]) -> torch.Tensor:
        """Return pixel values [B, 3, S, S], normalized as the tower was trained."""
        return pixel_values(self.image_processor, examples)

    def collate(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return training inputs, padded on the right.

        Returns:
            input_ids, attention_mask, labels [B, T], logits_to_keep [B, T] bool (see `rows.pad_rows`), pixel_values.
        """
        prefixes = [self._prefix(example.prefix) for example in examples]
        suffixes = [self._suffix(example.suffix) for example in examples]
        rows = pad_rows(prefixes, suffixes, self.tokenizer.pad_token_id)
        return {**rows, "pixel_values": self.pixels(examples)}

    def collate_packed(self, examples: Sequence[Example], pack_tokens: int | None) -> dict[str, torch.Tensor]:
        """Return training inputs in few rows, the examples of a row blind to each other: see `Backbone`."""
        packed = pack_rows(
            [self._prefix(example.prefix) for example in examples],
            [self._suffix(example.suffix) for example in examples],
            [self.image_tokens] * len(examples),
            pad=self.tokenizer.pad_token_id,
            pack_tokens=pack_tokens,
        )
        return {**packed.inputs, "pixel_values": self.pixels([examples[number] for number in packed.order])}

    def collate_prompts(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return generation inputs, padded on the left: input_ids, attention_mask [B, T], pixel_values."""
        rows = pad_prompts([self._prefix(example.prefix) for example in examples], self.tokenizer.pad_token_id)
        return {**rows, "pixel_values": self.pixels(examples)}
