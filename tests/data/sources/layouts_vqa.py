"""Small copies of the published layouts of VQA-RAD, SLAKE, PathVQA and PMC-VQA, their quirks included."""

from __future__ import annotations

import codecs
import csv
import io
import json
import pickle
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image as PILImage

from medvlm.data.sample import Reject, Sample

RAD: dict[str, Any] = {
    "qid": 7,
    "image_name": "synpic1.jpg",
    "image_organ": "CHEST",
    "answer": 3,
    "answer_type": "CLOSED ",
    "question_type": "COUNT",
    "question": " How many  nodules? ",
    "phrase_type": "freeform",
}
"""A question of VQA-RAD with an integer for its answer and a blank behind its type."""

SLAKE: dict[str, Any] = {
    "img_id": 1,
    "img_name": "xmlab1/source.jpg",
    "question": "What modality is used to take this image?",
    "answer": "MRI",
    "q_lang": "en",
    "location": "Brain_Tissue",
    "modality": "MRI",
    "answer_type": "OPEN",
    "base_type": "vqa",
    "content_type": "Modality",
    "triple": ["vhead", "_", "_"],
    "qid": 0,
}

PMC: dict[str, str] = {
    "Figure_path": "PMC1064097_F1.jpg",
    "Question": "What is the uptake pattern in the breast? ",
    "Answer": "Focal uptake pattern ",
    "Choice A": " A:Diffuse uptake pattern ",
    "Choice B": " B:Focal uptake pattern ",
    "Choice C": " C:No uptake pattern ",
    "Choice D": " D:Cannot determine from the information given ",
    "Answer_label": "B",
}
"""The row that the data set's own card shows, with the blanks of the file."""


def picture(number: int, form: str = "PNG", size: int = 16) -> bytes:
    """Return a picture of noise, another one for each number: none looks like another."""
    pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    PILImage.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def pictures(folder: Path, *names: str) -> None:
    """Write one picture under each name, made from its place in the list."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number, "JPEG"))


def zipped(path: Path, members: Mapping[str, bytes]) -> Path:
    """Write an archive."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def vqa_rad(folder: Path, train: Iterable[object] = (), test: Iterable[object] | None = None) -> Path:
    """Write the classic form with one image; without `test` there is no testset.json."""
    pictures(folder / "images", "synpic1.jpg", "synpic2.jpg")
    (folder / "trainset.json").write_text(json.dumps(list(train)))
    if test is not None:
        (folder / "testset.json").write_text(json.dumps(list(test)))
    return folder


def slake(folder: Path, images: str = "folder", **splits: Sequence[object]) -> Path:
    """Write the JSON files of the splits named, with BOM, and images 1 to 3 in a folder, an archive or nowhere."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in splits.items():
        # Half a character can only stand as an escape.
        text = json.dumps(rows, ensure_ascii=False).encode("utf-8", "backslashreplace")
        (folder / f"{name}.json").write_bytes(codecs.BOM_UTF8 + text)
    names = [f"xmlab{number}/source.jpg" for number in (1, 2, 3)]
    if images == "folder":
        pictures(folder / "imgs", *names)
    elif images == "zip":
        zipped(folder / "imgs.zip", {f"imgs/{name}": picture(number, "JPEG") for number, name in enumerate(names)})
    return folder


def path_vqa(folder: Path, protocol: int = 4, **splits: Sequence[Mapping[str, object]]) -> Path:
    """Write pvqa/: a pickled list for each split named (train, val, test), and two images for each."""
    for split, rows in splits.items():
        qas = folder / "qas" / split
        qas.mkdir(parents=True)
        (qas / f"{split}_qa.pkl").write_bytes(pickle.dumps(list(rows), protocol))
        pictures(folder / "images" / split, f"{split}_0001.jpg", f"{split}_0422.jpg")
    return folder


def pmc_vqa(folder: Path, images: str = "zip", **tables: Sequence[Mapping[str, Any]]) -> Path:
    """Write the CSV files named, and the images that they name; those named `absent...` are not there.

    Version 1 lies in images.zip under images/, version 2 in images_2.zip under figures/; or both unpacked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    places: dict[str, dict[str, bytes]] = {"images": {}, "figures": {}}
    for name, rows in tables.items():
        with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
            writer.writeheader()
            writer.writerows(rows)
        for row in rows:
            figure = str(row.get("Figure_path") or "")
            if figure and "/" not in figure and not figure.startswith("absent"):
                inside = "figures" if name.endswith("_2") else "images"
                places[inside][figure] = picture(sum(map(ord, figure)), "JPEG")
    for (inside, files), archive in zip(places.items(), ("images.zip", "images_2.zip"), strict=True):
        if images == "zip" and files:
            zipped(folder / archive, {f"{inside}/{name}": data for name, data in files.items()})
        for name, data in files.items() if images == "folder" else ():
            (folder / inside).mkdir(exist_ok=True)
            (folder / inside / name).write_bytes(data)
    return folder


def hub(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write a parquet file as `datasets` does: the picture is a struct of bytes and path. Two rows are a row group."""
    path.parent.mkdir(parents=True, exist_ok=True)
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    names = list(dict.fromkeys(key for row in rows for key in row))
    columns = {name: pa.array([row.get(name) for row in rows], struct if name == "image" else None) for name in names}
    pq.write_table(pa.table(columns), path, row_group_size=2)
    return path


def cell(number: int, path: str | None = None) -> dict[str, Any]:
    """Return a picture as it stands in a parquet file."""
    return {"bytes": picture(number), "path": path}


def read(source: Any) -> list[Sample | Reject]:
    """Return all that a source yields, in order."""
    return [item for unit in source.units() for item in source.read(unit)]


def samples(source: Any) -> list[Sample]:
    """Return the samples of a source that drops nothing."""
    found = read(source)
    assert not [item for item in found if not isinstance(item, Sample)]
    return [item for item in found if isinstance(item, Sample)]


def rejects(source: Any) -> list[Reject]:
    """Return what a source drops."""
    return [item for item in read(source) if isinstance(item, Reject)]


def loaded(out: Path, cache: Path) -> list[dict[str, Any]]:
    """Return all rows of a prepared data set as `datasets` reads them, sorted by id."""
    files = {"every": sorted(str(path) for path in (out / "data").iterdir())}
    rows = datasets.load_dataset("parquet", data_files=files, cache_dir=str(cache))["every"]
    return sorted(rows, key=lambda row: str(row["id"]))


def _rad(folder: Path, count: int) -> Path:
    rows = [
        {**RAD, "qid": n, "question": f"How many? {n}", "image_name": f"synpic{n % 2 + 1}.jpg"} for n in range(count)
    ]
    return vqa_rad(folder, rows[::2], rows[1::2])


def _slake(folder: Path, count: int, images: str = "folder") -> Path:
    rows = [{**SLAKE, "qid": n, "img_name": f"xmlab{n % 3 + 1}/source.jpg", "answer": f"MRI {n}"} for n in range(count)]
    return slake(folder, images, train=rows[::2], test=rows[1::2])


def _path(folder: Path, count: int) -> Path:
    rows = [
        {"image": f"train_0{('001', '422')[n % 2]}", "question": f"Is it? {n}", "answer": "yes"} for n in range(count)
    ]
    return path_vqa(folder, train=rows)


def _pmc(folder: Path, count: int, images: str = "zip") -> Path:
    rows = [{**PMC, "Figure_path": f"PMC{n}_F1.jpg", "Question": f"Which pattern? {n}"} for n in range(count)]
    return pmc_vqa(folder, images, train=rows[::2], test=rows[1::2])


def _hub(folder: Path, count: int) -> Path:
    # Rows that share a picture lie in several row groups, and only some of them name it.
    names = [None if n % 3 else f"img_{n}.jpg" for n in range(count)]
    rows = [{"image": cell(n % 5, name), "question": f"Is it? {n}", "answer": "no"} for n, name in enumerate(names)]
    hub(folder / "data" / "train-00000-of-00001.parquet", rows)
    return folder


LAYOUTS: dict[str, Callable[[Path, int], Path]] = {
    "vqa-rad": _rad,
    "vqa-rad/hub": _hub,
    "slake": _slake,
    "slake/zip": lambda folder, count: _slake(folder, count, "zip"),
    "path-vqa": _path,
    "path-vqa/hub": _hub,
    "pmc-vqa": _pmc,
    "pmc-vqa/unpacked": lambda folder, count: _pmc(folder, count, "folder"),
}
"""Source, or source/form -> make(folder, records), which returns the folder for --input."""
