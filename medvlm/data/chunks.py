"""The first half of `prepare`: units read into work files, a chunk at a time, so that a stopped run goes on there.

A chunk is two files: `chunk-NNNNNN-HHHHHHHH.arrow` (admitted samples and what the merge needs to know of them) and
`chunk-NNNNNN-HHHHHHHH.jsonl` (counts, then what became of each unit, rejects and credits). The latter is written last:
where it lies, the chunk is done.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import pyarrow as pa

from medvlm.data import dedup, schema
from medvlm.data.sample import COLUMNS, TASKS, Credit, Image, Reject, Sample
from medvlm.data.sources.base import Source, Unit
from medvlm.errors import MedvlmError
from medvlm.io import DISK_FULL, atomic_write, sha256_bytes, stable_hash
from medvlm.licenses.policy import admit

BATCH_ROWS = 100
BATCH_BYTES = 32 << 20
CHUNKS_WANTED = 64
CHUNK_UNITS = 64

WORK_SCHEMA: pa.Schema = pa.schema(
    [
        *schema.SCHEMA,
        pa.field("_unit", pa.string()),
        pa.field("_side", pa.string()),
        pa.field("_views", pa.list_(pa.string())),
        pa.field("_marks", pa.list_(pa.binary())),
        pa.field("_payload", pa.int64()),
    ]
)
"""`Sample`'s columns, then: the unit's name, the split as the unit or else the record states it, the hashes of further
views, the marks (`dedup.mark`) of the image and of the views, about how many bytes the row weighs."""

UNIT, REJECT, CREDIT = "unit", "reject", "credit"
"""What a line of a note after the first tells: `[kind, record]`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk's two files."""

    stem: str

    @property
    def name(self) -> str:
        """The files' common name, without folder and ending."""
        return Path(self.stem).name

    @property
    def table(self) -> Path:
        """The samples, as an Arrow IPC file with `WORK_SCHEMA`."""
        return Path(f"{self.stem}.arrow")

    @property
    def note(self) -> Path:
        """The counts, units, rejects and credits; its presence says that the chunk is done."""
        return Path(f"{self.stem}.jsonl")

    def head(self) -> dict[str, Any] | None:
        """Return {"bytes", "units", "samples", "rejected", "drops"} if both files lie there whole, else None.

        A power cut can leave a file of another size.
        """
        try:
            with open(self.note, encoding="utf-8") as file:
                head: dict[str, Any] = json.loads(file.readline())
            return head if head["bytes"] == self.table.stat().st_size else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def notes(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield what the note tells, as (`UNIT`, `REJECT` or `CREDIT`, record), in the order of reading."""
        with open(self.note, encoding="utf-8") as file:
            file.readline()
            for line in file:
                kind, record = json.loads(line)
                yield kind, record


@dataclasses.dataclass(frozen=True, slots=True)
class Task(Chunk):
    """One chunk to read: which units, under which license policy."""

    units: tuple[Unit, ...]
    license: str


@dataclasses.dataclass(frozen=True, slots=True)
class Done:
    """What reading one chunk came to, for progress and log."""

    name: str
    units: int
    samples: int
    bytes: int
    seconds: float
    traffic: dict[str, float]
    """What the source's own `traffic` counted: requests, bytes."""


class Plan(Sequence[Task]):
    """All chunks of a run, made when asked for: `units` may be a lazy sequence of millions.

    About `CHUNKS_WANTED` chunks, none of more than `CHUNK_UNITS` units. A chunk's name tells its units: the same inputs
    under other paths may sort otherwise, and their work is another.
    """

    def __init__(self, units: Sequence[Unit], folder: Path, license: str) -> None:
        self._units, self._folder, self._license = units, folder, license
        self._size = min(CHUNK_UNITS, max(1, math.ceil(len(units) / CHUNKS_WANTED)))

    def __len__(self) -> int:
        return math.ceil(len(self._units) / self._size)

    @overload
    def __getitem__(self, index: int) -> Task: ...

    @overload
    def __getitem__(self, index: slice) -> list[Task]: ...

    def __getitem__(self, index: int | slice) -> Task | list[Task]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(index)
        chosen = tuple(self._units[number * self._size : (number + 1) * self._size])
        digest = stable_hash([[unit.name, list(unit.locator), unit.version] for unit in chosen])
        return Task(str(self._folder / f"chunk-{number:06d}-{digest[:8]}"), chosen, self._license)


def fault(sample: Sample) -> str | None:
    """Return the reason why a sample breaks the promises of the record, or None."""
    if not sample.id or not sample.group:
        return "no id or group"
    if sample.task not in TASKS:
        return "unknown task"
    if not sample.image.data:
        return "empty image"
    if not sample.target.strip():
        return "empty caption" if sample.task == "caption" else "empty target"
    if sample.task == "vqa" and not sample.prompt.strip():
        return "empty question"
    return None if _is_unicode(sample) else "text is not Unicode"


def _is_unicode(sample: Sample) -> bool:
    """Whether all texts can be stored as UTF-8: a lone surrogate, as JSON can hold one, cannot."""
    texts = [value for name in COLUMNS if isinstance(value := getattr(sample, name), str)]
    texts += [*sample.mentions, *(sample.choices or ()), sample.image.name]
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return False
    return True


def _printable(record: Reject | Credit | Unit) -> dict[str, Any]:
    """Return a record as JSON whose texts can be stored as UTF-8."""
    return {
        name: value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
        for name, value in dataclasses.asdict(record).items()
    }


def _whole(source: Source, unit: Unit) -> Iterator[Sample | Reject | Credit]:
    """Read a unit; whatever a damaged input throws becomes a counted reject instead of the end of the run."""
    try:
        yield from source.read(unit)
    except (MedvlmError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise
        yield Reject(source.name, unit.name, "unit failed", f"{type(error).__name__}: {error}")


def _judge(item: Sample | Reject, unit: Unit, license: str) -> Sample | Reject:
    """Return the sample with its image's hash, or the reject it becomes."""
    if isinstance(item, Reject):
        return item
    reason = fault(item)
    if reason:
        return Reject(item.source, item.id or unit.name, reason, item.file_name)
    reason = admit(license, item.license, item.commercial_use)
    if reason:
        return Reject(item.source, item.id, reason, item.license or "none stated")
    item.sha256 = sha256_bytes(item.image.data)
    return item


class _ChunkWriter:
    """Gathers samples into record batches of bounded size and appends them to an Arrow file."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self._rows: list[tuple[Sample, str, str | None, bool]] = []
        self._bytes = 0

    def add(self, sample: Sample, unit: str, side: str | None, distinct: bool) -> None:
        """Append a sample of a unit with its split as stated; the pictures of `distinct` ones get no mark."""
        self._rows.append((sample, unit, side, distinct))
        self._bytes += schema.payload(sample)
        if len(self._rows) >= BATCH_ROWS or self._bytes >= BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        if not self._rows:
            return
        samples = [sample for sample, *_ in self._rows]
        views = [[sha256_bytes(view.data) for view in sample.more_images] for sample in samples]
        columns = [
            *schema.arrays(samples),
            pa.array([unit for _, unit, _, _ in self._rows], pa.string()),
            pa.array([side for _, _, side, _ in self._rows], pa.string()),
            pa.array(views, pa.list_(pa.string())),
            pa.array(self._marks(samples, views), pa.list_(pa.binary())),
            pa.array([schema.payload(sample) for sample in samples], pa.int64()),
        ]
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=WORK_SCHEMA))
        self._rows, self._bytes = [], 0

    def _marks(self, samples: list[Sample], views: list[list[str]]) -> list[list[bytes]]:
        """Return the marks of all pictures of a batch, decoding a picture that several samples share but once."""
        known: dict[str, bytes] = {}

        def mark(image: Image, digest: str, distinct: bool) -> bytes:
            if distinct:
                return b""
            if digest not in known:
                known[digest] = dedup.mark(image)
            return known[digest]

        return [
            [
                mark(*picture, distinct)
                for picture in zip([sample.image, *sample.more_images], [sample.sha256, *more], strict=True)
            ]
            for sample, more, (*_, distinct) in zip(samples, views, self._rows, strict=True)
        ]


class _Note:
    """What is to be told of a chunk's units besides their samples."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self.samples = 0

    def add_unit(self, unit: Unit, samples: int, rejects: Counter[str]) -> None:
        told = _printable(unit)
        ranked = dict(sorted(rejects.items()))
        record = {"unit": told["name"], "version": told["version"], "samples": samples, "rejects": ranked}
        self.lines.append((UNIT, record))

    def write(self, task: Task, size: int) -> None:
        units = [record for kind, record in self.lines if kind == UNIT]
        drops = sum((Counter(record["rejects"]) for record in units), Counter[str]())
        head = {
            "bytes": size,
            "units": len(units),
            "samples": self.samples,
            "rejected": sum(1 for record in units if record["rejects"] and not record["samples"]),
            "drops": dict(sorted(drops.items())),
        }
        with atomic_write(task.note) as file:
            for line in (head, *self.lines):
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def read_chunk(source: Source, task: Task) -> Done:
    """Read the units of one chunk into its two files, each whole or absent.

    Raises:
        AccessError: the source cannot fetch them.
        ResourceError: the disk is full.
    """
    began, before = time.monotonic(), _traffic(source)
    note = _Note()
    source.prefetch(task.units)
    with atomic_write(task.table, "wb") as file:
        with pa.ipc.new_file(file, WORK_SCHEMA) as arrow:
            writer = _ChunkWriter(arrow)
            for unit in task.units:
                _read_unit(source, unit, task.license, writer, note)
            writer.flush()
        size = file.tell()
    note.write(task, size)
    used = {name: value - before.get(name, 0) for name, value in _traffic(source).items()}
    return Done(task.name, len(task.units), note.samples, size, time.monotonic() - began, used)


def _read_unit(source: Source, unit: Unit, license: str, writer: _ChunkWriter, note: _Note) -> None:
    samples, rejects = 0, Counter[str]()
    distinct = getattr(source, "distinct", False)
    if callable(distinct):
        distinct = distinct(unit)
    side_of = getattr(source, "side_of", None)
    side = side_of(unit) if side_of else None
    for item in _whole(source, unit):
        if isinstance(item, Credit):
            note.lines.append((CREDIT, _printable(item)))
            continue
        judged = _judge(item, unit, license)
        if isinstance(judged, Sample):
            samples += 1
            writer.add(judged, unit.name, side or judged.official_split, distinct)
        else:
            record = _printable(judged)
            rejects[record["reason"]] += 1
            note.lines.append((REJECT, record))
    note.samples += samples
    note.add_unit(unit, samples, rejects)


def _traffic(source: Source) -> dict[str, float]:
    """Return a source's own counters, where it has any."""
    return dict(getattr(source, "traffic", None) or {})
