"""The forms of conversations about images: each record becomes pictures and turns of question and answer.

    llava      {"image": NAME, "conversations": [{"from": "human", "value": "<image>\\n..."}, {"from": "gpt", ...}]}
    sharegpt   {"images": [NAME], "messages": [{"role": "user", "content": "<image>..."}, {"role": "assistant", ...}]}
    openai     {"messages": [{"role": "user", "content": [{"type": "image_url", ...}, {"type": "text", ...}]}, ...]}
    paligemma  {"image": NAME, "prefix": "answer en What ...?", "suffix": "..."}
    m3it       {"instruction": ..., "inputs": ..., "outputs": ..., "image_base64_str": [...]}

The first two are those of LLaVA (github.com/haotian-liu/LLaVA, docs/Finetune_Custom_Data.md) and LLaMA-Factory (its
data/README.md; there also "conversations" beside "images"). The third is the body of a chat completion
(platform.openai.com) or of a Transformers chat template, the fourth what big_vision's PaliGemma examples read, the
fifth M3IT's (arXiv:2306.04387).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from medvlm.data.sources.own_fields import parts_of, words
from medvlm.data.sources.records import Record

MARK = "<image>"
"""Where a picture stands in a text."""

_ASKS, _ANSWERS, _FRAMES = ("human", "user"), ("gpt", "assistant", "model", "chatgpt", "bot"), ("system", "developer")
_LANGUAGES = "ar|bn|cs|da|de|el|en|es|fa|fi|fr|hi|hr|hu|ja|ko|nl|pl|pt|ro|ru|sv|sw|te|th|tr|uk|vi|zh"
"""Codes of Crossmodal-3600 (arXiv:2205.12522) that PaliGemma's prefixes take, but for English words: it, no, id."""
_PALIGEMMA = re.compile(
    rf"(?P<task>cap|caption|describe|answer)\s+(?P<language>{_LANGUAGES})(?:\s+(?P<rest>.*))?", re.DOTALL
)


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """A question with its answer, either of which may be missing in a damaged record."""

    question: str | None
    answer: str | None
    pictures: int
    """So many of the record's pictures had been shown by then."""


@dataclasses.dataclass(frozen=True, slots=True)
class Talk:
    """What one record holds."""

    pictures: list[Any]
    """Names, base64 texts or cells, in order."""
    turns: list[Turn]
    language: str | None = None


class FormatError(Exception):
    """A record is not what its format says; the text is the detail of the reject."""


def detect(record: Mapping[str, Any]) -> str | None:
    """Return the format of a record, None for an unknown one."""
    if "image_base64_str" in record or {"instruction", "outputs"} <= record.keys():
        return "m3it"
    if "suffix" in record:
        return "paligemma"
    messages = record.get("messages")
    if isinstance(messages, list):
        contents = [one.get("content") for one in messages if isinstance(one, dict)]
        return "openai" if any(isinstance(one, list) for one in contents) else "sharegpt"
    if isinstance(record.get("conversations"), list):
        return "sharegpt" if "images" in record else "llava"
    return None


def _conversation(record: Record, key: str, others: Sequence[str]) -> Talk:
    name = next((one for one in (key, *others) if isinstance(record.get(one), list)), None)
    if name is None:
        raise FormatError(f"no list {key}")
    pictures = [*parts_of(record.get("image")), *parts_of(record.get("images"))]
    reader = _Reader(pictures)
    for message in record[name]:
        reader.add(message)
    return reader.talk()


class _Reader:
    """Pairs the messages of a conversation and counts the pictures that each turn has seen."""

    def __init__(self, pictures: list[Any]) -> None:
        self.pictures = pictures
        self.named = len(pictures)
        self.marks = 0
        self.turns: list[Turn] = []
        self.question: str | None = None

    def add(self, message: Any) -> None:
        role, content = _role(message)
        if role in _FRAMES:
            return
        text = self._text(content, asked=role in _ASKS)
        if role in _ASKS:
            # Two questions in a row are one.
            self.question = text if self.question is None else f"{self.question}\n{text}".strip()
        elif role in _ANSWERS:
            self.turns.append(Turn(self.question, text, self._seen()))
            self.question = None
        else:
            raise FormatError(f'role "{role[:40]}"')

    def talk(self) -> Talk:
        if self.question is not None:
            self.turns.append(Turn(self.question, None, self._seen()))
        if self.marks > len(self.pictures) > 0:
            raise FormatError(f"{self.marks} marks {MARK} for {len(self.pictures)} pictures")
        if self.named and self.marks != self.named:
            # Where not every picture has its mark, nobody knows when it is shown: before all.
            everything = len(self.pictures)
            self.turns = [dataclasses.replace(turn, pictures=everything) for turn in self.turns]
        return Talk(self.pictures, self.turns)

    def _seen(self) -> int:
        return self.marks if self.named else len(self.pictures)

    def _text(self, content: Any, asked: bool) -> str:
        if not isinstance(content, list):
            text = words(content)
            if text is None:
                raise FormatError(f"content is no text ({type(content).__name__})")
            return self._without_marks(text) if asked else text
        texts = [text for one in content if (text := self._piece(one, asked))]
        return "\n".join(texts)

    def _piece(self, one: Any, asked: bool) -> str:
        """Return the text of one piece of a message, or take up its picture."""
        kind = one.get("type") if isinstance(one, dict) else None
        if kind in ("text", "input_text", "output_text"):
            return self._text(one.get("text"), asked)
        if kind not in ("image_url", "input_image", "image"):
            raise FormatError(f'content of type "{str(kind)[:40]}"')
        url = one.get("image_url")
        cell = url.get("url") if isinstance(url, dict) else url
        cell = next((found for found in (cell, one.get("image"), one.get("url"), one.get("path")) if found), None)
        if cell is not None:
            self.pictures.append(cell)
        elif self.named:
            # A chat template's {"type": "image"} is a mark for a picture of the list beside.
            self.marks += 1
        else:
            raise FormatError("an image without its name or data")
        return ""

    def _without_marks(self, text: str) -> str:
        self.marks += text.count(MARK)
        return _joined(text) if MARK in text else text


def _joined(text: str) -> str:
    """Return a text with a blank for each mark, the blanks around it and the end of its line."""
    # An expression would go through a run of blanks once from each of them.
    first, *others = text.split(MARK)
    pieces = [first.rstrip(" \t")]
    for other in others:
        pieces.append(other.lstrip(" \t").removeprefix("\n").rstrip(" \t"))
    return " ".join(pieces).strip()


def _role(message: Any) -> tuple[str, Any]:
    if not isinstance(message, dict):
        raise FormatError("a message that is no object")
    role = message.get("from") or message.get("role")
    if not isinstance(role, str):
        raise FormatError("a message without a role")
    return role.strip().lower(), message["value"] if "value" in message else message.get("content")


def _llava(record: Record) -> Talk:
    return _conversation(record, "conversations", ("messages",))


def _sharegpt(record: Record) -> Talk:
    return _conversation(record, "messages", ("conversations",))


def _paligemma(record: Record) -> Talk:
    """Read prefix and suffix; the prefixes that PaliGemma was trained with give language and bare question."""
    if "suffix" not in record:
        raise FormatError("no suffix")
    prefix, suffix = _plain(record, "prefix"), _plain(record, "suffix")
    pictures = [*parts_of(record.get("image")), *parts_of(record.get("images"))]
    prefix = " ".join(piece.strip() for piece in prefix.split(MARK)).strip()
    language = None
    if known := _PALIGEMMA.fullmatch(prefix):
        asks, rest = known["task"] == "answer", known["rest"] or ""
        if asks == bool(rest):
            prefix, language = rest, known["language"]
    return Talk(pictures, [Turn(prefix, suffix, len(pictures))], language)


def _m3it(record: Record) -> Talk:
    if "outputs" not in record:
        raise FormatError("no outputs")
    asked = [text for key in ("instruction", "inputs") if (text := _plain(record, key))]
    given = record.get("image_base64_str", record.get("image"))
    # A picture in base64 is never a name, however short.
    pictures = [
        f"data:;base64,{one}" if "image_base64_str" in record and not one.startswith("data:") else one
        for one in (given if isinstance(given, list) else [given])
        if isinstance(one, str) and one.strip()
    ]
    return Talk(list(pictures), [Turn("\n".join(asked), _plain(record, "outputs"), len(pictures))])


def _plain(record: Record, key: str) -> str:
    value = record.get(key)
    text = words(value[0] if isinstance(value, list) and len(value) == 1 else value)
    if text is None:
        raise FormatError(f"{key} is no text")
    return text


READERS: dict[str, Callable[[Record], Talk]] = {
    "llava": _llava,
    "sharegpt": _sharegpt,
    "openai": _sharegpt,
    "paligemma": _paligemma,
    "m3it": _m3it,
}
"""Format -> what reads a record of it; raises `FormatError`."""
