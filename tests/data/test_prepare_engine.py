"""The engine: the same bytes whatever happens on the way, every drop counted, no picture on two sides."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import datasets
import lxml.etree
import PIL
import pyarrow
import pyarrow.parquet as pq
import pytest
from fake_source import FakeSource, png, sample
from hypothesis import given, settings
from hypothesis import strategies as st

from medvlm.data import write
from medvlm.data.chunks import Plan
from medvlm.data.engine import local
from medvlm.data.prepare import Settings, prepare
from medvlm.data.sample import COLUMNS, Image, Reject, Sample
from medvlm.data.sources.base import Unit
from medvlm.errors import InputError, ResourceError, UsageError
from medvlm.io import sha256_bytes, sha256_file

ANY = Settings(license="any")


def files(out: Path) -> dict[str, str]:
    """Return every file below `out` but the log with its hash."""
    found = (path for path in sorted(out.rglob("*")) if path.is_file() and path.name != "log.jsonl")
    return {path.relative_to(out).as_posix(): sha256_file(path) for path in found}


def rows(out: Path) -> list[dict]:
    found = []
    for path in sorted((out / "data").iterdir()):
        found += [{**row, "split": path.name.split("-")[0]} for row in pq.read_table(path).to_pylist()]
    return found


def rejects(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]


def load(out: Path, tmp_path: Path) -> datasets.DatasetDict:
    loaded = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert isinstance(loaded, datasets.DatasetDict)
    return loaded


def test_load_dataset_reads_it_unaided(tmp_path: Path) -> None:
    source = FakeSource(20)
    manifest = prepare(source, tmp_path / "out", ANY).manifest
    loaded = load(tmp_path / "out", tmp_path)
    assert {name: len(split) for name, split in loaded.items()} == manifest["counts"]["split"]
    assert list(loaded["train"].features) == list(COLUMNS)
    assert loaded["train"][0]["image"].size == (8, 6)
    given_bytes = {
        item.id: item.image.data
        for unit in source.units()
        for item in source.read(unit)
        if not isinstance(item, Reject)
    }
    raw = [row for split in loaded.values() for row in split.cast_column("image", datasets.Image(decode=False))]
    assert {row["id"]: row["image"]["bytes"] for row in raw} == given_bytes
    assert all(row["sha256"] == sha256_bytes(row["image"]["bytes"]) for row in raw)
    assert {Path(row["image"]["path"]).name for row in raw} == {"fig0.png", "fig1.png", "fig2.png"}


def test_only_the_promised_files(tmp_path: Path) -> None:
    prepare(FakeSource(40), tmp_path, ANY)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()) == [
        "README.md",
        "articles.jsonl",
        "attribution.tsv",
        "contact_sheet.png",
        "croissant.json",
        "data/test-00000-of-00001.parquet",
        "data/train-00000-of-00001.parquet",
        "data/validation-00000-of-00001.parquet",
        "log.jsonl",
        "manifest.json",
        "rejects.jsonl",
    ]
    assert not (tmp_path / ".work").exists()


def test_empty_splits_have_no_shard_and_still_load(tmp_path: Path) -> None:
    manifest = prepare(FakeSource(1), tmp_path / "out", Settings("any", (0.0, 0.0, 1.0))).manifest
    assert manifest["counts"]["split"] == {"test": 3}
    assert [path.name for path in (tmp_path / "out/data").iterdir()] == ["test-00000-of-00001.parquet"]
    assert list(load(tmp_path / "out", tmp_path)) == ["test"]


def test_manifest_counts_add_up(tmp_path: Path) -> None:
    prepare(FakeSource(20), tmp_path, ANY)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    counts = manifest["counts"]
    assert counts["read"] == 80 == counts["samples"] + sum(manifest["drops"].values())
    assert manifest["drops"] == {"table image": 20}
    assert manifest["licenses"] == {"CC-BY-4.0": 60} == counts["license"]
    assert counts["groups"] == 20 == sum(counts["groups_by_split"].values())
    assert sum(counts["split"].values()) == 60
    assert manifest["synthetic"] is True
    for shard in manifest["shards"]:
        assert sha256_file(tmp_path / shard["name"]) == shard["sha256"]
        assert pq.read_metadata(tmp_path / shard["name"]).num_rows == shard["rows"]
    assert [list(line) for line in rejects(tmp_path)] == [["source", "where", "reason", "detail"]] * 20


@pytest.mark.parametrize("alone", [0, 0.5])
def test_bytes_do_not_depend_on_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: float) -> None:
    monkeypatch.setattr("medvlm.data.engine.local.ALONE_S", alone)
    used = []
    real = local._in_pool
    monkeypatch.setattr(local, "_in_pool", lambda *given: used.append(given) or real(*given))
    prepare(FakeSource(30, delay=0.05), tmp_path / "two", ANY, workers=2)
    assert len(used) == 1
    prepare(FakeSource(30), tmp_path / "one", ANY, workers=1)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_bytes_do_not_depend_on_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = FakeSource(90, 5)
    prepare(source, tmp_path / "one", ANY, workers=1)
    monkeypatch.setattr("medvlm.data.chunks.CHUNKS_WANTED", 4)
    monkeypatch.setattr("medvlm.data.chunks.BATCH_ROWS", 7)
    prepare(source, tmp_path / "two", ANY, workers=1)
    assert files(tmp_path / "one") == files(tmp_path / "two")


@given(st.integers(0, 3000))
def test_chunks_hold_every_unit_once_in_order(count: int) -> None:
    units = FakeSource(count).units()
    tasks = Plan(units, Path("work"), "any")
    assert [unit for task in tasks for unit in task.units] == units
    assert len({task.stem for task in tasks}) == len(tasks)
    assert all(len(task.units) <= 64 for task in tasks)


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {folder!r})
from fake_source import FakeSource
from medvlm.data.prepare import Settings, prepare
if __name__ == "__main__":
    prepare(FakeSource(40, delay=0.1), Path(sys.argv[1]), Settings(license="any"), workers=int(sys.argv[2]))
"""


@pytest.mark.parametrize(("workers", "done"), [(1, 4), (2, 16)])
def test_killed_run_goes_on_with_the_same_bytes(tmp_path: Path, workers: int, done: int) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED.format(folder=str(Path(__file__).parent)))
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, str(script), str(out), str(workers)])
    deadline = time.monotonic() + 60
    while len(list(out.glob(".work/*/chunk-*.jsonl"))) < done and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert sorted(path.name for path in out.iterdir()) == [".work", "log.jsonl"]

    outcome = prepare(FakeSource(40), out, ANY, workers=1)
    assert done <= outcome.chunks_resumed < 40
    prepare(FakeSource(40), tmp_path / "straight", ANY, workers=1)
    assert files(out) == files(tmp_path / "straight")


def test_kill_between_any_two_moves_of_the_publication(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(FakeSource(40), tmp_path / "straight", ANY, workers=1)
    expected = files(tmp_path / "straight")
    real = os.replace
    for survived in range(6):
        out = tmp_path / f"out{survived}"
        prepare(FakeSource(3), out, ANY, workers=1)
        left = [survived]

        def replace(source: str, target: str | Path, out: Path = out, left: list[int] = left) -> None:
            if (
                Path(source).parent.name in ("ready", "data")
                and Path(target).is_relative_to(out)
                and "build" not in str(source)
            ):
                if not left[0]:
                    raise KeyboardInterrupt
                left[0] -= 1
            real(source, target)

        monkeypatch.setattr(os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            prepare(FakeSource(40), out, ANY, workers=1, overwrite=True)
        monkeypatch.setattr(os, "replace", real)
        assert not (out / "manifest.json").exists()
        if survived % 2:
            prepare(FakeSource(40), out, ANY, workers=1)
            assert files(out) == expected
        else:
            # Another request may clear the half-moved set away.
            with pytest.raises(InputError, match=r"40 finished chunks .*--out.*--overwrite"):
                prepare(FakeSource(5), out, ANY, workers=1)
            prepare(FakeSource(5), out, ANY, workers=1, overwrite=True)
            prepare(FakeSource(5), tmp_path / f"five{survived}", ANY, workers=1)
            assert files(out) == files(tmp_path / f"five{survived}")


def test_up_to_date_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not prepare(FakeSource(5), tmp_path, ANY).up_to_date
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    monkeypatch.setattr(FakeSource, "read", None)
    assert prepare(FakeSource(5), tmp_path, ANY).up_to_date
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_a_lost_shard_is_made_again(tmp_path: Path) -> None:
    prepare(FakeSource(20), tmp_path, ANY)
    before = files(tmp_path)
    (tmp_path / "data/train-00000-of-00001.parquet").unlink()
    assert not prepare(FakeSource(20), tmp_path, ANY).up_to_date
    assert files(tmp_path) == before


def test_license_policy(tmp_path: Path) -> None:
    licenses = [
        ("CC-BY-4.0", "yes"),
        ("CC0-1.0", "yes"),
        ("CC-BY-NC-4.0", "no"),
        ("CC-BY-ND-4.0", "conditional"),
        (None, "unknown"),
    ]
    unit = [sample("g", n, n, license=name, commercial_use=use) for n, (name, use) in enumerate(licenses)]
    source = FakeSource(1, special={0: unit})
    commercial = prepare(source, tmp_path / "a", Settings("commercial")).manifest
    assert commercial["licenses"] == {"CC-BY-4.0": 1, "CC0-1.0": 1}
    assert set(commercial["drops"]) == {"license forbids commercial use", "license conditional", "license unknown"}
    assert prepare(source, tmp_path / "b", ANY).manifest["licenses"]["none stated"] == 1
    listed = prepare(source, tmp_path / "c", Settings("CC0-1.0,CC-BY-NC-4.0")).manifest
    assert listed["licenses"] == {"CC-BY-NC-4.0": 1, "CC0-1.0": 1}
    with pytest.raises(UsageError):
        prepare(source, tmp_path / "d", Settings("CC0-1.0,"))
    assert not (tmp_path / "d").exists()


def test_broken_promises_are_rejected_with_their_reason(tmp_path: Path) -> None:
    broken = {
        "no id or group": {"group": ""},
        "unknown task": {"task": "poem"},
        "empty image": {"image": Image(b"", "x.png")},
        "empty caption": {"target": " \n"},
        "empty target": {"task": "vqa", "prompt": "Where?", "target": ""},
        "empty question": {"task": "vqa", "prompt": ""},
        "text is not Unicode": {"target": "half a pair \ud800"},
    }
    unit = [sample("g", n, n, **changes) for n, changes in enumerate(broken.values())]
    special = {0: unit, 1: [sample("h", 0, 99), ValueError("torn \udcff\nfile")]}
    manifest = prepare(FakeSource(2, special=special), tmp_path, ANY, workers=1).manifest
    assert manifest["drops"] == dict.fromkeys(sorted([*broken, "unit failed"]), 1)
    assert manifest["counts"]["samples"] == 1
    failed = rejects(tmp_path)[-1]
    assert (failed["where"], failed["detail"]) == ("article-0001", "ValueError: torn \\udcff\nfile")


def test_the_second_of_two_equal_articles_is_rejected(tmp_path: Path) -> None:
    article = [sample("PMC7", n, n) for n in range(3)]
    source = FakeSource(4, special={1: article, 3: [sample("PMC7", n, n + 50) for n in range(3)]})
    manifest = prepare(source, tmp_path, ANY, workers=1).manifest
    assert manifest["drops"] == {"duplicate id": 3, "table image": 2}
    kept = [row for row in rows(tmp_path) if row["group"] == "PMC7"]
    assert [row["image"]["bytes"] for row in kept] == [png(n) for n in range(3)]
    assert {line["detail"] for line in rejects(tmp_path) if line["reason"] == "duplicate id"} == {
        "again in article-0003"
    }
    assert manifest["counts"]["read"] == 14 == manifest["counts"]["samples"] + 5


def test_a_shared_image_names_its_first_sample(tmp_path: Path) -> None:
    special = {
        0: [sample("A", 0, 1), sample("A", 1, 1)],
        1: [sample("B", 0, 1)],
        2: [sample("C", 0, 2, more_images=[Image(png(1), "side.png")])],
        3: [sample("D", 0, 3)],
    }
    manifest = prepare(FakeSource(4, special=special), tmp_path, ANY, workers=1).manifest
    found = {row["id"]: row["duplicate_of"] for row in rows(tmp_path)}
    first = "A/fig0/-/caption/0"
    assert [found[f"{name}/-/caption/0"] for name in ("A/fig0", "A/fig1", "B/fig0", "C/fig0", "D/fig0")] == [
        None,
        first,
        first,
        None,
        None,
    ]
    assert manifest["counts"]["duplicate_images"] == 2
    assert len({row["split"] for row in rows(tmp_path) if row["group"] in "ABC"}) == 1


def test_two_copies_of_an_article_fall_on_one_side(tmp_path: Path) -> None:
    copies = [(f"PMC{n}", f"10.1/Case{n}", f"10.1/case{n}") for n in range(12)]
    units = [[sample(pmc, 0, n, doi=doi)] for n, (pmc, doi, _) in enumerate(copies)]
    units += [[sample(group, 0, 100 + n, doi=group)] for n, (_, _, group) in enumerate(copies)]
    source = FakeSource(len(units), special=dict(enumerate(units)))
    prepare(source, tmp_path, Settings("any", (0.5, 0.0, 0.5)), workers=1)
    sides = {row["group"]: row["split"] for row in rows(tmp_path)}
    assert len(sides) == 24
    assert all(sides[pmc] == sides[group] for pmc, _, group in copies)
    assert set(sides.values()) == {"train", "test"}


def test_versions_are_told_and_another_python_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = prepare(FakeSource(3), tmp_path, ANY).manifest
    python = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    assert manifest["packages"] == {
        "lxml": lxml.etree.__version__,
        "pillow": PIL.__version__,
        "pyarrow": pyarrow.__version__,
        "python": python,
    }
    monkeypatch.setattr("platform.python_version", lambda: "3.99.1")
    assert prepare(FakeSource(3), tmp_path, ANY).up_to_date


class Spelled(FakeSource):
    """A source whose inputs are named in the order given."""

    def __init__(self, order: str) -> None:
        super().__init__(3)
        self.order = order

    def describe(self) -> list[dict]:
        return [{"path": f"/nowhere/{name}", "sha256": name * 64, "bytes": 1} for name in self.order]


def test_another_spelling_of_the_same_request_is_up_to_date(tmp_path: Path) -> None:
    prepare(Spelled("ab"), tmp_path, Settings("CC-BY-4.0,CC0-1.0"))
    assert prepare(Spelled("ba"), tmp_path, Settings("cc0-1.0, CC-BY-4.0")).up_to_date
    for source, policy in ((Spelled("ac"), "CC-BY-4.0,CC0-1.0"), (Spelled("ab"), "CC-BY-4.0")):
        with pytest.raises(InputError, match="other inputs or settings"):
            prepare(source, tmp_path, Settings(policy))


class Renamed(FakeSource):
    """The same inputs under paths that sort the other way round."""

    def units(self) -> list[Unit]:
        return [Unit(f"moved-{number}", unit.locator) for number, unit in enumerate(reversed(super().units()))]


def test_chunks_of_units_in_another_order_are_not_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(FakeSource, "read", lambda self, unit: stop_at(self, unit, "3"))
        with pytest.raises(KeyboardInterrupt):
            prepare(FakeSource(8), tmp_path, ANY, workers=1)
    assert len(list(tmp_path.glob(".work/*/chunk-*.jsonl"))) == 3
    outcome = prepare(Renamed(8), tmp_path, ANY, workers=1)
    assert outcome.chunks_resumed == 0
    assert {row["group"] for row in rows(tmp_path)} == {f"PMC{number}" for number in range(8)}


def stop_at(source: FakeSource, unit: Unit, number: str) -> Iterator[Sample | Reject]:
    """Read a unit, or be interrupted at unit `number`."""
    if unit.locator[0] == number:
        raise KeyboardInterrupt
    return iter([sample(f"PMC{unit.locator[0]}", 0, int(unit.locator[0]))])


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)), min_size=1, max_size=40), st.integers(0, 5))
def test_no_group_and_no_image_on_two_sides(tmp_path_factory, pairs: list[tuple[int, int]], seed: int) -> None:
    out = tmp_path_factory.mktemp("split")
    special = {n: [sample(f"G{group}", n, image)] for n, (group, image) in enumerate(pairs)}
    prepare(FakeSource(len(pairs), special=special), out, Settings("any", (0.4, 0.3, 0.3), seed), workers=1)
    by_group: dict[str, set[str]] = {}
    by_image: dict[str, set[str]] = {}
    for row in rows(out):
        by_group.setdefault(row["group"], set()).add(row["split"])
        by_image.setdefault(row["sha256"], set()).add(row["split"])
    assert len(rows(out)) == len(pairs)
    assert all(len(sides) == 1 for sides in [*by_group.values(), *by_image.values()])


def test_shards_and_row_groups_stay_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "SHARD_ROWS", 200)
    manifest = prepare(FakeSource(1, 450), tmp_path / "out", Settings("any", (1.0, 0.0, 0.0))).manifest
    assert [(shard["name"], shard["rows"]) for shard in manifest["shards"]] == [
        ("data/train-00000-of-00003.parquet", 200),
        ("data/train-00001-of-00003.parquet", 200),
        ("data/train-00002-of-00003.parquet", 50),
    ]
    found = pq.read_metadata(tmp_path / "out" / manifest["shards"][0]["name"])
    assert [found.row_group(n).num_rows for n in range(found.num_row_groups)] == [100, 100]
    columns = {
        found.row_group(0).column(n).path_in_schema: found.row_group(0).column(n) for n in range(found.num_columns)
    }
    picture = columns["image.bytes"]
    assert (picture.compression, picture.is_stats_set) == ("UNCOMPRESSED", False)
    assert columns["target"].compression == "ZSTD"
    assert len(load(tmp_path / "out", tmp_path)["train"]) == 450


def test_large_pictures_make_smaller_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "BATCH_BYTES", 1000)
    manifest = prepare(FakeSource(1, 60), tmp_path, Settings("any", (1.0, 0.0, 0.0))).manifest
    found = pq.read_metadata(tmp_path / manifest["shards"][0]["name"])
    assert found.num_row_groups > 5
    assert sum(found.row_group(n).num_rows for n in range(found.num_row_groups)) == 60


def test_nothing_admitted_leaves_nothing(tmp_path: Path) -> None:
    unit = [sample("g", 0, 0, license="CC-BY-NC-4.0", commercial_use="no"), Reject("fake", "x", "no image file")]
    with pytest.raises(InputError) as caught:
        prepare(FakeSource(1, special={0: unit}), tmp_path / "out", Settings())
    line = str(caught.value)
    assert "\n" not in line
    assert "all 2 records of 1 units" in line
    assert "license forbids commercial use (1)" in line
    assert "--license commercial" in line
    assert line.endswith("the first is g/fig0/-/caption/0: CC-BY-NC-4.0")
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="no figure or record"):
        prepare(FakeSource(0), tmp_path / "out", ANY)
    assert not (tmp_path / "out").exists()


def test_nothing_admitted_keeps_what_was_there(tmp_path: Path) -> None:
    prepare(FakeSource(3), tmp_path, ANY)
    before = files(tmp_path)
    with pytest.raises(InputError):
        prepare(FakeSource(0), tmp_path, ANY, overwrite=True)
    assert files(tmp_path) == before


@pytest.mark.parametrize("where", ["chunk", "merge"])
def test_full_disk_then_space_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    out = tmp_path / "out"

    def fail(*_: object, **__: object) -> None:
        raise full

    with monkeypatch.context() as patch:
        if where == "chunk":
            patch.setattr("medvlm.data.chunks._ChunkWriter.flush", fail)
        else:
            patch.setattr("pyarrow.parquet.ParquetWriter.write_table", fail)
        with pytest.raises(ResourceError, match="no space left"):
            prepare(FakeSource(5), out, ANY, workers=1)
    assert not out.exists() or sorted(path.name for path in out.iterdir()) == [".work", "log.jsonl"]
    assert not list(out.rglob("*.parquet"))
    prepare(FakeSource(5), out, ANY, workers=1)
    prepare(FakeSource(5), tmp_path / "straight", ANY, workers=1)
    assert files(out) == files(tmp_path / "straight")


def test_errors_of_workers_reach_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medvlm.data.engine.local.ALONE_S", 0)
    with pytest.raises(InputError, match="worker says"):
        prepare(FakeSource(4, special={1: [InputError("worker says no")]}), tmp_path / "out", ANY, workers=2)
