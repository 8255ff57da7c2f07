"""What must be known of all rows before the first is written: repeated ids, duplicates, the split of every group.

The rows' keys lie in flat files and are taken up a column at a time, as numpy arrays. Memory is not bounded, but grows
slowly: measured, by 130 MB a million rows, and while near duplicates are looked for by 300 MB a million different
pictures (more where many are in crowds: see `dedup.near_pairs`). Keys are 128 bits of a hash:
two that are equal by accident do not occur.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from medvlm.data import dedup
from medvlm.data.chunks import WORK_SCHEMA, Chunk
from medvlm.data.split_leakage import NO_SIDE, Keys, shared
from medvlm.data.splits import OF_PARTS, SPLITS, Clusters, Ratios, split_of
from medvlm.errors import InputError
from medvlm.io import sha256_bytes

Array = np.ndarray[Any, Any]

KEPT, DUPLICATE_ID, DUPLICATE_IMAGE, NEAR_DUPLICATE, NO_SPLIT, SHARED = range(6)
REASONS = (
    *("", "duplicate id", "duplicate image", "near duplicate image", "no official split"),
    "shared with a held-out split",
)

_FIGURE = ("task", "figure_id", "file_name")
_READ = ["id", "group", "doi", "sha256", "_side", "prompt", "target", "_views", "_marks", *_FIGURE]
_KEY = 16
_NO_KEY = bytes(_KEY)


def columns(chunk: Chunk, names: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a work file with only `names` read."""
    positions = sorted(WORK_SCHEMA.get_field_index(name) for name in names)
    with pa.memory_map(str(chunk.table)) as source:
        reader = pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(included_fields=positions))
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)


def first_of(keys: Array) -> Array:
    """Return for each row the number of the first row with an equal key.

    Args:
        keys: uint64 [rows, words].
    """
    rows = len(keys)
    if not rows:
        return np.zeros(0, np.int64)
    # Stable: equal keys stay in the order of their rows.
    order = np.lexsort(keys.T)
    ranked = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], (ranked[1:] != ranked[:-1]).any(axis=1)]))
    del ranked
    first = np.empty(rows, np.int64)
    first[order] = np.repeat(order[starts], np.diff(np.append(starts, rows)))
    return first


class _File:
    """A column on disk, written in order and read as a whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb", buffering=1 << 18)

    def add(self, data: bytes) -> None:
        self._file.write(data)

    def close(self) -> None:
        """Write what is left; to be called before the column is read."""
        self._file.close()

    def load(self, kind: Any, words: int = 1) -> Array:
        """Return the column as `kind` [rows] or [rows, words]."""
        values = np.fromfile(self.path, kind)
        return values if words == 1 else values.reshape(-1, words)

    def mapped(self, width: int) -> Array:
        """Return the column as uint8 [rows, width] that stays on disk."""
        if not self.path.stat().st_size:
            return np.zeros((0, width), np.uint8)
        return np.memmap(self.path, np.uint8, "r").reshape(-1, width)


@dataclasses.dataclass(slots=True)
class Verdict:
    """What becomes of each row."""

    starts: list[int]
    """Number of the first row of each chunk, and of all rows."""
    drop: Array
    """uint8 [rows]: `KEPT`, or why not."""
    side: Array
    """uint8 [rows]: position in `SPLITS`."""
    leads: Array
    """bool [rows]: the first kept row of its group."""
    group_rows: Array
    """int32 [rows]: for the first row of each group, how many of the group's rows are kept."""
    group: Array
    """int64 [rows]: the first row of the row's group; -1 where the id is repeated."""
    originals: dict[int, int]
    """Row -> the row of another group that had the same or nearly the same picture first, or of another figure of its
    own group that had the very same one for the same task."""
    ids: dict[int, str]
    """Row -> id, for all values of `originals`."""
    duplicate_images: int
    near_duplicates: int
    groups: Counter[str]
    """Groups with kept rows, by split."""
    split_hash: str
    leakage: dict[str, dict[str, dict[str, int]]]
    """What the sides of the split share, under "made", and those of the published one under "official", if any."""


class Index:
    """The keys of all rows, in files below `folder`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        names = [*("ids", "figures", "groups", "dois", "texts", "official")]
        names += [*("pictures", "places", "heads", "copies", "marked")]
        self._files = {name: _File(folder / name) for name in names}
        self._chunks: list[Chunk] = []
        self._starts = [0]
        self._pictures = 0

    def add_chunk(self, chunk: Chunk) -> None:
        """Take in the rows of one work file; chunks come in order."""
        row = self._starts[-1]
        for batch in columns(chunk, _READ):
            values = {name: batch.column(name).to_pylist() for name in batch.schema.names}
            self._files["ids"].add(b"".join(map(_key, values["id"])))
            self._files["figures"].add(b"".join(map(_figure_key, *(values[name] for name in _FIGURE))))
            self._files["groups"].add(b"".join(map(_key, values["group"])))
            self._files["texts"].add(b"".join(map(_text_key, values["prompt"], values["target"])))
            self._files["official"].add(bytes(map(_side, values["_side"])))
            # An article can be there twice: as PMC's copy, grouped by PMCID, and as its publisher's, grouped by DOI.
            self._files["dois"].add(b"".join(_key(doi.lower()) if doi else _NO_KEY for doi in values["doi"]))
            for own, views, marks in zip(values["sha256"], values["_views"], values["_marks"], strict=True):
                self._add_pictures(row, [own, *views], marks)
                row += 1
        self._chunks.append(chunk)
        self._starts.append(row)

    def _add_pictures(self, row: int, hashes: list[str], marks: list[bytes]) -> None:
        for place, (digest, mark) in enumerate(zip(hashes, marks, strict=True)):
            self._files["pictures"].add(bytes.fromhex(digest)[:_KEY])
            self._files["places"].add((2 * row + bool(place)).to_bytes(8, "little"))
            if mark:
                self._files["heads"].add(mark[: dedup.HEAD_BYTES])
                self._files["copies"].add(mark[dedup.HEAD_BYTES :])
                self._files["marked"].add(self._pictures.to_bytes(8, "little"))
            self._pictures += 1

    def resolve(self, seed: int, ratios: Ratios, drop_duplicates: bool, way: str = "by-group") -> Verdict:
        """Decide what becomes of each row.

        Args:
            seed: of the split.
            ratios: shares of train, validation and test.
            drop_duplicates: leave out rows whose picture another group had first.
            way: one of `splits.WAYS` or `splits.OF_PARTS`. By group, groups that share an image (nearly) or a DOI get
                the same split; by image, rows that do; official rows keep theirs, and so do those of parts, but for
                groups that by group would go together.

        Raises:
            InputError: the official split is asked for and no row has one, or what sides share is refused.
        """
        for file in self._files.values():
            file.close()
        rows = self._starts[-1]
        drop = np.zeros(rows, np.uint8)
        drop[first_of(self._load("ids")) != np.arange(rows)] = DUPLICATE_ID
        official = self._files["official"].load(np.uint8)
        stated = way == "official" or way in OF_PARTS
        if stated:
            drop[(drop == KEPT) & (official == NO_SIDE)] = NO_SPLIT
            if rows and not (drop == KEPT).any():
                raise InputError("--split official: this data set states no split; use by-group or by-image")
        kept = np.flatnonzero(drop == KEPT)
        keys = self._load("groups")
        group = np.full(rows, -1, np.int64)
        group[kept] = kept[first_of(keys[kept])]
        del keys
        pictures = self._same_pictures(group)
        together = group if way != "by-image" else self._by_picture(pictures, rows)
        clusters = Clusters(rows)
        if way == "by-group" or way in OF_PARTS:
            self._join_articles(kept, group, clusters)
        originals, near, studies = self._join_pictures(group, together, clusters, pictures)
        side = official
        if way in OF_PARTS:
            side = _on_one_side(official, group, clusters.roots(), drop, way)
            originals = _of_kept(originals, group, drop)
            near &= originals.keys()
            studies &= originals.keys()
        if drop_duplicates:
            # A study is more than its first picture: it stays.
            for row in originals.keys() - studies:
                drop[row] = NEAR_DUPLICATE if row in near else DUPLICATE_IMAGE
        wanted = set(originals.values())
        if stated:
            ids = self._ids(wanted)
        else:
            of_unit, ids = self._name(together, clusters.roots(), wanted, seed, ratios, way)
            side = of_unit[together]
        leakage = self._leakage(np.where(drop == KEPT, side, NO_SIDE), official, group, pictures)
        by = {"by-image": "main pictures", "official": "ids"}.get(way, "groups")
        return self._verdict(drop, group, side, by, originals, near, ids, leakage)

    def _load(self, name: str) -> Array:
        return self._files[name].load("<u8", _KEY // 8)

    def _join_articles(self, kept: Array, group: Array, clusters: Clusters) -> None:
        keys = self._load("dois")[kept]
        stated = keys.any(axis=1)
        rows, keys = kept[stated], keys[stated]
        clusters.join_all(group[rows], group[rows[first_of(keys)]])

    def _same_pictures(self, group: Array) -> _Pictures:
        """Return which pictures are the same, and which nearly."""
        places = self._files["places"].load("<i8")
        rows, main = places >> 1, places & 1 == 0
        known = np.flatnonzero(group[rows] >= 0)
        first = np.full(len(rows), -1, np.int64)
        first[known] = known[first_of(self._load("pictures")[known])]
        return _Pictures(rows, main, known, first, self._near_pairs(first))

    def _by_picture(self, pictures: _Pictures, rows: int) -> Array:
        """Return int64 [rows]: the first row with the same main picture, -1 for rows that are left out."""
        shown = pictures.known[pictures.main[pictures.known]]
        together = np.full(rows, -1, np.int64)
        own, keys = pictures.rows[shown], pictures.first[shown].astype(np.uint64)
        together[own] = own[first_of(keys[:, None])]
        return together

    def _join_pictures(
        self, group: Array, together: Array, clusters: Clusters, pictures: _Pictures
    ) -> tuple[dict[int, int], set[int], set[int]]:
        """Join the rows of `together` (groups, or rows with one picture) that share a picture.

        Return row -> row of the original, which of them are only near, and the rows that hold several pictures.
        """
        rows, main, known, picture = pictures.rows, pictures.main, pictures.known, pictures.first
        clusters.join_all(together[rows[known]], together[rows[picture[known]]])
        leader = np.arange(len(rows))
        for one, other in pictures.near:
            if together[rows[one]] != together[rows[other]]:
                clusters.join(int(together[rows[one]]), int(together[rows[other]]))
            # The original of a picture is no near duplicate itself; pairs come ordered by their second.
            if group[rows[one]] != group[rows[other]] and leader[one] == one and leader[other] == other:
                leader[other] = one
        shown = known[main[known]]
        first = leader[picture[shown]]
        elsewhere = group[rows[first]] != group[rows[shown]]
        own = self._within_groups(rows[shown[~elsewhere]], picture[shown[~elsewhere]])
        shown, first = shown[elsewhere], first[elsewhere]
        originals = own | dict(zip(rows[shown].tolist(), rows[first].tolist(), strict=True))
        near = set(rows[shown[first != picture[shown]]].tolist())
        return originals, near, originals.keys() & set(rows[~main].tolist())

    def _within_groups(self, rows: Array, picture: Array) -> dict[int, int]:
        """Return row -> the first row with the same picture and task, where that is of another figure.

        Several questions about one figure, or its caption and its report, share their picture and are no duplicates.

        Args:
            rows: int64 [n], ascending, each of the group that had its picture first.
            picture: int64 [n], the first place of each row's picture.
        """
        keys = self._files["figures"].load("<u8", 2)[rows]
        first = first_of(np.stack([picture.astype(np.uint64), keys[:, 1]], axis=1))
        other = keys[first, 0] != keys[:, 0]
        return dict(zip(rows[other].tolist(), rows[first[other]].tolist(), strict=True))

    def _near_pairs(self, picture: Array) -> list[tuple[int, int]]:
        """Return the pairs of pictures (each by its first place) that nearly look the same, ordered by the second."""
        marked = self._files["marked"].load("<i8")
        own = np.flatnonzero(picture[marked] == marked)
        heads = self._files["heads"].load(np.uint8, dedup.HEAD_BYTES)
        pairs = dedup.near_pairs(heads, self._files["copies"].mapped(dedup.SIDE**2), own)
        return [(int(marked[one]), int(marked[other])) for one, other in pairs]

    def _name(
        self, unit: Array, roots: Array, wanted: set[int], seed: int, ratios: Ratios, way: str
    ) -> tuple[Array, dict[int, str]]:
        """Return the split of each group (or picture) at its first row, and the ids of the rows `wanted`.

        A cluster goes by the smallest of its groups' names, so that its split does not depend on their order.
        """
        column = "sha256" if way == "by-image" else "group"
        sizes = np.bincount(roots[unit == np.arange(len(unit))], minlength=len(unit))
        side = np.zeros(len(unit), np.uint8)
        names: dict[int, str] = {}
        ids: dict[int, str] = {}
        for row, batch in self._batches(["id", column]):
            own = batch.column(column)
            for at in np.flatnonzero(unit[row : row + len(own)] == np.arange(row, row + len(own))).tolist():
                name, root = own[at].as_py(), int(roots[row + at])
                if sizes[root] == 1:
                    side[row + at] = SPLITS.index(split_of(name, seed, ratios))
                else:
                    names[root] = min(name, names.get(root, name))
            for at in wanted.intersection(range(row, row + len(own))):
                ids[at] = batch.column("id")[at - row].as_py()
        joined = np.flatnonzero((unit == np.arange(len(unit))) & (sizes[roots] > 1))
        sides = {root: SPLITS.index(split_of(name, seed, ratios)) for root, name in names.items()}
        side[joined] = [sides[root] for root in roots[joined].tolist()]
        return side, ids

    def _ids(self, wanted: set[int]) -> dict[int, str]:
        """Return the ids of the rows `wanted`."""
        found = {}
        for row, batch in self._batches(["id"]):
            for at in wanted.intersection(range(row, row + batch.num_rows)):
                found[at] = batch.column("id")[at - row].as_py()
        return found

    def _leakage(
        self, side: Array, official: Array, group: Array, pictures: _Pictures
    ) -> dict[str, dict[str, dict[str, int]]]:
        """Return what the sides of the split share, and those of the published one."""
        texts = first_of(self._load("texts"))
        keys = Keys(pictures.rows, pictures.main, pictures.first, pictures.near, texts, group)
        found = {"made": shared(side, keys)}
        # What --drop-duplicates leaves out is part of the published split all the same.
        stated = np.where(group >= 0, official, NO_SIDE)
        return found | ({"official": shared(stated, keys)} if (stated != NO_SIDE).any() else {})

    def _batches(self, names: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        for start, chunk in zip(self._starts, self._chunks, strict=False):
            row = start
            for batch in columns(chunk, names):
                yield row, batch
                row += batch.num_rows

    def _verdict(
        self,
        drop: Array,
        group: Array,
        side: Array,
        by: str,
        originals: dict[int, int],
        near: set[int],
        ids: dict[int, str],
        leakage: dict[str, dict[str, dict[str, int]]],
    ) -> Verdict:
        kept = np.flatnonzero(drop == KEPT)
        _, first = np.unique(group[kept], return_index=True)
        leads = np.zeros(len(drop), bool)
        leads[kept[first]] = True
        on_sides = np.unique(np.stack([group[kept], side[kept].astype(np.int64)]), axis=1)
        counts = np.bincount(on_sides[1], minlength=len(SPLITS))
        return Verdict(
            starts=self._starts,
            drop=drop,
            side=side,
            leads=leads,
            group_rows=np.bincount(group[kept], minlength=len(drop)).astype(np.int32),
            group=group,
            originals=originals,
            ids=ids,
            duplicate_images=len(originals) - len(near),
            near_duplicates=len(near),
            groups=Counter({split: int(count) for split, count in zip(SPLITS, counts, strict=True) if count}),
            split_hash=self._split_hash(by, kept, side),
            leakage=leakage,
        )

    def _split_hash(self, by: str, kept: Array, side: Array) -> str:
        """Return a hash of what is on which side, whatever its order: groups, pictures or samples."""
        if by == "main pictures":
            places = self._files["places"].load("<i8")
            keys = np.zeros((len(side), _KEY // 8), "<u8")
            keys[places[places & 1 == 0] >> 1] = self._load("pictures")[places & 1 == 0]
        else:
            keys = self._load(by)
        first = kept[np.unique(first_of(keys[kept]))]
        return _split_hash(keys[first], side[first])


@dataclasses.dataclass(frozen=True, slots=True)
class _Pictures:
    """All pictures, in the order of their rows."""

    rows: Array
    """int64 [pictures]."""
    main: Array
    """bool [pictures]: a row's first."""
    known: Array
    """int64: the pictures of rows that are not left out."""
    first: Array
    """int64 [pictures]: the first that is the same byte for byte, -1 for rows that are left out."""
    near: list[tuple[int, int]]
    """Pairs of first pictures that nearly look the same, ordered by the second."""


def _of_kept(originals: dict[int, int], group: Array, drop: Array) -> dict[int, int]:
    """Return row -> original for rows that are kept; of those whose original is not, the first is the others'."""
    heads: dict[int, int] = {}
    found = {}
    for row in sorted(originals):
        if drop[row]:
            continue
        first = originals[row]
        if drop[first]:
            first = heads.setdefault(first, row)
            # Several questions about one picture are no duplicates.
            if group[first] == group[row]:
                continue
        found[row] = first
    return found


def _on_one_side(official: Array, group: Array, roots: Array, drop: Array, way: str) -> Array:
    """Return uint8 [rows]: the side of each row, where groups that belong together go to the last side of any.

    Where nothing is moved, rows that would be are marked in `drop`.

    Raises:
        InputError: there are such rows and `way` refuses them.
    """
    kept = np.flatnonzero(drop == KEPT)
    cluster = roots[group[kept]]
    last = np.zeros(len(drop), np.uint8)
    np.maximum.at(last, cluster, official[kept])
    shared = kept[official[kept] < last[cluster]]
    if len(shared) and way == "parts-refuse":
        raise InputError(
            f"{len(shared):,} samples share a picture, group or article with a later split (train, validation, test); "
            "leave them out with --shared drop, or move them with --shared move"
        )
    side = official.copy()
    if way == "parts-move":
        side[shared] = last[roots[group[shared]]]
    else:
        drop[shared] = SHARED
    return side


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=_KEY).digest()


def _text_key(prompt: str, target: str) -> bytes:
    """Return the same for texts that differ in case and blanks only."""
    return _key("\0".join(" ".join(text.casefold().split()) for text in (prompt, target)))


def _side(split: str | None) -> int:
    return SPLITS.index(split) if split in SPLITS else NO_SIDE


def _figure_key(task: str, figure: str | None, file: str) -> bytes:
    """Return 8 bytes for a sample's figure within its group (its file where it has no id) and 8 for its task."""
    return b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in (figure or f"/{file}", task))


def _split_hash(keys: Array, sides: Array) -> str:
    """Return a hash of which group is on which side, whatever their order."""
    order = np.lexsort(keys.T)
    return sha256_bytes(keys[order].tobytes() + sides[order].tobytes())
