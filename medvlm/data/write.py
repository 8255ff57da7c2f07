"""The second half of `prepare`: work files merged into parquet shards, one row after the other.

What is written depends on the samples and their order alone, not on how they were cut into chunks or who read them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medvlm.data import credits, schema
from medvlm.data.chunks import BATCH_BYTES, BATCH_ROWS, CREDIT, REJECT, UNIT, Chunk
from medvlm.data.index import DUPLICATE_ID, KEPT, NO_SPLIT, REASONS, SHARED, Index, Verdict, columns
from medvlm.data.sample import Reject
from medvlm.data.splits import SPLITS, Ratios
from medvlm.io import disk_errors, sha256_file
from medvlm.licenses import policy

REJECTS = "rejects.jsonl"
ARTICLES = "articles.jsonl"

SHARD_ROWS = 10_000
SHARD_BYTES = 400 * 10**6

COUNTED = (
    *("task", "license", "commercial_use", "license_scope", "third_party", "source", "language", "modality"),
    *("kind", "compound", "journal", "year", "article_type", "organ", "question_type", "answer_type", "identifiers"),
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
    units: int = 0
    read: int = 0
    samples: Counter[str] = dataclasses.field(default_factory=Counter)
    """Samples by split."""
    groups: Counter[str] = dataclasses.field(default_factory=Counter)
    """Groups by split; one on two sides counts on both."""
    all_groups: int = 0
    counts: dict[str, Counter[str]] = dataclasses.field(default_factory=lambda: {name: Counter() for name in COUNTED})
    statuses: Counter[str] = dataclasses.field(default_factory=Counter)
    """Units by what became of them."""
    drops: Counter[str] = dataclasses.field(default_factory=Counter)
    training: Counter[str] = dataclasses.field(default_factory=Counter)
    """Samples by what they count as in training, as `policy.of_sample` tells it."""
    duplicate_images: int = 0
    near_duplicates: int = 0
    split_hash: str = ""
    leakage: dict[str, dict[str, dict[str, int]]] = dataclasses.field(default_factory=dict)


def merge(
    chunks: Sequence[Chunk],
    folder: Path,
    *,
    seed: int,
    ratios: Ratios,
    drop_duplicates: bool = False,
    way: str = "by-group",
) -> Merged:
    """Merge work files, in order, into `folder`: data/, rejects.jsonl, articles.jsonl and attribution.tsv.

    Raises:
        InputError: the official split is asked for and none is stated.
        ResourceError: the disk is full.
    """
    scratch = folder / "index"
    with disk_errors(folder):
        (folder / "data").mkdir(parents=True)
        index = Index(scratch)
        for chunk in chunks:
            index.add_chunk(chunk)
        verdict = index.resolve(seed, ratios, drop_duplicates, way)
        shutil.rmtree(scratch)
        merged = Merged(
            groups=verdict.groups,
            all_groups=int(verdict.leads.sum()),
            duplicate_images=verdict.duplicate_images,
            near_duplicates=verdict.near_duplicates,
            split_hash=verdict.split_hash,
            leakage=verdict.leakage,
        )
        _write_notes(chunks, verdict, folder, merged)
        credits.write(folder / credits.NAME, _attributions(chunks, verdict))
        _write_shards(chunks, verdict, folder / "data", merged)
    return merged


def _write_notes(chunks: Sequence[Chunk], verdict: Verdict, folder: Path, merged: Merged) -> None:
    """Write what was left out, and one line for each unit: how many samples it gave, what was left out and why."""
    with _text(folder / REJECTS) as rejects, _text(folder / ARTICLES) as articles:
        for number, chunk in enumerate(chunks):
            dropped = _dropped(chunk, verdict.starts[number : number + 2], verdict)
            for kind, record in chunk.notes():
                if kind == REJECT:
                    _line(rejects, record)
                elif kind == UNIT:
                    for reject in dropped.get(record["unit"], ()):
                        _line(rejects, dataclasses.asdict(reject))
                    _line(articles, _status(record, dropped.get(record["unit"], []), merged))


def _text(path: Path) -> IO[str]:
    return open(path, "w", encoding="utf-8", newline="\n")


def _line(file: IO[str], record: dict[str, Any]) -> None:
    file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _dropped(chunk: Chunk, bounds: Sequence[int], verdict: Verdict) -> dict[str, list[Reject]]:
    """Return unit -> the rows of one chunk that the merge leaves out."""
    start, stop = bounds
    found: dict[str, list[Reject]] = {}
    if not verdict.drop[start:stop].any():
        return found
    row = start
    for batch in columns(chunk, ["id", "source", "_unit"]):
        for name, source, unit in zip(
            *(batch.column(key).to_pylist() for key in ("id", "source", "_unit")), strict=True
        ):
            why = int(verdict.drop[row])
            if why:
                detail = {DUPLICATE_ID: f"again in {unit}", NO_SPLIT: "", SHARED: ""}.get(why)
                if detail is None:
                    detail = f"of {verdict.ids[verdict.originals[row]]}"
                found.setdefault(unit, []).append(Reject(source, name, REASONS[why], detail))
            row += 1
    return found


def _status(record: dict[str, Any], dropped: list[Reject], merged: Merged) -> dict[str, Any]:
    """Return the status row of a unit, and count it."""
    rejects = Counter(record["rejects"])
    rejects.update(reject.reason for reject in dropped)
    samples = record["samples"] - len(dropped)
    status = "done" if samples else "rejected" if rejects else "empty"
    merged.units += 1
    merged.read += samples + rejects.total()
    merged.statuses[status] += 1
    merged.drops.update(rejects)
    told = {"unit": record["unit"], "version": record["version"], "status": status, "samples": samples}
    return {**told, "rejects": dict(sorted(rejects.items()))}


def _attributions(chunks: Sequence[Chunk], verdict: Verdict) -> Iterator[dict[str, Any]]:
    """Yield whom to name for each group, in the order of their first samples."""
    known = ["group", "pmcid", "doi", "journal", "year", "license"]
    for number, chunk in enumerate(chunks):
        start, stop = verdict.starts[number : number + 2]
        if not verdict.leads[start:stop].any():
            continue
        named: dict[str, dict[str, Any]] = {}
        for kind, record in chunk.notes():
            if kind == CREDIT:
                named.setdefault(record["group"], record)
        row = start
        for batch in columns(chunk, known):
            for at in np.flatnonzero(verdict.leads[row : row + batch.num_rows]).tolist():
                own = {name: batch.column(name)[at].as_py() for name in known}
                samples = int(verdict.group_rows[verdict.group[row + at]])
                yield {**(named.get(own["group"]) or own), "samples": samples}
            row += batch.num_rows


def _write_shards(chunks: Sequence[Chunk], verdict: Verdict, folder: Path, merged: Merged) -> None:
    writers = {split: SplitWriter(folder, split) for split in SPLITS}
    names = [*schema.SCHEMA.names, "_payload"]
    try:
        for start, chunk in zip(verdict.starts, chunks, strict=False):
            row = start
            for batch in columns(chunk, names):
                _route(batch, row, verdict, writers, merged)
                row += batch.num_rows
        for writer in writers.values():
            merged.shards += writer.finish()
    finally:
        for writer in writers.values():
            writer.abandon()


def _route(
    batch: pa.RecordBatch, first: int, verdict: Verdict, writers: dict[str, SplitWriter], merged: Merged
) -> None:
    """Send each row of a batch to its split's writer, and count it."""
    stop = first + batch.num_rows
    kept = verdict.drop[first:stop] == KEPT
    for name, counter in merged.counts.items():
        values = batch.column(name).to_pylist()
        counter.update(_label(values[row]) for row in np.flatnonzero(kept).tolist())
    stated = [batch.column(name).to_pylist() for name in ("license", "license_scope", "third_party")]
    rows = np.flatnonzero(kept).tolist()
    merged.training.update(policy.of_sample(*(column[row] for column in stated)) for row in rows)
    weights = batch.column("_payload").to_pylist()
    table = _with_duplicates(batch, first, verdict)
    for number, split in enumerate(SPLITS):
        chosen = np.flatnonzero(kept & (verdict.side[first:stop] == number)).tolist()
        merged.samples[split] += len(chosen)
        writers[split].add(table, chosen, weights)


def _label(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return NOT_STATED if value is None else str(value)


def _with_duplicates(batch: pa.RecordBatch, first: int, verdict: Verdict) -> pa.Table:
    """Return the columns of `Sample` with `duplicate_of` filled in where another figure had the image first."""
    table = pa.table([batch.column(name) for name in schema.SCHEMA.names], schema=schema.SCHEMA)
    originals = [verdict.originals.get(row) for row in range(first, first + batch.num_rows)]
    if all(original is None for original in originals):
        return table
    own = batch.column("duplicate_of").to_pylist()
    values = [told if row is None else verdict.ids[row] for row, told in zip(originals, own, strict=True)]
    position = schema.SCHEMA.get_field_index("duplicate_of")
    return table.set_column(position, schema.SCHEMA.field(position), pa.array(values, pa.string()))
