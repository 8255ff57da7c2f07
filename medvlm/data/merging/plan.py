"""What becomes of samples whose id is in several parts, decided before any picture is read.

The same sample in two parts (picture, task, question and text are the same) is taken once: from the part that holds it
out, if one does, else from the first. Different samples with one id keep apart: those of later parts get the part's
name before their id.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from medvlm.data.inspect.folder import DataSet
from medvlm.data.inspect.keys import key
from medvlm.data.splits import SPLITS

Array = np.ndarray[Any, Any]

_CONTENT = ("sha256", "task", "prompt", "target")


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """Rows, by part and shard, that are not taken as they are: ascending numbers of rows in their shard."""

    repeated: dict[tuple[int, str], Array]
    """The same sample is taken from another part."""
    renamed: dict[tuple[int, str], Array]
    """Another sample of an earlier part has the id."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Rows:
    """All rows of all parts, in order."""

    ids: Array
    """V16 [n]."""
    contents: Array
    """V16 [n]: hash of `_CONTENT`."""
    sides: Array
    """uint8 [n]: position in `SPLITS`."""
    starts: list[tuple[int, tuple[int, str]]]
    """(number of the first row, (part, shard)) in order."""


def make(parts: Sequence[DataSet]) -> Plan:
    """Compare the ids of all parts; 33 bytes a row.

    Raises:
        InputError: a shard cannot be read.
    """
    rows = _read(parts)
    repeated: list[int] = []
    renamed: list[int] = []
    for same in _equal(rows.ids):
        kept: dict[bytes, int] = {}
        for row in same:
            content = rows.contents[row].tobytes()
            first = kept.setdefault(content, row)
            if first != row and rows.sides[row] > rows.sides[first]:
                kept[content] = row
        repeated += [row for row in same if row not in kept.values()]
        renamed += sorted(kept.values())[1:]
    return Plan(_placed(repeated, rows), _placed(renamed, rows))


def _read(parts: Sequence[DataSet]) -> _Rows:
    ids, contents, sides = bytearray(), bytearray(), bytearray()
    starts: list[tuple[int, tuple[int, str]]] = []
    for number, part in enumerate(parts):
        seen = set()
        for shard, batch in part.batches(("id", *_CONTENT)):
            if shard.name not in seen:
                seen.add(shard.name)
                starts.append((len(sides), (number, shard.name)))
            for row in batch.to_pylist():
                ids += key(str(row["id"]))
                contents += key("\0".join(str(row[name]) for name in _CONTENT))
            sides += bytes([SPLITS.index(shard.split)]) * batch.num_rows
    return _Rows(np.frombuffer(ids, "V16"), np.frombuffer(contents, "V16"), np.frombuffer(sides, np.uint8), starts)


def _equal(keys: Array) -> Iterator[list[int]]:
    """Yield the rows of each key that is there more than once, in order."""
    if not len(keys):
        return
    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    stops = np.append(starts[1:], len(keys))
    for at in np.flatnonzero(stops - starts > 1):
        yield order[starts[at] : stops[at]].tolist()


def _placed(rows: list[int], all_rows: _Rows) -> dict[tuple[int, str], Array]:
    """Return part and shard -> numbers of rows within it."""
    ranked = np.array(sorted(rows), np.int64)
    found = {}
    firsts = [first for first, _ in all_rows.starts]
    for (first, place), stop in zip(all_rows.starts, [*firsts[1:], len(all_rows.sides)], strict=True):
        inside = ranked[np.searchsorted(ranked, first) : np.searchsorted(ranked, stop)]
        if len(inside):
            found[place] = inside - first
    return found
