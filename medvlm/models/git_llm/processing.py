"""GIT-LLM's processor: an image processor and any language model's tokenizer, and how a text joins the image tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AddedToken, BatchFeature, ProcessorMixin

from medvlm.errors import InputError

IMAGE_TOKEN = "<image>"


class GitLlmProcessor(ProcessorMixin):  # type: ignore[misc]
    """Image tokens, the tokenizer's start token if it has one, the prompt; then the answer and the end token.

    Prompt and answer are tokenized apart, so that training and generation see the same tokens at their boundary.

    Args:
        image_processor: of the image tower.
        tokenizer: of the language model. It gets an `<image>` token if it has none, and its end token as padding.
        chat_template: as in every processor.
        image_seq_length: how many tokens a picture takes.

    Raises:
        InputError: the tokenizer has no end token, so a model could not learn to stop.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        image_seq_length: int = 197,
    ) -> None:
        from medvlm.models.backbones.rows import answer_gap

        if tokenizer.eos_token_id is None:
            raise InputError(f"{tokenizer.name_or_path}: the tokenizer has no end token; set eos_token in its files")
        if IMAGE_TOKEN not in tokenizer.get_vocab():
            tokenizer.add_tokens([AddedToken(IMAGE_TOKEN, normalized=False, special=True)], special_tokens=True)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        self.image_seq_length = image_seq_length
        self.image_token = IMAGE_TOKEN
        self.image_token_id: int = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        self._embeddings: int | None = None
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self._gap = answer_gap(self._tokens)

    def _tokens(self, text: str) -> list[int]:
        """Return a text's tokens, but for those that would be more than text, and those without an embedding.

        A text that itself says "<image>" must not claim a place in the picture, and "</s>" in it is no end.
        """
        made = self.tokenizer
        reserved = {self.image_token_id, made.bos_token_id, made.eos_token_id, made.pad_token_id}
        ids: list[int] = made(text, add_special_tokens=False)["input_ids"]
        rows = self._embeddings
        return [token for token in ids if token not in reserved and (rows is None or token < rows)]

    def fit(self, embeddings: int) -> None:
        """Keep within a language model's embeddings: its padding, where that lies past them, becomes the end token.

        Args:
            embeddings: how many tokens the language model can embed.

        Raises:
            InputError: the start or end token lies past them.
        """
        made = self.tokenizer
        for name, number in (("bos_token", made.bos_token_id), ("eos_token", made.eos_token_id)):
            if number is not None and number >= embeddings:
                raise InputError(
                    f"{made.name_or_path}: the tokenizer's {name} has id {number}, but the language model embeds only "
                    f"{embeddings}; set another {name} in its files"
                )
        self._embeddings = embeddings
        if made.pad_token_id >= embeddings:
            made.pad_token = made.eos_token

    def prompt_tokens(self, text: str, most: int | None = None) -> list[int]:
        """Return image tokens, start token and the last `most` tokens of a prompt: its end leads into the answer."""
        start = [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]
        tokens = self._tokens(text)
        return [self.image_token_id] * self.image_seq_length + start + tokens[-(most or len(tokens) or 1) :]

    def answer_tokens(self, text: str, most: int | None = None) -> list[int]:
        """Return the first tokens of an answer and the end token, `most` in all."""
        tokens = self._tokens(self._gap + text) if text else []
        return [*(tokens if most is None else tokens[: most - 1]), self.tokenizer.eos_token_id]

    def __call__(self, images: Any = None, text: str | Sequence[str] | None = None, **kwargs: Any) -> BatchFeature:
        """Return inputs to generate from, padded on the left: input_ids, attention_mask [B, T], pixel_values.

        Args:
            images: one picture a text.
            text: the prompts.
            kwargs: of the image processor.
        """
        from medvlm.models.backbones.rows import pad_prompts

        texts = [text] if isinstance(text, str) else list(text or [])
        kwargs.pop("return_tensors", None)
        data: dict[str, torch.Tensor] = {}
        if texts:
            data.update(pad_prompts([self.prompt_tokens(one) for one in texts], self.tokenizer.pad_token_id))
        if images is not None:
            data["pixel_values"] = self.image_processor(images, return_tensors="pt", **kwargs)["pixel_values"]
        return BatchFeature(data)

    @property
    def model_input_names(self) -> list[str]:
        """Return the names of the model's inputs."""
        return ["input_ids", "attention_mask", "pixel_values"]
