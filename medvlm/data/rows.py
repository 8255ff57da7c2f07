"""The rows of a prepared split by their number, read from the parquet shards themselves: no copy is written anywhere.

Pictures are read alone, by their place in the file. Texts are all in memory, or read by row groups (`streaming`), of
which the last `TEXT_GROUPS` are kept. Every process opens the files for itself, so rows may be pickled to workers.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np

from medvlm.data import pages
from medvlm.errors import InputError
from medvlm.io import resource_errors
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
_MAPPED_FILES = 256
_OPEN_FOOTERS = 16
"""A footer of 100 row groups takes some 4 MB."""
_PLACED_GROUPS = 4096
_DECODED_GROUPS = 4

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
    """The row groups of several parquet files as one sequence of rows.

    Args:
        paths: the files, in order.

    Raises:
        InputError: a file is damaged or lacks a column.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        import pyarrow.parquet as pq

        self.paths = list(paths)
        self.groups: list[tuple[int, int]] = []
        """(file, row group in it)"""
        counts = [0]
        self.names: tuple[str, ...] = TEXT_COLUMNS
        for number, path in enumerate(self.paths):
            with _readable(path):
                metadata = pq.read_metadata(path)
                columns = set(metadata.schema.to_arrow_schema().names)
            missing = [name for name in _NEEDED if name not in columns]
            if missing:
                raise InputError(f"data: {path.parent.parent} lacks the columns {', '.join(missing)}; prepare it again")
            self.names = tuple(name for name in self.names if name in columns)
            self.groups += [(number, group) for group in range(metadata.num_row_groups)]
            counts += [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self.starts = np.cumsum(np.array(counts, dtype=np.int64))
        """Number of each row group's first row, then that of all rows."""
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._maps, self._files = _Kept(_MAPPED_FILES), _Kept(_OPEN_FOOTERS)
        self._placed = _Kept(_PLACED_GROUPS)
        self._decoded, self._texts = _Kept(_DECODED_GROUPS), _Kept(TEXT_GROUPS)

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

    def _own(self) -> None:
        if self._process != os.getpid():
            # A forked worker: what the parent has open is the parent's.
            self._begin()

    def _bytes(self, number: int) -> mmap.mmap:
        self._own()
        return self._maps.get(number, lambda: _mapped(self.paths[number]))

    def _parquet(self, number: int) -> pq.ParquetFile:
        import pyarrow.parquet as pq

        self._own()
        return self._files.get(number, lambda: pq.ParquetFile(self.paths[number], memory_map=True))

    def read(self, group: int, columns: Sequence[str]) -> pa.Table:
        """Return columns of a row group.

        Raises:
            InputError: the file is damaged.
        """
        number, own = self.groups[group]
        with _readable(self.paths[number]):
            return self._parquet(number).read_row_group(own, columns=list(columns), use_threads=False)

    def text(self, row: int) -> dict[str, Any]:
        """Return the text columns of a row, its row group's read and kept."""
        group, own = self._locate(row)
        return self._texts.get(group, lambda: self.texts(group))[own]

    def texts(self, group: int) -> list[dict[str, Any]]:
        """Return the text columns of all rows of a row group."""
        found: list[dict[str, Any]] = self.read(group, self.names).select(self.names).to_pylist()
        return found

    def encoded(self, row: int) -> bytes:
        """Return the picture of a row as it is stored.

        Raises:
            InputError: the file is damaged, or holds no picture there.
        """
        group, own = self._locate(row)
        number, _ = self.groups[group]
        with _readable(self.paths[number]):
            data = self._bytes(number)
            placed = self._placed.get(group, lambda: self._places(group, data))
        if placed is not None:
            offset, length = placed[own]
            return data[offset : offset + length]
        value = self._decoded.get(group, lambda: self.read(group, ["image"])["image"])[own].as_py()
        if not value or value["bytes"] is None:
            raise InputError(f"data: {self.paths[number]}: row {own} of row group {group} has no image; prepare again")
        found: bytes = value["bytes"]
        return found

    def _places(self, group: int, data: mmap.mmap) -> np.ndarray | None:
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


def _mapped(path: Path) -> mmap.mmap:
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


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
        self._shards = Shards(folder.shards(split))
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

    def blocks(self) -> np.ndarray:
        """Return the number of the first row of each row group, then that of all rows."""
        return _bounds(self._shards, self._places)

    def licenses(self) -> Counter[str]:
        """Count the rows by license, as `policy.of_sample` tells it."""
        names = ("license", "license_scope", "third_party")
        counted: Counter[tuple[Any, ...]] = Counter()
        if isinstance(self.texts, _Streamed):
            counted.update(self.texts.columns(names))
        else:
            counted.update(tuple(text.get(name) for name in names) for text in self.texts)
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
