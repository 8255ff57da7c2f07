"""Pixels of DICOM files against pydicom's own functions, an independent decoder's rules, and slow references."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts_dicom import ct, lut, put_pixels, save
from PIL import Image as PILImage
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import pixel_array
from pydicom.sequence import Sequence

from medvlm.data.look import MAX_PIXELS, PictureError
from medvlm.data.pseudonyms import Key
from medvlm.data.sample import Reject, Sample
from medvlm.data.sources.dicom import apart, codestream, gray, headers, pixels, refuse
from medvlm.data.sources.dicom.opened import opened
from medvlm.data.sources.dicom.options import PRESETS, parse, parse_window
from medvlm.data.sources.dicom.source import DicomSource


def shown(path: Path, window: str = "tag", frame: int = 0) -> np.ndarray:
    """Return the picture that comes out, as an array."""
    with opened(path) as found:
        pixels.count_frames(found)
        data = pixels.picture(found, frame, parse_window(window))
    with PILImage.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        assert image.mode in ("L", "RGB")
        return np.asarray(image)


def refused(path: Path) -> PictureError:
    with pytest.raises(PictureError) as caught:
        shown(path)
    return caught.value


def truth(path: Path, frame: int = 0) -> np.ndarray:
    """Return what pydicom's functions make of a file, scaled to 0..255; without a window by percentiles."""
    logging.getLogger("pydicom").disabled = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = pydicom.dcmread(path, force=True)
        stored = pixel_array(header, index=frame)
        if header.PhotometricInterpretation == "PALETTE COLOR":
            return apply_color_lut(stored, header) / 257.0
        if stored.ndim == 3:
            return stored.astype(float)
        scaled = apply_modality_lut(stored, header)
        if "WindowCenter" in header:
            out = apply_voi_lut(scaled, header)
            ends = np.array([-(2 ** (header.BitsStored - 1)), 2 ** (header.BitsStored - 1) - 1])
            ends = ends if header.PixelRepresentation else np.array([0, 2**header.BitsStored - 1])
            ends = ends * float(header.get("RescaleSlope", 1)) + float(header.get("RescaleIntercept", 0))
            out = (out - ends[0]) / (ends[1] - ends[0])
        else:
            used = stored != header.get("PixelPaddingValue", 2**40)
            low, high = np.percentile(scaled[used], [gray.LOW, gray.HIGH], method="inverted_cdf")
            out = np.where(used, np.clip((scaled - low) / (high - low), 0, 1), 0)
    return out * 255


READABLE = (
    "CT_small ExplVR_BigEnd MR_small MR_small_RLE MR_small_bigendian MR_small_implicit MR_small_jp2klossless "
    "MR_small_jpeg_ls_lossless examples_jpeg2k examples_overlay examples_palette examples_ybr_color"
)


@pytest.mark.realdata
@pytest.mark.parametrize("name", READABLE.split())
def test_real_files_look_as_pydicom_says(realdata: Path, name: str) -> None:
    path = realdata / "dicom" / f"{name}.dcm"
    assert np.abs(shown(path).astype(float) - truth(path)).max() <= 1.0


@pytest.mark.realdata
def test_all_transfer_syntaxes_of_one_picture_give_one_picture(realdata: Path) -> None:
    kinds = ("", "_RLE", "_bigendian", "_implicit", "_jp2klossless", "_jpeg_ls_lossless")
    found = [shown(realdata / "dicom" / f"MR_small{kind}.dcm") for kind in kinds]
    assert all((one == found[0]).all() for one in found)


@pytest.mark.realdata
def test_a_file_without_its_meta_information_is_read_all_the_same(realdata: Path) -> None:
    folder = realdata / "dicom"
    assert (shown(folder / "no_meta.dcm") == shown(folder / "CT_small.dcm")).all()


@pytest.mark.realdata
def test_every_frame_is_its_own(realdata: Path) -> None:
    path = realdata / "dicom" / "examples_ybr_color.dcm"
    for frame in (0, 15, 29):
        assert np.abs(shown(path, frame=frame).astype(float) - truth(path, frame)).max() <= 1.0
    assert (shown(path, frame=0) != shown(path, frame=15)).any()


@pytest.mark.realdata
def test_twelve_bit_jpeg(realdata: Path) -> None:
    """The header tells the smallest and largest value before compression, which was lossy; GDCM reads it alone."""
    with opened(realdata / "dicom" / "JPEG-lossy.dcm") as found:
        stored = pixels._decoded(found, 0)
        assert stored.shape == (found.header.Rows, found.header.Columns) == (1024, 256)
        assert stored.min() == found.header.SmallestImagePixelValue == 0
        assert abs(int(stored.max()) - found.header.LargestImagePixelValue) < 0.1 * 278


@pytest.mark.realdata
def test_a_decoder_that_crashes_is_a_reason_and_the_next_frame_is_read(realdata: Path) -> None:
    path = realdata / "dicom" / "JPEG-lossy.dcm"
    expected = shown(path)
    assert apart._child is not None
    apart._child[0].kill()
    apart._child[0].join()
    error = refused(path)
    assert (error.reason, error.detail) == ("pixel data cannot be read", "the decoder crashed")
    assert (shown(path) == expected).all()


@pytest.mark.realdata
def test_a_decoder_that_does_not_end_is_given_up(realdata: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = realdata / "dicom" / "JPEG-lossy.dcm"
    expected = shown(path)
    assert apart._child is not None
    assert apart._child[0].pid is not None
    os.kill(apart._child[0].pid, signal.SIGSTOP)
    with monkeypatch.context() as patch:
        patch.setattr(apart, "SECONDS", 0.2)
        assert "took more than" in refused(path).detail
    assert (shown(path) == expected).all()


@pytest.mark.realdata
def test_which_decoder_each_compression_needs(realdata: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As data_cards/dicom.md tells it; without GDCM twelve-bit JPEG has a reason that names the pip line."""
    needed = {
        "MR_small_RLE": "pydicom",
        "MR_small_jp2klossless": "pylibjpeg",
        "examples_jpeg2k": "pylibjpeg",
        "MR_small_jpeg_ls_lossless": "pyjpegls",
        "examples_ybr_color": "pillow",
    }
    for name, plugin in needed.items():
        path = realdata / "dicom" / f"{name}.dcm"
        expected = shown(path)
        with monkeypatch.context() as patch:
            decoders = "pydicom.pixels.decoders.base.Decoder"
            patch.setattr(f"{decoders}.available_plugins", property(lambda self, only=plugin: (only,)))
            assert (shown(path) == expected).all()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "gdcm", None)
        error = refused(realdata / "dicom" / "JPEG-lossy.dcm")
    assert error.reason == "no decoder for the compression"
    assert "pip install 'medvlm[dicom]'" in error.detail


@pytest.mark.realdata
def test_overlays_are_not_drawn(realdata: Path, tmp_path: Path) -> None:
    path = realdata / "dicom" / "examples_overlay.dcm"
    header = pydicom.dcmread(path)
    overlays = [element.tag for element in header if element.tag.group & 0xFF00 == 0x6000]
    assert overlays
    for tag in overlays:
        del header[tag]
    header.save_as(tmp_path / "bare.dcm")
    assert (shown(path) == shown(tmp_path / "bare.dcm")).all()


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("MR_truncated", "pixel data cut short"),
        ("badVR", "header does not describe a picture"),
        ("reportsi", "no pixel data"),
        ("test-SR", "no pixel data"),
    ],
)
def test_real_files_without_a_picture_have_a_reason(realdata: Path, name: str, reason: str) -> None:
    assert refused(realdata / "dicom" / f"{name}.dcm").reason == reason


def test_what_pydicom_brings_for_its_own_tests(tmp_path: Path) -> None:
    """Deflated, near-lossless JPEG-LS, lossless JPEG, YBR of all kinds: as pydicom shows them, within lossy JPEG."""
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    names = "image_dfl SC_rgb_jpeg_gdcm SC_rgb_jpeg_dcmtk SC_ybr_full_422_uncompressed SC_rgb_rle_2frame"
    names += " SC_rgb_jls_lossy_line"
    for name in names.split():
        path = folder / f"{name}.dcm"
        if name == "image_dfl":
            expected = pydicom.dcmread(path).pixel_array.astype(float)
        else:
            expected = truth(path)
        assert np.abs(shown(path).astype(float) - expected).max() <= 2.0, name


@given(
    stored=st.integers(-2000, 4000),
    center=st.floats(-500, 500),
    width=st.floats(1, 3000),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
)
@settings(deadline=None, max_examples=60)
def test_windows_are_those_of_pydicom(stored: int, center: float, width: float, function: str) -> None:
    header = Dataset()
    header.WindowCenter, header.WindowWidth, header.VOILUTFunction = round(center, 3), round(width, 3), function
    header.PhotometricInterpretation, header.BitsStored, header.PixelRepresentation = "MONOCHROME2", 16, 0
    values = np.array([stored, stored + 1], np.int32)
    with np.errstate(over="ignore"):
        expected = apply_voi_lut(values, header) / 65535.0
    made = gray.windowed(values.astype(float), header.WindowCenter, header.WindowWidth, function)
    assert np.abs(made - expected).max() < 1e-9


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_for_hounsfield_units(tmp_path: Path, name: str) -> None:
    center, width = PRESETS[name]
    values = np.arange(-1024, 3072, 16).reshape(16, 16)
    path = save(ct((values + 1024).astype(np.int16)), tmp_path / "ct")
    ramp = shown(path, name).ravel()
    hounsfield = values.ravel()
    assert set(ramp[hounsfield <= center - width / 2 - 1]) <= {0}
    assert set(ramp[hounsfield >= center + width / 2 + 1]) <= {255}
    assert (np.diff(ramp.astype(int)) >= 0).all()
    nearest = int(np.abs(hounsfield - center).argmin())
    assert abs(int(ramp[nearest]) - 127) <= 255 * 9 / width + 2
    other = save(ct((values + 1024).astype(np.int16), Modality="MR"), tmp_path / "mr")
    assert (shown(other, name) == shown(other, "tag")).all()


def test_own_numbers_hold_for_every_modality(tmp_path: Path) -> None:
    path = save(ct(Modality="MR", RescaleSlope=None, RescaleIntercept=None), tmp_path / "mr")
    expected = gray.windowed(np.arange(256) * 8.0, 1000, 500, "LINEAR") * 255
    assert np.abs(shown(path, "1000/500").ravel() - expected).max() <= 0.5


def test_inverted_gray(tmp_path: Path) -> None:
    window: dict[str, Any] = {"WindowCenter": 0, "WindowWidth": 2000}
    plain = shown(save(ct(**window), tmp_path / "a"))
    inverted = shown(save(ct(**window, PhotometricInterpretation="MONOCHROME1"), tmp_path / "b"))
    assert np.abs(255 - plain.astype(int) - inverted).max() <= 1
    assert plain[0, 0] < plain[-1, -1]


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_filling_is_black_and_left_out_of_the_percentiles(tmp_path: Path, photometric: str) -> None:
    values = (np.arange(256, dtype=np.int16) + 1000).reshape(16, 16)
    values[:8] = -2000
    path = save(ct(values, PixelPaddingValue=-2000, PhotometricInterpretation=photometric), tmp_path / "a")
    made = shown(path, "percentile")
    assert (made[:8] == 0).all()
    low, high = np.percentile(values[8:], [0.5, 99.5], method="inverted_cdf")
    expected = np.clip((values[8:] - low) / (high - low), 0, 1) * 255
    expected = 255 - expected if photometric == "MONOCHROME1" else expected
    assert np.abs(made[8:] - expected).max() <= 0.5 + 1e-9
    ranged = ct(values, PixelPaddingValue=-2000, PixelPaddingRangeLimit=1130, PhotometricInterpretation=photometric)
    assert (shown(save(ranged, tmp_path / "b"))[values <= 1130] == 0).all()


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian])
def test_lookup_tables(tmp_path: Path, bits: int, syntax: uid.UID) -> None:
    """Values below and above a table take its ends (PS3.3, C.11.1.1.1): worked out one by one."""
    entries = [(index * index) % (1 << bits) for index in range(100)]
    made = ct((np.arange(256, dtype=np.uint16)).reshape(16, 16), RescaleSlope=None, RescaleIntercept=None)
    made.VOILUTSequence = Sequence([lut(50, entries, bits)])
    if syntax == uid.ExplicitVRBigEndian:
        made.PixelData = np.frombuffer(made.PixelData, "<u2").astype(">u2").tobytes()
    made.WindowCenter, made.WindowWidth = 5, 10  # the table goes first
    path = save(made, tmp_path / "voi", syntax)
    expected = [entries[min(max(value - 50, 0), 99)] / ((1 << bits) - 1) * 255 for value in range(256)]
    assert np.abs(shown(path).ravel() - expected).max() <= 0.5 + 1e-9
    del made.VOILUTSequence
    made.ModalityLUTSequence = Sequence([lut(50, entries, bits)])
    made.WindowCenter, made.WindowWidth = (1 << bits) / 2, 1 << bits
    path = save(made, tmp_path / "modality", syntax)
    assert np.abs(shown(path).ravel() - expected).max() <= 1.0


def test_a_table_that_is_too_short_is_a_reason(tmp_path: Path) -> None:
    item = lut(0, [1, 2, 3], 8)
    item.LUTDescriptor = [9, 0, 8]
    path = save(ct(VOILUTSequence=Sequence([item])), tmp_path / "a")
    assert refused(path).reason == "lookup table cannot be used"


def test_eight_bit_gray_without_a_window_stays_as_it_is(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16) // 3
    assert (shown(save(ct(values, RescaleSlope=None, RescaleIntercept=None), tmp_path / "a")) == values).all()


def test_unused_high_bits_do_not_show(tmp_path: Path) -> None:
    """Old machines kept overlays there (PS3.5, 8.1.1)."""
    values = np.arange(256, dtype=np.uint16).reshape(16, 16) * 16
    window: dict[str, Any] = {"WindowCenter": 2048, "WindowWidth": 4096, "BitsStored": 12, "HighBit": 11}
    clean = save(ct(values, RescaleIntercept=0, **window), tmp_path / "a")
    marked = save(ct(values | 0x8000, RescaleIntercept=0, **window), tmp_path / "b")
    assert (shown(clean) == shown(marked)).all()


def test_sixteen_bit_color(tmp_path: Path) -> None:
    values = (np.arange(16 * 16 * 3, dtype=np.uint16) * 85).reshape(16, 16, 3)
    made = ct(values, RescaleSlope=None, RescaleIntercept=None)
    assert (shown(save(made, tmp_path / "a")) == values >> 8).all()


@pytest.mark.parametrize(("entries", "shift"), [([0, 256, 65280], 8), ([0, 1, 255], 0)])
def test_palettes_of_sixteen_bits_and_of_eight_in_sixteen(tmp_path: Path, entries: list[int], shift: int) -> None:
    made = ct(np.arange(256, dtype=np.uint8).reshape(16, 16) % 3, PhotometricInterpretation="PALETTE COLOR")
    for number, name in enumerate(("Red", "Green", "Blue")):
        table = np.roll(np.array(entries, "<u2"), number)
        made.add_new(f"{name}PaletteColorLookupTableDescriptor", "US", [3, 0, 16])
        made.add_new(f"{name}PaletteColorLookupTableData", "OW", table.tobytes())
    made = shown(save(made, tmp_path / "a"))
    expected = [np.roll(np.array(entries) >> shift, number)[np.arange(256) % 3] for number in range(3)]
    assert (expected == made.reshape(-1, 3).T).all()


def test_frames_have_their_own_rescale_and_window(tmp_path: Path) -> None:
    """As enhanced CT has them (PS3.3, C.7.6.16): the frame's come before the shared, the shared before the file's."""
    made = ct(RescaleSlope=1, RescaleIntercept=0, WindowCenter=1, WindowWidth=2)
    stored = np.stack([np.arange(256, dtype=np.int16).reshape(16, 16)] * 2)
    put_pixels(made, stored, frames=True)
    shared, frames = Dataset(), [Dataset(), Dataset()]
    shared.PixelValueTransformationSequence = Sequence([_group(RescaleSlope=2, RescaleIntercept=-100)])
    shared.FrameVOILUTSequence = Sequence([_group(WindowCenter=100, WindowWidth=400)])
    frames[1].FrameVOILUTSequence = Sequence([_group(WindowCenter=0, WindowWidth=50)])
    made.SharedFunctionalGroupsSequence = Sequence([shared])
    made.PerFrameFunctionalGroupsSequence = Sequence(frames)
    path = save(made, tmp_path / "a")
    for frame, (center, width) in enumerate([(100, 400), (0, 50)]):
        expected = gray.windowed(np.arange(256) * 2.0 - 100, center, width, "LINEAR") * 255
        assert np.abs(shown(path, frame=frame).ravel() - expected).max() <= 0.5 + 1e-9


def test_large_sequences_are_read_when_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medvlm.data.sources.dicom.opened.DEFER_BYTES", 8)
    test_frames_have_their_own_rescale_and_window(tmp_path)


def _group(**elements: float) -> Dataset:
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item


@given(values=st.lists(st.integers(0, 9), min_size=1, max_size=200))
@settings(deadline=None, max_examples=60)
def test_percentiles_are_those_of_numpy(values: list[int]) -> None:
    stored = np.array(values) ** 3
    low, high = np.percentile(stored, [gray.LOW, gray.HIGH], method="inverted_cdf")
    if high <= low:
        low, high = stored.min(), stored.max()
    expected = np.clip((stored - low) / (high - low), 0, 1) * 255 if high > low else stored * 0.0
    header = Dataset()
    header.PhotometricInterpretation, header.BitsStored, header.PixelRepresentation = "MONOCHROME2", 16, 0
    made = gray.render(stored[None].astype(np.uint16), header, 0, parse_window("percentile"))
    assert np.abs(made.ravel() - expected).max() <= 0.5 + 1e-9


@pytest.mark.parametrize(
    ("syntax", "options"),
    [(uid.JPEG2000Lossless, {}), (uid.JPEGLSLossless, {}), (uid.RLELossless, {}), (uid.JPEG2000, {"j2k_cr": [2]})],
)
def test_a_frame_that_unpacks_to_more_is_refused_before_decoding(
    tmp_path: Path, syntax: uid.UID, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ct(np.random.default_rng(1).integers(0, 4000, (64, 64), np.uint16))
    path = save(made, tmp_path / "a")
    made = pydicom.dcmread(path)
    made.compress(syntax, generate_instance_uid=False, **options)
    made.save_as(path)
    assert shown(path).shape == (64, 64)
    made.Rows = made.Columns = 8
    made.save_as(path)

    def decoder(*_: Any) -> None:
        raise AssertionError("a decoder was let at it")

    monkeypatch.setattr("pydicom.pixels.decoders.base.Decoder.as_array", decoder)
    assert refused(path).reason == "image too large"


def test_sizes_of_codestreams() -> None:
    made = io.BytesIO()
    PILImage.new("L", (37, 21)).save(made, "JPEG", progressive=True)
    assert codestream.size(made.getvalue()) == (37, 21)
    made = io.BytesIO()
    PILImage.new("RGB", (40, 23)).save(made, "JPEG2000")
    assert codestream.size(made.getvalue()) == (40, 23)
    assert codestream.size(b"") is None
    assert codestream.size(b"\xff\xd8\xff\xe0\0\0") is None


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes_have_a_size_or_none(data: bytes) -> None:
    for start in (b"", b"\xff\xd8\xff", b"\xff\x4f\xff\x51"):
        found = codestream.size(start + data)
        assert found is None or min(found) >= 0


def test_gigantic_headers_are_refused_before_decoding(tmp_path: Path) -> None:
    path = save(ct(Rows=65535, Columns=65535), tmp_path / "a")
    assert MAX_PIXELS < 65535**2
    assert refused(path).reason == "image too large"
    assert refused(save(ct(NumberOfFrames=2**31 - 1), tmp_path / "b")).reason == "pixel data cut short"


def test_a_missing_decoder_names_the_pip_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ct()
    path = save(made, tmp_path / "a")
    made = pydicom.dcmread(path)
    made.compress(uid.JPEGLSLossless, generate_instance_uid=False)
    made.save_as(path)
    monkeypatch.setattr("pydicom.pixels.decoders.base.Decoder.is_available", property(lambda self: False))
    error = refused(path)
    assert error.reason == "no decoder for the compression"
    assert "pip install 'medvlm[dicom]'" in error.detail
    assert "JPEG-LS" in error.detail


def test_video_has_no_decoder(tmp_path: Path) -> None:
    made = ct()
    made.PixelData = pydicom.encaps.encapsulate([b"\0" * 600])
    made["PixelData"].VR = "OB"
    path = save(made, tmp_path / "a", uid.MPEG2MPML)
    assert refused(path).reason == "no decoder for the compression"


def test_a_deflated_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ct(np.zeros((1000, 1000), np.int16))
    path = save(made, tmp_path / "a", uid.DeflatedExplicitVRLittleEndian)
    assert path.stat().st_size < 10_000
    assert shown(path).shape == (1000, 1000)
    monkeypatch.setattr("medvlm.data.sources.dicom.opened.INFLATED_BYTES", 1_000_000)
    assert refused(path).reason == "file too large"


@given(cut=st.integers(0, 3000), place=st.integers(0, 3000), byte=st.integers(0, 255))
@settings(deadline=None, max_examples=150)
def test_damage_anywhere_is_a_reason_or_a_picture(
    tmp_path_factory: pytest.TempPathFactory, cut: int, place: int, byte: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged"
    data = bytearray(save(ct(PatientName="Doe^John"), path).read_bytes())
    data[place % len(data)] = byte
    path.write_bytes(data[: len(data) - cut % 400])
    told = ""
    try:
        assert shown(path).dtype == np.uint8
    except PictureError as error:
        told = f"{error.reason}{error.detail}"
    assert "Doe" not in told


@given(st.binary(max_size=400))
@settings(deadline=None, max_examples=150)
def test_any_bytes_are_a_reason(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "noise"
    for start in (b"", b"\0" * 128 + b"DICM", b"\x08\0\x05\0CS\x02\0"):
        path.write_bytes(start + data)
        assert refused(path).reason


def test_a_table_that_begins_below_zero_without_a_vr_in_the_file(tmp_path: Path) -> None:
    """Implicit VR: the first value is read as the stored pixels are, unsigned, though what it maps is rescaled."""
    made = ct((np.arange(256, dtype=np.uint16) * 8).reshape(16, 16), RescaleIntercept=-1000)
    made.VOILUTSequence = Sequence([lut(-1000, list(range(0, 65536, 32)), 16)])
    told = shown(save(made, tmp_path / "a"))
    assert len(np.unique(told)) > 200
    assert (shown(save(made, tmp_path / "b", uid.ImplicitVRLittleEndian)) == told).all()


def test_filling_written_unsigned_beside_signed_pixels(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.int16).reshape(16, 16)
    values[:8] = -2000
    signed, unsigned = ct(values), ct(values)
    signed.add_new("PixelPaddingValue", "SS", -2000)
    unsigned.add_new("PixelPaddingValue", "US", 63536)
    told = shown(save(signed, tmp_path / "a"), "percentile")
    assert (shown(save(unsigned, tmp_path / "b"), "percentile") == told).all()


def test_eight_bits_rescaled_by_a_functional_group_are_no_gray_values(tmp_path: Path) -> None:
    made = ct(np.arange(256, dtype=np.uint8).reshape(16, 16) // 4, RescaleSlope=None, RescaleIntercept=None)
    shared = Dataset()
    shared.PixelValueTransformationSequence = Sequence([_group(RescaleSlope=4, RescaleIntercept=0)])
    made.SharedFunctionalGroupsSequence = Sequence([shared])
    assert shown(save(made, tmp_path / "a")).max() == 255


def test_a_dark_frame_of_a_palette_stays_dark(tmp_path: Path) -> None:
    made = ct(np.zeros((16, 16), np.uint8), PhotometricInterpretation="PALETTE COLOR")
    for name in ("Red", "Green", "Blue"):
        made.add_new(f"{name}PaletteColorLookupTableDescriptor", "US", [3, 0, 16])
        made.add_new(f"{name}PaletteColorLookupTableData", "OW", np.array([200, 256, 65280], "<u2").tobytes())
    assert shown(save(made, tmp_path / "a")).max() == 0


def test_the_label_tells_the_window_that_was_used() -> None:
    brain, tag = parse_window("brain"), parse_window("tag")
    assert "window brain" in headers.label(ct(), 0, brain)
    assert "window tag" in headers.label(ct(Modality="MR", WindowCenter=1, WindowWidth=2), 0, brain)
    assert "window percentile" in headers.label(ct(Modality="MR"), 0, brain)
    gray8 = ct(np.zeros((4, 4), np.uint8), RescaleSlope=None, RescaleIntercept=None)
    assert "window none" in headers.label(gray8, 0, tag)
    source = DicomSource((), Key(b"k" * 32), parse(target_from="modality", window="brain"), None, None, None)
    assert "--window brain for CT and" in str(source.card())
    assert headers.modality(ct(Modality="DG")) is None
    assert headers.modality_code(ct(Modality="DG")) == "DG"


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"SOPClassUID": uid.DigitalMammographyXRayImageStorageForProcessing, "Modality": "MG"}, refuse.RAW),
        ({"PresentationIntentType": "FOR PROCESSING", "Modality": "DX"}, refuse.RAW),
        ({"SOPClassUID": uid.UltrasoundImageStorage, "Modality": None}, refuse.UNSURE),
        ({"SOPClassUID": uid.UltrasoundImageStorage}, refuse.UNSURE),
        ({"BurnedInAnnotation": "Y"}, refuse.BURNED_IN),
        ({"BurnedInAnnotation": "1"}, refuse.BURNED_IN),
    ],
)
def test_what_is_refused_by_its_header(elements: dict[str, Any], reason: str) -> None:
    options = parse(target_from="modality")
    refuse.check(ct(BurnedInAnnotation="NO", SOPClassUID=uid.CTImageStorage), options)
    with pytest.raises(PictureError) as caught:
        refuse.check(ct(**elements), options)
    assert caught.value.reason == reason


def test_a_codestream_behind_a_long_box_and_one_with_strange_bytes_are_measured() -> None:
    file = io.BytesIO()
    PILImage.new("L", (40, 23)).save(file, "JPEG2000")
    whole = file.getvalue()
    box = whole.index(b"jp2c") - 4
    hidden = whole[:box] + (8008).to_bytes(4, "big") + b"free" + b"\0" * 8000 + whole[box:]
    assert codestream.size(hidden) == (40, 23)
    file = io.BytesIO()
    PILImage.new("L", (37, 21)).save(file, "JPEG")
    whole = file.getvalue()
    assert codestream.size(whole[:2] + b"\0" + whole[2:]) == (37, 21)


def test_a_frame_that_does_not_tell_its_size_is_refused_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ct(np.zeros((16, 16), np.uint8), RescaleSlope=None, RescaleIntercept=None)
    made.PixelData = pydicom.encaps.encapsulate([b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 50])
    made["PixelData"].VR = "OB"
    path = save(made, tmp_path / "a", uid.JPEG2000Lossless)

    def decoder(*_: Any) -> None:
        raise AssertionError("a decoder was let at it")

    monkeypatch.setattr("pydicom.pixels.decoders.base.Decoder.as_array", decoder)
    assert "does not tell its size" in refused(path).detail


def test_the_look_at_a_deflated_header_unpacks_its_beginning_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ct(np.zeros((2000, 2000), np.int16))
    path = save(made, tmp_path / "a", uid.DeflatedExplicitVRLittleEndian)
    where = "medvlm.data.sources.dicom.opened"
    monkeypatch.setattr(f"{where}.LOOK_BYTES", 1_000_000)
    monkeypatch.setattr(f"{where}.INFLATED_BYTES", 2_000_000)
    with opened(path, ["PatientID", "StudyInstanceUID"]) as found:
        assert found.header.PatientID == "4711"
    made.add_new(0x00091010, "OB", b"\0" * 1_500_000)
    save(made, path, uid.DeflatedExplicitVRLittleEndian)
    with pytest.raises(PictureError) as caught, opened(path, ["PatientID", "StudyInstanceUID"]):
        pass
    assert caught.value.reason == "file too large"


def test_a_broken_frame_costs_itself_alone(tmp_path: Path) -> None:
    frames = np.random.default_rng(1).integers(0, 255, (4, 16, 16), np.uint8)
    made, packed = ct(RescaleSlope=None, RescaleIntercept=None), []
    put_pixels(made, frames, frames=True)
    for frame in frames:
        file = io.BytesIO()
        PILImage.fromarray(frame).save(file, "JPEG")
        packed.append(file.getvalue())
    packed[1] = packed[2] = b"\xff\xd8\xff\xd9" + b"\0" * 20
    made.PixelData = pydicom.encaps.encapsulate(packed)
    made["PixelData"].VR = "OB"
    save(made, tmp_path / "in" / "a", uid.JPEGBaseline8Bit)
    source = DicomSource(
        (tmp_path / "in",), Key(b"k" * 32), parse(target_from="modality", frames="all"), None, None, None
    )
    found = [type(item) for unit in source.units() for item in source.read(unit)]
    assert found == [Sample, Reject, Reject, Sample]
