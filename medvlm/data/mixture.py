"""Prepared data sets as training and evaluation read them: rows by split, mixed by weight or temperature, capped."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from medvlm.data.rows import Rows
from medvlm.data.sources import SOURCES
from medvlm.errors import InputError
from medvlm.io import sha256_file, stable_hash
from medvlm.recipe.models import DataPart, MixturePart

__all__ = ["DataFolder", "Mixture", "Pick", "Picks", "Rows", "Share", "tempered"]

_SOURCES = {"pmc": "pmc", "vqa-rad": "vqa-rad --input VQA_RAD", "phantom-base": "phantom --kind base"}
"""Folder that the shipped recipes take their data from -> the source of it."""


@dataclasses.dataclass(slots=True)
class DataFolder:
    """What `medvlm prepare` left at `path`."""

    path: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: str) -> DataFolder:
        """Find the data set.

        Raises:
            InputError: no folder, no shards, or preparation did not finish.
        """
        folder = Path(path)
        name = Path(path).name
        source = _SOURCES.get(name) or (f"{name} --input FOLDER" if name in SOURCES.names() else None)
        how = f"run `medvlm prepare {source or 'SOURCE'} --out {path}` first" + (
            "" if source else " (the first line of a recipe names the source)"
        )
        if not folder.is_dir():
            raise InputError(f"data: {path} does not exist; {how}")
        if not (folder / "manifest.json").is_file():
            raise InputError(f"data: {path} holds no manifest.json, so it is no finished data set; {how}")
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"data: {path}/manifest.json is damaged; {how} with --overwrite") from error
        if not isinstance(manifest, dict):
            raise InputError(f"data: {path}/manifest.json is damaged; {how} with --overwrite")
        found = cls(folder, manifest)
        found._check_shards(how)
        return found

    def _check_shards(self, how: str) -> None:
        """Raise where shards are missing, added or of another size than the manifest says."""
        listed = self.manifest.get("shards")
        if listed is None:
            return
        expected = {Path(shard["name"]).name: int(shard["bytes"]) for shard in listed}
        on_disk = {path.name: path.stat().st_size for path in (self.path / "data").glob("*.parquet")}
        if expected != on_disk:
            wrong = sorted(name for name in expected | on_disk if expected.get(name) != on_disk.get(name))
            raise InputError(f"data: {self.path}: {wrong[0]} is not as its manifest says; {how} with --overwrite")

    def shards(self, split: str) -> list[Path]:
        """Return the parquet files of `split`, in order."""
        return sorted((self.path / "data").glob(f"{split}-*-of-*.parquet"))

    def fingerprint(self) -> str:
        """Return the data set's own fingerprint, or a hash over its shards."""
        known = self.manifest.get("fingerprint")
        shards = sorted((self.path / "data").glob("*.parquet"))
        return str(known) if known else stable_hash([[s.name, sha256_file(s)] for s in shards])

    @property
    def synthetic(self) -> bool:
        """True where every picture was made by code."""
        return bool(self.manifest.get("synthetic"))


@dataclasses.dataclass(frozen=True, slots=True)
class Pick:
    """One place of the mixture: which data set, which of its rows."""

    part: int
    row: int


class Picks(Sequence[Pick]):
    """The places of a mixture as picks, made when asked for: a place takes 8 bytes at most.

    Args:
        rows: of each data set, the row at each of its places; a data set's places follow each other.
    """

    def __init__(self, rows: Sequence[Sequence[int] | np.ndarray]) -> None:
        self.rows = rows
        self.starts = list(itertools.accumulate(map(len, rows), initial=0))
        """First place of each data set, then the number of all places."""

    def __len__(self) -> int:
        return self.starts[-1]

    @overload
    def __getitem__(self, place: int) -> Pick: ...

    @overload
    def __getitem__(self, place: slice) -> list[Pick]: ...

    def __getitem__(self, place: int | slice) -> Pick | list[Pick]:
        if isinstance(place, slice):
            return [self[at] for at in range(*place.indices(len(self)))]
        at = place + len(self) if place < 0 else place
        if not 0 <= at < len(self):
            raise IndexError(place)
        part = bisect.bisect_right(self.starts, at) - 1
        return Pick(part, int(self.rows[part][at - self.starts[part]]))


@dataclasses.dataclass(frozen=True, slots=True)
class Share:
    """What one data set is of an epoch."""

    path: str
    rows: int
    """In the split, of the recipe's tasks."""
    seen: int
    """How many of them an epoch visits; the others are never seen, in no epoch."""
    visits: int
    """Places of the epoch."""
    weight: float
    """Visits of each row that is not left out by a cap, on average."""


class Mixture:
    """Several data sets as one, in a fixed order: an epoch visits every place once, shuffled by the trainer.

    A weight of 2 lists every row twice, 0.5 a fixed random half; a cap keeps a fixed random choice before weighting.
    A temperature gives the weights: `tempered`.

    Args:
        parts: the recipe's `data`.
        split: train, validation or test. Weights and caps hold for train only.
        seed: of the choices.
        weighted: apply weights and caps; by default for the train split only. What is evaluated stays whole.
        how: the recipe's `mixture`; None is all in memory, without a temperature.
    """

    def __init__(
        self,
        parts: Sequence[DataPart],
        split: str,
        seed: int,
        weighted: bool | None = None,
        how: MixturePart | None = None,
    ) -> None:
        if weighted is None:
            weighted = split == "train"
        self.parts, self.split, self.weighted = parts, split, weighted
        self.how = how or MixturePart()
        self.folders = [DataFolder.open(part.path) for part in parts]
        streaming = self.how.streaming
        self.rows = [Rows(f, split, part.tasks, streaming) for f, part in zip(self.folders, parts, strict=True)]
        self.weights = [part.weight if weighted else 1.0 for part in parts]
        if weighted and self.how.temperature is not None:
            sizes = [min(len(rows), part.cap or len(rows)) for rows, part in zip(self.rows, parts, strict=True)]
            self.weights = tempered(sizes, self.how.temperature)
        chosen: list[Sequence[int] | np.ndarray] = []
        for number, (part, rows, weight) in enumerate(zip(parts, self.rows, self.weights, strict=True)):
            asked = part.model_copy(update={"weight": weight})
            places = _choose(len(rows), asked, seed + number) if weighted else range(len(rows))
            chosen.append(places if isinstance(places, range) else np.array(places, np.int64))
        self.picks = Picks(chosen)

    def __len__(self) -> int:
        return len(self.picks)

    def text(self, place: int) -> dict[str, Any]:
        """Return the text columns of a place."""
        pick = self.picks[place]
        return self.rows[pick.part].texts[pick.row]

    def image(self, place: int) -> Any:
        """Return the decoded picture of a place."""
        pick = self.picks[place]
        return self.rows[pick.part].image(pick.row)

    def encoded(self, place: int, most: int = 1) -> list[bytes]:
        """Return a place's first picture and its further ones in order, at most `most`, as they are stored."""
        pick = self.picks[place]
        return self.rows[pick.part].pictures(pick.row, most)

    def pictures(self, place: int, most: int) -> tuple[Any, ...]:
        """Return the same, decoded."""
        from medvlm.data.images import decode

        name = str(self.text(place)["id"])
        return tuple(decode(data, name) for data in self.encoded(place, most))

    def texts(self) -> Iterator[dict[str, Any]]:
        """Yield the text columns of all places in order."""
        return (self.text(place) for place in range(len(self)))

    def blocks(self) -> list[range]:
        """Return all places in runs whose rows lie in one row group of a shard, so that it is read once for them."""
        found = []
        for rows, chosen, start in zip(self.rows, self.picks.rows, self.picks.starts, strict=False):
            own = np.asarray(chosen, dtype=np.int64)
            group = np.searchsorted(rows.blocks(), own, side="right")
            # A row group's rows follow each other; where rows are visited again, they begin anew.
            cuts = np.flatnonzero((np.diff(group) != 0) | (np.diff(own) <= 0)) + 1
            bounds = [0, *cuts.tolist(), len(own)]
            found += [range(start + low, start + high) for low, high in itertools.pairwise(bounds) if low < high]
        return found

    def shares(self) -> list[Share]:
        """Return what each data set is of an epoch."""
        return [
            Share(part.path, len(rows), len(chosen) if isinstance(chosen, range) else len(np.unique(chosen)),
                  len(chosen), weight)
            for part, rows, chosen, weight in zip(self.parts, self.rows, self.picks.rows, self.weights, strict=True)
        ]  # fmt: skip

    def facts(self) -> list[dict[str, Any]]:
        """Return what run.json says of the data: path, fingerprint, rows, weight, licenses, synthetic, title.

        Where weights and caps hold also, as `Share` has them, seen and visits.
        """
        shares = self.shares()
        return [
            {
                "path": part.path,
                "fingerprint": folder.fingerprint(),
                "rows": len(rows),
                "weight": weight if self.how.temperature is not None else part.weight,
                "cap": part.cap,
                "tasks": part.tasks,
                "licenses": dict(sorted(rows.licenses().items())),
                "synthetic": folder.synthetic,
                "title": folder.manifest.get("card", {}).get("title", part.path),
            }
            | ({"seen": share.seen, "visits": share.visits} if self.weighted else {})
            for part, folder, rows, weight, share in zip(
                self.parts, self.folders, self.rows, self.weights, shares, strict=True
            )
        ]

    def licenses(self) -> Counter[str]:
        """Count all rows by license."""
        total: Counter[str] = Counter()
        for rows in self.rows:
            total.update(rows.licenses())
        return total


def tempered(sizes: Sequence[int], temperature: float) -> list[float]:
    """Return how often each row of each data set is visited, so that shares go as size ** (1 / temperature).

    Temperature-scaled mixing (arXiv:1910.10683, section 3.5.2): data set m is drawn at the rate r_m ** (1 / T), r_m its
    size up to a limit; T = 1 is mixing in proportion, a large T near equal shares. There rows are drawn; here an epoch
    is as long as visits every row of the largest data set once, and the rows of smaller ones more often, so no row goes
    unseen. And what a cap, the limit, cuts off is left out, not drawn from.

    Args:
        sizes: rows of each data set.
        temperature: T, at least 1.
    """
    largest = max(sizes, default=0)
    return [(largest / size) ** (1 - 1 / temperature) if size else 1.0 for size in sizes]


def _choose(count: int, part: DataPart, seed: int) -> Sequence[int]:
    """Return the row numbers of one data set that an epoch visits, in order of their rows."""
    chance = random.Random(seed)
    rows: Sequence[int] = range(count)
    if part.cap is not None and part.cap < count:
        rows = sorted(chance.sample(rows, part.cap))
    whole, share = divmod(part.weight, 1.0)
    extra = sorted(chance.sample(rows, round(share * len(rows))))
    if whole == 1 and not extra:
        return rows
    return [*(list(rows) * int(whole)), *extra]
