"""`Sample`: the one record that every source yields and everything downstream reads."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medvlm.data.look import Look

TASKS = ("caption", "vqa", "report")
COMMERCIAL_USE = ("yes", "no", "conditional", "unknown")


@dataclasses.dataclass(slots=True)
class Image:
    """An encoded picture as it came: `data` are the original bytes, `name` its base name in the package."""

    data: bytes
    name: str
    look: Look | None = dataclasses.field(default=None, compare=False, repr=False)
    """What decoding it showed, kept for later steps; no part of the record."""

    def as_row(self) -> dict[str, Any]:
        """Return the form in which `datasets.Image` stores a picture."""
        return {"bytes": self.data, "path": self.name}


@dataclasses.dataclass(slots=True)
class Sample:
    """One image with one text to learn, and the rights to it.

    The order of the fields is the order of the columns. Every column is there from the first version of the format;
    those with the default None are nullable.
    """

    id: str
    """Unique and stable: group/figure/panel/task/ordinal."""
    image: Image
    task: str
    """caption, vqa or report."""
    prompt: str
    """The bare question; empty for caption and report. Templates belong to the recipe."""
    target: str
    """The text to learn: caption, answer or report."""
    mentions: list[str] = dataclasses.field(default_factory=list)
    """The paragraphs of the article that cite the figure."""
    language: str | None = None
    """ISO 639-1 code."""
    modality: str | None = None
    """What made the picture: one of `medvlm.data.figures.modality.MODALITIES`, or the data set's own word."""
    modality_evidence: str | None = None
    """What told the modality: "caption: axial CT", "keyword: ...", "picture: ..."."""
    more_images: list[Image] = dataclasses.field(default_factory=list)
    """Further views of the same study."""
    views: list[str] | None = None
    """Projection of each image, the first one's first: PA, AP, LATERAL, or the data set's own words."""
    panel: str | None = None
    kind: str | None = None
    """figure, table, equation, supplementary, graphic."""
    compound: bool | None = None
    organ: str | None = None
    finding: str | None = None
    """Known finding(s), comma-separated and lower case; "none" for a normal image."""
    question_type: str | None = None
    answer_type: str | None = None
    """open, closed or choice."""
    choices: list[str] | None = None
    concepts: list[str] | None = None
    """Concepts of the text as UMLS identifiers: C0040405."""
    indication: str | None = None
    """Why the study was made, where the report says so apart."""
    journal: str | None = None
    year: int | None = None
    article_type: str | None = None
    duplicate_of: str | None = None
    original_text: str | None = None
    """The text as it came, where `target` was cleaned or is a part of it."""
    identifiers: str | None = None
    """Kinds of identifiers that a scan found in the texts, comma-separated; "none" where it found none."""
    source: str = ""
    group: str = ""
    """Article, patient or image: what splits and clusters go by."""
    official_split: str | None = None
    """train, validation or test, where the data set publishes a split; not necessarily the one that was made."""
    pmcid: str | None = None
    """With its prefix: PMC123."""
    doi: str | None = None
    figure_id: str | None = None
    label: str | None = None
    file_name: str = ""
    sha256: str = ""
    """Of the image's bytes."""
    license: str | None = None
    """SPDX expression or LicenseRef; None where none is stated."""
    license_scope: str | None = None
    """figure, article or dataset."""
    license_evidence: str | None = None
    """The words or the URL that say so."""
    third_party: bool = False
    """True where the image or a part of it belongs to somebody else than the article's authors."""
    commercial_use: str = "unknown"
    """yes, no, conditional or unknown."""


@dataclasses.dataclass(slots=True)
class Reject:
    """A figure or record that became no sample, and why."""

    source: str
    where: str
    """What was dropped: package and figure id, or file and row."""
    reason: str
    """A short fixed key that is counted: "no image file", "license not allowed"."""
    detail: str = ""


@dataclasses.dataclass(slots=True)
class Credit:
    """Whom to name for the samples of one group (CC BY asks for it): an article, as it names itself."""

    group: str
    title: str = ""
    authors: str = ""
    """All names in order, separated by "; "."""
    journal: str | None = None
    year: int | None = None
    doi: str | None = None
    pmcid: str | None = None
    license: str | None = None
    """Of the article; a figure's own stands with its sample."""
    license_url: str | None = None
    copyright: str = ""
    """The copyright line as printed."""


COLUMNS = tuple(field.name for field in dataclasses.fields(Sample))
