"""Merged data sets: nothing on two sides, nothing lost uncounted, credits and rejects carried along."""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_sets import edit_manifest, png, prepared, rewrite, rows_of, sample, scan, to_schema_2

from medvlm.data import credits
from medvlm.data.inspect.check import check
from medvlm.data.inspect.folder import open_set
from medvlm.data.merging import notes
from medvlm.data.merging.combine import combine, told
from medvlm.data.output import read_json
from medvlm.data.sample import Credit, Image, Reject, Sample
from medvlm.errors import InputError, UsageError

SIDES = ("train", "validation", "test")


def part(folder: Path, seed: int, **changes: Any) -> Path:
    """Write a data set whose pictures, groups, articles and ids also occur in those of other seeds."""
    chance = random.Random(seed)
    side: dict[str, str] = {}
    items = []
    for number in range(25):
        group = f"g{chance.randrange(25)}"
        split = side.setdefault(group, chance.choice(["train", "train", "train", "validation", "test"]))
        doi = f"10.1/{chance.randrange(20)}" if chance.random() < 0.1 else None
        own = {"id": f"{group}/{number}" if chance.random() < 0.7 else f"s{seed}/{number}", "doi": doi}
        one = sample(group, number, shade=chance.randrange(150), split=split, **own, **changes)
        if chance.random() < 0.2:
            one.more_images = [Image(png(chance.randrange(150)), "v.png")]
        items.append(one)
    return prepared(folder / f"part{seed}", items, split="by-group")


def pictures(row: dict[str, Any]) -> set[bytes]:
    return {row["image"]["bytes"], *(view["bytes"] for view in row["more_images"])}


def on_sides(rows: list[dict[str, Any]], keys: Any) -> dict[Any, set[str]]:
    found: dict[Any, set[str]] = {}
    for row in rows:
        for key in keys(row):
            found.setdefault(key, set()).add(row["in"])
    return found


def apart(rows: list[dict[str, Any]]) -> bool:
    """Whether no picture, group or article is on two sides."""
    kinds = (pictures, lambda row: [row["group"]], lambda row: [row["doi"]] if row["doi"] else [])
    return all(len(sides) == 1 for keys in kinds for sides in on_sides(rows, keys).values())


def content(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["id"].split("/", 1)[-1], row["sha256"], row["prompt"], row["target"]


def text(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["group"], row["sha256"], row["prompt"]


def is_whole(folder: Path) -> bool:
    return check(open_set(folder), True, lambda done, total: None).broken == []


@pytest.mark.parametrize("seed", [10, 20])
def test_nothing_is_on_two_sides_and_every_test_set_stays_whole(tmp_path: Path, seed: int) -> None:
    parts = [part(tmp_path, seed + number) for number in range(3)]
    before = [row for folder in parts for row in rows_of(folder)]
    assert not apart(before)
    outcome = combine(parts, tmp_path / "out", workers=1)
    rows = rows_of(tmp_path / "out")
    drops = outcome.manifest["drops"]
    assert apart(rows)
    assert len({row["id"] for row in rows}) == len(rows)
    copies = {row["duplicate_of"] for row in rows if row["duplicate_of"]}
    assert copies <= {row["id"] for row in rows}
    assert len(rows) + sum(drops.values()) == len(before)
    assert set(drops) <= {"shared with a held-out split", "same sample in another part"}
    assert Counter(map(json.dumps, sorted({content(row) for row in rows if row["in"] == "test"}))) == Counter(
        map(json.dumps, sorted({content(row) for row in before if row["in"] == "test"}))
    )
    published = {text(row): (row["in"], row["official_split"]) for row in before}
    assert all((row["in"], row["official_split"]) == published[text(row)] for row in rows)
    assert is_whole(tmp_path / "out")


def test_copies_name_a_sample_that_is_there(tmp_path: Path) -> None:
    one = prepared(tmp_path / "one", [sample("a", 1, shade=7)])
    tested = [sample("b", 2, shade=7), sample("b", 3, shade=7), sample("c", 4, shade=7), sample("d", 5, shade=8)]
    for each in tested:
        each.official_split = "test"
    two = prepared(tmp_path / "two", tested)
    combine([one, two], tmp_path / "out", workers=1)
    copies = {row["id"]: row["duplicate_of"] for row in rows_of(tmp_path / "out")}
    assert copies == {"b/2": None, "b/3": None, "c/4": "b/2", "d/5": None}


@pytest.mark.parametrize("seed", [10, 20])
def test_moved_samples_are_not_lost(tmp_path: Path, seed: int) -> None:
    parts = [part(tmp_path, seed + number) for number in range(2)]
    dropped = combine(parts, tmp_path / "drop", workers=1).manifest
    moved = combine(parts, tmp_path / "move", shared="move", workers=1).manifest
    rows = rows_of(tmp_path / "move")
    assert apart(rows)
    shared = dropped["drops"]["shared with a held-out split"]
    assert moved["counts"]["samples"] == dropped["counts"]["samples"] + shared
    before: dict[Any, int] = {}
    for row in (row for folder in parts for row in rows_of(folder)):
        before[text(row)] = max(SIDES.index(row["in"]), before.get(text(row), 0))
    order = [SIDES.index(row["in"]) - before[text(row)] for row in rows]
    assert min(order) == 0
    assert sum(map(bool, order)) == shared
    assert is_whole(tmp_path / "move")


def test_kept_sides_leak_and_are_counted(tmp_path: Path) -> None:
    parts = [part(tmp_path, 10 + number) for number in range(2)]
    outcome = combine(parts, tmp_path / "out", shared="keep", workers=1)
    rows = rows_of(tmp_path / "out")
    assert not apart(rows)
    found = on_sides(rows, pictures)
    made = outcome.manifest["leakage"]["made"]["train/test"]
    assert made["images"] == sum({"train", "test"} <= sides for sides in found.values())
    assert "it had in its part, with all that the sides share" in (tmp_path / "out" / "README.md").read_text("utf-8")
    assert any("the split leaks" in line for line in told(outcome.manifest, tmp_path / "out"))


def test_refused_sides_leave_nothing_behind(tmp_path: Path) -> None:
    parts = [part(tmp_path, 10 + number) for number in range(2)]
    out = tmp_path / "out"
    with pytest.raises(InputError, match="samples share a picture, group or article"):
        combine(parts, out, shared="refuse", workers=1)
    assert not out.exists()
    combine(parts, out, shared="drop", workers=1)
    assert is_whole(out)


def test_nothing_shared_is_refused_for_nothing(tmp_path: Path) -> None:
    one = prepared(tmp_path / "one", [sample("a", 1), sample("b", 2, split="test")])
    two = prepared(tmp_path / "two", [sample("c", 3), sample("d", 4, split="test")])
    outcome = combine([one, two], tmp_path / "out", shared="refuse", workers=1)
    assert outcome.manifest["counts"]["split"] == {"train": 2, "test": 2}
    assert list(told(outcome.manifest, tmp_path / "out")) == []


def test_phantoms_differ_in_little_and_are_no_near_duplicates(tmp_path: Path) -> None:
    real = [sample("a", 1, image=Image(scan(1), "a.png")), sample("b", 2, image=Image(scan(2), "b.png"), split="test")]
    drawn = [sample("p", 3, image=Image(scan(3), "p.png")), sample("q", 4, image=Image(scan(3, "BMP", 150), "q.bmp"))]
    drawn[1].official_split = "test"
    one, two = prepared(tmp_path / "real", real), prepared(tmp_path / "drawn", drawn)
    assert combine([one, two], tmp_path / "lost", workers=1).manifest["counts"]["samples"] == 3
    edit_manifest(two, lambda manifest: manifest.update(synthetic=True))
    manifest = combine([one, two], tmp_path / "out", workers=1).manifest
    assert manifest["counts"]["samples"] == 4
    assert not manifest["synthetic"]


def test_a_smaller_copy_of_a_tested_picture_is_not_trained_on(tmp_path: Path) -> None:
    tested = [sample(f"t{number}", number, image=Image(scan(number), "t.png"), split="test") for number in range(4)]
    copies = [
        sample(f"c{number}", 50 + number, image=Image(scan(number, "JPEG", 120), "c.jpg")) for number in range(2, 6)
    ]
    parts = [prepared(tmp_path / "tested", tested), prepared(tmp_path / "copies", copies)]
    outcome = combine(parts, tmp_path / "out", workers=1)
    assert {row["group"] for row in rows_of(tmp_path / "out")} == {"t0", "t1", "t2", "t3", "c4", "c5"}
    assert outcome.manifest["drops"] == {"shared with a held-out split": 2}
    assert outcome.manifest["leakage"]["official"]["train/test"]["near_images"] == 2
    assert outcome.manifest["leakage"]["made"]["train/test"]["near_images"] == 0


def test_the_same_sample_is_taken_once_from_where_it_is_held_out(tmp_path: Path) -> None:
    both = sample("a", 1)
    one = prepared(tmp_path / "one", [both, sample("b", 2)])
    two = prepared(tmp_path / "two", [sample("a", 1, split="test"), sample("c", 3)])
    outcome = combine([one, two], tmp_path / "out", workers=1)
    assert {row["id"]: row["in"] for row in rows_of(tmp_path / "out")} == {
        "a/1": "test",
        "b/2": "train",
        "c/3": "train",
    }
    assert outcome.manifest["drops"] == {"same sample in another part": 1}
    (line,) = told(outcome.manifest, tmp_path / "out")
    assert line.startswith("1 samples are in several parts")
    assert line.endswith("(1-one 1)")


def test_other_samples_with_the_same_id_get_the_name_of_their_part(tmp_path: Path) -> None:
    one = prepared(tmp_path / "x" / "set", [sample("a", 1), sample("b", 2)])
    two = prepared(tmp_path / "y" / "set", [sample("a", 1, shade=77), sample("c", 3)])
    three = prepared(tmp_path / "z" / "set", [sample("a", 1, shade=78)])
    outcome = combine([one, two, three], tmp_path / "out", workers=1)
    assert any(line.startswith("2 samples have their part's name") for line in told(outcome.manifest, tmp_path / "out"))
    rows = {row["id"]: row["image"]["bytes"] for row in rows_of(tmp_path / "out")}
    assert set(rows) == {"a/1", "b/2", "set-2/a/1", "c/3", "set-3/a/1"}
    assert rows["a/1"] == png(1)
    assert rows["set-2/a/1"] == png(77)
    assert rows["set-3/a/1"] == png(78)


def test_samples_that_differ_in_views_or_rights_are_not_the_same(tmp_path: Path) -> None:
    one = prepared(tmp_path / "one", [sample("a", 1), sample("b", 2), sample("c", 3)])
    more = sample("a", 1, more_images=[Image(png(77), "v.png")])
    bound = sample("b", 2, license="CC-BY-NC-4.0", commercial_use="no")
    two = prepared(tmp_path / "two", [more, bound, sample("c", 3)])
    for number, parts in enumerate(([one, two], [two, one])):
        manifest = combine(parts, tmp_path / f"out{number}", workers=1).manifest
        rows = rows_of(tmp_path / f"out{number}")
        assert manifest["drops"] == {"same sample in another part": 1}
        assert manifest["licenses"] == {"CC-BY-4.0": 4, "CC-BY-NC-4.0": 1}
        assert sorted(len(row["more_images"]) for row in rows) == [0, 0, 0, 0, 1]


def test_a_name_for_a_repeated_id_is_in_no_part(tmp_path: Path) -> None:
    one = prepared(tmp_path / "one", [sample("a", 1), sample("set/a", 1, shade=70), sample("set-2", 1, shade=71)])
    two = prepared(tmp_path / "set", [sample("a", 1, shade=72)])
    manifest = combine([one, two], tmp_path / "out", workers=1).manifest
    assert manifest["drops"] == {}
    assert {row["id"] for row in rows_of(tmp_path / "out")} == {"a/1", "set/a/1", "set-2/1", "set-3/a/1"}


def test_the_published_split_stays_what_it_was(tmp_path: Path) -> None:
    one = prepared(tmp_path / "one", [sample("a", n, shade=n, split="test") for n in range(3)], split="by-group")
    two = prepared(tmp_path / "two", [sample("b", 9, official_split=None)], split="by-group")
    combine([one, two], tmp_path / "out", workers=1)
    before = {row["id"]: (row["in"], row["official_split"]) for folder in (one, two) for row in rows_of(folder)}
    assert {row["id"]: (row["in"], row["official_split"]) for row in rows_of(tmp_path / "out")} == before
    assert before["a/1"] == ("train", "test")


@pytest.mark.parametrize("patients", [False, True])
def test_equal_file_names_of_two_folders_are_no_shared_group(tmp_path: Path, patients: bool) -> None:
    def own(shade: int, split: str, group: str) -> Sample:
        return sample(group, shade, shade=shade, split=split, source="folder", figure_id="0")

    def folder(manifest: dict[str, Any]) -> None:
        manifest["source"] = "folder"
        manifest["settings"]["columns"] = {"image": "file", **({"group": "patient"} if patients else {})}

    one = prepared(tmp_path / "one", [own(1, "train", "0"), own(2, "train", "anna"), Credit("0", authors="Us")])
    two = prepared(tmp_path / "two", [own(3, "test", "0"), own(4, "test", "anna")])
    for part in (one, two):
        edit_manifest(part, folder)
    manifest = combine([one, two], tmp_path / "out", workers=1).manifest
    assert manifest["drops"] == {"shared with a held-out split": 2 if patients else 1}
    groups = {row["group"] for row in rows_of(tmp_path / "out")}
    first, second = (f"{part.name}-{open_set(part).manifest['fingerprint'][:8]}/0" for part in (one, two))
    assert groups == ({"0", "anna"} if patients else {first, second, "anna"})
    told = (tmp_path / "out" / "attribution.tsv").read_text("utf-8").splitlines()
    assert any(line.startswith(f"{first}\t") and "\tUs\t" in line for line in told) is not patients


def test_equal_file_names_are_no_shared_group_in_merged_sets_either(tmp_path: Path) -> None:
    """Folders of the same two names in two places, merged there first; one of them is a part itself, too."""
    parts = {}
    for number, name in enumerate(("A/own", "A/x", "B/x", "B/own")):
        side = "test" if name == "B/own" else "train"
        rows = [
            sample(f"{name}/{n}", n, shade=10 * number + n, split=side, figure_id=f"{n}", group=f"{n}")
            for n in range(5)
        ]
        parts[name] = prepared(tmp_path / name, rows)
        edit_manifest(parts[name], lambda manifest: manifest.update(source="folder"))
    for place in "AB":
        both = [part for name, part in parts.items() if name.startswith(place)]
        combine(both, tmp_path / place / "m", workers=1)
    merged = [tmp_path / "A" / "m", tmp_path / "B" / "m"]
    assert combine(merged, tmp_path / "out", workers=1).manifest["drops"] == {}
    combine([*merged, parts["B/own"]], tmp_path / "again", workers=1)
    for out in ("out", "again"):
        rows = rows_of(tmp_path / out)
        assert len(rows) == 20
        assert len({row["group"] for row in rows}) == 20


def test_use_is_never_freer_than_the_license(tmp_path: Path) -> None:
    one = prepared(tmp_path / "one", [sample("a", 1, license="CC-BY-NC-4.0"), sample("b", 2, commercial_use="unknown")])
    two = prepared(tmp_path / "two", [sample("c", 3)])
    combine([one, two], tmp_path / "out", workers=1)
    uses = {row["id"]: row["commercial_use"] for row in rows_of(tmp_path / "out")}
    assert uses == {"a/1": "no", "b/2": "unknown", "c/3": "yes"}


def test_every_column_of_a_sample_comes_along(tmp_path: Path) -> None:
    full = sample("a", 1)
    for name, value in {
        "mentions": ["one", "two"],
        "choices": ["x", "y"],
        "views": ["PA", "LATERAL"],
        "concepts": ["C1"],
        "compound": True,
        "year": 1999,
        "third_party": True,
        "identifiers": "none",
        "original_text": "as it\ncame",
        "finding": "none",
    }.items():
        setattr(full, name, value)
    full.more_images = [Image(png(9), "late.png")]
    one, two = prepared(tmp_path / "one", [full]), prepared(tmp_path / "two", [sample("b", 2)])
    combine([one, two], tmp_path / "out", workers=1)
    assert {row["id"]: row for row in rows_of(tmp_path / "out")}["a/1"] == rows_of(one)[0]


def test_credits_and_rejects_come_along(tmp_path: Path) -> None:
    items: list[Sample | Reject | Credit] = []
    for number in range(12):
        items.append(sample(f"g{number}", number))
        items.append(
            Credit(
                f"g{number}", f'=T "{number}"', f"Author {number}; Other", "Journal", 2000 + number, copyright="© us"
            )
        )
        items += [Reject("listed", f"g{number}/{row}", "no image file", 'a\t"b"') for row in range(number)]
    one = prepared(tmp_path / "one", items)
    two = prepared(tmp_path / "two", [sample("other", 99), Reject("listed", "other/1", "too small")])
    combine([one, two], tmp_path / "out", workers=1)

    def credited(folder: Path) -> dict[str, dict[str, str]]:
        with open(folder / "attribution.tsv", encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            return {row["group"]: row for row in rows}

    assert credited(tmp_path / "out") == {**credited(one), **credited(two)}
    assert "=T" in credited(one)["g3"]["title"]
    rejects = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text("utf-8").splitlines()]
    assert len(rejects) == 66 + 1
    assert Counter(told["reason"] for told in rejects) == {"no image file": 66, "too small": 1}
    assert {told["where"] for told in rejects} >= {"one: g11/10", "two: other/1"}
    assert rejects[0]["detail"] == 'a\t"b"'


def test_slices_of_rejects_join_without_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        {"source": "s", "where": f"w{n}" * (n % 9 + 1), "reason": "r", "detail": "é" * (n % 5)} for n in range(200)
    ]
    path = tmp_path / "rejects.jsonl"
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    for size in (1, 7, 64, 1000, 1 << 20):
        monkeypatch.setattr(notes, "SLICE_BYTES", size)
        found = [one for start, stop in notes.slices(path) for one in notes.rejects(path, start, stop, "p")]
        assert [one.where for one in found] == [f"p: {line['where']}" for line in lines]


@given(st.text())
def test_a_cell_is_read_as_it_will_be_written_again(text: str) -> None:
    once = credits.cell(text)
    assert credits.cell(once) == once


def test_a_damaged_line_of_rejects_is_a_reject(tmp_path: Path) -> None:
    path = tmp_path / "rejects.jsonl"
    path.write_text('{"source": "s"\n[]\n{"source": "s", "where": "w", "reason": "r"}\n')
    found = list(notes.rejects(path, 0, path.stat().st_size, "p"))
    assert [one.reason for one in found] == ["damaged line of rejects", "damaged line of rejects", "r"]


def test_the_card_names_the_parts(tmp_path: Path) -> None:
    parts = [prepared(tmp_path / name, [sample(name, number)]) for number, name in enumerate(["one", "two"])]
    manifest = combine(parts, tmp_path / "out", command="medvlm data merge", workers=1).manifest
    assert [told["name"] for told in manifest["card"]["parts"]] == ["one", "two"]
    assert [told["fingerprint"] for told in manifest["card"]["parts"]] == [
        read_json(folder / "manifest.json")["fingerprint"] for folder in parts
    ]
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    for words in (
        "# Merged: Set one + Set two",
        "About Set one.",
        "About Set two.",
        "Set one: Made up.",
        "left out, so",
    ):
        assert words in card


def test_old_and_new_schemas_merge(tmp_path: Path) -> None:
    one = to_schema_2(prepared(tmp_path / "one", [sample("a", 1), sample("b", 2, split="test")]))
    two = prepared(tmp_path / "two", [sample("c", 3, concepts=["C1"])])
    combine([one, two], tmp_path / "out", workers=1)
    found = {row["id"]: (row["in"], row["official_split"], row["concepts"]) for row in rows_of(tmp_path / "out")}
    assert found == {
        "a/1": ("train", None, None),
        "b/2": ("test", None, None),
        "c/3": ("train", "train", ["C1"]),
    }
    assert is_whole(tmp_path / "out")


def test_the_same_parts_give_the_same_bytes_with_any_number_of_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [part(tmp_path, 40 + number) for number in range(2)]
    first = combine(parts, tmp_path / "a", command="x", workers=1)
    monkeypatch.setattr("medvlm.data.engine.local.ALONE_S", 0.0)
    second = combine(parts, tmp_path / "b", command="x", workers=2)
    assert first.manifest["files"] == second.manifest["files"]
    assert first.manifest["fingerprint"] == second.manifest["fingerprint"]
    assert first.manifest["split_hash"] == second.manifest["split_hash"]
    assert combine(parts, tmp_path / "a", command="x").up_to_date


def test_a_stopped_merge_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [part(tmp_path, 50 + number) for number in range(2)]
    from medvlm.data.merging.source import MergedSource

    real, calls = MergedSource.read, []

    def failing(self: MergedSource, unit: Any) -> Any:
        calls.append(unit.name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, unit)

    monkeypatch.setattr(MergedSource, "read", failing)
    with pytest.raises(KeyboardInterrupt):
        combine(parts, tmp_path / "out", workers=1)
    outcome = combine(parts, tmp_path / "out", workers=1)
    assert outcome.chunks_resumed == 2
    whole = combine(parts, tmp_path / "other", workers=1)
    assert outcome.manifest["fingerprint"] == whole.manifest["fingerprint"]


def test_row_groups_of_any_size_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medvlm.data.write.BATCH_ROWS", 3)
    one = prepared(tmp_path / "one", [sample(f"g{n}", n) for n in range(20)])
    twice = [sample(f"g{n}", n, shade=n if n % 5 == 0 else 100 + n) for n in range(0, 20, 2)]
    two = prepared(tmp_path / "two", [*twice, *(sample(f"h{n}", n, shade=200 + n) for n in range(10))])
    monkeypatch.undo()
    whole = combine([one, two], tmp_path / "whole", workers=1).manifest
    monkeypatch.setattr("medvlm.data.merging.source.ROW_GROUPS", 2)
    cut = combine([one, two], tmp_path / "cut", workers=1).manifest
    assert cut["counts"]["units"] > whole["counts"]["units"]
    assert cut["fingerprint"] == whole["fingerprint"]
    ids = {row["id"] for row in rows_of(tmp_path / "cut")}
    assert {name for name in ids if name.startswith("two/")} == {f"two/g{n}/{n}" for n in range(2, 20, 2) if n % 5}
    assert cut["drops"] == {"same sample in another part": 2}


def test_order_of_the_parts_is_part_of_the_request(tmp_path: Path) -> None:
    parts = [part(tmp_path, 60 + number) for number in range(2)]
    one = combine(parts, tmp_path / "a", workers=1).manifest
    other = combine(parts[::-1], tmp_path / "b", workers=1).manifest
    assert one["request"] != other["request"]


def test_a_license_policy_narrows_the_merged_set(tmp_path: Path) -> None:
    free = prepared(tmp_path / "free", [sample("a", 1)], license="commercial")
    bound = prepared(tmp_path / "bound", [sample("b", 2, license="CC-BY-NC-4.0", commercial_use="no")])
    loose = combine([free, bound], tmp_path / "loose", workers=1).manifest
    assert loose["settings"]["license"] == "any"
    assert loose["licenses"] == {"CC-BY-4.0": 1, "CC-BY-NC-4.0": 1}
    strict = combine([free, bound], tmp_path / "strict", license="commercial", workers=1).manifest
    assert strict["licenses"] == {"CC-BY-4.0": 1}
    assert strict["drops"] == {"license forbids commercial use": 1}


def test_merged_sets_merge(tmp_path: Path) -> None:
    parts = [part(tmp_path, 70 + number) for number in range(3)]
    combine(parts[:2], tmp_path / "two", workers=1)
    combine([tmp_path / "two", parts[2]], tmp_path / "three", workers=1)
    assert apart(rows_of(tmp_path / "three"))
    assert is_whole(tmp_path / "three")


def test_wrong_parts_are_one_line(tmp_path: Path) -> None:
    one, two = prepared(tmp_path / "one", [sample("a", 1)]), prepared(tmp_path / "two", [sample("b", 2)])
    for parts, out, how, said in (
        ([one], "out", "drop", "at least two"),
        ([one, one], "out", "drop", "named twice"),
        ([one, two], "two", "drop", "is one of the data sets"),
        ([one, two], "out", "dorp", 'did you mean "drop"'),
    ):
        with pytest.raises(UsageError, match=said):
            combine(parts, tmp_path / out, shared=how)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no manifest"):
        combine([one, tmp_path / "empty"], tmp_path / "out")
    rewrite(two, lambda rows: None, drop=["target"])
    with pytest.raises(InputError, match="lacks the column target"):
        combine([one, two], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_part_whose_credits_are_of_another_form(tmp_path: Path) -> None:
    one, two = prepared(tmp_path / "one", [sample("a", 1)]), prepared(tmp_path / "two", [sample("b", 2)])
    path = two / "attribution.tsv"
    size = path.stat().st_size
    path.write_text("x" * (size - 1) + "\n")
    with pytest.raises(InputError, match="first line is not that of medvlm"):
        combine([one, two], tmp_path / "out", workers=1)
