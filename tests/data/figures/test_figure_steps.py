"""All steps together: size, panels, modality, task, as the reader calls them."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import PIL.Image
import pytest
from figure_samples import encoded, figure, in_a_row, scan, slice_on_black
from hypothesis import given, settings
from hypothesis import strategies as st

from medvlm.data.figures import panels, pixels, steps
from medvlm.data.figures.captions import split_panels
from medvlm.data.images import decode
from medvlm.data.sample import Credit, Image, Reject, Sample
from medvlm.data.sources.pmc.options import PmcOptions
from medvlm.io import sha256_bytes

TWO = "Head. (A) Axial CT scan. (B) Sagittal T2-weighted MRI."


def made(sample: Sample, **options: object) -> list[Sample | Reject | Credit]:
    return list(steps.apply([sample], PmcOptions(**options)))  # type: ignore[arg-type]


def test_default_options_only_tell_the_modality() -> None:
    sample = figure("Axial CT scan of the liver.", compound=False)
    reject, credit = Reject("pmc", "x", "no caption"), Credit("PMC1")
    assert list(steps.apply([reject, sample, credit], PmcOptions())) == [
        reject,
        dataclasses.replace(sample, modality="ct", modality_evidence="caption: Axial CT scan", organ="liver"),
        credit,
    ]


def test_known_modality_and_organ_stay() -> None:
    (kept,) = made(figure("Axial CT scan of the liver.", modality="mri", organ="knee"))
    assert isinstance(kept, Sample)
    assert (kept.modality, kept.modality_evidence, kept.organ) == ("mri", None, "knee")


def test_split_panels_are_cut_out_without_loss() -> None:
    whole = figure(TWO, in_a_row(2), compound=True)
    first, second = made(whole, panels="split")
    assert isinstance(first, Sample)
    assert isinstance(second, Sample)
    assert (first.id, second.id) == ("PMC1/F1/a/caption/0", "PMC1/F1/b/caption/0")
    assert (first.panel, first.compound, first.original_text) == ("a", False, TWO)
    assert (first.target, second.target) == ("Head. Axial CT scan.", "Head. Sagittal T2-weighted MRI.")
    assert (first.modality, second.modality) == ("ct", "mri")
    assert (first.image.name, first.file_name) == ("f1.panel-a.png", "f1.png")
    for index, panel in enumerate((first, second)):
        assert panel.sha256 == sha256_bytes(panel.image.data)
        assert np.array_equal(np.asarray(PIL.Image.open(io.BytesIO(panel.image.data))), np.asarray(scan(index)))
    assert made(figure(TWO, in_a_row(2), compound=True), panels="split") == [first, second]


@pytest.mark.parametrize("count", [1, 3])
def test_figures_where_caption_and_picture_differ_stay_whole(count: int) -> None:
    whole = figure(TWO, in_a_row(count), compound=None)
    (kept,) = made(whole, panels="split")
    assert isinstance(kept, Sample)
    assert (kept.id, kept.target, kept.panel, kept.compound) == (whole.id, TWO, None, True)
    assert kept.image.data == whole.image.data


def test_real_parts_get_their_own_text() -> None:
    part = figure(TWO, panel="B", compound=True)
    (own,) = made(part, panels="split")
    assert isinstance(own, Sample)
    assert (own.target, own.original_text, own.modality) == ("Head. Sagittal T2-weighted MRI.", TWO, "mri")
    (kept,) = made(part)
    assert isinstance(kept, Sample)
    assert (kept.target, kept.panel, kept.compound, kept.modality) == (TWO, "B", True, "mri")
    (other,) = made(figure(TWO, panel="3", compound=True), panels="split")
    assert isinstance(other, Sample)
    assert other.target == TWO


def test_drop_rejects_compound_figures_only() -> None:
    assert made(figure(TWO, compound=True), panels="drop") == [Reject("pmc", "PMC1/F1/-/caption/0", "compound figure")]
    assert isinstance(made(figure("Axial CT scan.", compound=False), panels="drop")[0], Sample)


def test_modalities_are_chosen_panel_by_panel() -> None:
    whole = figure(TWO, in_a_row(2), compound=True)
    kept, dropped = made(whole, panels="split", modalities=("ct",))
    assert isinstance(kept, Sample)
    assert kept.modality == "ct"
    assert dropped == Reject("pmc", "PMC1/F1/b/caption/0", "modality not asked for", "mri")
    (unknown,) = made(figure("A man."), modalities=("ct",))
    assert unknown == Reject("pmc", "PMC1/F1/-/caption/0", "modality not asked for", "unknown")


def test_small_pictures_are_dropped_when_asked() -> None:
    assert isinstance(made(figure("CT."), min_side=120)[0], Sample)
    assert made(figure("CT."), min_side=121)[0] == Reject(
        "pmc", "PMC1/F1/-/caption/0", "image too small", "160x120 pixels"
    )


def test_damage_is_a_reject() -> None:
    (reject,) = made(figure(TWO, in_a_row(2)[:200], compound=True), panels="split")
    assert isinstance(reject, Reject)
    assert reject.reason == "image cannot be read"


def test_questions_or_a_reason() -> None:
    asked = made(figure("Axial CT scan of the liver."), task="vqa")
    assert [item.task for item in asked if isinstance(item, Sample)] == ["vqa"] * len(asked)
    assert len(asked) == 4
    assert made(figure("A man."), task="vqa") == [Reject("pmc", "PMC1/F1/-/caption/0", "no question from caption")]


def test_max_side_shrinks_after_cutting() -> None:
    first, _ = made(figure(TWO, in_a_row(2), compound=True), panels="split", max_side=80)
    assert isinstance(first, Sample)
    assert decode(first.image.data).size == (80, 60)
    assert (first.image.name, first.file_name) == ("f1.panel-a.max80.png", "f1.png")
    assert first.sha256 == sha256_bytes(first.image.data)
    small = figure("CT.")
    (kept,) = made(small, max_side=160)
    assert isinstance(kept, Sample)
    assert kept.image.data == small.image.data


@pytest.mark.parametrize(
    ("mode", "form", "result"),
    [("L", "JPEG", "JPEG"), ("RGB", "JPEG", "JPEG"), ("CMYK", "JPEG", "JPEG"), ("CMYK", "TIFF", "PNG"),
     ("P", "GIF", "PNG"), ("RGBA", "PNG", "PNG"), ("1", "TIFF", "PNG"), ("L", "WEBP", "PNG")],
)  # fmt: skip
def test_shrunk_pictures_show_the_same(mode: str, form: str, result: str) -> None:
    picture = scan(4, 400, 300).convert("RGB").convert(mode)
    image = Image(encoded(picture, form), "f.tif")
    small = pixels.shrink(image, 100)
    assert small.look is not None
    assert (small.look.format, small.look.width, small.look.height) == (result, 100, 75)
    before = np.asarray(decode(image.data).resize((100, 75), PIL.Image.Resampling.BOX)).astype(int)
    after = np.asarray(decode(small.data)).astype(int)
    assert np.abs(before - after).mean() < (30 if mode == "1" else 4)
    assert pixels.shrink(image, 100).data == small.data


def test_sixteen_bits_stay() -> None:
    values = (np.add.outer(np.arange(300), np.arange(400)) * 90).astype(np.uint16)
    small = pixels.shrink(Image(encoded(PIL.Image.fromarray(values), "TIFF"), "f.tif"), 100)
    shown = PIL.Image.open(io.BytesIO(small.data))
    assert (shown.mode, shown.size) == ("I;16", (100, 75))
    assert np.abs(np.asarray(shown).astype(int)[5:-5, 5:-5] - values[2::4, 2::4].astype(int)[5:-5, 5:-5]).max() < 200
    assert decode(small.data).size == (100, 75)


def test_pictures_lie_as_their_exif_says() -> None:
    picture = scan(1, 200, 100)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    turned = Image(encoded(picture, "JPEG", exif=exif), "f.jpg")
    assert decode(pixels.shrink(turned, 50).data).size == decode(turned.data).resize((25, 50)).size


def test_places_are_matched_by_where_they_lie() -> None:
    boxes = [(0, 0, 10, 10), (12, 0, 20, 10)]
    sides, heights = split_panels("Right: CT. Left: MRI."), split_panels("Top: CT. Bottom: MRI.")
    assert panels.match(sides, boxes) == [("left", boxes[0]), ("right", boxes[1])]
    assert panels.match(heights, boxes) is None
    assert panels.match(None, boxes) is None


def test_slices_on_black_are_cut_by_what_the_caption_counts() -> None:
    whole = PIL.Image.new("L", (330, 160))
    for index in range(2):
        whole.paste(slice_on_black(index), (170 * index, 0))
    first, second = made(figure(TWO, encoded(whole), compound=True), panels="split")
    assert isinstance(first, Sample)
    assert isinstance(second, Sample)
    assert (first.panel, first.modality, second.panel, second.modality) == ("a", "ct", "b", "mri")
    for index, panel in enumerate((first, second)):
        shown = PIL.Image.open(io.BytesIO(panel.image.data))
        assert shown.size == (165, 160)
        assert np.array_equal(np.asarray(shown)[:, 5 * index :][:, :160], np.asarray(slice_on_black(index)))
    (kept,) = made(figure("Axial CT.", encoded(whole)), panels="split")
    assert isinstance(kept, Sample)
    assert kept.panel is None


def test_letters_are_read_row_by_row_unless_there_are_more_rows() -> None:
    labels = split_panels("(A) One. (B) Two. (C) Three. (D) Four. (E) Five. (F) Six.")
    wide = [(x, y, x + 10, y + 10) for y in (0, 12) for x in (0, 12, 24)]
    tall = [(x, y, x + 10, y + 10) for y in (0, 12, 24) for x in (0, 12)]
    column = [(0, y, 10, y + 10) for y in range(0, 72, 12)]
    assert panels.match(labels, wide) == list(zip("abcdef", wide, strict=True))
    assert panels.match(labels, column) == list(zip("abcdef", column, strict=True))
    assert panels.match(labels, tall) is None


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["PNG", "JPEG", "TIFF"]), st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=8)
)
def test_damaged_pictures_never_raise(form: str, changes: list[tuple[int, int]]) -> None:
    data = bytearray(in_a_row(2, form))
    for place, value in changes:
        data[place % len(data)] = value
    for item in made(figure(TWO, bytes(data), compound=True), panels="split", max_side=50):
        assert isinstance(item, Sample | Reject)
        assert isinstance(item, Sample) or item.reason.startswith("image ")
