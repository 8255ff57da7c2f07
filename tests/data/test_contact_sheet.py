"""The contact sheet: which samples are on it, what must not be, and the same bytes each time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_source import png, sample

from medvlm.data import schema
from medvlm.data.contact_sheet import SAMPLES, Sheet, choose, may_show, write
from medvlm.data.prepare import Settings, prepare
from medvlm.data.sample import Image, Sample
from medvlm.data.sources.pmc import PmcSource
from medvlm.io import sha256_bytes


def store(folder: Path, split: str, samples: list[Sample], rows: int = 5) -> Path:
    """Write one shard with `rows` rows in a row group."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for one in samples:
        one.sha256 = sha256_bytes(one.image.data)
    table = pa.Table.from_arrays(schema.arrays(samples), schema=schema.SCHEMA)
    pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet", row_group_size=rows)
    return folder


def many(count: int, start: int = 0, **changes: Any) -> list[Sample]:
    return [sample(f"PMC{number}", 1, number, **changes) for number in range(start, start + count)]


def test_every_modality_and_split_has_its_share(tmp_path: Path) -> None:
    store(tmp_path, "train", many(200, modality="CT") + many(3, 200, modality="MRI"))
    store(tmp_path, "test", many(20, 300, modality="CT"))
    chosen = choose(tmp_path)
    assert len(chosen) == SAMPLES
    kinds = Counter(("MRI" if 200 <= int(one.group[3:]) < 300 else "CT", one.split) for one in chosen)
    assert kinds["MRI", "train"] == 3
    assert abs(kinds["CT", "train"] - kinds["CT", "test"]) <= 1


def test_it_is_the_smallest_hashes_that_are_chosen(tmp_path: Path) -> None:
    samples = many(700)
    slow = sorted(samples, key=lambda one: sha256_bytes(one.id.encode()))[:SAMPLES]
    assert [one.id for one in choose(store(tmp_path, "train", samples, rows=64))] == [one.id for one in slow]


def test_a_picture_is_there_once_and_articles_take_turns(tmp_path: Path) -> None:
    same = [sample("PMC0", number, 0, task="vqa", prompt=f"{number}?") for number in range(30)]
    rich = [sample("PMC1", number, 100 + number) for number in range(60)]
    chosen = choose(store(tmp_path, "train", same + rich + many(10, 2)))
    groups = Counter(one.group for one in chosen)
    assert groups["PMC0"] == 1
    assert groups["PMC1"] == SAMPLES - 11
    assert len({one.sha256 for one in chosen}) == SAMPLES


def test_pictures_that_may_not_be_passed_on_are_not_drawn(tmp_path: Path) -> None:
    red = many(4, license="CC-BY-4.0")
    hidden = [
        *many(3, 1000, license="LicenseRef-all-rights-reserved"),
        *many(3, 2000, license="CC-BY-ND-4.0"),
        *many(3, 3000, license="CC-BY-4.0", third_party=True),
        *many(3, 4000, license=None),
    ]
    for one in red:
        one.image = Image(_solid("red", one.id), "red.png")
    for one in hidden:
        one.image = Image(_solid("blue", one.id), "blue.png")
    store(tmp_path, "train", red + hidden)
    assert write(tmp_path / "sheet.png", tmp_path) == Sheet(16, 12)
    with PIL.Image.open(tmp_path / "sheet.png") as page:
        colors = {color for _, color in page.convert("RGB").getcolors(1 << 20)}
    assert any(red > 200 and green < 60 and blue < 60 for red, green, blue in colors)
    assert not any(blue > 200 and red < 60 and green < 60 for red, green, blue in colors)


def _solid(color: str, salt: str) -> bytes:
    import io

    buffer = io.BytesIO()
    picture = PIL.Image.new("RGB", (300, 200), color)
    picture.putpixel((0, 0), tuple(sha256_bytes(salt.encode()).encode()[:3]))
    picture.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("license", "third_party", "shown"),
    [("CC-BY-NC-4.0", False, True), ("CC-BY-NC-ND-4.0", False, False), ("CC0-1.0", True, False), (None, False, False)],
)
def test_may_show(license: str | None, third_party: bool, shown: bool) -> None:
    assert may_show(license, third_party) is shown


def test_odd_texts_and_pictures_and_the_same_bytes(tmp_path: Path) -> None:
    odd = [
        sample("PMC1", 1, 1, target="Рентген 肺 \u202e\u0000 α", modality="CT"),
        sample("PMC2", 1, 2, target="x" * 5000),
        sample("PMC3", 1, 3, target="A", image=Image(b"no picture", "x.png")),
        sample("PMC4", 1, 4, target="A", image=Image(png(9)[:-20], "cut.png")),
    ]
    for number, mode in enumerate(("CMYK", "I;16", "P", "LA", "1", "RGBA")):
        odd.append(sample(f"PMC9{number}", 1, 50, image=Image(_in_mode(mode), "m")))
    store(tmp_path, "train", odd)
    assert write(tmp_path / "one.png", tmp_path, "Ä title 肺").samples == 10
    write(tmp_path / "two.png", tmp_path, "Ä title 肺")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def _in_mode(mode: str) -> bytes:
    import io

    buffer = io.BytesIO()
    PIL.Image.new(mode, (900, 30)).save(buffer, "TIFF" if mode == "CMYK" else "PNG")
    return buffer.getvalue()


def test_nothing_to_show(tmp_path: Path) -> None:
    assert write(tmp_path / "sheet.png", store(tmp_path, "train", [])) == Sheet(0, 0)


@pytest.mark.realdata
def test_real_articles(tmp_path: Path, realdata: Path) -> None:
    prepare(PmcSource([realdata / "jats_with_images_encoda"]), tmp_path / "set", Settings(license="any"), workers=1)
    assert write(tmp_path / "sheet.png", tmp_path / "set", "Articles").samples == SAMPLES
    assert 100_000 < (tmp_path / "sheet.png").stat().st_size < 1_000_000
    with PIL.Image.open(tmp_path / "sheet.png") as page:
        assert page.width == 1514
