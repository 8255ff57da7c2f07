"""A conversation as tokens: turns through the checkpoint's chat template, texts within their budgets.

A user's turn is its pictures and then its text, the model's turn its text and the template's own end of the turn. Text
never speaks for the template: words in it that are special tokens are left out.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from medvlm.errors import InputError

MARK = "\ue000"
"""Stands for an answer while it is found out what the template writes around one; of no language."""


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """What a user shows and asks, and what was answered (None: what is asked for)."""

    pictures: int
    prefix: str
    suffix: str | None = None


class Chat:
    """Writes conversations as a checkpoint was taught them.

    Args:
        processor: the checkpoint's, with a chat template.
        template: in place of the processor's own, where it has none.
        max_prefix_tokens: a user's text is cut to so many tokens.
        max_suffix_tokens: an answer is cut to so many tokens, its end included and always kept.

    Raises:
        InputError: there is no chat template, or it fails, or an answer in it does not follow what asks for one.
    """

    def __init__(
        self, processor: Any, *, template: str | None = None, max_prefix_tokens: int, max_suffix_tokens: int
    ) -> None:
        self.tokenizer = processor.tokenizer
        own = processor.chat_template or template
        self.template = own.get("default") if isinstance(own, dict) else own
        if self.template is None:
            raise InputError(
                "model.id: the checkpoint has no chat template, so nobody knows how it is asked; take one that was "
                "taught instructions"
            )
        self.max_prefix_tokens, self.max_suffix_tokens = max_prefix_tokens, max_suffix_tokens
        self._special = _special_tokens(processor, str(self.template))
        self._between, self.end = self._around_an_answer()

    def prompt(self, turns: Sequence[Turn]) -> str:
        """Return the conversation up to where the model's answer begins; each picture is the processor's one token."""
        messages: list[dict[str, Any]] = []
        for turn in turns:
            text = self.cut(turn.prefix, self.max_prefix_tokens)
            messages.append(_user(turn.pictures, text))
            if turn.suffix is not None:
                answer = self.cut(turn.suffix, self.max_suffix_tokens)
                messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
        return self._rendered(messages, asking=True)

    def answer(self, prompt: str, suffix: str) -> tuple[str, list[int]]:
        """Return an answer as text and as tokens within the budget, its end included.

        Args:
            prompt: what it stands behind.
            suffix: the bare answer.
        """
        before = self.tokens(prompt)
        room = self.max_suffix_tokens
        words = self.cut(suffix, room)
        while True:
            text = (self._between + words if words else "") + self.end
            found = self._behind(before, prompt, text)
            if len(found) <= self.max_suffix_tokens or not words:
                return text, found
            room = min(room, self.count(words)) - 1
            words = self.cut(words, room)

    def _behind(self, before: list[int], prompt: str, text: str) -> list[int]:
        """Return the tokens of a text that stands behind a prompt."""
        whole = self.tokens(prompt + text)
        if whole[: len(before)] == before:
            return whole[len(before) :]
        # Its first letters would join what stands before it; a model that writes it cannot do that either.
        found: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def tokens(self, text: str) -> list[int]:
        """Return the tokens of a rendered conversation, with the start token where the template writes none."""
        start = self.tokenizer.bos_token
        written = start is not None and text.startswith(start)
        found: list[int] = self.tokenizer(text, add_special_tokens=not written)["input_ids"]
        return found

    def count(self, text: str) -> int:
        """Return how many tokens a text takes by itself."""
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def cut(self, text: str, budget: int) -> str:
        """Return the text without special tokens and outer blanks, and no more of it than the first `budget` tokens."""
        text = self.clean(text)
        room = budget
        while text and room > 0:
            told = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            if len(told["input_ids"]) <= budget:
                return text
            # Of a letter that is several tokens all or nothing is kept.
            text = text[: told["offset_mapping"][room - 1][1]].rstrip()
            room -= 1
        return ""

    def clean(self, text: str) -> str:
        """Return the text without special tokens and outer blanks."""
        previous = None
        while previous != text:
            # Again, for what is left may make another one.
            previous, text = text, self._special.sub("", text)
        return text.strip()

    def _around_an_answer(self) -> tuple[str, str]:
        """Return what the template writes between its asking for an answer and the answer, and as the answer's end."""
        asked = [_user(1, "?")]
        prompt = self._rendered(asked, asking=True)
        given = {"role": "assistant", "content": [{"type": "text", "text": MARK}]}
        whole = self._rendered([*asked, given], asking=False)
        if not whole.startswith(prompt) or whole.count(MARK) != 1:
            raise InputError(
                "model.id: in its chat template an answer does not follow what asks for one, so it cannot be learned"
            )
        between, behind = whole[len(prompt) :].split(MARK)
        end = self._special.search(behind)
        if end is None:
            # LLaVA's template has no end of a turn; it was taught the end token.
            return between, str(self.tokenizer.eos_token)
        return between, behind[: end.end()]

    def _rendered(self, messages: list[dict[str, Any]], *, asking: bool) -> str:
        try:
            # The tokenizer's way: it is the same for all, where some processors ask for what only videos need.
            text: str = self.tokenizer.apply_chat_template(
                messages, chat_template=self.template, tokenize=False, add_generation_prompt=asking
            )
        except (TemplateError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise InputError(f"model.id: its chat template takes no turns of pictures and text ({reason})") from error
        return text


def _user(pictures: int, text: str) -> dict[str, Any]:
    shown: list[dict[str, str]] = [{"type": "image"}] * pictures
    said = [{"type": "text", "text": text}] if text or not pictures else []
    return {"role": "user", "content": shown + said}


def _special_tokens(processor: Any, template: str) -> re.Pattern[str]:
    """Return what finds special tokens in a text, and others that the template or the processor writes itself."""
    tokenizer = processor.tokenizer
    known = {
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        # A template may hold a line end or a blank as an ordinary text, which some tokenizers list as added.
        if token.special or (token.content in template and not token.content.isspace())
    }
    known |= set(tokenizer.all_special_tokens)
    known |= {value for name, value in vars(processor).items() if name.endswith("_token") and isinstance(value, str)}
    longest_first = sorted((re.escape(token) for token in known if token), key=len, reverse=True)
    return re.compile("|".join(longest_first))
