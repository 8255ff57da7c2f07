"""Work shared out among processes, updates of a lineage, credits, status rows, and how far a run is."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fake_source import FakeSource, Served, sample

from medvlm.data import status
from medvlm.data.journal import Journal, events
from medvlm.data.prepare import Settings, merge_shards, prepare
from medvlm.data.sample import Credit
from medvlm.errors import AccessError, InputError, MissingExtraError, UsageError
from medvlm.io import sha256_file

ANY = Settings(license="any")


def files(out: Path) -> dict[str, str]:
    """Return every file below `out` but the log with its hash."""
    found = (path for path in sorted(out.rglob("*")) if path.is_file() and path.name != "log.jsonl")
    return {path.relative_to(out).as_posix(): sha256_file(path) for path in found}


def articles(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "articles.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of an uninterrupted run of one process over 30 units."""
    out = tmp_path_factory.mktemp("straight") / "out"
    prepare(FakeSource(30), out, ANY, workers=1)
    return files(out)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_shards_and_merge_give_the_same_bytes(tmp_path: Path, straight: dict[str, str], order: tuple[int, ...]) -> None:
    left = []
    for number in order:
        outcome = prepare(FakeSource(30), tmp_path, ANY, workers=1, shard=(number, 3))
        assert outcome.manifest == {}
        left.append(outcome.left)
        assert not (tmp_path / "manifest.json").exists()
    assert left == [20, 10, 0]
    assert merge_shards(tmp_path).manifest["counts"]["samples"] == 90
    assert files(tmp_path) == straight
    assert merge_shards(tmp_path).up_to_date
    kinds = [event["event"] for event in events(tmp_path / "log.jsonl")]
    assert kinds.count("part") == 3
    assert kinds.count("chunk") == 30
    assert kinds[-1] == "end"


def test_the_same_shard_twice_and_a_lost_chunk(tmp_path: Path, straight: dict[str, str]) -> None:
    for number in (0, 0, 1):
        prepare(FakeSource(30), tmp_path, ANY, workers=1, shard=(number, 2))
    lost = sorted(tmp_path.glob(".work/*/chunk-*.arrow"))[7]
    lost.write_bytes(lost.read_bytes()[:100])
    with pytest.raises(InputError, match=f"1 chunks are not done yet .{lost.stem}"):
        merge_shards(tmp_path)
    assert prepare(FakeSource(30), tmp_path, ANY, workers=1, shard=(1, 2)).left == 0
    merge_shards(tmp_path)
    assert files(tmp_path) == straight


def test_a_plain_run_finishes_what_shards_began(tmp_path: Path, straight: dict[str, str]) -> None:
    prepare(FakeSource(30), tmp_path, ANY, workers=1, shard=(1, 4))
    assert prepare(FakeSource(30), tmp_path, ANY, workers=1).chunks_resumed == 8
    assert files(tmp_path) == straight


SHARD = """
import sys
from pathlib import Path
sys.path.insert(0, {folder!r})
from fake_source import FakeSource
from medvlm.data.prepare import Settings, prepare
if __name__ == "__main__":
    shard = int(sys.argv[2]), 2
    prepare(FakeSource(30, delay=0.02), Path(sys.argv[1]), Settings("any"), workers=1, shard=shard)
"""


def test_shards_at_the_same_time(tmp_path: Path, straight: dict[str, str]) -> None:
    script = tmp_path / "shard.py"
    script.write_text(SHARD.format(folder=str(Path(__file__).parent)))
    out = tmp_path / "out"
    runs = [subprocess.Popen([sys.executable, str(script), str(out), number]) for number in "0110"]
    assert [run.wait(60) for run in runs] == [0, 0, 0, 0]
    merge_shards(out)
    assert files(out) == straight


def test_shards_on_both_sides_of_a_change_of_the_server(tmp_path: Path) -> None:
    old = dict.fromkeys(range(10, 20), "1")
    new = {**old, 15: "2"}
    out = tmp_path / "out"
    prepare(Served(old), out, ANY, workers=1, shard=(0, 2))
    prepare(Served(new), out, ANY, workers=1, shard=(1, 2))
    with pytest.raises(InputError, match=r"before and after its source changed.*run all shards .* again"):
        merge_shards(out)
    assert prepare(Served(new), out, ANY, workers=1, shard=(0, 2)).left == 0
    assert not merge_shards(out).up_to_date
    prepare(Served(new), tmp_path / "straight", ANY, workers=1)
    # The older shard's work is of no more use.
    assert files(out) == files(tmp_path / "straight")


def test_a_complete_request_is_merged_beside_a_newer_one(tmp_path: Path) -> None:
    old = dict.fromkeys(range(10, 20), "1")
    new = {**old, 15: "2"}
    for number in (0, 1):
        prepare(Served(old), tmp_path, ANY, workers=1, shard=(number, 2))
    prepare(Served(new), tmp_path, ANY, workers=1, shard=(0, 2))
    merge_shards(tmp_path)
    assert {line["version"] for line in articles(tmp_path)} == {"1"}
    # What the newer request has read stays, and goes into an update.
    assert prepare(Served(new), tmp_path, ANY, workers=1, shard=(1, 2)).left == 0
    assert merge_shards(tmp_path).update == {"added": 0, "changed": 1, "withdrawn": 0}


def test_complete_work_of_two_requests_is_not_guessed_at(tmp_path: Path) -> None:
    for number in (5, 6):
        for shard in (0, 1):
            prepare(FakeSource(number), tmp_path / str(number), ANY, workers=1, shard=(shard, 2))
    theirs = next((tmp_path / "5/.work").glob("*/request.json")).parent
    shutil.copytree(theirs, tmp_path / "6/.work" / theirs.name)
    with pytest.raises(InputError, match=r"chunks of 2 requests .*without --shard and with --overwrite"):
        merge_shards(tmp_path / "6")
    # The advice is possible, and reads nothing again.
    assert prepare(FakeSource(6), tmp_path / "6", ANY, workers=1, overwrite=True).chunks_resumed == 6


def test_nothing_to_merge(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no work of shards.*--shard"):
        merge_shards(tmp_path)


def test_an_update_replaces_unasked_and_tells_what_is_new(tmp_path: Path) -> None:
    first = dict.fromkeys(range(10, 20), "1")
    assert prepare(Served(first), tmp_path / "out", ANY, workers=1).update is None
    second = {**first, 12: "2", 13: "2", 30: "1"}
    del second[10]
    outcome = prepare(Served(second), tmp_path / "out", ANY, workers=1)
    assert outcome.update == {"added": 1, "changed": 2, "withdrawn": 1}
    assert list(events(tmp_path / "out/log.jsonl"))[-1]["update"] == outcome.update
    prepare(Served(second), tmp_path / "fresh", ANY, workers=1)
    assert files(tmp_path / "out") == files(tmp_path / "fresh")
    with pytest.raises(InputError, match="--overwrite"):
        prepare(Served(first), tmp_path / "out", Settings("commercial"), workers=1)


def test_a_network_that_fails_keeps_what_was_done(tmp_path: Path) -> None:
    versions = dict.fromkeys(range(10, 20), "1")
    with pytest.raises(AccessError, match="server is away"):
        prepare(Served(versions, fail=14), tmp_path, ANY, workers=1)
    found = status.read(tmp_path)
    assert (found.state, found.units_done, found.units, found.samples) == ("stopped", 4, 10, 12)
    assert found.errors == ["AccessError: the server is away; try again later"]
    again = Served(versions)
    assert prepare(again, tmp_path, ANY, workers=1).chunks_resumed == 4
    assert again.fetched == [f"PMC{number}" for number in range(14, 20)]
    found = status.read(tmp_path)
    assert (found.state, found.samples) == ("finished", 30)
    # What was fetched before the failure counts too.
    assert found.traffic == {"requests": 10, "bytes": 100}


def test_a_row_for_each_unit(tmp_path: Path) -> None:
    bad = sample("B", 0, 7, license="CC-BY-NC-4.0", commercial_use="no")
    special = {1: [bad], 2: [], 3: [sample("PMC0", 0, 0), sample("PMC3", 1, 9)]}
    prepare(FakeSource(4, special=special), tmp_path, Settings(), workers=1)
    assert articles(tmp_path) == [
        {"unit": "article-0000", "version": "", "status": "done", "samples": 3, "rejects": {"table image": 1}},
        {
            "unit": "article-0001",
            "version": "",
            "status": "rejected",
            "samples": 0,
            "rejects": {"license forbids commercial use": 1},
        },
        {"unit": "article-0002", "version": "", "status": "empty", "samples": 0, "rejects": {}},
        {"unit": "article-0003", "version": "", "status": "done", "samples": 1, "rejects": {"duplicate id": 1}},
    ]


def test_credits_of_groups_with_samples(tmp_path: Path) -> None:
    special = {
        0: [Credit("A", title="First", authors="Doe J; Roe R"), sample("A", 0, 1), sample("A", 1, 2)],
        1: [Credit("B", title="Nothing of it")],
        2: [sample("C", 0, 3, doi="10.1/c")],
    }
    prepare(FakeSource(3, special=special), tmp_path, ANY, workers=1)
    lines = [line.split("\t") for line in (tmp_path / "attribution.tsv").read_text().splitlines()]
    rows = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    assert [(row["group"], row["title"], row["authors"], row["doi"], row["samples"]) for row in rows] == [
        ("A", "First", "Doe J; Roe R", "", "2"),
        ("C", "", "", "10.1/c", "1"),
    ]


def test_files_of_the_manifest(tmp_path: Path) -> None:
    manifest = prepare(FakeSource(5), tmp_path, ANY, workers=1).manifest
    plain = {path.name for path in tmp_path.iterdir() if path.is_file()} - {"manifest.json", "log.jsonl"}
    assert set(manifest["files"]) == plain >= {"README.md", "articles.jsonl", "attribution.tsv", "rejects.jsonl"}
    for name, told in manifest["files"].items():
        assert told == {"bytes": (tmp_path / name).stat().st_size, "sha256": sha256_file(tmp_path / name)}


def test_status_while_it_runs(tmp_path: Path) -> None:
    seen: list[status.Status] = []
    prepare(FakeSource(6), tmp_path, ANY, workers=1, advance=lambda *_: seen.append(status.read(tmp_path)))
    assert [found.state for found in seen] == ["running"] * 7
    assert [found.units_done for found in seen] == list(range(7))
    assert [found.samples for found in seen] == [3 * number for number in range(7)]
    assert seen[3].left_s is not None
    assert seen[3].drops == {"table image": 3}
    lines = status.render(seen[3])
    assert lines[0] == f"{tmp_path}: running, reading"
    assert any("3 of 6 units (3 of 6 chunks), 9 samples" in line for line in lines)
    assert status.render(status.read(tmp_path))[0] == f"{tmp_path}: finished"


def test_status_of_a_stopped_update_beside_a_finished_set(tmp_path: Path) -> None:
    prepare(Served(dict.fromkeys(range(10), "1")), tmp_path, ANY, workers=1)
    with pytest.raises(AccessError):
        prepare(Served(dict.fromkeys(range(10), "2"), fail=7), tmp_path, ANY, workers=1)
    found = status.read(tmp_path)
    assert (found.state, found.units_done, found.units, found.beside) == ("stopped", 7, 10, 30)
    lines = status.render(found)
    assert lines[0].startswith(f"{tmp_path}: stopped")
    for told in ("finished data set of 30 samples", "7 of 10 units", "left       3 units", "the server is away"):
        assert any(told in line for line in lines)
    prepare(Served(dict.fromkeys(range(10), "2")), tmp_path, ANY, workers=1)
    assert (status.read(tmp_path).state, status.read(tmp_path).beside) == ("finished", None)


def test_speed_of_chunks_that_take_long(tmp_path: Path) -> None:
    with pytest.raises(AccessError):
        prepare(Served(dict.fromkeys(range(10), "1"), fail=8), tmp_path, ANY, workers=1)
    log, now = tmp_path / "log.jsonl", time.time()
    told = [json.loads(line) for line in log.read_text().splitlines()]
    start, chunks = told[0], [line for line in told if line["event"] == "chunk"]
    start |= {"time": now - 4000, "process": os.getpid()}
    # One after the other, 400 seconds each; the last has just ended.
    for number, chunk in enumerate(reversed(chunks)):
        chunk |= {"time": now - 400 * number, "seconds": 400.0}
    log.write_text("\n".join(map(json.dumps, [start, *chunks])) + "\n")
    found = status.read(tmp_path)
    assert found.state == "running"
    assert found.speed == pytest.approx(1 / 400, rel=0.05)
    assert found.left_s == pytest.approx(800, rel=0.05)
    # A run that has just begun has no speed yet, whatever one did before.
    again = {**start, "time": now + 1}
    log.write_text("\n".join(map(json.dumps, [start, *chunks, told[-1], again])) + "\n")
    assert status.read(tmp_path).speed is None


def test_status_of_nothing(tmp_path: Path) -> None:
    assert status.read(tmp_path / "absent").state == "nothing"
    assert status.render(status.read(tmp_path)) == [f"{tmp_path}: no data set and no work here"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError):
        status.read(tmp_path / "file")


def test_a_killed_run_is_told_as_stopped(tmp_path: Path) -> None:
    prepare(FakeSource(6), tmp_path, ANY, workers=1, shard=(0, 2))
    log = next(tmp_path.glob(".work/*/shard-*.jsonl"))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    lines[0]["process"] = gone.pid
    log.write_text("\n".join(map(json.dumps, lines[:-1])) + '\n{"event": "chu')
    assert status.read(tmp_path).state == "stopped"
    lines[0]["process"] = os.getpid()
    log.write_text("\n".join(map(json.dumps, lines[:-1])) + '\n{"event": "chu')
    assert status.read(tmp_path).state == "running"
    Journal(log).error(KeyboardInterrupt())
    assert list(events(log))[-1]["text"] == "interrupted"
    assert status.read(tmp_path).state == "stopped"


def test_a_run_elsewhere_is_running_while_it_tells_something(tmp_path: Path) -> None:
    prepare(FakeSource(6), tmp_path, ANY, workers=1, shard=(0, 2))
    log = next(tmp_path.glob(".work/*/shard-*.jsonl"))
    lines = [json.loads(line) for line in log.read_text().splitlines()][:-1]
    for ago, expected in ((60, "running"), (10_000, "stopped")):
        told = [{**line, "time": time.time() - ago} for line in lines]
        told[0]["machine"] = f"not {platform.node()}"
        log.write_text("\n".join(map(json.dumps, told)) + "\n")
        assert status.read(tmp_path).state == expected


def test_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="did you mean"):
        prepare(FakeSource(2), tmp_path, ANY, engine="locl")
    with pytest.raises(UsageError, match="--engine ray"):
        prepare(FakeSource(2), tmp_path, ANY, address="auto")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"medvlm\[ray\]"):
        prepare(FakeSource(2), tmp_path, ANY, engine="ray")
    assert not list(tmp_path.iterdir())


def test_a_log_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"mine": 1}\n')
    with pytest.raises(InputError, match=r"log\.jsonl"):
        prepare(FakeSource(2), tmp_path, ANY)
    prepare(FakeSource(2), tmp_path / "out", ANY, workers=1)
    shutil.copy(tmp_path / "log.jsonl", tmp_path / "out/log.jsonl")
    with pytest.raises(InputError, match=r"log\.jsonl"):
        prepare(FakeSource(3), tmp_path / "out", ANY, overwrite=True)
