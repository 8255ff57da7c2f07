"""`prepare`: from a source to a finished data set on disk, resumable at any point and the same bytes every time.

    source.units() -> chunks (.work/, in parallel) -> merge (splits, shards) -> card, manifest -> final names

Where nothing is admitted nothing is written: the error names how many records were read and the commonest reasons.
The work can be shared out: any number of processes with `shard` read chunks, then `merge_shards` does the rest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import os
import platform
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medvlm import __version__
from medvlm.data import cards, engine, request, schema, update
from medvlm.data.chunks import REJECT, Chunk, Plan
from medvlm.data.journal import Journal
from medvlm.data.output import LOG, MANIFEST, REQUEST, TOOL, OutputFolder, read_json, read_manifest
from medvlm.data.request import Request
from medvlm.data.sources.base import Source
from medvlm.data.sources.pictures import NO_FILE
from medvlm.data.splits import DEFAULT_RATIOS, SPLITS, Ratios
from medvlm.data.write import ARTICLES, Merged, merge
from medvlm.errors import InputError
from medvlm.io import disk_errors, sha256_file, stable_hash, write_json
from medvlm.licenses.policy import admit

FIRST_CHARS = 200
"""So much of the first record that was left out is told where all were."""

UPDATE = "update.json"

Advance = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """What, besides the inputs, decides the bytes of a data set."""

    license: str = "commercial"
    """commercial, any, or SPDX ids separated by commas."""
    ratios: Ratios = DEFAULT_RATIOS
    seed: int = 0
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The source's own settings."""
    drop_duplicates: bool = False
    """Leave out samples whose image another group had first, exactly or nearly, or another figure of theirs."""
    split: str = "by-group"
    """One of `splits.WAYS`."""

    def as_json(self) -> dict[str, Any]:
        """Return the settings as the manifest holds them."""
        return {
            "license": self.license,
            "split_ratio": list(self.ratios),
            "seed": self.seed,
            "drop_duplicates": self.drop_duplicates,
            "split": self.split,
            **dict(sorted(self.options.items())),
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What `prepare` did: the manifest, and whether anything had to be done."""

    manifest: dict[str, Any]
    """Empty where only a shard of the work was asked for."""
    out: Path
    up_to_date: bool = False
    chunks_resumed: int = 0
    left: int | None = None
    """After a shard of the work: how many chunks of all shards are not done yet."""
    update: dict[str, int] | None = None
    """Units "added", "changed", "withdrawn" against the data set of the same lineage that lay here."""


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
    engine: str = "local",
    address: str | None = None,
    shard: tuple[int, int] | None = None,
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
        engine: local or ray. The result does not depend on it.
        address: of a Ray cluster.
        shard: (i, n): read every n-th chunk from the i-th on, and leave the rest to others and to `merge_shards`.

    Raises:
        UsageError: the license policy is malformed, or no such engine.
        InputError: bad input, nothing admitted, or `out` holds something else.
        AccessError: the source or the cluster cannot be reached. Chunks that are done are kept for the next run.
        MissingExtraError: Ray is not installed.
        ResourceError: the disk is full or memory ran out. Chunks that are done are kept.
    """
    admit(settings.license, "CC0-1.0", "yes")
    run = _Run(source, settings, command, overwrite, _Reading(workers or cores(), engine, address, advance))
    folder = run.folder(out)
    manifest = folder.current()
    if manifest is not None and (not folder.work.exists() or folder.unfinished()):
        return Outcome(manifest, out, up_to_date=True)
    folder.check(overwrite)
    if shard is not None and manifest is None:
        return _prepare_shard(run, folder, *shard)
    with folder.locked(), disk_errors(out):
        folder.check(overwrite)
        _rescue(folder)
        folder.begin()
        manifest = folder.current()
        if manifest is not None:
            folder.discard()
            return Outcome(manifest, out, up_to_date=True)
        with _told(folder, Journal(out / LOG)) as journal:
            resumed = 0
            if not folder.ready.is_dir():
                resumed = run.read(folder, journal)
                _build(folder, journal)
            return _publish(folder, journal, resumed)


def merge_shards(out: Path) -> Outcome:
    """Make the data set of the chunks that shards of one request have read in `out`; the source is not needed.

    Raises:
        InputError: there is no such work, it is of several requests, or chunks are missing.
        ResourceError: the disk is full.
    """
    work = _work_to_merge(out)
    if work is None:
        manifest = read_manifest(out)
        if manifest is None:
            raise InputError(f"{out}: no work of shards to merge; run medvlm prepare with --shard first")
        return Outcome(manifest, out, up_to_date=True)
    asked, begun = Request.load(work), request.begun(work)
    folder = OutputFolder(out, asked.request, asked.lineage)
    folder.check(asked.replace, alone=False)
    with folder.locked(), disk_errors(out):
        manifest = folder.current()
        if manifest is not None:
            folder.discard()
            return Outcome(manifest, out, up_to_date=True)
        _rescue(folder)
        with _told(folder, Journal(out / LOG)) as journal:
            if not folder.ready.is_dir():
                _check_complete(folder)
                shutil.rmtree(folder.build, ignore_errors=True)
                _build(folder, journal)
            outcome = _publish(folder, journal, 0)
        folder.drop_older(begun)
        return outcome


def _work_to_merge(out: Path) -> Path | None:
    """Return the work folder that `merge_shards` takes: the only one, or the last begun of those that are complete.

    Shards on both sides of a change of the server are of two requests; one of them is completed by running its shards.

    Raises:
        InputError: there are several, and none is complete, or complete ones that have nothing to do with each other.
    """
    found = sorted((path.parent for path in (out / ".work").glob(f"*/{REQUEST}")), key=request.begun)
    if len(found) < 2:
        return found[0] if found else None
    whole = [work for work in found if (work / "ready").is_dir() or not request.missing(work)]
    lineages = {Request.load(work).lineage or work.name for work in whole}
    if len(lineages) == 1:
        return whole[-1]
    shown = whole or found
    told = "; ".join(f"{Request.load(work).command or work.name}: {len(request.missing(work))} left" for work in shown)
    if whole:
        raise InputError(
            f"{out} holds finished chunks of {len(whole)} requests ({told}); run the command of the one you want once "
            "more, without --shard and with --overwrite, which drops the others"
        )
    raise InputError(
        f"{out} holds chunks of {len(found)} requests, or of one before and after its source changed, and none is "
        f"complete ({told}); run all shards of the one you want again, with the same --shard, then merge"
    )


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclasses.dataclass(frozen=True, slots=True)
class _Reading:
    """How chunks are read; nothing of it shows in the result."""

    workers: int
    engine: str
    address: str | None
    advance: Advance


class _Run:
    """A source, and what is asked of it."""

    def __init__(self, source: Source, settings: Settings, command: str, replace: bool, reading: _Reading) -> None:
        engine.check(reading.engine, reading.address)
        self.source, self.command, self.replace, self.reading = source, command, replace, reading
        self.settings = settings.as_json()
        self.inputs = source.describe()
        self.request = request.fingerprint(source.name, self.settings, self.inputs)
        self.lineage = request.lineage(source.name, self.settings, getattr(source, "lineage", None))

    def folder(self, out: Path) -> OutputFolder:
        return OutputFolder(out, self.request, self.lineage)

    def read(self, folder: OutputFolder, journal: Journal, shard: tuple[int, int] = (0, 1)) -> int:
        """Read all chunks of a shard that are not done yet; return how many were done before."""
        units = self.source.units()
        plan = Plan(units, folder.mine, self.settings["license"])
        self._asked(len(units)).save(folder.mine, plan)
        mine = [(number, *chunk) for number, chunk in enumerate(request.chunks(folder.mine))][shard[0] :: shard[1]]
        left = [(number, units) for number, chunk, units in mine if chunk.head() is None]
        total = sum(units for _, _, units in mine)
        done = total - sum(units for _, units in left)
        journal.start(
            request=self.request,
            command=self.command,
            units=total,
            units_done=done,
            chunks=len(mine),
            chunks_done=len(mine) - len(left),
            engine=self.reading.engine,
            workers=self.reading.workers,
            shard=list(shard),
        )
        self.reading.advance(done, total)
        reading = self.reading
        tasks = (plan[number] for number, _ in left)
        for chunk in engine.run(self.source, tasks, len(left), reading.workers, reading.engine, reading.address):
            journal.chunk(chunk)
            done += chunk.units
            reading.advance(done, total)
        return len(mine) - len(left)

    def _asked(self, units: int) -> Request:
        return Request(
            request=self.request,
            lineage=self.lineage,
            source=self.source.name,
            settings=self.settings,
            inputs=self.inputs,
            command=self.command,
            card=self.source.card(),
            units=units,
            replace=self.replace,
        )


def _prepare_shard(run: _Run, folder: OutputFolder, number: int, count: int) -> Outcome:
    """Read the chunks of one shard beside other processes that read the others."""
    with folder.locked(shared=True), disk_errors(folder.path):
        folder.mine.mkdir(exist_ok=True)
        journal = Journal(folder.mine / f"shard-{number:06d}-of-{count:06d}.jsonl")
        try:
            resumed = run.read(folder, journal, (number, count))
        except BaseException as error:
            journal.error(error)
            raise
        journal.add("part")
        left = sum(1 for chunk, _ in request.chunks(folder.mine) if chunk.head() is None)
        return Outcome({}, folder.path, chunks_resumed=resumed, left=left)


@contextlib.contextmanager
def _told(folder: OutputFolder, journal: Journal) -> Iterator[Journal]:
    """Tell the journal of what goes wrong, and clear away what is half-written then."""
    try:
        yield journal
    except BaseException as error:
        # The error that is on its way is the one to tell, also where the log cannot be written.
        with contextlib.suppress(OSError):
            journal.error(error)
        folder.tidy()
        raise


def _check_complete(folder: OutputFolder) -> None:
    missing = request.missing(folder.mine)
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise InputError(
            f"{folder.path}: {len(missing)} chunks are not done yet ({shown}); run the shards that have not ended well "
            "again, with the same --shard"
        )


def _take_logs(folder: OutputFolder, journal: Journal) -> None:
    """Add the logs of the shards to the data set's, since their folder goes."""
    for log in sorted(folder.mine.glob("shard-*.jsonl")):
        with open(log, "rb") as source, open(journal.path, "ab") as target:
            shutil.copyfileobj(source, target)
        log.unlink()


def _build(folder: OutputFolder, journal: Journal) -> None:
    """Merge and describe; leave a whole data set in `folder.ready`."""
    _take_logs(folder, journal)
    asked = Request.load(folder.mine)
    chunks = [chunk for chunk, _ in request.chunks(folder.mine)]
    if not any(_samples(chunk) for chunk in chunks):
        message = _nothing(chunks, asked)
        folder.discard()
        raise InputError(message)
    journal.add("merge", chunks=len(chunks))
    settings = asked.settings
    low, middle, high = settings["split_ratio"]
    try:
        merged = merge(
            chunks,
            folder.build,
            seed=settings["seed"],
            ratios=(low, middle, high),
            drop_duplicates=settings["drop_duplicates"],
            way=settings["split"],
        )
    except InputError:
        # It would be refused again, and must not be in the way of another split.
        folder.discard()
        raise
    manifest = _manifest(asked, merged)
    cards.finish(folder.build, manifest)
    write_json(folder.build / MANIFEST, {**manifest, "files": _plain_files(folder.build)})
    if folder.replaced() is not None and (folder.path / ARTICLES).is_file():
        write_json(folder.mine / UPDATE, update.compare(folder.path / ARTICLES, folder.build / ARTICLES))
    folder.finish()


def _plain_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the files beside the shards, with size and hash."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return {path.name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)} for path in files}


def _publish(folder: OutputFolder, journal: Journal, resumed: int) -> Outcome:
    changes = read_json(folder.mine / UPDATE) or None
    folder.publish()
    manifest = folder.current()
    assert manifest is not None
    journal.add("end", samples=manifest["counts"]["samples"], update=changes)
    return Outcome(manifest, folder.path, chunks_resumed=resumed, update=changes)


def _rescue(folder: OutputFolder) -> None:
    rescued = folder.rescue()
    if rescued is not None:
        Journal(folder.path / LOG).add("rescued", request=rescued["request"], samples=rescued["counts"]["samples"])


def _samples(chunk: Chunk) -> int:
    head = chunk.head()
    assert head is not None
    samples: int = head["samples"]
    return samples


def _nothing(chunks: Sequence[Chunk], asked: Request) -> str:
    """Return the line that says why a data set would be empty."""
    reasons: Counter[str] = Counter()
    first: dict[str, str] | None = None
    for chunk in chunks:
        for kind, record in chunk.notes():
            if kind == REJECT:
                reasons[record["reason"]] += 1
                first = first or record
    if first is None:
        return f"nothing to prepare: {asked.units} units of input hold no figure or record; check --input"
    top = ", ".join(f"{reason} ({count})" for reason, count in _ranked(reasons)[:3])
    license = asked.settings["license"]
    hint = f"; the policy is --license {license}" if any("license" in reason for reason in reasons) else ""
    if hint and license == "commercial":
        hint += " (check the terms yourself and give --license any, or the licenses that you accept)"
    if reasons.get(NO_FILE) and asked.card.get("pictures_from"):
        hint += f"; download {asked.card['pictures_from']}"
    words = " ".join(f"{first['where']}: {first['detail'] or first['reason']}".split())
    shown = words if len(words) <= FIRST_CHARS else f"{words[:FIRST_CHARS]}…"
    return (
        f"nothing to prepare: all {reasons.total()} records of {asked.units} units were left out: {top}{hint}; "
        f"the first is {shown}"
    )


def _ranked(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return the counts, largest first, equal ones by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _packages() -> dict[str, str]:
    """Return the versions of what reads and writes; they are told, and do not belong to the request."""
    names = ("lxml", "pillow", "pyarrow")
    return {**{name: importlib.metadata.version(name) for name in names}, "python": platform.python_version()}


def _manifest(asked: Request, merged: Merged) -> dict[str, Any]:
    return {
        "tool": TOOL,
        "schema": schema.SCHEMA_VERSION,
        "medvlm": __version__,
        "packages": _packages(),
        "request": asked.request,
        "lineage": asked.lineage,
        "fingerprint": stable_hash([(shard.name, shard.sha256) for shard in merged.shards]),
        "split_hash": merged.split_hash,
        "leakage": merged.leakage,
        "source": asked.source,
        "synthetic": bool(asked.card.get("synthetic")),
        "command": asked.command,
        "settings": asked.settings,
        "inputs": asked.inputs,
        "counts": {
            "units": merged.units,
            "units_by_status": dict(_ranked(merged.statuses)),
            "read": merged.read,
            "samples": merged.samples.total(),
            "groups": merged.all_groups,
            "duplicate_images": merged.duplicate_images,
            "near_duplicates": merged.near_duplicates,
            "split": {split: merged.samples[split] for split in SPLITS if merged.samples[split]},
            "groups_by_split": {split: merged.groups[split] for split in SPLITS if merged.groups[split]},
            **{name: dict(_ranked(counter)) for name, counter in merged.counts.items()},
        },
        "licenses": dict(_ranked(merged.counts["license"])),
        "training_licenses": dict(_ranked(merged.training)),
        "drops": dict(_ranked(merged.drops)),
        "shards": [dataclasses.asdict(shard) for shard in merged.shards],
        "card": asked.card,
    }
