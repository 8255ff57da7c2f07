"""The lists that PMC gave out with its packages: the license of each article, and which were retracted.

`oa_file_list.csv`, `oa_file_list.txt` and the `NAME.filelist.csv` of `oa_bulk` archives. Columns are known by their
names, as the lists differ in them ("Accession ID", "AccessionID"; only the bulk lists have "Retracted"). `NO-CC CODE`
is no license.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from medvlm.data.sources.pmc import packages
from medvlm.data.sources.pmc.rights import Rights, metadata_rights

NAMES = ("oa_file_list.csv", "oa_file_list.txt")
_PMCID = re.compile(r"PMC(\d{1,12})(?![\dx])", re.IGNORECASE)
_LONGEST_LINE = 1 << 20
_MOST_LINES = 20
"""A quoted citation may hold line breaks; after as many, its quotation mark is taken for a slip."""


class FileList:
    """PMC id -> license code and retraction, in 12 bytes an article: the list of all of PMC holds millions."""

    def __init__(self, lines: Iterable[str]) -> None:
        import numpy as np

        told: dict[tuple[str, bool], int] = {}
        rows = ((number, told.setdefault((code, gone), len(told))) for number, code, gone in _rows(lines))
        table = np.fromiter(rows, dtype=[("id", np.int64), ("told", np.int32)])
        order = np.argsort(table["id"], kind="stable")
        self._ids: Any = table["id"][order]
        self._places: Any = table["told"][order]
        self._told = list(told)

    def code(self, pmcid: str) -> str | None:
        """Return the code of the article's license as the list writes it, None for one that it does not name."""
        return next((code for code, _ in self._of(pmcid)), None)

    def retracted(self, pmcid: str) -> bool:
        """Tell whether the list calls the article retracted."""
        return any(gone for _, gone in self._of(pmcid))

    def _of(self, pmcid: str) -> list[tuple[str, bool]]:
        import numpy as np

        match = _PMCID.fullmatch(pmcid)
        if not match:
            return []
        first, last = (int(np.searchsorted(self._ids, int(match[1]), side)) for side in ("left", "right"))
        return [self._told[int(place)] for place in self._places[first:last]]


class Lists:
    """The lists that may tell of the articles in one place, asked by PMC id; the first that names one decides."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._lists = [_loaded(str(path), path.stat().st_mtime_ns) for path in paths]

    def rights(self, pmcid: str | None) -> Rights | None:
        """Return the rights that the lists give an article."""
        codes = (code for found in self._lists if pmcid and (code := found.code(pmcid)) is not None)
        return metadata_rights(next(codes, None), "PMC file list")

    def retracted(self, pmcid: str | None) -> bool:
        """Tell whether any of the lists calls an article retracted."""
        return bool(pmcid) and any(found.retracted(pmcid or "") for found in self._lists)


def named_in(package: str, member: str) -> str | None:
    """Return the one PMC id in the name of an XML file, else of the folder or archive nearest to it.

    It stands for the article's own id where its XML states none. A name with several ids means none of them.
    """
    for part in reversed([*package.split("/"), *member.split("/")]):
        if found := {f"PMC{number}" for number in _PMCID.findall(part)}:
            return found.pop() if len(found) == 1 else None
    return None


def _rows(lines: Iterable[str]) -> Iterator[tuple[int, str, bool]]:
    """Yield each article's number, license and whether it was retracted; lines that are none are passed over."""
    columns: tuple[int, int, int] | None = None
    for row in _cells(lines):
        if columns is None:
            columns = _columns(row) or _unnamed(row)
        if columns and len(row) > max(columns[:2]):
            match = _PMCID.fullmatch(row[columns[0]].strip())
            if match:
                gone = row[columns[2]].strip().lower() if 0 <= columns[2] < len(row) else ""
                yield int(match[1]), row[columns[1]].strip(), gone in ("yes", "y", "true", "1")


def _cells(lines: Iterable[str]) -> Iterator[list[str]]:
    """Return the cells of each row, parted by what parts the columns' names or, without them, the first row."""
    tabs: bool | None = None
    ids: tuple[int, int] | None = None
    held: list[str] = []
    for line in (line.replace("\0", "") for line in lines if len(line) <= _LONGEST_LINE):
        if tabs is None:
            tabs, ids = _form(line)
        if tabs:
            yield line.rstrip("\r\n").split("\t")
            continue
        if held and (len(held) == _MOST_LINES or _is_row(line, ids)):
            for slip in held:  # a quotation mark that nothing closes
                yield from _parsed([slip])
            held = []
        held.append(line)
        if sum(part.count('"') for part in held) % 2 == 0:
            yield from _parsed(held)
            held = []
    for slip in held:
        yield from _parsed([slip])


def _form(line: str) -> tuple[bool | None, tuple[int, int] | None]:
    """Return whether tabs part the cells of a list, and its number of columns and the id's place, by its first line.

    Nothing is known by a line that is neither the columns' names nor a row, as the date above them.
    """
    for tabs, cells in ((True, line.rstrip("\r\n").split("\t")), (False, next(_parsed([line]), []))):
        if columns := _columns(cells) or _unnamed(cells):
            return tabs, (len(cells), columns[0])
    return None, None


def _is_row(line: str, ids: tuple[int, int] | None) -> bool:
    cells = next(_parsed([line]), [])
    return ids is not None and len(cells) == ids[0] and bool(_PMCID.fullmatch(cells[ids[1]].strip()))


def _parsed(lines: list[str]) -> Iterator[list[str]]:
    with contextlib.suppress(csv.Error):
        yield from csv.reader(lines)


def _columns(row: list[str]) -> tuple[int, int, int] | None:
    """Return the places of id, license and retraction by the names of the columns; -1 for a retraction never told."""
    names = [re.sub(r"\W", "", cell).lower() for cell in row]
    if not {"accessionid", "license"} <= {*names}:
        return None
    return names.index("accessionid"), names.index("license"), names.index("retracted") if "retracted" in names else -1


def _unnamed(row: list[str]) -> tuple[int, int, int] | None:
    """Return the columns of a list without their names (`oa_file_list.txt`: file, citation, id, PMID, license)."""
    ids = [index for index, cell in enumerate(row) if _PMCID.fullmatch(cell.strip())]
    return (ids[0], len(row) - 1, -1) if len(ids) == 1 and len(row) >= 3 else None


def beside(archive: Path, roots: Iterable[Path]) -> list[Path]:
    """Return the lists that may tell of an archive or article: its own, and those in its folder and in `roots`."""
    stem = archive.name
    for suffix in packages.ARCHIVE_SUFFIXES:
        stem = stem.removesuffix(suffix)
    own = [archive.with_name(f"{stem}.filelist.csv")] if stem != archive.name else []
    folders = dict.fromkeys([archive.parent, *roots])
    return [path for path in (*own, *(f / name for f in folders for name in NAMES)) if path.is_file()]


@functools.lru_cache(maxsize=4)
def _loaded(path: str, changed: int) -> FileList:
    with open(path, encoding="utf-8", errors="replace") as file:
        return FileList(file)
