"""The report before it has a form: sections of plain blocks, which HTML and Markdown each render in their own way."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

# Everything a page or a terminal could trip over: control characters and halves of surrogate pairs.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class Text:
    """One paragraph."""

    text: str


@dataclass(frozen=True, slots=True)
class Caution:
    """One paragraph that must not be overlooked."""

    text: str


@dataclass(frozen=True, slots=True)
class Facts:
    """Names with their values."""

    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under a header; `numeric` columns are aligned right, `rights` holds yes/no/conditional/unknown."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    numeric: frozenset[int] = frozenset()
    rights: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Code:
    """Text that is shown as it is."""

    text: str
    language: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture as inline SVG, with the same in words for those who do not see it."""

    svg: str
    words: str


@dataclass(frozen=True, slots=True)
class Case:
    """One predicted sample."""

    kind: str
    """best, median or worst."""
    score: float
    id: str
    task: str
    prompt: str
    references: Sequence[str]
    prediction: str
    image: str | None = None
    """A data URI."""
    credit: str = ""
    """The image's license and source."""


@dataclass(frozen=True, slots=True)
class Cases:
    """A gallery."""

    cases: Sequence[Case]


Block = Text | Caution | Facts | Table | Code | Chart | Cases


@dataclass(slots=True)
class Section:
    """A heading with what stands under it; level 2 is a chapter, 3 a part of one."""

    title: str
    blocks: list[Block] = field(default_factory=list)
    level: int = 2


@dataclass(slots=True)
class Document:
    """A whole report."""

    title: str
    lead: list[str]
    """Paragraphs under the title."""
    labels: list[str]
    """Short marks beside the title: synthetic, status."""
    sections: list[Section]


def printable(text: str) -> str:
    """Return `text` with every character that no page can hold replaced by U+FFFD."""
    return _UNPRINTABLE.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))
