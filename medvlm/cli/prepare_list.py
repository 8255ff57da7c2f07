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

    names = [name] if name else SOURCES.names()
    kinds: list[Any] = [SOURCES.get(one) for one in names]
    found: list[Facts] = [kind.facts for kind in kinds]
    if as_json:
        say(json.dumps([dataclasses.asdict(facts) for facts in found], ensure_ascii=False, indent=2))
    elif name:
        _whole(found[0])
    else:
        _table(found)


def _whole(facts: Facts) -> None:
    """Print all facts of one source."""
    say(f"{facts.name}: {facts.title}")
    say(facts.summary)
    rows = (
        ("task", ", ".join(facts.tasks)),
        ("size", facts.size),
        ("license", facts.license),
        ("gate", facts.gate),
        ("download", facts.download),
        ("--input", facts.layout),
        ("Hub", facts.hub or "not read from there"),
        ("split", f"{facts.split}, unless --split says otherwise"),
        ("homepage", facts.homepage),
        *(("note", problem) for problem in facts.known_problems),
        ("cite", facts.citation),
    )
    for title, text in rows:
        if text:
            say(f"  {title:<9} {text}")
    say(f"more: data_cards/{facts.name}.md; rights: medvlm licenses show {facts.name}")


def _table(found: list[Facts]) -> None:
    """Print a table that fits the terminal, one source a row."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, ratio in (
        ("source", None),
        ("task", None),
        ("size", 2),
        ("license", None),
        ("gate", 1),
        ("download", 3),
    ):
        table.add_column(title, ratio=ratio, no_wrap=title == "source", overflow="fold")
    for facts in found:
        table.add_row(
            facts.name, "\n".join(facts.tasks), facts.size, facts.license, facts.gate, facts.download, end_section=True
        )
    Console(width=None if _on_terminal() else 160).print(table)
    say("one of them, with what must lie in --input: medvlm prepare list NAME")


def _on_terminal() -> bool:
    import sys

    return sys.stdout.isatty()
