"""A manifest with any of its values replaced: it is shown, checked and merged, or refused in one line."""

from __future__ import annotations

import copy
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_sets import prepared, sample

from medvlm.data.inspect import diff, show, stats, stats_text
from medvlm.data.inspect.check import check, sound
from medvlm.data.inspect.folder import open_set
from medvlm.data.merging.source import MergedSource
from medvlm.data.output import read_json
from medvlm.errors import MedvlmError
from medvlm.io import write_json

ODD: list[Any] = [None, [], {}, "x\x1b[31m", -1, 1.5, {"a": []}, ["a"]]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every value of a JSON document."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inside:
        yield (*path, key)
        yield from places(item, (*path, key))


def replaced(document: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    made: Any = copy.deepcopy(document)
    holder = made
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return dict(made)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("hostile")
    items = [sample("a", 1), sample("b", 2, split="test")]
    return prepared(folder / "set", items), prepared(folder / "other", [sample("c", 3)])


def look_at(folder: Path, other: Path) -> None:
    """Do all that `medvlm data` does with a manifest; what it refuses, it refuses as bad input."""
    data = open_set(folder)
    check(data, False, lambda done, total: None)
    lines = show.lines(show.facts(data))
    assert "\x1b" not in "".join(lines)
    sound(data)
    told = stats.gather(data, pictures=False)
    assert "\x1b" not in "".join(stats_text.lines(told))
    list(diff.lines(diff.compare(open_set(other), data)))
    source = MergedSource([other, folder])
    source.describe()
    source.card()
    source.units()


def tried(folder: Path, other: Path, count: int | None) -> list[str]:
    """Replace values of the manifest, `count` of them by chance or all, and return what was refused."""
    whole = read_json(folder / "manifest.json")
    cases = [(path, odd) for path in places(whole) for odd in ODD]
    refused = []
    for path, odd in random.Random(1).sample(cases, count or len(cases)):
        write_json(folder / "manifest.json", replaced(whole, path, odd))
        try:
            look_at(folder, other)
        except MedvlmError as error:
            refused.append(str(error))
        except Exception as error:
            raise AssertionError(f"{path} = {odd!r}: {type(error).__name__}: {error}") from error
    return refused


@pytest.mark.parametrize("count", [120, pytest.param(None, marks=pytest.mark.slow)])
def test_no_value_of_a_manifest_is_believed(pair: tuple[Path, Path], tmp_path: Path, count: int | None) -> None:
    refused = tried(Path(shutil.copytree(pair[0], tmp_path / "set")), pair[1], count)
    assert len(refused) > 20
    assert not any("\n" in line for line in refused)
