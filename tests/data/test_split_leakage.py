"""The ways to split, and what sides share: against a slow reading of the finished data set."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fake_source import FakeSource, png, sample
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medvlm.data.prepare import Settings, prepare
from medvlm.data.sample import Image, Sample
from medvlm.data.split_leakage import sentences, verdicts
from medvlm.data.splits import SPLITS, WAYS
from medvlm.errors import InputError

ROW = st.tuples(
    st.integers(0, 4),  # group
    st.integers(0, 5),  # picture
    st.integers(0, 3),  # text
    st.sampled_from(SPLITS),
    st.integers(0, 5) | st.none(),  # further view
)


def rows_of(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return split -> rows as the parquet files hold them."""
    found = {}
    for split in SPLITS:
        files = sorted((folder / "data").glob(f"{split}-*.parquet"))
        found[split] = [row for file in files for row in pq.read_table(file).to_pylist()]
    return found


def slow(sides: dict[str, list[dict[str, Any]]], one: str, other: str) -> dict[str, int]:
    """Count with sets what `split_leakage.shared` counts with sorted arrays."""

    def pictures(row: dict[str, Any]) -> list[bytes]:
        return [row["image"]["bytes"], *(view["bytes"] for view in row["more_images"])]

    def text(row: dict[str, Any]) -> tuple[str, str]:
        return row["prompt"].casefold(), row["target"].casefold()

    first, second = sides[one], sides[other]
    mine, others = ({p for row in side for p in pictures(row)} for side in (first, second))
    texts = {text(row) for row in first}
    whole = {(row["image"]["bytes"], text(row)) for row in first}
    return {
        "images": len(mine & others),
        "near_images": 0,
        "of_images": len(others),
        "texts": sum(text(row) in texts for row in second),
        "repeats": sum((row["image"]["bytes"], text(row)) in whole for row in second),
        "of_samples": len(second),
        "groups": len({row["group"] for row in first} & {row["group"] for row in second}),
    }


def build(folder: Path, rows: list[tuple[int, int, int, str, int | None]], way: str) -> dict[str, Any]:
    """Prepare one sample for each row and return the manifest."""
    made: list[Sample] = []
    for number, (group, picture, text, side, view) in enumerate(rows):
        more = [] if view is None else [Image(png(view), f"{view}.png")]
        made.append(sample(f"g{group}", number, picture, target=f"Text {text}.", official_split=side, more_images=more))
    source = FakeSource(1, special={0: made})
    return prepare(source, folder, Settings("any", split=way, seed=1), workers=1).manifest


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROW, min_size=1, max_size=12), way=st.sampled_from(WAYS))
def test_counts_equal_a_slow_reading(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, int, str, int | None]], way: str
) -> None:
    folder = tmp_path_factory.mktemp("set") / "out"
    manifest = build(folder, rows, way)
    made = rows_of(folder)
    official = defaultdict(list)
    for row in itertools.chain(*made.values()):
        official[row["official_split"]].append(row)
    for kind, sides in (("made", made), ("official", official)):
        pairs = [("train", "test"), ("train", "validation"), ("validation", "test")]
        expected = {f"{a}/{b}": slow(sides, a, b) for a, b in pairs if sides[a] and sides[b]}
        assert manifest["leakage"][kind] == expected
    assert sum(map(len, made.values())) == len(rows)
    if way == "official":
        assert all(row["official_split"] == split for split in SPLITS for row in made[split])
    else:
        assert all(counts["images"] == 0 for counts in manifest["leakage"]["made"].values())
    if way == "by-group":
        assert all(counts["groups"] == 0 for counts in manifest["leakage"]["made"].values())


def test_texts_that_both_sides_have_are_told_though_nothing_else_is_shared(tmp_path: Path) -> None:
    counts = build(tmp_path / "out", [(0, 0, 0, "train", None), (1, 1, 0, "test", None)], "official")["leakage"]["made"]
    assert verdicts(counts) == [("train and test: 1 of 1 test samples have a text of train", False)]
    assert sentences(counts, texts=False) == []


def test_by_image_lets_a_group_be_on_two_sides(tmp_path: Path) -> None:
    rows = [(0, picture, picture, "train", None) for picture in range(40)]
    grouped = build(tmp_path / "a", rows, "by-group")
    by_image = build(tmp_path / "b", rows, "by-image")
    assert len(grouped["counts"]["split"]) == 1
    assert len(by_image["counts"]["split"]) == 3
    assert by_image["leakage"]["made"]["train/test"]["groups"] == 1
    assert grouped["split_hash"] != by_image["split_hash"]


def test_the_official_split_is_in_the_hash(tmp_path: Path) -> None:
    one = build(tmp_path / "a", [(0, 0, 0, "train", None), (1, 1, 1, "test", None)], "official")
    other = build(tmp_path / "b", [(0, 0, 0, "test", None), (1, 1, 1, "train", None)], "official")
    assert one["split_hash"] != other["split_hash"]


def test_a_row_without_an_official_split_is_counted(tmp_path: Path) -> None:
    made = [sample("a", 0, 0, official_split="train"), sample("b", 1, 1)]
    manifest = prepare(FakeSource(1, special={0: made}), tmp_path / "out", Settings("any", split="official")).manifest
    assert manifest["drops"] == {"no official split": 1}
    (line,) = (tmp_path / "out/rejects.jsonl").read_text().splitlines()
    assert json.loads(line)["where"] == made[1].id


def test_a_set_without_an_official_split(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="states no split; use by-group"):
        prepare(FakeSource(2), tmp_path / "out", Settings("any", split="official"), workers=1)
    assert not (tmp_path / "out/data").exists()
    assert prepare(FakeSource(2), tmp_path / "out", Settings("any"), workers=1).manifest["counts"]["samples"] == 6


def test_the_card_tells_what_official_splits_share(tmp_path: Path) -> None:
    rows = [(0, 0, 0, "train", None), (0, 0, 0, "test", None), (1, 1, 1, "train", None), (2, 2, 2, "test", None)]
    manifest = build(tmp_path / "out", rows, "official")
    first, texts = "1 of 2 test images are also in train", "1 of 2 test samples have a text of train"
    shared = f"{first}, {texts}, 1 of 2 test samples repeat there whole, 1 groups are in both"
    assert verdicts(manifest["leakage"]["official"]) == [(f"train and test: {shared}", True)]
    card = (tmp_path / "out/README.md").read_text()
    assert "| train and test | 1 | 2 | 0 | 1 | 1 | 2 | 1 |" in card
    assert "As published (`--split official`" in card
