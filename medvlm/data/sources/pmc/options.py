"""What `prepare pmc` is asked to make of articles, wherever they come from."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

KINDS = ("figure", "supplementary", "table", "graphic", "equation")
PANELS = ("keep", "split", "drop")
TASKS = ("caption", "vqa")


@dataclasses.dataclass(frozen=True, slots=True)
class PmcOptions:
    """The settings of `prepare pmc` that decide which figures become samples, and which samples."""

    kinds: tuple[str, ...] = ("figure", "supplementary")
    """Which of `KINDS` become samples; the others are counted."""
    article_types: tuple[str, ...] = ()
    """JATS `article-type` values to take; empty: all."""
    since: datetime.date | None = None
    """Only articles whose earliest stated publication is not before this day."""
    limit: int | None = None
    """At most so many articles, the first by name."""
    panels: str = "keep"
    """keep, split or drop compound figures."""
    task: str = "caption"
    """caption, or vqa: questions made from captions."""
    modalities: tuple[str, ...] = ()
    """Names of `medvlm.data.figures.modality`, groups such as "radiology" resolved; empty: all."""
    min_side: int = 0
    """Drop pictures whose shorter side has fewer pixels; 0 drops none."""
    max_side: int = 0
    """Shrink pictures whose longer side has more pixels; 0 keeps all as they are."""

    def as_json(self) -> dict[str, Any]:
        """Return the options that differ from the defaults, for the manifest and the fingerprint."""
        told: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                told[field.name] = (
                    value.isoformat()
                    if isinstance(value, datetime.date)
                    else list(value)
                    if isinstance(value, tuple)
                    else value
                )
        return told
