"""`medvlm prepare SOURCE`: from articles, public sets or phantoms to a parquet data set with its card and licenses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from medvlm.cli import prepare_dicom, prepare_list, prepare_own, prepare_pmc, prepare_sets
from medvlm.cli import prepare_options as given
from medvlm.cli.common import DebugOption, QuietOption, say
from medvlm.cli.prepare_run import Job, build, report, source_named, upload
from medvlm.errors import UsageError


class SourceGroup(TyperGroup):
    """A group whose unknown sub-command is an unknown source, with the nearest name suggested."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the sub-command that `args` begin with.

        Raises:
            UsageError: no such source.
        """
        if args and args[0] not in self.commands:
            from medvlm.data.sources import SOURCES

            SOURCES.get(args[0])
            raise UsageError(f'source "{args[0]}" has no command; known: {", ".join(self.commands)}')
        return super().resolve_command(ctx, args)


def _phantom(
    kind: Annotated[str, typer.Option("--kind", help="sample (articles) or base (for pre-training).")] = "sample",
    out: given.Out = Path("data/phantom"),
    license: given.License = "commercial",
    split_ratio: given.Ratio = given.RATIO,
    seed: given.Seed = 0,
    workers: given.Workers = 0,
    overwrite: given.Overwrite = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Synthetic radiograph and CT phantoms with known findings, made from a seed.

    Example: medvlm prepare phantom --kind base --out data/phantom-base
    """
    if kind not in ("sample", "base"):
        from medvlm.registry import nearest

        raise UsageError(f'unknown --kind "{kind}"{nearest(kind, ("sample", "base"))}; known: sample, base')
    job = Job(out, license, split_ratio, seed, workers=workers, overwrite=overwrite, quiet=quiet)
    source = source_named("phantom", seed=seed, kind=kind)
    build(source, job, ["phantom", "--kind", kind], {"kind": kind})


def _status(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the data set.", show_default=False)],
    debug: DebugOption = False,
) -> None:
    """What of a data set is done, left and failed and why, how fast, and when it will be finished.

    Example: medvlm prepare status data/pmc
    """
    from medvlm.data.status import read, render

    for line in render(read(out)):
        say(line)


def _merge(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder that the shards shared.", show_default=False)],
    push: given.Push = None,
    public: given.Public = False,
    push_third_party: given.PushThirdParty = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Merge what the shards of a Slurm array (--shard i/n) have read into the finished data set.

    Example: medvlm prepare merge data/pmc
    """
    from medvlm.data.prepare import merge_shards

    report(merge_shards(out), out, quiet)
    upload(out, push, public, push_third_party)


def register(app: typer.Typer) -> None:
    """Add `prepare` and its sources to `app`."""
    prepare = typer.Typer(
        cls=SourceGroup,
        no_args_is_help=True,
        help="Build a data set that datasets.load_dataset reads: shards, card, manifest, rejects.\n\n"
        "Example: medvlm prepare pmc --input articles/ --out data/pmc",
    )
    prepare.command("pmc")(prepare_pmc.pmc)
    for name, command in prepare_sets.commands():
        prepare.command(name)(command)
    prepare.command("folder")(prepare_own.folder)
    prepare.command("jsonl")(prepare_own.jsonl)
    prepare.command("dicom")(prepare_dicom.dicom)
    prepare.command("phantom")(_phantom)
    prepare.command("list")(prepare_list.sources)
    prepare.command("status")(_status)
    prepare.command("merge")(_merge)
    app.add_typer(prepare, name="prepare")
