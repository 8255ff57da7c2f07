"""What the sources of a team's own data share: where the pictures lie, whose the data are, patients, ids and splits.

Own data have no published layout: a table or a file of conversations names pictures somewhere below it. What cannot be
known is asked for (`--data-license`) or guessed and shown; what is copied as it stands (patients' ids) can be replaced
by stand-ins.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from medvlm.data.look import PictureError
from medvlm.data.sample import Image, Reject, Sample
from medvlm.data.sources import pictures
from medvlm.data.sources.base import Unit
from medvlm.data.sources.files import FileSource, Place, relative
from medvlm.data.sources.own_fields import name_in, names_in, part, parts_of, words
from medvlm.data.sources.pictures import Pictures
from medvlm.data.sources.pmc.prose import code_license
from medvlm.data.sources.records import text_of
from medvlm.errors import UsageError
from medvlm.io import sha256_bytes
from medvlm.licenses import expressions
from medvlm.registry import nearest

if TYPE_CHECKING:
    from medvlm.data.phi import Scanner
    from medvlm.data.pseudonyms import Key

OWN_DATA = "LicenseRef-own-data"
"""A team's own images and texts, which nobody else may have; commercial use is for their owner to decide."""

ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".gif", ".bmp")
"""Of picture files; a name without one is tried with each."""


MAX_PICTURES = 64
"""A record of more is refused: all of them are in memory at once."""
RECORD_BYTES = 256 << 20
"""So many bytes the pictures of a record of several may have together."""
ROOT_NAMES = 200
"""So many names are tried to find out where they lead from."""
NO_FILE_READ = "file of records cannot be read"
MISSING_TEXT = "text says that there is none"

_MAX_SUBFOLDERS = 200
_DEEPEST = 32
_NO_IMAGE = "record without image"


@dataclasses.dataclass(frozen=True, slots=True)
class Shown:
    """The pictures of one record, and what to call the first where nothing else names the record."""

    images: list[Image]
    key: str
    folders: tuple[str, ...] = ()
    """Above the first picture, below the folder of pictures."""


@dataclasses.dataclass(frozen=True, slots=True)
class Root:
    """Where names of pictures lead from."""

    folder: Path
    names: int
    """So many were looked for."""
    files: int
    """So many of them lead to a file."""


class OwnSource(FileSource):
    """Data that a team brings itself.

    Args:
        inputs: folders, or files of records.
        scanner: looks for identifiers in the texts.
        only: column of `Sample` -> the values that are asked for.
        images: where the names of pictures lead; None looks around each file of records.
        data_license: of all rows that state none: SPDX expression or LicenseRef.
        key: patients, ids and file names are replaced by stand-ins under it; None copies them as they are.
    """

    def __init__(
        self,
        inputs: Sequence[Path | str],
        scanner: Scanner | None = None,
        only: Mapping[str, Collection[str]] | None = None,
        *,
        images: Path | None = None,
        data_license: str | None = None,
        key: Key | None = None,
    ) -> None:
        super().__init__(inputs, scanner, only)
        self.images, self.key = images, key
        self.data_license = check_license(data_license) if data_license else None
        self.roots: dict[str, Path] = {}
        """File of records -> the folder that its names of pictures begin at."""
        self._opened: dict[Path, Pictures] = {}

    def base(self, folder: Path) -> Path:
        """Return the folder of an input, which may be a file."""
        return folder if folder.is_dir() else folder.parent

    def find_root(self, folder: Path, table: Path, cells: Iterable[Any]) -> Root:
        """Settle where the names in `cells`, the fields of a file's first records, lead from.

        Tried are `images` alone if it is given, else the table's folder, the input's, and the folders within both.
        """
        names = list(itertools.islice((name for cell in cells for name in names_in(cell)), ROOT_NAMES))
        places = [self.images] if self.images else _around(table if table.is_dir() else table.parent, self.base(folder))
        hits = {place: sum(leads(place, name) for name in names) for place in places}
        root = max(places, key=lambda place: hits[place])
        self.roots[str(table)] = root
        return Root(root, len(names), hits[root])

    def pictures_of(self, table: Path) -> Pictures:
        """Return the pictures that a file of records names."""
        root = self.roots.get(str(table), table.parent)
        if root not in self._opened:
            self._opened[root] = Pictures(root, endings=ENDINGS)
        return self._opened[root]

    def load(self, cell: Any, place: Place) -> Shown | PictureError:
        """Return the pictures of a record's field, or why one of them cannot be had."""
        there = self.pictures_of(place.table)
        found = self._load_all(cell, there)
        if isinstance(found, PictureError):
            # A file's name is as telling as a patient's number.
            return PictureError(found.reason) if self.key else found
        images, name = found
        folders: tuple[str, ...] = ()
        if name is None:
            key = sha256_bytes(images[0].data)[:16]
        else:
            whole = self._below(place.folder, there.root, below(there.root, name))
            key = whole.with_suffix("").as_posix() if whole.suffix.lower() in ENDINGS else whole.as_posix()
            folders = whole.parts[:-1]
        if self.key is None:
            return Shown(images, key.replace("/", "_"), folders)
        return Shown([self._renamed(image) for image in images], self.key.pseudonym("file", key), folders)

    def _below(self, folder: Path, root: Path, name: str) -> PurePosixPath:
        """Return a picture's path below the input: the same name in train/ and test/ is of two pictures."""
        base = self.base(folder)
        above = root.relative_to(base).as_posix() if root.is_relative_to(base) else ""
        number = str(self.inputs.index(folder)) if len(self.inputs) > 1 else ""
        return PurePosixPath(number, above, name)

    def _renamed(self, image: Image) -> Image:
        assert self.key is not None
        ending = PurePosixPath(image.name).suffix.lower()
        name = self.key.pseudonym("file name", image.name)
        return dataclasses.replace(image, name=name + (ending if ending in ENDINGS else ""))

    def _load_all(self, cell: Any, there: Pictures) -> tuple[list[Image], str | None] | PictureError:
        images: list[Image] = []
        first: str | None = None
        size = 0
        parts = parts_of(cell, there)
        if len(parts) > MAX_PICTURES:
            return PictureError("too many images in a record", f"more than {MAX_PICTURES}")
        for number, one in enumerate(parts):
            name = name_in(one)
            image = _load_part(one, name, there, number)
            if isinstance(image, PictureError):
                return image
            first = name if number == 0 else first
            size += len(image.data)
            if images and size > RECORD_BYTES:
                return PictureError("images of a record too large", f"more than {RECORD_BYTES >> 20} MiB")
            images.append(image)
        return (images, first) if images else PictureError(_NO_IMAGE)

    def rights(self, cell: Any = None, column: str = "") -> dict[str, Any]:
        """Return the fields of `Sample` on rights: what the record's own license says, else the whole's."""
        text = words(cell)
        # What is no text, such as a list of licenses, states something that nobody here can read.
        stated = str(cell) if text is None else text
        license = read_license(text) if text else None if stated else self.data_license
        of_whole = f"--data-license {license}" if license else None
        return {
            "license": license,
            "license_scope": ("figure" if stated else "dataset") if license else None,
            "license_evidence": f"{column}: {stated}"[:1000] if stated else of_whole,
        }

    def own_sample(self, shown: Shown, id: tuple[str, ...], patient: str, **fields: Any) -> Sample:
        """Return a sample; `id` are the parts behind the group, `patient` may be empty: then the picture is the group.

        Args:
            shown: the pictures.
            id: parts that make it unique in the set.
            patient: as the record has it.
            fields: of `Sample`.
        """
        group = part(self.stand_in("patient", patient)) if patient else part(shown.key)
        more = {"more_images": shown.images[1:]} if shown.images[1:] else {}
        known = {"figure_id": part(shown.key), **more, **fields}
        return self.sample(shown.images[0], id=(group, *map(part, id)), group=group, **known)

    def stand_in(self, kind: str, value: str) -> str:
        """Return a value as it goes into the data set."""
        return self.key.pseudonym(kind, value) if self.key else value

    def token(self, place: Place) -> str:
        """Return what tells a record's file from the others of the data set: "-" where there is only one."""
        files = [(folder, table) for folder in self.inputs for table in self.tables(folder)]
        if len(files) == 1:
            return "-"
        name = relative(place.folder, place.table)
        return self.stand_in("table", f"{self.inputs.index(place.folder)}_{name}" if len(self.inputs) > 1 else name)

    def describe(self) -> list[dict[str, Any]]:
        """Return the files of the input; under a key without their names, which may be those of patients."""
        entries = super().describe()
        if self.key is None:
            return entries
        hidden = [self.key.pseudonym("table", entry["name"]) for entry in entries]
        return [{**entry, "name": name, "path": name} for entry, name in zip(entries, hidden, strict=True)]

    def units(self) -> list[Unit]:
        """Return one unit for each slice of a table; under a key without the names of the tables."""
        units = super().units()
        if self.key is None:
            return units
        hidden = [Unit(f"{self._hidden(unit)} {int(unit.locator[3]):012}", unit.locator) for unit in units]
        return sorted(hidden, key=lambda unit: (unit.name, unit.locator))

    def read(self, unit: Unit) -> Iterator[Sample | Reject]:
        """Yield the samples of a slice, or why there are none; under a key without the name of the table."""
        shown = relative(Path(unit.locator[0]), Path(unit.locator[1]))
        for item in super().read(unit):
            if self.key is None or isinstance(item, Sample):
                yield item
            elif item.reason == NO_FILE_READ:
                yield dataclasses.replace(item, detail="")
            else:
                yield dataclasses.replace(item, where=item.where.replace(f"{shown} ", f"{self._hidden(unit)} ", 1))

    def _hidden(self, unit: Unit) -> str:
        """Return the stand-in of a unit's table."""
        folder, table = Path(unit.locator[0]), Path(unit.locator[1])
        number = f"{self.inputs.index(folder)}_" if len(self.inputs) > 1 else ""
        return self.stand_in("table", number + relative(folder, table))

    def options(self) -> dict[str, Any]:
        """Return the settings that decide the result; of the key only what tells it from others."""
        chosen = {
            "images": str(self.images) if self.images else None,
            "data_license": self.data_license,
            "hash_ids": self.key.fingerprint if self.key else None,
        }
        return {name: value for name, value in chosen.items() if value is not None}


def _load_part(cell: Any, name: str | None, there: Pictures, number: int) -> Image | PictureError:
    if name is not None:
        if re.match(r"[a-z][a-z0-9+.-]+://", name, re.IGNORECASE):
            return PictureError("image is an address, no file", name[:200])
        return (
            there.load(below(there.root, name))
            if text_of(name)
            else PictureError("unsafe image name", ascii(name[:200]))
        )
    if isinstance(cell, str):
        return pictures.from_base64(cell, f"image-{number}")
    if isinstance(cell, dict | bytes):
        return pictures.from_cell(cell, f"image-{number}")
    return PictureError("image name is no text", f"{type(cell).__name__} {cell!r}"[:200])


def _around(*folders: Path) -> list[Path]:
    """Return folders, then the folders within them, each once; no link that leads out of the last."""
    inside = folders[-1].resolve()
    within: list[Path] = []
    for folder in dict.fromkeys(folders):
        try:
            within += sorted(path for path in folder.iterdir() if _is_within(path, inside))
        except OSError:
            continue
    return list(dict.fromkeys([*folders, *within[:_MAX_SUBFOLDERS]]))


def _is_within(path: Path, inside: Path) -> bool:
    return not path.name.startswith(".") and path.is_dir() and path.resolve().is_relative_to(inside)


def below(root: Path, name: str) -> str:
    """Return a name as it leads from `root`: what stands behind the folder where a whole path names a file in it.

    Of a whole path of Windows, which is nowhere here, it is the longest end that leads to a file.
    """
    if re.match("[A-Za-z]:/|//", name):
        parts = [one for one in name.split("/")[1:] if one][-_DEEPEST:]
        return next((end for at in range(len(parts)) if _is_file(root, end := "/".join(parts[at:]))), name)
    if not name.startswith("/"):
        return name
    starts = (f"{folder.as_posix()}/" for folder in (root, root.resolve()))
    return next((name[len(start) :] for start in starts if name.startswith(start)), name)


def leads(root: Path, name: str) -> bool:
    """Whether a name leads to a file below `root`, with its ending or without."""
    return _is_file(root, below(root, name))


def _is_file(root: Path, name: str) -> bool:
    if not pictures.safe(name) or not text_of(name):
        return False
    try:
        return any(pictures.within(root, one) is not None for one in (name, *(name + ending for ending in ENDINGS)))
    except PictureError:
        return False


@lru_cache(maxsize=1024)
def read_license(text: str) -> str | None:
    """Return the SPDX expression or LicenseRef that a record's own words stand for, None where they name none."""
    if found := expressions.from_url(text) or code_license(text):
        return found
    named = expressions.symbols(text)
    return text if named and all(map(expressions.is_license_id, named)) else None


def check_license(text: str) -> str:
    """Return the license of `--data-license` if it is an SPDX expression or a LicenseRef.

    Raises:
        UsageError: it is neither.
    """
    found = read_license(text.strip())
    if found is None:
        known = ("CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", OWN_DATA)
        raise UsageError(
            f'--data-license "{text}" is no license id{nearest(text, known)}; write {OWN_DATA} for your own data that '
            "nobody else may have, or an SPDX id such as CC-BY-4.0"
        )
    return found
