"""What of the samples to be scored the training data holds too: pictures, nearly the same pictures, texts, groups.

- Pictures: the same bytes; or the same picture in another size, format, coloring or slightly cropped, as
  `medvlm.data.dedup` tells it. As there, blank pictures and drawings on a light ground are known by their bytes only.
  A picture mirrored left to right is another one: the side is part of what a radiograph says. Of a row with several
  all that are shown count, on either side.
- Texts: a target of more than 8 words, or prompt and target together where the target has at least 2 words, with the
  same normalized words. Shorter ones ("yes", "right lung") are said of many pictures. So are some long ones ("The heart
  is of normal size. The lungs are clear."): a text that the training data says of 3 groups or more tells none of them;
  such samples are counted as `texts_common` and have not leaked.
- Groups: the same article, patient or image by its name, from the same source.

All rows of the training split count, of earlier stages too, whatever cap or weight they were trained with. Pictures of
one prepared data set are not compared again with one another: `medvlm prepare` puts near duplicates on one side.

Shards are read in streams, and pictures compared by chunks. Peak memory of the process, 1,000 samples against 10,000
training pictures: 246 MB, against 40,000: 323 MB (169 MB before); from then on it grows by the hashes of the different
pictures alone, some 100 MB a million. Every different training picture of another data set is decoded once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlm.errors import InputError
from medvlm.evaluate.near_images import chunks, marked, near_places
from medvlm.evaluate.vqa import words
from medvlm.io import sha256_bytes, stable_hash, write_json

if TYPE_CHECKING:
    from medvlm.cli.common import Progress
    from medvlm.data.mixture import DataFolder, Mixture
    from medvlm.runs import Run

NAME = "leakage.json"
REASONS = ("same image", "near image", "same text", "same group")
COUNTS = ("images_same", "images_near", "texts_same", "groups_shared")
LONG = 8
"""A target of more words than this is known by itself, a shorter one only together with its prompt."""

COMMON = 3
"""A text that is said of so many groups is a phrase, and no sign of a leak."""

_RULES = 4
_MORE = "more_images"
_COLUMNS = ("id", "task", "prompt", "target", "group", "source", "sha256")


@dataclasses.dataclass(frozen=True, slots=True)
class TrainData:
    """A data set that was trained on."""

    path: str
    tasks: Sequence[str] | None = None
    """Only rows of these tasks were."""
    fingerprint: str | None = None
    """What it was then; None where that is not known."""
    pictures: int | None = None
    """Of a row so many were shown at most; None where that is not known, and all count."""


@dataclasses.dataclass(slots=True)
class Leakage:
    """What was found.

    Attributes:
        n: samples looked at.
        train_rows: rows of training data that they were compared with.
        leaked: id -> which of `REASONS`, for the samples that the training data holds in one way or another.
        parts: for each data set trained on its path, rows, and how many samples it holds, by `COUNTS`.
        missing: a sentence for each data set that could not be looked at, or has no rows.
        texts_common: samples whose text the training data says of many groups, which is no leak.
    """

    n: int
    train_rows: int
    leaked: dict[str, list[str]]
    parts: list[dict[str, Any]]
    missing: list[str]
    texts_common: int = 0

    def count(self, reason: str) -> int:
        """Return how many samples leaked for one of `REASONS`."""
        return sum(reason in reasons for reasons in self.leaked.values())

    def as_dict(self) -> dict[str, Any]:
        """Return what scores.json says: n, train_rows, `COUNTS`, texts_common, leaked (how many), ids, parts, ..."""
        counts = {key: self.count(reason) for key, reason in zip(COUNTS, REASONS, strict=True)}
        return {
            "n": self.n,
            "train_rows": self.train_rows,
            **counts,
            "texts_common": self.texts_common,
            "leaked": len(self.leaked),
            "ids": self.leaked,
            "parts": self.parts,
            "missing": self.missing,
        }


def train_parts(run: Run) -> list[TrainData]:
    """Return the data that a run and the stages before it were trained on; of a published model what is said of it.

    With them stands the data of a base that medvlm exported, a tower for example. An earlier run that is gone stands
    there by its own folder: `find` tells that its data cannot be looked at.
    """
    from medvlm.export.rights import base_data, base_names, lost, stages

    facts = run.facts()
    if facts.get("kind") == "baseline":
        return [TrainData(str(path)) for path in facts.get("trained_on") or ()]
    found = stages(run)
    parts = [
        TrainData(part["path"], part.get("tasks"), part["fingerprint"], stage.recipe().prompts.max_images)
        for stage in found
        for part in stage.facts()["data"]
    ]
    near = [part.path for part in parts]
    parts += [
        TrainData(_place(told, near), told.get("tasks"), told.get("fingerprint"), told.get("max_images"))
        for told in base_data(base_names(found))
    ]
    parts += [TrainData(start) for start in lost(found)]
    return [part for place, part in enumerate(parts) if part not in parts[:place]]


def _place(told: dict[str, Any], near: Sequence[str]) -> str:
    """Return where a data set lies that an export names, by its fingerprint; its name where it is nowhere.

    Args:
        told: of the export, which names no folders of the machine that it was made on.
        near: folders of data beside which it may lie.
    """
    from medvlm.data.mixture import DataFolder

    named = str(told.get("path"))
    name = Path(named).name
    for path in dict.fromkeys([named, *near, *(str(Path(other).parent / name) for other in near), f"data/{name}"]):
        with contextlib.suppress(InputError):
            if DataFolder.open(path).fingerprint() == told.get("fingerprint"):
                return path
    return named


def of_run(run: Run, test: Mixture, places: Sequence[int], show: Progress, most: int = 1) -> Leakage:
    """Return what the run's training data holds of the samples; kept beside its predictions for the next time."""
    return find(train_parts(run), test, places, show, most=most, cache=run.evaluation(test.split) / NAME)


def find(
    train: Sequence[TrainData | DataFolder | Path | str],
    test: Mixture,
    places: Sequence[int],
    show: Progress,
    *,
    train_split: str = "train",
    most: int = 1,
    cache: Path | None = None,
) -> Leakage:
    """Return what the training data holds of the samples at `places`.

    Args:
        train: prepared data sets.
        test: the samples to be scored.
        places: which of them.
        show: told how many pictures are compared.
        train_split: of `train`.
        most: of a sample so many pictures are shown at most.
        cache: file with what was found earlier; used where data sets and samples are the same, written otherwise.

    Raises:
        InputError: a shard cannot be read.
        ResourceError: the disk is full.
    """
    folders, missing = _open(train)
    key = _key(folders, missing, test, places, train_split, most)
    known = _cached(cache, key)
    if known is not None:
        return known
    samples = _Samples(test, places, most)
    near = _Near(samples, test, places, show, train_split)
    seen = [_compared(part, folder, samples, near, test, train_split) for part, folder in folders]
    common = samples.common()
    parts = []
    for (part, _), (hits, rows) in zip(folders, seen, strict=True):
        hits["same text"] -= common
        samples.take(hits)
        parts.append(
            {"path": part.path, "rows": rows, **{c: len(hits[r]) for c, r in zip(COUNTS, REASONS, strict=True)}}
        )
        if not rows:
            of = f" of {', '.join(part.tasks)}" if part.tasks else ""
            missing.append(f"{part.path} has no rows{of} in its {train_split} split: nothing was compared with it")
    total = sum(rows for _, rows in seen)
    found = Leakage(len(samples.ids), total, samples.leaked(), parts, missing, len(common))
    if cache is not None:
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_json(cache, {"key": key, **dataclasses.asdict(found)})
    return found


def _open(
    train: Sequence[TrainData | DataFolder | Path | str],
) -> tuple[list[tuple[TrainData, DataFolder]], list[str]]:
    """Return the data sets that are there as they were trained on, and a sentence for each of the others."""
    from medvlm.data.mixture import DataFolder

    found, missing = [], []
    for one in train:
        part = one if isinstance(one, TrainData) else TrainData(str(getattr(one, "path", one)))
        try:
            folder = DataFolder.open(part.path)
        except InputError:
            missing.append(f"{part.path} was trained on and is not there any more: it was not looked at")
            continue
        if part.fingerprint not in (None, folder.fingerprint()):
            missing.append(f"{part.path} has changed since it was trained on: it was not looked at")
        else:
            found.append((part, folder))
    return found, missing


def _key(
    folders: Sequence[tuple[TrainData, DataFolder]],
    missing: Sequence[str],
    test: Mixture,
    places: Sequence[int],
    split: str,
    most: int,
) -> str:
    trained = [[part.path, folder.fingerprint(), list(part.tasks or ()), part.pictures] for part, folder in folders]
    tested = [[folder.fingerprint() for folder in test.folders], [str(test.text(place)["id"]) for place in places]]
    return stable_hash([_RULES, trained, list(missing), split, test.split, tested, most])


def _cached(cache: Path | None, key: str) -> Leakage | None:
    try:
        facts = json.loads(cache.read_text(encoding="utf-8")) if cache is not None else {}
        return Leakage(**{name: facts[name] for name in Leakage.__slots__}) if facts["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


class _Samples:
    """What is known of the samples to be scored, and which of them were found."""

    def __init__(self, test: Mixture, places: Sequence[int], most: int) -> None:
        self.ids: list[str] = []
        self.keys: dict[bytes, list[int]] = {}
        """A picture's, text's or group's key -> the samples that have it."""
        self.digests: list[list[str]] = []
        """Of the pictures that each is shown."""
        self.found: list[set[str]] = []
        self._said: dict[bytes, set[str]] = {}
        """A text's key -> the groups that the training data says it of, the first few."""
        for number, place in enumerate(places):
            row = test.text(place)
            digests = list(map(sha256_bytes, test.encoded(place, most)))
            self.ids.append(str(row["id"]))
            self.digests.append(digests)
            self.found.append(set())
            for key in _keys_of(row, digests):
                self.keys.setdefault(key, []).append(number)

    def say(self, key: bytes, row: dict[str, Any]) -> None:
        """Note of which group a row of the training data says a text, where samples have that text."""
        groups = self._said.setdefault(key, set())
        if len(groups) < COMMON:
            groups.add(f"{row.get('source')}/{row['group']}" if row.get("group") else str(row["sha256"]))

    def common(self) -> set[int]:
        """Return the samples whose text is said of `COMMON` groups or more."""
        return {number for key, groups in self._said.items() if len(groups) >= COMMON for number in self.keys[key]}

    def take(self, hits: dict[str, set[int]]) -> None:
        """Note which samples were found, by reason."""
        for reason, numbers in hits.items():
            for number in numbers:
                self.found[number].add(reason)

    def leaked(self) -> dict[str, list[str]]:
        """Return id -> reasons, in the order of the samples and of `REASONS`."""
        named: dict[str, set[str]] = {}
        for name, found in zip(self.ids, self.found, strict=True):
            if found:
                named.setdefault(name, set()).update(found)
        return {name: [reason for reason in REASONS if reason in found] for name, found in named.items()}


def _keys_of(row: dict[str, Any], digests: Sequence[str]) -> Iterator[bytes]:
    """Yield the keys of a row: its pictures', its text's where it tells something, its group's."""
    for digest in dict.fromkeys(digests):
        yield _hashed("same image", digest)
    target = words(row.get("target") or "")
    prompt = words(row.get("prompt") or "")
    if len(target) > LONG:
        yield _hashed("same text", *target)
    elif prompt and len(target) > 1:
        yield _hashed("same text", *prompt, "", *target)
    if row.get("group"):
        yield _hashed("same group", str(row.get("source") or ""), str(row["group"]))


def _hashed(reason: str, *parts: str) -> bytes:
    # Its first byte tells the reason.
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return bytes([REASONS.index(reason)]) + hashlib.blake2b(text, digest_size=15).digest()


def _compared(
    part: TrainData, folder: DataFolder, samples: _Samples, near: _Near, test: Mixture, split: str
) -> tuple[dict[str, set[int]], int]:
    """Look through one data set; return the samples that it holds, by reason, and its rows."""
    hits: dict[str, set[int]] = {reason: set() for reason in REASONS}
    rows = 0
    for row in _rows(folder, split, part):
        rows += 1
        for key in _keys_of(row, row["digests"]):
            reason, numbers = REASONS[key[0]], samples.keys.get(key)
            if numbers:
                hits[reason].update(numbers)
                if reason == "same text":
                    samples.say(key, row)
    # Of its own test split a data set holds no near duplicate: preparing it has compared them all.
    kept_apart = {
        number
        for number, other in enumerate(test.folders)
        if other.fingerprint() == folder.fingerprint()
        and "near_duplicates" in (folder.manifest.get("counts") or {})
        and split != test.split
    }
    samples.take({"same image": hits["same image"]})
    hits["near image"] = near.found(folder, part, kept_apart, rows) - hits["same image"]
    return hits, rows


def _rows(folder: DataFolder, split: str, part: TrainData, pictures: bool = False) -> Iterator[dict[str, Any]]:
    """Yield the rows of a split, a few at a time in memory, with the `digests` of their pictures or `pictures`, too."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for shard in folder.shards(split):
        try:
            file = pq.ParquetFile(shard)
            names = set(file.schema_arrow.names)
            chosen = [name for name in (("task", "sha256") if pictures else _COLUMNS) if name in names]
            if pictures or "sha256" not in names or _without_hash(file):
                chosen.append("image")
            if part.pictures != 1 and _MORE in names:
                chosen.append(_MORE)
            few = {"image", _MORE} & set(chosen)
            for batch in file.iter_batches(64 if few else 4096, columns=chosen):
                for row in batch.to_pylist():
                    if part.tasks is None or row.get("task") in part.tasks:
                        yield _seen(row, part.pictures)
        except (OSError, KeyError, TypeError, pa.ArrowException) as error:
            raise InputError(
                f"data: {shard}: cannot be read ({' '.join(str(error).split())[:200]}); prepare again"
            ) from error


def _seen(row: dict[str, Any], most: int | None) -> dict[str, Any]:
    """Return a row with `digests` of its pictures, and these as `pictures` where its first one was read."""
    more = [picture["bytes"] for picture in row.pop(_MORE, None) or ()]
    more = more if most is None else more[: most - 1]
    image = row.pop("image", None)
    if image is not None:
        row |= {"sha256": sha256_bytes(image["bytes"]), "pictures": [image["bytes"], *more]}
    return row | {"digests": [row["sha256"], *map(sha256_bytes, more)]}


def _without_hash(file: Any) -> bool:
    """Whether a shard has a row without the hash of its picture."""
    return any(not digest for batch in file.iter_batches(columns=["sha256"]) for digest in batch[0].to_pylist())


class _Near:
    """Compares the pictures to be scored with those of training data sets.

    Nothing is decoded before the first data set that needs it.
    """

    def __init__(self, samples: _Samples, test: Mixture, places: Sequence[int], show: Progress, split: str) -> None:
        self.samples, self.test, self.places, self.show, self.split = samples, test, places, show, split
        self._marks: dict[str, bytes] = {}

    def found(self, folder: DataFolder, part: TrainData, kept_apart: set[int], total: int) -> set[int]:
        """Return the samples with a picture that nearly is one of the data set, but for the parts `kept_apart`."""
        numbers = [
            number
            for number, place in enumerate(self.places)
            if self.test.picks[place].part not in kept_apart and "same image" not in self.samples.found[number]
        ]
        own = self._own(numbers)
        marks = [mark for _, mark in own]
        if not marks or not total:
            return set()
        digests: set[str] = set()
        for chunk in chunks(self._trained(folder, part, total)):
            for place in near_places(marks, chunk).tolist():
                digests.add(own[place][0])
        return {number for number in numbers if digests.intersection(self.samples.digests[number])}

    def _own(self, numbers: Sequence[int]) -> list[tuple[str, bytes]]:
        """Return the marks of the different pictures of samples, decoded once; those without one are left out."""
        wanted: dict[str, tuple[int, int]] = {}
        for number in numbers:
            for at, digest in enumerate(self.samples.digests[number]):
                if digest not in self._marks:
                    wanted.setdefault(digest, (self.places[number], at))
        pictures = (self.test.encoded(place, at + 1)[at] for place, at in wanted.values())
        self._marks |= zip(wanted, marked(pictures), strict=True)
        digests = dict.fromkeys(digest for number in numbers for digest in self.samples.digests[number])
        return [(digest, self._marks[digest]) for digest in digests if self._marks[digest]]

    def _trained(self, folder: DataFolder, part: TrainData, total: int) -> Iterator[bytes]:
        """Yield the mark of each different picture of a data set."""
        seen: set[bytes] = set()

        def fresh() -> Iterator[bytes]:
            for number, row in enumerate(_rows(folder, self.split, part, pictures=True), start=1):
                for digest, picture in zip(row["digests"], row["pictures"], strict=True):
                    key = bytes.fromhex(digest)[:16]
                    if key not in seen:
                        seen.add(key)
                        yield picture
                self.show.update(number, total)

        yield from filter(None, marked(fresh()))
