"""`request.json` of the work folder: all that the merge needs to know besides the chunks, and how the chunks are named.

It lets `merge` run on a machine that has no access to the source.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medvlm import __version__
from medvlm.data import schema
from medvlm.data.chunks import Chunk, Task
from medvlm.data.output import REQUEST
from medvlm.io import atomic_write, stable_hash, write_json
from medvlm.licenses.policy import parse_policy

CHUNKS = "chunks.tsv"


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """A data set that is asked for."""

    request: str
    """Its fingerprint."""
    lineage: str | None
    source: str
    settings: dict[str, Any]
    inputs: list[dict[str, Any]]
    command: str
    card: dict[str, Any]
    units: int
    replace: bool
    """Whether another data set may give way to this one."""

    def save(self, folder: Path, tasks: Sequence[Task]) -> None:
        """Write the request and the names of its chunks into the work folder."""
        with atomic_write(folder / CHUNKS) as file:
            for task in tasks:
                file.write(f"{task.name}\t{len(task.units)}\n")
        write_json(folder / REQUEST, dataclasses.asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Request:
        """Return the request of a work folder."""
        return cls(**json.loads((folder / REQUEST).read_text(encoding="utf-8")))


def chunks(folder: Path) -> list[tuple[Chunk, int]]:
    """Return all chunks of a work folder, done or not, with their numbers of units."""
    lines = (line.split("\t") for line in (folder / CHUNKS).read_text(encoding="utf-8").splitlines())
    return [(Chunk(str(folder / name)), int(units)) for name, units in lines]


def missing(folder: Path) -> list[str]:
    """Return the names of the chunks of a work folder that are not done."""
    return [chunk.name for chunk, _ in chunks(folder) if chunk.head() is None]


def begun(folder: Path) -> float:
    """Return when the last run of a work folder's request began, in seconds since 1970; 0 where nothing tells."""
    try:
        return (folder / REQUEST).stat().st_mtime
    except OSError:
        return 0.0


def fingerprint(source: str, settings: Mapping[str, Any], inputs: list[dict[str, Any]]) -> str:
    """Return the hash of what decides the result: not where the inputs lie, nor how the request is spelled.

    An input's "name" below the folder that was given is of the result; its "path" is not.
    """
    content = [{key: value for key, value in item.items() if key != "path"} for item in inputs]
    return stable_hash(
        {
            "schema": schema.SCHEMA_VERSION,
            "medvlm": __version__,
            "source": source,
            "settings": _spelled(settings),
            "inputs": sorted(content, key=stable_hash),
        }
    )


def lineage(source: str, settings: Mapping[str, Any], selection: str | None) -> str | None:
    """Return the hash of what was asked for, whatever the source answers at the time, or None where it tells none."""
    if selection is None:
        return None
    return stable_hash({"source": source, "settings": _spelled(settings), "selection": selection})


def _spelled(settings: Mapping[str, Any]) -> dict[str, Any]:
    allowed = parse_policy(settings["license"])
    return {**settings, "license": allowed if isinstance(allowed, str) else sorted(allowed)}
