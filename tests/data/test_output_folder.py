"""Whose files are whose: nothing foreign is deleted, nothing of ours is replaced unasked."""

from __future__ import annotations

import errno
import fcntl
import json
import subprocess
import sys
from pathlib import Path

import pytest
from fake_source import FakeSource

from medvlm.data.output import OutputFolder
from medvlm.data.prepare import Settings, merge_shards, prepare
from medvlm.errors import InputError

ANY = Settings(license="any")


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("other", [(FakeSource(6), ANY), (FakeSource(5), Settings("any", seed=1))])
def test_other_inputs_or_settings_are_refused(tmp_path: Path, other: tuple[FakeSource, Settings]) -> None:
    prepare(FakeSource(5), tmp_path, ANY)
    before = names(tmp_path)
    with pytest.raises(InputError, match=r"--out.*--overwrite"):
        prepare(*other[:1], tmp_path, other[1])
    assert names(tmp_path) == before
    assert not prepare(other[0], tmp_path, other[1], overwrite=True).up_to_date
    assert prepare(other[0], tmp_path, other[1]).up_to_date


def test_overwrite_removes_what_it_wrote_and_nothing_else(tmp_path: Path) -> None:
    prepare(FakeSource(20), tmp_path, Settings("any", (0.0, 0.5, 0.5)))
    (tmp_path / "notes.txt").write_text("mine")
    prepare(FakeSource(2), tmp_path, Settings("any", (1.0, 0.0, 0.0)), overwrite=True)
    assert names(tmp_path) == [
        "README.md",
        "articles.jsonl",
        "attribution.tsv",
        "contact_sheet.png",
        "croissant.json",
        "data/train-00000-of-00001.parquet",
        "log.jsonl",
        "manifest.json",
        "notes.txt",
        "rejects.jsonl",
    ]


@pytest.mark.parametrize("name", ["thesis.docx", "data/train-00000-of-00001.parquet", ".work/mine.txt", "README.md"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path, name: str, overwrite: bool) -> None:
    target = tmp_path / name
    target.parent.mkdir(exist_ok=True)
    target.write_text("years of work")
    with pytest.raises(InputError, match="did not write"):
        prepare(FakeSource(5), tmp_path, ANY, overwrite=overwrite)
    assert target.read_text() == "years of work"
    assert names(tmp_path) == [name]


def test_a_foreign_file_among_the_shards_is_left_alone(tmp_path: Path) -> None:
    prepare(FakeSource(5), tmp_path, ANY)
    (tmp_path / "data/mine.parquet").write_text("mine")
    with pytest.raises(InputError, match=r"data/mine\.parquet"):
        prepare(FakeSource(6), tmp_path, ANY, overwrite=True)
    assert (tmp_path / "data/mine.parquet").read_text() == "mine"


def test_a_manifest_cannot_point_outside(tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(FakeSource(5), out, ANY)
    (tmp_path / "victim.parquet").write_text("precious")
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["shards"].append({**manifest["shards"][0], "name": "data/../../victim.parquet"})
    (out / "manifest.json").write_text(json.dumps(manifest))
    prepare(FakeSource(6), out, ANY, overwrite=True)
    assert (tmp_path / "victim.parquet").read_text() == "precious"


def test_work_of_another_request_is_discarded(tmp_path: Path) -> None:
    stale = tmp_path / ".work" / ("0" * 16)
    stale.mkdir(parents=True)
    (stale / "chunk-00000.arrow").write_text("half")
    prepare(FakeSource(5), tmp_path, ANY)
    assert not (tmp_path / ".work").exists()


def test_finished_chunks_of_another_request_are_kept(tmp_path: Path) -> None:
    theirs = tmp_path / ".work" / ("0" * 16)
    theirs.mkdir(parents=True)
    (theirs / "chunk-00000-abcdef01.arrow").write_text("hours of work")
    (theirs / "chunk-00000-abcdef01.jsonl").write_text("{}")
    before = names(tmp_path)
    with pytest.raises(InputError, match=r"1 finished chunks .*--out.*--overwrite"):
        prepare(FakeSource(5), tmp_path, ANY)
    assert names(tmp_path) == before
    prepare(FakeSource(5), tmp_path, ANY, overwrite=True)
    assert not (tmp_path / ".work").exists()


def test_a_whole_set_is_up_to_date_beside_the_work_of_another_request(tmp_path: Path) -> None:
    prepare(FakeSource(5), tmp_path, ANY)
    theirs = tmp_path / ".work" / ("0" * 16)
    theirs.mkdir(parents=True)
    (theirs / "chunk-00000-abcdef01.jsonl").write_text("{}")
    assert prepare(FakeSource(5), tmp_path, ANY).up_to_date
    assert theirs.is_dir()


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_file_in_the_way(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="--out"):
        prepare(FakeSource(5), tmp_path / place, ANY)


def test_a_folder_that_cannot_be_made() -> None:
    with pytest.raises(InputError, match="cannot be written"):
        prepare(FakeSource(5), Path("/proc/medvlm-test"), ANY)


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom medvlm.data.output import OutputFolder\n"
        "with OutputFolder(Path(sys.argv[1]), 'a' * 64).locked():\n    print('held', flush=True)\n    input()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="another process"):
            prepare(FakeSource(5), tmp_path, ANY)
        holder.communicate("\n")
    assert not (tmp_path / ".work").exists()
    assert not prepare(FakeSource(5), tmp_path, ANY).up_to_date


HOLDER = """
import errno, fcntl, sys
from pathlib import Path
from medvlm.data.output import OutputFolder
def none(*_):
    raise OSError(errno.ENOSYS, "Function not implemented")
fcntl.flock = none
with OutputFolder(Path(sys.argv[1]), 'a' * 64).locked():
    print('held', flush=True)
    input()
"""


@pytest.fixture(params=[errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def lockless(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A file system that knows no locks."""

    def fail(*_: object) -> None:
        raise OSError(request.param, "no locks")

    monkeypatch.setattr(fcntl, "flock", fail)


def test_without_locks_all_goes_on(tmp_path: Path, lockless: None) -> None:
    for number in (0, 1):
        prepare(FakeSource(4), tmp_path / "shards", ANY, workers=1, shard=(number, 2))
    assert not merge_shards(tmp_path / "shards").up_to_date
    assert not prepare(FakeSource(4), tmp_path / "out", ANY, workers=1).up_to_date
    for folder in ("shards", "out"):
        assert not (tmp_path / folder / ".work").exists()


@pytest.mark.parametrize("lockless", [errno.ENOSYS], indirect=True)
def test_without_locks_two_processes_do_not_share_a_folder(tmp_path: Path, lockless: None) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        for shard in (None, (0, 2)):
            with pytest.raises(InputError, match=rf"process {holder.pid} on .* remove this file if it has ended"):
                prepare(FakeSource(5), tmp_path, ANY, workers=1, shard=shard)
        holder.kill()
    # What a killed process left keeps nobody out.
    assert (tmp_path / ".work/owner").exists()
    assert not prepare(FakeSource(5), tmp_path, ANY, workers=1).up_to_date
    assert not (tmp_path / ".work").exists()
    held = tmp_path / "elsewhere/.work/owner"
    held.parent.mkdir(parents=True)
    held.write_text('{"process": 1, "machine": "another"}')
    with pytest.raises(InputError, match="process 1 on another"):
        prepare(FakeSource(5), held.parent.parent, ANY, workers=1)


def test_a_lock_that_fails_otherwise_is_told_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(InputError, match=r"cannot be locked \(Input/output error\)"):
        prepare(FakeSource(5), tmp_path, ANY, workers=1)


def test_the_lock_leaves_no_trace(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "out", "b" * 64)
    with folder.locked():
        assert folder.work.is_dir()
    assert not (tmp_path / "out").exists()
