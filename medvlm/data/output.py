"""The folder that `prepare` fills: what in it is ours, who may write, and how a finished set takes its place.

Everything is made under `.work/<fingerprint>/`. A whole set stands in `.work/<fingerprint>/ready/`; from there its
files are moved to their final names, the manifest last. A folder with our manifest is therefore always whole.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medvlm.data import owner
from medvlm.errors import InputError
from medvlm.io import disk_errors, write_json

TOOL = "medvlm prepare"
MANIFEST = "manifest.json"
LOG = "log.jsonl"
STORE = ".objects"
"""What a source on the network keeps for later runs; never touched here."""

REQUEST = "request.json"
_PLAIN = frozenset(
    {"README.md", "rejects.jsonl", "articles.jsonl", "attribution.tsv", "contact_sheet.png", "croissant.json", MANIFEST}
)
_SHARD = re.compile(r"data/(train|validation|test)-\d{5}-of-\d{5}\.parquet")
_LOCK, _OWNER = "lock", "owner"
_WORK_ENTRY = re.compile(r"lock|owner|owner-\d+|[0-9a-f]{16}")
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest that `prepare` left in `folder`, or None where there is none of ours."""
    manifest = read_json(folder / MANIFEST)
    return manifest if manifest.get("tool") == TOOL else None


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file, or an empty one where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _listed(manifest: dict[str, Any] | None) -> set[str]:
    """Return the files that a manifest says are ours; names of any other form are not believed."""
    if manifest is None:
        return set()
    names = {str(shard.get("name")) for shard in manifest.get("shards", ()) if isinstance(shard, dict)}
    plain = {MANIFEST, *manifest.get("files", ("README.md", "rejects.jsonl"))}
    return {name for name in names if _SHARD.fullmatch(name)} | (plain & _PLAIN)


def is_own_log(path: Path) -> bool:
    """Whether `path` is a log that `prepare` began."""
    try:
        with open(path, encoding="utf-8") as file:
            first = json.loads(file.readline())
    except (OSError, ValueError):
        return False
    return isinstance(first, dict) and first.get("tool") == TOOL


class OutputFolder:
    """One data set's folder. Use `locked()` around everything that writes.

    Args:
        fingerprint: of the request: inputs and settings.
        lineage: of the request whatever the state of its source; a set or work of the same lineage may be replaced.
    """

    def __init__(self, path: Path, fingerprint: str, lineage: str | None = None) -> None:
        self.path = path
        self.fingerprint = fingerprint
        self.lineage = lineage
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
        present = all((self.path / name).is_file() for name in _listed(manifest))
        whole = all(self._size(name) == size for name, size in sizes.items())
        return manifest if present and whole else None

    def _size(self, name: str) -> int | None:
        try:
            return (self.path / name).stat().st_size
        except OSError:
            return None

    def check(self, overwrite: bool, alone: bool = True) -> None:
        """Make sure that writing here takes nothing from anybody.

        Args:
            overwrite: another data set, and unfinished work, may go.
            alone: unfinished work of other requests is in the way, since `begin` would clear it away.

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
        if manifest is not None and not overwrite and not self._replaceable(manifest):
            raise InputError(
                f"{self.path} holds a data set made from other inputs or settings ({manifest.get('command')}); "
                "choose another folder with --out, or replace it with --overwrite"
            )
        chunks = self.unfinished() if alone and not overwrite else 0
        if chunks:
            raise InputError(
                f"{self.path} holds {chunks} finished chunks of a stopped run with other inputs or settings; let that "
                "run go on, choose another folder with --out, or drop its work with --overwrite"
            )

    def _replaceable(self, told: dict[str, Any]) -> bool:
        """Whether a manifest or request is of this request, or of its lineage: the same articles at another time."""
        same = told.get("lineage") is not None and told.get("lineage") == self.lineage
        return same or told.get("request") == self.fingerprint

    def replaced(self) -> dict[str, Any] | None:
        """Return the manifest of the set of the same lineage that a new one is going to replace, if one lies here."""
        manifest = read_manifest(self.path)
        if manifest is None or manifest.get("request") == self.fingerprint or not self._replaceable(manifest):
            return None
        return manifest

    def unfinished(self) -> int:
        """Return how many chunks stopped runs of other requests have done here."""
        if not self.work.is_dir():
            return 0
        others = [entry for entry in self._others() if not self._replaceable(read_json(entry / REQUEST))]
        return sum(1 for entry in others for _ in entry.glob("chunk-*.jsonl"))

    def _others(self) -> list[Path]:
        """Return the work folders of other requests."""
        return [entry for entry in sorted(self.work.iterdir()) if entry.is_dir() and entry != self.mine]

    def _foreign(self) -> str:
        """Return the first thing here that is not ours and would be in the way, or an empty string."""
        owned = self._owned() | ({LOG} if is_own_log(self.path / LOG) else set())
        others_too = read_manifest(self.path) is not None
        for place in (self.path, self.path / "data"):
            for entry in sorted(place.iterdir()) if place.is_dir() else ():
                name = entry.relative_to(self.path).as_posix()
                # Beside a data set other files may lie, but none with a name that it may need.
                if place == self.path and others_too and name not in (*_PLAIN, LOG):
                    continue
                if name not in owned and name not in (".work", STORE, "data"):
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
            owned |= _listed(read_json(entry / "replaces.json") or None)
        return owned

    @contextlib.contextmanager
    def locked(self, shared: bool = False) -> Iterator[None]:
        """Keep every other process out of this folder; leave no trace of the lock.

        On a file system without locks a file tells whose the folder is; there, shards keep nobody out.

        Args:
            shared: let others in that ask for the same.

        Raises:
            InputError: another process is at work here, or the folder cannot be written.
        """
        created = not self.path.exists()
        try:
            with self._lock_file(shared):
                yield
        finally:
            # Chunks of a stopped run stay, and with them their folder.
            self._remove_if_empty(self.work)
            if not self.work.exists() and read_manifest(self.path) is None and is_own_log(self.path / LOG):
                (self.path / LOG).unlink(missing_ok=True)
            if created:
                self._remove_if_empty(self.path)

    @contextlib.contextmanager
    def _lock_file(self, shared: bool) -> Iterator[None]:
        name = self.work / _LOCK
        handle, locked = self._open_lock(name, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        try:
            if shared and not locked:
                owner.check(self.work / _OWNER)
            with contextlib.nullcontext() if shared or locked else owner.owned(self.work / _OWNER):
                yield
        finally:
            # Others may hold a shared lock on the very file.
            if not shared:
                with contextlib.suppress(FileNotFoundError):
                    name.unlink()
            os.close(handle)

    def _open_lock(self, name: Path, kind: int) -> tuple[int, bool]:
        """Return the open file, and whether it is locked: not where the file system has no locks."""
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
                fcntl.flock(handle, kind | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in _NO_LOCKS:
                    return handle, False
                os.close(handle)
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise InputError(
                        f"{self.path} cannot be locked ({error.strerror}); choose another folder with --out"
                    ) from error
                raise InputError(f"another process is preparing {self.path}; wait for it or choose --out") from error
            # Whoever held the lock before may have removed the file that we locked.
            with contextlib.suppress(FileNotFoundError):
                if os.fstat(handle).st_ino == name.stat().st_ino:
                    return handle, True
            os.close(handle)

    @staticmethod
    def _remove_if_empty(folder: Path) -> None:
        with contextlib.suppress(OSError):
            folder.rmdir()

    def rescue(self) -> dict[str, Any] | None:
        """Publish the whole set that a stopped run of another request left, if this one may replace it or it is the
        only one here, and return its manifest.

        A run that was killed while it published took the old set away: before this run clears work away and fails in
        its turn, that set goes to its place.
        """
        if self.ready.is_dir():
            return None
        bare = read_manifest(self.path) is None
        for entry in sorted(self.work.iterdir()):
            manifest = read_manifest(entry / "ready")
            if manifest is None or manifest.get("request", "")[:16] != entry.name:
                continue
            if bare or self._replaceable(manifest):
                OutputFolder(self.path, manifest["request"], manifest.get("lineage")).publish()
                return manifest
        return None

    def begin(self) -> None:
        """Clear away other and half-finished work; keep this request's own chunks and its finished set."""
        if read_manifest(self.path) is None and not self.ready.is_dir():
            self._remove(self._owned())
        for entry in self._others():
            shutil.rmtree(entry)
        self.tidy()
        self.mine.mkdir(exist_ok=True)

    def drop_older(self, begun: float) -> None:
        """Remove work of the same lineage that was begun before `begun` (seconds since 1970)."""
        for entry in sorted(self.work.iterdir()):
            told = entry / REQUEST
            if told.is_file() and told.stat().st_mtime < begun and self._replaceable(read_json(told)):
                shutil.rmtree(entry)

    def tidy(self) -> None:
        """Remove what is half-written; chunks that are done and a finished set stay."""
        shutil.rmtree(self.build, ignore_errors=True)
        for leftover in self.mine.glob(".*"):
            leftover.unlink(missing_ok=True)
        if not self.ready.is_dir() and next(self.mine.glob("chunk-*.jsonl"), None) is None:
            self.discard()

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
            write_json(self.mine / "replaces.json", {"shards": old["shards"], "files": sorted(_listed(old) & _PLAIN)})
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
