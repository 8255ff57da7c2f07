"""Whether a data set keeps what its manifest and the schema promise: files, columns and numbers.

`quick` reads names, sizes and the parquet footers; `check` reads everything where it is asked to. Each broken promise
is one line.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medvlm.data.inspect.check_rows import Advance, RowCheck
from medvlm.data.inspect.folder import DataSet, outside, readable
from medvlm.data.output import MANIFEST
from medvlm.data.write import Shard
from medvlm.errors import InputError
from medvlm.io import sha256_file, stable_hash


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """What a check came to: a line for each broken promise, and what one should know besides."""

    broken: list[str]
    notes: list[str]


def check(data: DataSet, whole: bool, advance: Advance) -> Found:
    """Hold a data set against its manifest and the schema.

    Args:
        whole: read everything, not names, sizes and footers only. Rows are read where the shards can be.
        advance: told (rows done, rows in all).
    """
    broken = list(quick(data))
    if not whole:
        return Found(broken, [])
    broken += hashes(data)
    if any(line.startswith("data") for line in broken):
        return Found([*broken, "rows were not read, since shards are not as promised"], [])
    rows = RowCheck(data, advance)
    try:
        broken += rows.broken()
    except InputError as error:
        broken.append(str(error))
    return Found(broken, rows.notes)


def quick(data: DataSet) -> Iterator[str]:
    """Yield a line for each promise that names, sizes, footers and the manifest itself show to be broken."""
    yield from _names(data)
    for shard in data.shards:
        yield from _shard(data, shard)
    yield from _files(data)
    yield from _sums(data)


def hashes(data: DataSet) -> Iterator[str]:
    """Yield a line for each file whose hash is not the manifest's; absent files are for `quick`."""
    listed = {shard.name: shard.sha256 for shard in data.shards}
    listed |= {name: str(told.get("sha256")) for name, told in _listed(data).items()}
    for name, sha256 in listed.items():
        path = data.path / name
        if not outside(data.path, name) and path.is_file() and sha256_file(path) != sha256:
            yield f"{name}: its content is not what {MANIFEST} says (SHA-256 differs)"


def sound(data: DataSet) -> DataSet:
    """Return the data set if its files can be read as they are.

    Raises:
        InputError: a promise that `quick` looks at is broken; the first is told.
    """
    broken = list(quick(data))
    if broken:
        more = f"; and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise InputError(f"{data.path}: {broken[0]}{more} (medvlm data show {data.path} tells all)")
    return data


def _names(data: DataSet) -> Iterator[str]:
    if outside(data.path, "data"):
        yield "data: leads out of the folder; copy what it links to (cp -rL)"
        return
    names = {shard.name for shard in data.shards}
    if len(names) < len(data.shards):
        yield f"{MANIFEST} lists a shard twice"
    there = {f"data/{path.name}" for path in (data.path / "data").glob("*.parquet")}
    for name in sorted(there - names):
        yield f"{name}: is not in {MANIFEST}"


def _shard(data: DataSet, shard: Shard) -> Iterator[str]:
    path = data.path / shard.name
    if outside(data.path, shard.name):
        yield f"{shard.name}: leads out of the folder; copy what it links to (cp -L)"
    elif not path.is_file():
        yield f"{shard.name}: is missing"
    else:
        size = path.stat().st_size
        if size != shard.bytes:
            yield f"{shard.name}: has {size} bytes, {MANIFEST} says {shard.bytes}"
        yield from _footer(data, shard)


def _footer(data: DataSet, shard: Shard) -> Iterator[str]:
    path = data.path / shard.name
    try:
        with readable(path), pq.ParquetFile(path) as file:
            rows, columns = file.metadata.num_rows, file.schema_arrow
    except InputError as error:
        yield str(error).replace(str(path), shard.name, 1)
        return
    if rows != shard.rows:
        yield f"{shard.name}: has {rows} rows, {MANIFEST} says {shard.rows}"
    yield from (f"{shard.name}: {problem}" for problem in _columns(data.columns(), columns))


def _columns(wanted: list[pa.Field], found: pa.Schema) -> Iterator[str]:
    """Yield how the columns of a shard differ from those of the schema."""
    for field in wanted:
        if field.name not in found.names:
            yield f"lacks the column {field.name}"
        elif found.field(field.name).type != field.type:
            yield f"column {field.name} is {found.field(field.name).type}, the schema says {field.type}"
    names = [field.name for field in wanted]
    extra = [name for name in found.names if name not in names]
    if extra:
        yield f"has columns that the schema does not know: {', '.join(map(repr, extra[:5]))}"
    elif found.names != names and set(found.names) == set(names):
        yield "has its columns in another order than the schema"


def _listed(data: DataSet) -> dict[str, dict[str, Any]]:
    """Return the files beside the shards, with size and hash; names that lead elsewhere are not believed."""
    files = data.manifest.get("files")
    if not isinstance(files, dict):
        return {}
    return {name: told for name, told in files.items() if "/" not in name and name != ".." and isinstance(told, dict)}


def _files(data: DataSet) -> Iterator[str]:
    # The first sets of schema 2 did not list them.
    if data.version > 2 and not _listed(data):
        yield f"{MANIFEST}: names no file beside the shards, so that nothing vouches for credits and rejects"
    for name, told in _listed(data).items():
        path = data.path / name
        if outside(data.path, name):
            yield f"{name}: leads out of the folder; copy what it links to (cp -L)"
        elif not path.is_file():
            yield f"{name}: is missing"
        elif path.stat().st_size != told.get("bytes"):
            yield f"{name}: has {path.stat().st_size} bytes, {MANIFEST} says {told.get('bytes')}"


def _sums(data: DataSet) -> Iterator[str]:
    """Yield where the numbers of the manifest disagree with one another."""
    rows: Counter[str] = Counter()
    for shard in data.shards:
        rows[shard.split] += shard.rows
    counts = data.manifest["counts"]
    if counts.get("samples") != rows.total():
        yield f"{MANIFEST}: counts {counts.get('samples')} samples, its shards {rows.total()}"
    split = counts.get("split")
    if split != {name: count for name, count in rows.items() if count}:
        yield f"{MANIFEST}: counts by split {split}, its shards {dict(rows)}"
    made = stable_hash([(shard.name, shard.sha256) for shard in data.shards])
    if data.manifest.get("fingerprint") != made:
        yield f"{MANIFEST}: its fingerprint is not that of its shards"
