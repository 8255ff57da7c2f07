"""`medvlm export`: a run's model in a folder, and on the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medvlm.cli.common import DebugOption, QuietOption, say, warn


def register(app: typer.Typer) -> None:
    """Add the verb to the app."""
    app.command("export")(export)


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A finished run's folder or name, or `latest`.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write; appears only whole.")],
    merge: Annotated[
        bool, typer.Option("--merge", help="Merge the adapter into its base, which loads in plain transformers.")
    ] = False,
    into: Annotated[
        str | None,
        typer.Option(
            "--into",
            help="original or dequantized: the base that --merge merges into. After 4-bit training the dequantized "
            "one answers like what was trained.",
        ),
    ] = None,
    push: Annotated[
        str | None, typer.Option("--push", help="Also upload to this model repository of the Hub.", metavar="REPO")
    ] = None,
    private: Annotated[bool, typer.Option("--private/--public", help="Of the pushed repository.")] = True,
    dataset: Annotated[
        list[str] | None,
        typer.Option("--dataset", help="Id of the training data on the Hub, for the model card; may be repeated."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export in --out.")] = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Write a run's adapter or merged model with processor, model card, credits and notices.

    Where the licenses of base or data forbid sharing, --push is refused (exit code 6) and a local export warns.

    Example: medvlm export latest --merge --out exported/chest

    Example: medvlm export latest --out exported/adapter --push me/chest-adapter --private
    """
    from medvlm.errors import UsageError
    from medvlm.export import write
    from medvlm.runs import open_run

    if into not in (None, "original", "dequantized"):
        raise UsageError(f'--into "{into}": expected original or dequantized')
    chosen: Any = into
    found = open_run(None if run == "latest" and not Path(run).exists() else run)
    settings = write.Settings(out, merge, chosen, overwrite, push, tuple(dataset or ()))
    rights = write.export(found, settings, warn)
    verdict = rights.verdict
    say(f"{out}: {'merged model' if merge else 'what was trained'} of {found.path}")
    say(
        f"license: {verdict['license']}, commercial use {verdict['commercial_use']}, sharing {verdict['may_share']}",
        quiet,
    )
    if push:
        if verdict["may_share"] == "conditional":
            warn(f"shared on conditions: {'; '.join(verdict['obligations'])}")
        say(f"pushed to {write.push(out, push, private=private)}")
