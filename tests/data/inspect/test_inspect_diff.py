"""Differences of two versions against a comparison of all rows in memory."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from small_sets import png, prepared, rewrite, rows_of, sample, to_schema_2

from medvlm.data.inspect.diff import TOLD, compare, lines
from medvlm.data.inspect.folder import open_set
from medvlm.data.sample import Image, Sample
from medvlm.errors import InputError


def version(folder: Path, seed: int) -> Path:
    """Write a data set that differs by chance from those of other seeds."""
    chance = random.Random(seed)
    items: list[Sample] = []
    for number in range(60):
        if chance.random() < 0.1:
            continue
        one = sample(f"g{number}", number, split="test" if number % 5 == 0 else "train")
        if chance.random() < 0.2:
            one.official_split = chance.choice(["train", "validation", "test"])
        if chance.random() < 0.1:
            one.target = f"another answer {seed}"
        if chance.random() < 0.1:
            one.image = Image(png(1000 + seed), "new.png")
        if chance.random() < 0.1:
            one.license = "CC0-1.0"
        if chance.random() < 0.1:
            one.more_images = [Image(png(2000 + seed), "view.png")]
        items.append(one)
    return prepared(folder / f"v{seed}", items)


def slow(old: Path, new: Path) -> dict[str, Any]:
    before, after = ({row["id"]: row for row in rows_of(folder)} for folder in (old, new))
    both = [name for name in after if name in before]
    columns = {name: count for name in TOLD if (count := sum(before[each][name] != after[each][name] for each in both))}
    changed = [each for each in both if any(before[each][name] != after[each][name] for name in TOLD)]
    moved = {each: (before[each]["in"], after[each]["in"]) for each in both if before[each]["in"] != after[each]["in"]}
    return {
        "added": {each for each in after if each not in before},
        "removed": {each for each in before if each not in after},
        "changed": set(changed),
        "columns": columns,
        "moved": moved,
    }


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_it_finds_what_a_slow_comparison_finds(tmp_path: Path, seed: int) -> None:
    old, new = version(tmp_path, 1), version(tmp_path, seed)
    told, truth = compare(open_set(old), open_set(new), 0), slow(old, new)
    assert not told["identical"]
    assert set(told["added"]) == truth["added"]
    assert set(told["removed"]) == truth["removed"]
    assert {row["id"] for row in told["changed"]} == truth["changed"]
    assert told["columns"] == truth["columns"]
    assert {row["id"]: (row["from"], row["to"]) for row in told["moved"]} == truth["moved"]
    assert told["counts"] == {name: len(truth[name]) for name in ("added", "removed", "changed", "moved")}
    assert sum(told["moves"].values()) == len(truth["moved"])
    shown = compare(open_set(old), open_set(new), 2)
    assert shown["counts"] == told["counts"]
    assert shown["added"] == told["added"][:2]
    text = "\n".join(lines(shown))
    assert f"… and {len(truth['changed']) - 2:,} more changed" in text


def test_identical_versions_are_told_by_their_fingerprint(tmp_path: Path) -> None:
    one, other = version(tmp_path / "a", 1), version(tmp_path / "b", 1)
    told = compare(open_set(one), open_set(other))
    assert told["identical"]
    (line,) = lines(told)
    assert line.startswith("identical: ")
    assert told["old"]["fingerprint"] in line


def test_an_older_schema_with_the_same_samples_is_no_change_of_any(tmp_path: Path) -> None:
    items = [sample("a", 1, split="train"), sample("b", 2, split="train")]
    for one in items:
        one.official_split = "train"
    new = prepared(tmp_path / "new", items)
    rewrite(new, lambda rows: [row.update(official_split=None) for row in rows])
    old = to_schema_2(prepared(tmp_path / "old", items))
    told = compare(open_set(old), open_set(new))
    assert told["counts"] == {"added": 0, "removed": 0, "changed": 0, "moved": 0}
    assert any("the same samples in the same splits" in line and "schema 2 and 3" in line for line in lines(told))


def test_what_was_tested_and_is_trained_on_is_the_danger(tmp_path: Path) -> None:
    old = prepared(tmp_path / "old", [sample("a", 1, split="test"), sample("b", 2), sample("c", 3)])
    new = prepared(tmp_path / "new", [sample("a", 1), sample("b", 2, split="test"), sample("c", 3, split="validation")])
    said = [line for line in lines(compare(open_set(old), open_set(new))) if "moved from" in line]
    assert said == [
        "DANGER: 1 samples moved from test to train: models trained on the new version have seen them",
        "DANGER: 1 samples moved from train to validation: models trained on the old version have seen them",
        "DANGER: 1 samples moved from train to test: models trained on the old version have seen them",
    ]


def test_data_sets_that_have_nothing_in_common(tmp_path: Path) -> None:
    old, new = prepared(tmp_path / "old", [sample("a", 1)]), prepared(tmp_path / "new", [sample("b", 2)])
    assert "no id is in both: these are not two versions of one data set" in lines(
        compare(open_set(old), open_set(new))
    )


def test_an_id_that_is_there_twice_cannot_be_compared(tmp_path: Path) -> None:
    old = prepared(tmp_path / "old", [sample("a", 1), sample("b", 2)])
    new = prepared(tmp_path / "new", [sample("a", 1), sample("b", 3)])
    rewrite(new, lambda rows: rows[1].update(id=rows[0]["id"]))
    with pytest.raises(InputError, match="ids are not unique"):
        compare(open_set(old), open_set(new))
