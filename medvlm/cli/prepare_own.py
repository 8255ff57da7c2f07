"""`medvlm prepare folder` and `medvlm prepare jsonl`: a team's own images; what is guessed is shown before building."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from medvlm.cli import prepare_options as given
from medvlm.cli import prepare_own_options as own
from medvlm.cli import prepare_own_show as show
from medvlm.cli.common import say, warn
from medvlm.cli.prepare_run import build_and_push
from medvlm.cli.prepare_sets import one_of, parse_only
from medvlm.errors import UsageError

if TYPE_CHECKING:
    from medvlm.data.pseudonyms import Key
    from medvlm.data.sources.folder.columns import Columns
    from medvlm.data.sources.own import OwnSource


def _folder(ctx: typer.Context, **options: Any) -> None:
    """Your own images with a table of their texts, or with a .txt file beside each.

    Shows what it takes each column for, and builds nothing before you agree.

    On a terminal it asks; elsewhere add --yes, or the flags that it prints. "none" for a column: there is none.

    Example: medvlm prepare folder --input chest/ --data-license LicenseRef-own-data --license LicenseRef-own-data
    """
    from medvlm.data.sources.folder.source import FolderSource

    columns, quiet, sections = _columns(options), options["quiet"], options["sections"]
    source = FolderSource(columns=columns, task=_task(options["task"]), sections=sections, **_common(options, "folder"))
    view = source.look()
    guessed = _words({name: getattr(view.columns, name) for name in view.guessed}) + (
        [] if source.given_task else given.words("--task", view.task)
    )
    if guessed or not quiet:
        show.folder(view, columns, source.given_task)
    names = _first_name([row.get(str(view.columns.image)) for row in view.rows])
    show.check_pictures(view.pictures, view.root, names, options["images"])
    _check_apart_of_pictures(options["out"], source)
    _say_of_folder(source, options["split"], quiet)
    line = show.typed(ctx)
    show.rights(line, guessed, options["license"], source.data_license, view.columns.license)
    show.confirm(line, guessed, options["yes"], quiet)
    settled = _settled(view.columns, columns) + given.words("--task", view.task)
    settled += given.words("--sections", *filter(None, [sections]))
    _build(source, "folder", options, settled)


def _jsonl(ctx: typer.Context, **options: Any) -> None:
    """Your own conversations about images: LLaVA, ShareGPT, OpenAI chat, PaliGemma (prefix/suffix), M3IT.

    Every turn becomes a sample with its own question. Takes .jsonl files and .json lists.

    Example: medvlm prepare jsonl --input chats.jsonl --data-license CC-BY-4.0
    """
    from medvlm.data.sources.jsonl.formats import READERS
    from medvlm.data.sources.jsonl.source import CONTEXTS, JsonlSource

    columns, quiet = _columns(options), options["quiet"]
    format, task, context = options["format"], options["task"], options["context"]
    source = JsonlSource(
        format=one_of("--format", format, tuple(READERS)) if format else None,
        task=_task(task),
        context=one_of("--context", context, CONTEXTS),
        columns=columns,
        **_common(options, "jsonl"),
    )
    view = source.look()
    if not quiet:
        show.jsonl(view, format, context)
    names = _first_name(view.talk.pictures if view.talk else [])
    show.check_pictures(view.pictures, view.root, names, options["images"])
    _check_apart_of_pictures(options["out"], source)
    _say_of_patients(source, view.columns, quiet)
    show.rights(show.typed(ctx), [], options["license"], source.data_license, view.columns.license)
    settled = given.words("--format", view.format) + _settled(view.columns, columns)
    settled += given.words("--task", task) if task else []
    settled += given.words("--context", context) if context != "none" else []
    _build(source, "jsonl", options, settled)


def _columns(options: Mapping[str, Any]) -> Columns:
    """Return the columns that were given."""
    from medvlm.data.sources.folder.columns import NAMES, Columns

    return Columns(**{meaning: options.get(f"{meaning}_column") for meaning in NAMES})


def _common(options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the arguments that both sources take.

    Raises:
        UsageError: there is no --input, the key is missing or not wanted, or a value is malformed.
    """
    from medvlm.data.sources import SOURCES

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


def _settled(found: Columns, columns: Columns) -> list[str]:
    """Return the flags of all columns, and of those that were given as none: else they are guessed next time."""
    from medvlm.data.sources.folder.columns import NONE

    none = {meaning: column for meaning, column in columns.meanings().items() if column == NONE}
    return _words({**none, **found.meanings()})


def _first_name(cells: Sequence[Any]) -> str:
    from medvlm.data.sources.own_fields import names_in

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
    from medvlm.data.sources.folder.columns import of_patients, of_stays, of_studies

    if source.key is not None:
        say(f"patients, ids and file names are replaced under the key {source.key.fingerprint}", quiet)
    elif columns.group and (of_patients(columns.group) or of_stays(columns.group)):
        warn(
            f'the numbers in "{show.plain(columns.group)}" are copied into the data set as they are; to replace them: '
            "--hash-ids --key FILE (a file outside the data set)"
        )
    if columns.group and of_studies(columns.group):
        say(
            f'note: "{show.plain(columns.group)}" tells studies or stays, not patients: two of one patient may '
            "be split; --group-column NAME if a column has the patients",
            quiet,
        )
    if columns.group is None and source.given.group is None:
        say(
            "note: nothing tells patients apart, so two images of one patient may be split; --group-column NAME "
            "if something does",
            quiet,
        )


def _build(source: Any, name: str, options: Mapping[str, Any], settled: list[str]) -> None:
    line = [name, *given.words("--input", *options["input"]), *settled]
    line += given.words("--images", *filter(None, [source.images]))
    line += given.words("--data-license", *filter(None, [source.data_license]))
    build_and_push(source, options, line + (["--hash-ids"] if source.key else []))


_SHARED: given.Options = {
    "only": (given.Only, None),
    "phi": (given.Phi, "off"),
    "data_license": (own.DataLicense, None),
    "license": (given.License, "commercial"),
    "hash_ids": (own.HashIds, False),
    "key": (own.KeyFile, None),
    **given.SPLITTING,
    **given.PUSHING,
    **given.RUNNING,
}
_READING: given.Options = {"input": (given.Input, None), "images": (own.Images, None)}

folder = given.with_options(
    _folder,
    {
        **_READING,
        "yes": (own.Yes, False),
        **own.OF_TABLES,
        **own.OF_RECORDS,
        "task": (own.Task, None),
        "sections": (own.Sections, None),
        "out": (given.Out, Path("data/folder")),
        **_SHARED,
    },
)
jsonl = given.with_options(
    _jsonl,
    {
        **_READING,
        "format": (own.Format, None),
        **own.OF_RECORDS,
        "task": (own.Task, None),
        "context": (own.Context, "none"),
        "out": (given.Out, Path("data/jsonl")),
        **_SHARED,
    },
)
