"""Which files give no picture, and why: other objects than pictures, text in the pixels, captured screens."""

from __future__ import annotations

from typing import Any

from pydicom import uid
from pydicom.dataset import Dataset

from medvlm.data.look import PictureError
from medvlm.data.sources.dicom.headers import modality_code, term
from medvlm.data.sources.dicom.options import Options

BURNED_IN, UNSURE, SECONDARY = "burned-in text", "burned-in text not ruled out", "secondary capture"
NOT_A_PICTURE, REPORT = "not a picture", "structured report, not asked for"
RAW = "raw values for processing, not for the eye"

WRITES_INTO_PIXELS = frozenset({"US", "IVUS", "BDUS", "ES", "OT"})
"""Modalities whose machines usually write names and numbers into the picture itself: without a header that says that
they did not (BurnedInAnnotation NO), their pictures are refused like those that say they did."""
_CLASSES_THAT_WRITE = ("Ultrasound", "Endoscopic")
"""Words of the SOP classes of such machines, whatever their files tell as Modality."""

DIRECTORY = uid.MediaStorageDirectoryStorage


def sop_class(header: Dataset) -> uid.UID:
    """Return the SOP class, "" where none is told."""
    return uid.UID(str(header.get("SOPClassUID") or header.get("MediaStorageSOPClassUID") or ""))


def is_report(header: Dataset) -> bool:
    """Whether a file is a structured report of text: not one of doses, measurements or marks."""
    kinds = (uid.BasicTextSRStorage, uid.EnhancedSRStorage, uid.ComprehensiveSRStorage, uid.Comprehensive3DSRStorage)
    return sop_class(header) in kinds


def is_picture(header: Dataset) -> bool:
    """Whether a file is of one of the standard's kinds of images; segmentations, doses and maps are not."""
    found = sop_class(header)
    # Without a name in the standard a UID is its own name.
    return "Image Storage" in found.name


def check(header: Dataset, options: Options) -> None:
    """Make sure that a file is a picture that was asked for.

    Raises:
        PictureError: it is not.
    """
    if is_report(header):
        raise PictureError(REPORT)
    if not is_picture(header):
        raise PictureError(NOT_A_PICTURE, modality_code(header) or "no SOP class of an image")
    # What a detector gave, before the processing that makes it a radiograph (PS3.3, C.8.11.2.1.1).
    if "For Processing" in sop_class(header).name:
        raise PictureError(RAW, "SOP class")
    if term(header, "PresentationIntentType") == "FOR PROCESSING":
        raise PictureError(RAW, "PresentationIntentType")
    if not options.allow_burned_in:
        _check_burned_in(header)
    if not options.allow_secondary:
        _check_secondary(header)


def says_burned_in(header: Dataset) -> str:
    """Return YES or NO as the header says of text in the pixels, "" where it says nothing.

    Whatever is written there but NO is taken for YES: the standard has no third word.
    """
    found = term(header, "BurnedInAnnotation").strip("\0 ")
    return ("NO" if found == "NO" else "YES") if found else ""


def writes_into_pixels(header: Dataset) -> bool:
    """Whether a picture is of a machine that usually writes names into it, by its modality or its SOP class."""
    name = sop_class(header).name
    return term(header, "Modality") in WRITES_INTO_PIXELS or any(word in name for word in _CLASSES_THAT_WRITE)


def _check_burned_in(header: Dataset) -> None:
    said = says_burned_in(header)
    if said == "YES":
        raise PictureError(BURNED_IN, "BurnedInAnnotation is not NO")
    # The label of a slide shows the patient's name (PS3.3, C.8.12.4.1.1).
    if {"LABEL", "OVERVIEW"} & set(_image_type(header)[2:3]):
        raise PictureError(BURNED_IN, "label of a slide")
    if not said and writes_into_pixels(header):
        raise PictureError(UNSURE, f"{modality_code(header) or 'no modality'} without BurnedInAnnotation")


def _check_secondary(header: Dataset) -> None:
    if "Secondary Capture" in sop_class(header).name:
        raise PictureError(SECONDARY, "SOP class")
    if term(header, "ConversionType"):
        raise PictureError(SECONDARY, "ConversionType")
    if _image_type(header)[1:2] == ["SECONDARY"]:
        raise PictureError(SECONDARY, "ImageType")


def _image_type(header: Dataset) -> list[str]:
    value: Any = header.get("ImageType")
    parts = [value] if isinstance(value, str) else list(value or ())
    return [str(part).strip().upper() for part in parts]
