"""Whether every row of a data set keeps the promises of the record and of its manifest; all pictures are decoded.

Memory: about 100 bytes a row, and one batch with its pictures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from medvlm.data.inspect.folder import PICTURES, DataSet
from medvlm.data.inspect.keys import WIDTH, Keys
from medvlm.data.look import PictureError, examine
from medvlm.data.output import MANIFEST
from medvlm.data.sample import COMMERCIAL_USE, TASKS
from medvlm.data.splits import OF_PARTS, SPLITS, WAYS
from medvlm.data.write import COUNTED, NOT_STATED
from medvlm.errors import UsageError
from medvlm.io import sha256_bytes
from medvlm.licenses.expressions import commercial_use, most_restrictive
from medvlm.licenses.policy import admit

_KNOWN = 1 << 16
"""So many pictures' hashes are remembered, lest one that many samples share is decoded for each."""

_TEXTS = ("id", "group", "task", "prompt", "target", "sha256", "license", "commercial_use")
_NAMES = ("official_split", "duplicate_of")
_READ = tuple(dict.fromkeys((*_TEXTS, *_NAMES, *COUNTED, "image", "more_images")))

Advance = Callable[[int, int], None]


class Findings:
    """Broken promises by kind: how often, and the first of each kind."""

    def __init__(self) -> None:
        self._found: dict[str, list[Any]] = {}

    def add(self, what: str, where: str, detail: str = "") -> None:
        """Count one more of a kind."""
        entry = self._found.setdefault(what, [0, f"{where}: {detail}" if detail else where])
        entry[0] += 1

    def lines(self) -> Iterator[str]:
        """Yield one line for each kind."""
        for what, (count, first) in sorted(self._found.items()):
            yield f"{what}: {count} (the first: {' '.join(first.split())[:200]})"


class RowCheck:
    """One reading of all rows. `broken` are promises that are not kept, `notes` what one should know besides."""

    def __init__(self, data: DataSet, advance: Advance) -> None:
        self.data, self._advance = data, advance
        self.notes: list[str] = []
        self._found = Findings()
        self._ids, self._groups, self._pictures = Keys(), Keys(), Keys()
        self._shown, self._originals = Keys(), Keys()
        self._counts: dict[str, Counter[str]] = {name: Counter() for name in COUNTED}
        self._sound: set[str] = set()
        self._unstated = 0

    def broken(self) -> Iterator[str]:
        """Read everything and yield one line for each kind of broken promise.

        Raises:
            InputError: a shard cannot be read.
        """
        done, total = 0, sum(shard.rows for shard in self.data.shards)
        for shard, batch in self.data.batches(_READ, rows=PICTURES):
            for row in batch.to_pylist():
                self._row(row, shard.split)
            done += batch.num_rows
            self._advance(done, total)
        yield from self._found.lines()
        yield from self._whole()
        if self._unstated:
            self.notes.append(f"{self._unstated} samples state no license")

    def _row(self, row: Mapping[str, Any], split: str) -> None:
        name = str(row["id"])
        self._ids.add(name, split)
        self._groups.add(row["group"] or "", split)
        if row["duplicate_of"] is not None:
            self._originals.add(row["duplicate_of"], split)
        for problem in _faults(row):
            self._found.add(problem, name)
        self._license(row, name)
        views = row["more_images"] or []
        shown = self._picture(row["image"] or {}, name, split)
        self._shown.add_key(bytes.fromhex(shown)[:WIDTH], split)
        if row["sha256"] != shown:
            self._found.add("sha256 is not that of the picture", name)
        for picture in views:
            self._picture(picture or {}, name, split)
        for column, counter in self._counts.items():
            value = row[column]
            counter[("yes" if value else "no") if isinstance(value, bool) else _label(value)] += 1

    def _license(self, row: Mapping[str, Any], name: str) -> None:
        self._unstated += not row["license"]
        policy = str(self.data.manifest["settings"].get("license", "any"))
        try:
            reason = admit(policy, row["license"], row["commercial_use"] or "unknown")
        except UsageError:
            self._found.add(f"{MANIFEST} holds no license policy", policy)
            return
        if reason:
            self._found.add(f"not admitted by --license {policy}", name, f"{reason}: {row['license']}")

    def _picture(self, picture: Mapping[str, Any], name: str, split: str) -> str:
        """Look at one picture, and return its hash."""
        content = picture.get("bytes") or b""
        sha256 = sha256_bytes(content)
        self._pictures.add(sha256, split)
        if sha256 in self._sound:
            return sha256
        try:
            examine(content)
        except PictureError as error:
            self._found.add(error.reason, name, error.detail)
            return sha256
        if len(self._sound) >= _KNOWN:
            self._sound.clear()
        self._sound.add(sha256)
        return sha256

    def _whole(self) -> Iterator[str]:
        """Yield what only all rows together show."""
        again = self._ids.repeated()
        if again:
            yield f"ids are not unique: {again} samples repeat one"
        lost = self._originals.absent(self._ids)
        if lost:
            yield f"duplicate_of is no id of the data set: {lost}"
        counts = self.data.manifest["counts"]
        yield from _differences("groups_by_split", counts.get("groups_by_split"), self._groups.by_split())
        for name, counter in self._counts.items():
            yield from _differences(name, counts.get(name), counter)
        yield from _differences("licenses", self.data.manifest["licenses"], self._counts["license"])
        yield from self._sides()
        # Sets of schema 2 do not say how they were split.
        told, way = self.data.manifest.get("split_hash"), self.data.manifest["settings"].get("split")
        keys = self._shown if way == "by-image" else self._ids if way == "official" else self._groups
        if way not in (None, *WAYS, *OF_PARTS):
            yield f"{MANIFEST}: nobody knows the split {way!r}"
        elif way is not None and told != keys.split_hash():
            yield f"{MANIFEST}: its split_hash is not that of the rows"

    def _sides(self) -> Iterator[str]:
        """Yield what is on two sides; where the way of splitting allows it, it is only noted."""
        split = self.data.manifest["settings"].get("split", "by-group")
        apart = {"group": split not in ("official", "by-image"), "picture": split != "official"}
        for what, keys in (("group", self._groups), ("picture", self._pictures)):
            count = keys.on_several_sides()
            line = f"splits are not disjoint: {count} {what}{'s are' if count != 1 else ' is'} in several"
            if count and apart[what]:
                yield line
            elif count:
                self.notes.append(f"{line}, as --split {split} allows")


def _faults(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the fields of one row."""
    if not row["id"] or not row["group"]:
        yield "no id or group"
    if row["task"] not in TASKS:
        yield "unknown task"
    if not (row["target"] or "").strip():
        yield "empty target"
    if row["task"] == "vqa" and not (row["prompt"] or "").strip():
        yield "empty question"
    if row["commercial_use"] not in COMMERCIAL_USE:
        yield f"commercial_use is none of {', '.join(COMMERCIAL_USE)}"
    elif most_restrictive([row["commercial_use"], commercial_use(row["license"])]) != row["commercial_use"]:
        yield "commercial_use is freer than the license"
    if row["official_split"] not in (None, *SPLITS):
        yield f"official_split is none of {', '.join(SPLITS)}"


def _label(value: Any) -> str:
    return NOT_STATED if value is None else str(value)


def _differences(name: str, told: Any, counted: Mapping[str, int]) -> Iterator[str]:
    """Yield the first value whose number in the manifest is another than counted; what is not told is not promised."""
    if told is None:
        return
    if not isinstance(told, dict):
        yield f"{MANIFEST}: {name} holds no counts"
        return
    wrong = sorted(value for value in {*told, *counted} if told.get(value, 0) != counted.get(value, 0))
    if wrong:
        first, more = wrong[0], f"; and {len(wrong) - 1} more values" if len(wrong) > 1 else ""
        yield f"{MANIFEST}: {name}: counts {told.get(first, 0)} of {first}, the rows {counted.get(first, 0)}{more}"
