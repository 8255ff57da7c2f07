"""Which file of a folder lists its images; where there is none, the text files beside the images.

Followed are the layouts of `datasets`' ImageFolder (huggingface.co/docs/datasets/image_dataset): metadata.csv,
metadata.jsonl or metadata.parquet in the folder or in train/, validation/, test/; else any one table there, under any
name.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from medvlm.data.look import PictureError
from medvlm.data.sources import pictures, records
from medvlm.data.sources.files import relative
from medvlm.data.sources.own import ENDINGS
from medvlm.data.sources.own_fields import number_of, split_of_path
from medvlm.data.sources.records import Bad, Record, Slice
from medvlm.errors import InputError

TABLE_ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
PAIR_COLUMNS = ("file_name", "text", "folder")
"""What a record of an image with a text file beside it holds."""
PAIRS = "pairs"
"""The kind of a slice of images with text files beside them."""
NO_TEXT_FILE = "no text file beside the image"

_SPREADSHEETS = (".xlsx", ".xls", ".ods")


def find(folder: Path) -> list[Path]:
    """Return the tables of an input in a fixed order; the folder itself where texts lie beside the images.

    Raises:
        InputError: there is neither, or it cannot be told which of several tables lists the images.
    """
    if folder.is_file():
        records.kind_of(folder)
        return [folder]
    tables = _candidates(folder)
    named = [path for path in tables if path.stem.lower() == "metadata"]
    tables = named or tables
    if len(tables) > 1:
        _check_alike(folder, tables)
    if tables:
        return tables
    if any(image and text for image, text in listing(str(folder))):
        return [folder]
    raise InputError(f"{folder}: {_what_is_there(folder)}")


def _candidates(folder: Path) -> list[Path]:
    """Return the tables in a folder, in its folders named after splits, and the files named metadata one level down."""
    within = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = [path for place in [folder, *within] for path in sorted(place.iterdir()) if path.is_file()]
    taken = [
        path
        for path in found
        if path.suffix.lower() in TABLE_ENDINGS
        and not path.name.startswith(".")
        and (path.parent == folder or path.stem.lower() == "metadata" or _of_splits(path.parent.name))
    ]
    check_links(folder, taken)
    return taken


def check_links(folder: Path, found: list[Path]) -> None:
    """Make sure that files of records lie in the folder that was given.

    Raises:
        InputError: a link leads out of it.
    """
    for path in found:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{path}: a link out of {folder}; copy the file there, or name it: --input {path}")


def _of_splits(name: str) -> bool:
    # data/ is where the Hub has the parquet files of a data set.
    return name.lower() == "data" or split_of_path(name) is not None


def _check_alike(folder: Path, tables: list[Path]) -> None:
    """Make sure that several tables are parts of one.

    Raises:
        InputError: their columns differ.
    """
    columns = [frozenset(records.columns(table)) for table in tables]
    widest = max(columns, key=len)
    if any(not one <= widest for one in columns):
        names = ", ".join(relative(folder, table) for table in tables[:6])
        raise InputError(
            f"{folder}: holds {len(tables)} tables with different columns ({names}); name the one that lists the "
            f"images: --input {tables[0]}"
        )


def _what_is_there(folder: Path) -> str:
    """Return why a folder cannot be read, by what lies there."""
    names = [path.name for path in folder.iterdir()]
    sheets = [name for name in names if name.lower().endswith(_SPREADSHEETS)]
    if sheets:
        return f"{sheets[0]} is a spreadsheet; save it as CSV (UTF-8) beside it"
    if any(name.lower().endswith(".dcm") or name == "DICOMDIR" for name in names):
        return "holds DICOM files; medvlm prepare dicom reads them"
    if any(name.lower().endswith(".json") for name in names):
        return "no table with the texts, only JSON files; for conversations: medvlm prepare jsonl; or name the file"
    count = sum(image is not None for image, _ in listing(str(folder)))
    return (
        f"{count} images, but no table with their texts ({', '.join(TABLE_ENDINGS)}) and no .txt file of the same name "
        "beside any; add one of them"
    )


@functools.lru_cache(maxsize=4)
def listing(folder: str) -> list[tuple[str | None, str | None]]:
    """Return (image, text file) of each picture below a folder, sorted; a text without a picture has None for it.

    Names are relative to the folder. Hidden files are left out, links to folders are not followed.
    """
    images: dict[str, list[str]] = {}
    texts: dict[str, str] = {}
    for name in walk(Path(folder)):
        path = PurePosixPath(name)
        stem = path.with_suffix("").as_posix()
        if path.suffix.lower() in ENDINGS:
            images.setdefault(stem, []).append(name)
        elif path.suffix.lower() == ".txt":
            texts[stem] = name
    pairs: list[tuple[str | None, str | None]] = [(image, texts.get(stem)) for stem in images for image in images[stem]]
    pairs += [(None, text) for stem, text in texts.items() if stem not in images]
    return sorted(pairs, key=lambda pair: (pair[0] or pair[1] or "", pair[1] or ""))


def walk(folder: Path) -> Iterator[str]:
    """Yield the names of all files below a folder, relative to it, without hidden ones, in no fixed order."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                yield Path(place, name).relative_to(folder).as_posix()


def slices(folder: Path) -> list[Slice]:
    """Return the slices of a folder with texts beside the images."""
    count = len(listing(str(folder)))
    return [
        (str(folder), PAIRS, str(start), str(min(start + records.ROWS, count)))
        for start in range(0, count, records.ROWS)
    ]


def read(locator: Slice) -> Iterator[tuple[int, Record | Bad]]:
    """Yield {"file_name", "text", "folder"} of each picture of a slice of `slices`."""
    folder, _, start, stop = locator
    for number, (image, text) in enumerate(listing(folder)[int(start) : int(stop)], int(start)):
        yield number, _pair(Path(folder), image, text)


def _pair(folder: Path, image: str | None, text: str | None) -> Record | Bad:
    if text is None:
        return Bad(NO_TEXT_FILE, image or "")
    if image is None:
        return Bad(pictures.NO_FILE, f"none beside {text}")
    content = _text(folder, text)
    above = PurePosixPath(image).parent.as_posix()
    return content if isinstance(content, Bad) else {"file_name": image, "text": content, "folder": above}


def _text(folder: Path, name: str) -> str | Bad:
    """Return the content of a text file that lies where it says."""
    try:
        if pictures.within(folder, name) is None:
            return Bad("text file cannot be read", f"{name}: no plain file")
        with open(folder / name, "rb") as file:
            data = file.read(4 * records.FIELD_CHARS + 1)
        return records.decode(data, name)
    except (OSError, InputError, PictureError) as error:
        said = f"{error.reason}: {name}" if isinstance(error, PictureError) else str(error)
        return Bad("text file cannot be read", said)


def everything(table: Path) -> Iterator[Record | Bad]:
    """Yield all records of a table, or of a folder with texts beside the images, and what is wrong with the others.

    Raises:
        InputError: the table cannot be read.
    """
    of_folder = table.is_dir()
    for locator in slices(table) if of_folder else records.slices(table):
        yield from (record for _, record in (read(locator) if of_folder else records.read(locator)))


def survey(table: Path, wanted: Callable[[str], bool]) -> dict[str, set[str]]:
    """Return the names of the columns of all records, with the numbers made of digits in those that are wanted.

    Raises:
        InputError: the table cannot be read.
    """
    if table.is_dir():
        return {name: set() for name in PAIR_COLUMNS}
    found: dict[str, set[str]] = {}
    if records.kind_of(table) in ("csv", "tsv", "parquet"):
        names = [name for name in records.columns(table) if name]
        return {name: set(_digits(values(table, name))) if wanted(name) else set() for name in names}
    chosen: dict[str, bool] = {}
    for record in records.everything(table):
        for name, value in record.items():
            seen = found.setdefault(name, set())
            if chosen.setdefault(name, wanted(name)):
                seen.update(_digits([value]))
    return found


def _digits(cells: Iterable[Any]) -> Iterator[str]:
    """Yield the numbers among some fields that are made of digits alone."""
    return (text for cell in cells if re.fullmatch("[0-9]{1,40}", text := number_of(cell)))


def values(table: Path, column: str) -> Iterator[Any]:
    """Yield one column of all records that can be read; of a parquet file nothing else is loaded, pictures least.

    Raises:
        InputError: the table cannot be read.
    """
    if table.suffix.lower() != ".parquet" or table.is_dir():
        yield from (record.get(column) for record in everything(table) if isinstance(record, dict))
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(table) as file:
            if column not in file.schema_arrow.names:
                yield from [None] * file.metadata.num_rows
                return
            for batch in file.iter_batches(1024, columns=[column]):
                yield from (row[column] for row in batch.to_pylist())
    except (OSError, pa.ArrowException, ValueError) as error:
        raise InputError(f"{table}: cannot be read ({' '.join(str(error).split())[:160]}); fetch it again") from error
