"""`prepare`: from a source to a finished data set on disk, resumable at any point and the same bytes every time.

    source.units() -> chunks (.work/, in parallel) -> merge (splits, shards) -> card, manifest -> final names

Where nothing is admitted nothing is written: the error names how many records were read and the commonest reasons.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medvlm import __version__
from medvlm.data import cards, schema
from medvlm.data.chunks import Advance, Task, plan, read_all
from medvlm.data.output import MANIFEST, TOOL, OutputFolder
from medvlm.data.sources.base import Source
from medvlm.data.splits import DEFAULT_RATIOS, SPLITS, Ratios
from medvlm.data.write import Merged, merge
from medvlm.errors import InputError
from medvlm.io import disk_errors, stable_hash, write_json, write_text
from medvlm.licenses.policy import admit, parse_policy

FIRST_CHARS = 200
"""So much of the first record that was left out is told where all were."""


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """What, besides the inputs, decides the bytes of a data set."""

    license: str = "commercial"
    """commercial, any, or SPDX ids separated by commas."""
    ratios: Ratios = DEFAULT_RATIOS
    seed: int = 0
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The source's own settings."""

    def as_json(self) -> dict[str, Any]:
        """Return the settings as the manifest holds them."""
        return {
            "license": self.license,
            "split_ratio": list(self.ratios),
            "seed": self.seed,
            **dict(sorted(self.options.items())),
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What `prepare` did: the manifest, and whether anything had to be done."""

    manifest: dict[str, Any]
    out: Path
    up_to_date: bool = False
    chunks_resumed: int = 0


def _ignore(done: int, total: int) -> None:
    return


def prepare(
    source: Source,
    out: Path,
    settings: Settings,
    *,
    command: str = "",
    workers: int = 0,
    overwrite: bool = False,
    advance: Advance = _ignore,
) -> Outcome:
    """Build the data set of `source` in `out`, go on where an earlier run stopped, or find it up to date.

    Args:
        source: picklable, as it is sent to worker processes.
        out: the folder; made if absent.
        settings: license policy, split, the source's own options.
        command: the command line, for the card and the manifest.
        workers: processes; 0 means one for each core. The result does not depend on it.
        overwrite: replace another data set of ours in `out`.
        advance: told (units done, units in all).

    Raises:
        UsageError: the license policy is malformed.
        InputError: bad input, nothing admitted, or `out` holds something else.
        ResourceError: the disk is full or memory ran out. Chunks that are done are kept for the next run.
    """
    admit(settings.license, "CC0-1.0", "yes")
    inputs = source.describe()
    folder = OutputFolder(out, _request(source, settings, inputs))
    manifest = folder.current()
    if manifest is not None and (not folder.work.exists() or folder.unfinished()):
        return Outcome(manifest, out, up_to_date=True)
    folder.check(overwrite)
    with folder.locked(), disk_errors(out):
        folder.check(overwrite)
        folder.begin()
        manifest = folder.current()
        if manifest is not None:
            folder.discard()
            return Outcome(manifest, out, up_to_date=True)
        resumed = 0
        try:
            if not folder.ready.is_dir():
                resumed = _build(source, folder, settings, inputs, command, workers or cores(), advance)
            folder.publish()
        except BaseException:
            folder.tidy()
            raise
    manifest = folder.current()
    assert manifest is not None
    return Outcome(manifest, out, chunks_resumed=resumed)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _request(source: Source, settings: Settings, inputs: list[dict[str, Any]]) -> str:
    """Return the hash of what decides the result: not where the inputs lie, nor how the request is spelled."""
    content = [{key: value for key, value in item.items() if key != "path"} for item in inputs]
    allowed = parse_policy(settings.license)
    policy = allowed if isinstance(allowed, str) else sorted(allowed)
    return stable_hash(
        {
            "schema": schema.SCHEMA_VERSION,
            "medvlm": __version__,
            "source": source.name,
            "settings": {**settings.as_json(), "license": policy},
            "inputs": sorted(content, key=stable_hash),
        }
    )


def _build(
    source: Source,
    folder: OutputFolder,
    settings: Settings,
    inputs: list[dict[str, Any]],
    command: str,
    workers: int,
    advance: Advance,
) -> int:
    """Read, merge and describe; leave a whole data set in `folder.ready`. Return the number of chunks found done."""
    units = source.units()
    tasks = plan(units, folder.mine, settings.license)
    resumed = read_all(source, tasks, workers, advance)
    if not any(_admitted(task) for task in tasks):
        message = _nothing(tasks, len(units), settings.license)
        folder.discard()
        raise InputError(message)
    merged = merge(tasks, folder.build, seed=settings.seed, ratios=settings.ratios)
    manifest = _manifest(source, folder.fingerprint, settings, inputs, command, len(units), merged)
    write_text(folder.build / "README.md", cards.render(manifest))
    write_json(folder.build / MANIFEST, manifest)
    folder.finish()
    return resumed


def _note(task: Task) -> dict[str, Any]:
    note: dict[str, Any] = json.loads(task.note.read_text(encoding="utf-8"))
    return note


def _admitted(task: Task) -> bool:
    note = _note(task)
    return bool(note["read"] > len(note["rejects"]))


def _nothing(tasks: list[Task], units: int, license: str) -> str:
    """Return the line that says why a data set would be empty."""
    rejects = [reject for task in tasks for reject in _note(task)["rejects"]]
    reasons = Counter(reject["reason"] for reject in rejects)
    if not rejects:
        return f"nothing to prepare: {units} units of input hold no figure or record; check --input"
    top = ", ".join(f"{reason} ({count})" for reason, count in _ranked(reasons)[:3])
    hint = f"; the policy is --license {license}" if any("license" in reason for reason in reasons) else ""
    first = " ".join(f"{rejects[0]['where']}: {rejects[0]['detail'] or rejects[0]['reason']}".split())
    shown = first if len(first) <= FIRST_CHARS else f"{first[:FIRST_CHARS]}…"
    return (
        f"nothing to prepare: all {reasons.total()} records of {units} units were left out: {top}{hint}; "
        f"the first is {shown}"
    )


def _ranked(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return the counts, largest first, equal ones by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _packages() -> dict[str, str]:
    """Return the versions of what reads and writes; they are told, and do not belong to the request."""
    names = ("lxml", "pillow", "pyarrow")
    return {**{name: importlib.metadata.version(name) for name in names}, "python": platform.python_version()}


def _manifest(
    source: Source,
    request: str,
    settings: Settings,
    inputs: list[dict[str, Any]],
    command: str,
    units: int,
    merged: Merged,
) -> dict[str, Any]:
    card = source.card()
    return {
        "tool": TOOL,
        "schema": schema.SCHEMA_VERSION,
        "medvlm": __version__,
        "packages": _packages(),
        "request": request,
        "fingerprint": stable_hash([(shard.name, shard.sha256) for shard in merged.shards]),
        "split_hash": merged.split_hash,
        "source": source.name,
        "synthetic": bool(card.get("synthetic")),
        "command": command,
        "settings": settings.as_json(),
        "inputs": inputs,
        "counts": {
            "units": units,
            "read": merged.read,
            "samples": merged.samples.total(),
            "groups": merged.groups.total(),
            "duplicate_images": merged.duplicate_images,
            "split": {split: merged.samples[split] for split in SPLITS if merged.samples[split]},
            "groups_by_split": {split: merged.groups[split] for split in SPLITS if merged.groups[split]},
            **{name: dict(_ranked(counter)) for name, counter in merged.counts.items()},
        },
        "licenses": dict(_ranked(merged.counts["license"])),
        "drops": dict(_ranked(merged.drops)),
        "shards": [dataclasses.asdict(shard) for shard in merged.shards],
        "card": card,
    }
