"""What changed between two versions of a data set: samples, their columns and pictures, splits, licenses.

Samples are known by their id. Of each row hashes are kept, about 400 bytes; of pictures the stored hash is compared,
and only further views are read.
"""

from __future__ import annotations

import array
import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from medvlm.data.inspect.folder import DataSet, rows_at
from medvlm.data.inspect.keys import key
from medvlm.data.inspect.show import plain
from medvlm.data.sample import COLUMNS
from medvlm.data.splits import SPLITS
from medvlm.errors import InputError

TOLD = tuple(name for name in COLUMNS if name not in ("id", "image"))
"""Columns that are compared; `sha256` stands for the picture."""

_AT_ONCE = 64
_SHORT = 60


@dataclasses.dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of one version, in order."""

    keys: np.ndarray[Any, Any]
    """V16 [n]: of the ids."""
    cells: np.ndarray[Any, Any]
    """int64 [n, columns]: hash of each value of `TOLD`."""
    sides: np.ndarray[Any, Any]
    """uint8 [n]: position in `SPLITS`."""


def compare(old: DataSet, new: DataSet, limit: int = 10) -> dict[str, Any]:
    """Return the differences as plain values; nothing but facts where the fingerprints are the same.

    "counts" are of all; of "added", "removed", "changed" and "moved" (to another split) at most `limit` samples each
    are named, in the order of the newer version ("removed": of the older one); 0 names all.

    Raises:
        InputError: a shard cannot be read, or an id is there twice.
    """
    same = old.manifest.get("fingerprint") == new.manifest.get("fingerprint")
    told = {"old": _facts(old), "new": _facts(new), "identical": same}
    if same:
        return told
    before, after = _read(old), _read(new)
    _, one, other = np.intersect1d(before.keys, after.keys, assume_unique=True, return_indices=True)
    order = np.argsort(other)
    one, other = one[order], other[order]
    differs = before.cells[one] != after.cells[other]
    changed, moved = differs.any(axis=1), before.sides[one] != after.sides[other]
    lost = np.setdiff1d(np.arange(len(before.keys)), one, assume_unique=True)
    fresh = np.setdiff1d(np.arange(len(after.keys)), other, assume_unique=True)
    counts = {"added": len(fresh), "removed": len(lost), "changed": int(changed.sum()), "moved": int(moved.sum())}
    first = slice(limit or None)
    pairs = [pairs[first] for pairs in (one[changed], other[changed], one[moved], other[moved])]
    return {
        **told,
        "counts": counts,
        "columns": _by_column(differs),
        "moves": _moves(before.sides[one[moved]], after.sides[other[moved]]),
        "licenses": _licenses(old, new),
        "added": [row["id"] for row in _rows(new, fresh[first], ("id",))],
        "removed": [row["id"] for row in _rows(old, lost[first], ("id",))],
        "changed": list(_changes(old, new, pairs[0], pairs[1])),
        "moved": [
            {"id": row["id"], "from": SPLITS[before.sides[was]], "to": SPLITS[after.sides[now]]}
            for row, was, now in zip(_rows(new, pairs[3], ("id",)), pairs[2], pairs[3], strict=True)
        ],
    }


def _facts(data: DataSet) -> dict[str, Any]:
    return {
        "path": str(data.path),
        "title": data.title,
        "fingerprint": data.manifest.get("fingerprint"),
        "split_hash": data.manifest.get("split_hash"),
        "schema": data.version,
        "samples": sum(shard.rows for shard in data.shards),
        "splits": {split: sum(shard.rows for shard in data.of(split)) for split in data.splits},
        "command": data.manifest.get("command"),
    }


def _read(data: DataSet) -> _Rows:
    keys, sides, cells = bytearray(), bytearray(), array.array("q")
    for shard, batch in data.batches(("id", *TOLD), rows=_AT_ONCE):
        columns = [batch.column(name).to_pylist() for name in ("id", *TOLD)]
        for row in zip(*columns, strict=True):
            keys += key(str(row[0]))
            cells.extend(map(_cell, row[1:]))
        sides += bytes([SPLITS.index(shard.split)]) * batch.num_rows
    known = np.frombuffer(keys, "V16")
    if len(np.unique(known)) < len(known):
        raise InputError(f"{data.path}: ids are not unique; medvlm data show {data.path} --check tells more")
    return _Rows(known, np.frombuffer(cells, np.int64).reshape(-1, len(TOLD)), np.frombuffer(sides, np.uint8))


def _cell(value: Any) -> int:
    """Return a hash of a value that is the same within this process."""
    if isinstance(value, list):
        return hash(tuple(item["bytes"] if isinstance(item, dict) else item for item in value))
    return hash(value)


def _by_column(differs: np.ndarray[Any, Any]) -> dict[str, int]:
    counts = [(name, int(count)) for name, count in zip(TOLD, differs.sum(axis=0), strict=True) if count]
    return dict(sorted(counts, key=lambda item: (-item[1], item[0])))


def _moves(was: np.ndarray[Any, Any], now: np.ndarray[Any, Any]) -> dict[str, int]:
    """Return "test to train" -> how many; what was held out and is trained on now comes first."""
    ways = Counter(zip(was.tolist(), now.tolist(), strict=True))
    ranked = sorted(ways.items(), key=lambda item: (item[0][1], -item[0][0]))
    return {f"{SPLITS[one]} to {SPLITS[other]}": count for (one, other), count in ranked}


def _licenses(old: DataSet, new: DataSet) -> dict[str, list[int]]:
    """Return license -> [samples before, samples now], where they differ."""
    before, after = old.manifest["licenses"], new.manifest["licenses"]
    pairs = {name: [before.get(name, 0), after.get(name, 0)] for name in dict.fromkeys([*before, *after])}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _rows(data: DataSet, places: Any, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Yield the rows at some places (numbers of rows in the whole data set), in the order of `places`."""
    wanted = [int(place) for place in places]
    found: dict[int, dict[str, Any]] = {}
    start = 0
    for shard in data.shards:
        inside = [place - start for place in wanted if start <= place < start + shard.rows]
        if inside:
            found |= {start + at: row for at, row in rows_at(data.path / shard.name, inside, columns)}
        start += shard.rows
    yield from (found[place] for place in wanted)


def _changes(old: DataSet, new: DataSet, before: Any, after: Any) -> Iterator[dict[str, Any]]:
    """Yield {"id", "columns": {name: [old, new]}} of changed samples; of views only their number is told."""
    columns = ("id", *TOLD)
    for was, now in zip(_rows(old, before, columns), _rows(new, after, columns), strict=True):
        names = [name for name in TOLD if _cell(was[name]) != _cell(now[name])]
        yield {"id": now["id"], "columns": {name: [_value(was[name]), _value(now[name])] for name in names}}


def _value(value: Any) -> Any:
    views = isinstance(value, list) and any(isinstance(item, dict) for item in value)
    return f"{len(value)} further views" if views else value


def lines(told: Mapping[str, Any]) -> Iterator[str]:
    """Yield the differences as lines to print."""
    old, new = told["old"], told["new"]
    if told["identical"]:
        yield plain(f"identical: {old['path']} and {new['path']} (fingerprint {old['fingerprint']})")
        return
    counts = told["counts"]
    for name, data in (("old", old), ("new", new)):
        splits = " · ".join(f"{split} {count:,}" for split, count in data["splits"].items())
        yield plain(f"{name}  {data['title']}  [{data['path']}]: {data['samples']:,} samples: {splits}")
    if not any(counts.values()):
        older = f", schema {old['schema']} and {new['schema']}" if old["schema"] != new["schema"] else ""
        yield f"the same samples in the same splits; only the files or their order differ{older}"
        return
    if counts["added"] == new["samples"] and counts["removed"] == old["samples"]:
        yield "no id is in both: these are not two versions of one data set"
    yield " · ".join(f"{name} {count:,}" for name, count in counts.items())
    yield from _move_lines(told)
    for license, (before, after) in told["licenses"].items():
        yield plain(f"license {license}: {before:,} samples, now {after:,}")
    if told["columns"]:
        named = {("picture" if name == "sha256" else name): count for name, count in told["columns"].items()}
        yield "changed columns: " + " · ".join(f"{name} {count:,}" for name, count in named.items())
    for row in told["changed"]:
        yield plain(f"  ~ {row['id']}")
        yield from (plain(f"      {name}: {_short(a)} -> {_short(b)}") for name, (a, b) in row["columns"].items())
    yield from _more("changed", told)
    for sign, name in (("+", "added"), ("-", "removed")):
        yield from (plain(f"  {sign} {each}") for each in told[name])
        yield from _more(name, told)


def _move_lines(told: Mapping[str, Any]) -> Iterator[str]:
    """Yield which samples changed sides, what was held out and is trained on now first."""
    for way, count in told["moves"].items():
        version = "old" if way.startswith("train to") else "new" if way.endswith("to train") else ""
        why = f": models trained on the {version} version have seen them" if version else ""
        yield f"{'DANGER: ' if version else ''}{count:,} samples moved from {way}{why}"
    for row in told["moved"]:
        yield plain(f"  > {row['id']}: {row['from']} to {row['to']}")
    yield from _more("moved", told)


def _more(name: str, told: Mapping[str, Any]) -> Iterator[str]:
    left = told["counts"][name] - len(told[name])
    if left:
        yield f"  … and {left:,} more {name} (--limit 0 names all)"


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    text = " | ".join(map(str, value)) if isinstance(value, list) else str(value)
    return f'"{text}"' if len(text) <= _SHORT else f'"{text[:_SHORT].rstrip()}…"'
