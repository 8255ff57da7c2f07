"""`medvlm licenses`: what may be used, sold and shared of every base model, baseline, data set, recipe and run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medvlm.cli.common import DebugOption, QuietOption, say

if TYPE_CHECKING:
    from rich.console import Console

# Wide enough for a pipe or a file, where no one folds lines.
_PIPED_WIDTH = 200

HELP = """Print the license table: code, weights, data, commercial use, gate and conflicts of every known system.

Example: medvlm licenses --commercial --format csv

Example: medvlm licenses show google/paligemma-3b-pt-448

Example: medvlm licenses check runs/latest --require share
"""


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    verb = typer.Typer(help=HELP, invoke_without_command=True, rich_markup_mode="rich")
    verb.callback()(table)
    verb.command("show")(show)
    verb.command("check")(check)
    app.add_typer(verb, name="licenses")


def table(
    context: typer.Context,
    form: Annotated[str, typer.Option("--format", "-f", help="table, md, csv or json.")] = "table",
    commercial: Annotated[bool, typer.Option("--commercial", help="Only systems whose commercial use is yes.")] = False,
    share: Annotated[bool, typer.Option("--share", help="Only systems whose fine-tunes may be passed on.")] = False,
    kind: Annotated[str | None, typer.Option("--kind", help="Only model, data or method.")] = None,
    gated: Annotated[
        bool | None, typer.Option("--gated/--open", help="Only systems behind a gate, or only those behind none.")
    ] = None,
    match: Annotated[list[str] | None, typer.Option("--match", help="Only names or hub ids with this text.")] = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Print the license table."""
    if context.invoked_subcommand is not None:
        return
    from medvlm.licenses import listing, registry

    chosen = listing.select(registry.load(), match or [], commercial, kind=kind, share=share, gated=gated)
    listing.write(chosen, form, _console())


def show(
    name: Annotated[str, typer.Argument(help="A system's name or hub id.")],
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Print all that is recorded about one system: every cell with its evidence and date, and what conflicts.

    Example: medvlm licenses show google/paligemma-3b-pt-448
    """
    from medvlm.licenses import listing, registry

    listing.show(registry.get(name), _console())


def check(
    target: Annotated[str, typer.Argument(help="A run, a recipe, a prepared data set, or a system's name.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of words.")] = False,
    bom: Annotated[
        Path | None, typer.Option("--bom", help="Write a run's bill of materials here (CycloneDX JSON).")
    ] = None,
    require: Annotated[
        str | None, typer.Option("--require", help="commercial or share: exit with 6 unless the answer is yes.")
    ] = None,
    accept_conditions: Annotated[
        bool, typer.Option("--accept-conditions", help="For --require, conditional is enough.")
    ] = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Print what follows for a fine-tuned model: sale, sharing, license, duties, and what forbids. Not legal advice.

    Example: medvlm licenses check runs/latest

    Example: medvlm licenses check paligemma448_vqa --require commercial --accept-conditions
    """
    import json

    from medvlm.errors import UsageError
    from medvlm.licenses import check as checking

    found = checking.check(target)
    if bom is not None and found.kind != "run":
        raise UsageError(f"--bom: {target} is a {found.kind}; a bill of materials is written of a run")
    if bom is not None:
        from medvlm.licenses.bom import write
        from medvlm.runs import open_run

        write(open_run(target), bom)
    print(json.dumps(found.as_dict(), indent=2, ensure_ascii=False) if as_json else "\n".join(checking.lines(found)))
    if bom is not None and not as_json:
        say(f"bill of materials: {bom}", quiet)
    if require is not None:
        checking.require(found, require, accept_conditions)


def _console() -> Console:
    import sys

    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=_PIPED_WIDTH, highlight=False)
