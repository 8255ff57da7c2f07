"""`medvlm prepare list`: every source with its size, license and gate, what to download and where it must lie."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medvlm.cli.common import DebugOption, say

if TYPE_CHECKING:
    from medvlm.data.sources.facts import Facts


def sources(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="One source, with all that is known.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    debug: DebugOption = False,
) -> None:
    """All sources: size, license, gate, what to download and where it must lie.

    Example: medvlm prepare list slake
    """
    import dataclasses

    from medvlm.data.sources import SOURCES
    from medvlm.data.sources.files import FileSource

    names = [name] if name else SOURCES.names()
    kinds: list[Any] = [SOURCES.get(one) for one in names]
    found: list[Facts] = [kind.facts for kind in kinds]
    if as_json:
        say(json.dumps([dataclasses.asdict(facts) for facts in found], ensure_ascii=False, indent=2))
    elif name:
        _print(_whole(found[0], issubclass(kinds[0], FileSource)))
    else:
        _print([row for facts in found for row in _brief(facts)])


def _brief(facts: Facts) -> list[tuple[str, str]]:
    """Return what the list tells of each source."""
    gate = "" if facts.gate == "none" else f"; gate: {facts.gate}"
    return [
        (facts.name, f"{facts.title} ({', '.join(facts.tasks)}): {facts.size}; license {facts.license}{gate}"),
        ("  download", facts.download),
        ("  --input", facts.layout),
    ]


def _whole(facts: Facts, splits: bool) -> list[tuple[str, str]]:
    """Return all facts of one source; `splits`: whether it takes --split."""
    rows = [
        (facts.name, f"{facts.title}: {facts.summary}"),
        ("  task", ", ".join(facts.tasks)),
        ("  size", facts.size),
        ("  license", facts.license),
        ("  gate", facts.gate),
        ("  download", facts.download),
        ("  --input", facts.layout),
        ("  Hub", facts.hub or "not read from there"),
        ("  split", f"{facts.split}, unless --split says otherwise" if splits else facts.split),
        ("  homepage", facts.homepage),
        *(("  note", problem) for problem in facts.known_problems),
        ("  cite", facts.citation),
        ("  more", f"data_cards/{facts.name}.md; medvlm licenses show {facts.name}"),
    ]
    return [(title, text) for title, text in rows if text]


def _print(rows: list[tuple[str, str]]) -> None:
    """Print titles and texts side by side: wrapped on a terminal, one line each for pipes."""
    import shutil
    import sys
    import textwrap

    width = max(60, shutil.get_terminal_size().columns) if sys.stdout.isatty() else 0
    for title, text in rows:
        lines = textwrap.wrap(text, width - _TITLE, break_on_hyphens=False) if width else [text]
        for number, line in enumerate(lines):
            say(f"{title if not number else '':<{_TITLE}}{line}")


_TITLE = 12
