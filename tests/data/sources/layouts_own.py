"""Small inputs of `folder` and `jsonl`, as teams have them: pictures, and a table or conversations beside them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq


def png(number: int, size: tuple[int, int] = (20, 16)) -> bytes:
    """Return a picture that no other number has."""
    image = PIL.Image.new("L", size)
    image.putdata([(number * 37 + place * (number % 7 + 3)) % 256 for place in range(size[0] * size[1])])
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def pictures(folder: Path, count: int, form: str = "{:03}.png") -> list[str]:
    """Write pictures and return their names below `folder`."""
    names = [form.format(number) for number in range(count)]
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    return names


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as the file's ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    else:
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def captions(folder: Path, records: int, table: str = "labels.csv") -> Path:
    """Make images/ and a table of captions with patients, two images each."""
    names = pictures(folder / "images", records)
    rows = [
        {"image": name, "caption": f"Radiograph {number} of the chest.", "patient_id": f"P{number // 2:03}"}
        for number, name in enumerate(names)
    ]
    write_table(folder / table, rows)
    return folder


def llava(folder: Path, records: int) -> Path:
    """Make conversations of two turns about a picture each, in LLaVA's form."""
    names = pictures(folder / "images", records)
    rows = [
        {
            "id": f"r{number}",
            "image": f"images/{name}",
            "conversations": [
                {"from": "human", "value": f"<image>\nWhat is seen in {number}?"},
                {"from": "gpt", "value": "The chest."},
                {"from": "human", "value": "Is it normal?"},
                {"from": "gpt", "value": "Yes."},
            ],
        }
        for number, name in enumerate(names)
    ]
    write_table(folder / "chats.jsonl", rows)
    return folder


LAYOUTS: dict[str, Callable[[Path, int], Path]] = {"folder": captions, "jsonl": llava}
"""Source -> what makes an input with so many records in a folder, and returns what --input takes."""
