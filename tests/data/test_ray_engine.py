"""Ray reads the same chunks into the same bytes, also where its workers are killed."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from fake_source import FakeSource

from medvlm.data.prepare import Settings, prepare
from medvlm.errors import AccessError, InputError
from medvlm.io import sha256_file

pytest.importorskip("ray", reason="the extra medvlm[ray] is not installed")

ANY = Settings(license="any")


def files(out: Path) -> dict[str, str]:
    """Return every file below `out` but the log with its hash."""
    found = (path for path in sorted(out.rglob("*")) if path.is_file() and path.name != "log.jsonl")
    return {path.relative_to(out).as_posix(): sha256_file(path) for path in found}


def ray_workers() -> list[psutil.Process]:
    """Return the processes of Ray that this one started and that read chunks just now."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if "read_chunk" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


def test_the_same_bytes_though_a_worker_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Ray's workers find the source by it.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    killed: list[int] = []

    def kill(done: int, total: int) -> None:
        if done >= 6 and not killed:
            for worker in ray_workers()[:1]:
                killed.append(worker.pid)
                worker.kill()

    prepare(FakeSource(40, delay=0.05), tmp_path / "ray", ANY, workers=2, engine="ray", advance=kill)
    prepare(FakeSource(40), tmp_path / "local", ANY, workers=1)
    assert killed
    assert files(tmp_path / "ray") == files(tmp_path / "local")


@pytest.mark.slow
def test_errors_reach_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    with pytest.raises(InputError, match=r"^worker says no$"):
        prepare(FakeSource(4, special={1: [InputError("worker says no")]}), tmp_path, ANY, workers=2, engine="ray")


def test_no_cluster(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match=r"127\.0\.0\.1:9.*ray start"):
        prepare(FakeSource(2), tmp_path / "out", ANY, engine="ray", address="127.0.0.1:9")
