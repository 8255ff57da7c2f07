"""Prepared data sets as a source: units are some row groups of a shard, or a slice of what a part has left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from medvlm.data import credits
from medvlm.data.inspect.check import sound
from medvlm.data.inspect.folder import PICTURES, DataSet, open_set, readable
from medvlm.data.merging import notes, plan
from medvlm.data.sample import COLUMNS, COMMERCIAL_USE, Credit, Image, Reject, Sample
from medvlm.data.sources.base import Unit
from medvlm.data.write import REJECTS, Shard
from medvlm.errors import UsageError
from medvlm.io import stable_hash
from medvlm.licenses.expressions import commercial_use, most_restrictive

ROW_GROUPS = 5
"""Row groups of a unit: at most 500 rows, or about 160 MB."""

REPEATED = "same sample in another part"

_OWN = ("folder", "jsonl")
"""Sources that name a group after the picture's file where no column tells the patient."""

_BESIDE = (credits.NAME, REJECTS)


class MergedSource:
    """Data sets that `medvlm prepare` made, of this or an older schema, one after the other.

    Args:
        inputs: their folders, at least two. Of each, what its files and footers promise is checked.

    Raises:
        InputError: one is no data set, or not as its manifest says.
        UsageError: fewer than two, or one twice.
    """

    name = "merged"

    def __init__(self, inputs: Sequence[Path | str]) -> None:
        paths = [Path(path) for path in inputs]
        if len({path.resolve() for path in paths}) < len(paths):
            raise UsageError("a data set is named twice; name each once")
        if len(paths) < 2:
            raise UsageError("medvlm data merge takes at least two data sets")
        self.parts = [sound(open_set(path)) for path in paths]
        self.labels = _labels(paths)
        # Not the label: its number changes with what a part is merged with.
        self._owners = [
            f"{_name(path)}-{str(part.manifest['fingerprint'])[:8]}"
            for path, part in zip(paths, self.parts, strict=True)
        ]
        self._plan: plan.Plan | None = None
        self._credits: dict[int, notes.Credits] = {}

    @property
    def plan(self) -> plan.Plan:
        """What becomes of samples whose id is in several parts."""
        if self._plan is None:
            self._plan = plan.make(self.parts, self.labels)
        return self._plan

    def distinct(self, unit: Unit) -> bool:
        """Whether a unit's pictures differ in little on purpose, as phantoms do, and are no near duplicates for it."""
        return bool(self.parts[int(unit.locator[0])].manifest.get("synthetic"))

    def side_of(self, unit: Unit) -> str | None:
        """Return the split that a unit's samples have in their part; None for what was left out."""
        number, name, *_ = unit.locator
        return next((shard.split for shard in self.parts[int(number)].shards if shard.name == name), None)

    def describe(self) -> list[dict[str, Any]]:
        """Return path, hash and size of each part: of its samples, its credits and what it left out."""
        entries = []
        for part in self.parts:
            files = part.manifest.get("files")
            listed = files if isinstance(files, dict) else {}
            beside = {name: listed[name] for name in _BESIDE if name in listed}
            told = stable_hash({"fingerprint": part.manifest["fingerprint"], "beside": beside})
            size = sum(shard.bytes for shard in part.shards)
            entries.append({"path": str(part.path), "sha256": told, "bytes": size})
        return entries

    def units(self) -> list[Unit]:
        """Return the units in the order of the parts.

        Raises:
            InputError: a shard or the attribution of a part cannot be read.
        """
        self._plan = self.plan
        self._credits = {number: notes.Credits(part.path / credits.NAME) for number, part in enumerate(self.parts)}
        width = len(str(len(self.parts)))
        units = []
        for number, (part, label) in enumerate(zip(self.parts, self.labels, strict=True)):
            # The number keeps the parts in their order.
            name = f"{number + 1:0{width}}-{label}"
            for shard in part.shards:
                with readable(part.path / shard.name), pq.ParquetFile(part.path / shard.name) as file:
                    groups = file.num_row_groups
                for first in range(0, groups, ROW_GROUPS):
                    locator = (str(number), shard.name, str(first))
                    units.append(Unit(f"{name}/{shard.name} {first:06}", locator, shard.sha256))
            for start, stop in notes.slices(part.path / REJECTS):
                units.append(Unit(f"{name}/{REJECTS} {start:012}", (str(number), REJECTS, str(start), str(stop))))
        return sorted(units, key=lambda unit: unit.name)

    def prefetch(self, units: Sequence[Unit]) -> None:
        """Do nothing: the parts lie on disk."""

    def read(self, unit: Unit) -> Iterator[Sample | Reject | Credit]:
        """Yield the samples of some row groups with their credits, or rejects of a part.

        Raises:
            InputError: the shard cannot be read any more.
        """
        number, name, *places = unit.locator
        at = int(number)
        if name == REJECTS:
            path = self.parts[at].path / REJECTS
            yield from notes.rejects(path, int(places[0]), int(places[1]), self.labels[at])
            return
        shard = next(shard for shard in self.parts[at].shards if shard.name == name)
        groups: dict[str, str] = {}
        for item in self._samples(at, shard, int(places[0])):
            if isinstance(item, Sample):
                own, item.group = item.group, self._group(item, at)
                groups[own] = item.group
            yield item
        for credit in self._credits[at].of(iter(groups)):
            yield dataclasses.replace(credit, group=groups[credit.group])

    def _samples(self, part: int, shard: Shard, first: int) -> Iterator[Sample | Reject]:
        repeated = set(self.plan.repeated.get((part, shard.name), ()))
        renamed = set(self.plan.renamed.get((part, shard.name), ()))
        for row, record in _rows(self.parts[part], shard, first):
            if row in repeated:
                yield Reject(self.name, f"{self.labels[part]}: {record['id']}", REPEATED)
                continue
            prefix = f"{self.plan.prefixes[part]}/" if row in renamed else ""
            yield _sample({**record, "id": f"{prefix}{record['id']}"})

    def _group(self, sample: Sample, part: int) -> str:
        """Return the group of a sample; where it is but the name of one's own file, that of another part is another.

        The part's fingerprint tells them apart, also where both come out of merged sets and had one name.
        """
        manifest = self.parts[part].manifest
        columns = manifest["settings"].get("columns")
        named = manifest["source"] in _OWN and not (isinstance(columns, dict) and columns.get("group"))
        return f"{self._owners[part]}/{sample.group}" if named and sample.group == sample.figure_id else sample.group

    def card(self) -> dict[str, Any]:
        """Return the facts for the dataset card: what the parts are, with their citations and known problems."""
        told = [_told(part, label) for part, label in zip(self.parts, self.labels, strict=True)]
        cards = [part.manifest["card"] for part in self.parts]
        return {
            "title": "Merged: " + " + ".join(part.title for part in self.parts),
            "description": f"{len(told)} data sets as one:\n\n" + "\n".join(map(_line, told)),
            "citation": list(dict.fromkeys(line for card in cards for line in _texts(card.get("citation")))),
            "known_problems": [
                f"{part.title}: {line}"
                for part, card in zip(self.parts, cards, strict=True)
                for line in _texts(card.get("known_problems"))
            ],
            "synthetic": all(one["synthetic"] for one in told),
            "parts": told,
            "renamed": sum(map(len, self.plan.renamed.values())),
        }


def _labels(paths: Sequence[Path]) -> list[str]:
    """Return a short name for each part: its folder's, numbered where several have the same."""
    return plan.unused([_name(path) for path in paths], ())


def _name(path: Path) -> str:
    return "_".join(path.resolve().name.split()) or "part"


def _rows(part: DataSet, shard: Shard, first: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number of the row in its shard, row) of `ROW_GROUPS` row groups from `first` on."""
    path = part.path / shard.name
    with readable(path):
        file = pq.ParquetFile(path)
    with file:
        metadata = file.metadata
        row = sum(metadata.row_group(number).num_rows for number in range(first))
        chosen = list(range(first, min(first + ROW_GROUPS, file.num_row_groups)))
        names = [name for name in COLUMNS if name in file.schema_arrow.names]
        empty: dict[str, Any] = dict.fromkeys(COLUMNS)
        batches = file.iter_batches(PICTURES, row_groups=chosen, columns=names)
        while True:
            with readable(path):
                batch = next(batches, None)
                if batch is None:
                    return
                batch.validate(full=True)
            for record in batch.to_pylist():
                yield row, {**empty, **record}
                row += 1


def _sample(record: dict[str, Any]) -> Sample:
    """Return a stored row as the record it was; which picture repeats another is found anew among all parts."""
    row = dict(record)
    image = _image(row.pop("image"))
    more = [_image(picture) for picture in row.pop("more_images") or []]
    texts = ("id", "task", "prompt", "target", "source", "group", "file_name", "sha256")
    row |= {name: row[name] or "" for name in texts}
    row |= {"mentions": row["mentions"] or [], "third_party": bool(row["third_party"]), "duplicate_of": None}
    stored = row["commercial_use"] if row["commercial_use"] in COMMERCIAL_USE else "unknown"
    row["commercial_use"] = most_restrictive([stored, commercial_use(row["license"])])
    return Sample(image=image, more_images=more, **row)


def _image(stored: dict[str, Any] | None) -> Image:
    found = stored or {}
    return Image(found.get("bytes") or b"", found.get("path") or "")


def _told(part: DataSet, label: str) -> dict[str, Any]:
    manifest = part.manifest
    return {
        "name": label,
        "title": part.title,
        "source": manifest.get("source"),
        "samples": sum(shard.rows for shard in part.shards),
        "licenses": manifest["licenses"],
        "synthetic": bool(manifest.get("synthetic")),
        "fingerprint": manifest["fingerprint"],
        "split_hash": manifest.get("split_hash"),
        "command": manifest.get("command"),
    }


def _line(told: dict[str, Any]) -> str:
    licenses = ", ".join(f"{name} {count:,}" for name, count in told["licenses"].items())
    kind = ", synthetic" if told["synthetic"] else ""
    return (
        f"- **{told['title']}** (`{told['name']}`{kind}): {told['samples']:,} samples; {licenses}; `{told['command']}`"
    )


def _texts(value: Any) -> list[str]:
    return [] if not value else [str(line) for line in (value if isinstance(value, list) else [value])]
