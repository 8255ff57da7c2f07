"""Tokenizers by name: text to the words that the metrics count, without Java.

Every tokenizer works chunk by chunk, where chunks are what stands between blanks: a corpus has far fewer different
chunks than words, so each is cut once.

- `ptb`: coco-caption's (see `medvlm.evaluate.ptb`); punctuation is removed.
- `13a`: sacrebleu's mteval-v13a rules; punctuation is kept as words of its own.
- `whitespace`: `str.split()`, for text that is tokenized already.
- `none`: the text as it is. A metric still has to cut it at blanks, as sacrebleu does after its `none`, so it counts
  the same words as `whitespace`; scores are signed `tok:whitespace` under either name.
- `rouge`: rouge_score's, ASCII letters and digits in lower case; `rouge-stem`: these, Porter-stemmed where they are
  longer than three characters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise
from typing import Final

from medvlm.errors import UsageError
from medvlm.evaluate import ptb
from medvlm.evaluate.porter import stem
from medvlm.registry import nearest

CASES: Final = ("lower", "mixed")


def _never(_: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """How text becomes words.

    Attributes:
        split: text -> chunks.
        tokens: chunk -> its words.
        contextual: whether the chunk that follows decides about a chunk's words.
        tokens_before: contextual chunk, the one that follows ("" at the end) -> the first one's words.
    """

    split: Callable[[str], list[str]]
    tokens: Callable[[str], tuple[str, ...]]
    contextual: Callable[[str], bool] = _never
    tokens_before: Callable[[str, str], tuple[str, ...]] | None = None

    def __call__(self, text: str) -> list[str]:
        """Return the words of `text`."""
        chunks = self.split(text)
        before = self.tokens_before
        if before is None:
            return list(chain.from_iterable(map(self.tokens, chunks)))
        words: list[str] = []
        for chunk, following in pairwise([*chunks, ""]):
            words += before(chunk, following) if self.contextual(chunk) else self.tokens(chunk)
        return words


_13A_JOINED = (("<skipped>", ""), ("-\n", ""))
_13A_SPELLED = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
# In turn: marks but . , - and '; a period or comma after, then before anything but a digit; a dash after a digit.
_13A_RULES = (
    (re.compile(r"([!-&(-+:-@\[-`{-~/])"), r" \1 "),
    (re.compile(r"([^0-9])([.,])"), r"\1 \2 "),
    (re.compile(r"([.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)


def _split_13a(text: str) -> list[str]:
    text = text.rstrip()
    for old, new in _13A_JOINED:
        text = text.replace(old, new)
    return text.split()


@lru_cache(maxsize=200_000)
def _tokens_13a(chunk: str) -> tuple[str, ...]:
    for old, new in _13A_SPELLED:
        chunk = chunk.replace(old, new)
    chunk = f" {chunk} "
    for pattern, replacement in _13A_RULES:
        chunk = pattern.sub(replacement, chunk)
    return tuple(chunk.split())


_NOT_ROUGE = re.compile(r"[^a-z0-9]+")


@lru_cache(maxsize=200_000)
def _tokens_rouge(chunk: str) -> tuple[str, ...]:
    lower = chunk.lower()
    return (lower,) if lower.isascii() and lower.isalnum() else tuple(_NOT_ROUGE.sub(" ", lower).split())


@lru_cache(maxsize=200_000)
def _tokens_stemmed(chunk: str) -> tuple[str, ...]:
    return tuple(stem(word) if len(word) > 3 else word for word in _tokens_rouge(chunk))


def _itself(chunk: str) -> tuple[str, ...]:
    return (chunk,)


_TOKENIZERS: Final = {
    "ptb": Tokenizer(ptb.split, ptb.tokens_of, ptb.contextual, ptb.tokens_before),
    "13a": Tokenizer(_split_13a, _tokens_13a),
    "whitespace": Tokenizer(str.split, _itself),
    "none": Tokenizer(str.split, _itself),
    # Markup tags are no words of their own to rouge_score, but cutting them whole loses none of their words.
    "rouge": Tokenizer(ptb.split, _tokens_rouge),
    "rouge-stem": Tokenizer(ptb.split, _tokens_stemmed),
}
NAMES: Final = ("ptb", "13a", "whitespace", "none")


def _lowered(tokenizer: Tokenizer, first: bool) -> Tokenizer:
    """Return `tokenizer` in lower case: its words, or where its rules see case, the text `first`."""
    tokens, before = tokenizer.tokens, tokenizer.tokens_before

    def lower(chunk: str) -> tuple[str, ...]:
        return tokens(chunk.lower()) if first else tuple(map(str.lower, tokens(chunk)))

    def lower_before(chunk: str, following: str) -> tuple[str, ...]:
        assert before is not None
        return tuple(map(str.lower, before(chunk, following)))

    return Tokenizer(tokenizer.split, lower, tokenizer.contextual, lower_before if before else None)


@lru_cache
def get(name: str, case: str = "lower") -> Tokenizer:
    """Return the tokenizer called `name`.

    Args:
        name: ptb, 13a, whitespace, none, rouge or rouge-stem.
        case: "lower", or "mixed": as the text has it. ROUGE's are always in lower case.

    Raises:
        UsageError: no such tokenizer or case.
    """
    if name not in _TOKENIZERS:
        raise UsageError(f'unknown tokenizer "{name}"{nearest(name, NAMES)}; known: {", ".join(NAMES)}')
    if case not in CASES:
        raise UsageError(f'unknown case "{case}"; known: {", ".join(CASES)}')
    tokenizer = _TOKENIZERS[name]
    return tokenizer if case == "mixed" or name.startswith("rouge") else _lowered(tokenizer, first=name != "ptb")


def signed(name: str) -> str:
    """Return the name that a signature gives the tokenizer: one for those that give the same words."""
    return "whitespace" if name == "none" else name


def tokenize(texts: Sequence[str], name: str = "ptb", case: str = "lower") -> list[list[str]]:
    """Return the tokens of each text; one that is empty, or to ptb only punctuation, gives an empty list.

    Raises:
        UsageError: no such tokenizer or case.
    """
    return list(map(get(name, case), texts))
