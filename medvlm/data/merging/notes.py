"""What lies beside the shards of a part and goes along: whom to name for its samples, and what was left out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from medvlm.data import credits
from medvlm.data.sample import Credit, Reject
from medvlm.errors import InputError

SLICE_BYTES = 4 << 20
"""So much of a file of rejects is one unit of input."""

_FIELDS = credits.COLUMNS[:-1]


class Credits:
    """`attribution.tsv` of a part, looked up by group; 16 bytes a group stay in memory.

    Raises:
        InputError: it is there and has another header than medvlm writes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        hashes, offsets = [], []
        if path.is_file():
            with open(path, "rb") as file:
                if file.readline().rstrip(b"\n") != "\t".join(credits.COLUMNS).encode():
                    raise InputError(f"{path}: its first line is not that of medvlm; prepare the data set again")
                offset = file.tell()
                for line in file:
                    hashes.append(_hash(line.partition(b"\t")[0]))
                    offsets.append(offset)
                    offset += len(line)
        order = np.argsort(np.array(hashes, np.uint64), kind="stable")
        self._hashes = np.array(hashes, np.uint64)[order]
        self._offsets = np.array(offsets, np.int64)[order]

    def of(self, groups: Iterator[str]) -> Iterator[Credit]:
        """Yield the credit of each group that has one."""
        if not len(self._hashes):
            return
        with open(self.path, "rb") as file:
            for group in groups:
                name = credits.cell(group).encode()
                at = int(np.searchsorted(self._hashes, np.uint64(_hash(name))))
                if at < len(self._hashes) and self._hashes[at] == np.uint64(_hash(name)):
                    file.seek(int(self._offsets[at]))
                    yield _credit(group, file.readline().decode("utf-8", "replace"))


def _hash(name: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")


def _credit(group: str, line: str) -> Credit:
    """Return a line of the file as a record; the apostrophes that `credits.cell` sets are set but once."""
    told: dict[str, Any] = dict(zip(_FIELDS, line.rstrip("\n").split("\t"), strict=False))
    year = told.get("year") or ""
    known: dict[str, Any] = {name: told.get(name) or "" for name in ("title", "authors", "copyright")}
    known |= {name: told.get(name) or None for name in ("journal", "doi", "pmcid", "license", "license_url")}
    return Credit(**known, group=group, year=int(year) if year.isdecimal() else None)


def slices(path: Path) -> list[tuple[int, int]]:
    """Return (start, stop) in bytes of the slices of a file of rejects; none where there is none."""
    size = path.stat().st_size if path.is_file() else 0
    return [(start, min(start + SLICE_BYTES, size)) for start in range(0, size, SLICE_BYTES)]


def rejects(path: Path, start: int, stop: int, label: str) -> Iterator[Reject]:
    """Yield the rejects whose line begins in a slice, each with the part's name before its place."""
    with open(path, "rb") as file:
        file.seek(max(start - 1, 0))
        if start:
            # To the first line that begins here: the one before belongs to the slice before.
            file.readline()
        while file.tell() < stop:
            begin, line = file.tell(), file.readline()
            try:
                told = json.loads(line)
                yield Reject(
                    str(told["source"]), f"{label}: {told['where']}", str(told["reason"]), str(told.get("detail", ""))
                )
            except (ValueError, KeyError, TypeError):
                yield Reject("merged", f"{label}: {path.name} byte {begin}", "damaged line of rejects")
