"""Contact sheets: some samples of a data set on one page, each with its caption, license and id.

`contact_sheet.png` of a data set shows 24, small; `medvlm data sample` draws larger ones of what it is asked for.

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
from collections.abc import Iterator, Sequence
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

_GAP = 14
_HEAD = 58
_LINE = 17
_KEPT = 4
"""So many times as many candidates as samples are remembered for each modality and split."""
_READ = ("id", "sha256", "group", "modality", "license", "third_party")
_TEXTS = ("id", "task", "prompt", "target", "license", "modality", "image")
_INK, _SOFT, _FIELD, _ANSWER = (25, 25, 25), (95, 95, 95), (238, 238, 238), (0, 76, 130)
_MOST_VIEWS = 6


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """How a sheet looks; sizes in pixels."""

    columns: int = COLUMNS
    box: tuple[int, int] = (236, 177)
    """Width and height of a picture's field."""
    lines: int = 3
    """Lines of text below it."""
    large: bool = False
    """All views of a sample beside one another, tiles numbered, the text last, the answer below its question and in its
    own color; a line of tiles is only as high as its longest text."""


LARGE = Layout(columns=4, box=(360, 290), lines=9, large=True)


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """Which samples to choose from, and how many."""

    samples: int = SAMPLES
    split: str | None = None
    seed: int = 0
    """Another one chooses others."""
    where: tuple[tuple[str, str], ...] = ()
    """Columns and the values that they must have, in the words of `stated`."""
    private: bool = False
    """Also show pictures that may not be passed on, on a sheet that may not be then."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sheet:
    """What a contact sheet holds: samples on it, and how many of them are shown as a gray field only."""

    samples: int
    withheld: int


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Candidate:
    """A sample that may be on a sheet; ordered by the hash of its id."""

    key: str
    id: str
    sha256: str
    group: str
    shard: str
    row: int
    shown: bool
    free: bool = True
    """Its picture may be passed on, shrunk."""

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
    return draw(path, folder, choose(folder), title)


def draw(
    path: Path | str, folder: Path, chosen: Sequence[Candidate], title: str = "", layout: Layout = Layout()
) -> Sheet:
    """Draw the chosen samples of the data set in `folder`; otherwise as `write`."""
    withheld = sum(not one.shown for one in chosen)
    rows = _rows(folder, chosen, layout)
    lines = [chosen[at : at + layout.columns] for at in range(0, len(chosen), layout.columns)]
    texts = [_text_lines([rows[one.id] for one in line if one.shown], layout) for line in lines]
    heights = [layout.box[1] + 6 + (count + 2) * _LINE for count in texts]
    heading = _heading(title, len(chosen), withheld, sum(one.shown and not one.free for one in chosen))
    page = _page(sum(height + _GAP for height in heights), heading, layout)
    top = _HEAD
    for number, line in enumerate(lines):
        for at, one in enumerate(line):
            name = f"{number * layout.columns + at + 1}. {one.id}" if layout.large else one.id
            corner = (_GAP + at * (layout.box[0] + _GAP), top)
            _draw_tile(page, corner, rows[one.id], _Tile(one, name, texts[number], layout))
        top += heights[number] + _GAP
    with atomic_write(path, "wb") as file:
        # 256 colors, of which these pictures are mostly gray: a third of the bytes.
        page.quantize(256, PILImage.Quantize.MEDIANCUT, dither=PILImage.Dither.NONE).save(file, "PNG", optimize=True)
    return Sheet(len(chosen), withheld)


def choose(folder: Path, wanted: Wanted = Wanted()) -> list[Candidate]:
    """Return the samples to show; those whose picture may be shown come first.

    Memory: a few candidates for each modality and split, whatever the size of the data set.
    """
    most = _KEPT * wanted.samples
    kept: dict[tuple[bool, str, str], dict[str, Candidate]] = {}
    for modality, one in _candidates(folder, wanted):
        pool = kept.setdefault((one.shown, modality, one.split), {})
        pool[one.sha256] = min(one, pool.get(one.sha256, one))
        if len(pool) > 2 * most:
            best = heapq.nsmallest(most, pool.values())
            kept[one.shown, modality, one.split] = {each.sha256: each for each in best}
    chosen: list[Candidate] = []
    for shown in (True, False):
        pools = [list(kept[key].values()) for key in _in_turn(key for key in kept if key[0] is shown)]
        _take(pools, chosen, wanted.samples)
    return chosen


def _in_turn(keys: Iterator[tuple[bool, str, str]]) -> list[tuple[bool, str, str]]:
    """Return the strata so that each modality has its turn before one has another in a further split."""
    seen: Counter[str] = Counter()
    ranked = []
    for key in sorted(keys):
        ranked.append((seen[key[1]], key))
        seen[key[1]] += 1
    return [key for _, key in sorted(ranked)]


def _take(pools: list[list[Candidate]], chosen: list[Candidate], most: int) -> None:
    """Take one of each pool in turn until the sheet is full or nothing is left: no picture twice, rare groups first."""
    groups = Counter(one.group for one in chosen)
    pictures = {one.sha256 for one in chosen}
    while len(chosen) < most and any(pools):
        for pool in pools:
            pool[:] = [one for one in pool if one.sha256 not in pictures]
            if not pool or len(chosen) == most:
                continue
            best = min(pool, key=lambda one: (groups[one.group], one))
            chosen.append(best)
            groups[best.group] += 1
            pictures.add(best.sha256)


def _candidates(folder: Path, wanted: Wanted) -> Iterator[tuple[str, Candidate]]:
    """Yield every sample that is asked for with its modality; no picture is read."""
    conditions = dict(wanted.where)
    for path in sorted((folder / "data").glob(f"{wanted.split or ''}*.parquet")):
        number = 0
        with pq.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if name in conditions or name in _READ]
            for batch in file.iter_batches(8192, columns=names):
                for row in batch.to_pylist():
                    if all(value in stated(row.get(name)) for name, value in wanted.where):
                        yield row["modality"] or "", _candidate(row, path.name, number, wanted)
                    number += 1


def stated(value: Any) -> list[str]:
    """Return a column's value in words, those of a list each; the empty word where nothing is stated."""
    if isinstance(value, list):
        return [str(item) for item in value] or [""]
    return [("no", "yes")[value] if isinstance(value, bool) else "" if value is None else str(value)]


def _candidate(row: dict[str, Any], shard: str, number: int, wanted: Wanted) -> Candidate:
    free = may_show(row["license"], row["third_party"])
    key = sha256_bytes((f"{wanted.seed}:{row['id']}" if wanted.seed else row["id"]).encode())
    return Candidate(key, row["id"], row["sha256"], row["group"], shard, number, free or wanted.private, free)


@functools.lru_cache(maxsize=1024)
def may_show(license: str | None, third_party: bool) -> bool:
    """Return whether a shrunk copy of a picture may be passed on, on the license's own conditions."""
    return not third_party and may_pass_on(license, changed=True) in ("yes", "conditional")


def _rows(folder: Path, chosen: Sequence[Candidate], layout: Layout) -> dict[str, dict[str, Any]]:
    """Return what the sheet tells of each chosen sample, by id; a row group at a time is read, and each once."""
    wanted: dict[str, dict[int, str]] = {}
    for one in chosen:
        wanted.setdefault(one.shard, {})[one.row] = one.id
    columns = [*_TEXTS, *(("more_images",) if layout.large else ())]
    found: dict[str, dict[str, Any]] = {}
    for shard, rows in sorted(wanted.items()):
        with pq.ParquetFile(folder / "data" / shard) as file:
            start = 0
            for number in range(file.num_row_groups):
                end = start + file.metadata.row_group(number).num_rows
                inside = [row for row in rows if start <= row < end]
                if inside:
                    table = file.read_row_group(number, columns=columns)
                    found |= {rows[row]: table.slice(row - start, 1).to_pylist()[0] for row in inside}
                start = end
    return found


def _text_lines(rows: Sequence[dict[str, Any]], layout: Layout) -> int:
    """Return how many lines of text the tiles beside one another have."""
    if not layout.large:
        return layout.lines
    return max((len(_worded(row, layout)) for row in rows), default=0)


def _page(height: int, heading: tuple[str, str], layout: Layout) -> PILImage.Image:
    width = _GAP + layout.columns * (layout.box[0] + _GAP)
    page = PILImage.new("RGB", (width, _HEAD + height), "white")
    draw = ImageDraw.Draw(page)
    large = font(20)
    draw.text((_GAP, 8), shorten(plain(heading[0], large), large, width - 2 * _GAP), _INK, large)
    small = font(13)
    draw.text((_GAP, 34), shorten(plain(heading[1], small), small, width - 2 * _GAP), _SOFT, small)
    return page


def _heading(title: str, samples: int, withheld: int, private: int) -> tuple[str, str]:
    rest = (
        f"{samples} samples, chosen by a hash of their ids in turn from every modality and split. Pictures are shrunk."
    )
    if withheld:
        rest += f" {withheld} not shown: their license allows no changed copies, or a third party has rights."
    if private:
        rest += f" Not to be passed on: {private} of the pictures may not be."
    return title or "Contact sheet", rest


@dataclasses.dataclass(frozen=True, slots=True)
class _Tile:
    """One sample's place on the page."""

    one: Candidate
    name: str
    lines: int
    """Of text, for all tiles beside one another."""
    layout: Layout


def _draw_tile(page: PILImage.Image, corner: tuple[int, int], row: dict[str, Any], tile: _Tile) -> None:
    draw = ImageDraw.Draw(page)
    (left, top), (width, height), one = corner, tile.layout.box, tile.one
    draw.rectangle((left, top, left + width - 1, top + height - 1), fill=_FIELD)
    pictures = [row["image"], *((row.get("more_images") or []) if tile.layout.large else [])]
    text, small = font(13), font(12)
    if one.shown:
        _draw_views(page, corner, pictures, tile.layout.box)
    else:
        draw.text((left + width // 2, top + height // 2), "picture not shown", _SOFT, text, anchor="mm")
    top += height + 6
    license = (row["license"] or "no license stated").replace("LicenseRef-", "")
    told = " · ".join(filter(None, (license, row["modality"], one.split)))
    below = top if tile.layout.large else top + tile.lines * _LINE
    _soft_line(draw, (left, below + _LINE * (not tile.layout.large)), tile.name, small, width, middle=True)
    _soft_line(draw, (left, below + _LINE * tile.layout.large), told, small, width, middle=False)
    top += 2 * _LINE * tile.layout.large
    for color, line in _worded(row, tile.layout) if one.shown else ():
        draw.text((left, top), line, color, text)
        top += _LINE


def _draw_views(
    page: PILImage.Image, corner: tuple[int, int], pictures: Sequence[dict[str, Any]], box: tuple[int, int]
) -> None:
    """Draw the pictures of a sample into one field: in a grid of equal cells that leaves least of it empty."""
    shown = [_thumbnail(stored["bytes"], box) for stored in pictures[:_MOST_VIEWS]]
    sizes = [picture.size for picture in shown if not isinstance(picture, str)]
    across = max(range(1, len(shown) + 1), key=lambda count: (_filled(sizes, len(shown), count, box), -count))
    cell = _cell(len(shown), across, box)
    draw = ImageDraw.Draw(page)
    for number, picture in enumerate(shown):
        left, top = corner[0] + number % across * cell[0], corner[1] + number // across * cell[1]
        if isinstance(picture, str):
            draw.text((left + cell[0] // 2, top + cell[1] // 2), picture, _SOFT, font(13), anchor="mm")
            continue
        if len(shown) > 1:
            picture.thumbnail((cell[0] - 1, cell[1] - 1), PILImage.Resampling.LANCZOS)
        page.paste(picture, (left + (cell[0] - picture.width) // 2, top + (cell[1] - picture.height) // 2))
    if len(pictures) > len(shown):
        told = f"{len(pictures) - len(shown)} more"
        draw.text((corner[0] + box[0] - 4, corner[1] + box[1] - 4), told, _SOFT, font(12), anchor="rs")


def _cell(count: int, across: int, box: tuple[int, int]) -> tuple[int, int]:
    """Return width and height of a cell where `count` pictures lie in lines of `across`."""
    return box[0] // across, box[1] // -(-count // across)


def _filled(sizes: Sequence[tuple[int, int]], count: int, across: int, box: tuple[int, int]) -> float:
    """Return how many pixels of a field pictures of these sizes fill in such a grid."""
    cell = _cell(count, across, box)
    scales = [min(1.0, cell[0] / width, cell[1] / height) for width, height in sizes]
    return sum(scale**2 * width * height for scale, (width, height) in zip(scales, sizes, strict=True))


def _soft_line(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, face: Font, width: int, *, middle: bool
) -> None:
    draw.text(place, shorten(plain(text, face), face, width, middle=middle), _SOFT, face)


def _worded(row: dict[str, Any], layout: Layout) -> list[tuple[tuple[int, int, int], str]]:
    """Return the lines of text of a tile, each with its color."""
    face, width = font(13), layout.box[0]
    if not layout.large or not row["prompt"]:
        return [(_INK, line) for line in wrapped(plain(_caption(row), face), face, width, layout.lines)]
    # The answer has at least a third of the lines.
    asked = wrapped(plain(f"Q: {row['prompt']}", face), face, width, layout.lines - layout.lines // 3)
    said = wrapped(plain(f"A: {row['target']}", face), face, width, layout.lines - len(asked))
    return [*((_INK, line) for line in asked), *((_ANSWER, line) for line in said)]


def _caption(row: dict[str, Any]) -> str:
    return f"Q: {row['prompt']} A: {row['target']}" if row["prompt"] else str(row["target"])


def _thumbnail(data: bytes, box: tuple[int, int]) -> PILImage.Image | str:
    """Return the picture upright, in RGB and no larger than its field; or why there is none."""
    with warnings.catch_warnings():
        # Pillow warns of odd tags and of large pictures; both were judged when the data set was made.
        warnings.simplefilter("ignore")
        try:
            with PILImage.open(io.BytesIO(data)) as image:
                image.draft(image.mode, (2 * box[0], 2 * box[1]))
                image.load()
                small = to_rgb(ImageOps.exif_transpose(image))
                small.thumbnail(box, PILImage.Resampling.LANCZOS)
                return small
        except Exception:
            # Decoders answer damaged bytes with nearly any exception; one such picture must not lose the sheet.
            return "picture cannot be read"
