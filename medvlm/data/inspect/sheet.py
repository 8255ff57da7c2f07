"""Samples by chance, or of what is asked for, drawn on a sheet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from medvlm.data import contact_sheet
from medvlm.data.contact_sheet import LARGE, Candidate, Wanted
from medvlm.data.inspect.folder import DataSet, readable, rows_at
from medvlm.data.inspect.show import plain
from medvlm.data.sample import COLUMNS
from medvlm.errors import InputError, UsageError
from medvlm.io import check_plain
from medvlm.registry import nearest

_PICTURES = ("image", "more_images")


def conditions(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return ("column", "value") of each "column=value".

    Raises:
        UsageError: it is not of that form, or there is no such column.
    """
    found = []
    for text in texts:
        name, equals, value = text.partition("=")
        known = [column for column in COLUMNS if column not in _PICTURES]
        if not equals or name.strip() not in known:
            hint = nearest(name.strip(), known)
            raise UsageError(f'--where "{text}"{hint}: is not COLUMN=VALUE; columns: {", ".join(known)}')
        found.append((name.strip(), value.strip()))
    return tuple(found)


def check_out(out: Path, folder: Path) -> None:
    """Make sure that the sheet replaces nothing but an older sheet.

    Raises:
        UsageError: the name is no PNG's, lies in the data set's folder, or another file has it.
    """
    check_plain(out, "--out")
    if out.suffix.lower() != ".png":
        raise UsageError(f"--out {out}: the sheet is a PNG; name it {out.stem or 'sheet'}.png")
    if out.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"--out {out}: lies in the data set, whose files are its own; name another folder")
    if out.exists():
        with open(out, "rb") as file:
            if file.read(8) != b"\x89PNG\r\n\x1a\n":
                raise UsageError(f"--out {out}: is there and is no PNG; name another file")


def choose(data: DataSet, wanted: Wanted) -> list[Candidate]:
    """Return samples to draw, in the order of the sheet.

    Raises:
        InputError: there is no such sample or split, or a shard cannot be read.
    """
    data.of(wanted.split)
    with readable(data.path):
        chosen = contact_sheet.choose(data.path, wanted)
    if not chosen:
        asked = " and ".join(f"{name}={value}" for name, value in wanted.where) or "any value"
        raise InputError(f"{data.path}: no sample{f' of {wanted.split}' if wanted.split else ''} has {asked}")
    return chosen


def draw(data: DataSet, chosen: Sequence[Candidate], out: Path) -> contact_sheet.Sheet:
    """Draw the samples into a PNG file, larger than on the sheet of the card."""
    with readable(data.path):
        return contact_sheet.draw(out, data.path, chosen, data.title, LARGE)


def lines(data: DataSet, chosen: Sequence[Candidate]) -> Iterator[str]:
    """Yield a line for each sample: its number on the sheet, id, split, task and license."""
    places: dict[str, list[int]] = {}
    for one in chosen:
        places.setdefault(one.shard, []).append(one.row)
    told = {}
    for shard, rows in places.items():
        for place, row in rows_at(data.path / "data" / shard, rows, ("task", "license")):
            told[shard, place] = f"{row['task']}  {row['license'] or 'no license stated'}"
    for number, one in enumerate(chosen, 1):
        hidden = "" if one.shown else "  (picture not shown: it may not be passed on; --private draws it)"
        yield plain(f"{number:>4}. {one.id}  {one.split}  {told[one.shard, one.row]}{hidden}")
