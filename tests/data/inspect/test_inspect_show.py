"""What `show` tells of a data set and its rows, against what was put in."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_sets import png, prepared, sample

from medvlm.data.inspect import show
from medvlm.data.inspect.folder import open_set, rows_at
from medvlm.data.sample import COLUMNS, Image, Reject
from medvlm.errors import InputError


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    items = [sample(f"g{number:03}", number, split="test" if number % 4 == 0 else "train") for number in range(250)]
    items[6].more_images = [Image(png(700, (30, 20)), "side.png")]
    items[6].target = "word " * 200
    rejects = [Reject("listed", "g000/x", "no image file")]
    return prepared(tmp_path_factory.mktemp("show") / "set", [*items, *rejects])


def test_facts(folder: Path) -> None:
    told = show.facts(open_set(folder))
    assert told["samples"] == 250
    assert told["splits"] == {"train": 187, "test": 63}
    assert told["licenses"] == {"CC-BY-4.0": 250}
    assert told["left_out"] == {"no image file": 1}
    text = "\n".join(show.lines(told))
    for word in ("Set set", "250 in 250 groups", "train 187 · test 63", "no image file 1", told["fingerprint"]):
        assert word in text


def test_first_rows_of_a_split(folder: Path) -> None:
    data = open_set(folder)
    assert [row["id"] for row in show.rows(data, "test", 3)] == ["g000/0", "g004/4", "g008/8"]
    assert len(list(show.rows(data, None, 0))) == 0
    assert len(list(show.rows(data, None, 999))) == 250


def test_rows_by_id_whatever_their_row_group(folder: Path) -> None:
    ids = ("g240/240", "g006/6", "g249/249")
    found = {row["id"]: row for row in show.rows(open_set(folder), None, 0, ids)}
    assert set(found) == set(ids)
    row = found["g006/6"]
    assert (row["image"]["width"], row["image"]["height"], row["image"]["format"]) == (8, 6, "PNG")
    assert row["more_images"] == [
        {"name": "side.png", "bytes": len(png(700, (30, 20))), "format": "PNG", "width": 30, "height": 20}
    ]
    short, whole = show.row_lines(row), show.row_lines(row, whole=True)
    assert any("(1,000 characters)" in line for line in short)
    assert any(line.count("word") == 200 for line in whole)
    assert any("PNG 30 x 20" in line for line in short)


def test_no_such_id_or_split(folder: Path) -> None:
    with pytest.raises(InputError, match='no sample has the id "nobody"'):
        list(show.rows(open_set(folder), None, 0, ("nobody", "g006/6")))
    with pytest.raises(InputError, match='no split "validation"; it has train, test'):
        list(show.rows(open_set(folder), "validation", 1))


def test_rows_at_places(folder: Path) -> None:
    path = next((folder / "data").glob("train-*"))
    found = dict(rows_at(path, [150, 3, 3, 186], COLUMNS))
    assert list(found) == [3, 150, 186]
    train = [number for number in range(250) if number % 4]
    assert [row["id"] for row in found.values()] == [f"g{train[at]:03}/{train[at]}" for at in (3, 150, 186)]


def test_a_split_that_leaks_says_so(tmp_path: Path) -> None:
    folder = prepared(tmp_path / "leaky", [sample("a", 1, shade=5), sample("a", 2, shade=5, split="test")])
    told = show.facts(open_set(folder))
    assert "  leaks        train and test: 1 of 1 test images are also in train, 1 groups are in both" in show.lines(
        told
    )
