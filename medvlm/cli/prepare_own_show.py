"""What `medvlm prepare folder` and `jsonl` show before they build: the guess, what follows, the line to confirm it.

Values come from files of unknown making: what a terminal would obey in them is not printed.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from medvlm.cli.common import say, warn
from medvlm.cli.prepare_options import words
from medvlm.errors import InputError, UsageError

if TYPE_CHECKING:
    from medvlm.data.sources.folder.columns import Columns
    from medvlm.data.sources.folder.looking import View as FolderView
    from medvlm.data.sources.jsonl.source import View as JsonlView

MEANINGS = {
    "image": "image",
    "text": "text to learn",
    "question": "question",
    "answer": "answer to learn",
    "group": "patient or study",
    "split": "official split",
    "license": "license of the row",
    "id": "id of the row",
    "modality": "modality",
    "organ": "organ",
    "question_type": "question type",
    "answer_type": "answer type",
    "language": "language",
}
WIDTH = 48
"""Letters of a value that are shown."""


def typed(ctx: typer.Context) -> list[str]:
    """Return the command line as it was typed, its words in the order of the options."""
    line = ctx.command_path.split()
    for parameter in ctx.command.params:
        source = ctx.get_parameter_source(str(parameter.name))
        if source is None or source.name != "COMMANDLINE":
            continue
        value, flag = ctx.params[str(parameter.name)], max(parameter.opts, key=len)
        if isinstance(value, bool):
            line += [flag] if value else []
        else:
            line += words(flag, *(value if isinstance(value, list | tuple) else [value]))
    return line


def plain(value: Any) -> str:
    """Return a value in one short line that a terminal shows and does not obey."""
    if value is None:
        return "(empty)"
    if isinstance(value, bytes) or (isinstance(value, dict) and value.get("bytes")):
        return "(the picture itself)"
    from medvlm.data.sources.own_fields import is_base64

    text = value if isinstance(value, str) else str(value)
    if is_base64(text):
        return "(the picture itself, in base64)"
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text[: 4 * WIDTH]).split())
    return (text if len(text) <= WIDTH else text[: WIDTH - 3] + "...") or "(empty)"


def columns(
    names: Sequence[str], rows: Sequence[Mapping[str, Any]], found: Columns, guessed: Sequence[str], given: Columns
) -> None:
    """Print a table: each column, what it is taken for, and its first value that is not empty."""
    meaning = {column: name for name, column in found.meanings().items()}
    lines = [("column", "meaning", "", "first value")]
    for name in names:
        taken = meaning.get(name, "")
        how = "guess" if taken in guessed else "given" if taken and getattr(given, taken) else ""
        value = next((row[name] for row in rows if row.get(name) not in (None, "")), None)
        lines.append((plain(name), MEANINGS.get(taken, "not used"), how, plain(value)))
    widths = [max(len(line[number]) for line in lines) for number in range(3)]
    for line in lines:
        say("  " + "  ".join([*(text.ljust(width) for text, width in zip(line, widths, strict=False)), line[3]]))


def folder(view: FolderView, given: Columns, task: str | None) -> None:
    """Print what a folder seems to hold."""
    if view.table.is_dir():
        say(f"{view.table}: images with a text file of the same name beside each")
    else:
        more = f" and {view.tables - 1} more like it" if view.tables > 1 else ""
        say(f"{view.table}{more}: {len(view.names)} columns")
    columns(view.names, view.rows, view.columns, view.guessed, given)
    say(f"task: {view.task} ({'given' if task else 'guess'})")
    say(f"images: {'in the table itself' if view.embedded else _leads(view.pictures, view.root)}")


def jsonl(view: JsonlView, given: str | None, context: str) -> None:
    """Print what files of conversations seem to hold."""
    more = f" and {view.files - 1} more" if view.files > 1 else ""
    say(f"{view.first}{more}: format {view.format} ({'given' if given else 'guess: --format names another'})")
    if view.talk is not None and view.talk.turns:
        turn = view.talk.turns[0]
        say(f"  first question: {plain(turn.question)}")
        say(f"  first answer:   {plain(turn.answer)}")
    for name, column in view.columns.meanings().items():
        say(f"  {MEANINGS[name].replace('row', 'record')}: {plain(column)}")
    if view.others:
        warn(f"{view.others} of the first {len(view.rows)} records are in another format; they are counted as rejects")
    if view.turns > 1:
        alone = "its question alone (--context before puts the turns before it into the prompt)"
        how = "with the turns before it in its prompt" if context == "before" else alone
        say(f"{view.turns:.1f} turns a record: each turn is a sample, {how}")
    say(f"images: {_leads(view.pictures, view.root) if view.pictures[0] else 'in the records themselves'}")


def _leads(pictures: tuple[int, int], root: Path) -> str:
    names, files = pictures
    return f"{root}, where {files} of the first {names} names lead to a file"


def check_pictures(pictures: tuple[int, int], root: Path, first: str, images: Path | None) -> None:
    """Make sure that names of images lead somewhere at all.

    Raises:
        InputError: none of the first ones does.
    """
    names, files = pictures
    ending = Path(first.lower()).suffix
    if ending in (".dcm", ".dicom"):
        raise InputError(f'"{plain(first)}" is a DICOM file; medvlm prepare dicom reads such images')
    if ending in (".nii", ".gz", ".mha", ".nrrd"):
        raise InputError(f'"{plain(first)}" is no picture; write slices of volumes as PNG files')
    if not names or files:
        return
    hint = "name the folder that they begin at: --images FOLDER"
    if first.startswith("/") or first[1:2] == ":":
        hint = "name the folder that holds them: --images FOLDER"
    if images is not None:
        hint = "--images must be the folder that these names begin at"
    raise InputError(f'{root}: no file there for any of the first {names} image names ("{plain(first)}"); {hint}')


def rights(
    line: Sequence[str], guessed: Sequence[str], license: str, data_license: str | None, column: str | None
) -> None:
    """Make sure that somebody says whose the data are, and that the policy admits it.

    Args:
        line: the command line as typed.
        guessed: the flags and values that would say what was guessed.
        license: the policy of --license.
        data_license: of all rows that state none.
        column: with the license of each row.

    Raises:
        UsageError: nothing would be admitted.
    """
    from medvlm.data.sources.own import OWN_DATA
    from medvlm.licenses.expressions import commercial_use
    from medvlm.licenses.policy import admit

    if column is not None:
        return
    if data_license is None:
        if admit(license, None, "unknown") is None:
            warn(f"no license is stated: nobody can say what may be done with the data; --data-license {OWN_DATA}")
            return
        private = [*words("--data-license", OWN_DATA), *words("--license", OWN_DATA)]
        say("nothing is built yet: whose data are these?")
        say("  your own, and nobody else may have them:")
        say(f"    {_typeable(_without(line, '--license'), [*guessed, *private])}")
        say("  published under a license, such as CC BY 4.0:")
        say(f"    {_typeable(line, [*guessed, *words('--data-license', 'CC-BY-4.0')])}")
        raise UsageError(f"no license is stated; add --data-license {OWN_DATA} or another, as in the lines above")
    reason = admit(license, data_license, commercial_use(data_license))
    if reason is not None:
        raise UsageError(
            f"--license {license} does not admit --data-license {data_license} ({reason}); to take the data in all the "
            f"same, add: --license {data_license if ' ' not in data_license else 'any'}"
        )


def _typeable(line: Sequence[str], more: Sequence[str]) -> str:
    """Return a command line to type; flags with names that cannot be typed are left out for --yes."""
    pairs = [more[at : at + 2] for at in range(0, len(more), 2)]
    kept = [word for pair in pairs if "".join(pair).isprintable() for word in pair]
    return shlex.join([*line, *kept, *(["--yes"] if len(kept) < len(more) else [])])


def _without(line: Sequence[str], flag: str) -> list[str]:
    """Return a command line without an option and its value."""
    kept: list[str] = []
    skip = False
    for word in line:
        if not skip and word != flag:
            kept.append(word)
        skip = word == flag and not skip
    return kept


def confirm(line: Sequence[str], guessed: Sequence[str], yes: bool, quiet: bool) -> None:
    """Have the guess confirmed: by --yes, by its flags, or by an answer on a terminal.

    Args:
        line: the command line as typed.
        guessed: the flags and values that would say what was guessed; empty where nothing was.

    Raises:
        UsageError: nobody has confirmed it.
    """
    if yes or not guessed:
        return
    say("to build it as shown, without being asked:")
    say(f"  {_typeable(line, guessed)}")
    if sys.stdin.isatty() and sys.stdout.isatty():
        if typer.confirm("Is the table right, and shall it be built?", default=False):
            return
        raise UsageError("nothing was built; give the columns that were guessed wrong: --text-column NAME ...")
    raise UsageError("nothing was built: the columns are a guess; run the line above, or add --yes")
