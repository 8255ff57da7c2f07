"""Statistics of a data set: counts by split, lengths, answers, words, pictures, and what the splits share.

Texts are read twice and pictures once, a few rows at a time; of pictures only the headers are looked at.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image as PILImage

from medvlm.data.inspect.folder import PICTURES, DataSet
from medvlm.data.inspect.keys import Keys
from medvlm.data.inspect.tallies import Answers, Table, Words, summary
from medvlm.data.sample import COLUMNS
from medvlm.data.split_leakage import PAIRS
from medvlm.data.splits import SPLITS
from medvlm.data.write import NOT_STATED
from medvlm.errors import UsageError
from medvlm.evaluate.vqa import words

COUNTED = (*("task", "modality", "organ", "question_type", "answer_type", "language", "license", "commercial_use"),)
TOP = 10
"""So many of the most common answers are named."""

_TEXTS = ("task", "prompt", "target", "sha256", "group")
_BY = tuple(
    name
    for name in COLUMNS
    if name
    not in ("id", "image", "more_images", "mentions", "choices", "concepts", "views", "sha256", "prompt", "target")
)

Advance = Callable[[int, int], None]


def gather(
    data: DataSet, by: str | None = None, pictures: bool = True, advance: Advance | None = None
) -> dict[str, Any]:
    """Return the statistics of a data set as plain values.

    Args:
        by: a column whose values are told apart, with their samples, lengths and most common answers.
        pictures: look at the pictures too, which reads the whole data set.
        advance: told (rows done, rows in all).

    Raises:
        UsageError: `by` is no column to count by.
        InputError: a shard cannot be read.
    """
    if by is not None and by not in _BY:
        raise UsageError(f'--by "{by}": is no column to count by; known: {", ".join(_BY)}')
    texts = _Texts(data, by)
    texts.read()
    told = texts.told()
    if pictures:
        told["pictures"] = _pictures(data, texts.pictures, advance or (lambda done, total: None))
    return told


class _Texts:
    """What one reading of all columns but the pictures tells."""

    def __init__(self, data: DataSet, by: str | None) -> None:
        self.data, self.by = data, by
        self.pictures = Keys()
        self._shared = {name: Keys() for name in ("texts", "repeats", "groups")}
        self._tables = {name: Table() for name in COUNTED}
        self._values = Table()
        self._lengths: dict[str, Counter[int]] = {}
        self._by_value: dict[str, Counter[int]] = {}
        self._answers, self._words = Answers(), Words()

    def read(self) -> None:
        columns = list(dict.fromkeys((*_TEXTS, *COUNTED, *([self.by] if self.by else []))))
        for shard, batch in self.data.batches(columns):
            for row in batch.to_pylist():
                self._add(row, shard.split)
        if self.by is not None or self._answers.total():
            self._name()

    def _add(self, row: Mapping[str, Any], split: str) -> None:
        for name, table in self._tables.items():
            table.add(_label(row[name]), split)
        value = self._values.add(_label(row[self.by]), split) if self.by else ""
        spoken = (row["target"] or "").split()
        self._lengths.setdefault(str(row["task"]), Counter())[len(spoken)] += 1
        self._by_value.setdefault(value, Counter())[len(spoken)] += 1
        self.pictures.add(row["sha256"] or "", split)
        plain = " ".join(words(row["target"] or ""))
        if not self.data.leakage:
            self._share(row, split)
        self._words.add((word.lower().strip(".,;:!?()[]\"'") for word in spoken), split)
        if row["task"] == "vqa":
            self._answers.add(plain, split, value)

    def _share(self, row: Mapping[str, Any], split: str) -> None:
        text = "\0".join(" ".join((row[name] or "").casefold().split()) for name in ("prompt", "target"))
        found = {"texts": text, "repeats": f"{row['sha256']}\0{text}", "groups": row["group"] or ""}
        for name, keys in self._shared.items():
            keys.add(found[name], split)

    def _name(self) -> None:
        """Read the answers once more for the words of the frequent ones."""
        wanted = self._answers.wanted(TOP)
        for _, batch in self.data.batches(("task", "target")):
            if not wanted:
                return
            rows = batch.to_pylist()
            self._answers.name(wanted, (" ".join(words(row["target"] or "")) for row in rows if row["task"] == "vqa"))

    def told(self) -> dict[str, Any]:
        data = self.data
        told: dict[str, Any] = {
            "path": str(data.path),
            "title": data.title,
            "samples": sum(shard.rows for shard in data.shards),
            "splits": {split: sum(shard.rows for shard in data.of(split)) for split in data.splits},
            "counts": {name: table.ranked() for name, table in self._tables.items()},
            "words": {task: summary(lengths) for task, lengths in sorted(self._lengths.items())},
            "vocabulary": self._words.told(),
        }
        if self._answers.total():
            told["answers"] = self._told_answers()
        if self.by is not None:
            told["by"] = {"column": self.by, "values": {value: self._value(value) for value in self._values.ranked()}}
        told["shared"] = data.leakage or _counted(self.pictures, self._shared)
        return told

    def _told_answers(self) -> dict[str, Any]:
        total = self._answers.total()
        return {
            "questions": total,
            "most_common": [_answer(*found, total) for found in self._answers.ranked(TOP)],
            "constant": self._constant(None),
        }

    def _constant(self, value: str | None) -> dict[str, Any] | None:
        """Return train's most common answer, and the share of each split that it answers."""
        best = self._answers.ranked(1, "train", value) or self._answers.ranked(1, None, value)
        if not best:
            return None
        totals = {split: self._answers.total(split, value) for split in SPLITS}
        shares = {
            split: round(self._answers.times(best[0][0], split, value) / total, 4)
            for split, total in totals.items()
            if total
        }
        return {"answer": best[0][0], "share": shares}

    def _value(self, value: str) -> dict[str, Any]:
        splits = self._values.ranked()[value]
        return {
            "samples": splits,
            "words": summary(self._by_value[value]),
            "constant": self._constant(value),
        }


def _answer(text: str, count: int, total: int) -> dict[str, Any]:
    return {"answer": text, "count": count, "share": round(count / total, 4)}


def _label(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return NOT_STATED if value is None else str(value)


def _counted(pictures: Keys, keys: Mapping[str, Keys]) -> dict[str, dict[str, int]]:
    """Return what the splits share as `split_leakage.shared` does, but for pictures that nearly look the same."""
    images, samples, found = pictures.by_split(), pictures.entries(), {}
    for one, other in PAIRS:
        if one in images and other in images:
            found[f"{one}/{other}"] = {
                "images": pictures.shared(one, other)[0],
                "of_images": images[other],
                "texts": keys["texts"].shared(one, other)[1],
                "repeats": keys["repeats"].shared(one, other)[1],
                "of_samples": samples[other],
                "groups": keys["groups"].shared(one, other)[0],
            }
    return found


def _pictures(data: DataSet, keys: Keys, advance: Advance) -> dict[str, Any]:
    """Return formats and sizes of the different pictures, and how many a sample has."""
    numbers, _ = keys.numbered()
    _, first = np.unique(numbers, return_index=True)
    fresh = np.zeros(len(numbers), bool)
    fresh[first] = True
    formats: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    sizes: dict[str, Counter[int]] = {"width": Counter(), "height": Counter(), "bytes": Counter()}
    a_sample: Counter[int] = Counter()
    row = 0
    for _, batch in data.batches(("image", "more_images"), rows=PICTURES):
        stored, views = batch.column(0), batch.column(1)
        for at in range(batch.num_rows):
            more = views[at].as_py() or []
            a_sample[1 + len(more)] += 1
            for picture in [*([stored[at].as_py()] if fresh[row] else []), *more]:
                _measure((picture or {}).get("bytes") or b"", formats, modes, sizes)
            row += 1
        advance(row, len(numbers))
    return {
        "different": len(first),
        "formats": _ranked(formats),
        "modes": _ranked(modes),
        **{name: summary(found) for name, found in sizes.items()},
        "a_sample": {str(number): a_sample[number] for number in sorted(a_sample)},
    }


def _measure(content: bytes, formats: Counter[str], modes: Counter[str], sizes: dict[str, Counter[int]]) -> None:
    try:
        with PILImage.open(io.BytesIO(content)) as image:
            form, mode, (width, height) = image.format or "unknown", image.mode, image.size
    except Exception:
        # Damaged bytes are answered with nearly any exception.
        formats["cannot be read"] += 1
        return
    formats[form] += 1
    modes[mode] += 1
    for name, number in (("width", width), ("height", height), ("bytes", len(content))):
        sizes[name][number] += 1


def _ranked(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
