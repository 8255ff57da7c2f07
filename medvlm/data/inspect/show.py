"""What a data set is, in words: its facts, and some of its rows as a person reads them."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from PIL import Image as PILImage

from medvlm.data.inspect.folder import PICTURES, DataSet, rows_at
from medvlm.data.sample import COLUMNS
from medvlm.data.schema import SCHEMA_VERSION
from medvlm.data.split_leakage import sentences
from medvlm.errors import InputError

SHORT = 300
"""So many characters of a text are shown where several rows are."""


def facts(data: DataSet) -> dict[str, Any]:
    """Return what the manifest tells of the data set, in a fixed form."""
    told = data.manifest
    counts = told["counts"]
    return {
        "path": str(data.path),
        "title": data.title,
        "source": told.get("source"),
        "synthetic": bool(told.get("synthetic")),
        "samples": sum(shard.rows for shard in data.shards),
        "groups": counts.get("groups"),
        "splits": {split: sum(shard.rows for shard in data.of(split)) for split in data.splits},
        "tasks": counts.get("task", {}),
        "licenses": told["licenses"],
        "commercial_use": counts.get("commercial_use", {}),
        "left_out": told.get("drops", {}),
        "leakage": data.leakage,
        "shards": len(data.shards),
        "bytes": sum(shard.bytes for shard in data.shards),
        "schema": data.version,
        "medvlm": told.get("medvlm"),
        "command": told.get("command"),
        "fingerprint": told.get("fingerprint"),
        "split_hash": told.get("split_hash"),
    }


def lines(told: Mapping[str, Any]) -> list[str]:
    """Return the facts as lines to print."""
    kind = "synthetic, made by a program" if told["synthetic"] else ""
    older = f" (of {SCHEMA_VERSION}: later columns are empty)" if told["schema"] < SCHEMA_VERSION else ""
    size = f"{told['shards']} shard{'s' if told['shards'] != 1 else ''}, {told['bytes'] / 1e6:,.1f} MB"
    rows = [
        ("source", " · ".join(filter(None, (told["source"], kind)))),
        ("samples", f"{told['samples']:,} in {_number(told['groups'])} groups; {size}"),
        ("splits", _listed(told["splits"])),
        ("tasks", _listed(told["tasks"])),
        ("licenses", _listed(told["licenses"])),
        ("commercial", _listed(told["commercial_use"])),
        ("left out", _listed(told["left_out"]) or "nothing"),
        *(("leaks", line) for line in sentences(told["leakage"])),
        ("schema", f"{told['schema']}{older}, made by medvlm {told['medvlm']}"),
        ("command", told["command"] or "not recorded"),
        ("fingerprint", told["fingerprint"] or "none"),
        ("split hash", told["split_hash"] or "none"),
    ]
    return [plain(f"{told['title']}  [{told['path']}]"), *(plain(f"  {name:<12} {text}") for name, text in rows)]


def _number(count: Any) -> str:
    return f"{count:,}" if isinstance(count, int) else "an unknown number of"


def _listed(counts: Any) -> str:
    if not isinstance(counts, Mapping):
        return ""
    return " · ".join(f"{name} {_number(count)}" for name, count in counts.items())


def plain(text: str) -> str:
    """Return a text on one line without anything that would steer a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text).rstrip()


def rows(data: DataSet, split: str | None, count: int, ids: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
    """Yield the first rows, or those with the given ids; a picture is told by format, size, bytes and name.

    Args:
        split: only of this split.
        count: at most so many, where no ids are given.

    Raises:
        InputError: no such split or id, or a shard cannot be read.
    """
    found = _by_id(data, split, ids) if ids else itertools.islice(_all(data, split), count)
    for at, row in found:
        pictures = [_picture(picture) for picture in [row["image"], *(row["more_images"] or [])]]
        yield {**row, "in": at, "image": pictures[0], "more_images": pictures[1:]}


def _all(data: DataSet, split: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    for shard, batch in data.batches(COLUMNS, split, rows=PICTURES):
        yield from ((shard.split, row) for row in batch.to_pylist())


def _by_id(data: DataSet, split: str | None, ids: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    places: dict[str, list[int]] = {}
    missing, seen = set(ids), dict.fromkeys((shard.name for shard in data.shards), 0)
    for shard, batch in data.batches(["id"], split):
        for name in batch.column(0).to_pylist():
            if name in ids:
                places.setdefault(shard.name, []).append(seen[shard.name])
                missing.discard(name)
            seen[shard.name] += 1
    if missing:
        where = f"{data.path}, split {split}" if split else str(data.path)
        raise InputError(f'{where}: no sample has the id "{min(missing)}"')
    for shard in data.shards:
        for _, row in rows_at(data.path / shard.name, places.get(shard.name, []), COLUMNS):
            yield shard.split, row


def _picture(stored: Mapping[str, Any] | None) -> dict[str, Any]:
    content = (stored or {}).get("bytes") or b""
    told: dict[str, Any] = {"name": (stored or {}).get("path"), "bytes": len(content)}
    try:
        with PILImage.open(io.BytesIO(content)) as image:
            return {**told, "format": image.format, "width": image.width, "height": image.height}
    except Exception:
        # Damaged bytes are answered with nearly any exception; what they are is for the check.
        return {**told, "format": None, "width": None, "height": None}


def row_lines(row: Mapping[str, Any], whole: bool = False) -> list[str]:
    """Return a row as lines to print: what is not stated is left out, long texts are cut unless `whole`."""
    shown = [plain(f"{row['id']}  ({row['in']})")]
    for name in COLUMNS:
        text = _text(name, row[name])
        if name != "id" and text:
            kept = text if whole or len(text) <= SHORT else f"{text[:SHORT].rstrip()}… ({len(text):,} characters)"
            shown.append(plain(f"  {name:<18} {kept}"))
    return shown


def _text(name: str, value: Any) -> str:
    if name == "image":
        return _seen(value)
    if name == "more_images":
        return " | ".join(map(_seen, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " | ".join(map(str, value))
    return "" if value is None else str(value)


def _seen(picture: Mapping[str, Any]) -> str:
    size = f"{picture['width']} x {picture['height']}" if picture["format"] else "cannot be read"
    return f"{picture['format'] or 'picture'} {size}, {picture['bytes']:,} bytes, {picture['name'] or 'no name'}"
