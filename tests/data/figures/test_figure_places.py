"""Panels whose caption says where they lie, and pictures of 16 bits in either byte order."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
import pytest
from figure_samples import encoded, figure, scan

from medvlm.data.figures import captions, panels
from medvlm.data.sample import Sample


def two_by_two() -> bytes:
    whole = PIL.Image.new("L", (330, 250), 255)
    for index in range(4):
        whole.paste(scan(index), (170 * (index % 2), 130 * (index // 2)))
    return encoded(whole)


def texts(caption: str) -> dict[int, str]:
    """Return for each cell of a 2x2 figure, in reading order, the text it was given; {} where it stays whole."""
    pieces = panels.split(figure(caption, two_by_two(), compound=True))
    if len(pieces) == 1:
        assert (pieces[0].compound, pieces[0].target) == (True, caption)
        return {}
    return {cell(piece): piece.target for piece in pieces}


def cell(piece: Sample) -> int:
    with PIL.Image.open(io.BytesIO(piece.image.data)) as picture:
        (index,) = [i for i in range(4) if scan(i).tobytes() == picture.tobytes()]
    return index


@pytest.mark.parametrize(
    "caption",
    [
        "(A, upper left) Axial CT. (B, lower left) Coronal CT. (C, upper right) Axial MRI. (D, lower right) MRI.",
        "(A) Axial CT (upper left). (B) Coronal CT (lower left). (C) Axial MRI (upper right). (D) MRI (lower right).",
        "Left column: (A) Axial CT, (B) coronal CT. Right column: (C) axial MRI, (D) coronal MRI.",
        "(A) Axial CT (left). (B) Coronal CT (left). (C) Axial MRI (right). (D) Coronal MRI (right).",
    ],
)
def test_a_figure_stays_whole_where_its_caption_places_panels_otherwise(caption: str) -> None:
    assert texts(caption) == {}


@pytest.mark.parametrize(
    "caption",
    [
        "(A, upper left) Axial CT. (B, upper right) Coronal CT. (C, lower left) Axial MRI. (D, lower right) MRI.",
        "(A) Axial CT (top left). (B) Coronal CT (top right). (C) Axial MRI (bottom left). (D) MRI (bottom right).",
        "(A) Axial CT. (B) Coronal CT. (C) Axial MRI of the left upper lobe. (D) MRI.",
    ],
)
def test_a_figure_is_cut_where_its_caption_agrees(caption: str) -> None:
    found = texts(caption)
    assert [found[index].split(" (")[0].rstrip(".") for index in range(2)] == ["Axial CT", "Coronal CT"]
    assert found[2].startswith("Axial MRI")
    assert found[3].startswith("MRI")


@pytest.mark.parametrize(
    "caption",
    [
        "Patient 1 (A-C) and patient 2 (D-F): CT (A, D), MRI (B, E), PET (C, F).",
        "Patient 1 (A, B), patient 2 (C, D). (A) CT. (B) MRI. (C) CT. (D) MRI.",
    ],
)
def test_shared_text_that_tells_panels_apart_is_not_given_to_all(caption: str) -> None:
    assert captions.split_panels(caption) is None


def test_shared_text_may_mark_all_panels() -> None:
    split = captions.split_panels("CT of one patient (A-C). (A) Axial. (B) Coronal. (C) Sagittal.")
    assert split is not None
    assert [text for _, text in split.parts] == ["Axial.", "Coronal.", "Sagittal."]


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_panels_of_16_bits_keep_them(mode: str) -> None:
    rng = np.random.default_rng(5)
    values = np.full((120, 330), 65535, dtype=np.uint16)
    values[:, :160] = rng.integers(1000, 40000, (120, 160))
    values[:, 170:] = rng.integers(1000, 40000, (120, 160))
    order = "<u2" if mode == "I;16" else ">u2"
    whole = PIL.Image.frombytes(mode, (330, 120), values.astype(order).tobytes())
    pieces = panels.split(figure("(A) CT. (B) MRI.", encoded(whole, "TIFF"), "f1.tif", compound=True))
    assert [piece.panel for piece in pieces] == ["a", "b"]
    for piece, start in zip(pieces, (0, 170), strict=True):
        with PIL.Image.open(io.BytesIO(piece.image.data)) as picture:
            assert np.array_equal(np.asarray(picture), values[:, start : start + 160])
