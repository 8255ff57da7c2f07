"""The plan as a file: a lazy sequence of units, made once by whoever comes first, in bounded memory."""

from __future__ import annotations

import errno
import fcntl
import gzip
import multiprocessing
import os
import pickle
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pmc_server import Server, World

from medvlm.data.sources.base import Unit
from medvlm.data.sources.pmc.cloud import CloudSource
from medvlm.data.sources.pmc.cloud.plan import PlanFile, PlannedUnits, WorkTable
from medvlm.errors import AccessError, InputError, ResourceError

Make = Callable[..., CloudSource]


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> PlannedUnits:
    file = PlanFile(tmp_path_factory.mktemp("plans"), "k")
    work = WorkTable(file.building)
    work.take_newest((f"PMC{number}", 1 + number % 3, f"e{number}") for number in range(1, 31))
    work.chosen(None, {})
    file.finish(work, {})
    return file.units()


@pytest.fixture(scope="module")
def expected() -> list[Unit]:
    names = sorted(f"PMC{number}" for number in range(1, 31))
    return [Unit(name, (name, str(1 + int(name[3:]) % 3)), f"e{name[3:]}") for name in names]


def test_units_are_a_sequence(units: PlannedUnits, expected: list[Unit]) -> None:
    assert len(units) == 30
    assert list(units) == expected
    assert list(reversed(units)) == expected[::-1]
    assert expected[7] in units
    assert units.index(expected[7]) == 7
    with pytest.raises(IndexError):
        units[30]
    with pytest.raises(IndexError):
        units[-31]


@given(data=st.data())
def test_any_index_and_slice(units: PlannedUnits, expected: list[Unit], data: st.DataObject) -> None:
    chosen = data.draw(st.slices(30) | st.integers(-30, 29))
    assert units[chosen] == expected[chosen]


def test_units_go_to_other_processes(units: PlannedUnits, expected: list[Unit]) -> None:
    assert len(pickle.dumps(units)) < 300
    assert list(pickle.loads(pickle.dumps(units))) == expected
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(units.__getitem__, (3,)) == expected[3]


def test_an_unfinished_plan_goes_on(tmp_path: Path) -> None:
    file = PlanFile(tmp_path, "k")
    work = WorkTable(file.building)
    work.choose([("PMC1", None), ("PMC2", 4), ("PMC1", 7)])
    work.chosen(None, {"search": "x"})
    work.resolve([("PMC1", 2, "a")])
    work.close()
    work = WorkTable(file.building)
    assert work.origin() == {"search": "x"}
    assert work.unresolved(9) == [("PMC2", 4)]
    work.resolve([("PMC2", 4, "b")])
    file.finish(work, {"search": "x"})
    assert [unit.version for unit in file.units()] == ["a", "b"]
    assert file.facts()["articles"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k.sqlite"]


def _describe(source: CloudSource) -> str:
    sha256: str = source.describe()[0]["sha256"]
    return sha256


def test_shards_make_one_plan(world: World, server: Server, cloud: Make) -> None:
    for number in range(1, 20):
        world.add(f"PMC{number}", media={})
    source = cloud(",".join(f"PMC{number}" for number in range(1, 20)))
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        hashes = pool.map(_describe, [source] * 3, chunksize=1)
    assert len(set(hashes)) == 1
    assert len(server.asked("metadata/")) == 19


def test_a_killed_planner_leaves_no_lock(world: World, server: Server, cloud: Make) -> None:
    world.add("PMC1")
    source = cloud("PMC1")
    held = f"""
import os, pathlib, signal
from medvlm.data.sources.pmc.cloud.plan import PlanFile
with PlanFile(pathlib.Path({str(source.store.root / "plans")!r}), {source._plan_file().path.stem!r}).locked():
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", held], check=False).returncode == -9
    assert len(source.units()) == 1


def test_a_plan_is_made_without_locks(world: World, cloud: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: object, kind: int) -> None:
        raise OSError(number, os.strerror(number))

    world.add("PMC1")
    source = cloud("PMC1")
    monkeypatch.setattr(fcntl, "flock", refuse)
    number = errno.ENOLCK
    assert len(source.units()) == 1
    file = source._plan_file()
    with file.locked(), pytest.raises(InputError, match="is at work here"), file.locked():
        pass
    source.complete()
    number = errno.EIO
    with pytest.raises(AccessError, match=r"\.lock cannot be locked \(.*choose another folder"):
        source.units()


@pytest.mark.parametrize("pages", [1, 2, 4])
def test_a_full_disk_is_told(cloud: Make, monkeypatch: pytest.MonkeyPatch, pages: int) -> None:
    real = sqlite3.connect

    def small(*words: Any, **settings: Any) -> sqlite3.Connection:
        db: sqlite3.Connection = real(*words, **settings)
        db.execute(f"PRAGMA max_page_count = {pages}")
        return db

    monkeypatch.setattr(sqlite3, "connect", small)
    with pytest.raises(ResourceError, match="plans: no space left on the disk"):
        cloud(",".join(f"PMC{number}" for number in range(1, 2000))).describe()


PEAK = """
import resource, sys
from pathlib import Path
from medvlm.data.sources.pmc.cloud import inventory
from medvlm.data.sources.pmc.cloud.plan import PlanFile, WorkTable
import itertools
file = PlanFile(Path(sys.argv[1]), "k")
work = WorkTable(file.building)
rows = inventory.rows(Path(sys.argv[2]), (0, 1))
while part := list(itertools.islice(rows, 50_000)):
    work.take_newest(part)
work.chosen(None, {})
file.finish(work, {})
count = sum(1 for _ in file.units())
print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def _lines(count: int) -> Iterator[bytes]:
    for number in range(count):
        yield b"metadata/PMC%d.1.json,%032x\n" % (1_000_000 + number, number)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_inventory(tmp_path: Path) -> None:
    peaks = []
    for count in (100_000, 1_000_000):
        table = tmp_path / f"{count}.csv.gz"
        with gzip.open(table, "wb", 1) as file:
            file.writelines(_lines(count))
        words = [sys.executable, "-c", PEAK, str(tmp_path / str(count)), str(table)]
        (tmp_path / str(count)).mkdir()
        told = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
        assert int(told[0]) == count
        peaks.append(int(told[1]))
    assert peaks[1] < peaks[0] + 40_000  # KiB
