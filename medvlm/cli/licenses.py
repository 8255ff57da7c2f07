"""`medvlm licenses`: what may be used, sold and shared of every base model and baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from medvlm.cli.common import DebugOption, QuietOption

if TYPE_CHECKING:
    from rich.console import Console

# Wide enough for a pipe or a file, where no one folds lines.
_PIPED_WIDTH = 200

HELP = """Print the license table: code, weights, data, commercial use, gate and conflicts of every known system.

Example: medvlm licenses --commercial --format csv

Example: medvlm licenses show google/paligemma-3b-pt-448
"""


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    verb = typer.Typer(help=HELP, invoke_without_command=True, rich_markup_mode="rich")
    verb.callback()(table)
    verb.command("show")(show)
    app.add_typer(verb, name="licenses")


def table(
    context: typer.Context,
    form: Annotated[str, typer.Option("--format", "-f", help="table, md, csv or json.")] = "table",
    commercial: Annotated[bool, typer.Option("--commercial", help="Only systems whose commercial use is yes.")] = False,
    match: Annotated[list[str] | None, typer.Option("--match", help="Only names or hub ids with this text.")] = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Print the license table."""
    if context.invoked_subcommand is not None:
        return
    from medvlm.licenses import listing, registry

    listing.write(listing.select(registry.load(), match or [], commercial), form, _console())


def show(
    name: Annotated[str, typer.Argument(help="A system's name or hub id.")],
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Print all that is recorded about one system, with its evidence and conflicts.

    Example: medvlm licenses show google/paligemma-3b-pt-448
    """
    from medvlm.licenses import listing, registry

    listing.show(registry.get(name), _console())


def _console() -> Console:
    import sys

    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=_PIPED_WIDTH, highlight=False)
