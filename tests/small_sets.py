"""Small prepared data sets, made by the real engine of samples that a test lists; and ways to break them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq

from medvlm.data import schema
from medvlm.data.output import read_json
from medvlm.data.prepare import Settings, prepare
from medvlm.data.sample import Credit, Image, Reject, Sample
from medvlm.data.sources.base import Unit
from medvlm.io import sha256_file, stable_hash, write_json

LATER = ("views", "concepts", "indication", "identifiers", "official_split")
"""Columns that schema 2 did not have."""


def png(shade: int, size: tuple[int, int] = (8, 6)) -> bytes:
    """Return a PNG of one color; another one for each number."""
    buffer = io.BytesIO()
    PIL.Image.new("RGB", size, (shade % 256, shade // 256 % 256, shade // 65536)).save(buffer, "PNG")
    return buffer.getvalue()


def scan(seed: int, form: str = "PNG", side: int = 160) -> bytes:
    """Return a picture with soft structure, as scans have and drawings have not; the same seed looks the same."""
    coarse = np.random.default_rng(seed).integers(0, 160, (6, 6)).astype(np.uint8)
    picture = PIL.Image.fromarray(coarse).resize((side, side), PIL.Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, form)
    return buffer.getvalue()


def sample(of: str, number: int, shade: int = -1, split: str = "train", **changes: Any) -> Sample:
    """Return a question about a picture of one color."""
    fields: dict[str, Any] = {
        "id": f"{of}/{number}",
        "image": Image(png(shade if shade >= 0 else number), f"{number}.png"),
        "task": "vqa",
        "prompt": f"What is number {number}?",
        "target": f"answer {number}",
        "language": "en",
        "source": "listed",
        "group": of,
        "official_split": split,
        "file_name": f"{number}.png",
        "license": "CC-BY-4.0",
        "license_scope": "dataset",
        "commercial_use": "yes",
    }
    return Sample(**{**fields, **changes})


class Listed:
    """A source that holds its samples, all in one unit."""

    name = "listed"

    def __init__(self, items: Sequence[Sample | Reject | Credit], title: str) -> None:
        self.items, self.title = items, title

    def describe(self) -> list[dict[str, Any]]:
        told = [repr(item) for item in self.items]
        return [{"path": "listed", "sha256": stable_hash([told, self.title]), "bytes": 0}]

    def units(self) -> list[Unit]:
        return [Unit("all", ())]

    def prefetch(self, units: Sequence[Unit]) -> None:
        return

    def read(self, unit: Unit) -> Iterator[Sample | Reject | Credit]:
        yield from self.items

    def card(self) -> dict[str, Any]:
        return {"title": self.title, "citation": f"About {self.title}.", "known_problems": ["Made up."]}


def prepared(
    folder: Path, items: Sequence[Sample | Reject | Credit], *, split: str = "official", license: str = "any"
) -> Path:
    """Prepare a data set of `items` in `folder`."""
    source = Listed(items, f"Set {folder.name}")
    command = f"medvlm prepare {folder.name}"
    prepare(source, folder, Settings(license, split=split), workers=1, command=command)
    return folder


def rows_of(folder: Path, split: str = "*") -> list[dict[str, Any]]:
    """Return all rows with the split that they lie in, read with pyarrow alone."""
    found = []
    for path in sorted((folder / "data").glob(f"{split}-*.parquet")):
        found += [{**row, "in": path.name.partition("-")[0]} for row in pq.read_table(path).to_pylist()]
    return found


def rewrite(
    folder: Path, change: Callable[[list[dict[str, Any]]], Any], split: str = "train", drop: Sequence[str] = ()
) -> None:
    """Change the rows of a shard, and the manifest with it, so that nothing but rows is wrong."""
    (path,) = (folder / "data").glob(f"{split}-*.parquet")
    rows = pq.read_table(path).to_pylist()
    change(rows)
    kept = pa.schema([field for field in schema.SCHEMA if field.name not in drop])
    table = pa.Table.from_pylist([{name: row.get(name) for name in kept.names} for row in rows], schema=kept)
    pq.write_table(table, path)
    manifest = read_json(folder / "manifest.json")
    for shard in manifest["shards"]:
        if shard["name"] == f"data/{path.name}":
            shard |= {"bytes": path.stat().st_size, "sha256": sha256_file(path), "rows": len(rows)}
    manifest["fingerprint"] = stable_hash([(shard["name"], shard["sha256"]) for shard in manifest["shards"]])
    write_json(folder / "manifest.json", manifest)


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the manifest."""
    manifest = read_json(folder / "manifest.json")
    change(manifest)
    write_json(folder / "manifest.json", manifest)


def to_schema_2(folder: Path) -> Path:
    """Make a data set what the version before wrote: fewer columns, no leakage, no way of splitting."""
    for shard in read_json(folder / "manifest.json")["shards"]:
        rewrite(folder, lambda rows: None, shard["split"], LATER)

    def older(manifest: dict[str, Any]) -> None:
        manifest["schema"] = 2
        del manifest["leakage"]
        del manifest["settings"]["split"]

    edit_manifest(folder, older)
    return folder
