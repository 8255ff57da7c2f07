"""Panels found in pictures that are put together here, and single pictures left whole."""

from __future__ import annotations

import io
import random
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from figure_samples import slice_on_black
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from medvlm.data.figures.gutters import Box, find_grid, find_panels


def scan(seed: int, width: int, height: int) -> Image.Image:
    """Return a gray picture of soft shades, filled to its edges, another one for each seed."""
    shades = np.random.default_rng(seed).integers(90, 200, (6, 6), dtype=np.uint8)
    return Image.fromarray(shades).resize((width, height), Image.Resampling.BILINEAR).convert("RGB")


def grid(
    pictures: Sequence[Image.Image],
    rows: int,
    columns: int,
    gutter: int,
    color: str,
    border: int = 0,
    labels: bool = False,
) -> tuple[Image.Image, list[Box]]:
    """Return pictures of one size in a grid, and their boxes row by row."""
    width, height = pictures[0].size
    size = (columns * (width + gutter) - gutter + 2 * border, rows * (height + gutter) - gutter + 2 * border)
    whole = Image.new("RGB", size, color)
    boxes = []
    for index in range(rows * columns):
        x = border + (width + gutter) * (index % columns)
        y = border + (height + gutter) * (index // columns)
        whole.paste(pictures[index % len(pictures)], (x, y))
        boxes.append((x, y, x + width, y + height))
        if labels:
            ImageDraw.Draw(whole).text((x + 4, y - gutter + 3), "ABCDEFGHI"[index], fill="black")
    return whole, boxes


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue()))


def near(found: list[Box], true: list[Box], pixels: int) -> bool:
    pairs = zip(found, true, strict=False)
    return len(found) == len(true) and all(abs(a - b) <= pixels for f, t in pairs for a, b in zip(f, t, strict=True))


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 3),
    columns=st.integers(1, 3),
    gutter=st.integers(8, 30),
    border=st.integers(0, 20),
    color=st.sampled_from(["white", "black", "#202020"]),
    quality=st.sampled_from([0, 60, 90]),
    seed=st.integers(0, 99),
)
def test_grids_come_apart(
    rows: int, columns: int, gutter: int, border: int, color: str, quality: int, seed: int
) -> None:
    pictures = [scan(seed + index, 180, 150) for index in range(rows * columns)]
    whole, boxes = grid(pictures, rows, columns, gutter, color, border)
    found = find_panels(as_jpeg(whole, quality) if quality else whole)
    if rows * columns == 1:
        assert found == [(0, 0, *whole.size)]
    else:
        assert near(found, boxes, 3)


def test_labels_in_the_gutters_are_no_content() -> None:
    whole, boxes = grid([scan(i, 200, 160) for i in range(4)], 2, 2, 24, "white", 24, labels=True)
    assert near(find_panels(as_jpeg(whole, 80)), boxes, 3)


def test_one_large_panel_beside_two_small_ones() -> None:
    whole = Image.new("RGB", (620, 410), "white")
    boxes = [(0, 0, 300, 410), (310, 0, 620, 200), (310, 210, 620, 410)]
    for seed, (left, top, right, bottom) in enumerate(boxes):
        whole.paste(scan(seed, right - left, bottom - top), (left, top))
    assert find_panels(whole) == boxes


def test_large_pictures_are_cut_at_the_right_place() -> None:
    whole, boxes = grid([scan(i, 1400, 1000) for i in range(4)], 2, 2, 40, "white")
    assert near(find_panels(whole), boxes, 6)


def plot(bars: int) -> Image.Image:
    picture = Image.new("RGB", (600, 400), "white")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((50, 20, 580, 350), outline="black", width=2)
    for index in range(bars):
        draw.rectangle(
            (70 + 500 * index // bars, 120 + 10 * index, 70 + 500 * index // bars + 250 // bars, 350), fill="gray"
        )
    draw.text((200, 370), "time (hours)", fill="black")
    return picture


def table() -> Image.Image:
    picture = Image.new("RGB", (600, 400), "white")
    draw = ImageDraw.Draw(picture)
    for row in range(5):
        draw.rectangle((0, row * 80, 599, row * 80 + 2), fill="black")
        draw.text((20, row * 80 + 30), "row of a table", fill="black")
    return picture


def two_plots() -> Image.Image:
    return grid([plot(4), plot(6)], 1, 2, 30, "white")[0]


def radiograph() -> Image.Image:
    """Return two bright limbs on black: what lies between them is no gutter."""
    picture = Image.new("L", (600, 500), 0)
    draw = ImageDraw.Draw(picture)
    draw.ellipse((40, 20, 260, 480), fill=170)
    draw.ellipse((340, 20, 560, 480), fill=190)
    return picture


@pytest.mark.parametrize(
    "picture",
    [plot(2), plot(5), table(), two_plots(), radiograph(), Image.new("L", (300, 200), 255), Image.new("1", (1, 1))],
)
def test_single_pictures_stay_whole(picture: Image.Image) -> None:
    assert find_panels(picture) == [(0, 0, *picture.size)]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "I;16"])
def test_modes(mode: str) -> None:
    whole, boxes = grid([scan(i, 120, 100) for i in range(2)], 1, 2, 12, "white")
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(whole.convert("L")).astype(np.uint16) * 257)
    else:
        picture = whole.convert(mode)
    assert mode == "1" or near(find_panels(picture), boxes, 3)


@pytest.mark.realdata
def test_real_scans(realdata: Path) -> None:
    """VQA-RAD's pictures: single ones are left whole, and grids of them with light gutters come apart."""
    files = sorted((realdata / "vqa_rad" / "images").glob("*.jpg"))
    assert sum(len(find_panels(Image.open(file))) > 1 for file in files[:120]) == 0
    rng, right = random.Random(3), 0
    for trial in range(40):
        pictures = [Image.open(rng.choice(files)).convert("RGB").resize((240, 220)) for _ in range(4)]
        rows, columns = rng.choice([(1, 2), (2, 1), (2, 2)])
        whole, boxes = grid(pictures, rows, columns, rng.randrange(4, 24), "white", rng.randrange(12))
        right += near(find_panels(as_jpeg(whole, 70 + trial % 25)), boxes, 6)
    assert right >= 36


def slices(rows: int, columns: int, gutter: int, color: str = "black") -> tuple[Image.Image, list[Box]]:
    pictures = [slice_on_black(index, 160).convert("RGB") for index in range(rows * columns)]
    return grid(pictures, rows, columns, gutter, color)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 20), st.sampled_from([0, 70, 95]))
def test_grids_of_slices_on_black_come_apart_where_the_count_is_known(
    rows: int, columns: int, gutter: int, quality: int
) -> None:
    whole, boxes = slices(rows, columns, gutter)
    picture = as_jpeg(whole, quality) if quality else whole
    if rows * columns > 1:
        assert near(find_grid(picture, rows * columns), boxes, 16)


@pytest.mark.parametrize(
    ("rows", "columns", "count"),
    [(2, 2, 2), (1, 4, 2), (2, 3, 3), (2, 3, 2), (1, 2, 3), (1, 2, 4), (2, 2, 3), (1, 1, 2)],
)
def test_a_caption_of_other_panels_cuts_nothing(rows: int, columns: int, count: int) -> None:
    whole, _ = slices(rows, columns, 8)
    assert find_grid(whole, count) == [(0, 0, *whole.size)]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
@pytest.mark.parametrize(
    "picture",
    [plot(2), plot(5), table(), scan(3, 300, 200), Image.new("L", (300, 200)), Image.new("L", (300, 200), 255),
     Image.new("1", (1, 1))],
)  # fmt: skip
def test_single_pictures_stay_whole_whatever_the_count(picture: Image.Image, count: int) -> None:
    assert find_grid(picture, count) == [(0, 0, *picture.size)]


@pytest.mark.realdata
def test_real_scans_on_black(realdata: Path) -> None:
    """None is cut, whatever the count (a third is tried here); of their grids on black nearly all come apart."""
    files = sorted((realdata / "vqa_rad" / "images").glob("*.jpg"))
    cut = [file.name for file in files[::3] for count in (2, 3, 4) if len(find_grid(Image.open(file), count)) > 1]
    assert len(files) == 315
    assert cut == []
    rng, right = random.Random(4), 0
    for trial in range(40):
        rows, columns = rng.choice([(1, 2), (2, 1), (1, 3), (2, 2), (2, 3)])
        pictures = [Image.open(rng.choice(files)).convert("RGB").resize((240, 220)) for _ in range(rows * columns)]
        whole, boxes = grid(pictures, rows, columns, rng.randrange(2, 21), "black")
        right += near(find_grid(as_jpeg(whole, 70 + trial % 25), rows * columns), boxes, 14)
    assert right >= 36


@pytest.mark.realdata
def test_fast_enough(realdata: Path) -> None:
    file = min((realdata / "vqa_rad" / "images").glob("*.jpg"))
    picture = Image.open(file).convert("RGB").resize((1500, 1500))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        find_panels(picture)
        times.append(time.perf_counter() - start)
    # 11 ms where nothing else runs.
    assert min(times) < 0.1
