"""Prepared data sets as training and evaluation read them: rows by split, mixed by weight, capped by seed."""

from __future__ import annotations

import dataclasses
import json
import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from medvlm.errors import InputError
from medvlm.io import resource_errors, sha256_file, stable_hash
from medvlm.licenses import policy
from medvlm.recipe.models import DataPart

_TEXT_COLUMNS = (
    "id", "task", "prompt", "target", "language", "finding", "group", "license", "commercial_use", "modality",
    "answer_type", "question_type", "source", "organ", "choices", "license_scope", "third_party",
)  # fmt: skip


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
        source = _SOURCES.get(Path(path).name)
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


class Rows:
    """The rows of one split: texts in memory, pictures read from disk when asked for.

    Args:
        folder: a prepared data set.
        split: train, validation or test.
        tasks: only rows of these tasks; None is all.
    """

    def __init__(self, folder: DataFolder, split: str, tasks: Sequence[str] | None = None) -> None:
        self.folder = folder
        shards = folder.shards(split)
        self._data: Any = _arrow(shards) if shards else None
        columns = self._text_columns()
        self.texts: list[dict[str, Any]] = []
        self._places: list[int] = []
        for place in range(len(columns["id"]) if columns else 0):
            if tasks is None or columns["task"][place] in tasks:
                self.texts.append({name: values[place] for name, values in columns.items()})
                self._places.append(place)

    def _text_columns(self) -> dict[str, list[Any]]:
        if self._data is None:
            return {}
        missing = [name for name in ("id", "image", "task", "prompt", "target") if name not in self._data.column_names]
        if missing:
            raise InputError(f"data: {self.folder.path} lacks the columns {', '.join(missing)}; prepare it again")
        return {name: self._data[name][:] for name in _TEXT_COLUMNS if name in self._data.column_names}

    def __len__(self) -> int:
        return len(self.texts)

    def encoded(self, row: int) -> bytes:
        """Return the picture of `row` as its file holds it."""
        data: bytes = self._data[self._places[row]]["image"]["bytes"]
        return data

    def image(self, row: int) -> Any:
        """Return the picture of `row`, decoded to RGB."""
        from medvlm.data.images import decode

        return decode(self.encoded(row), str(self.texts[row]["id"]))

    def licenses(self) -> Counter[str]:
        """Count the rows by license, as `policy.of_sample` tells it."""
        return Counter(
            policy.of_sample(text.get("license"), text.get("license_scope"), text.get("third_party"))
            for text in self.texts
        )


def _arrow(shards: Sequence[Path]) -> Any:
    """Open shards through `datasets`, which keeps a memory-mapped copy in its cache for random access."""
    import datasets

    with resource_errors(datasets.config.HF_DATASETS_CACHE, "close other programs"):
        return _load(shards)


def _load(shards: Sequence[Path]) -> Any:
    import datasets

    # Else the library tells a server of every reading, of local files too, and waits where there is no network.
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    quiet = datasets.utils.logging
    level = quiet.get_verbosity()
    quiet.set_verbosity_error()
    bars = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        data = datasets.load_dataset("parquet", data_files=[str(shard) for shard in shards], split="train")
        return data.cast_column("image", datasets.Image(decode=False)).remove_columns(
            [name for name in data.column_names if name not in (*_TEXT_COLUMNS, "image")]
        )
    except (OSError, ValueError, datasets.exceptions.DatasetGenerationError) as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise InputError(
            f"data: {os.path.dirname(shards[0])}: a shard cannot be read ({reason}); prepare again"
        ) from error
    finally:
        quiet.set_verbosity(level)
        if bars:
            datasets.enable_progress_bars()


@dataclasses.dataclass(frozen=True, slots=True)
class Pick:
    """One place of the mixture: which data set, which of its rows."""

    part: int
    row: int


class Mixture:
    """Several data sets as one, in a fixed order: an epoch visits every place once, shuffled by the trainer.

    A weight of 2 lists every row twice, 0.5 a fixed random half; a cap keeps a fixed random choice before weighting.

    Args:
        parts: the recipe's `data`.
        split: train, validation or test. Weights and caps hold for train only.
        seed: of the choices.
        weighted: apply weights and caps; by default for the train split only. What is evaluated stays whole.
    """

    def __init__(self, parts: Sequence[DataPart], split: str, seed: int, weighted: bool | None = None) -> None:
        if weighted is None:
            weighted = split == "train"
        self.parts, self.split = parts, split
        self.folders = [DataFolder.open(part.path) for part in parts]
        self.rows = [Rows(f, split, part.tasks) for f, part in zip(self.folders, parts, strict=True)]
        self.picks: list[Pick] = []
        for number, (part, rows) in enumerate(zip(parts, self.rows, strict=True)):
            places = _choose(len(rows), part, seed + number) if weighted else range(len(rows))
            self.picks.extend(Pick(number, place) for place in places)

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

    def texts(self) -> Iterator[dict[str, Any]]:
        """Yield the text columns of all places in order."""
        return (self.text(place) for place in range(len(self)))

    def facts(self) -> list[dict[str, Any]]:
        """Return what run.json says of the data: path, fingerprint, rows, weight, licenses, synthetic, title."""
        return [
            {
                "path": part.path,
                "fingerprint": folder.fingerprint(),
                "rows": len(rows),
                "weight": part.weight,
                "cap": part.cap,
                "tasks": part.tasks,
                "licenses": dict(sorted(rows.licenses().items())),
                "synthetic": folder.synthetic,
                "title": folder.manifest.get("card", {}).get("title", part.path),
            }
            for part, folder, rows in zip(self.parts, self.folders, self.rows, strict=True)
        ]

    def licenses(self) -> Counter[str]:
        """Count all rows by license."""
        total: Counter[str] = Counter()
        for rows in self.rows:
            total.update(rows.licenses())
        return total


def _choose(count: int, part: DataPart, seed: int) -> list[int]:
    """Return the row numbers of one data set that an epoch visits, in order of their rows."""
    chance = random.Random(seed)
    rows = list(range(count))
    if part.cap is not None and part.cap < count:
        rows = sorted(chance.sample(rows, part.cap))
    whole, share = divmod(part.weight, 1.0)
    extra = sorted(chance.sample(rows, round(share * len(rows))))
    return rows * int(whole) + extra
