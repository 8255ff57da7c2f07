"""Small copies of ROCO, ROCOv2 and M3IT in exactly the layout that each is published in, quirks included.

`LAYOUTS` names each layout as source, or source/form, and maps it to make(folder, records) -> the folder for --input.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

CODES = ("CC BY", "CC BY-NC", "CC BY-NC-SA", "CC BY-NC-ND", "NO-CC CODE", "CC0", "CC BY-ND")
CAPTION = 'Axial CT of the thorax, slice {0}: nodule (arrow), 5 × 4 cm – “solid”, a "ring".'


def jpeg(shade: int) -> bytes:
    """Return a JPEG of one shade; another one for each number."""
    file = io.BytesIO()
    Image.new("RGB", (12, 10), (shade % 256, 40, 255 - shade % 256)).save(file, "JPEG", comment=str(shade))
    return file.getvalue()


def roco(folder: Path, count: int) -> Path:
    """Write `count` figures over the six folders of the repository; every third has no concepts."""
    places = [f"{split}/{kind}" for split in ("train", "validation", "test") for kind in ("radiology", "non-radiology")]
    for number, name in enumerate(places):
        roco_part(folder / "data" / name, list(range(number, count, len(places))))
    return folder


def roco_part(here: Path, numbers: list[int]) -> Path:
    """Write one folder: captions begin with one blank or two and may end with some, lines end with a line feed."""
    (here / "images").mkdir(parents=True)
    captions, cuis, links, rights = [], [], [], ["ROCO_ID,PMC_ID,CC\n"]
    for n in numbers:
        roco, article, image = f"ROCO_{n:05}", f"PMC{300 + n // 2}", f"jkms-26-{n}-g001.jpg"
        captions.append(f"{roco}\t{'  ' if n % 4 == 3 else ' '}{CAPTION.format(n)}{'  ' if n % 5 == 0 else ''}\n")
        cuis.append(f"{roco}\t" + ("" if n % 3 == 0 else f"\tC0040405\tC{n:07}") + "\n")
        package = f"wget -r ftp://ftp.ncbi.nlm.nih.gov/pub/pmc/oa_package/1e/ed/{article}.tar.gz -P /path/to/Dir"
        links.append(f"{roco}\t{package}\t{image}\n")
        rights.append(f"{roco},{article}_{image},{CODES[n % len(CODES)]}\n")
        (here / "images" / f"{article}_{image}").write_bytes(jpeg(n))
    for name, lines in (("captions", captions), ("cuis", cuis), ("dlinks", links), ("licences", rights)):
        (here / f"{name}.txt").write_text("".join(lines), encoding="utf-8", newline="")
    for name in ("keywords", "semtypes"):
        words = "".join(f"ROCO_{n:05}\tlung\tnodule\n" for n in numbers)
        (here / f"{name}.txt").write_text(words, encoding="utf-8", newline="")
    return here


def table(path: Path, names: list[str], rows: list[list[Any]]) -> None:
    """Write a CSV file with a header."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([names, *rows])


def rocov2(folder: Path, count: int, packed: bool = True) -> Path:
    """Write Zenodo's tables and archives; `packed` False: the archives as people unpack them, beside their names."""
    folder.mkdir(parents=True)
    rights = []
    for place, split in enumerate(("train", "valid", "test")):
        ids = [f"ROCOv2_2023_{split}_{n:06}" for n in range(1 + place, 1 + count, 3)]
        numbers = range(1 + place, 1 + count, 3)
        table(folder / f"{split}_captions.csv", ["ID", "Caption"], [[i, f"{CAPTION.format(i)} "] for i in ids])
        table(folder / f"{split}_concepts.csv", ["ID", "CUIs"], [[i, "C0040405;C0817096"] for i in ids])
        table(folder / f"{split}_concepts_manual.csv", ["ID", "CUIs"], [[i, "C0040405"] for i in ids])
        for i, n in zip(ids, numbers, strict=True):
            code = "CC BY-NC" if n % 2 else "CC BY"
            article = f"PMC{n}"
            rights.append(
                [i, article, f"{code} [Muacevic et al. (2022)]", f"https://www.ncbi.nlm.nih.gov/pmc/{article}/"]
            )
        with zipfile.ZipFile(folder / f"{split}_images.zip", "w") as archive:
            for i, n in zip(ids, numbers, strict=True):
                archive.writestr(f"{split}/{i}.jpg", jpeg(n))
        if not packed:
            with zipfile.ZipFile(folder / f"{split}_images.zip") as archive:
                archive.extractall(folder / f"{split}_images")
            (folder / f"{split}_images.zip").unlink()
    table(folder / "license_information.csv", ["ID", "PMCID", "Attribution", "Link"], rights)
    table(folder / "cui_mapping.csv", ["CUI", "Canonical name"], [["C0040405", "X-Ray Computed Tomography"]])
    return folder


def rocov2_hub(folder: Path, count: int) -> Path:
    """Write the parquet files of the Hub, in row groups of a few rows."""
    (folder / "data").mkdir(parents=True)
    for place, (split, short) in enumerate((("train", "train"), ("validation", "valid"), ("test", "test"))):
        rows = [
            {
                "image": {"bytes": jpeg(n), "path": f"ROCOv2_2023_{short}_{n:06}.jpg"},
                "image_id": f"ROCOv2_2023_{short}_{n:06}",
                "caption": f"{CAPTION.format(n)}\n",
                "cui": ["C1306645", "C0817096"],
            }
            for n in range(1 + place, 1 + count, 3)
        ]
        image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        names = pa.schema([("image", image), ("image_id", pa.string()), ("caption", pa.string())])
        schema = names.append(pa.field("cui", pa.list_(pa.string())))
        pq.write_table(
            pa.Table.from_pylist(rows, schema), folder / "data" / f"{split}-00000-of-00001.parquet", row_group_size=4
        )
    return folder


def m3it(folder: Path, count: int) -> Path:
    """Write one set of captions whose pictures are texts, and one of questions whose pictures are lists of texts."""
    for task, name in (("captioning", "textcap"), ("vqa", "okvqa")):
        here = folder / "data" / task / name
        here.mkdir(parents=True)
        wordings = [f"Answer the question {how}." for how in ("briefly", "in one word", "by what you see")]
        (here / "instructions.json").write_text(json.dumps(wordings), encoding="utf-8")
    for n in range(count):
        text = base64.b64encode(jpeg(n)).decode()
        captions = n % 2 == 0
        split = ("train", "val", "test")[n // 2 % 3]
        here = folder / "data" / ("captioning/textcap" if captions else "vqa/okvqa")
        record = {
            "inputs": "" if captions else f"What stands at place {n}?",
            "outputs": f"A sign that says {n}. ",
            "image_base64_str": text if captions else [text, base64.b64encode(jpeg(n + 128)).decode()],
        }
        if captions:
            record["instruction"] = "Write a short caption."
        with open(here / f"{split}.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    return folder


LAYOUTS: dict[str, Callable[[Path, int], Path]] = {
    "roco": roco,
    "rocov2": rocov2,
    "rocov2/unpacked": lambda folder, count: rocov2(folder, count, packed=False),
    "rocov2/hub": rocov2_hub,
    "m3it": m3it,
}
