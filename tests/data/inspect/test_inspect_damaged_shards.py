"""A shard with bytes changed, of the size that the manifest says: read as it is, or refused in one line."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from small_sets import prepared, sample

from medvlm.data.contact_sheet import Wanted
from medvlm.data.inspect import diff, sheet, show, stats
from medvlm.data.inspect.check import check
from medvlm.data.inspect.folder import DataSet, open_set
from medvlm.data.merging.source import MergedSource
from medvlm.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("damaged")
    prepared(made / "other", [sample("x", 90)])
    return prepared(made / "set", [sample(f"g{n}", n, finding="nödule", mentions=["é"]) for n in range(30)])


def drawn(data: DataSet) -> None:
    chosen = sheet.choose(data, Wanted(5))
    sheet.draw(data, chosen, data.path.parent / "sheet.png")
    list(sheet.lines(data, chosen))


def merged(data: DataSet) -> None:
    source = MergedSource([data.path.parent / "other", data.path])
    for unit in source.units():
        list(source.read(unit))


READERS: dict[str, Callable[[DataSet], object]] = {
    "show": lambda data: [show.row_lines(row) for row in show.rows(data, None, 99)],
    "ids": lambda data: list(show.rows(data, None, 1, ("g3/3", "g29/29"))),
    "stats": stats.gather,
    "diff": lambda data: list(diff.lines(diff.compare(open_set(data.path.parent / "other"), data))),
    "sample": drawn,
    "merge": merged,
}


def test_changed_bytes_are_refused_in_one_line_or_read(folder: Path) -> None:
    (shard,) = (folder / "data").glob("train-*")
    good, chance, refused = shard.read_bytes(), random.Random(5), 0
    for _ in range(25):
        content = bytearray(good)
        for _ in range(chance.choice([1, 3, 20])):
            content[chance.randrange(4, len(content) - 8)] ^= 1 << chance.randrange(8)
        shard.write_bytes(content)
        found = check(open_set(folder), True, lambda done, total: None)
        assert any("SHA-256 differs" in line for line in found.broken)
        for name, reader in READERS.items():
            try:
                reader(open_set(folder))
            except InputError as error:
                refused += 1
                lines = str(error).count("\n")
            else:
                lines = 0
            assert lines == 0, name
    shard.write_bytes(good)
    assert refused > 20


def test_what_decompresses_to_no_text_is_refused(folder: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from medvlm.data.inspect.folder import read, rows_at

    broken = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xf0\x41")])
    pq.write_table(pa.table({"id": broken}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match="cannot be read"):
        list(read(tmp_path / "x.parquet", ["id"]))
    with pytest.raises(InputError, match="cannot be read"):
        list(rows_at(tmp_path / "x.parquet", [0], ["id"]))
