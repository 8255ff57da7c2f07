"""`medvlm report`: a page, a Markdown file and a JSON file on a run, or on several side by side."""

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
    forms: Annotated[str, typer.Option("--format", help="Any of html, md, json, comma between.")] = "html,md,json",
    cases: Annotated[
        int, typer.Option("--cases", min=1, help="Best, median and worst cases in the gallery, so many of each.")
    ] = 4,
    inspect: Annotated[
        int,
        typer.Option("--inspect", min=0, help="Draw under so many cases of each run where its model looks (loads it)."),
    ] = 0,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Write report.html, report.md and report.json: scores beside controls and licenses, curves, cases, costs.

    The page asks for nothing from the network; everything it shows is inside.

    Example: medvlm report runs/latest

    Example: medvlm report runs/20260101-120000-tiny runs/20260102-120000-tiny --out comparison

    Example: medvlm report runs/latest --inspect 4

    Example: medvlm report 20260101-120000-git-experiment1
    """
    from medvlm.report.write import folders, write

    with progress("report", quiet) as bar:
        names = [form.strip().lower() for form in forms.split(",") if form.strip()]
        paths = write(
            folders(runs or ["latest"], siblings=group), out, names, cases, looked=inspect, advance=bar.update
        )
    for path in paths:
        say(str(path))
