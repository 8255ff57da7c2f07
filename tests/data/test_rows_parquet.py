"""Rows read by their place in parquet files are what pyarrow reads, however the files were written; damage is told."""

from __future__ import annotations

import concurrent.futures
import hashlib
import io
import itertools
import multiprocessing
import os
import pickle
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage

from medvlm.data import pages, rows, schema
from medvlm.data.mixture import DataFolder
from medvlm.data.rows import Rows
from medvlm.data.sample import Image, Sample
from medvlm.data.write import SplitWriter
from medvlm.errors import InputError
from medvlm.io import write_json
from medvlm.licenses import policy

WRITERS: dict[str, dict[str, Any]] = {
    "as prepare": {"compression": "NONE", "use_dictionary": False},
    "small pages": {"compression": "NONE", "use_dictionary": False, "data_page_size": 64, "write_batch_size": 3},
    "pages of version 2": {"compression": "NONE", "use_dictionary": False, "data_page_version": "2.0"},
    "with statistics and sums": {
        "compression": "NONE", "use_dictionary": False, "write_statistics": True, "write_page_checksum": True,
        "write_page_index": True,
    },
    "compressed": {"compression": "zstd", "use_dictionary": False},
    "with a dictionary": {"compression": "NONE", "use_dictionary": True},
    "another encoding": {
        "compression": "NONE", "use_dictionary": False, "column_encoding": {"image.bytes": "DELTA_LENGTH_BYTE_ARRAY"},
    },
}  # fmt: skip
PLACED = ("as prepare", "small pages", "pages of version 2", "with statistics and sums")


def samples(name: str, count: int) -> list[Sample]:
    chance = random.Random(name)
    return [
        Sample(
            id=f"{name}/{number}",
            image=Image(chance.randbytes(chance.choice([0, 1, 7, 8, 500, 3000])), f"{number}.png"),
            task=("vqa", "caption", "report")[number % 3],
            prompt="wo?" if number % 3 == 0 else "",
            target=f"text {number}",
            choices=["a", "b"] if number % 4 == 0 else None,
            license=("CC0-1.0", None, "CC-BY-4.0", "CC-BY-NC-4.0")[number % 4],
            license_scope="article" if number % 5 == 0 else None,
            third_party=number % 6 == 0,
        )
        for number in range(count)
    ]


def write(folder: Path, listed: list[Sample], shards: int = 2, group: int = 7, **options: Any) -> Path:
    """Write shards of row groups of `group` rows with pyarrow's own writer."""
    (folder / "data").mkdir(parents=True)
    table = pa.Table.from_arrays(schema.arrays(listed), schema=schema.SCHEMA)
    each = -(-len(listed) // shards)
    for number in range(shards):
        path = folder / "data" / f"train-{number:05d}-of-{shards:05d}.parquet"
        pq.write_table(table.slice(number * each, each), path, row_group_size=group, **options)
    write_json(folder / "manifest.json", {"fingerprint": folder.name})
    return folder


def opened(folder: Path, **options: Any) -> Rows:
    return Rows(DataFolder.open(str(folder)), "train", **options)


@pytest.mark.parametrize("writer", WRITERS)
def test_pictures_in_any_order_however_they_were_written(writer: str, tmp_path: Path) -> None:
    listed = samples(writer, 60)
    found = opened(write(tmp_path / "a", listed, **WRITERS[writer]))
    order = random.Random(0).choices(range(60), k=200)
    assert [found.encoded(row) for row in order] == [listed[row].image.data for row in order]
    placed = [group for group in range(len(found._shards.groups)) if _is_placed(found, group)]
    assert len(found._shards.groups) == 10
    assert len(placed) == (10 if writer in PLACED else 0)


def _is_placed(found: Rows, group: int) -> bool:
    shards = found._shards
    return shards._places(group, shards._bytes(shards.groups[group][0])) is not None


def test_what_prepare_writes_is_read_by_its_place(tmp_path: Path) -> None:
    listed = samples("p", 250)
    (tmp_path / "data").mkdir()
    writer = SplitWriter(tmp_path / "data", "train")
    table = pa.Table.from_arrays(schema.arrays(listed), schema=schema.SCHEMA)
    writer.add(table, range(250), [schema.payload(sample) for sample in listed])
    writer.finish()
    write_json(tmp_path / "manifest.json", {"fingerprint": "p"})
    found = opened(tmp_path)
    assert [found.encoded(row) for row in range(250)] == [sample.image.data for sample in listed]
    assert [_is_placed(found, group) for group in range(3)] == [True] * 3
    # No copy of anything is left beside the data.
    assert {path.name for path in tmp_path.rglob("*")} == {"data", "manifest.json", "train-00000-of-00001.parquet"}


@pytest.mark.parametrize("tasks", [None, ["vqa"], ["caption", "report"], ["none"]])
def test_streamed_rows_are_those_in_memory(tasks: list[str] | None, tmp_path: Path) -> None:
    listed = samples("s", 53)
    folder = write(tmp_path / "a", listed, **WRITERS["as prepare"])
    wanted = [sample for sample in listed if tasks is None or sample.task in tasks]
    whole, streamed = opened(folder, tasks=tasks), opened(folder, tasks=tasks, streaming=True)
    for found in (whole, streamed):
        assert len(found) == len(found.texts) == len(wanted)
        assert [text["id"] for text in found.texts] == [sample.id for sample in wanted]
        assert [found.encoded(row) for row in range(len(wanted))] == [sample.image.data for sample in wanted]
        rights = Counter(policy.of_sample(s.license, s.license_scope, s.third_party) for s in wanted)
        assert found.licenses() == rights
        bounds = found.blocks().tolist()
        blocks = [wanted[low:high] for low, high in itertools.pairwise(bounds)]
        numbers = [[listed.index(sample) for sample in block] for block in blocks]
        assert numbers == [[n for n in range(53) if (n % 27) // 7 + 4 * (n // 27) == group and listed[n] in wanted]
                           for group in range(8)]  # fmt: skip
    assert list(streamed.texts) == list(whole.texts)
    assert streamed.texts[1:9:3] == whole.texts[1:9:3]


def test_a_row_group_is_read_once_while_its_rows_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "TEXT_GROUPS", 3)
    found = opened(write(tmp_path / "a", samples("o", 56), **WRITERS["as prepare"]), streaming=True)
    read: Counter[int] = Counter()
    plain = found._shards.texts
    monkeypatch.setattr(found._shards, "texts", lambda group: (read.update([group]), plain(group))[1])
    window = [row for group in (4, 0, 6) for row in range(group * 7, group * 7 + 7)]
    random.Random(1).shuffle(window)
    for row in window:
        assert found.texts[row]["id"] == f"o/{row}"
    assert read == {4: 1, 0: 1, 6: 1}
    found.texts[8]
    found.texts[window[0]]
    assert len(found._shards._texts._items) == 3


def _all(found: Rows) -> list[tuple[Any, bytes]]:
    return [(found.texts[row], found.encoded(row)) for row in range(len(found))]


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_other_processes_open_the_files_for_themselves(start: str, tmp_path: Path) -> None:
    found = opened(write(tmp_path / "a", samples("w", 20), **WRITERS["as prepare"]), streaming=True)
    expected = _all(found)
    assert len(pickle.dumps(found)) < 5000
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context(start)) as pool:
        assert list(pool.map(_all, [found] * 3)) == [expected] * 3


def test_a_forked_child_leaves_the_parents_files_alone(tmp_path: Path) -> None:
    shards = opened(write(tmp_path / "a", samples("f", 9), shards=1))._shards
    mine = shards._bytes(0), shards._parquet(0)
    shards._process = os.getpid() + 1
    shards._own()
    theirs = shards._bytes(0), shards._parquet(0)
    assert mine[0] is not theirs[0]
    assert mine[1] is not theirs[1]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("writer", ["as prepare", "compressed"])
def test_a_shard_replaced_meanwhile_is_told_by_a_new_worker(writer: str, streaming: bool, tmp_path: Path) -> None:
    """Else the pictures of other rows would go with the texts in memory."""
    listed = samples("r", 20)
    folder = write(tmp_path / "a", listed, shards=1, **WRITERS[writer])
    found = opened(folder, streaming=streaming)
    assert found.encoded(3) == listed[3].image.data
    path = next((folder / "data").iterdir())
    write(tmp_path / "b", listed[::-1], shards=1, **WRITERS[writer])
    os.replace(tmp_path / "b" / "data" / path.name, path)
    assert found.encoded(4) == listed[4].image.data
    worker = pickle.loads(pickle.dumps(found))
    with pytest.raises(InputError, match=r"train-00000-of-00001\.parquet was replaced during the run; "):
        worker.encoded(3)
    if streaming:
        with pytest.raises(InputError, match="was replaced during the run; "):
            worker.texts[3]


@pytest.mark.parametrize("writer", ["as prepare", "compressed"])
def test_a_shard_touched_or_restored_meanwhile_is_the_same(writer: str, tmp_path: Path) -> None:
    listed = samples("r", 20)
    folder = write(tmp_path / "a", listed, shards=1, **WRITERS[writer])
    path = next((folder / "data").iterdir())
    whole = path.read_bytes()
    shard = {"name": f"data/{path.name}", "bytes": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}
    write_json(folder / "manifest.json", {"fingerprint": "a", "shards": [shard]})
    found = opened(folder, streaming=True)
    os.utime(path, (1, 1))
    worker = pickle.loads(pickle.dumps(found))
    assert (worker.encoded(3), worker.texts[3]["id"]) == (listed[3].image.data, listed[3].id)
    for data, same in ((whole, True), (bytes([*whole[:100], whole[100] ^ 1, *whole[101:]]), False)):
        path.unlink()
        path.write_bytes(data)
        worker = pickle.loads(pickle.dumps(found))
        if same:
            assert (worker.encoded(3), worker.texts[3]["id"]) == (listed[3].image.data, listed[3].id)
            continue
        with pytest.raises(InputError, match="was replaced during the run; "):
            worker.encoded(3)


@pytest.mark.parametrize("writer", ["as prepare", "compressed"])
def test_a_shard_cut_short_meanwhile_is_told_in_one_line(writer: str, tmp_path: Path) -> None:
    listed = samples("c", 20)
    folder = write(tmp_path / "a", listed, shards=1, **WRITERS[writer])
    found = opened(folder)
    found.encoded(0)
    known = max(range(7), key=lambda row: len(listed[row].image.data))
    os.truncate(next((folder / "data").iterdir()), 10)
    # Of the row group that is known, and of one that is not.
    for row in (known, 19) if writer == "as prepare" else (19,):
        with pytest.raises(InputError, match=r"a shard cannot be read \(.*\); prepare again$"):
            found.encoded(row)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("column", ["target", "license", "task"])
def test_a_text_that_is_no_text_is_told_in_one_line(column: str, streaming: bool, tmp_path: Path) -> None:
    listed = samples("t", 9)
    for sample in listed:
        setattr(sample, column, "vqa#7")
    folder = write(tmp_path / "a", listed, shards=1, **WRITERS["as prepare"])
    path = next((folder / "data").iterdir())
    path.write_bytes(path.read_bytes().replace(b"vqa#7", b"vq\xff#7"))

    def asked() -> None:
        found = opened(folder, streaming=streaming)
        found.licenses()
        found.texts[0]

    with pytest.raises(InputError, match=r"a shard cannot be read \('utf-8' codec .*\); prepare again$"):
        asked()


def test_threads_take_turns(tmp_path: Path) -> None:
    listed = samples("th", 200)
    found = opened(write(tmp_path / "a", listed, group=5), streaming=True)
    for name in ("_placed", "_texts", "_decoded"):
        setattr(found._shards, name, rows._Kept(2))

    def wrong(seed: int) -> int:
        chosen = random.Random(seed).choices(range(200), k=150)
        return sum(
            (found.encoded(row), found.texts[row]["id"]) != (listed[row].image.data, listed[row].id) for row in chosen
        )

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(wrong, range(6))) == 0


def test_more_shards_than_are_kept_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_OPEN_FILES", 3)
    monkeypatch.setattr(rows, "_OPEN_FOOTERS", 2)
    listed = samples("k", 40)
    found = opened(write(tmp_path / "a", listed, shards=8, group=3, **WRITERS["as prepare"]), streaming=True)
    for row in random.Random(2).choices(range(40), k=120):
        assert found.encoded(row) == listed[row].image.data
        assert found.texts[row]["target"] == listed[row].target
    assert (len(found._shards._files._items), len(found._shards._footers._items)) == (3, 2)


def test_a_row_without_a_picture_is_named(tmp_path: Path) -> None:
    listed = samples("n", 9)
    folder = write(tmp_path / "a", listed, shards=1)
    path = next((folder / "data").iterdir())
    table = pq.read_table(path)
    cells = table["image"].to_pylist()
    cells[4]["bytes"] = None
    table = table.set_column(1, "image", pa.array(cells, table.schema.field("image").type))
    pq.write_table(table, path, row_group_size=3, **WRITERS["as prepare"])
    found = opened(folder)
    assert found.encoded(3) == listed[3].image.data
    assert found.encoded(8) == listed[8].image.data
    with pytest.raises(InputError, match=r"row 1 of row group 1 has no image; prepare again"):
        found.encoded(4)


@pytest.mark.parametrize("missing", ["image", "target"])
def test_a_missing_column_is_named(missing: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "a", samples("m", 9), shards=1)
    path = next((folder / "data").iterdir())
    pq.write_table(pq.read_table(path).drop_columns([missing]), path)
    with pytest.raises(InputError, match=f"lacks the columns {missing}; prepare it again"):
        opened(folder)


def _file(listed: list[bytes], **options: Any) -> tuple[bytes, Any]:
    file = io.BytesIO()
    picture = pa.array([{"bytes": data, "path": "x"} for data in listed], schema.SCHEMA.field("image").type)
    pq.write_table(pa.table({"image": picture}), file, **options)
    return file.getvalue(), pq.read_metadata(io.BytesIO(file.getvalue())).row_group(0).column(0)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.binary(max_size=40), min_size=1, max_size=30),
    st.sampled_from(PLACED),
)
def test_places_of_any_values(listed: list[bytes], writer: str) -> None:
    data, column = _file(listed, **WRITERS[writer])
    start = column.data_page_offset
    found = pages.places(data, start, start + column.total_compressed_size, len(listed), 2)
    assert found is not None
    assert [data[at : at + length] for at, length in found.tolist()] == listed


@settings(deadline=None, max_examples=400)
@given(st.data(), st.sampled_from(PLACED))
def test_damaged_pages_give_no_places_or_some_within_the_column(given: st.DataObject, writer: str) -> None:
    data, column = _file([b"%d" % number for number in range(12)], **WRITERS[writer])
    start, stop = column.data_page_offset, column.data_page_offset + column.total_compressed_size
    damaged = bytearray(data)
    for _ in range(given.draw(st.integers(1, 4))):
        # Most in the first page's header and levels.
        last = given.draw(st.sampled_from([start + 40, stop - 1]))
        damaged[given.draw(st.integers(start, last))] = given.draw(st.integers(0, 255))
    found = pages.places(bytes(damaged), start, stop, 12, 2)
    if found is not None:
        assert found.shape == (12, 2)
        assert found.min() >= 0
        assert (found.sum(axis=1) <= stop).all()
    assert pages.places(bytes(damaged[: (start + stop) // 2]), start, stop, 12, 2) is None


@pytest.mark.parametrize("byte", [0x1C, 0x19, 0xFF, 0x15, 0x00, 0x18])
def test_pages_of_one_byte_again_and_again(byte: int) -> None:
    """Structs within structs, lists of lists, numbers without an end."""
    data = bytes([byte]) * 300_000
    assert pages.places(data, 4, len(data), 12, 2) is None


@pytest.mark.parametrize("writer", ["as prepare", "compressed"])
@pytest.mark.parametrize("damage", ["cut", "no footer", "zeros"])
def test_damaged_shards_are_told_in_one_line(damage: str, writer: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "a", samples("d", 30), shards=1, **WRITERS[writer])
    path = next((folder / "data").iterdir())
    data = bytearray(path.read_bytes())
    if damage == "zeros":
        column = pq.read_metadata(path).row_group(1).column(1)
        data[column.data_page_offset : column.data_page_offset + column.total_compressed_size] = bytes(
            column.total_compressed_size
        )
    path.write_bytes({"cut": data[: len(data) // 2], "no footer": data[:-200], "zeros": data}[damage])
    with pytest.raises(InputError, match=r"a shard cannot be read \(.*\); prepare again$") as raised:
        opened(folder).encoded(10)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_mapped_may_be_empty_of_rows(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", samples("e", 5), shards=1)
    path = next((folder / "data").iterdir())
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    for streaming in (False, True):
        found = opened(folder, streaming=streaming)
        assert len(found) == 0
        assert list(found.texts) == []
        assert found.licenses() == Counter()


def test_a_picture_is_decoded_from_its_place(tmp_path: Path) -> None:
    file = io.BytesIO()
    PILImage.new("RGB", (5, 4), (1, 2, 3)).save(file, "PNG")
    listed = samples("i", 3)
    listed[1].image = Image(file.getvalue(), "x.png")
    found = opened(write(tmp_path / "a", listed, shards=1))
    assert found.image(1).getpixel((0, 0)) == (1, 2, 3)
    with pytest.raises(InputError, match="i/0: the image cannot be read"):
        found.image(0)
