"""`medvlm prepare SOURCE`: from articles, public sets or phantoms to a parquet data set with its card and licenses."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from medvlm.cli.common import DebugOption, QuietOption, progress, say, warn
from medvlm.errors import UsageError

if TYPE_CHECKING:
    from medvlm.data.sources.base import Source

InputOption = Annotated[
    list[Path] | None,
    typer.Option("--input", "-i", metavar="PATH", help="What to read: repeat it for several.", show_default=False),
]
OutOption = Annotated[Path, typer.Option("--out", help="Folder of the data set.")]
LicenseOption = Annotated[
    str, typer.Option("--license", help="What to admit: commercial, any, or SPDX ids separated by commas.")
]
RatioOption = Annotated[str, typer.Option("--split-ratio", help="Shares of train, validation and test.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Decides the split and, for phantoms, the pictures.")]
WorkersOption = Annotated[
    int, typer.Option("--workers", min=0, help="Processes; 0 is one for each core. The result is the same.")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace another data set that lies in --out.")]

RATIO = "0.8,0.1,0.1"


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


PMC_HELP = """Figures and captions of PubMed Central articles (JATS).

--input takes a folder, an .nxml or .xml with its images beside it, a PMC .tar.gz package or a .zip of them.
Without it the embedded synthetic sample articles are used.

Example: medvlm prepare pmc --input articles/ --license commercial --out data/pmc
"""
VQA_RAD_HELP = """Questions and answers about radiology images (VQA-RAD, classic layout).

--input is the folder that holds trainset.json, testset.json and images/.

Example: medvlm prepare vqa-rad --input vqa_rad/ --out data/vqa-rad
"""


def _reader(name: str) -> Callable[..., None]:
    """Return the command of a source that reads what `--input` names."""

    def command(
        input: InputOption = None,
        out: OutOption = Path("data") / name,
        license: LicenseOption = "commercial",
        split_ratio: RatioOption = RATIO,
        seed: SeedOption = 0,
        workers: WorkersOption = 0,
        overwrite: OverwriteOption = False,
        quiet: QuietOption = False,
        debug: DebugOption = False,
    ) -> None:
        options: dict[str, Any] = {}
        if input:
            source = _source(name, inputs=input)
        elif name == "pmc":
            say("no --input: building from the embedded synthetic sample; for real articles: --input PATH", quiet)
            options = {"kind": "sample"}
            source = _source("phantom", seed=seed, **options)
        else:
            raise UsageError(f"prepare {name} needs --input PATH ('medvlm prepare {name} --help' says of what)")
        words = [name, *(word for path in input or () for word in ("--input", str(path)))]
        _run(source, out, words, options, license, split_ratio, seed, workers, overwrite, quiet)

    return command


def _phantom(
    kind: Annotated[str, typer.Option("--kind", help="sample (articles) or base (for pre-training).")] = "sample",
    out: OutOption = Path("data/phantom"),
    license: LicenseOption = "commercial",
    split_ratio: RatioOption = RATIO,
    seed: SeedOption = 0,
    workers: WorkersOption = 0,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Synthetic radiograph and CT phantoms with known findings, made from a seed.

    Example: medvlm prepare phantom --kind base --out data/phantom-base
    """
    if kind not in ("sample", "base"):
        from medvlm.registry import nearest

        raise UsageError(f'unknown --kind "{kind}"{nearest(kind, ("sample", "base"))}; known: sample, base')
    source = _source("phantom", seed=seed, kind=kind)
    words = ["phantom", "--kind", kind]
    _run(source, out, words, {"kind": kind}, license, split_ratio, seed, workers, overwrite, quiet)


def _source(name: str, **settings: Any) -> Source:
    from medvlm.data.sources import SOURCES

    return SOURCES.get(name)(**settings)


def _run(
    source: Source,
    out: Path,
    words: list[str],
    options: dict[str, Any],
    license: str,
    split_ratio: str,
    seed: int,
    workers: int,
    overwrite: bool,
    quiet: bool,
) -> None:
    from medvlm.data.cards import known_problems, summary
    from medvlm.data.prepare import Settings, prepare
    from medvlm.data.splits import parse_ratios

    # All that decides the result, and nothing else: the same data set has the same card.
    words = [*words, "--license", license, "--split-ratio", split_ratio, "--seed", str(seed)]
    command = shlex.join(["medvlm", "prepare", *words])
    settings = Settings(license, parse_ratios(split_ratio), seed, options)
    with progress("prepare", quiet) as bar:
        outcome = prepare(
            source, out, settings, command=command, workers=workers, overwrite=overwrite, advance=bar.update
        )
    if outcome.up_to_date:
        say(f"{out}: up to date ({outcome.manifest['counts']['samples']} samples)")
        return
    if outcome.chunks_resumed:
        say(f"went on from an earlier run: {outcome.chunks_resumed} chunks were done", quiet)
    for line in summary(outcome.manifest, str(out)):
        say(line)
    for problem in known_problems(outcome.manifest["card"]):
        say(f"note: {problem}", quiet)
    _warn_of_empty_splits(outcome.manifest)
    recipe = "tiny" if outcome.manifest["synthetic"] else "paligemma448"
    place = "" if out == Path("data/pmc") else f" data.0.path={shlex.quote(str(out))}"
    say(f"next: medvlm finetune recipes/{recipe}.yaml{place}", quiet)


def _warn_of_empty_splits(manifest: Mapping[str, Any]) -> None:
    """Say which splits were to have a share and got no sample."""
    from medvlm.data.splits import SPLITS

    counts = manifest["counts"]["split"]
    filled = " or ".join(split for split in ("test", "validation", "train") if counts.get(split))
    for split, share in zip(SPLITS, manifest["settings"]["split_ratio"], strict=True):
        if share and not counts.get(split):
            warn(
                f"no sample fell into {split}: more groups, another --seed or another --split-ratio would change that; "
                f"medvlm eval --split takes {filled}"
            )


def register(app: typer.Typer) -> None:
    """Add `prepare` and its sources to `app`."""
    prepare = typer.Typer(
        cls=SourceGroup,
        no_args_is_help=True,
        help="Build a data set that datasets.load_dataset reads: shards, card, manifest, rejects.\n\n"
        "Example: medvlm prepare pmc --input articles/ --out data/pmc",
    )
    prepare.command("pmc", help=PMC_HELP)(_reader("pmc"))
    prepare.command("vqa-rad", help=VQA_RAD_HELP)(_reader("vqa-rad"))
    prepare.command("phantom")(_phantom)
    app.add_typer(prepare, name="prepare")
