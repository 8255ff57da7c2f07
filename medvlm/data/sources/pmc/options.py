"""What `prepare pmc` is asked to make of articles, wherever they come from."""

from __future__ import annotations

import dataclasses
import datetime
import re
from typing import Any

from medvlm.errors import UsageError
from medvlm.registry import nearest

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
        given = {name: value for name, value in dataclasses.asdict(self).items() if value != getattr(DEFAULTS, name)}
        return {name: _plain(value) for name, value in given.items()}


DEFAULTS = PmcOptions()


def parse(
    *,
    kinds: str = "figure,supplementary",
    article_type: str = "",
    since: str = "",
    limit: int | None = None,
    panels: str = "keep",
    task: str = "caption",
    modality: str = "",
    min_side: int = 0,
    max_side: int = 0,
) -> PmcOptions:
    """Return the options as the command line writes them: lists separated by commas, days as `parse_day` reads them.

    Raises:
        UsageError: a name is unknown, or a value is not of its form; the nearest name is suggested.
    """
    from medvlm.data.figures.modality import resolve

    modalities = _words(modality)
    return PmcOptions(
        kinds=tuple(name for name in KINDS if name in [_one_of("--kinds", word, KINDS) for word in _words(kinds)]),
        article_types=tuple(sorted(set(_words(article_type)))),
        since=parse_day(since) if since else None,
        limit=limit,
        panels=_one_of("--panels", panels, PANELS),
        task=_one_of("--task", task, TASKS),
        modalities=resolve(modalities) if modalities else (),
        min_side=min_side,
        max_side=max_side,
    )


def parse_day(text: str) -> datetime.date:
    """Return the day that 2024, 2024-05 or 2024-05-31 names; of a year or a month the first.

    Raises:
        UsageError: it names no day.
    """
    match = re.fullmatch(r"(\d{4})(?:-(\d{1,2}))?(?:-(\d{1,2}))?", text.strip())
    try:
        if match is None:
            raise ValueError
        return datetime.date(int(match[1]), int(match[2] or 1), int(match[3] or 1))
    except ValueError as error:
        raise UsageError(f'--since "{text}" is no day; write it as 2024, 2024-05 or 2024-05-31') from error


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for part in text.split(",") if (word := part.strip()))


def _one_of(option: str, word: str, known: tuple[str, ...]) -> str:
    if word not in known:
        raise UsageError(f'unknown {option} "{word}"{nearest(word, known)}; known: {", ".join(known)}')
    return word


def _plain(value: Any) -> Any:
    if isinstance(value, datetime.date):
        return value.isoformat()
    return list(value) if isinstance(value, tuple) else value
