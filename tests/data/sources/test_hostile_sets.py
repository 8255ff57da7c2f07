"""Hostile input for every source of files: one line each, nothing lost, nothing from outside the folder, no hanging.

Each layout that the generators know is damaged in every way below, one file after the other. A source may refuse a
file with one line that names it; what it does read must come to a sample or a reason for every record.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import importlib
import io
import json
import os
import re
import shutil
import signal
import struct
import types
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts_captions import jpeg

from medvlm.data.prepare import Settings, prepare
from medvlm.data.sample import Reject, Sample
from medvlm.data.sources import SOURCES, pictures, records
from medvlm.data.sources.files import FileSource
from medvlm.errors import MedvlmError
from medvlm.licenses import registry

MODULES = [
    importlib.import_module(name) for name in ("layouts_vqa", "layouts_captions", "layouts_reports", "layouts_own")
]
LAYOUTS: dict[str, Callable[[Path, int], Path]] = {
    name: make for module in MODULES for name, make in module.LAYOUTS.items()
}
"""Source, or source/form -> make(folder, records), which returns what --input takes."""
OPTIONS: dict[str, dict[str, Any]] = {
    name: options for module in MODULES for name, options in getattr(module, "OPTIONS", {}).items()
}
"""What a source must be told besides its input."""

COUNT = 6
FORMS = [pytest.param(name, marks=[pytest.mark.slow] if "/" in name else []) for name in LAYOUTS]
"""All layouts; the further forms of a source only among the slow tests."""
SECONDS = 15
GIGANTIC = 30_001
OUTSIDE = jpeg(251)
PICTURES = (".jpg", ".jpeg", ".png", ".tif", ".webp", ".gif")
PACKED = (".zip", ".tgz", ".tar")


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds of kilobytes instead of megabytes, so that what is beyond them is made quickly."""
    monkeypatch.setattr(records, "FIELD_CHARS", GIGANTIC - 1)
    monkeypatch.setattr(pictures, "FILE_BYTES", 1 << 20)


@dataclasses.dataclass
class Told:
    """What became of an input: refused with a line, or samples and rejects."""

    refused: str = ""
    samples: list[Sample] = dataclasses.field(default_factory=list)
    rejects: list[Reject] = dataclasses.field(default_factory=list)

    @property
    def count(self) -> int:
        return len(self.samples) + len(self.rejects)


@contextmanager
def no_hanging() -> Iterator[None]:
    """Fail where something waits for a pipe."""

    def stop(number: int, frame: types.FrameType | None) -> None:
        raise AssertionError("waited too long")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def open_source(name: str, folder: Path) -> FileSource:
    kind: Any = SOURCES.get(name.partition("/")[0])
    source: FileSource = kind([folder], **OPTIONS.get(name, {}))
    return source


def tell(name: str, folder: Path) -> Told:
    """Read all, and check what every answer must be."""
    told = Told()
    with no_hanging():
        try:
            source = open_source(name, folder)
            source.describe()
            for unit in source.units():
                for item in source.read(unit):
                    if isinstance(item, Sample):
                        told.samples.append(item)
                    elif isinstance(item, Reject):
                        told.rejects.append(item)
        except MedvlmError as error:
            told = Told(refused=str(error))
            assert told.refused
            assert "\n" not in told.refused
            assert len(told.refused) < 1500
    for reject in told.rejects:
        assert re.fullmatch(r"[a-zA-Z][\w ,'/-]{2,60}", reject.reason), reject
        assert not re.search(r"[\r\n]", f"{reject.where}{reject.detail}"), reject
        assert len(reject.detail) < 1500
        assert str(folder.parent) not in reject.where
    for sample in told.samples:
        assert not re.search(r"\s", sample.id)
        assert "\0" not in f"{sample.prompt}{sample.target}"
        assert all(image.data != OUTSIDE for image in (sample.image, *sample.more_images))
    return told


def files(folder: Path, *endings: str) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name.lower().endswith(endings))


def tables(folder: Path) -> list[Path]:
    """Return the files that are neither pictures nor archives of them, one of each name."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    by_name = {path.name: path for path in found if not path.name.lower().endswith((*PICTURES, *PACKED))}
    return list(by_name.values())


def each(name: str, tmp_path: Path, choose: Callable[[Path], list[Path]]) -> Iterator[tuple[Path, Path, Told]]:
    """Yield (folder, file, what the whole folder came to) with a fresh copy of the layout for each chosen file."""
    whole = LAYOUTS[name](tmp_path / "whole" / "in", COUNT)
    before = tell(name, whole)
    assert len(before.samples) >= COUNT // 2, before
    root = tmp_path / "whole"
    for number, path in enumerate(choose(root)):
        copy = tmp_path / str(number)
        copied(root, copy)
        yield copy / whole.relative_to(root), copy / path.relative_to(root), before


def copied(root: Path, copy: Path) -> None:
    """Copy a layout by links: whatever is written is unlinked first."""
    shutil.copytree(root, copy, symlinks=True, copy_function=os.link)


def replaced(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


def longest_word(data: bytes) -> bytes:
    """Return the longest run of letters of a text, which is seldom a key."""
    return max(re.findall(rb"[A-Za-z]{4,}", data), key=len, default=b"")


def is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return b"\0" not in data


def half(path: Path) -> None:
    data = path.read_bytes()
    replaced(path, data[: len(data) // 2])


def latin_1(path: Path) -> None:
    data = path.read_bytes()
    word = longest_word(data)
    replaced(path, data.replace(word, word[:2] + "é".encode("latin-1") + word[2:], 1) if word else b"\xe9")


def utf_16(path: Path) -> None:
    data = path.read_bytes()
    replaced(path, data.decode("utf-8").encode("utf-16") if is_text(data) else data[::-1])


def empty(path: Path) -> None:
    replaced(path, b"")


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def loop(path: Path) -> None:
    """A link to itself: there, and not to be opened; a file without permission is one for everybody but root."""
    path.unlink()
    path.symlink_to(path)


def forbidden(path: Path) -> None:
    replaced(path, path.read_bytes())
    path.chmod(0)


def nuls(path: Path) -> None:
    data = path.read_bytes()
    word = longest_word(data)
    replaced(path, data.replace(word, word[:2] + b"\0" + word[2:], 1) if word else b"\0" * 64)


def gigantic(path: Path) -> None:
    data = path.read_bytes()
    word = longest_word(data)
    replaced(
        path,
        data.replace(word, b"A" * GIGANTIC, 1) if word else data + b"\0" * GIGANTIC,
    )


def nested(path: Path) -> None:
    replaced(path, b"[" * 200_000)


def noise(path: Path) -> None:
    replaced(path, bytes(range(256)) * 40)


def other_type(path: Path) -> None:
    """Valid JSON, or one line, of something else."""
    replaced(path, b'{"a": [1, 2.5, null, true, {"b": "\\ud800"}]}\n')


DAMAGES = (half, latin_1, utf_16, empty, folder_instead, pipe, loop, forbidden, nuls, gigantic)
DAMAGES += (nested, noise, other_type)


def test_every_source_of_files_has_a_layout() -> None:
    kinds: dict[str, Any] = {name: SOURCES.get(name) for name in SOURCES.names()}
    of_files = {name for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, FileSource)}
    assert of_files == {name.partition("/")[0] for name in LAYOUTS}


@pytest.mark.parametrize("name", LAYOUTS)
def test_no_sample_claims_more_than_the_registry(tmp_path: Path, name: str) -> None:
    """Where one license holds for a whole set, no sample may be used more freely than the registry says."""
    use = registry.get(name.partition("/")[0]).commercial_use
    found = tell(name, LAYOUTS[name](tmp_path / "in", COUNT)).samples
    assert found
    uses = {sample.commercial_use for sample in found if sample.license_scope == "dataset"}
    assert use == "yes" or "yes" not in uses


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", FORMS)
def test_damaged_tables(tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    seen = 0
    for folder, path, before in each(name, tmp_path, tables):
        damage(path)
        told = tell(name, folder)
        seen += 1
        if not told.refused and damage in (half, empty, nested):
            # At most the line that was cut is told besides.
            assert told.count <= before.count + 1, path.name
        if damage in (folder_instead, pipe, loop):
            assert not told.refused or path.name in told.refused or folder.name in told.refused, told.refused
    assert seen


def rows_of(path: Path) -> list[dict[str, Any]] | None:
    """Return the records of a table with named fields, None for another file."""
    if path.suffix == ".parquet":
        found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return found
    data = path.read_bytes()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in data.decode("utf-8-sig").splitlines() if line.strip()]
    if path.suffix == ".json":
        value = json.loads(data.decode("utf-8-sig"))
        return value if isinstance(value, list) and all(isinstance(row, dict) for row in value) else None
    if path.name.endswith((".csv", ".csv.gz")):
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
        return list(csv.DictReader(io.StringIO(text, newline="")))
    return None


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    schema = pq.read_schema(path) if path.suffix == ".parquet" else None
    path.unlink()
    if schema is not None:
        kept = pa.schema([field for field in schema if field.name in rows[0]])
        pq.write_table(pa.Table.from_pylist(rows, kept), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        data = text.getvalue().encode()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def with_fields(folder: Path) -> list[Path]:
    return [path for path in tables(folder) if rows_of(path)]


def lost_whole(told: Told) -> bool:
    """Whether a slice of records is told as one: its file, or one beside it, cannot be read."""
    return bool(told.refused) or any(reject.reason == "file of records cannot be read" for reject in told.rejects)


def least(before: Told) -> int:
    """Return how many samples and rejects there must be: a bad record that gives several samples is one reject."""
    return before.count - COUNT * (before.count // COUNT - 1)


@pytest.mark.parametrize("value", ['=HYPERLINK("http://x/?"&A1)', "A" * GIGANTIC, "\ud800", "../../x"])
@pytest.mark.parametrize("name", FORMS)
def test_hostile_values(tmp_path: Path, name: str, value: str) -> None:
    """Formulas, gigantic fields, half characters and paths out of the folder, in each column in turn."""
    whole = LAYOUTS[name](tmp_path / "whole" / "in", COUNT)
    before = tell(name, whole)
    for number, path in enumerate(with_fields(tmp_path / "whole")):
        rows = rows_of(path) or []
        for place, column in enumerate(column for column, old in rows[-1].items() if isinstance(old, str)):
            if value == "\ud800" and path.suffix not in (".json", ".jsonl"):  # which alone can hold it
                continue
            copy = tmp_path / f"{number}-{place}"
            copied(tmp_path / "whole", copy)
            write_rows(copy / path.relative_to(tmp_path / "whole"), [*rows[:-1], {**rows[-1], column: value}])
            told = tell(name, copy / whole.relative_to(tmp_path / "whole"))
            assert lost_whole(told) or told.count >= least(before), f"{path.name}: {column}"


@pytest.mark.parametrize("name", FORMS)
def test_missing_columns(tmp_path: Path, name: str) -> None:
    whole = LAYOUTS[name](tmp_path / "whole" / "in", COUNT)
    before = tell(name, whole)
    for number, path in enumerate(with_fields(tmp_path / "whole")):
        rows = rows_of(path) or []
        for place, column in enumerate(rows[0]):
            copy = tmp_path / f"{number}-{place}"
            copied(tmp_path / "whole", copy)
            left = [{key: value for key, value in row.items() if key != column} for row in rows]
            if left[0]:
                write_rows(copy / path.relative_to(tmp_path / "whole"), left)
                told = tell(name, copy / whole.relative_to(tmp_path / "whole"))
                assert lost_whole(told) or told.count >= least(before), f"{path.name} without {column}"


@pytest.mark.parametrize("name", LAYOUTS)
def test_repeated_records_are_counted(tmp_path: Path, name: str) -> None:
    for number, (folder, path, before) in enumerate(each(name, tmp_path, with_fields)):
        rows = rows_of(path) or []
        write_rows(path, [*rows, rows[-1]])
        told = tell(name, folder)
        assert not told.refused, told.refused
        assert before.count <= told.count <= before.count + max(1, before.count // COUNT), path.name
        if number == 0:
            outcome = prepare(open_source(name, folder), tmp_path / "out", Settings(license="any"), workers=1)
            counts, drops = outcome.manifest["counts"], outcome.manifest["drops"]
            assert counts["read"] == told.count
            assert counts["samples"] + sum(drops.values()) == told.count


def bomb_of_pixels() -> bytes:
    """Return a PNG of a few bytes that says it has 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


def absent(path: Path) -> None:
    path.unlink()


def leads_out(path: Path) -> None:
    outside = next(parent for parent in path.parents if parent.name == "whole").parent / "outside.jpg"
    outside.write_bytes(OUTSIDE)
    path.unlink()
    path.symlink_to(outside)


def too_many_pixels(path: Path) -> None:
    replaced(path, bomb_of_pixels())


SPOILS = (absent, leads_out, too_many_pixels, half, empty, folder_instead, pipe, loop, noise)


def pictures_of(folder: Path) -> list[Path]:
    return files(folder, *PICTURES)


@pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("name", FORMS)
def test_spoiled_pictures_cost_their_records_alone(tmp_path: Path, name: str, spoil: Callable[[Path], None]) -> None:
    whole = LAYOUTS[name](tmp_path / "whole" / "in", COUNT)
    before, found = tell(name, whole), pictures_of(whole)
    if not found:  # they stand in archives, or in the records themselves
        assert files(whole, *PACKED, ".parquet", ".jsonl")
        return
    for number, chosen in enumerate((found[:1], found)):
        # Another path each time: sources keep what they found.
        root = tmp_path / str(number) / "whole"
        copied(tmp_path / "whole", root)
        for path in chosen:
            spoil(root / path.relative_to(tmp_path / "whole"))
        told = tell(name, root / whole.relative_to(tmp_path / "whole"))
        if number == 0:
            assert not told.refused, told.refused
            assert told.samples
        # A study of several pictures tells of each that is spoiled.
        assert told.refused or before.count <= told.count <= before.count + len(chosen)
    assert told.refused or not told.samples


def zips(folder: Path) -> list[Path]:
    return files(folder, ".zip")


def packed_again(path: Path, change: Callable[[zipfile.ZipFile, str, bytes], None]) -> None:
    """Write an archive again, each member by `change`."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist() if not info.is_dir()}
    path.unlink()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in members.items():
            change(archive, member, data)


def bombs(path: Path) -> None:
    packed_again(path, lambda archive, member, data: archive.writestr(member, bytes(3 << 20)))


def wrong_sums(path: Path) -> None:
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            start = info.header_offset + 30 + len(info.filename.encode())
            data[start + info.compress_size // 2] ^= 0xFF
    replaced(path, bytes(data))


def encrypted(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        at = data.find(mark)
        while at >= 0:
            data[at + place] |= 1
            at = data.find(mark, at + 4)
    replaced(path, bytes(data))


def cut_short(path: Path) -> None:
    replaced(path, path.read_bytes()[:-20])


def links(path: Path) -> None:
    """Members that are links out, as an archive of Unix may hold them: their bytes are the target's name."""

    def link(archive: zipfile.ZipFile, member: str, data: bytes) -> None:
        info = zipfile.ZipInfo(member)
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "../../outside.jpg")

    packed_again(path, link)


@pytest.mark.parametrize("damage", [bombs, wrong_sums, encrypted, cut_short, links, noise, empty, folder_instead, pipe])
def test_hostile_archives_lose_no_record(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    seen = 0
    for name in LAYOUTS:
        for folder, path, before in each(name, tmp_path / name.replace("/", "-"), zips):
            damage(path)
            told = tell(name, folder)
            seen += 1
            assert told.refused or told.count == before.count, f"{name}: {path.name}"
            if damage is not links:  # which in an archive of texts is a text
                assert told.refused or told.rejects, f"{name}: {path.name}"
    assert seen


def test_bombs_of_gzip_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "WHOLE_BYTES", 1 << 20)
    for name in LAYOUTS:
        for folder, path, _ in each(name, tmp_path / name.replace("/", "-"), lambda folder: files(folder, ".gz")):
            replaced(path, gzip.compress(b"a,b\n" * (2 << 20)))
            told = tell(name, folder)
            assert told.refused or told.rejects, f"{name}: {path.name}"
