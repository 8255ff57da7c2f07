"""`contact_sheet.png` of a data set: 24 samples on one page, each with its caption, license and id.

Which samples: by a hash of their ids, in turn from every modality and split, a picture once and an article as seldom as
may be. The sheet holds shrunk copies and goes where the data set goes: a picture whose license lets no changed copy be
passed on, or that is partly a third party's, is a gray field that says so, and is there only where others are lacking.
The same samples give the same bytes.
"""

from __future__ import annotations

import dataclasses
import functools
import heapq
import io
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image as PILImage
from PIL import ImageDraw, ImageOps

from medvlm.data.images import to_rgb
from medvlm.data.lettering import Font, font, plain, shorten, wrapped
from medvlm.io import atomic_write, sha256_bytes
from medvlm.licenses.policy import may_pass_on

NAME = "contact_sheet.png"
SAMPLES = 24
COLUMNS = 6

_BOX = (236, 177)
_GAP = 14
_HEAD = 58
_LINE = 17
_LINES = 3
_TILE = (_BOX[0], _BOX[1] + 6 + (_LINES + 2) * _LINE)
_KEPT = 4 * SAMPLES
"""So many candidates are remembered for each modality and split."""
_READ = ("id", "sha256", "group", "modality", "license", "third_party")
_TEXTS = ("id", "task", "prompt", "target", "license", "modality", "image")
_INK, _SOFT, _FIELD = (25, 25, 25), (95, 95, 95), (238, 238, 238)


@dataclasses.dataclass(frozen=True, slots=True)
class Sheet:
    """What a contact sheet holds: samples on it, and how many of them are shown as a gray field only."""

    samples: int
    withheld: int


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class _Candidate:
    """A sample that may be shown; ordered by the hash of its id."""

    key: str
    id: str
    sha256: str
    group: str
    shard: str
    row: int
    shown: bool

    @property
    def split(self) -> str:
        return self.shard.partition("-")[0]


def write(path: Path | str, folder: Path, title: str = "") -> Sheet:
    """Draw the contact sheet of the data set whose shards lie in `folder`/data.

    Args:
        path: the PNG file, usually `NAME` in the data set's folder; written atomically.
        folder: holds `data/{split}-*.parquet`.
        title: stands on top.

    Returns:
        How many samples are on the sheet, and how many of them without their picture.

    Raises:
        ResourceError: the disk is full.
    """
    chosen = choose(folder)
    withheld = sum(not one.shown for one in chosen)
    rows = _rows(folder, chosen)
    page = _page(len(chosen), _heading(title, len(chosen), withheld))
    for number, one in enumerate(chosen):
        left = _GAP + number % COLUMNS * (_TILE[0] + _GAP)
        top = _HEAD + number // COLUMNS * (_TILE[1] + _GAP)
        _draw_tile(page, (left, top), rows[one.id], one)
    with atomic_write(path, "wb") as file:
        # 256 colors, of which these pictures are mostly gray: a third of the bytes.
        page.quantize(256, PILImage.Quantize.MEDIANCUT, dither=PILImage.Dither.NONE).save(file, "PNG", optimize=True)
    return Sheet(len(chosen), withheld)


def choose(folder: Path) -> list[_Candidate]:
    """Return the samples to show, at most `SAMPLES`; those whose picture may be shown come first.

    Memory: a few candidates for each modality and split, whatever the size of the data set.
    """
    kept: dict[tuple[bool, str, str], dict[str, _Candidate]] = {}
    for modality, one in _candidates(folder):
        pool = kept.setdefault((one.shown, modality, one.split), {})
        pool[one.sha256] = min(one, pool.get(one.sha256, one))
        if len(pool) > 2 * _KEPT:
            best = heapq.nsmallest(_KEPT, pool.values())
            kept[one.shown, modality, one.split] = {each.sha256: each for each in best}
    chosen: list[_Candidate] = []
    for shown in (True, False):
        pools = [list(kept[key].values()) for key in _in_turn(key for key in kept if key[0] is shown)]
        _take(pools, chosen)
    return chosen


def _in_turn(keys: Iterator[tuple[bool, str, str]]) -> list[tuple[bool, str, str]]:
    """Return the strata so that each modality has its turn before one has another in a further split."""
    seen: Counter[str] = Counter()
    ranked = []
    for key in sorted(keys):
        ranked.append((seen[key[1]], key))
        seen[key[1]] += 1
    return [key for _, key in sorted(ranked)]


def _take(pools: list[list[_Candidate]], chosen: list[_Candidate]) -> None:
    """Take one of each pool in turn until the sheet is full or nothing is left: no picture twice, rare groups first."""
    groups = Counter(one.group for one in chosen)
    pictures = {one.sha256 for one in chosen}
    while len(chosen) < SAMPLES and any(pools):
        for pool in pools:
            pool[:] = [one for one in pool if one.sha256 not in pictures]
            if not pool or len(chosen) == SAMPLES:
                continue
            best = min(pool, key=lambda one: (groups[one.group], one))
            chosen.append(best)
            groups[best.group] += 1
            pictures.add(best.sha256)


def _candidates(folder: Path) -> Iterator[tuple[str, _Candidate]]:
    """Yield every sample with its modality; no picture is read."""
    for path in sorted((folder / "data").glob("*.parquet")):
        number = 0
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(8192, columns=list(_READ)):
                for row in batch.to_pylist():
                    yield row["modality"] or "", _candidate(row, path.name, number)
                    number += 1


def _candidate(row: dict[str, Any], shard: str, number: int) -> _Candidate:
    shown = may_show(row["license"], row["third_party"])
    return _Candidate(sha256_bytes(row["id"].encode()), row["id"], row["sha256"], row["group"], shard, number, shown)


@functools.lru_cache(maxsize=1024)
def may_show(license: str | None, third_party: bool) -> bool:
    """Return whether a shrunk copy of a picture may be passed on, on the license's own conditions."""
    return not third_party and may_pass_on(license, changed=True) in ("yes", "conditional")


def _rows(folder: Path, chosen: list[_Candidate]) -> dict[str, dict[str, Any]]:
    """Return what the sheet tells of each chosen sample, by id; a row group at a time is read, and each once."""
    wanted: dict[str, dict[int, str]] = {}
    for one in chosen:
        wanted.setdefault(one.shard, {})[one.row] = one.id
    found: dict[str, dict[str, Any]] = {}
    for shard, rows in sorted(wanted.items()):
        with pq.ParquetFile(folder / "data" / shard) as file:
            start = 0
            for number in range(file.num_row_groups):
                end = start + file.metadata.row_group(number).num_rows
                inside = [row for row in rows if start <= row < end]
                if inside:
                    table = file.read_row_group(number, columns=list(_TEXTS))
                    found |= {rows[row]: table.slice(row - start, 1).to_pylist()[0] for row in inside}
                start = end
    return found


def _page(tiles: int, heading: tuple[str, str]) -> PILImage.Image:
    width = _GAP + COLUMNS * (_TILE[0] + _GAP)
    lines = -(-tiles // COLUMNS)
    page = PILImage.new("RGB", (width, _HEAD + lines * (_TILE[1] + _GAP)), "white")
    draw = ImageDraw.Draw(page)
    large = font(20)
    draw.text((_GAP, 8), shorten(plain(heading[0], large), large, width - 2 * _GAP), _INK, large)
    small = font(13)
    draw.text((_GAP, 34), shorten(plain(heading[1], small), small, width - 2 * _GAP), _SOFT, small)
    return page


def _heading(title: str, samples: int, withheld: int) -> tuple[str, str]:
    rest = (
        f"{samples} samples, chosen by a hash of their ids in turn from every modality and split. Pictures are shrunk."
    )
    if withheld:
        rest += f" {withheld} not shown: their license allows no changed copies, or a third party has rights."
    return title or "Contact sheet", rest


def _draw_tile(page: PILImage.Image, corner: tuple[int, int], row: dict[str, Any], one: _Candidate) -> None:
    draw = ImageDraw.Draw(page)
    left, top = corner
    picture = _thumbnail(row["image"]["bytes"]) if one.shown else "picture not shown"
    draw.rectangle((left, top, left + _BOX[0] - 1, top + _BOX[1] - 1), fill=_FIELD)
    text, small = font(13), font(12)
    if isinstance(picture, str):
        draw.text((left + _BOX[0] // 2, top + _BOX[1] // 2), picture, _SOFT, text, anchor="mm")
    else:
        page.paste(picture, (left + (_BOX[0] - picture.width) // 2, top + (_BOX[1] - picture.height) // 2))
    top += _BOX[1] + 6
    for line in wrapped(plain(_caption(row), text), text, _BOX[0], _LINES) if one.shown else ():
        draw.text((left, top), line, _INK, text)
        top += _LINE
    top = corner[1] + _BOX[1] + 6 + _LINES * _LINE
    license = (row["license"] or "no license stated").replace("LicenseRef-", "")
    told = " · ".join(filter(None, (license, row["modality"], one.split)))
    _soft_line(draw, (left, top), told, small, middle=False)
    _soft_line(draw, (left, top + _LINE), row["id"], small, middle=True)


def _soft_line(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, face: Font, *, middle: bool) -> None:
    draw.text(place, shorten(plain(text, face), face, _BOX[0], middle=middle), _SOFT, face)


def _caption(row: dict[str, Any]) -> str:
    return f"Q: {row['prompt']} A: {row['target']}" if row["prompt"] else str(row["target"])


def _thumbnail(data: bytes) -> PILImage.Image | str:
    """Return the picture upright, in RGB and no larger than its field; or why there is none."""
    with warnings.catch_warnings():
        # Pillow warns of odd tags and of large pictures; both were judged when the data set was made.
        warnings.simplefilter("ignore")
        try:
            with PILImage.open(io.BytesIO(data)) as image:
                image.draft(image.mode, (2 * _BOX[0], 2 * _BOX[1]))
                image.load()
                small = to_rgb(ImageOps.exif_transpose(image))
                small.thumbnail(_BOX, PILImage.Resampling.LANCZOS)
                return small
        except Exception:
            # Decoders answer damaged bytes with nearly any exception; one such picture must not lose the sheet.
            return "picture cannot be read"
