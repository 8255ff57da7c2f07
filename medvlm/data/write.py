"""The second half of `prepare`: work files merged into parquet shards, one row after the other.

What is written depends on the samples and their order alone, not on how they were cut into chunks or who read them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medvlm.data import schema
from medvlm.data.chunks import BATCH_BYTES, BATCH_ROWS, WORK_SCHEMA, Task
from medvlm.data.sample import Reject
from medvlm.data.splits import SPLITS, Clusters, Ratios, split_of
from medvlm.io import disk_errors, sha256_file, stable_hash

SHARD_ROWS = 10_000
SHARD_BYTES = 400 * 10**6

COUNTED = (
    *("task", "license", "commercial_use", "license_scope", "third_party", "source", "language", "modality"),
    *("kind", "compound", "journal", "year", "article_type"),
)
NOT_STATED = "none stated"


@dataclasses.dataclass(frozen=True, slots=True)
class Shard:
    """One finished parquet file; `name` is relative to the data set's folder."""

    name: str
    split: str
    rows: int
    bytes: int
    sha256: str


def _columns(task: Task, names: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a work file with only `names` read."""
    with pa.memory_map(str(task.table)) as source:
        options = pa.ipc.IpcReadOptions(included_fields=_positions(names))
        reader = pa.ipc.open_file(source, options=options)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)


def _positions(names: list[str]) -> list[int]:
    return sorted(WORK_SCHEMA.get_field_index(name) for name in names)


class Index:
    """What must be known of all rows before the first is written.

    Memory: about 0.5 kB a row and 0.3 kB a group; the pictures stay on disk.
    """

    def __init__(self) -> None:
        self.clusters = Clusters()
        self.dropped: dict[tuple[int, int], Reject] = {}
        """Rows (chunk, row) that repeat an id."""
        self.duplicate_of: dict[tuple[int, int], str] = {}
        """Rows whose image was first seen in another group, with the id of the sample that had it."""
        self._ids: set[str] = set()
        self._first: dict[bytes, tuple[str, str]] = {}
        self._articles: dict[str, str] = {}

    def add_chunk(self, chunk: int, task: Task) -> None:
        """Take in the rows of one work file; chunks come in order."""
        row = 0
        for batch in _columns(task, ["id", "group", "doi", "sha256", "source", "_unit", "_views"]):
            for value in batch.to_pylist():
                self._add((chunk, row), value)
                row += 1

    def _add(self, place: tuple[int, int], row: dict[str, Any]) -> None:
        name, group = row["id"], row["group"]
        if name in self._ids:
            self.dropped[place] = Reject(row["source"], name, "duplicate id", f"again in {row['_unit']}")
            return
        self._ids.add(name)
        self.clusters.add(group)
        if row["doi"]:
            # An article can be there twice: as PMC's copy, grouped by PMCID, and as its publisher's, grouped by DOI.
            self.clusters.join(group, self._articles.setdefault(row["doi"].lower(), group))
        first, first_group = self._first.setdefault(bytes.fromhex(row["sha256"]), (name, group))
        if first_group != group:
            self.duplicate_of[place] = first
            self.clusters.join(group, first_group)
        for view in row["_views"]:
            _, view_group = self._first.setdefault(bytes.fromhex(view), (name, group))
            self.clusters.join(group, view_group)

    def assign(self, seed: int, ratios: Ratios) -> dict[str, str]:
        """Return the split of every group; groups that share an image or a DOI get the same."""
        self._ids, self._first, self._articles = set(), {}, {}
        return {group: split_of(self.clusters.root(group), seed, ratios) for group in self.clusters.groups()}


class SplitWriter:
    """Writes the shards of one split; holds at most one row group in memory."""

    def __init__(self, folder: Path, split: str) -> None:
        self.folder, self.split = folder, split
        self.shards: list[tuple[Path, int]] = []
        self._file: Any = None
        self._parquet: pq.ParquetWriter | None = None
        self._pending: list[pa.Table] = []
        self._rows = self._bytes = 0
        self._shard_rows = self._shard_bytes = 0

    def add(self, batch: pa.Table, rows: Sequence[int], weights: Sequence[int]) -> None:
        """Append `rows` (positions in `batch`); `weights` are the bytes of each row of the batch."""
        taken: list[int] = []
        for row in rows:
            taken.append(row)
            self._rows += 1
            self._bytes += weights[row]
            if self._rows >= BATCH_ROWS or self._bytes >= BATCH_BYTES:
                self._pending.append(batch.take(taken))
                taken = []
                self._flush()
        if taken:
            self._pending.append(batch.take(taken))

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._parquet is None:
            self._open()
        assert self._parquet is not None
        table = pa.concat_tables(self._pending).combine_chunks()
        self._parquet.write_table(table, row_group_size=self._rows)
        self._shard_rows += self._rows
        self._shard_bytes += self._bytes
        self._pending, self._rows, self._bytes = [], 0, 0
        if self._shard_rows >= SHARD_ROWS or self._shard_bytes >= SHARD_BYTES:
            self._close_shard()

    def _open(self) -> None:
        path = self.folder / f"{self.split}-{len(self.shards):05d}.parquet"
        texts = [leaf for leaf in schema.leaf_columns() if leaf not in schema.PICTURE_LEAVES]
        codecs = {leaf: "NONE" if leaf in schema.PICTURE_LEAVES else "ZSTD" for leaf in schema.leaf_columns()}
        # A Python file keeps the number of an operating system's error, by which a full disk is told.
        self._file = path.open("wb")
        self._parquet = pq.ParquetWriter(
            self._file, schema.SCHEMA, compression=codecs, use_dictionary=texts, write_statistics=texts
        )
        self.shards.append((path, 0))

    def _close_shard(self) -> None:
        if self._parquet is None:
            return
        self._parquet.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self.shards[-1] = (self.shards[-1][0], self._shard_rows)
        self._parquet, self._shard_rows, self._shard_bytes = None, 0, 0

    def finish(self) -> list[Shard]:
        """Write what is left, give the shards their final names and return them."""
        self._flush()
        self._close_shard()
        count = len(self.shards)
        done = []
        for number, (path, rows) in enumerate(self.shards):
            final = self.folder / f"{self.split}-{number:05d}-of-{count:05d}.parquet"
            os.replace(path, final)
            size = final.stat().st_size
            done.append(Shard(f"data/{final.name}", self.split, rows, size, sha256_file(final)))
        return done

    def abandon(self) -> None:
        """Close the open file, if any, after an error; what lies in it is of no use."""
        if self._parquet is not None:
            # Else the writer would add its footer when it is collected, to a file that is closed by then.
            self._parquet.is_open = False
            self._parquet = None
        if self._file is not None:
            # On a full disk the bytes still buffered cannot be written, and need not be.
            with contextlib.suppress(OSError):
                self._file.close()


@dataclasses.dataclass(slots=True)
class Merged:
    """What the merge wrote: the shards, and everything that was counted on the way."""

    shards: list[Shard] = dataclasses.field(default_factory=list)
    read: int = 0
    samples: Counter[str] = dataclasses.field(default_factory=Counter)
    """Samples by split."""
    groups: Counter[str] = dataclasses.field(default_factory=Counter)
    """Groups by split."""
    counts: dict[str, Counter[str]] = dataclasses.field(default_factory=lambda: {name: Counter() for name in COUNTED})
    drops: Counter[str] = dataclasses.field(default_factory=Counter)
    duplicate_images: int = 0
    split_hash: str = ""


def merge(tasks: Sequence[Task], folder: Path, *, seed: int, ratios: Ratios) -> Merged:
    """Merge the work files of `tasks`, in order, into `folder`/data and `folder`/rejects.jsonl.

    Raises:
        ResourceError: the disk is full.
    """
    index = Index()
    for chunk, task in enumerate(tasks):
        index.add_chunk(chunk, task)
    splits = index.assign(seed, ratios)
    merged = Merged(
        groups=Counter(splits.values()), duplicate_images=len(index.duplicate_of), split_hash=stable_hash(splits)
    )
    with disk_errors(folder):
        (folder / "data").mkdir(parents=True)
        _write_rejects(tasks, index, folder / "rejects.jsonl", merged)
        _write_shards(tasks, index, splits, folder / "data", merged)
    return merged


def _write_rejects(tasks: Sequence[Task], index: Index, path: Path, merged: Merged) -> None:
    repeats: dict[int, list[dict[str, str]]] = {}
    for (chunk, _), reject in index.dropped.items():
        repeats.setdefault(chunk, []).append(dataclasses.asdict(reject))
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for chunk, task in enumerate(tasks):
            note = json.loads(task.note.read_text(encoding="utf-8"))
            merged.read += note["read"]
            for reject in [*note["rejects"], *repeats.get(chunk, ())]:
                merged.drops[reject["reason"]] += 1
                file.write(json.dumps(reject, ensure_ascii=False) + "\n")


def _write_shards(tasks: Sequence[Task], index: Index, splits: dict[str, str], folder: Path, merged: Merged) -> None:
    writers = {split: SplitWriter(folder, split) for split in SPLITS}
    names = [*schema.SCHEMA.names, "_payload"]
    try:
        for chunk, task in enumerate(tasks):
            start = 0
            for batch in _columns(task, names):
                _route(batch, (chunk, start), index, splits, writers, merged)
                start += batch.num_rows
        for writer in writers.values():
            merged.shards += writer.finish()
    finally:
        for writer in writers.values():
            writer.abandon()


def _route(
    batch: pa.RecordBatch,
    start: tuple[int, int],
    index: Index,
    splits: dict[str, str],
    writers: dict[str, SplitWriter],
    merged: Merged,
) -> None:
    """Send each row of a batch to its split's writer, and count it."""
    chunk, first = start
    kept = [row for row in range(batch.num_rows) if (chunk, first + row) not in index.dropped]
    groups = batch.column("group").to_pylist()
    rows: dict[str, list[int]] = {split: [] for split in SPLITS}
    for row in kept:
        rows[splits[groups[row]]].append(row)
    for name, counter in merged.counts.items():
        values = batch.column(name).to_pylist()
        counter.update(_label(values[row]) for row in kept)
    weights = batch.column("_payload").to_pylist()
    table = _with_duplicates(batch, chunk, first, index)
    for split, chosen in rows.items():
        merged.samples[split] += len(chosen)
        writers[split].add(table, chosen, weights)


def _label(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return NOT_STATED if value is None else str(value)


def _with_duplicates(batch: pa.RecordBatch, chunk: int, first: int, index: Index) -> pa.Table:
    """Return the columns of `Sample` with `duplicate_of` filled in where another group had the image first."""
    table = pa.table([batch.column(name) for name in schema.SCHEMA.names], schema=schema.SCHEMA)
    found = {row: index.duplicate_of.get((chunk, first + row)) for row in range(batch.num_rows)}
    if not any(found.values()):
        return table
    own = batch.column("duplicate_of").to_pylist()
    values = [found[row] or own[row] for row in range(batch.num_rows)]
    position = schema.SCHEMA.get_field_index("duplicate_of")
    return table.set_column(position, schema.SCHEMA.field(position), pa.array(values, pa.string()))
