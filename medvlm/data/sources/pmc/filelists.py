"""The lists that PMC gave out with its packages: which license an article has where its XML states none.

`oa_file_list.csv`, `oa_file_list.txt` and the `NAME.filelist.csv` of `oa_bulk` archives. Columns are known by their
names, as the lists differ in them ("Accession ID", "AccessionID"). `NO-CC CODE` is no license.
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
_PMCID = re.compile(r"PMC(\d{1,12})(?!\d)", re.IGNORECASE)
_LONGEST_LINE = 1 << 20


class FileList:
    """PMC id -> license code, in 12 bytes an article: the list of all of PMC holds millions."""

    def __init__(self, lines: Iterable[str]) -> None:
        import numpy as np

        codes: dict[str, int] = {}
        rows = ((number, codes.setdefault(code, len(codes))) for number, code in _rows(lines))
        table = np.fromiter(rows, dtype=[("id", np.int64), ("code", np.int32)])
        order = np.argsort(table["id"], kind="stable")
        self._ids: Any = table["id"][order]
        self._licenses: Any = table["code"][order]
        self._codes = list(codes)

    def code(self, pmcid: str) -> str | None:
        """Return the code of the article's license as the list writes it, None for one that it does not name."""
        import numpy as np

        match = _PMCID.fullmatch(pmcid)
        place = int(np.searchsorted(self._ids, int(match[1]))) if match else len(self._ids)
        if not match or place == len(self._ids) or self._ids[place] != int(match[1]):
            return None
        return self._codes[int(self._licenses[place])]


def _rows(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Yield the number of each article and its license; lines that are none are passed over."""
    columns: tuple[int, int] | None = None
    for row in _cells(lines):
        if columns is None:
            columns = _columns(row) or _unnamed(row)
        if columns and len(row) > max(columns):
            match = _PMCID.fullmatch(row[columns[0]].strip())
            if match:
                yield int(match[1]), row[columns[1]].strip()


def _cells(lines: Iterable[str]) -> Iterator[list[str]]:
    """Return the cells of each line, parted by tabs or, in CSV, by commas."""
    for line in lines:
        if len(line) > _LONGEST_LINE:
            continue
        if "\t" in line:
            yield line.rstrip("\r\n").split("\t")
        else:
            with contextlib.suppress(csv.Error):
                yield from csv.reader([line.replace("\0", "")])


def _columns(row: list[str]) -> tuple[int, int] | None:
    names = [re.sub(r"\W", "", cell).lower() for cell in row]
    return (names.index("accessionid"), names.index("license")) if {"accessionid", "license"} <= {*names} else None


def _unnamed(row: list[str]) -> tuple[int, int] | None:
    """Return the columns of a list without their names (`oa_file_list.txt`: file, citation, id, PMID, license)."""
    ids = [index for index, cell in enumerate(row) if _PMCID.fullmatch(cell.strip())]
    return (ids[0], len(row) - 1) if len(ids) == 1 and len(row) >= 3 else None


def beside(archive: Path, roots: Iterable[Path]) -> list[Path]:
    """Return the lists that may tell of an archive or article: its own, and those in its folder and in `roots`."""
    stem = archive.name
    for suffix in packages.ARCHIVE_SUFFIXES:
        stem = stem.removesuffix(suffix)
    own = [archive.with_name(f"{stem}.filelist.csv")] if stem != archive.name else []
    folders = dict.fromkeys([archive.parent, *roots])
    return [path for path in (*own, *(f / name for f in folders for name in NAMES)) if path.is_file()]


def rights(name: str, archive: Path, roots: Iterable[Path]) -> Rights | None:
    """Return the rights that a list beside an archive gives the article whose PMC id stands in `name`."""
    named = _PMCID.findall(name)
    if not named:
        return None
    for path in beside(archive, roots):
        code = _loaded(str(path), path.stat().st_mtime_ns).code(f"PMC{named[-1]}")
        if code is not None:
            return metadata_rights(code, "PMC file list")
    return None


@functools.lru_cache(maxsize=4)
def _loaded(path: str, changed: int) -> FileList:
    with open(path, encoding="utf-8", errors="replace") as file:
        return FileList(file)
