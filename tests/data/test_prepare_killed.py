"""Killed at any moment and run again: the same bytes as without, for every engine, and for an update too."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from fake_source import FakeSource, Served

from medvlm.data.engine import local
from medvlm.data.journal import events
from medvlm.data.prepare import Settings, prepare
from medvlm.errors import AccessError, ResourceError
from medvlm.io import sha256_file

ANY = Settings(license="any")
OLD = dict.fromkeys(range(10, 24), "1")
NEW = {**dict.fromkeys(range(11, 24), "1"), 15: "2", 40: "1"}

SCRIPT = """
import importlib, os, signal, sys
from pathlib import Path
from fake_source import FakeSource, Served
from medvlm.data.prepare import Settings, prepare

def die_at(place, count):
    # Kill this process at the given call of a function.
    module, _, name = place.partition(":")
    owner = importlib.import_module(module)
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    real, left = getattr(owner, last), [count]
    def call(*given, **named):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*given, **named)
    setattr(owner, last, call)

if __name__ == "__main__":
    out, kind, engine, workers, place, count = sys.argv[1:]
    slow = 0.2 if kind == "slow" else 0.03
    source = FakeSource(40, delay=slow) if kind in ("plain", "slow") else Served(eval(kind))
    if place == "publish":
        from medvlm.data.output import OutputFolder
        real = OutputFolder.publish
        def publish(self):
            die_at("os:replace", int(count))
            real(self)
        OutputFolder.publish = publish
    elif place:
        die_at(place, int(count))
    prepare(source, Path(out), Settings(license="any"), workers=int(workers), engine=engine)
"""

PLACES = [
    ("medvlm.data.chunks:_ChunkWriter.flush", 3),
    ("medvlm.data.chunks:_Note.write", 5),
    ("medvlm.data.index:Index.add_chunk", 4),
    ("medvlm.data.write:SplitWriter.finish", 2),
    ("medvlm.data.cards:finish", 1),
    ("medvlm.data.output:OutputFolder.finish", 1),
    ("publish", 1),
    ("publish", 4),
    ("publish", 9),
]


def files(out: Path) -> dict[str, str]:
    """Return every file below `out` but the log with its hash."""
    found = (path for path in sorted(out.rglob("*")) if path.is_file() and path.name != "log.jsonl")
    return {path.relative_to(out).as_posix(): sha256_file(path) for path in found}


def start(folder: Path, out: Path, kind: str, *more: object) -> subprocess.Popen[bytes]:
    script = folder / "killed.py"
    script.write_text(SCRIPT)
    # Ray's workers find the source by it too.
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, str(script), str(out), kind, *map(str, more)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("straight") / "out"
    prepare(FakeSource(40), out, ANY, workers=1)
    return files(out)


@pytest.mark.parametrize(("place", "count"), PLACES)
def test_killed_anywhere(tmp_path: Path, straight: dict[str, str], place: str, count: int) -> None:
    out = tmp_path / "out"
    assert start(tmp_path, out, "plain", "local", 1, place, count).wait(60) == -signal.SIGKILL
    assert not (out / "manifest.json").exists()
    prepare(FakeSource(40), out, ANY, workers=1)
    assert files(out) == straight


@pytest.mark.parametrize(("place", "count"), [PLACES[1], PLACES[3], *PLACES[6:]])
def test_an_update_killed_anywhere(tmp_path: Path, place: str, count: int) -> None:
    out = tmp_path / "out"
    prepare(Served(OLD), out, ANY, workers=1)
    assert start(tmp_path, out, repr(NEW), "local", 1, place, count).wait(60) == -signal.SIGKILL
    outcome = prepare(Served(NEW), out, ANY, workers=1)
    assert outcome.update == {"added": 1, "changed": 1, "withdrawn": 1}
    prepare(Served(NEW), tmp_path / "fresh", ANY, workers=1)
    assert files(out) == files(tmp_path / "fresh")


@pytest.mark.parametrize(("place", "count"), PLACES[6:])
def test_a_set_whose_publication_was_killed_outlives_a_failing_update(tmp_path: Path, place: str, count: int) -> None:
    out = tmp_path / "out"
    prepare(Served(OLD), out, ANY, workers=1)
    assert start(tmp_path, out, repr(NEW), "local", 1, place, count).wait(60) == -signal.SIGKILL
    newer = {**NEW, 11: "3"}
    # The server changes once more and then fails: what was whole before is published all the same.
    with pytest.raises(AccessError):
        prepare(Served(newer, fail=11), out, ANY, workers=1)
    prepare(Served(NEW), tmp_path / "new", ANY, workers=1)
    assert files(out) == files(tmp_path / "new")
    assert prepare(Served(newer), out, ANY, workers=1).update == {"added": 0, "changed": 1, "withdrawn": 0}
    prepare(Served(newer), tmp_path / "newer", ANY, workers=1)
    assert files(out) == files(tmp_path / "newer")


def test_a_dead_worker_is_survived(tmp_path: Path, straight: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "ALONE_S", 0)
    killed: list[int] = []

    def kill(done: int, total: int) -> None:
        if done >= 6 and not killed:
            workers = [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]
            killed.append(workers[0].pid)
            workers[0].kill()

    prepare(FakeSource(40, delay=0.05), tmp_path, ANY, workers=2, advance=kill)
    assert killed
    assert files(tmp_path) == straight


class Deadly(FakeSource):
    """One of its units ends the process that reads it, as a kernel out of memory does."""

    def read(self, unit):  # type: ignore[no-untyped-def]
        if unit.name == "article-0013":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(unit)


def test_a_unit_that_kills_its_worker_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "ALONE_S", 0)
    with pytest.raises(ResourceError, match="units article-0013 to article-0013, most likely out of memory"):
        prepare(Deadly(40), tmp_path, ANY, workers=2)
    assert list(events(tmp_path / "log.jsonl"))[-1]["error"] == "ResourceError"


def moments(seed: int, until: float) -> Iterator[float]:
    """Yield seconds to wait before each kill."""
    random.seed(seed)
    while True:
        yield random.uniform(0.5 * until, until)


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "workers", "until"), [("local", 1, 2.5), ("local", 2, 4.0), ("ray", 2, 5.0)])
def test_killed_at_random_moments(
    tmp_path: Path, straight: dict[str, str], engine: str, workers: int, until: float
) -> None:
    if engine == "ray":
        pytest.importorskip("ray", reason="the extra medvlm[ray] is not installed")
    out = tmp_path / "out"
    kills = 0
    for wait in moments(workers, until):
        process = start(tmp_path, out, "slow", engine, workers, "", 0)
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        if (out / "manifest.json").exists() or kills == 12:
            break
    # Workers of the killed run, if any, end by themselves; what they still write is whole.
    time.sleep(2)
    prepare(FakeSource(40), out, ANY, workers=1)
    assert kills
    assert files(out) == straight
