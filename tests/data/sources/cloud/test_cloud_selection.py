"""Ids as people write them, and what a selection says of itself."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvlm.data.sources.pmc.cloud import Selection, parse_ids
from medvlm.data.sources.pmc.cloud.selection import split_id
from medvlm.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("PMC123,PMC456.2", ("PMC123", "PMC456.2")),
        ("pmc9 10; 8", ("PMC10", "PMC8", "PMC9")),
        ("PMC7,PMC7,7", ("PMC7",)),
        ("PMC7,PMC7.2,PMC7.2", ("PMC7.2",)),
        ("PMC7.2,PMC7", ("PMC7.2",)),
        ("PMC0012", ("PMC12",)),
    ],
)
def test_ids_in_a_list(text: str, expected: tuple[str, ...]) -> None:
    assert parse_ids(text) == expected


def test_ids_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    file.write_text("\ufeff# chosen by hand\nPMC3\n4.1  # corrected\n\n  PMC5 , PMC6\n", encoding="utf-8")
    assert parse_ids(str(file)) == ("PMC3", "PMC4.1", "PMC5", "PMC6")


def test_a_file_that_is_named_like_an_id_is_an_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "123").write_text("PMC9")
    assert parse_ids("123") == ("PMC123",)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("PMC1,PMID7", '"PMID7" is neither'),
        ("PMCX", '"PMCX" is neither an id of PMC nor a file'),
        (" ", "names no article"),
        ("PMC0", '"PMC0" is no id'),
        ("PMC1.0", '"PMC1.0" is no id'),
        ("PMC1.2.3", '"PMC1.2.3" is no id'),
        ("PMC1.1,PMC1.2", "PMC1.1 and PMC1.2 are one article"),
        ("1" * 5000, "is no id"),
    ],
)
def test_what_is_no_id_is_named(text: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=told) as caught:
        parse_ids(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_a_bad_line_of_a_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    file.write_text("PMC3\n10.1371/journal.pone.1\n")
    with pytest.raises(UsageError, match=r'ids.txt, line 2: "10.1371/journal.pone.1" is no id'):
        parse_ids(str(file))
    file.write_text("# nothing\n")
    with pytest.raises(UsageError, match="no id in the file"):
        parse_ids(str(file))
    file.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UsageError, match="not a text file"):
        parse_ids(str(file))
    with pytest.raises(UsageError, match="Is a directory"):
        parse_ids(str(tmp_path))


@given(st.lists(st.tuples(st.integers(1, 10**8), st.none() | st.integers(1, 9)), min_size=1, unique_by=lambda p: p[0]))
def test_ids_survive_any_spelling(pairs: list[tuple[int, int | None]]) -> None:
    names = [f"PMC{number}" + (f".{version}" if version else "") for number, version in pairs]
    parsed = parse_ids(", ".join(name.lower() for name in names))
    assert set(parsed) == set(names)
    assert {split_id(name) for name in parsed} == {(f"PMC{number}", version) for number, version in pairs}


@given(st.text(max_size=40))
def test_any_text_is_ids_or_a_usage_error(text: str) -> None:
    try:
        parsed = parse_ids(text)
    except UsageError:
        return
    assert parsed
    assert all(split_id(name)[0].startswith("PMC") for name in parsed)


def test_a_selection_is_one_of_three() -> None:
    for chosen in ({}, {"query": " "}, {"ids": ("PMC1",), "inventory": True}):
        with pytest.raises(UsageError, match="one of --ids, --query and --inventory"):
            Selection(**chosen)


def test_lineage_tells_what_is_asked_for() -> None:
    same = [Selection(ids=("PMC1", "PMC2")), Selection(ids=("PMC2", "PMC1"))]
    others = [Selection(ids=("PMC1",)), Selection(query="a  b"), Selection(query="a c"), Selection(inventory=True)]
    assert len({selection.lineage() for selection in same}) == 1
    assert len({selection.lineage() for selection in same + others}) == 5
    assert Selection(query="a b").lineage() == Selection(query="a  b").lineage()
    assert pickle.loads(pickle.dumps(same[0])) == same[0]


def test_many_ids_are_described_by_their_hash() -> None:
    few, many = Selection(ids=("PMC1",)), Selection(ids=tuple(f"PMC{n}" for n in range(1, 100)))
    assert few.describe() == ["PMC1"]
    told = many.describe()
    assert isinstance(told, dict)
    assert told["ids"] == 99
