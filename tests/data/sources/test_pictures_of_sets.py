"""Pictures that records name: never a file outside the folder, never more memory than the bound, always a reason."""

from __future__ import annotations

import base64
import io
import itertools
import os
import pickle
import stat
import struct
import tracemalloc
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts_vqa import picture, zipped

from medvlm.data.look import PictureError
from medvlm.data.sample import Image
from medvlm.data.sources import pictures
from medvlm.data.sources.pictures import NO_FILE, Pictures, from_base64, from_cell, safe

INSIDE, SECRET = picture(1), picture(2)
PARTS = st.sampled_from(["..", ".", "", "a", "sub", "in.png", "secret.png", "link", "C:", "~", "imgs", " ", "\n", "\0"])
NAMES = st.one_of(
    st.text(max_size=20),
    st.text(st.characters(categories=["Cs"]), min_size=1, max_size=3),
    st.lists(PARTS, max_size=6).map("/".join),
    st.lists(PARTS, max_size=6).map("\\".join),
    st.lists(PARTS, max_size=4).map(lambda parts: "/" + "/".join(parts)),
)


def reason(found: Image | PictureError) -> str:
    assert isinstance(found, PictureError)
    return found.reason


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures at in.png and sub/in.png, one outside, and links out of the folder and within."""
    place = tmp_path_factory.mktemp("place")
    (place / "imgs" / "sub").mkdir(parents=True)
    for name in ("imgs/in.png", "imgs/sub/in.png"):
        (place / name).write_bytes(INSIDE)
    (place / "secret.png").write_bytes(SECRET)
    (place / "imgs" / "secret.png").symlink_to(place / "secret.png")
    (place / "imgs" / "link").symlink_to(place)
    (place / "imgs" / "a").symlink_to(place / "imgs" / "sub")
    zipped(place / "imgs.zip", {"imgs/zipped.png": INSIDE, "secret.png": SECRET, "imgs/../secret.png": SECRET})
    return place


@given(NAMES)
def test_no_name_leads_out(place: Path, name: str) -> None:
    found = Pictures(place / "imgs", [place / "imgs.zip"], inside="imgs").load(name)
    if isinstance(found, Image):
        assert found.data == INSIDE
        assert ".." not in name.replace("\\", "/").split("/")
    else:
        assert found.reason in ("unsafe image name", "link out of the folder", "image cannot be read", NO_FILE)
        found.detail.encode("utf-8", "backslashreplace")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("in.png", None),
        ("sub/in.png", None),
        ("sub\\in.png", None),
        ("./in.png", None),
        ("a/in.png", None),  # a link within the folder
        ("zipped.png", None),
        ("../secret.png", "unsafe image name"),
        ("sub/../in.png", "unsafe image name"),
        ("..\\secret.png", "unsafe image name"),
        ("/etc/passwd", "unsafe image name"),
        ("\\\\host\\share\\x.png", "unsafe image name"),
        ("C:\\x.png", "unsafe image name"),
        ("c:in.png", "unsafe image name"),
        ("in.png\0.jpg", "unsafe image name"),
        ("", "unsafe image name"),
        ("sub//in.png", "unsafe image name"),
        ("secret.png", "link out of the folder"),
        ("link/secret.png", "link out of the folder"),
        ("sub", NO_FILE),
        ("IN.PNG", NO_FILE),
        ("x" * 5000, "image cannot be read"),
        ("\ud800.png", NO_FILE),
    ],
)
def test_names(place: Path, name: str, expected: str | None) -> None:
    found = Pictures(place / "imgs", [place / "imgs.zip"], inside="imgs").load(name)
    if expected is None:
        assert isinstance(found, Image)
        assert (found.data, found.name) == (INSIDE, PurePosixPath(name.replace("\\", "/")).name)
    else:
        assert reason(found) == expected
    assert safe(name) is (expected != "unsafe image name")


def test_names_without_their_ending(tmp_path: Path) -> None:
    (tmp_path / "train_0001.jpg").write_bytes(INSIDE)
    found = Pictures(tmp_path, endings=(".png", ".jpg")).load("train_0001")
    assert isinstance(found, Image)
    assert found.name == "train_0001.jpg"


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert reason(Pictures(tmp_path).load("pipe.png")) == NO_FILE


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "image cannot be read"),
        (b"no picture", "image cannot be read"),
        (INSIDE[:-40], "image truncated"),
        (b"%PDF-1.7 ", "image cannot be read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image cannot be read"),
    ],
)
def test_files_that_are_no_pictures(tmp_path: Path, data: bytes, expected: str) -> None:
    (tmp_path / "x.png").write_bytes(data)
    zipped(tmp_path / "x.zip", {"x.png": data})
    assert reason(Pictures(tmp_path).load("x.png")) == expected
    assert reason(Pictures(tmp_path / "none", [tmp_path / "x.zip"]).load("x.png")) == expected


def test_a_picture_of_too_many_pixels_is_not_decoded(tmp_path: Path) -> None:
    header = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    (tmp_path / "x.png").write_bytes(header + struct.pack(">I", 0))
    assert reason(Pictures(tmp_path).load("x.png")) in ("image too large", "image cannot be read")


def test_files_over_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "FILE_BYTES", len(INSIDE) - 1)
    (tmp_path / "x.png").write_bytes(INSIDE)
    assert reason(Pictures(tmp_path).load("x.png")) == "image too large"
    assert reason(from_base64(base64.b64encode(INSIDE).decode(), "x")) == "image too large"


@pytest.mark.parametrize("lie", [False, True])
def test_a_zip_bomb_unpacks_to_no_more_than_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: bool
) -> None:
    """100 MB of zeros in 100 kB; with `lie` the archive says that they are 1,000 bytes."""
    monkeypatch.setattr(pictures, "FILE_BYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.png", "w") as file:
        for _ in range(100):
            file.write(bytes(1 << 20))
    if lie:
        data = (tmp_path / "x.zip").read_bytes()
        (tmp_path / "x.zip").write_bytes(data.replace(struct.pack("<I", 100 << 20), struct.pack("<I", 1000)))
    tracemalloc.start()
    try:
        found = Pictures(tmp_path / "x", [tmp_path / "x.zip"]).load("x.png")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reason(found) == ("image cannot be read" if lie else "image too large")
    assert peak < 8 << 20


def test_archives_of_all_kinds(tmp_path: Path) -> None:
    """Encrypted, of an unknown method, with a link for a member, cut short, and none at all."""
    none = tmp_path / "none"
    link = zipfile.ZipInfo("x.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    assert reason(Pictures(none, [tmp_path / "link.zip"]).load("x.png")) == "image cannot be read"

    whole = zipped(tmp_path / "whole.zip", {"x.png": INSIDE}).read_bytes()
    local, central = whole.index(b"PK\3\4"), whole.index(b"PK\1\2")
    for name, offset, value in (("encrypted", 6, 1), ("unknown", 8, 99)):
        data = bytearray(whole)
        data[local + offset : local + offset + 2] = struct.pack("<H", value)
        data[central + offset + 2 : central + offset + 4] = struct.pack("<H", value)
        (tmp_path / f"{name}.zip").write_bytes(bytes(data))
        assert reason(Pictures(none, [tmp_path / f"{name}.zip"]).load("x.png")) == "image cannot be read"

    for name, data in (("cut", whole[:-30]), ("empty", b""), ("text", b"no archive")):
        (tmp_path / f"{name}.zip").write_bytes(data)
        assert reason(Pictures(none, [tmp_path / f"{name}.zip"]).load("x.png")) == "archive cannot be read"
    assert reason(Pictures(none, [tmp_path / "absent.zip"]).load("x.png")) == NO_FILE


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_any_damaged_byte_of_an_archive_is_a_reason(tmp_path: Path, method: int) -> None:
    small, none = picture(3, "PNG", 3), tmp_path / "none"
    with zipfile.ZipFile(tmp_path / "whole.zip", "w", method) as archive:
        archive.writestr("é.png", small)
    whole = (tmp_path / "whole.zip").read_bytes()
    reasons = set()
    for at, value in itertools.product(range(len(whole)), (0xFF, 0x09, None)):
        path = tmp_path / f"{at}-{value}.zip"
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x08 if value is None else value]) + whole[at + 1 :])
        found = Pictures(none, [path]).load("é.png")
        reasons.add(found.reason if isinstance(found, PictureError) else found.data)
        path.unlink()
    assert reasons == {small, NO_FILE, "image cannot be read", "archive cannot be read"}


def test_archives_are_asked_in_order_and_after_the_folder(tmp_path: Path) -> None:
    first = zipped(tmp_path / "1.zip", {"a.png": picture(1), "b.png": picture(2)})
    second = zipped(tmp_path / "2.zip", {"b.png": picture(3), "c.png": picture(4)})
    (tmp_path / "imgs").mkdir()
    (tmp_path / "imgs" / "a.png").write_bytes(picture(5))
    found = [Pictures(tmp_path / "imgs", [first, second]).load(f"{name}.png") for name in "abc"]
    assert [image.data for image in found if isinstance(image, Image)] == [picture(5), picture(2), picture(4)]


def test_what_is_kept_is_bounded_and_stays_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.png").write_bytes(INSIDE)
    (tmp_path / "y.png").write_bytes(SECRET)
    store = Pictures(tmp_path)
    one = store.load("x.png")
    assert store.load("x.png") is one
    assert len(pickle.dumps(store)) < 1000
    monkeypatch.setattr(pictures, "KEPT_NAMES", 10)
    for number in range(50):
        store.load(f"{number}.png")
    assert len(store._kept) == 10
    monkeypatch.setattr(pictures, "KEPT_BYTES", len(INSIDE))
    store.load("x.png")
    store.load("y.png")
    assert list(store._kept) == ["y.png"]
    assert store._bytes == len(SECRET)


CODED = base64.b64encode(INSIDE).decode()


@pytest.mark.parametrize(
    "text",
    [
        CODED,
        f"data:image/png;base64,{CODED}",
        "\n".join(CODED[at : at + 76] for at in range(0, len(CODED), 76)),
        f"  {CODED}\r\n",
    ],
)
def test_base64(text: str) -> None:
    found = from_base64(text, "x.png")
    assert isinstance(found, Image)
    assert (found.data, found.name) == (INSIDE, "x.png")


@given(st.text(max_size=80) | st.binary(max_size=60).map(lambda data: base64.b64encode(data).decode()))
def test_base64_of_anything_is_a_reason(text: str) -> None:
    assert reason(from_base64(text, "x")) in ("image cannot be read", "image truncated")


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ({"bytes": INSIDE, "path": "dir/a.png"}, "a.png"),
        ({"bytes": INSIDE, "path": None}, "row-3"),
        ({"bytes": INSIDE, "path": ""}, "row-3"),
        ({"bytes": INSIDE, "path": 5}, "row-3"),
        ({"bytes": INSIDE, "path": "../../a.png"}, "a.png"),
        (INSIDE, "row-3"),
        ({"bytes": b"", "path": "a"}, PictureError("empty image")),
        ({"bytes": None, "path": "/etc/passwd"}, PictureError(NO_FILE)),
        ({"path": "/etc/passwd"}, PictureError(NO_FILE)),
        ({"bytes": "text"}, PictureError(NO_FILE)),
        (None, PictureError(NO_FILE)),
        ("/etc/passwd", PictureError(NO_FILE)),
        ({"bytes": b"no picture"}, PictureError("image cannot be read")),
    ],
)
def test_cells(cell: Any, expected: str | PictureError) -> None:
    found = from_cell(cell, "row-3")
    if isinstance(expected, PictureError):
        assert reason(found) == expected.reason
    else:
        assert isinstance(found, Image)
        assert (found.data, found.name) == (INSIDE, expected)


def test_bytes_are_never_changed(tmp_path: Path) -> None:
    """A picture is passed on as it came, with whatever is behind its end."""
    data = INSIDE + b"more"
    (tmp_path / "x.png").write_bytes(data)
    found = Pictures(tmp_path).load("x.png")
    assert isinstance(found, Image)
    assert found.data == data
    assert io.BytesIO(found.data).read(8) == b"\x89PNG\r\n\x1a\n"
