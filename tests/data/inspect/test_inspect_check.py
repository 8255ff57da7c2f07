"""Every promise of a data set, broken one at a time: one line names it, and nothing else is said to be wrong."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from small_sets import edit_manifest, png, prepared, rewrite, sample, to_schema_2

from medvlm.data.inspect.check import check, sound
from medvlm.data.inspect.folder import open_set
from medvlm.data.sample import Image
from medvlm.errors import InputError


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    items = [sample(f"g{number}", number, split="test" if number > 7 else "train") for number in range(10)]
    items[3].more_images = [Image(png(500), "lateral.png")]
    return prepared(tmp_path_factory.mktemp("sets") / "good", items)


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "set"))


def broken(folder: Path, whole: bool = True) -> list[str]:
    return check(open_set(folder), whole, lambda done, total: None).broken


def test_a_sound_data_set_keeps_every_promise(folder: Path) -> None:
    assert broken(folder) == []
    assert sound(open_set(folder)).splits == ["train", "test"]


def test_an_older_schema_lacks_columns_and_is_sound(folder: Path) -> None:
    to_schema_2(folder)
    data = open_set(folder)
    assert data.version == 2
    assert broken(folder) == []
    rows = [row for _, batch in data.batches(("id", "official_split", "views")) for row in batch.to_pylist()]
    assert len(rows) == 10
    assert {(row["official_split"], row["views"]) for row in rows} == {(None, None)}


def set_(name: str, value: Any, row: int = 0) -> Callable[[list[dict[str, Any]]], None]:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[row][name] = value

    return change


ROWS = [
    (set_("id", "g1/1"), "ids are not unique: 1 samples repeat one"),
    (set_("group", ""), "no id or group: 1 (the first: g0/0)"),
    (set_("target", " "), "empty target: 1 (the first: g0/0)"),
    (set_("prompt", ""), "empty question: 1 (the first: g0/0)"),
    (set_("commercial_use", "maybe"), "commercial_use is none of"),
    (set_("task", "song"), "unknown task: 1"),
    (set_("group", "g9"), "splits are not disjoint: 1 group"),
    (set_("sha256", "0" * 64), "sha256 is not that of the picture: 1 (the first: g0/0)"),
    (set_("sha256", None), "sha256 is not that of the picture: 1 (the first: g0/0)"),
    (set_("license", "CC-BY-NC-4.0"), "commercial_use is freer than the license: 1 (the first: g0/0)"),
    (set_("license", None), "commercial_use is freer than the license: 1 (the first: g0/0)"),
    (set_("official_split", "nonsense"), "official_split is none of train, validation, test: 1 (the first: g0/0)"),
    (set_("duplicate_of", "nowhere"), "duplicate_of is no id of the data set: 1"),
    (set_("group", "other"), "its split_hash is not that of the rows"),
    (set_("image", {"bytes": b"no picture", "path": "x"}), "image cannot be read: 1 (the first: g0/0"),
    (set_("image", {"bytes": png(3, (90, 90))[:-40], "path": "x"}), "g0/0"),
    (set_("more_images", [{"bytes": b"", "path": "x"}]), "image cannot be read: 1 (the first: g0/0: empty file)"),
    (set_("license", "CC-BY-NC-4.0"), "license: counts 10 of CC-BY-4.0, the rows 9"),
    (set_("license", None), "license: counts 10 of CC-BY-4.0, the rows 9"),
    (set_("language", "de"), "language: counts 0 of de, the rows 1"),
    (lambda rows: rows.pop(), "counts 10 samples, its shards 9"),
]


@pytest.mark.parametrize(("change", "said"), ROWS, ids=[said[:30] for _, said in ROWS])
def test_a_broken_row_is_named(folder: Path, change: Any, said: str) -> None:
    edit_manifest(folder, lambda manifest: manifest["settings"].update(split="by-group"))
    rewrite(folder, change)
    assert any(said in line for line in broken(folder)), broken(folder)


def test_a_stricter_use_than_the_license_and_a_copy_of_what_is_there_are_sound(folder: Path) -> None:
    rewrite(folder, lambda rows: rows[0].update(commercial_use="unknown", duplicate_of="g1/1"))
    edit_manifest(folder, lambda told: told["counts"].update(commercial_use={"yes": 9, "unknown": 1}))
    assert broken(folder) == []


@pytest.mark.parametrize("way", ["official", "by-image", "by-group"])
def test_the_split_hash_is_that_of_the_manifest_in_every_way(tmp_path: Path, way: str) -> None:
    items = [sample(f"g{number // 3}", number, shade=number // 2 % 7, split="test") for number in range(30)]
    folder = prepared(tmp_path / "set", items, split=way)
    assert broken(folder) == []
    edit_manifest(folder, lambda told: told.update(split_hash="0" * 64))
    assert broken(folder) == ["manifest.json: its split_hash is not that of the rows"]
    edit_manifest(folder, lambda told: told["settings"].update(split=["weird"]))
    assert "manifest.json: nobody knows the split ['weird']" in broken(folder)


def test_a_picture_on_two_sides_breaks_a_split_by_group_and_is_a_note_of_the_official_one(tmp_path: Path) -> None:
    items = [sample("a", 1, shade=7), sample("b", 2, shade=7, split="test")]
    folder = prepared(tmp_path / "leaky", items)
    found = check(open_set(folder), True, lambda done, total: None)
    assert found.broken == []
    assert found.notes == ["splits are not disjoint: 1 picture is in several, as --split official allows"]
    for way in ("by-image", "by-group", "parts", "parts-move"):
        edit_manifest(folder, lambda manifest, way=way: manifest["settings"].update(split=way))
        assert "splits are not disjoint: 1 picture is in several" in broken(folder)


def test_a_license_that_the_policy_does_not_admit(folder: Path) -> None:
    edit_manifest(folder, lambda manifest: manifest["settings"].update(license="commercial"))
    rewrite(folder, lambda rows: rows[2].update(license="CC-BY-NC-4.0", commercial_use="no"))
    assert any(line.startswith("not admitted by --license commercial: 1 (the first: g2/2") for line in broken(folder))


def test_samples_without_a_license_are_told(tmp_path: Path) -> None:
    folder = prepared(tmp_path / "bare", [sample("a", 1, license=None, commercial_use="unknown")])
    found = check(open_set(folder), True, lambda done, total: None)
    assert (found.broken, found.notes) == ([], ["1 samples state no license"])


def shard(folder: Path, split: str = "train") -> Path:
    return next((folder / "data").glob(f"{split}-*"))


def cut(folder: Path) -> None:
    shard(folder).write_bytes(shard(folder).read_bytes()[:-200])


def flip(folder: Path) -> None:
    content = bytearray(shard(folder).read_bytes())
    content[40] ^= 1
    shard(folder).write_bytes(content)


def link(folder: Path) -> None:
    outside = folder.parent / "elsewhere.parquet"
    shutil.move(shard(folder), outside)
    os.symlink(outside, folder / "data" / "train-00000-of-00001.parquet")


def link_data(folder: Path) -> None:
    shutil.move(folder / "data", folder.parent / "away")
    os.symlink(folder.parent / "away", folder / "data")


def extra_column(folder: Path) -> None:
    table = pq.read_table(shard(folder))
    pq.write_table(table.append_column("mood", table.column("id")), shard(folder))


def other_type(folder: Path) -> None:
    table = pq.read_table(shard(folder))
    at = table.schema.get_field_index("year")
    pq.write_table(table.set_column(at, "year", table.column("id")), shard(folder))


def fewer_columns(folder: Path) -> None:
    pq.write_table(pq.read_table(shard(folder)).drop_columns(["target"]), shard(folder))


FILES = [
    (lambda folder: shard(folder).unlink(), "train-00000-of-00001.parquet: is missing"),
    (cut, "train-00000-of-00001.parquet: cannot be read"),
    (link, "train-00000-of-00001.parquet: leads out of the folder"),
    (link_data, "data: leads out of the folder"),
    (lambda folder: shutil.copy(shard(folder), folder / "data" / "more.parquet"), "data/more.parquet: is not in"),
    (extra_column, "has columns that the schema does not know: 'mood'"),
    (other_type, "column year is string, the schema says int32"),
    (fewer_columns, "lacks the column target"),
    (lambda folder: (folder / "attribution.tsv").unlink(), "attribution.tsv: is missing"),
    (lambda folder: (folder / "README.md").write_text("x"), "README.md: has 1 bytes"),
    (lambda folder: edit_manifest(folder, lambda told: told.update(fingerprint="x")), "its fingerprint is not"),
    (lambda folder: edit_manifest(folder, lambda told: told["counts"].update(samples=3)), "counts 3 samples"),
    (lambda folder: edit_manifest(folder, lambda told: told.pop("files")), "names no file beside the shards"),
    (
        lambda folder: edit_manifest(folder, lambda told: told["shards"].append(told["shards"][0])),
        "lists a shard twice",
    ),
]


@pytest.mark.parametrize(("change", "said"), FILES, ids=[said[:40] for _, said in FILES])
def test_a_broken_file_is_named_without_reading_rows(folder: Path, change: Any, said: str) -> None:
    change(folder)
    assert any(said in line for line in broken(folder, whole=False)), broken(folder, whole=False)
    with pytest.raises(InputError) as error:
        sound(open_set(folder))
    assert "\n" not in str(error.value)
    assert "medvlm data show" in str(error.value)


def test_a_changed_byte_needs_the_whole_check(folder: Path) -> None:
    flip(folder)
    assert broken(folder, whole=False) == []
    assert any("SHA-256 differs" in line for line in broken(folder))


def foreign(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def older_by_hand(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"fingerprint": "x"}')


NO_SETS = [
    (lambda folder: shutil.rmtree(folder), "is not there"),
    (foreign, "holds parquet files, but not of medvlm"),
    (older_by_hand, "that medvlm prepare did not write"),
    (lambda folder: edit_manifest(folder, lambda told: told.update(schema=99)), "install a newer one"),
    (lambda folder: edit_manifest(folder, lambda told: told.update(shards=[{"name": "x"}])), "is damaged"),
    (lambda folder: edit_manifest(folder, lambda told: told.update(counts=[])), "is damaged"),
    (lambda folder: edit_manifest(folder, lambda told: told.update(card=[])), "is damaged"),
    (lambda folder: edit_manifest(folder, lambda told: told.update(licenses={"x": "y"})), "is damaged"),
    (lambda folder: edit_manifest(folder, lambda told: told["shards"][0].update(name="../x.parquet")), "is damaged"),
    (lambda folder: edit_manifest(folder, lambda told: told["shards"][0].update(split="test")), "is damaged"),
]


@pytest.mark.parametrize(("change", "said"), NO_SETS, ids=[said for _, said in NO_SETS])
def test_what_is_no_data_set(folder: Path, change: Any, said: str) -> None:
    change(folder)
    with pytest.raises(InputError, match=said) as error:
        open_set(folder)
    assert "\n" not in str(error.value)


def test_an_empty_folder_and_an_unfinished_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished data set"):
        open_set(tmp_path)
    (tmp_path / ".work").mkdir()
    with pytest.raises(InputError, match="not finished"):
        open_set(tmp_path)
