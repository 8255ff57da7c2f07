"""The folder that `prepare` fills: what in it is ours, one process at a time, and how a finished set takes its place.

Everything is made under `.work/<fingerprint>/`. A whole set stands in `.work/<fingerprint>/ready/`; from there its
files are moved to their final names, the manifest last. A folder with our manifest is therefore always whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medvlm.errors import InputError
from medvlm.io import disk_errors, write_json

TOOL = "medvlm prepare"
MANIFEST = "manifest.json"
_PLAIN = ("README.md", "rejects.jsonl", MANIFEST)
_SHARD = re.compile(r"data/(train|validation|test)-\d{5}-of-\d{5}\.parquet")
_WORK_ENTRY = re.compile(r"lock|[0-9a-f]{16}")


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest that `prepare` left in `folder`, or None where there is none of ours."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("tool") == TOOL else None


def _listed(manifest: dict[str, Any] | None) -> set[str]:
    """Return the files that a manifest says are ours; names of any other form are not believed."""
    if manifest is None:
        return set()
    names = {str(shard.get("name")) for shard in manifest.get("shards", ()) if isinstance(shard, dict)}
    return {name for name in names if _SHARD.fullmatch(name)} | set(_PLAIN)


class OutputFolder:
    """One data set's folder. Use `locked()` around everything that writes."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path = path
        self.fingerprint = fingerprint
        self.work = path / ".work"
        self.mine = self.work / fingerprint[:16]
        self.ready = self.mine / "ready"
        self.build = self.mine / "build"

    def current(self) -> dict[str, Any] | None:
        """Return the manifest if the very data set asked for lies here whole, else None."""
        manifest = read_manifest(self.path)
        if manifest is None or manifest.get("request") != self.fingerprint:
            return None
        sizes = {shard["name"]: shard["bytes"] for shard in manifest["shards"]}
        present = all((self.path / name).is_file() for name in _PLAIN)
        whole = all(self._size(name) == size for name, size in sizes.items())
        return manifest if present and whole else None

    def _size(self, name: str) -> int | None:
        try:
            return (self.path / name).stat().st_size
        except OSError:
            return None

    def check(self, overwrite: bool) -> None:
        """Make sure that writing here takes nothing from anybody.

        Raises:
            InputError: another data set lies here and `overwrite` is not given, or files that are not ours do.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file, not a folder; choose another with --out")
        if not self.path.exists():
            return
        foreign = self._foreign()
        if foreign:
            raise InputError(
                f"{self.path} holds files that medvlm did not write ({foreign}); choose another folder with --out"
            )
        manifest = read_manifest(self.path)
        if manifest is not None and manifest.get("request") != self.fingerprint and not overwrite:
            raise InputError(
                f"{self.path} holds a data set made from other inputs or settings ({manifest.get('command')}); "
                "choose another folder with --out, or replace it with --overwrite"
            )
        chunks = self.unfinished()
        if chunks and not overwrite:
            raise InputError(
                f"{self.path} holds {chunks} finished chunks of a stopped run with other inputs or settings; let that "
                "run go on, choose another folder with --out, or drop its work with --overwrite"
            )

    def unfinished(self) -> int:
        """Return how many chunks stopped runs of other requests have done here."""
        if not self.work.is_dir():
            return 0
        others = [entry for entry in self.work.iterdir() if entry.name not in ("lock", self.mine.name)]
        return sum(1 for entry in others for _ in entry.glob("chunk-*.json"))

    def _foreign(self) -> str:
        """Return the first thing here that is not ours and would be in the way, or an empty string."""
        owned = self._owned()
        places = [self.path / "data"] if read_manifest(self.path) else [self.path, self.path / "data"]
        for place in places:
            for entry in sorted(place.iterdir()) if place.is_dir() else ():
                name = entry.relative_to(self.path).as_posix()
                if name not in owned and name not in (".work", "data"):
                    return name
        for entry in sorted(self.work.iterdir()) if self.work.is_dir() else ():
            if not _WORK_ENTRY.fullmatch(entry.name):
                return f".work/{entry.name}"
        return ""

    def _owned(self) -> set[str]:
        """Return the files under final names that are ours, also after a move that was cut short."""
        owned = _listed(read_manifest(self.path))
        for entry in self.work.iterdir() if self.work.is_dir() else ():
            owned |= _listed(read_manifest(entry / "ready"))
            with contextlib.suppress(OSError, ValueError):
                owned |= _listed(json.loads((entry / "replaces.json").read_text(encoding="utf-8")))
        return owned

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process out of this folder; leave no trace of the lock.

        Raises:
            InputError: another process is at work here, or the folder cannot be written.
        """
        created = not self.path.exists()
        try:
            with self._lock_file():
                yield
        finally:
            # Chunks of a stopped run stay, and with them their folder.
            self._remove_if_empty(self.work)
            if created:
                self._remove_if_empty(self.path)

    @contextlib.contextmanager
    def _lock_file(self) -> Iterator[None]:
        name = self.work / "lock"
        handle = self._open_lock(name)
        try:
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):
                name.unlink()
            os.close(handle)

    def _open_lock(self, name: Path) -> int:
        while True:
            try:
                with disk_errors(self.path):
                    self.work.mkdir(parents=True, exist_ok=True)
                    handle = os.open(name, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                raise InputError(
                    f"{self.path} cannot be written ({error.strerror}); choose another folder with --out"
                ) from error
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(handle)
                raise InputError(f"another process is preparing {self.path}; wait for it or choose --out") from error
            # Whoever held the lock before may have removed the file that we locked.
            with contextlib.suppress(FileNotFoundError):
                if os.fstat(handle).st_ino == name.stat().st_ino:
                    return handle
            os.close(handle)

    @staticmethod
    def _remove_if_empty(folder: Path) -> None:
        with contextlib.suppress(OSError):
            folder.rmdir()

    def begin(self) -> None:
        """Clear away other and half-finished work; keep this request's own chunks and its finished set."""
        if read_manifest(self.path) is None and not self.ready.is_dir():
            self._remove(self._owned())
        for entry in self.work.iterdir():
            if entry.name not in ("lock", self.mine.name):
                shutil.rmtree(entry)
        self.tidy()
        self.mine.mkdir(exist_ok=True)

    def tidy(self) -> None:
        """Remove what is half-written; chunks that are done and a finished set stay."""
        shutil.rmtree(self.build, ignore_errors=True)
        for leftover in self.mine.glob(".chunk-*"):
            leftover.unlink(missing_ok=True)
        self._remove_if_empty(self.mine)

    def discard(self) -> None:
        """Remove this request's work."""
        shutil.rmtree(self.mine, ignore_errors=True)

    def finish(self) -> None:
        """Declare what lies in `build` a whole data set."""
        os.rename(self.build, self.ready)

    def publish(self) -> None:
        """Move the finished set to its final names, the manifest last; what it replaces goes first.

        May be cut short anywhere and called again.
        """
        old = read_manifest(self.path)
        new = read_manifest(self.ready)
        assert new is not None
        if old is not None:
            write_json(self.mine / "replaces.json", {"shards": old["shards"]})
            (self.path / MANIFEST).unlink()
        names = _listed(new)
        self._remove(self._owned() - names)
        (self.path / "data").mkdir(exist_ok=True)
        for name in [*sorted(names - {MANIFEST}), MANIFEST]:
            if (self.ready / name).exists():
                os.replace(self.ready / name, self.path / name)
        shutil.rmtree(self.mine)

    def _remove(self, names: set[str]) -> None:
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                (self.path / name).unlink()
        self._remove_if_empty(self.path / "data")
