"""The rows of a prepared split by their number, read from the parquet shards themselves: no copy is written anywhere.

Pictures are read alone, by their place in the file. Texts are all in memory, or read by row groups (`streaming`), of
which the last `TEXT_GROUPS` are kept. Every process opens the files for itself, so rows may be pickled to workers; a
file that is no longer the one that was counted is an error there.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np

from medvlm.data import pages
from medvlm.errors import InputError
from medvlm.io import resource_errors, sha256_file
from medvlm.licenses import policy

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from medvlm.data.mixture import DataFolder

TEXT_COLUMNS = (
    "id", "task", "prompt", "target", "language", "finding", "group", "license", "commercial_use", "modality",
    "answer_type", "question_type", "source", "organ", "choices", "license_scope", "third_party",
)  # fmt: skip
_NEEDED = ("id", "image", "task", "prompt", "target")

TEXT_GROUPS = 256
"""Row groups (of at most 100 rows) whose texts a process keeps while it streams."""
_OPEN_FILES = 256
_OPEN_FOOTERS = 16
"""A footer of 100 row groups takes some 4 MB."""
_PLACED_GROUPS = 1 << 16
"""Row groups whose pictures' places are kept: 2 KB each, where finding them again may mean to parse a footer."""
_DECODED_GROUPS = 4
_MORE = "more_images"

T = TypeVar("T")


class _Kept:
    """The last so many results by key."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: OrderedDict[Any, Any] = OrderedDict()

    def get(self, key: Any, make: Callable[[], T]) -> T:
        """Return what `make` returned for this key, now or earlier."""
        if key not in self._items:
            self._items[key] = make()
            if len(self._items) > self._size:
                self._items.popitem(last=False)
        self._items.move_to_end(key)
        found: T = self._items[key]
        return found


class Shards:
    """The row groups of several parquet files as one sequence of rows; threads take turns.

    Args:
        paths: the files, in order.
        sums: name of a file -> SHA-256 of its bytes; of one that is known a copy of the same bytes may take the place.

    Raises:
        InputError: a file is damaged or lacks a column.
    """

    def __init__(self, paths: Sequence[Path], sums: Mapping[str, str]) -> None:
        import pyarrow.parquet as pq

        self.paths = list(paths)
        self.sums = [sums.get(path.name) for path in self.paths]
        self.groups: list[tuple[int, int]] = []
        """(file, row group in it)"""
        self.stamps: list[Stamp] = []
        """Of each file."""
        counts = [0]
        self.names: tuple[str, ...] = TEXT_COLUMNS
        self.with_more: list[bool] = []
        """Of each file, whether it tells of further pictures."""
        for number, path in enumerate(self.paths):
            with _readable(path), open(path, "rb") as file:
                self.stamps.append(_stamp(os.fstat(file.fileno())))
                metadata = pq.read_metadata(file)
                columns = set(metadata.schema.to_arrow_schema().names)
            missing = [name for name in _NEEDED if name not in columns]
            if missing:
                raise InputError(f"data: {path.parent.parent} lacks the columns {', '.join(missing)}; prepare it again")
            self.names = tuple(name for name in self.names if name in columns)
            self.with_more.append(_MORE in columns)
            self.groups += [(number, group) for group in range(metadata.num_row_groups)]
            counts += [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self.starts = np.cumsum(np.array(counts, dtype=np.int64))
        """Number of each row group's first row, then that of all rows."""
        self._begin()

    def _begin(self) -> None:
        self._process, self._lock = os.getpid(), threading.RLock()
        self._files, self._footers = _Kept(_OPEN_FILES), _Kept(_OPEN_FOOTERS)
        self._placed = _Kept(_PLACED_GROUPS)
        self._decoded, self._texts = _Kept(_DECODED_GROUPS), _Kept(TEXT_GROUPS)
        self._more = _Kept(_DECODED_GROUPS)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def __len__(self) -> int:
        return int(self.starts[-1])

    def _locate(self, row: int) -> tuple[int, int]:
        """Return the number of the row's group, and the row within it."""
        group = int(np.searchsorted(self.starts, row, side="right")) - 1
        return group, row - int(self.starts[group])

    def _own(self) -> threading.RLock:
        """Return the lock under which what is kept is used."""
        if self._process != os.getpid():
            # A forked worker: what the parent has open is the parent's.
            self._begin()
        return self._lock

    def _bytes(self, number: int) -> _File:
        def opened() -> _File:
            found = _File(self.paths[number])
            self._check(number, found.stamp)
            return found

        return self._files.get(number, opened)

    def _parquet(self, number: int) -> pq.ParquetFile:
        import pyarrow.parquet as pq

        def opened() -> pq.ParquetFile:
            found = pq.ParquetFile(self.paths[number])
            # Looked at afterwards: what is still the file that was counted was it a moment ago.
            self._check(number, _stamp(os.stat(self.paths[number])))
            return found

        return self._footers.get(number, opened)

    def _check(self, number: int, found: Stamp) -> None:
        """Raise where a file is not the one that was counted: its rows would go with the texts of others."""
        path, known = self.paths[number], self.stamps[number]
        if found == known:
            return
        # Touched, or restored from a copy: then its bytes are those that were counted, and are compared once.
        same = found[1] == known[1] and self.sums[number] == sha256_file(path) and _stamp(os.stat(path)) == found
        if not same:
            raise InputError(f"data: {path} was replaced during the run; start it again, and leave its data as it is")
        self.stamps[number] = found

    def read(self, group: int, columns: Sequence[str]) -> pa.Table:
        """Return columns of a row group.

        Raises:
            InputError: the file is damaged, or another one than at first.
        """
        number, own = self.groups[group]
        with _readable(self.paths[number]), self._own():
            return self._parquet(number).read_row_group(own, columns=list(columns), use_threads=False)

    def text(self, row: int) -> dict[str, Any]:
        """Return the text columns of a row, its row group's read and kept."""
        group, own = self._locate(row)
        with self._own():
            return self._texts.get(group, lambda: self.texts(group))[own]

    def texts(self, group: int) -> list[dict[str, Any]]:
        """Return the text columns of all rows of a row group."""
        with self.readable(group):
            found: list[dict[str, Any]] = self.read(group, self.names).select(self.names).to_pylist()
        return found

    def readable(self, group: int) -> contextlib.AbstractContextManager[None]:
        """Return within what a row group's columns become values: only then it shows that a text is damaged."""
        return _readable(self.paths[self.groups[group][0]])

    def encoded(self, row: int) -> bytes:
        """Return the picture of a row as it is stored.

        Raises:
            InputError: the file is damaged, holds no picture there, or is another one than at first.
        """
        group, own = self._locate(row)
        number, _ = self.groups[group]
        with _readable(self.paths[number]), self._own():
            data = self._bytes(number)
            placed = self._placed.get(group, lambda: self._places(group, data))
            if placed is not None:
                offset, length = placed[own].tolist()
                return data[offset : offset + length]
            value = self._decoded.get(group, lambda: self.read(group, ["image"])["image"])[own].as_py()
        if not value or value["bytes"] is None:
            raise InputError(f"data: {self.paths[number]}: row {own} of row group {group} has no image; prepare again")
        found: bytes = value["bytes"]
        return found

    def more(self, row: int) -> list[bytes]:
        """Return the further pictures of a row as they are stored: its row group's are read together.

        Raises:
            InputError: as `encoded`.
        """
        group, own = self._locate(row)
        number, _ = self.groups[group]
        if not self.with_more[number]:
            return []
        with _readable(self.paths[number]), self._own():
            values = self._more.get(group, lambda: self.read(group, [_MORE])[_MORE])[own].as_py() or []
        if any(not value or not value["bytes"] for value in values):
            raise InputError(
                f"data: {self.paths[number]}: row {own} of row group {group} lacks one of its further images; prepare "
                "again"
            )
        return [value["bytes"] for value in values]

    def _places(self, group: int, data: _File) -> np.ndarray | None:
        """Return offset and length of each picture of a row group; None where it is to be decoded as a whole."""
        number, own = self.groups[group]
        parquet = self._parquet(number)
        names = [parquet.schema.column(at).path for at in range(len(parquet.schema))]
        if "image.bytes" not in names:
            return None
        column = names.index("image.bytes")
        facts, kind = parquet.metadata.row_group(own).column(column), parquet.schema.column(column)
        if facts.compression != "UNCOMPRESSED" or facts.has_dictionary_page or kind.max_repetition_level:
            return None
        start, rows = facts.data_page_offset, int(self.starts[group + 1] - self.starts[group])
        return pages.places(data, start, start + facts.total_compressed_size, rows, int(kind.max_definition_level))


Stamp = tuple[int, int, int]
"""Number of a file's inode, its size in bytes, and when it was written, in ns: another file differs in one of them."""


def _stamp(found: os.stat_result) -> Stamp:
    return found.st_ino, found.st_size, found.st_mtime_ns


class _File:
    """The bytes of a shard, read by place. Of a file that is cut short a map would end the process by a signal."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115
        self.stamp = _stamp(os.fstat(self._file.fileno()))
        self._size = self.stamp[1]

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()

    @overload
    def __getitem__(self, at: int) -> int: ...

    @overload
    def __getitem__(self, at: slice) -> bytes: ...

    def __getitem__(self, at: int | slice) -> int | bytes:
        if isinstance(at, int):
            return self[at : at + 1][0]
        start, stop = at.start, at.stop
        if not 0 <= start <= stop <= self._size:
            raise ValueError(f"bytes {start} to {stop} of {self._size}")
        found = os.pread(self._file.fileno(), stop - start, start)
        if len(found) < stop - start:
            raise ValueError(f"the file ends before byte {stop}")
        return found


class Rows:
    """The rows of one split.

    Args:
        folder: a prepared data set.
        split: train, validation or test.
        tasks: only rows of these tasks; None is all.
        streaming: read texts when asked for, instead of all at once.

    Raises:
        InputError: a shard is damaged or lacks a column.
    """

    texts: Sequence[dict[str, Any]]
    """The text columns of each row."""

    def __init__(
        self, folder: DataFolder, split: str, tasks: Sequence[str] | None = None, streaming: bool = False
    ) -> None:
        self.folder = folder
        listed = folder.manifest.get("shards") or []
        sums = {Path(shard["name"]).name: str(shard["sha256"]) for shard in listed if "sha256" in shard}
        self._shards = Shards(folder.shards(split), sums)
        self._places: Sequence[int] | np.ndarray = range(len(self._shards))
        if streaming:
            if tasks is not None:
                self._places = _of_tasks(self._shards, tasks)
            self.texts = _Streamed(self._shards, self._places)
            return
        found: list[dict[str, Any]] = []
        with resource_errors(folder.path, "close other programs, or set mixture.streaming=true"):
            for group in range(len(self._shards.groups)):
                found += self._shards.texts(group)
        if tasks is not None:
            self._places = [place for place, text in enumerate(found) if text["task"] in tasks]
            found = [found[place] for place in self._places]
        self.texts = found

    def __len__(self) -> int:
        return len(self._places)

    def encoded(self, row: int) -> bytes:
        """Return the picture of `row` as its file holds it."""
        return self._shards.encoded(int(self._places[row]))

    def image(self, row: int) -> Any:
        """Return the picture of `row`, decoded to RGB."""
        from medvlm.data.images import decode

        return decode(self.encoded(row), str(self.texts[row]["id"]))

    def pictures(self, row: int, most: int) -> list[bytes]:
        """Return the first picture of `row` and its further ones in order, at most `most`, as the file holds them."""
        further = self._shards.more(int(self._places[row])) if most > 1 else []
        return [self.encoded(row), *further[: most - 1]]

    def blocks(self) -> np.ndarray:
        """Return the number of the first row of each row group, then that of all rows."""
        return _bounds(self._shards, self._places)

    def columns(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Yield the values of these text columns for each row; None where the data set has no such column."""
        if isinstance(self.texts, _Streamed):
            return self.texts.columns(names)
        return (tuple(text.get(name) for name in names) for text in self.texts)

    def licenses(self) -> Counter[str]:
        """Count the rows by license, as `policy.of_sample` tells it."""
        counted = Counter(self.columns(("license", "license_scope", "third_party")))
        total: Counter[str] = Counter()
        for values, count in counted.items():
            total[policy.of_sample(*values)] += count
        return total


class _Streamed(Sequence[dict[str, Any]]):
    """The texts of some rows, read by row groups."""

    def __init__(self, shards: Shards, places: Sequence[int] | np.ndarray) -> None:
        self._shards, self._places = shards, places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, row: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, row: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, row: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(row, slice):
            return [self[at] for at in range(*row.indices(len(self)))]
        return self._shards.text(int(self._places[row]))

    def columns(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Yield the values of these columns for each row; None where the data set has no such column."""
        known = [name for name in names if name in self._shards.names]
        bounds = _bounds(self._shards, self._places)
        for group in range(len(self._shards.groups)):
            with self._shards.readable(group):
                table = self._shards.read(group, known)
                count = table.num_rows
                values = {name: table[name].to_pylist() for name in known}
            rows = list(zip(*(values.get(name, [None] * count) for name in names), strict=True))
            first = int(self._shards.starts[group])
            for place in self._places[int(bounds[group]) : int(bounds[group + 1])]:
                yield rows[int(place) - first]


def _bounds(shards: Shards, places: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return how many of the places lie before each row group, then how many there are."""
    return shards.starts if isinstance(places, range) else np.searchsorted(np.asarray(places), shards.starts)


def _of_tasks(shards: Shards, tasks: Sequence[str]) -> np.ndarray:
    """Return the numbers of the rows of these tasks."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = [np.empty(0, np.int64)]
    for group in range(len(shards.groups)):
        with shards.readable(group):
            wanted = pc.is_in(shards.read(group, ["task"])["task"], value_set=pa.array(list(tasks)))
        found.append(np.flatnonzero(wanted.to_numpy()) + shards.starts[group])
    return np.concatenate(found)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Within it, what a damaged shard throws becomes an `InputError`."""
    import pyarrow as pa

    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"data: {path.parent}: a shard cannot be read ({reason}); prepare again") from error
