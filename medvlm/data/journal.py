"""`log.jsonl`: what `prepare` did and when, one JSON object a line, only ever added to; no part of the data set.

`start` (request, units, chunks, engine, process, ...), `chunk` (name, units, samples, bytes, seconds, traffic),
then `merge`, and at last `end` (samples, update), `part` (a shard of the work is done) or `error` (class, text).
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medvlm.data.chunks import Done
from medvlm.data.output import TOOL

LAST = ("end", "part", "error")
"""Events after which a run writes no more."""


class Journal:
    """Adds events to a log. Each is written at once and whole, so that a killed run leaves at most half a line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, event: str, **facts: Any) -> None:
        """Append one event with the time (seconds since 1970)."""
        record = {"event": event, "time": round(time.time(), 3), **facts}
        with open(self.path, "ab+") as file:
            size = file.seek(0, os.SEEK_END)
            if not size:
                # By this the log is known as ours.
                record["tool"] = TOOL
            line = json.dumps(record, ensure_ascii=False)
            if size and file.seek(size - 1) and file.read(1) != b"\n":
                line = f"\n{line}"
            file.write(f"{line}\n".encode("utf-8", "backslashreplace"))

    def start(self, **facts: Any) -> None:
        """Append the event that a run begins."""
        self.add("start", process=os.getpid(), machine=platform.node(), **facts)

    def chunk(self, done: Done) -> None:
        """Append the event that a chunk is done."""
        facts = dataclasses.asdict(done)
        self.add("chunk", **{**facts, "seconds": round(done.seconds, 3)})

    def error(self, error: BaseException) -> None:
        """Append the event that a run ends before its end."""
        interrupted = isinstance(error, KeyboardInterrupt)
        self.add("error", error=type(error).__name__, text="interrupted" if interrupted else str(error)[:500])


def events(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of a log; half-written lines are passed over."""
    if not path.is_file():
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and isinstance(event.get("event"), str):
                yield event
