"""The first half of `prepare`: units read into work files, a chunk at a time, so that a stopped run goes on there.

A chunk is two files: `chunk-NNNNN-HHHHHHHH.arrow` (admitted samples and what the merge needs to know of them) and
`chunk-NNNNN-HHHHHHHH.json` (counts and rejects). The JSON is written last: where it lies, the chunk is done.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pyarrow as pa

from medvlm.data import schema
from medvlm.data.sample import COLUMNS, TASKS, Credit, Reject, Sample
from medvlm.data.sources.base import Source, Unit
from medvlm.errors import MedvlmError, ResourceError
from medvlm.io import atomic_write, sha256_bytes, stable_hash, write_json
from medvlm.licenses.policy import admit

BATCH_ROWS = 100
BATCH_BYTES = 32 << 20
CHUNKS_WANTED = 64
CHUNK_UNITS = 64
ALONE_S = 1.0
"""Seconds of work before worker processes are started: about what starting them costs."""

WORK_SCHEMA: pa.Schema = pa.schema(
    [
        *schema.SCHEMA,
        pa.field("_unit", pa.string()),
        pa.field("_views", pa.list_(pa.string())),
        pa.field("_payload", pa.int64()),
    ]
)
"""`Sample`'s columns, then: the unit's name, the hashes of further views, about how many bytes the row weighs."""

Advance = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """One chunk to read: which units, under which license policy, into which files."""

    stem: str
    units: tuple[Unit, ...]
    license: str

    @property
    def table(self) -> Path:
        """The samples, as an Arrow IPC file with `WORK_SCHEMA`."""
        return Path(f"{self.stem}.arrow")

    @property
    def note(self) -> Path:
        """The counts and rejects; its presence says that the chunk is done."""
        return Path(f"{self.stem}.json")

    def done(self) -> bool:
        """Whether both files lie there whole (a power cut can leave a file of another size)."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            return bool(note["bytes"] == self.table.stat().st_size)
        except (OSError, ValueError, KeyError):
            return False


def plan(units: Sequence[Unit], folder: Path, license: str) -> list[Task]:
    """Cut `units` into chunks: about `CHUNKS_WANTED` of them, none of more than `CHUNK_UNITS` units.

    A chunk's name tells its units: the same inputs under other paths may sort otherwise, and their work is another.
    """
    size = min(CHUNK_UNITS, max(1, math.ceil(len(units) / CHUNKS_WANTED)))
    starts = range(0, len(units), size)
    tasks = []
    for number, start in enumerate(starts):
        chosen = tuple(units[start : start + size])
        digest = stable_hash([[unit.name, list(unit.locator)] for unit in chosen])
        tasks.append(Task(str(folder / f"chunk-{number:05d}-{digest[:8]}"), chosen, license))
    return tasks


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


def _printable(reject: Reject) -> dict[str, str]:
    """Return a reject as a record whose texts can be stored as UTF-8."""
    return {
        name: text.encode("utf-8", "backslashreplace").decode() for name, text in dataclasses.asdict(reject).items()
    }


def _whole(source: Source, unit: Unit) -> Iterator[Sample | Reject]:
    """Read a unit; whatever a damaged input throws becomes a counted reject instead of the end of the run."""
    try:
        for item in source.read(unit):
            if not isinstance(item, Credit):
                yield item
    except (MedvlmError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
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
        self._rows: list[tuple[Sample, str]] = []
        self._bytes = 0

    def add(self, sample: Sample, unit: str) -> None:
        self._rows.append((sample, unit))
        self._bytes += schema.payload(sample)
        if len(self._rows) >= BATCH_ROWS or self._bytes >= BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        if not self._rows:
            return
        samples = [sample for sample, _ in self._rows]
        views = [[sha256_bytes(view.data) for view in sample.more_images] for sample in samples]
        columns = [
            *schema.arrays(samples),
            pa.array([unit for _, unit in self._rows], pa.string()),
            pa.array(views, pa.list_(pa.string())),
            pa.array([schema.payload(sample) for sample in samples], pa.int64()),
        ]
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=WORK_SCHEMA))
        self._rows, self._bytes = [], 0


def read_chunk(source: Source, task: Task) -> None:
    """Read the units of one chunk into its two files, each whole or absent.

    Raises:
        ResourceError: the disk is full.
    """
    rejects: list[dict[str, str]] = []
    read = 0
    with atomic_write(task.table, "wb") as file:
        with pa.ipc.new_file(file, WORK_SCHEMA) as arrow:
            writer = _ChunkWriter(arrow)
            for unit in task.units:
                for item in _whole(source, unit):
                    read += 1
                    judged = _judge(item, unit, task.license)
                    if isinstance(judged, Sample):
                        writer.add(judged, unit.name)
                    else:
                        rejects.append(_printable(judged))
            writer.flush()
        size = file.tell()
    write_json(task.note, {"bytes": size, "read": read, "rejects": rejects})


def read_all(source: Source, tasks: Sequence[Task], workers: int, advance: Advance) -> int:
    """Read every chunk that is not done yet; return how many were done before.

    Args:
        workers: processes. Other processes than this one are started only where the work takes longer than starting
            them does.
        advance: told (units done, units in all) after each chunk.
    """
    left = [task for task in tasks if not task.done()]
    resumed = len(tasks) - len(left)
    total = sum(len(task.units) for task in tasks)
    done = total - sum(len(task.units) for task in left)
    advance(done, total)
    for task in _in_turn(source, left, workers):
        done += len(task.units)
        advance(done, total)
    return resumed


def _in_turn(source: Source, tasks: Sequence[Task], workers: int) -> Iterator[Task]:
    began = time.monotonic()
    for number, task in enumerate(tasks):
        left = tasks[number:]
        if min(workers, len(left)) > 1 and time.monotonic() - began >= ALONE_S:
            yield from _in_pool(source, left, workers)
            return
        read_chunk(source, task)
        yield task


_source_here: Source


def _start_worker(source: Source) -> None:
    """Ready a worker process: keep the source, leave Ctrl-C to the parent, and end when the parent does."""
    global _source_here
    _source_here = source
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        sentinel = parent.sentinel

        def follow() -> None:
            wait([sentinel])
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()


def _read_there(task: Task) -> None:
    read_chunk(_source_here, task)


def _in_pool(source: Source, tasks: Sequence[Task], workers: int) -> Iterator[Task]:
    # "spawn": a fork of a process with threads (progress bar, arrow) may hang.
    context = multiprocessing.get_context("spawn")
    before = {child.pid for child in multiprocessing.active_children()}
    pool = ProcessPoolExecutor(min(workers, len(tasks)), context, _start_worker, (source,))
    try:
        futures = {pool.submit(_read_there, task): task for task in tasks}
        for future in as_completed(futures):
            future.result()
            yield futures[future]
        pool.shutdown()
    except BrokenProcessPool as error:
        raise ResourceError("a worker process died, most likely out of memory; use fewer with --workers") from error
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            if child.pid not in before:
                with contextlib.suppress(OSError):
                    child.terminate()
                    child.join(5)
        raise
