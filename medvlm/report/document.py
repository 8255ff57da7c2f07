"""The report before it has a form: sections of plain blocks, which HTML and Markdown each render in their own way."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

# What a page or a terminal could trip over (control characters, halves of surrogate pairs), and what makes a text look
# like another one: the signs that turn the direction of what follows.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


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
    """Rows of cells under a header.

    Attributes:
        numeric: columns aligned right and sorted by the first number of a cell, "-" last. An interval behind the number
            ("0.412 [0.38, 0.44]") is set apart.
        rights: columns that hold yes, no, conditional or unknown.
        sortable: a reader may sort it by any column (in HTML, with script).
        links: columns whose http and https addresses can be followed.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    numeric: frozenset[int] = frozenset()
    rights: frozenset[int] = frozenset()
    sortable: bool = False
    links: frozenset[int] = frozenset()


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
class Piece:
    """A part of a text, and how it differs from the text that it is compared with."""

    text: str
    mark: str = ""
    """"" (the same in both), "missing" (only in the reference), "extra" (only in the prediction), or "opposite" (both
    speak of it and contradict each other)."""


@dataclass(frozen=True, slots=True)
class Case:
    """One predicted sample.

    Attributes:
        kind: contradiction, best, median or worst.
        score: what it was ranked by.
        references: the texts that it was scored against, at most a few of them.
        prediction: as the model said it.
        image: a data URI.
        credit: the image's license and source.
        measure: the name of the score.
        right: whether an answer is right, where it is one that is right or wrong.
        reference_marks: the pieces of each of `references`; empty where nothing was compared.
        prediction_marks: the pieces of `prediction`.
        flips: each contradiction in words.
        size: width and height of the image in pixels.
        language: BCP 47 tag of the texts; "" for English.
        more_references: how many further references are not shown.
        maps: where the prediction looks, as a data URI, where that was asked for.
        maps_size: width and height of that picture in pixels.
        maps_said: what it says, in sentences.
    """

    kind: str
    score: float
    id: str
    task: str
    prompt: str
    references: Sequence[str]
    prediction: str
    image: str | None = None
    credit: str = ""
    measure: str = "CIDEr"
    right: bool | None = None
    reference_marks: Sequence[Sequence[Piece]] = ()
    prediction_marks: Sequence[Piece] = ()
    flips: Sequence[str] = ()
    size: tuple[int, int] | None = None
    language: str = ""
    more_references: int = 0
    maps: str | None = None
    maps_size: tuple[int, int] | None = None
    maps_said: Sequence[str] = ()

    @property
    def told(self) -> str:
        """The score in words."""
        verdict = {True: "right", False: "wrong", None: ""}[self.right]
        if verdict and self.measure == "accuracy":
            # A single answer's accuracy says no more.
            return verdict
        return ", ".join(part for part in (verdict, f"{self.measure} {self.score:.3f}") if part)

    def pieces(self) -> tuple[list[Sequence[Piece]], Sequence[Piece]]:
        """Return the pieces of each reference, and of the prediction; of one piece where nothing is marked."""
        references = [list(own) for own in self.reference_marks] or [[Piece(text)] for text in self.references]
        return list(references), self.prediction_marks or ([Piece(self.prediction)] if self.prediction.strip() else [])


@dataclass(frozen=True, slots=True)
class Cases:
    """A gallery; those of one kind stand together, contradictions first."""

    cases: Sequence[Case]


_CONTRADICTIONS = (
    "Found by rule: one denies what the other states, or left and right are exchanged. The highest scores come first, "
    "because there the score tells least."
)
GROUPS = {
    "contradiction": ("Contradictions", _CONTRADICTIONS),
    "best": ("Best", ""),
    "median": ("Median", ""),
    "worst": ("Worst", ""),
}
"""Kinds of cases in their order, with a title and a remark."""


def groups(cases: Sequence[Case]) -> list[tuple[str, str, str, list[Case]]]:
    """Return (kind, title, remark, cases) of each kind that has cases, contradictions first."""
    kinds = [*GROUPS, *dict.fromkeys(case.kind for case in cases if case.kind not in GROUPS)]
    found = [(kind, *GROUPS.get(kind, (kind, "")), [case for case in cases if case.kind == kind]) for kind in kinds]
    return [group for group in found if group[3]]


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
