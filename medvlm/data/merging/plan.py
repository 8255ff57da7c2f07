"""What becomes of samples whose id is in several parts, decided before the samples are read.

The same sample in two parts (pictures, task, question, text and rights are the same) is taken once: from the part that
holds it out, if one does, else from the first. Different samples with one id keep apart: those of later parts get the
part's name before their id.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from medvlm.data.inspect.folder import DataSet, rows_at
from medvlm.data.inspect.keys import key
from medvlm.data.splits import SPLITS
from medvlm.io import sha256_bytes

Array = np.ndarray[Any, Any]

_CONTENT = ("sha256", "task", "prompt", "target", "license", "license_scope", "third_party", "commercial_use")


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """Rows, by part and shard, that are not taken as they are: ascending numbers of rows in their shard."""

    repeated: dict[tuple[int, str], Array]
    """The same sample is taken from another part."""
    renamed: dict[tuple[int, str], Array]
    """Another sample of an earlier part has the id."""
    prefixes: list[str]
    """For each part what goes before such ids, with a slash; no id of any part begins so."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Rows:
    """All rows of all parts, in order."""

    ids: Array
    """V16 [n]."""
    contents: Array
    """V16 [n]: hash of `_CONTENT`, and of further views where the id is there again."""
    sides: Array
    """uint8 [n]: position in `SPLITS`."""
    starts: list[tuple[int, tuple[int, str]]]
    """(number of the first row, (part, shard)) in order."""
    heads: set[str]
    """What stands before the first slash of ids, where it begins with a part's name."""


def make(parts: Sequence[DataSet], labels: Sequence[str]) -> Plan:
    """Compare the ids of all parts; 33 bytes a row.

    Args:
        parts: in their order.
        labels: their names, all different.

    Raises:
        InputError: a shard cannot be read.
    """
    rows = _read(parts, labels)
    _add_views(parts, rows)
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
    return Plan(_placed(repeated, rows), _placed(renamed, rows), unused(labels, rows.heads))


def unused(names: Sequence[str], taken: Collection[str]) -> list[str]:
    """Return the names, numbered from 2 where one is taken or was there before."""
    found: list[str] = []
    for name in names:
        candidates = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        found.append(next(each for each in candidates if each not in taken and each not in found))
    return found


def _read(parts: Sequence[DataSet], labels: Sequence[str]) -> _Rows:
    ids, contents, sides = bytearray(), bytearray(), bytearray()
    starts: list[tuple[int, tuple[int, str]]] = []
    heads, names = set(), tuple(labels)
    for number, part in enumerate(parts):
        seen = set()
        for shard, batch in part.batches(("id", *_CONTENT)):
            if shard.name not in seen:
                seen.add(shard.name)
                starts.append((len(sides), (number, shard.name)))
            for row in batch.to_pylist():
                name = str(row["id"])
                ids += key(name)
                if name.startswith(names):
                    heads.add(name.partition("/")[0])
                contents += key("\0".join(str(row[name]) for name in _CONTENT))
            sides += bytes([SPLITS.index(shard.split)]) * batch.num_rows
    columns = np.frombuffer(ids, "V16"), np.frombuffer(contents, "V16"), np.frombuffer(sides, np.uint8)
    return _Rows(*columns, starts, heads)


def _add_views(parts: Sequence[DataSet], rows: _Rows) -> None:
    """Take further views into the content of rows whose id is there again; of no other row they are read."""
    firsts = {place: first for first, place in rows.starts}
    again = [row for same in _equal(rows.ids) for row in same]
    for (part, shard), inside in _placed(again, rows).items():
        for at, row in rows_at(parts[part].path / shard, inside.tolist(), ("more_images",)):
            views = [sha256_bytes(view["bytes"] or b"") for view in row["more_images"] or () if view]
            if views:
                place = firsts[part, shard] + at
                rows.contents[place] = np.void(key("\0".join([rows.contents[place].tobytes().hex(), *views])))


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
