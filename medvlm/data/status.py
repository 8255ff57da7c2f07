"""How far a `prepare` is, read from its folder while it runs or later: what is done, left and failed, and how fast."""

from __future__ import annotations

import dataclasses
import datetime
import os
import platform
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medvlm.data import request
from medvlm.data.journal import LAST, events
from medvlm.data.output import LOG, REQUEST, read_json, read_manifest
from medvlm.errors import InputError

RECENT_S = 300
"""The speed is that of the chunks that ended in the last five minutes, or of the last ones where none did."""

SILENT_S = 1800
"""A run on another machine that has told nothing for so long is taken for stopped."""

TOP = 5


@dataclasses.dataclass(slots=True)
class Status:
    """What is known of a data set's folder. Times in seconds, `updated` since 1970."""

    out: Path
    state: str
    """"nothing", "running", "stopped", "finished"."""
    command: str = ""
    stage: str = ""
    """Of a run: "reading" or "merging"."""
    chunks: int = 0
    chunks_done: int = 0
    units: int = 0
    units_done: int = 0
    samples: int = 0
    bytes: int = 0
    speed: float | None = None
    """Units a second."""
    left_s: float | None = None
    """Until all units are read, at that speed."""
    runs: int = 0
    """Processes at work."""
    traffic: dict[str, float] = dataclasses.field(default_factory=dict)
    drops: dict[str, int] = dataclasses.field(default_factory=dict)
    """Records left out, by reason."""
    rejected: int = 0
    """Units of which nothing became a sample."""
    errors: list[str] = dataclasses.field(default_factory=list)
    """How earlier runs ended before their end, the last first."""
    beside: int | None = None
    """Samples of a finished data set that lies there, while this is work on a newer or another one."""
    update: dict[str, int] | None = None
    updated: float | None = None


def read(out: Path) -> Status:
    """Return how far the data set in `out` is; safe while it is being made.

    Raises:
        InputError: `out` is no folder.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, not the folder of a data set")
    work = _work(out)
    log = _Log(list(events(out / LOG)) if work is None else _logged(out, work))
    manifest = read_manifest(out)
    if work is not None and (manifest is None or log.running or not _is_of(work, manifest)):
        status = _in_work(out, work, log)
        status.beside = None if manifest is None else manifest["counts"]["samples"]
        return status
    if manifest is None:
        return Status(out, "nothing")
    counts = manifest["counts"]
    status = Status(out, "finished", manifest["command"], units=counts["units"], units_done=counts["units"])
    status.samples, status.drops = counts["samples"], manifest["drops"]
    status.rejected = counts.get("units_by_status", {}).get("rejected", 0)
    status.bytes = sum(shard["bytes"] for shard in manifest["shards"])
    log.tell(status, manifest["request"])
    return status


def _work(out: Path) -> Path | None:
    """Return the work folder that was begun last."""
    found = [path for path in (out / ".work").glob(f"*/{REQUEST}") if path.is_file()]
    return max(found, key=_begun).parent if found else None


def _is_of(work: Path, manifest: dict[str, Any]) -> bool:
    """Whether work is what the data set was made of: it is left where a run was killed at its very end."""
    return read_json(work / REQUEST).get("request") == manifest.get("request")


def _begun(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _logged(out: Path, work: Path) -> list[dict[str, Any]]:
    logs = [out / LOG, *sorted(work.glob("shard-*.jsonl"))]
    # By file, then by time: what one process tells is in order already.
    return [event for log in logs for event in events(log)]


def _in_work(out: Path, work: Path, log: _Log) -> Status:
    asked = read_json(work / REQUEST)
    status = Status(out, "running" if log.running else "stopped", str(asked.get("command", "")), "reading")
    drops: Counter[str] = Counter()
    try:
        chunks = request.chunks(work)
    except OSError:
        # The run ended while its folder was looked at.
        chunks = []
    for chunk, units in chunks:
        status.chunks += 1
        status.units += units
        head = chunk.head()
        if head is None:
            continue
        status.chunks_done += 1
        status.units_done += units
        status.samples += head["samples"]
        status.bytes += head["bytes"]
        status.rejected += head["rejected"]
        drops.update(head["drops"])
    status.drops = dict(sorted(drops.items(), key=lambda item: (-item[1], item[0])))
    if status.chunks_done == status.chunks:
        status.stage = "merging"
    log.tell(status, str(asked.get("request")))
    if log.running and status.speed:
        status.left_s = (status.units - status.units_done) / status.speed
    return status


class _Log:
    """What the logs tell, each run's events in order."""

    def __init__(self, told: list[dict[str, Any]]) -> None:
        self.told = told
        open_runs: dict[tuple[Any, Any], dict[str, Any]] = {}
        last: dict[tuple[Any, Any], float] = {}
        run: tuple[Any, Any] = (None, None)
        for event in told:
            if event["event"] == "start":
                run = (event.get("machine"), event.get("process"))
                open_runs[run] = event
            elif event["event"] in LAST:
                open_runs.pop(run, None)
            last[run] = max(last.get(run, 0.0), float(event.get("time", 0)))
        alive = [float(event.get("time", 0)) for run, event in open_runs.items() if _alive(*run, last[run])]
        self.running, self.since = len(alive), min(alive, default=0.0)

    def tell(self, status: Status, asked: str) -> None:
        """Add speed, traffic, errors and the last update of one request."""
        current = ""
        recent: list[tuple[float, float, int]] = []
        traffic: Counter[str] = Counter()
        for event in self.told:
            current = str(event.get("request", current)) if event["event"] == "start" else current
            if current != asked:
                continue
            status.updated = max(status.updated or 0.0, float(event.get("time", 0)))
            if event["event"] == "chunk":
                recent.append((float(event["time"]), float(event["seconds"]), int(event["units"])))
                traffic.update({name: value for name, value in (event.get("traffic") or {}).items() if value})
            elif event["event"] == "error":
                status.errors.insert(0, f"{event.get('error')}: {event.get('text')}")
            elif event["event"] == "end":
                status.update = event.get("update")
        status.errors = status.errors[:TOP]
        status.traffic, status.runs = dict(traffic), self.running
        # What an earlier run did hours ago says nothing of this one.
        recent = [chunk for chunk in recent if chunk[0] >= self.since]
        status.speed = _speed(recent, (status.updated or 0.0) if not self.running else time.time())


def _alive(machine: Any, process: Any, last: float) -> bool:
    if machine != platform.node():
        return time.time() - last < SILENT_S
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (OSError, TypeError, ValueError):
        pass
    return True


def _speed(ended: Sequence[tuple[float, float, int]], now: float) -> float | None:
    """Return units a second over the last minutes, from (when a chunk ended, seconds that it took, its units).

    The minutes reach back to where the first of those chunks began: chunks may take longer than they.
    """
    if not ended:
        return None
    since = min(now, max(at for at, _, _ in ended)) - RECENT_S
    recent = [chunk for chunk in ended if chunk[0] >= since]
    begun = min(at - seconds for at, seconds, _ in recent)
    return sum(units for _, _, units in recent) / max(now - begun, 1e-3)


def render(status: Status) -> list[str]:
    """Return the lines that `medvlm prepare status` prints."""
    if status.state == "nothing":
        return [f"{status.out}: no data set and no work here"]
    lines = [f"{status.out}: {_state(status)}"]
    if status.beside is not None:
        lines.append(
            f"  lies here  a finished data set of {status.beside:,} samples; this is work on a newer or another one"
        )
    if status.command:
        lines.append(f"  command    {status.command}")
    if status.state == "finished":
        lines.append(f"  done       {status.units:,} units, {status.samples:,} samples, {_size(status.bytes)}")
    else:
        lines.append(
            f"  done       {status.units_done:,} of {status.units:,} units "
            f"({status.chunks_done:,} of {status.chunks:,} chunks), {status.samples:,} samples, {_size(status.bytes)}"
        )
        lines.append(f"  left       {status.units - status.units_done:,} units")
    if status.rejected:
        lines.append(f"  empty      {status.rejected:,} units gave no sample")
    for reason, count in list(status.drops.items())[:TOP]:
        lines.append(f"  left out   {reason}: {count:,}")
    if status.speed is not None:
        lines.append(f"  speed      {status.speed:,.1f} units/s")
    if status.traffic:
        lines.append("  network    " + ", ".join(f"{value:,.0f} {name}" for name, value in status.traffic.items()))
    if status.left_s is not None:
        lines.append(f"  finished   in about {datetime.timedelta(seconds=round(status.left_s))}, then the merge")
    if status.update:
        lines.append("  update     " + ", ".join(f"{count:,} {what}" for what, count in status.update.items()))
    lines += [f"  error      {error}" for error in (status.errors if status.state != "finished" else ())]
    return lines


def _state(status: Status) -> str:
    if status.state == "running":
        runs = f" in {status.runs} processes" if status.runs > 1 else ""
        return f"running{runs}, {status.stage}"
    if status.state == "stopped":
        return "stopped; the same command goes on where it stopped"
    return "finished"


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
