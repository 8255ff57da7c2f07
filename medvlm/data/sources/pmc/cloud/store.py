"""What has been fetched, on disk, shared by all processes of a run and kept for the next one.

    objects/ab/ab12…            files by their md5: what two versions or articles share is there once
    metadata/789/PMC123456789.2.json   an article's metadata as it came, with its ETag
    records/KEY/789/PMC….E.json what a request (license policy, options) made of an article whose planned ETag has the
                                hash E: which files, or why none
    plans/                      which articles a run is about
    traffic.jsonl               requests and bytes, one line for each piece of work

Files are whole or absent: they take their names when they are complete. After a loss of power they may be damaged
all the same, so objects are checked again when they are read, and records that are no JSON count as absent.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medvlm.data.sources.pmc.cloud.http import Traffic
from medvlm.io import disk_errors, stable_hash

_TAIL_BYTES = 8192
_COUNTED = tuple(field.name for field in dataclasses.fields(Traffic))


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """What was decided on one article, and where its files are."""

    planned: str
    """The ETag that the plan named; another one there makes this record void."""
    reason: str = ""
    """Why the article is left out; "" where it is not."""
    detail: str = ""
    version: int = 0
    license_code: str | None = None
    xml: tuple[str, str] = ("", "")
    """Name and md5 of the article's XML."""
    media: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Name -> md5 of the media that were fetched."""
    absent: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    """Name -> reason and detail for media that were not."""
    passed: tuple[tuple[int, str, str], ...] = ()
    """Newer versions that could not be used: version, reason, detail."""
    missing: tuple[str, ...] = ()
    """Addresses of objects that the service did not have; they are asked for again."""


class Store:
    """The folder of a run's fetched files."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def object(self, md5: str) -> Path:
        """Return where the object with this md5 lies or will lie."""
        return self.root / "objects" / md5[:2] / md5

    def holds(self, md5: str) -> bool:
        """Tell whether an object is there."""
        return self.object(md5).is_file()

    def read_object(self, md5: str) -> bytes | None:
        """Return an object; None, and it is removed, where it is damaged or absent."""
        path = self.object(md5)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        if hashlib.md5(data, usedforsecurity=False).hexdigest() == md5:
            return data
        path.unlink(missing_ok=True)
        return None

    def metadata(self, article: str, version: int) -> tuple[str, bytes] | None:
        """Return the ETag and the body of an article's metadata, None where it is not there."""
        try:
            etag, _, body = self._metadata(article, version).read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        return etag.decode("utf-8", "replace"), body

    def put_metadata(self, article: str, version: int, etag: str, body: bytes) -> None:
        """Keep an article's metadata as it came."""
        _write(self._metadata(article, version), etag.encode() + b"\n" + body)

    def _metadata(self, article: str, version: int) -> Path:
        return self.root / "metadata" / article[-3:] / f"{article}.{version}.json"

    def record(self, key: str, article: str, etag: str) -> Record | None:
        """Return what the request `key` made of an article planned with an ETag, None where nothing is known."""
        try:
            said = json.loads(self._record(key, article, etag).read_bytes())
            said["xml"], said["missing"] = tuple(said["xml"]), tuple(said["missing"])
            said["passed"] = tuple((version, reason, detail) for version, reason, detail in said["passed"])
            said["absent"] = {name: tuple(why) for name, why in said["absent"].items()}
            return Record(**said)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def put_record(self, key: str, article: str, record: Record) -> None:
        """Keep what the request `key` made of an article."""
        said = dataclasses.asdict(record)
        _write(self._record(key, article, record.planned), json.dumps(said, sort_keys=True).encode())

    def _record(self, key: str, article: str, etag: str) -> Path:
        return self.root / "records" / key / article[-3:] / f"{article}.{stable_hash(etag)[:16]}.json"

    def log(self, phase: str, traffic: Traffic) -> None:
        """Add a line to the log of traffic; several processes may."""
        line = json.dumps({"phase": phase, **dataclasses.asdict(traffic)}) + "\n"
        self.append("traffic.jsonl", line)

    def append(self, name: str, line: str) -> None:
        """Add a short line to a file of the store; lines of several processes do not mix."""
        with disk_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.root / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                os.write(handle, line.encode())
            finally:
                os.close(handle)

    def tail(self, name: str) -> tuple[list[str], bool]:
        """Return the last whole lines of a file of the store, and whether these are all."""
        try:
            with open(self.root / name, "rb") as file:
                start = max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES)
                file.seek(start)
                lines = file.read().decode("utf-8", "replace").split("\n")[:-1]
        except FileNotFoundError:
            return [], True
        return lines[1:] if start else lines, not start

    def forget(self, name: str) -> None:
        """Remove a file of the store, if it is there."""
        (self.root / name).unlink(missing_ok=True)

    def traffic(self) -> dict[str, Any]:
        """Return the sums of the log: of each phase ("plan", "fetch"), {requests, retries, bytes, objects, ...}."""
        sums: dict[str, Any] = {}
        try:
            lines = (self.root / "traffic.jsonl").read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return sums
        for line in lines:
            try:
                entry = json.loads(line)
                told = {name: entry[name] + 0 for name in _COUNTED}
                phase = sums.setdefault(str(entry["phase"]), dict.fromkeys(told, 0))
            except (ValueError, TypeError, KeyError):
                continue  # half a line, of a run that was killed
            for name, value in told.items():
                phase[name] += value
        return sums


def _write(path: Path, data: bytes) -> None:
    """Write a file that is whole or absent, without waiting for the disk: what it holds can be fetched again."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".part-", dir=path.parent)
        try:
            with open(handle, "wb") as file:
                file.write(data)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
