"""Near duplicates: every close pair of hashes is found, copies are known again, different pictures stay apart."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest
from fake_source import FakeSource, sample
from hypothesis import given, settings
from hypothesis import strategies as st

from medvlm.data import dedup
from medvlm.data.prepare import Settings, prepare
from medvlm.data.sample import Image

Picture = PIL.Image.Image


def encoded(picture: Picture, kind: str = "PNG", **options: int) -> Image:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return Image(buffer.getvalue(), f"x.{kind.lower()}")


def scene(seed: int, size: tuple[int, int] = (320, 240)) -> Picture:
    """Return a picture of soft blobs in color: another one for each seed."""
    random = np.random.default_rng(seed)
    small = random.uniform(0, 255, (9, 12, 3)).astype(np.uint8)
    return PIL.Image.fromarray(small).resize(size, PIL.Image.Resampling.BICUBIC)


def plot(seed: int) -> Picture:
    """Return a curve within the same axes on white: another curve for each seed."""
    picture = PIL.Image.new("RGB", (400, 300), "white")
    draw = PIL.ImageDraw.Draw(picture)
    draw.line([(40, 20), (40, 260), (380, 260)], "black", 3)
    heights = np.random.default_rng(seed).uniform(30, 250, 12)
    draw.line([(45 + 30 * number, height) for number, height in enumerate(heights)], "blue", 3)
    return picture


def bars(seed: int) -> Picture:
    """Return bars within the same axes on white."""
    picture = PIL.Image.new("RGB", (400, 300), "white")
    draw = PIL.ImageDraw.Draw(picture)
    draw.line([(40, 20), (40, 260), (380, 260)], "black", 3)
    for number, height in enumerate(np.random.default_rng(seed).uniform(30, 220, 8)):
        draw.rectangle((60 + 40 * number, 260 - height, 85 + 40 * number, 260), "black")
    return picture


def gel(seed: int) -> Picture:
    """Return six lanes, each with bands at other heights."""
    random = np.random.default_rng(seed)
    picture = PIL.Image.new("L", (300, 300), 225)
    draw = PIL.ImageDraw.Draw(picture)
    for lane in range(6):
        for height in random.uniform(20, 270, 4):
            draw.rectangle((15 + 48 * lane, height, 50 + 48 * lane, height + 9), fill=int(random.uniform(20, 120)))
    return picture


def chest(seed: int) -> Picture:
    """Return a body with two lungs: alike for all seeds but in size, place, ribs and a lesion."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:256, 0:256] / 256
    gray = np.full((256, 256), 10.0)
    gray[(columns - 0.5) ** 2 / 0.2 + (rows - 0.5) ** 2 / 0.25 < 1] = 170
    for side in (0.3, 0.7):
        x, y = side + random.uniform(-0.04, 0.04), 0.45 + random.uniform(-0.05, 0.05)
        a, b = random.uniform(0.1, 0.15), random.uniform(0.22, 0.3)
        gray[(columns - x) ** 2 / a**2 + (rows - y) ** 2 / b**2 < 1] = random.uniform(40, 80)
    gray += 14 * np.sin(rows * random.uniform(40, 60) + random.uniform(0, 6)) * (gray > 30)
    x, y = random.uniform(0.25, 0.75), random.uniform(0.3, 0.6)
    gray[(columns - x) ** 2 + (rows - y) ** 2 < 0.04**2] += 60
    return PIL.Image.fromarray(np.clip(gray, 0, 255).astype(np.uint8))


COPIES: dict[str, Callable[[Picture], Image]] = {
    "half": lambda picture: encoded(picture.resize((picture.width // 2, picture.height // 2))),
    "jpeg": lambda picture: encoded(picture.convert("RGB"), "JPEG", quality=45),
    "gray": lambda picture: encoded(picture.convert("L")),
    "brighter": lambda picture: encoded(picture.point(lambda value: int(value * 0.85) + 20)),
    "cropped": lambda picture: encoded(picture.crop((5, 4, picture.width - 4, picture.height - 5))),
}


def table(marks: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(marks), np.uint8).reshape(-1, dedup.MARK_BYTES)


def near(marks: list[bytes]) -> list[tuple[int, int]]:
    """Return the pairs among those of `marks` that tell something."""
    codes = table([mark or bytes(dedup.MARK_BYTES) for mark in marks])
    told = np.flatnonzero([bool(mark) for mark in marks])
    return dedup.near_pairs(codes[:, : dedup.HEAD_BYTES], codes[:, dedup.HEAD_BYTES :], told)


@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_known_again_and_nothing_else(kind: str) -> None:
    originals = [scene(seed) for seed in range(40)] + [chest(seed) for seed in range(20)]
    marks = [dedup.mark(encoded(picture)) for picture in originals]
    marks += [dedup.mark(COPIES[kind](picture)) for picture in originals]
    assert all(marks)
    pairs = near(marks)
    assert {(one, other - 60) for one, other in pairs} <= {(number, number) for number in range(60)}
    assert len(pairs) >= (57 if kind != "cropped" else 40)


@pytest.mark.parametrize("draw", [plot, bars, gel, chest])
def test_pictures_of_one_kind_stay_apart(draw: Callable[[int], Picture]) -> None:
    marks = [mark for seed in range(80) if (mark := dedup.mark(encoded(draw(seed))))]
    codes = table(marks) if marks else np.zeros((0, dedup.MARK_BYTES), np.uint8)
    assert near(marks) == []
    # Neither may the last step alone take any two of them for one, whatever the hashes say.
    ones, others = np.triu_indices(len(marks), 1)
    copies = dedup._pictures(codes[:, dedup.HEAD_BYTES :])
    same = [dedup.alike(copies[ones[at : at + 500]], copies[others[at : at + 500]]) for at in range(0, len(ones), 500)]
    assert not np.concatenate([np.zeros(0, bool), *same]).any()


def test_what_shows_nothing_has_no_mark() -> None:
    assert dedup.mark(encoded(PIL.Image.new("RGB", (50, 50), "white"))) == b""
    spot = PIL.Image.new("RGB", (400, 400), "white")
    PIL.ImageDraw.Draw(spot).rectangle((10, 10, 90, 90), "black")
    assert dedup.mark(encoded(spot)) == b""
    assert dedup.mark(Image(b"no picture", "x")) == b""


def brute(hashes: np.ndarray) -> set[tuple[int, int]]:
    """Return all pairs of different places whose hashes differ in at most 7 bits, by looking at every pair."""
    apart = np.bitwise_count(hashes[:, None] ^ hashes[None])
    return {(int(one), int(other)) for one, other in np.argwhere(apart <= 7) if one < other}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 300), st.integers(0, 12))
def test_all_close_hashes_meet(seed: int, count: int, flips: int) -> None:
    random = np.random.default_rng(seed)
    hashes = random.integers(0, 2**64, count, np.uint64)
    # Some are others with a few bits turned.
    for place in range(count // 2):
        bits = random.choice(64, flips, replace=False).astype(np.uint64)
        hashes[place] = hashes[-1 - place] ^ np.bitwise_or.reduce(np.uint64(1) << bits, initial=np.uint64(0))
    found = {
        (min(one, other), max(one, other))
        for ones, others in dedup.candidates(hashes)
        for one, other in zip(ones.tolist(), others.tolist(), strict=True)
    }
    assert found == brute(hashes)


def test_slices_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = np.random.default_rng(1).integers(0, 2**12, 500, np.uint64)
    monkeypatch.setattr(dedup, "_AT_ONCE", 97)
    found = {
        (min(one, other), max(one, other))
        for ones, others in dedup.candidates(hashes)
        for one, other in zip(ones.tolist(), others.tolist(), strict=True)
    }
    assert found == brute(hashes)


def test_a_crowd_costs_bounded_time() -> None:
    hashes = np.concatenate([np.full(60_000, 7, np.uint64), np.arange(60_000, dtype=np.uint64) << np.uint64(48)])
    met = sum(len(ones) for ones, _ in dedup.candidates(hashes))
    assert 0 < met < 120_000 * 4 * 64


def test_near_duplicates_in_a_data_set(tmp_path: Path) -> None:
    def of(group: str, number: int, image: Image) -> object:
        return sample(group, number, 0, image=image)

    first, second = scene(1), scene(2)
    special = {
        0: [of("A", 0, encoded(first)), of("A", 1, COPIES["jpeg"](first))],
        1: [of("B", 0, COPIES["half"](first))],
        2: [of("C", 0, COPIES["half"](first))],
        3: [of("D", 0, encoded(second))],
        4: [of("E", 0, encoded(scene(3))), of("E", 1, COPIES["gray"](second))],
    }
    ratios = (0.4, 0.3, 0.3)
    original = {"B/fig0": "A/fig0", "C/fig0": "A/fig0", "E/fig1": "D/fig0"}
    for seed in range(4):
        out = tmp_path / str(seed)
        manifest = prepare(FakeSource(5, special=special), out, Settings("any", ratios, seed), workers=1).manifest
        rows = read(out)
        told = {key[:6]: row["duplicate_of"] and row["duplicate_of"][:6] for key, row in rows.items()}
        assert {key: value for key, value in told.items() if value} == original
        assert (manifest["counts"]["near_duplicates"], manifest["counts"]["duplicate_images"]) == (3, 0)
        sides = {row["group"]: row["split"] for row in rows.values()}
        assert sides["A"] == sides["B"] == sides["C"]
        assert sides["D"] == sides["E"]
    dropped = prepare(
        FakeSource(5, special=special), tmp_path / "dropped", Settings("any", drop_duplicates=True), workers=1
    ).manifest
    assert dropped["drops"] == {"near duplicate image": 3}
    assert {key[:6] for key in read(tmp_path / "dropped")} == {"A/fig0", "A/fig1", "D/fig0", "E/fig0"}
    assert dropped["counts"]["groups"] == 3


def read(out: Path) -> dict[str, dict]:
    """Return the rows of a data set by id, each with its split."""
    import pyarrow.parquet as pq

    rows = {}
    for path in sorted((out / "data").iterdir()):
        rows |= {row["id"]: {**row, "split": path.name.split("-")[0]} for row in pq.read_table(path).to_pylist()}
    return rows


def test_exact_duplicates_can_be_dropped(tmp_path: Path) -> None:
    special = {0: [sample("A", 0, 5), sample("A", 1, 5)], 1: [sample("B", 0, 5), sample("B", 1, 6)]}
    manifest = prepare(
        FakeSource(2, special=special), tmp_path, Settings("any", drop_duplicates=True), workers=1
    ).manifest
    # Two samples of one group may well share their image: questions about it.
    assert manifest["drops"] == {"duplicate image": 1}
    assert {key[:6] for key in read(tmp_path)} == {"A/fig0", "A/fig1", "B/fig1"}


@pytest.mark.realdata
def test_real_radiographs(realdata: Path) -> None:
    paths = sorted((realdata / "vqa_rad/images").glob("*.jpg"))[:100]
    pictures = [PIL.Image.open(path).convert("RGB") for path in paths]
    marks = [dedup.mark(Image(path.read_bytes(), path.name)) for path in paths]
    assert sum(map(bool, marks)) >= 98
    marks += [dedup.mark(COPIES["half"](picture)) for picture in pictures]
    pairs = near(marks)
    copies = {one for one, other in pairs if other - one == len(paths)}
    # No two of these images show the same, by eye; nine in ten of their copies at half the size are known again.
    assert len(copies) == len(pairs) >= 0.9 * len(paths)
