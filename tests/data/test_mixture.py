"""Mixing data sets by weight and cap, and decoding whatever kind of picture lies in them."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PILImage

from medvlm.data.images import decode
from medvlm.data.mixture import DataFolder, Mixture, _choose
from medvlm.data.sample import Image, Sample
from medvlm.data.schema import SCHEMA, arrays
from medvlm.errors import InputError
from medvlm.io import write_json
from medvlm.recipe.models import DataPart


def png(image: PILImage.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def folder(path: Path, count: int, split: str = "train") -> Path:
    """Write `count` rows, every third a question, each picture of its own gray."""
    samples = [
        Sample(
            id=f"{path.name}/{i}",
            image=Image(png(PILImage.new("L", (4, 4), i)), f"{i}.png"),
            task="vqa" if i % 3 == 0 else "caption",
            prompt="",
            target=f"text {i}",
            license="CC-BY-4.0" if i % 2 else None,
        )
        for i in range(count)
    ]
    (path / "data").mkdir(parents=True)
    table = pa.Table.from_arrays(arrays(samples), schema=SCHEMA)
    half = count // 2
    pq.write_table(table.slice(0, half), path / "data" / f"{split}-00000-of-00002.parquet")
    pq.write_table(table.slice(half), path / "data" / f"{split}-00001-of-00002.parquet")
    write_json(path / "manifest.json", {"fingerprint": path.name})
    return path


def test_rows_come_in_order_with_their_own_pictures(tmp_path: Path) -> None:
    mixture = Mixture([DataPart(path=str(folder(tmp_path / "a", 20)))], "train", 0)
    assert [text["id"] for text in mixture.texts()] == [f"a/{i}" for i in range(20)]
    for place in range(20):
        assert np.asarray(mixture.image(place)).flatten()[0] == place
    assert mixture.licenses() == {"CC-BY-4.0": 10, "unknown": 10}


def test_tasks_weights_and_caps(tmp_path: Path) -> None:
    first, second = folder(tmp_path / "a", 12), folder(tmp_path / "b", 12)
    parts = [DataPart(path=str(first), tasks=["vqa"]), DataPart(path=str(second), weight=2.5, cap=8)]
    mixture = Mixture(parts, "train", 3)
    ids = Counter(text["id"] for text in mixture.texts())
    assert {name for name in ids if name.startswith("a/")} == {"a/0", "a/3", "a/6", "a/9"}
    repeated = Counter(count for name, count in ids.items() if name.startswith("b/"))
    assert repeated == {2: 4, 3: 4}
    assert [t["id"] for t in Mixture(parts, "train", 3).texts()] == [t["id"] for t in mixture.texts()]
    # Weights and caps are for training; what is validated stays whole.
    assert len(Mixture(parts, "validation", 3)) == 0


@given(st.integers(0, 60), st.floats(0.01, 5), st.none() | st.integers(1, 70), st.integers(0, 9))
def test_a_weight_is_the_number_of_visits_an_epoch(count: int, weight: float, cap: int | None, seed: int) -> None:
    chosen = Counter(_choose(count, DataPart(path="x", weight=weight, cap=cap), seed))
    kept = count if cap is None else min(cap, count)
    assert abs(sum(chosen.values()) - weight * kept) <= 1
    assert len(chosen) <= kept
    assert all(int(weight) <= visits <= int(weight) + 1 for visits in chosen.values())


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16", "F"])
def test_every_mode_becomes_the_same_rgb(mode: str) -> None:
    ramp = np.linspace(0, 255, 64, dtype=np.uint8).reshape(8, 8)
    gray = PILImage.fromarray(ramp)
    if mode == "I;16":
        image = PILImage.fromarray(ramp.astype(np.uint16) * 257)
    elif mode == "F":
        image = PILImage.fromarray(ramp.astype(np.float32))
    else:
        image = gray.convert("RGB").convert(mode)
    seen = decode(png(image, "TIFF"))
    assert seen.mode == "RGB"
    expected = np.asarray(gray.convert("1") if mode == "1" else gray, dtype=int)
    if mode == "1":
        assert set(np.unique(np.asarray(seen))) <= {0, 255}
    else:
        # A palette of web colors is coarse; all else is exact but for rounding.
        assert np.abs(np.asarray(seen.convert("L"), dtype=int) - expected).max() <= (52 if mode == "P" else 2)


def test_big_endian_words_are_scaled_like_little_endian_ones() -> None:
    values = np.array([[1000, 4000], [0, 65535]], dtype=np.uint16)
    little = png(PILImage.fromarray(values), "TIFF")
    file = io.BytesIO()
    PILImage.frombytes("I;16B", (2, 2), values.astype(">u2").tobytes()).save(file, "TIFF")
    assert np.array_equal(np.asarray(decode(file.getvalue())), np.asarray(decode(little)))
    assert np.asarray(decode(little))[0, :, 0].tolist() == [round(1000 / 257), round(4000 / 257)]


def test_a_picture_taken_sideways_is_turned_upright() -> None:
    image = PILImage.new("RGB", (40, 20))
    exif = PILImage.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif)
    assert decode(file.getvalue()).size == (20, 40)


def test_transparency_lies_on_white() -> None:
    assert decode(png(PILImage.new("RGBA", (3, 3), (0, 0, 0, 0)))).getpixel((1, 1)) == (255, 255, 255)


def test_a_truncated_picture_is_named() -> None:
    data = png(PILImage.effect_noise((64, 64), 90))
    for data, said in ((b"", "the file is empty"), (b"no picture", "not a known picture format")):
        with pytest.raises(InputError, match=rf"^p: the image cannot be read \({said}\); prepare"):
            decode(data, "p")
    with pytest.raises(InputError, match="row 7: the image cannot be read"):
        decode(data[: len(data) // 2], "row 7")


def test_shards_must_be_those_of_the_manifest(tmp_path: Path) -> None:
    path = folder(tmp_path / "a", 6)
    shards = sorted((path / "data").iterdir())
    listed = [{"name": f"data/{shard.name}", "bytes": shard.stat().st_size} for shard in shards]
    write_json(path / "manifest.json", {"fingerprint": "a", "shards": listed})
    assert len(Mixture([DataPart(path=str(path))], "train", 0)) == 6
    shards[1].unlink()
    with pytest.raises(InputError, match=r"train-00001-of-00002\.parquet is not as its manifest says"):
        Mixture([DataPart(path=str(path))], "train", 0)


@pytest.mark.parametrize("damage", ["shard", "manifest"])
def test_damaged_folders(tmp_path: Path, damage: str) -> None:
    path = folder(tmp_path / "a", 6)
    name = "manifest.json" if damage == "manifest" else "data/train-00000-of-00002.parquet"
    (path / name).write_bytes(b"{")
    with pytest.raises(InputError) as raised:
        Mixture([DataPart(path=str(path))], "train", 0)
    assert "\n" not in str(raised.value)


def test_missing_data_names_the_command_that_makes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path, source in (
        ("data/phantom-base", "phantom --kind base"),
        ("data/vqa-rad", "vqa-rad --input VQA_RAD"),
        ("data/pmc", "pmc"),
        ("data/slake", "slake --input FOLDER"),
        ("data/mine", "SOURCE"),
    ):
        with pytest.raises(InputError, match=f"run `medvlm prepare {source} --out {path}` first"):
            DataFolder.open(path)
