"""A prepared data set opened for reading: its manifest, its shards, its rows a few at a time.

What lies in the folder is not trusted: names in the manifest that no data set has, links that lead elsewhere and files
that are no parquet end in one `InputError`. Sets of an older schema are read with their missing columns empty.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medvlm.data.output import MANIFEST, read_json, read_manifest
from medvlm.data.schema import SCHEMA, SCHEMA_VERSION
from medvlm.data.split_leakage import PAIRS
from medvlm.data.splits import SPLITS
from medvlm.data.write import Shard
from medvlm.errors import InputError

ROWS = 2048
"""Rows read at once where no picture is."""
PICTURES = 16
"""Rows read at once with their pictures."""

ADDED = {3: frozenset({"official_split", "concepts", "views", "indication", "identifiers"})}
"""Columns by the version of the schema that brought them; a set of an older version lacks them."""

_MEASURED = ("images", "near_images", "of_images", "texts", "repeats", "of_samples", "groups")
_NEEDED: dict[str, type] = {
    "schema": int,
    "source": str,
    "fingerprint": str,
    "shards": list,
    "counts": dict,
    "licenses": dict,
    "settings": dict,
    "card": dict,
}


@dataclasses.dataclass(frozen=True, slots=True)
class DataSet:
    """A folder with a manifest of ours; whether it keeps what that promises is for `check`."""

    path: Path
    manifest: dict[str, Any]
    shards: tuple[Shard, ...]

    @property
    def version(self) -> int:
        """The version of its schema."""
        version: int = self.manifest["schema"]
        return version

    @property
    def title(self) -> str:
        """As its card calls it."""
        return str(self.manifest["card"].get("title") or self.manifest["source"] or self.path.name)

    @property
    def splits(self) -> list[str]:
        """The splits that have shards, in their order."""
        return list(dict.fromkeys(shard.split for shard in self.shards))

    @property
    def leakage(self) -> dict[str, dict[str, int]]:
        """What `prepare` measured that the sides of its split share; empty of older sets, and of damaged ones."""
        told = self.manifest.get("leakage")
        made = told.get("made") if isinstance(told, dict) else None
        pairs = made.items() if isinstance(made, dict) else ()
        known = {f"{one}/{other}" for one, other in PAIRS}
        return {
            pair: {name: found[name] for name in _MEASURED}
            for pair, found in pairs
            if pair in known and isinstance(found, dict) and all(isinstance(found.get(name), int) for name in _MEASURED)
        }

    def columns(self) -> list[pa.Field]:
        """Return the columns that a set of this version has."""
        later = set().union(*(names for version, names in ADDED.items() if version > self.version))
        return [field for field in SCHEMA if field.name not in later]

    def of(self, split: str | None) -> list[Shard]:
        """Return the shards of a split, or all.

        Raises:
            InputError: the data set has no such split.
        """
        found = [shard for shard in self.shards if split in (None, shard.split)]
        if split is not None and not found:
            raise InputError(f'{self.path}: has no split "{split}"; it has {", ".join(self.splits) or "none"}')
        return found

    def batches(
        self, columns: Sequence[str], split: str | None = None, rows: int = ROWS
    ) -> Iterator[tuple[Shard, pa.RecordBatch]]:
        """Yield the rows in order, at most `rows` at once, with `columns` of `SCHEMA`.

        Raises:
            InputError: no such split, or a shard cannot be read.
        """
        for shard in self.of(split):
            for batch in read(self.path / shard.name, columns, rows):
                yield shard, batch


def open_set(path: Path) -> DataSet:
    """Open the data set that `medvlm prepare` left in `path`.

    Raises:
        InputError: there is none, its manifest is damaged, or it was made by a later version.
    """
    if not path.is_dir():
        raise InputError(f"{path} is {'a file' if path.exists() else 'not there'}; name the folder of a data set")
    manifest = read_manifest(path)
    if manifest is None:
        raise InputError(f"{path} {_instead(path)}")
    damaged = InputError(f"{path}/{MANIFEST} is damaged; prepare the data set again with --overwrite")
    if any(not isinstance(manifest.get(key), kind) for key, kind in _NEEDED.items()):
        raise damaged
    if not all(isinstance(count, int) for count in manifest["licenses"].values()):
        raise damaged
    if manifest["schema"] > SCHEMA_VERSION:
        raise InputError(
            f"{path} has schema {manifest['schema']}, this medvlm knows {SCHEMA_VERSION}; install a newer one"
        )
    try:
        shards = tuple(_shard(told) for told in manifest["shards"])
    except (KeyError, TypeError, ValueError) as error:
        raise damaged from error
    return DataSet(path, manifest, shards)


def _instead(path: Path) -> str:
    """Return what a folder without a manifest of ours is, and what to do."""
    if read_json(path / MANIFEST):
        return f"holds a {MANIFEST} that medvlm prepare did not write; name the folder of a data set"
    if (path / ".work").is_dir():
        return "holds a data set that is not finished; medvlm prepare status tells what is left"
    if any(next(path.glob(where), None) is not None for where in ("*.parquet", "*/*.parquet")):
        return "holds parquet files, but not of medvlm; medvlm prepare makes a data set of them"
    return f"holds no {MANIFEST}, so it is no finished data set; run medvlm prepare first"


def _shard(told: dict[str, Any]) -> Shard:
    shard = Shard(*(told[field.name] for field in dataclasses.fields(Shard)))
    sane = isinstance(shard.rows, int) and isinstance(shard.bytes, int) and isinstance(shard.sha256, str)
    name = re.compile(rf"data/({'|'.join(SPLITS)})-\d{{5}}-of-\d{{5}}\.parquet").fullmatch(shard.name)
    if not sane or name is None or name[1] != shard.split:
        raise ValueError(f"no shard of ours: {told}")
    return shard


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn whatever reading a damaged parquet file throws into one line.

    Raises:
        InputError: with the file's name and the reason.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        words = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read ({words[:160]}); fetch or prepare it again") from error


def outside(folder: Path, name: str) -> bool:
    """Whether a file of the data set is a link, or lies behind one, that leads out of its folder."""
    try:
        return not (folder / name).resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):
        return True


def read(path: Path, columns: Sequence[str], rows: int = ROWS) -> Iterator[pa.RecordBatch]:
    """Yield the rows of one shard, at most `rows` at once; columns that it lacks are empty.

    Raises:
        InputError: it is no whole parquet file.
    """
    with contextlib.ExitStack() as stack:
        with readable(path):
            file = stack.enter_context(pq.ParquetFile(path))
            present = set(file.schema_arrow.names)
            # Without any column a batch would not know how many rows it has.
            batches = file.iter_batches(rows, columns=[name for name in columns if name in present] or ["id"])
        while True:
            with readable(path):
                batch = next(batches, None)
                if batch is None:
                    return
                # Damage that decompresses can still be no text.
                batch.validate(full=True)
                whole = _filled(batch, columns)
            yield whole


def _filled(batch: pa.RecordBatch, columns: Sequence[str]) -> pa.RecordBatch:
    """Return `columns` of a batch in this order, with nulls for those that it lacks."""
    names = set(batch.schema.names)
    fields = [SCHEMA.field(name) for name in columns]
    arrays = [batch.column(f.name) if f.name in names else pa.nulls(batch.num_rows, f.type) for f in fields]
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))


def rows_at(path: Path, places: Sequence[int], columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (place, row) for some rows of one shard, in ascending order; a row group at a time is read, and each once.

    Raises:
        InputError: the shard cannot be read.
    """
    wanted = sorted(set(places))
    with contextlib.ExitStack() as stack:
        with readable(path):
            file = stack.enter_context(pq.ParquetFile(path))
            names = [name for name in columns if name in file.schema_arrow.names]
        start = 0
        for number in range(file.num_row_groups):
            stop = start + file.metadata.row_group(number).num_rows
            inside = [place for place in wanted if start <= place < stop]
            if inside:
                with readable(path):
                    table = file.read_row_group(number, columns=names)
                    table.validate(full=True)
                for place in inside:
                    yield place, dict.fromkeys(columns) | table.slice(place - start, 1).to_pylist()[0]
            start = stop
