"""`medvlm report`: one HTML page and one Markdown file on a run, or on several side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medvlm.cli.common import DebugOption, QuietOption, progress, say


def register(app: typer.Typer) -> None:
    """Add the verb to the app."""
    app.command("report")(report)


def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN...", help="Run folders, or the id of a group; the newest finished run when left out."
        ),
    ] = None,
    group: Annotated[
        bool, typer.Option("--group", help="Also the other stages or variants that the runs belong to.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder to write into; the run's own, or one beside several runs."),
    ] = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Write report.html and report.md: scores beside controls and licenses, curves, cases, costs, how to reproduce.

    Example: medvlm report runs/latest

    Example: medvlm report runs/20260101-120000-tiny runs/20260102-120000-tiny --out comparison

    Example: medvlm report 20260101-120000-git-experiment1
    """
    from medvlm.report.write import folders, write

    with progress("report", quiet):
        paths = write(folders(runs or ["latest"], siblings=group), out)
    for path in paths:
        say(str(path))
