"""What a folder of images seems to hold: its table, the meaning of its columns, where the images lie, the task."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from medvlm.data import reports
from medvlm.data.sources import records
from medvlm.data.sources.files import relative
from medvlm.data.sources.folder import columns as meaning_of
from medvlm.data.sources.folder import tables
from medvlm.data.sources.folder.columns import Columns, plain
from medvlm.data.sources.own import Root
from medvlm.data.sources.own_fields import held, listed, names_in, number_of, parts_of, patient_in, split_of_path, words
from medvlm.data.sources.records import Record
from medvlm.errors import InputError, UsageError

FIRST_ROWS = 100
"""So many rows are looked at for the guess."""
ID_ROWS = 100_000
"""In so many rows a guessed column of ids must not repeat."""
_OF = {"group": "patients", "split": "splits", "license": "licenses"}
"""The meanings that decide what may be done with a row, as messages call them: none may be overlooked."""


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """What a folder seems to hold."""

    table: Path
    """The first one; the folder itself where texts lie beside the images."""
    tables: int
    names: list[str]
    rows: list[Record]
    """The first ones."""
    columns: Columns
    task: str
    pictures: tuple[int, int]
    """Names of pictures in the first rows, and how many of them lead to a file."""
    root: Path
    """Where the names of the first table begin at."""
    embedded: bool
    """The pictures stand in the table itself."""
    guessed: tuple[str, ...] = ()
    """The meanings among `columns` that nobody has given."""
    split: str = ""
    """What states an official split: "column NAME", "names of files and folders", or nothing."""
    remarks: tuple[str, ...] = ()
    """Columns that are not what their names say, with why; what else the first rows suggest."""


def look(
    found: Sequence[tuple[Path, Path]],
    given: Columns,
    task: str | None,
    find_root: Callable[[Path, Path, Iterable[Any]], Root],
) -> View:
    """Return what tables seem to hold, by the first rows of the first.

    Args:
        found: each input with one of its tables.
        given: the columns that are known.
        task: caption, vqa or report; None guesses it.
        find_root: told an input, a table of it and fields with names of pictures, settles where they lead from.

    Raises:
        InputError: a table cannot be read, or they do not go together.
        UsageError: a given column is not there, or one that is needed cannot be told.
    """
    table = found[0][1]
    names, rows = _head(table)
    if table.is_dir():
        # There is nothing to guess in texts beside images.
        given = dataclasses.replace(given, image=given.image or "file_name", text=given.text or "text")
    every = [one for _, one in found]
    columns, remarks = _with_ids(settle(every, names, rows, given), given, every)
    columns = _without_unused(columns, task)
    _check(table, names, columns, task)
    roots = []
    for folder, one in found:
        cells = [row.get(str(columns.image)) for row in (rows if one == table else _alike(one, columns))]
        roots.append(find_root(folder, one, cells))
    cells = [row.get(str(columns.image)) for row in rows]
    return View(
        table,
        len(found),
        [*names, *(name for name in columns.meanings().values() if name not in names)],
        rows,
        columns,
        task=task or _task(columns, rows),
        pictures=(roots[0].names, roots[0].files),
        root=roots[0].folder,
        embedded=_embedded(cells),
        guessed=tuple(name for name in columns.meanings() if getattr(given, name) is None),
        split=_stated(columns, found[0], cells),
        remarks=(*remarks, *_of_folders(table, columns)),
    )


def settle(
    found: Sequence[Path],
    names: Sequence[str],
    rows: Sequence[Record],
    given: Columns,
    wanted: Sequence[str] = tuple(meaning_of.NAMES),
) -> Columns:
    """Return the meaning of columns, by the first rows of the first table and by the names in all records of all.

    Args:
        found: the tables.
        names: of the columns of the first rows.
        rows: the first ones.
        given: the columns that are known.
        wanted: the meanings to look for.

    Raises:
        InputError: only some tables tell patients, licenses or splits, or a patient is written in two ways.
        UsageError: a given column is not there, or one that turns up later has a meaning that is taken.
    """
    surveys = {table: tables.survey(table, lambda name: _tells_groups(name, given)) for table in found}
    later = list(dict.fromkeys(name for seen in surveys.values() for name in seen if name not in names))
    columns = meaning_of.guess(names, rows, given, wanted, later)
    for meaning in _OF:
        column = getattr(columns, meaning)
        if column is not None and getattr(given, meaning) is None:
            _check_everywhere(surveys, meaning, column)
            _check_later(names, later, meaning, column)
    if columns.group and given.group is None:
        others = [name for name in [*names, *later] if name != columns.group and meaning_of.tells_groups(name)]
        _check_filled(found, columns.group, others)
    if columns.group:
        _check_numbers(columns.group, set().union(*(seen.get(columns.group, ()) for seen in surveys.values())))
    return columns


def _tells_groups(name: str, given: Columns) -> bool:
    return name == given.group or meaning_of.tells_groups(name)


def _check_everywhere(surveys: Mapping[Path, Mapping[str, object]], meaning: str, column: str) -> None:
    lacking = next((table for table, seen in surveys.items() if seen and column not in seen), None)
    if lacking:
        raise InputError(
            f'{lacking}: no column "{column}", by which other tables tell the {_OF[meaning]}; prepare it by itself, or '
            f"say that its rows have none: {meaning_of.flag(meaning)} {column}"
        )


def _check_later(names: Sequence[str], later: Sequence[str], meaning: str, column: str) -> None:
    """Make sure that no two names have one meaning in different records."""
    others = later if column in names else [*names, *later]
    other = next((name for name in others if name != column and meaning_of.says(name, meaning)), None)
    if other:
        raise UsageError(
            f'both "{column}" and, in other records, "{other}" tell the {_OF[meaning]}; give both one name, or say '
            f"which does: {meaning_of.flag(meaning)} NAME"
        )


def _check_filled(found: Sequence[Path], column: str, others: Sequence[str]) -> None:
    """Make sure that no row lacks its patient and names its study: both would tear the study apart."""
    for other, table in itertools.product(others, found):
        for cell, second in zip(tables.values(table, column), tables.values(table, other), strict=True):
            if patient_in(cell, column) == "" and number_of(second):
                raise UsageError(
                    f'{table}: "{column}" is empty in rows where "{other}" is not, which tells groups too; '
                    f"fill it, or say which does: {meaning_of.flag('group')} NAME"
                )


def _check_numbers(column: str, numbers: Iterable[str]) -> None:
    """Make sure that no patient is written with zeros in one place and without them in another."""
    spelled: dict[str, str] = {}
    for one in sorted(numbers):
        if (other := spelled.setdefault(one.lstrip("0"), one)) != one:
            raise InputError(
                f'column "{column}": is "{one}" the same as "{other}"? Write each number in one way, or the two may '
                "fall on both sides of a split"
            )


def _alike(table: Path, columns: Columns) -> list[Record]:
    """Return the first rows of a further table.

    Raises:
        InputError: it lacks a column that every row must have.
    """
    names, rows = _head(table)
    needed = (columns.image, columns.text, columns.question, columns.answer)
    lacking = next((name for name in needed if name and name not in names), None)
    if lacking:
        raise InputError(f'{table}: no column "{lacking}", which the tables before have; prepare it by itself')
    return rows


def _stated(columns: Columns, first: tuple[Path, Path], cells: Sequence[Any]) -> str:
    """Return what states an official split, by the first rows."""
    if columns.split:
        return f'column "{columns.split}"'
    folder, table = first
    names = [] if table.is_dir() else [relative(folder if folder.is_dir() else folder.parent, table)]
    names += [part for cell in cells for name in names_in(cell) for part in PurePosixPath(name).parts[:-1]]
    return "names of files and folders" if split_of_path(*names) else ""


def _with_ids(columns: Columns, given: Columns, found: Sequence[Path]) -> tuple[Columns, tuple[str, ...]]:
    """Take back a guessed column of ids that repeats, since it would lose rows; return with it what to say of it."""
    if columns.id is None or given.id is not None:
        return columns, ()
    seen: set[str] = set()
    cells = itertools.chain.from_iterable(tables.values(table, columns.id) for table in found)
    for cell in itertools.islice(cells, ID_ROWS):
        value = "_".join(number_of(cell).split())
        if not value or value in seen:
            why = f'"{value[:40]}" is there twice' if value else "it is empty in places"
            said = f'"{columns.id}" is no id ({why}): rows are told apart by their number'
            return dataclasses.replace(columns, id=None), (said,)
        seen.add(value)
    return columns, ()


def _head(table: Path) -> tuple[list[str], list[Record]]:
    """Return the names of a table's columns and its first rows.

    Raises:
        InputError: it cannot be read, has no rows, or names a column twice.
    """
    rows = [row for row in itertools.islice(tables.everything(table), FIRST_ROWS) if isinstance(row, dict)]
    names = list(tables.PAIR_COLUMNS) if table.is_dir() else records.columns(table)
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise InputError(f'{table}: the column "{twice[0]}" is named twice; rename one')
    if not rows:
        raise InputError(f"{table}: none of its first {FIRST_ROWS} rows can be read, or it has none; add rows")
    return [name for name in names if name], rows


def _of_folders(table: Path, columns: Columns) -> list[str]:
    """Return the advice for images in folders that may be of one patient each."""
    if not table.is_dir() or columns.group:
        return []
    folders = {PurePosixPath(image).parent for image, _ in tables.listing(str(table)) if image}
    if len(folders) < 2:
        return []
    return [f"the images lie in {len(folders)} folders; if each is of one patient, add --group-column folder"]


def _without_unused(columns: Columns, task: str | None) -> Columns:
    """Drop what the task does not read."""
    if (task or _task(columns)) == "vqa":
        return dataclasses.replace(columns, text=None)
    return dataclasses.replace(columns, question=None, answer=None, question_type=None, answer_type=None)


def _task(columns: Columns, rows: Sequence[Record] = ()) -> str:
    """Return the task that columns suggest: a text is a report by its column's name, or by headings in first rows."""
    if columns.question and columns.answer:
        return "vqa"
    if columns.text and plain(columns.text) in meaning_of.REPORT_NAMES:
        return "report"
    texts = [text for row in rows if (text := words(held(row, columns.text)))]
    headed = [text for text in texts if (found := reports.sections(text)).findings or found.impression]
    return "report" if len(headed) > len(texts) / 2 else "caption"


def _check(table: Path, names: Sequence[str], columns: Columns, task: str | None) -> None:
    """Make sure that the columns suffice for the task.

    Raises:
        UsageError: one is missing; the message names the columns there are.
    """
    there = f"; its columns are {listed(names)}"
    if columns.image is None:
        raise UsageError(f"{table}: no column names images{there}; say which: --image-column NAME")
    vqa = (task or _task(columns)) == "vqa"
    if vqa and not (columns.question and columns.answer):
        which = "question" if not columns.question else "answer"
        raise UsageError(f"{table}: no column holds the {which}{there}; say which: --{which}-column NAME")
    if not vqa and not columns.text:
        raise UsageError(
            f"{table}: cannot tell which column holds the texts{there}; say which: --text-column NAME, or "
            "--question-column NAME --answer-column NAME"
        )


def _embedded(cells: Sequence[Any]) -> bool:
    """Whether all pictures stand in the table, so that no files belong to it."""
    parts = [part for cell in cells for part in parts_of(cell)]
    return bool(parts) and not any(True for cell in cells for _ in names_in(cell))
