"""What a user must know of a source before preparing it: what it is, its license, what to download, where it lies."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """The facts of one source; `medvlm prepare list` shows them, data_cards/NAME.md tells them at length."""

    name: str
    """As on the command line."""
    title: str
    """As the data set calls itself."""
    summary: str
    """One sentence: what it holds."""
    tasks: tuple[str, ...]
    """Of caption, vqa, report."""
    size: str
    """As published: "3,064 / 451 questions, 315 images"."""
    license: str
    """SPDX id or LicenseRef of the whole, or "by row" where every record has its own."""
    gate: str
    """What must be agreed to before it can be had; "none"."""
    download: str
    """What to fetch, and where from."""
    layout: str
    """What must lie in the folder of --input."""
    hub: str | None = None
    """The dataset repository of the Hugging Face Hub to read where no --input is given, if there is one."""
    hub_files: tuple[str, ...] = ()
    """Patterns of its files that are needed."""
    homepage: str = ""
    citation: str = ""
    known_problems: tuple[str, ...] = ()
    """What is wrong with the published set, one sentence each."""
    split: str = "by-group"
    """How it is split unless --split says otherwise: official where the published split may be trusted to be used."""


def card_of(facts: Facts, synthetic: bool = False) -> dict[str, Any]:
    """Return what the card of a data set tells of its source."""
    return {
        "title": facts.title,
        "description": facts.summary,
        "homepage": facts.homepage,
        "citation": facts.citation,
        "known_problems": list(facts.known_problems),
        "synthetic": synthetic,
    }
