"""The plan of a run: which articles, in which version, with which ETag. Made once, then a file that nobody changes.

While it is made it is a work table that goes on where it was stopped; finished it is a table of rows numbered in the
order of their names, from which units are read a slice at a time, however many millions there are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence, Set
from pathlib import Path
from typing import Any, overload

from medvlm.data.owner import owned
from medvlm.data.sources.base import Unit
from medvlm.errors import AccessError, ResourceError
from medvlm.io import disk_errors, sha256_bytes, write_text

MAX_IDLE_DAYS = 7
"""A plan that no run has used for so long is made anew: articles may have been retracted since."""

CAME_SINCE = "-"
"""Before the name of an article that is on the list of those that failed, and needs to be there no more."""

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
_PAGE = 10_000
Row = tuple[str, int, str]
"""Article, version (0: the service has none), ETag of its metadata ("": unknown)."""


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Miss:
    """An object that an article of a plan names and the service did not have."""

    article: str
    etag: str
    """The article's, in the plan."""
    url: str


class PlannedUnits(Sequence[Unit]):
    """The units of a plan, sorted by name. Picklable; nothing is held in memory.

    Args:
        path: of the plan.
        sha256: which plan it is; another one that has taken its place is not read.

    Raises:
        AccessError: the plan is gone, another one, or damaged (on any access).
    """

    def __init__(self, path: Path, sha256: str) -> None:
        self._path = path
        self._sha256 = sha256
        self._length: int | None = None

    def __len__(self) -> int:
        if self._length is None:
            with _reading(self._path, self._sha256) as db:
                self._length = int(db.execute("SELECT count(*) FROM units").fetchone()[0])
        return self._length

    @overload
    def __getitem__(self, index: int) -> Unit: ...
    @overload
    def __getitem__(self, index: slice) -> list[Unit]: ...
    def __getitem__(self, index: int | slice) -> Unit | list[Unit]:
        chosen = range(len(self))[index]
        if isinstance(chosen, int):
            return self._between(chosen, chosen)[0]
        if chosen.step == 1:
            return self._between(chosen.start, chosen.stop - 1)
        return [self._between(number, number)[0] for number in chosen]

    def __iter__(self) -> Iterator[Unit]:
        for start in range(0, len(self), _PAGE):
            yield from self._between(start, start + _PAGE - 1)

    def _between(self, first: int, last: int) -> list[Unit]:
        with _reading(self._path, self._sha256) as db:
            rows = db.execute("SELECT name, version, etag FROM units WHERE n BETWEEN ? AND ? ORDER BY n", (first, last))
            return [Unit(name, (name, str(version)), etag) for name, version, etag in rows]


@contextlib.contextmanager
def _reading(path: Path, sha256: str) -> Iterator[sqlite3.Connection]:
    """Open a plan; one that is damaged is removed, so that the next run makes it anew."""
    # Nobody writes to a finished plan, so no lock is needed (a network file system may have none).
    address = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True)) as db:
            if _facts(db)["sha256"] != sha256:
                raise AccessError(f"{path}: another run has made the plan anew meanwhile; run the same command again")
            yield db
    except _DAMAGES as error:
        if not isinstance(error, sqlite3.OperationalError):
            path.unlink(missing_ok=True)
        raise AccessError(
            f"{path}: the plan is damaged, or another run with this store has ended and dropped it ({error}); run the "
            "same command again"
        ) from error


_DAMAGES = (sqlite3.DatabaseError, TypeError, ValueError, KeyError)
"""What a file that is no plan leads to."""


@contextlib.contextmanager
def _table_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, as SQLite tells it, into a `ResourceError` naming `path`."""
    try:
        with disk_errors(path):
            yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE):
            raise
        raise ResourceError(f"{path}: no space left on the disk; free some or choose another folder") from error


def _facts(db: sqlite3.Connection) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(db.execute("SELECT facts FROM about").fetchone()[0])
    return facts


class PlanFile:
    """Where the plan of one selection lies, unfinished and finished.

    Args:
        folder: of all plans.
        key: names this one.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self.path = folder / f"{key}.sqlite"
        self.building = folder / f"{key}.building"
        self.inventory = folder / f"{key}.inventory"
        self._lock = folder / f"{key}.lock"
        self._tally = folder / f"{key}.tally"
        self._salt = folder / f"{key}.salt"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the plan alone; others of the same selection wait here until it is made.

        Raises:
            InputError: another process holds it, on a file system without locks.
            ResourceError: the disk is full.
        """
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with _table_errors(self.folder), open(self._lock, "w") as lock, contextlib.ExitStack() as held:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise AccessError(
                        f"{self._lock} cannot be locked ({error.strerror}); choose another folder with --out"
                    ) from error
                held.enter_context(owned(self._lock.with_suffix(".owner")))
            yield

    def units(self) -> PlannedUnits:
        """Return the units of the finished plan."""
        return PlannedUnits(self.path, self.facts()["sha256"])

    def facts(self) -> dict[str, Any]:
        """Return what the finished plan says of itself: articles, sha256, bytes, and where it is from.

        Raises:
            AccessError: there is none.
        """
        facts = self._read()
        if facts is None:
            raise AccessError(f"{self.path}: the plan is gone; run the same command again")
        return facts

    def _read(self) -> dict[str, Any] | None:
        if not self.path.exists():
            return None
        try:
            with contextlib.closing(
                sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
            ) as db:
                return _facts(db)
        except _DAMAGES:
            return None

    def sound(self) -> bool:
        """Tell whether there is a finished plan that can be read."""
        return self._read() is not None

    def idle_days(self) -> float:
        """Return how long no run has used the plan; 0 where there is none."""
        try:
            return max(0.0, time.time() - self.path.stat().st_mtime) / 86_400
        except FileNotFoundError:
            return 0.0

    def used(self) -> None:
        """Note that a run works with the plan."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.path)

    def drop(self) -> None:
        """Forget the plan, so that the next run makes it anew."""
        with self.locked():
            self.clear_finished()
            self._tidy()

    def clear_finished(self) -> None:
        """Remove the finished plan, and not what there is of a new one; the caller holds its lock."""
        self.path.unlink(missing_ok=True)
        self._tally.unlink(missing_ok=True)

    def _tidy(self) -> None:
        """Remove what was needed to make the plan."""
        self.building.unlink(missing_ok=True)
        shutil.rmtree(self.inventory, ignore_errors=True)

    @property
    def lists(self) -> dict[str, str]:
        """The names, within the store, of the lists that a run adds to: "failed", "missing" and "tally"."""
        salt = self._last_salt()
        paths = {"failed": self._list("failed", salt), "missing": self._list("missing", salt), "tally": self._tally}
        return {name: f"{self.folder.name}/{path.name}" for name, path in paths.items()}

    def _last_salt(self) -> str:
        try:
            return self._salt.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""

    def _list(self, name: str, salt: str) -> Path:
        """Return the list of what came after a salt: with a new salt all that the old lists say is settled at once."""
        return self._salt.with_suffix(f".{name}{'-' if salt else ''}{salt[:16]}")

    def failed(self) -> set[str]:
        """Return the articles that were left out because they, or files of them, failed, and have not come since."""
        found: set[str] = set()
        for line in _lines(self._list("failed", self._last_salt())):
            if line.startswith(CAME_SINCE):
                found.discard(line.removeprefix(CAME_SINCE))
            else:
                found.add(line)
        return found

    def missing(self) -> set[Miss]:
        """Return what the service did not have."""
        cells = (line.split("\t") for line in _lines(self._list("missing", self._last_salt())))
        return {Miss(*row) for row in cells if len(row) == 3}

    def finish(self, work: WorkTable, origin: dict[str, Any], returned: Set[str] = frozenset()) -> None:
        """Write the finished plan from the work table, which is then removed.

        Args:
            work: the table.
            origin: is told with the plan's facts.
            returned: articles that lacked an object and have it now.
        """
        salt = self._salted(work, returned)
        part = self.path.with_suffix(".part")
        part.unlink(missing_ok=True)
        digest, size, number = hashlib.sha256(salt.encode()), 0, 0
        with contextlib.closing(sqlite3.connect(part)) as db, disk_errors(part):
            db.execute("PRAGMA journal_mode = OFF")
            db.execute("CREATE TABLE units (n INTEGER PRIMARY KEY, name TEXT, version INTEGER, etag TEXT)")
            for rows in work.rows():
                lines = "".join(f"{name}\t{version}\t{etag}\n" for name, version, etag in rows).encode()
                digest.update(lines)
                size += len(lines)
                db.executemany(
                    "INSERT INTO units VALUES (?, ?, ?, ?)", ((number + i, *row) for i, row in enumerate(rows))
                )
                number += len(rows)
            facts = {**origin, "articles": number, "sha256": digest.hexdigest(), "bytes": size}
            db.execute("CREATE TABLE about (facts TEXT)")
            db.execute("INSERT INTO about VALUES (?)", (json.dumps(facts),))
            db.commit()
        work.close()
        os.replace(part, self.path)
        self._tidy()

    def _salted(self, work: WorkTable, returned: Set[str]) -> str:
        """Return what sets this plan apart from the last one where that left out what failed or has come since.

        Without it a run that could mend them would be found up to date. What is missing still, of articles that are the
        same, stays on its list for the next plan to ask for again.
        """
        old = salt = self._last_salt()
        left = sorted(m for m in self.missing() if m.article not in returned and work.etag(m.article) == m.etag)
        if names := sorted(self.failed() | returned):
            salt = sha256_bytes(f"{old} {' '.join(names)}".encode())
        if left or self._list("missing", old).exists():
            lines = "".join(f"{miss.article}\t{miss.etag}\t{miss.url}\n" for miss in left)
            write_text(self._list("missing", salt), lines)
        if salt != old:
            write_text(self._salt, salt)
            self._list("missing", old).unlink(missing_ok=True)
        self._list("failed", old).unlink(missing_ok=True)
        return salt


def _lines(path: Path) -> list[str]:
    """Return the whole lines of a list; a run that was killed, or a full disk, may have left half of one."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    except FileNotFoundError:
        return []


class WorkTable:
    """A plan in the making: which articles are chosen, and which of them have their version and ETag.

    Commits go to the file system but do not wait for the disk; a table that a power cut has damaged is begun anew.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._open(path)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise
            path.unlink()
            self._open(path)

    def _open(self, path: Path) -> None:
        self._db = sqlite3.connect(path)
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS found (name TEXT PRIMARY KEY, wanted INTEGER, version INTEGER, etag TEXT) "
            "WITHOUT ROWID"
        )
        self._db.execute("CREATE TABLE IF NOT EXISTS origin (facts TEXT)")
        self._db.commit()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def origin(self) -> dict[str, Any] | None:
        """Return where the choice came from; None while it is not complete."""
        row = self._db.execute("SELECT facts FROM origin").fetchone()
        return json.loads(row[0]) if row else None

    def clear(self) -> None:
        """Forget the choice."""
        with self._db:
            self._db.execute("DELETE FROM found")

    def choose(self, wanted: Iterable[tuple[str, int | None]]) -> None:
        """Add articles, each with the version that is asked for or None."""
        with self._db:
            self._db.executemany("INSERT OR IGNORE INTO found VALUES (?, ?, NULL, NULL)", wanted)

    def take_newest(self, rows: Iterable[Row]) -> None:
        """Add articles with version and ETag; of several versions the newest stays."""
        with self._db:
            self._db.executemany(
                "INSERT INTO found VALUES (?1, NULL, ?2, ?3) ON CONFLICT (name) DO UPDATE "
                "SET version = excluded.version, etag = excluded.etag WHERE excluded.version > version",
                rows,
            )

    def etag(self, article: str) -> str | None:
        """Return an article's ETag, None where it is not chosen."""
        row = self._db.execute("SELECT etag FROM found WHERE name = ?", (article,)).fetchone()
        return row[0] if row else None

    def count(self) -> int:
        """Return how many articles are chosen."""
        return int(self._db.execute("SELECT count(*) FROM found").fetchone()[0])

    def chosen(self, limit: int | None, origin: dict[str, Any]) -> None:
        """Close the choice: keep the first `limit` by name, and note where it came from."""
        with self._db:
            if limit is not None:
                last = self._db.execute("SELECT name FROM found ORDER BY name LIMIT 1 OFFSET ?", (limit,)).fetchone()
                if last:
                    self._db.execute("DELETE FROM found WHERE name >= ?", last)
            self._db.execute("INSERT INTO origin VALUES (?)", (json.dumps(origin),))

    def unresolved(self, count: int) -> list[tuple[str, int | None]]:
        """Return the next articles without a version, with the one that is asked for."""
        return self._db.execute(
            "SELECT name, wanted FROM found WHERE version IS NULL ORDER BY name LIMIT ?", (count,)
        ).fetchall()

    def resolve(self, rows: Iterable[Row]) -> None:
        """Note version and ETag of articles."""
        with self._db:
            self._db.executemany("UPDATE found SET version = ?2, etag = ?3 WHERE name = ?1", rows)

    def rows(self) -> Iterator[list[Row]]:
        """Yield all rows in the order of their names, some thousand at a time."""
        cursor = self._db.execute("SELECT name, version, etag FROM found ORDER BY name")
        while rows := cursor.fetchmany(_PAGE):
            yield rows
