"""PaliGemma: image tokens, `<bos>`, prefix, a line end tokenized on its own, then suffix and `<eos>`.

Attention is full over image and prefix and causal over the suffix; the loss is on the suffix only (arXiv:2407.07726,
section 3.2.1). What makes it so is `token_type_ids`: 0 on image, prefix and padding, 1 on the suffix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from medvlm.errors import InputError
from medvlm.models.backbones.base import IGNORED, Backbone, Example
from medvlm.models.backbones.rows import pack_rows, pad_prompts, pad_rows, pixel_values, texts
from medvlm.models.positions import image_tokens, resize_embeddings


class PaliGemmaBackbone(Backbone):
    """Turns examples into PaliGemma's inputs.

    Args:
        processor: the checkpoint's PaliGemmaProcessor.
        image_tokens: how many image tokens stand before the text, (image size / patch size)².
        max_prefix_tokens: the prefix is cut to so many tokens, `<bos>` and the line end apart.
        max_suffix_tokens: the suffix is cut to so many tokens, `<eos>` included and always kept.
    """

    components: ClassVar[Mapping[str, str | tuple[str, ...]]] = {
        "vision_tower": "model.vision_tower.",
        "projector": "model.multi_modal_projector.",
        "language_model": "model.language_model.",
    }

    def __init__(self, processor: Any, *, image_tokens: int, max_prefix_tokens: int, max_suffix_tokens: int) -> None:
        self.tokenizer = processor.tokenizer
        self.image_processor = processor.image_processor
        self.image_tokens = image_tokens
        self.max_prefix_tokens = max_prefix_tokens
        self.max_suffix_tokens = max_suffix_tokens
        self.image_token_id: int = self.tokenizer.convert_tokens_to_ids("<image>")
        tokenizer = self.tokenizer
        self._reserved = {self.image_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
        self._line_end: list[int] = self._tokens("\n")

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> torch.nn.Module:
        """Return a PaliGemmaForConditionalGeneration of these dimensions."""
        from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

        model: torch.nn.Module = PaliGemmaForConditionalGeneration(PaliGemmaConfig.from_dict(dict(config)))
        return model

    @classmethod
    def load(cls, paths: Mapping[str, Path], options: Mapping[str, Any], seed: int) -> tuple[torch.nn.Module, Any]:
        """Return the checkpoint's model and processor.

        Raises:
            InputError: the folder holds another architecture.
        """
        from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

        path = paths["model"]
        config = AutoConfig.from_pretrained(path, local_files_only=True)
        if config.model_type != "paligemma":
            raise InputError(f"model.id: {path} is a {config.model_type} model; expected paligemma")
        options = dict(options)
        if config.text_config.model_type == "gemma2" and options.get("attn_implementation") == "sdpa":
            # Gemma 2 has no sdpa, its tower has.
            options["attn_implementation"] = {"": "eager", "text_config": "eager", "vision_config": "sdpa"}
        model = AutoModelForImageTextToText.from_pretrained(path, local_files_only=True, **options)
        return model, AutoProcessor.from_pretrained(path, local_files_only=True, backend="pil")

    @classmethod
    def tiny(cls, image_size: int | None, family: str | None) -> tuple[torch.nn.Module, Any]:
        """Return the architecture of `medvlm/tiny-base` with random weights, and its processor."""
        from medvlm.models.tiny import random_model

        return random_model(image_size)

    @classmethod
    def image_tokens_of(cls, config: Any) -> int:
        """Return (image size / patch size)²."""
        return image_tokens(config.vision_config.image_size, config.vision_config.patch_size)

    @classmethod
    def resize(cls, model: torch.nn.Module, processor: Any, image_size: int) -> bool:
        """Make a PaliGemma take images of `image_size`; return whether position embeddings had to be resampled."""
        config: Any = model.config
        vision = config.vision_config
        tokens = image_tokens(image_size, vision.patch_size)
        embeddings = next(m for m in model.modules() if type(m).__name__ == "SiglipVisionEmbeddings")
        changed = resize_embeddings(embeddings, image_size)
        vision.image_size = image_size
        vision.num_image_tokens = config.text_config.num_image_tokens = tokens
        if hasattr(config, "num_image_tokens"):
            config.num_image_tokens = tokens
        processor.image_processor.size = {"height": image_size, "width": image_size}
        processor.image_processor.image_seq_length = processor.image_seq_length = tokens
        return changed

    def _tokens(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _prefix(self, text: str) -> list[int]:
        head = [self.image_token_id] * self.image_tokens + [self.tokenizer.bos_token_id]
        return head + self._words(text)[: self.max_prefix_tokens] + self._line_end

    def _suffix(self, text: str) -> list[int]:
        return [*self._words(text)[: self.max_suffix_tokens - 1], self.tokenizer.eos_token_id]

    def _words(self, text: str) -> list[int]:
        # A text that itself says "<image>" must not claim a place in the picture, and "<eos>" in it is no end.
        return [token for token in self._tokens(text) if token not in self._reserved]

    def text_tokens(self, prefix: str, suffix: str) -> tuple[int, int]:
        """Return (prefix tokens with `<bos>` and line end, suffix tokens with `<eos>`), after truncation."""
        return len(self._prefix(prefix)) - self.image_tokens, len(self._suffix(suffix))

    def pixels(self, examples: Sequence[Example]) -> torch.Tensor:
        """Return pixel values [B, 3, S, S] in [-1, 1]."""
        return pixel_values(self.image_processor, examples)

    def collate(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return training inputs, padded on the right.

        Returns:
            input_ids, attention_mask, token_type_ids, labels [B, T] (labels unshifted, `IGNORED` off the suffix),
            logits_to_keep [B, T] bool (True where the next token has a label, so no other logits are computed),
            pixel_values [B, 3, S, S].
        """
        prefixes = [self._prefix(example.prefix) for example in examples]
        suffixes = [self._suffix(example.suffix or "") for example in examples]
        rows = pad_rows(prefixes, suffixes, self.tokenizer.pad_token_id)
        types = (rows["labels"] != IGNORED).long()
        return {**rows, "token_type_ids": types, "pixel_values": self.pixels(examples)}

    def collate_packed(self, examples: Sequence[Example], pack_tokens: int | None) -> dict[str, torch.Tensor]:
        """Return training inputs in few rows, the examples of a row blind to each other: see `Backbone`.

        A mask that is given whole reaches every layer as it is, so there are no `token_type_ids`, and the window of
        PaliGemma 2's sliding layers is not laid over it: an example must be no longer than that (4096 tokens).
        """
        prefixes = [self._prefix(example.prefix) for example in examples]
        packed = pack_rows(
            prefixes,
            [self._suffix(example.suffix or "") for example in examples],
            [len(prefix) for prefix in prefixes],
            pad=self.tokenizer.pad_token_id,
            pack_tokens=pack_tokens,
            # PaliGemma counts positions from one.
            first_position=1,
        )
        return {**packed.inputs, "pixel_values": self.pixels([examples[number] for number in packed.order])}

    def collate_prompts(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return generation inputs, padded on the left: the same keys as `collate`, without labels."""
        prefixes = [self._prefix(example.prefix) for example in examples]
        rows = pad_prompts(prefixes, self.tokenizer.pad_token_id)
        return {**rows, "token_type_ids": torch.zeros_like(rows["input_ids"]), "pixel_values": self.pixels(examples)}

    def decode(self, tokens: torch.Tensor) -> list[str]:
        """Return the texts of generated tokens [B, T], special tokens and outer blanks removed."""
        return texts(self.tokenizer, tokens)
