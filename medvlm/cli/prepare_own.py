"""`medvlm prepare folder` and `medvlm prepare jsonl`: a team's own images; what is guessed is shown before building."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from medvlm.cli import prepare_options as given
from medvlm.cli import prepare_own_options as own
from medvlm.cli import prepare_own_show as show
from medvlm.cli.common import DebugOption, QuietOption, say, warn
from medvlm.cli.prepare_run import Job, build, upload
from medvlm.cli.prepare_sets import one_of, parse_only
from medvlm.errors import UsageError

if TYPE_CHECKING:
    from medvlm.data.pseudonyms import Key
    from medvlm.data.sources.folder.columns import Columns
    from medvlm.data.sources.own import OwnSource


def folder(
    ctx: typer.Context,
    input: given.Input = None,
    images: own.Images = None,
    yes: own.Yes = False,
    image_column: own.ImageColumn = None,
    text_column: own.TextColumn = None,
    question_column: own.QuestionColumn = None,
    answer_column: own.AnswerColumn = None,
    group_column: own.GroupColumn = None,
    split_column: own.SplitColumn = None,
    license_column: own.LicenseColumn = None,
    id_column: own.IdColumn = None,
    modality_column: own.ModalityColumn = None,
    organ_column: own.OrganColumn = None,
    question_type_column: own.QuestionTypeColumn = None,
    answer_type_column: own.AnswerTypeColumn = None,
    language_column: own.LanguageColumn = None,
    task: own.Task = None,
    sections: own.Sections = None,
    only: given.Only = None,
    phi: given.Phi = "off",
    out: given.Out = Path("data/folder"),
    data_license: own.DataLicense = None,
    license: given.License = "commercial",
    hash_ids: own.HashIds = False,
    key: own.KeyFile = None,
    split: given.Split = "",
    split_ratio: given.Ratio = given.RATIO,
    seed: given.Seed = 0,
    drop_duplicates: given.DropDuplicates = False,
    push: given.Push = None,
    public: given.Public = False,
    workers: given.Workers = 0,
    engine: given.Engine = "local",
    ray_address: given.RayAddress = None,
    shard: given.Shard = None,
    overwrite: given.Overwrite = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Your own images with a table of their texts, or with a .txt file beside each.

    Shows what it takes each column for, and builds nothing before you agree.

    On a terminal it asks; elsewhere add --yes, or the flags that it prints. "none" for a column: there is none.

    Example: medvlm prepare folder --input chest/ --data-license LicenseRef-own-data --license LicenseRef-own-data
    """
    from medvlm.data.sources.folder.source import FolderSource

    columns = _columns(ctx)
    source = FolderSource(columns=columns, task=_task(task), sections=sections, **_common(ctx, "folder"))
    view = source.look()
    guessed = _words({name: getattr(view.columns, name) for name in view.guessed}) + (
        [] if source.given_task else given.words("--task", view.task)
    )
    if guessed or not quiet:
        show.folder(view, columns, source.given_task)
    names = _first_name([row.get(str(view.columns.image)) for row in view.rows])
    show.check_pictures(view.pictures, view.root, names, images)
    _check_apart_of_pictures(out, source)
    _say_of_folder(source, split, quiet)
    line = show.typed(ctx)
    show.rights(line, guessed, license, source.data_license, view.columns.license)
    show.confirm(line, guessed, yes, quiet)
    settled = _words(view.columns.meanings()) + given.words("--task", view.task)
    settled += given.words("--sections", *filter(None, [sections]))
    _build(ctx, source, "folder", settled)


def jsonl(
    ctx: typer.Context,
    input: given.Input = None,
    images: own.Images = None,
    format: own.Format = None,
    group_column: own.GroupColumn = None,
    split_column: own.SplitColumn = None,
    license_column: own.LicenseColumn = None,
    id_column: own.IdColumn = None,
    modality_column: own.ModalityColumn = None,
    organ_column: own.OrganColumn = None,
    question_type_column: own.QuestionTypeColumn = None,
    answer_type_column: own.AnswerTypeColumn = None,
    language_column: own.LanguageColumn = None,
    task: own.Task = None,
    context: own.Context = "none",
    only: given.Only = None,
    phi: given.Phi = "off",
    out: given.Out = Path("data/jsonl"),
    data_license: own.DataLicense = None,
    license: given.License = "commercial",
    hash_ids: own.HashIds = False,
    key: own.KeyFile = None,
    split: given.Split = "",
    split_ratio: given.Ratio = given.RATIO,
    seed: given.Seed = 0,
    drop_duplicates: given.DropDuplicates = False,
    push: given.Push = None,
    public: given.Public = False,
    workers: given.Workers = 0,
    engine: given.Engine = "local",
    ray_address: given.RayAddress = None,
    shard: given.Shard = None,
    overwrite: given.Overwrite = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Your own conversations about images: LLaVA, ShareGPT, OpenAI chat, PaliGemma (prefix/suffix), M3IT.

    Every turn becomes a sample with its own question. Takes .jsonl files and .json lists.

    Example: medvlm prepare jsonl --input chats.jsonl --data-license CC-BY-4.0
    """
    from medvlm.data.sources.jsonl.formats import READERS
    from medvlm.data.sources.jsonl.source import CONTEXTS, JsonlSource

    columns = _columns(ctx)
    source = JsonlSource(
        format=one_of("--format", format, tuple(READERS)) if format else None,
        task=_task(task),
        context=one_of("--context", context, CONTEXTS),
        columns=columns,
        **_common(ctx, "jsonl"),
    )
    view = source.look()
    if not quiet:
        show.jsonl(view, format, context)
    names = _first_name(view.talk.pictures if view.talk else [])
    show.check_pictures(view.pictures, view.root, names, images)
    _check_apart_of_pictures(out, source)
    _say_of_patients(source, view.columns, quiet)
    show.rights(show.typed(ctx), [], license, source.data_license, view.columns.license)
    settled = given.words("--format", view.format) + _words(view.columns.meanings())
    settled += given.words("--task", task) if task else []
    settled += given.words("--context", context) if context != "none" else []
    _build(ctx, source, "jsonl", settled)


def _columns(ctx: typer.Context) -> Columns:
    """Return the columns that were given."""
    from medvlm.data.sources.folder.columns import NAMES, Columns

    return Columns(**{meaning: ctx.params.get(f"{meaning}_column") for meaning in NAMES})


def _common(ctx: typer.Context, name: str) -> dict[str, Any]:
    """Return the arguments that both sources take.

    Raises:
        UsageError: there is no --input, the key is missing or not wanted, or a value is malformed.
    """
    from medvlm.data.sources import SOURCES

    options = ctx.params
    if not options["input"]:
        source: Any = SOURCES.get(name)
        raise UsageError(f"prepare {name} needs --input PATH: {source.facts.layout}")
    for path in options["input"]:
        _check_apart(options["out"], path)
    return {
        "inputs": options["input"],
        "scanner": _scanner(options["phi"]),
        "only": parse_only(options["only"]),
        "images": options["images"],
        "data_license": options["data_license"],
        "key": _key(options["hash_ids"], options["key"], options["out"]),
    }


def _check_apart(out: Path, input: Path) -> None:
    """Make sure that the data set does not lie among its own input.

    Raises:
        UsageError: it does.
    """
    if input.is_dir() and out.resolve().is_relative_to(input.resolve()):
        raise UsageError(f"--out {out} lies within {input}, and would be read as input next time; name another folder")


def _check_apart_of_pictures(out: Path, source: OwnSource) -> None:
    for root in set(source.roots.values()):
        _check_apart(out, root)


def _scanner(phi: str) -> Any:
    if phi == "off":
        return None
    from medvlm.data.phi import Scanner

    return Scanner(phi)


def _key(wanted: bool, path: Path | None, out: Path) -> Key | None:
    if wanted != (path is not None):
        missing = "--key FILE (it is made if absent)" if wanted else "--hash-ids"
        raise UsageError(f"--hash-ids and --key go together; add {missing}")
    if path is None:
        return None
    from medvlm.data.pseudonyms import Key

    return Key.load(path, out)


def _task(task: str | None) -> str | None:
    from medvlm.data.sample import TASKS

    return one_of("--task", task, TASKS) if task else None


def _words(meanings: dict[str, str]) -> list[str]:
    from medvlm.data.sources.folder.columns import flag

    return [word for meaning, column in meanings.items() for word in given.words(flag(meaning), column)]


def _first_name(cells: Sequence[Any]) -> str:
    from medvlm.data.sources.own import names_in

    return next((name for cell in cells for name in names_in(cell)), "")


def _say_of_folder(source: Any, split: str, quiet: bool) -> None:
    """Say what the user should know of the columns before agreeing."""
    view = source.look()
    for remark in view.remarks:
        say(f"note: {remark}", quiet)
    if view.split and not split:
        say(f"note: a split is stated ({view.split}); it is not kept without --split official", quiet)
    _say_of_patients(source, view.columns, quiet)


def _say_of_patients(source: Any, columns: Columns, quiet: bool) -> None:
    """Say how patients are kept apart, and what of them goes into the data set."""
    from medvlm.data.sources.folder.columns import of_patients, of_studies

    if source.key is not None:
        say(f"patients, ids and file names are replaced under the key {source.key.fingerprint}", quiet)
    elif columns.group and of_patients(columns.group):
        warn(
            f'the numbers in "{show.plain(columns.group)}" are copied into the data set as they are; to replace them: '
            "--hash-ids --key FILE (a file outside the data set)"
        )
    if columns.group and of_studies(columns.group):
        say(
            f'note: "{show.plain(columns.group)}" tells studies, not patients: two studies of one patient may be '
            "split; --group-column NAME if a column has the patients",
            quiet,
        )
    if columns.group is None and source.given.group is None:
        say(
            "note: nothing tells patients apart, so two images of one patient may be split; --group-column NAME "
            "if something does",
            quiet,
        )


def _build(ctx: typer.Context, source: Any, name: str, settled: list[str]) -> None:
    """Build the data set and push it."""
    options = ctx.params
    phi = options["phi"]
    split = options["split"] or source.facts.split
    job = Job(
        out=options["out"],
        license=options["license"],
        split_ratio=options["split_ratio"],
        seed=options["seed"],
        drop_duplicates=options["drop_duplicates"],
        workers=options["workers"],
        engine=options["engine"],
        ray_address=options["ray_address"],
        shard=options["shard"],
        overwrite=options["overwrite"],
        quiet=options["quiet"],
        split=split,
    )
    line = [name, *given.words("--input", *options["input"]), *settled]
    line += given.words("--images", *filter(None, [source.images]))
    line += given.words("--data-license", *filter(None, [source.data_license]))
    line += (["--hash-ids"] if source.key else []) + given.words("--only", *(options["only"] or ()))
    line += given.words("--phi", phi) if phi != "off" else []
    asked = source.options() | ({"phi": phi} if phi != "off" else {})
    asked |= {"only": {column: sorted(values) for column, values in source.only.items()}} if source.only else {}
    outcome = build(source, job, line, asked)
    if outcome.left is None:
        upload(job.out, options["push"], options["public"])
