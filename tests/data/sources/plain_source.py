"""The smallest source of published files: a table of notes about pictures, for tests of what all such sources share."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from layouts_captions import jpeg

from medvlm.data.look import PictureError
from medvlm.data.sample import Reject, Sample
from medvlm.data.sources import records
from medvlm.data.sources.facts import Facts
from medvlm.data.sources.files import FileSource, Place, one_of
from medvlm.data.sources.pictures import Pictures
from medvlm.errors import InputError


class PlainSource(FileSource):
    """notes.csv, notes.jsonl, ... with name, picture, text and patient."""

    facts = Facts(
        name="plain",
        title="Plain notes",
        summary="Notes about pictures, made for tests.",
        tasks=("caption",),
        size="as many as made",
        license="CC-BY-4.0",
        gate="none",
        download="nothing: it is made",
        layout="a folder with notes.* and pictures/",
        known_problems=("It is not real.",),
    )
    evidence = "these tests"

    def tables(self, folder: Path) -> list[Path]:
        found = one_of(folder, "notes*")
        if not found:
            raise InputError(f"{folder}: holds no notes; --input takes {self.facts.layout}")
        return found

    def picture_places(self, folder: Path) -> list[Path]:
        return [folder / "pictures"] if (folder / "pictures").is_dir() else []

    def samples(self, record: records.Record, place: Place) -> Iterator[Sample | Reject]:
        problem = records.need(record, "name", "picture", "text")
        if problem:
            yield self.reject(place, "malformed record", problem)
            return
        image = Pictures(place.folder / "pictures").load(str(record["picture"]))
        if isinstance(image, PictureError):
            yield self.without_picture(place, image)
            return
        patient = str(record.get("patient") or record["name"])
        yield self.sample(
            image,
            id=(patient, str(record["name"]), "-", "caption", "0"),
            group=patient,
            task="caption",
            prompt="",
            target=records.text_of(record["text"]) or "",
            organ=records.text_of(record.get("organ")) or None,
        )


def rows(count: int) -> list[dict[str, Any]]:
    """Return `count` records, two to a patient."""
    return [
        {
            "name": f"n{n:04}",
            "picture": f"p{n % 100}.jpg",
            "text": f"Note number {n}.",
            "patient": f"patient {n // 2}",
            "organ": ("chest", "head")[n % 2],
        }
        for n in range(count)
    ]


def plain(folder: Path, count: int, kind: str = "csv") -> Path:
    """Write a folder of `count` records, as CSV, JSON or JSON lines, and its pictures."""
    (folder / "pictures").mkdir(parents=True)
    for n in range(min(count, 100)):
        (folder / "pictures" / f"p{n}.jpg").write_bytes(jpeg(n))
    table = folder / f"notes.{kind}"
    if kind == "csv":
        with open(table, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows(1)[0]))
            writer.writeheader()
            writer.writerows(rows(count))
    elif kind == "json":
        table.write_text(json.dumps(rows(count)), encoding="utf-8")
    else:
        table.write_text("".join(json.dumps(row) + "\n" for row in rows(count)), encoding="utf-8")
    return folder
