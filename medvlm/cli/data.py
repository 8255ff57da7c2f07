"""`medvlm data`: look at prepared data sets, compare two, check one, and merge several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medvlm.cli import prepare_options as given
from medvlm.cli.common import DebugOption, QuietOption, progress, say
from medvlm.errors import InputError

HELP = """Look at prepared data sets: print, count, draw, compare, check against the schema, merge.

Example: medvlm data show data/vqa-rad --check

Example: medvlm data sample data/pmc --where modality=MRI --out sheet.png
"""

Folder = Annotated[Path, typer.Argument(metavar="PATH", help="Folder of a prepared data set.", show_default=False)]
Split = Annotated[str | None, typer.Option("--split", help="Only train, validation or test.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of words.")]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    verb = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode="rich")
    for command in (show, stats, sample, diff, merge):
        verb.command(command.__name__)(command)
    app.add_typer(verb, name="data")


def show(
    path: Folder,
    split: Split = None,
    rows: Annotated[int, typer.Option("--rows", min=0, help="So many of the first rows.")] = 3,
    ids: Annotated[list[str] | None, typer.Option("--id", help="The rows with these ids instead, whole.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Read everything: hashes, pictures, ids, splits.")] = False,
    as_json: AsJson = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Print what a data set is and some of its rows, and hold it against its manifest and the schema.

    Names, sizes and columns are always checked. A broken promise is one line, and the exit code is 3.

    Example: medvlm data show data/vqa-rad --split test --rows 5

    Example: medvlm data show data/pmc --rows 0 --check
    """
    from medvlm.data.inspect import show as showing
    from medvlm.data.inspect.check import check as held
    from medvlm.data.inspect.folder import open_set

    data = open_set(path)
    with progress("check", quiet or not check) as bar:
        found = held(data, whole=check, advance=bar.update)
    shown = list(showing.rows(data, split, rows, tuple(ids or ()))) if not found.broken else []
    told = showing.facts(data)
    if as_json:
        _json({**told, "broken": found.broken, "notes": found.notes, "rows": shown})
    else:
        lines = [*showing.lines(told), *(line for row in shown for line in ("", *showing.row_lines(row, bool(ids))))]
        what = "every row, picture and hash" if check else "names, sizes, columns and counts (--check reads all)"
        verdict = [] if found.broken else ["", f"checked: {what}: as promised"]
        say("\n".join([*lines, *verdict, *(f"note: {note}" for note in found.notes)]))
        say("\n".join(f"broken: {line}" for line in found.broken), quiet=not found.broken)
    if found.broken:
        count = f"{len(found.broken)} promises are" if len(found.broken) > 1 else "1 promise is"
        raise InputError(f"{path}: {count} broken; prepare the data set again with --overwrite, or fetch it again")


def stats(
    path: Folder,
    by: Annotated[str | None, typer.Option("--by", metavar="COLUMN", help="Tell the values of a column apart.")] = None,
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="Sizes and formats too, which reads all pictures.")
    ] = True,
    as_json: AsJson = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Print counts by split, lengths, common answers, words, pictures, and what the splits share.

    Example: medvlm data stats data/vqa-rad --by question_type
    """
    from medvlm.data.inspect import stats as counting
    from medvlm.data.inspect import stats_text
    from medvlm.data.inspect.check import sound
    from medvlm.data.inspect.folder import open_set

    with progress("stats", quiet) as bar:
        told = counting.gather(sound(open_set(path)), by, pictures, bar.update)
    if as_json:
        _json(told)
    else:
        say("\n".join(stats_text.lines(told)))


def sample(
    path: Folder,
    number: Annotated[int, typer.Option("-n", "--number", min=1, max=200, help="So many samples.")] = 16,
    split: Split = None,
    seed: Annotated[int, typer.Option("--seed", help="Another seed, other samples.")] = 0,
    where: Annotated[
        list[str] | None, typer.Option("--where", metavar="COLUMN=VALUE", help="Only with this value; may be repeated.")
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Also draw pictures that may not be passed on: a sheet for yourself.")
    ] = False,
    out: Annotated[Path, typer.Option("--out", metavar="PNG", help="The picture to write.")] = Path("sheet.png"),
    as_json: AsJson = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Draw a contact sheet of samples with their questions and answers, captions or reports, and print their ids.

    They are chosen by a hash, in turn from every modality and split. Pictures whose license lets no changed copy be
    passed on, or of which none is known, are left gray without --private.

    Example: medvlm data sample data/vqa-rad -n 12 --split test --where answer_type=open --out sheet.png
    """
    from medvlm.data.contact_sheet import Wanted
    from medvlm.data.inspect import sheet
    from medvlm.data.inspect.check import sound
    from medvlm.data.inspect.folder import open_set

    sheet.check_out(out, path)
    wanted = Wanted(number, split, seed, sheet.conditions(where or []), private)
    data = sound(open_set(path))
    chosen = sheet.choose(data, wanted)
    drawn = sheet.draw(data, chosen, out)
    if as_json:
        _json({"path": str(path), "sheet": str(out), "withheld": drawn.withheld, "ids": [one.id for one in chosen]})
        return
    say("\n".join(sheet.lines(data, chosen)))
    say(f"drawn: {out} ({drawn.samples} samples{f', {drawn.withheld} not shown' if drawn.withheld else ''})", quiet)


def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A prepared data set.", show_default=False)],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Another version of it.", show_default=False)],
    limit: Annotated[int, typer.Option("--limit", min=0, help="Name so many samples of each kind; 0: all.")] = 10,
    as_json: AsJson = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Print what changed between two versions: samples, columns, pictures, splits, licenses. The exit code is 0.

    Samples that went from train to a held-out split, or back, are told first: scores of models trained on the old
    version are worth nothing on them.

    Example: medvlm data diff data/pmc-2025 data/pmc-2026
    """
    from medvlm.data.inspect import diff as comparing
    from medvlm.data.inspect.check import sound
    from medvlm.data.inspect.folder import open_set

    told = comparing.compare(sound(open_set(old)), sound(open_set(new)), limit)
    if as_json:
        _json(told)
    else:
        say("\n".join(comparing.lines(told)))


def merge(
    parts: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Prepared data sets, at least two.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the merged data set.", show_default=False)],
    shared: Annotated[
        str,
        typer.Option(
            "--shared",
            help="Pictures, groups and articles on two sides of the split: drop (leave them out of train, so "
            "that every test set stays whole), move (to the side that holds them out), refuse, or keep.",
        ),
    ] = "drop",
    license: Annotated[
        str | None, typer.Option("--license", help="commercial, any, or SPDX ids; by default that of the parts.")
    ] = None,
    drop_duplicates: given.DropDuplicates = False,
    workers: given.Workers = 0,
    overwrite: given.Overwrite = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Merge prepared data sets into one; every sample keeps its split, its license and its credit.

    A sample that is in several parts is taken once; different samples with one id are told apart by their part's name.

    Example: medvlm data merge data/vqa-rad data/slake --out data/questions
    """
    import shlex

    from medvlm.data.cards import summary
    from medvlm.data.merging.combine import combine, told

    line = ["medvlm", "data", "merge", *map(str, parts), "--shared", shared]
    line += [*(given.words("--license", license) if license else []), *(["--drop-duplicates"] * drop_duplicates)]
    with progress("merge", quiet) as bar:
        outcome = combine(
            *(parts, out),
            shared=shared,
            license=license,
            drop_duplicates=drop_duplicates,
            command=shlex.join(line),
            workers=workers,
            overwrite=overwrite,
            advance=bar.update,
        )
    if outcome.up_to_date:
        say(f"{out}: up to date ({outcome.manifest['counts']['samples']} samples)")
        return
    for text in summary(outcome.manifest, str(out)):
        say(text)
    for text in told(outcome.manifest, out):
        say(f"note: {text}", quiet)


def _json(value: object) -> None:
    import json

    say(json.dumps(value, indent=2, ensure_ascii=False))
