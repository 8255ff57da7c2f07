"""A data set from a server by the whole engine: killed and run again, kept up to date, never half of it."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pmc_server import Server, World, picture

from medvlm.data.prepare import Outcome, Settings, prepare
from medvlm.data.sources.pmc.cloud import CloudSource
from medvlm.errors import AccessError

Make = Callable[..., CloudSource]
ARTICLES = 24
RUN = """
import pickle, sys
from pathlib import Path
from medvlm.data.prepare import Settings, prepare
if __name__ == "__main__":
    source = pickle.loads(Path(sys.argv[1]).read_bytes())
    prepare(source, Path(sys.argv[2]), Settings("commercial"), workers=int(sys.argv[3]))
    source.complete()
"""


def build(source: CloudSource, out: Path, workers: int = 1) -> Outcome:
    outcome = prepare(source, out, Settings("commercial"), workers=workers)
    source.complete()
    return outcome


def content(out: Path) -> dict[str, bytes]:
    """Return the files of a data set, without the log and the folders of work and of fetched files."""
    files = [path for path in out.rglob("*") if path.is_file()]
    names = [path.relative_to(out) for path in files]
    return {
        str(name): (out / name).read_bytes()
        for name in names
        if name.parts[0] not in (".work", "log.jsonl", ".objects")
    }


@pytest.fixture
def ids(world: World) -> str:
    for number in range(1, ARTICLES + 1):
        code = "CC BY-NC" if number % 5 == 0 else "CC BY"
        world.add(f"PMC{number}", code=code, media={"a.png": picture(number), "b.png": picture(100 + number)})
    return ",".join(f"PMC{number}" for number in range(1, ARTICLES + 1))


@pytest.mark.parametrize(
    ("after", "workers"),
    [(60, 1), *(pytest.param(n, w, marks=pytest.mark.slow) for n, w in [(5, 1), (40, 2), (90, 1), (100, 2), (105, 1)])],
)
def test_a_killed_run_goes_on_to_the_same_bytes(
    world: World, server: Server, cloud: Make, tmp_path: Path, ids: str, after: int, workers: int
) -> None:
    whole = build(cloud(ids, store=tmp_path / "elsewhere"), tmp_path / "whole")
    server.forget()
    source = cloud(ids)
    (tmp_path / "source").write_bytes(pickle.dumps(source))
    words = [sys.executable, "-c", RUN, str(tmp_path / "source"), str(tmp_path / "out"), str(workers)]
    child = subprocess.Popen(words)
    while len(server.log) < after and child.poll() is None:
        time.sleep(0.001)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    had = {path.name for path in source.store.root.glob("objects/*/*")}
    server.forget()
    # What changed on the server meanwhile belongs to the next run.
    world.add("PMC1", 2, media={"a.png": picture(1)})
    if source._plan_file().path.exists():
        outcome = build(source, tmp_path / "out")
        assert content(tmp_path / "out") == content(tmp_path / "whole")
        assert outcome.manifest["fingerprint"] == whole.manifest["fingerprint"]
    else:
        assert build(source, tmp_path / "out").manifest["counts"]["samples"] == whole.manifest["counts"]["samples"] - 1
    fetched = [path for path in server.log if path.startswith("PMC") and path in world.objects]
    assert len(fetched) == len(set(fetched))
    assert not had & {md5_of(world, path) for path in fetched}


def md5_of(world: World, path: str) -> str:
    return world.address(path)[-32:]


def test_the_next_run_says_what_changed(world: World, server: Server, cloud: Make, tmp_path: Path, ids: str) -> None:
    source = cloud(ids, store=tmp_path / "out" / ".objects")
    build(source, tmp_path / "out")
    server.forget()
    assert build(source, tmp_path / "out").up_to_date
    assert not [path for path in server.log if path.startswith("PMC")]
    world.add("PMC1", 2, media={"a.png": picture(900)})
    world.metadata("PMC2.1", is_retracted=True)
    for key in [key for key in world.objects if "PMC3." in key]:
        del world.objects[key]
    world.metadata("PMC5.1", is_retracted=True)
    world.add("PMC99")
    server.forget()
    outcome = build(source, tmp_path / "out")
    # PMC1 has another version, PMC2 is retracted, PMC3 deleted; PMC5 gave nothing before, so that its reason changes.
    assert outcome.update == {"added": 0, "changed": 2, "withdrawn": 2}
    assert outcome.manifest["drops"]["retracted article"] == 2
    assert outcome.manifest["drops"]["article not found"] == 1
    assert sorted(path for path in server.log if path.startswith("PMC")) == ["PMC1.2/PMC1.2.xml", "PMC1.2/a.png"]


def test_inventories_of_two_days(world: World, server: Server, cloud: Make, tmp_path: Path, ids: str) -> None:
    world.publish_inventory()
    source = cloud(inventory=True)
    build(source, tmp_path / "out")
    world.add("PMC3", 2, media={"a.png": picture(901)})
    world.add("PMC98")
    world.add("PMC99")
    del world.objects["metadata/PMC4.1.json"]
    world.publish_inventory("2026-09-08T01-00Z")
    assert build(source, tmp_path / "out").update == {"added": 2, "changed": 1, "withdrawn": 1}


def test_a_server_that_is_gone_leaves_no_half_set(
    world: World, server: Server, cloud: Make, tmp_path: Path, ids: str
) -> None:
    whole = build(cloud(ids, store=tmp_path / "elsewhere"), tmp_path / "whole")
    source = cloud(ids)
    source.describe()
    server.forget()
    server.dead_after = 20
    with pytest.raises(AccessError, match="run the same command again"):
        build(source, tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()
    server.dead_after = None
    server.forget()
    assert build(source, tmp_path / "out").manifest["fingerprint"] == whole.manifest["fingerprint"]
    assert content(tmp_path / "out") == content(tmp_path / "whole")
