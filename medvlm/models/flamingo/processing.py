"""Flamingo's processor: an image processor, any language model's tokenizer, and how pictures and texts take turns.

    <start> <image>prompt\\nanswer<|endofchunk|> ... <image>prompt\\n answer<end>

One `<image>` a picture; what comes before the last `<image>` are answered examples. Prompt, line end and answer are
tokenized apart, so that training and generation see the same tokens at their boundaries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AddedToken, BatchFeature

from medvlm.models.git_llm.processing import GitLlmProcessor

CHUNK_TOKEN = "<|endofchunk|>"


class FlamingoProcessor(GitLlmProcessor):
    """The tokens of Flamingo's rows.

    Args:
        image_processor: of the image tower.
        tokenizer: of the language model. It gets `<image>` and `<|endofchunk|>` if it has none, and its end token as
            padding; the language model itself gets no row for them.
        chat_template: as in every processor.

    Raises:
        InputError: the tokenizer has no end token, so a model could not learn to stop.
    """

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None) -> None:
        if CHUNK_TOKEN not in tokenizer.get_vocab():
            tokenizer.add_tokens([AddedToken(CHUNK_TOKEN, normalized=False, special=True)], special_tokens=True)
        self.chunk_token_id: int = tokenizer.convert_tokens_to_ids(CHUNK_TOKEN)
        super().__init__(image_processor, tokenizer, chat_template, image_seq_length=1)
        self._line_end = self._tokens("\n")

    def _tokens(self, text: str) -> list[int]:
        """Return a text's tokens, but for those that would be more than text."""
        return [token for token in super()._tokens(text) if token != self.chunk_token_id]

    @property
    def start_tokens(self) -> list[int]:
        """Return the start token, if the tokenizer has one."""
        return [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]

    def asked(self, text: str, pictures: int = 1, most: int | None = None) -> list[int]:
        """Return image tokens, the last `most` tokens of a prompt (its end leads into the answer), and a line end."""
        tokens = self._tokens(text)
        return [self.image_token_id] * pictures + tokens[-(most or len(tokens) or 1) :] + self._line_end

    def shown(
        self, prompt: str, answer: str, pictures: int = 1, most: tuple[int | None, int | None] = (None, None)
    ) -> list[int]:
        """Return an answered example before the prompt, `most` tokens of prompt and answer kept."""
        tokens = self._tokens(answer)
        return [*self.asked(prompt, pictures, most[0]), *tokens[: most[1]], self.chunk_token_id]

    def prompt_tokens(self, text: str, most: int | None = None) -> list[int]:
        """Return the start token, an image token and a prompt."""
        return self.start_tokens + self.asked(text, 1, most)

    def answer_tokens(self, text: str, most: int | None = None) -> list[int]:
        """Return the first tokens of an answer and the end token, `most` in all."""
        tokens = self._tokens(text)
        return [*(tokens if most is None else tokens[: most - 1]), self.tokenizer.eos_token_id]

    def __call__(self, images: Any = None, text: str | Sequence[str] | None = None, **kwargs: Any) -> BatchFeature:
        """Return inputs to generate from, padded on the left: input_ids, attention_mask, pixel_values [B, M, 3, S, S].

        Args:
            images: one picture a text, or a list of pictures a text.
            text: the prompts.
            kwargs: of the image processor.
        """
        from medvlm.models.backbones.rows import pad_prompts

        texts = [text] if isinstance(text, str) else list(text or [])
        rows = pictures_by_row(images, len(texts))
        kwargs.pop("return_tensors", None)
        prompts = [self.start_tokens + self.asked(one, len(row)) for one, row in zip(texts, rows, strict=True)]
        data = pad_prompts(prompts, self.tokenizer.pad_token_id)
        flat = [image for row in rows for image in row]
        if flat:
            values = self.image_processor(flat, return_tensors="pt", **kwargs)["pixel_values"]
            data["pixel_values"] = by_row(values, [len(row) for row in rows])
        return BatchFeature(data)


def pictures_by_row(images: Any, count: int) -> list[list[Any]]:
    """Return each text's pictures, of one picture, one a text, or a list a text.

    Raises:
        ValueError: another number of them.
    """
    if images is None:
        return [[] for _ in range(count)]
    if not isinstance(images, (list, tuple)):
        images = [images]
    rows = [list(one) if isinstance(one, (list, tuple)) else [one] for one in images]
    if len(rows) != count:
        raise ValueError(f"{len(rows)} rows of pictures for {count} texts; give a list of pictures for each text")
    return rows


def by_row(values: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
    """Return pictures [n, ...], one after another, as [B, M, ...]: each row's own, and zeros after them."""
    rows = values.new_zeros(len(counts), max(1, *counts), *values.shape[1:])
    start = 0
    for row, count in enumerate(counts):
        rows[row, :count] = values[start : start + count]
        start += count
    return rows
