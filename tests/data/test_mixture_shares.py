"""What a mixture's epoch holds: shares by temperature, places as numbers, blocks of row groups; the same streamed."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvlm.data.mixture import Mixture, Pick, Picks, _choose, tempered
from medvlm.data.sample import Image, Sample
from medvlm.data.schema import SCHEMA, arrays
from medvlm.errors import RecipeError
from medvlm.io import stable_hash, write_json
from medvlm.recipe.load import check
from medvlm.recipe.models import DataPart, MixturePart
from medvlm.recipe.resolve import recipe_hash
from medvlm.train.plan_text import _data

GROUP = 5


def folder(path: Path, count: int) -> DataPart:
    listed = [
        Sample(
            f"{path.name}/{n}", Image(b"%d" % n, "x"), ("vqa", "caption")[n % 2], "wo?", f"text {n}", license="CC0-1.0"
        )
        for n in range(count)
    ]
    (path / "data").mkdir(parents=True)
    table = pa.Table.from_arrays(arrays(listed), schema=SCHEMA)
    pq.write_table(table, path / "data" / "train-00000-of-00001.parquet", row_group_size=GROUP)
    write_json(path / "manifest.json", {"fingerprint": path.name})
    return DataPart(path=str(path))


def given_recipe(**more: Any) -> Any:
    base = {"name": "t", "model": {"id": "x"}, "data": [{"path": "a"}, {"path": "b"}]}
    return check({**base, **more}, "t")


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=6), st.floats(1, 1e6))
def test_shares_go_as_size_to_the_inverse_of_the_temperature(sizes: list[int], temperature: float) -> None:
    weights = tempered(sizes, temperature)
    # Rates as arXiv:1910.10683 has them: each size to the power 1/T, divided by their sum.
    rates = np.array(sizes, dtype=float) ** (1 / temperature)
    visits = np.array(sizes) * np.array(weights)
    assert np.allclose(visits / visits.sum(), rates / rates.sum())
    assert min(weights) == weights[sizes.index(max(sizes))] == 1


def test_temperatures_at_both_ends() -> None:
    assert tempered([10, 1000, 0], 1) == [1, 1, 1]
    assert tempered([10, 1000], 1e9) == pytest.approx([100, 1])
    assert tempered([10, 1000], 2) == pytest.approx([10, 1])
    assert tempered([], 2) == []


def test_an_epoch_at_a_temperature_visits_every_row_that_a_cap_leaves(tmp_path: Path) -> None:
    large, small, capped = (folder(tmp_path / name, count) for name, count in (("l", 80), ("s", 20), ("c", 60)))
    parts = [large, small, capped.model_copy(update={"cap": 5})]
    mixture = Mixture(parts, "train", 3, how=MixturePart(temperature=2.0))
    ids = Counter(text["id"] for text in mixture.texts())
    by_set = {name: [count for key, count in ids.items() if key.startswith(name)] for name in "lsc"}
    # Square roots of 80, 20 and 5 are as 4 to 2 to 1.
    assert {name: sum(counts) for name, counts in by_set.items()} == {"l": 80, "s": 40, "c": 20}
    assert [set(by_set[name]) for name in "lsc"] == [{1}, {2}, {4}]
    assert [(share.rows, share.seen, share.visits) for share in mixture.shares()] == [
        (80, 80, 80), (20, 20, 40), (60, 5, 20),
    ]  # fmt: skip
    assert [fact["weight"] for fact in mixture.facts()] == pytest.approx([1, 2, 4])
    assert [(fact["seen"], fact["visits"]) for fact in mixture.facts()] == [(80, 80), (20, 40), (5, 20)]
    # What is validated or tested stays whole.
    assert len(Mixture(parts, "train", 3, weighted=False, how=MixturePart(temperature=2.0))) == 160
    again = Mixture(parts, "train", 3, how=MixturePart(temperature=2.0))
    assert [text["id"] for text in again.texts()] == [text["id"] for text in mixture.texts()]


@given(st.lists(st.lists(st.integers(0, 99), max_size=9), max_size=4))
def test_picks_are_the_rows_of_all_data_sets_in_order(rows: list[list[int]]) -> None:
    expected = [Pick(part, row) for part, own in enumerate(rows) for row in own]
    picks = Picks([np.array(own, np.int64) for own in rows])
    assert list(picks) == expected
    assert len(picks) == len(expected)
    assert picks[1:5:2] == expected[1:5:2]
    assert [picks[place] for place in range(-len(expected), 0)] == expected
    for outside in (len(expected), -len(expected) - 1):
        with pytest.raises(IndexError):
            picks[outside]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("settings", [{}, {"weight": 2.5}, {"weight": 0.4, "cap": 17}, {"cap": 9, "tasks": ["vqa"]}])
def test_places_are_those_of_the_choice_and_blocks_lie_in_row_groups(
    settings: dict[str, Any], streaming: bool, tmp_path: Path
) -> None:
    first, second = folder(tmp_path / "a", 23).model_copy(update=settings), folder(tmp_path / "b", 11)
    mixture = Mixture([first, second], "train", 7, how=MixturePart(streaming=streaming))
    of_task = [n for n in range(23) if not first.tasks or n % 2 == 0]
    chosen = [of_task[row] for row in _choose(len(of_task), first, 7)]
    expected = [f"a/{n}" for n in chosen] + [f"b/{n}" for n in range(11)]
    assert [text["id"] for text in mixture.texts()] == expected
    blocks = mixture.blocks()
    assert [place for block in blocks for place in block] == list(range(len(expected)))
    for block in blocks:
        names = [expected[place].split("/") for place in block]
        assert len({(name, int(number) // GROUP) for name, number in names}) == 1
        assert len({number for _, number in names}) == len(names)
    # No row group is cut without need: runs of the same one are those where its rows begin again.
    for one, next_one in itertools.pairwise(blocks):
        last, first_of_next = expected[one[-1]], expected[next_one[0]]
        same = last.split("/")[0] == first_of_next.split("/")[0]
        assert (
            not same
            or int(last.split("/")[1]) // GROUP != int(first_of_next.split("/")[1]) // GROUP
            or (int(first_of_next.split("/")[1]) <= int(last.split("/")[1]))
        )


def test_a_streamed_mixture_says_the_same_of_itself(tmp_path: Path) -> None:
    parts = [folder(tmp_path / "a", 12).model_copy(update={"weight": 1.5}), folder(tmp_path / "b", 7)]
    whole, streamed = (Mixture(parts, "train", 1, how=MixturePart(streaming=on)) for on in (False, True))
    assert list(streamed.texts()) == list(whole.texts())
    assert streamed.facts() == whole.facts() == Mixture(parts, "train", 1).facts()
    assert streamed.licenses() == whole.licenses()
    assert streamed.shares() == whole.shares()


def test_a_plan_tells_how_often_rows_are_seen_and_which_never(tmp_path: Path) -> None:
    parts = [folder(tmp_path / "a", 12).model_copy(update={"weight": 0.5}), folder(tmp_path / "b", 8)]
    shares = [
        share.__class__(path, share.rows, share.seen, share.visits, share.weight)
        for path, share in zip("ab", Mixture(parts, "train", 1).shares(), strict=True)
    ]
    told = _data(SimpleNamespace(rows=14, shares=shares), given_recipe())  # type: ignore[arg-type]
    assert told[0] == "data: 14 rows an epoch from a, b"
    assert [line.split() for line in told[2:]] == [
        ["a", "12", "6", "6", "42.9%", "1.00"],
        ["b", "8", "0", "8", "57.1%", "1.00"],
    ]
    assert told[1].split("  ")[-1].strip() == "times each"
    # As many visits as rows, and yet not each of them.
    even = Mixture([parts[1].model_copy(update={"cap": 4, "weight": 2})], "train", 1).shares()
    told_of_even = _data(SimpleNamespace(rows=8, shares=even), given_recipe())  # type: ignore[arg-type]
    assert told_of_even[2].split()[1:] == ["8", "4", "8", "100.0%", "2.00"]
    one = SimpleNamespace(rows=8, shares=shares[1:])
    assert _data(one, given_recipe(data=[{"path": "b"}])) == ["data: 8 rows an epoch from b"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"mixture": {"temperature": 0.5}}, r"mixture\.temperature: 0\.5: expected greater than or equal to 1"),
        ({"mixture": {"temprature": 2}}, r'mixture\.temprature: unknown key.*"temperature"'),
        (
            {"mixture": {"temperature": 2}, "data": [{"path": "a"}, {"path": "b", "weight": 3}]},
            r"data\.1\.weight: 3: expected 1, since mixture\.temperature sets",
        ),
        (
            {"mixture": {"streaming": True}, "train": {"batching": "grouped"}},
            r"train\.batching: 'grouped': expected shuffled or packed, since mixture\.streaming",
        ),
        (
            {"mixture": {"streaming": True}, "train": {"mix": "every_update"}},
            r"train\.mix: 'every_update': expected shuffled, since mixture\.streaming",
        ),
    ],
)
def test_what_does_not_go_together_is_named_by_its_path(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        given_recipe(**changes)


def test_a_recipe_that_mixes_as_before_keeps_its_hash() -> None:
    """Else an unfinished run of an earlier version could not be gone on with."""
    plain = given_recipe()
    values = plain.model_dump(mode="json")
    del values["mixture"]
    assert recipe_hash(plain) == recipe_hash(given_recipe(mixture={"streaming": False})) == stable_hash(values)
    others = [{"streaming": True}, {"temperature": 1}, {"temperature": 2}]
    assert len({recipe_hash(given_recipe(mixture=other)) for other in others} | {recipe_hash(plain)}) == 4
