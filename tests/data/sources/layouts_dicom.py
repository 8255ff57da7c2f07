"""Small DICOM files made with pydicom: CT slices, frames, palettes, structured reports, as machines write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid


def ct(pixels: np.ndarray | None = None, **elements: Any) -> Dataset:
    """Return a CT slice of 16 x 16, signed 16-bit with an intercept of -1024, and whatever is given instead."""
    if pixels is None:
        pixels = (np.arange(256, dtype=np.int16) * 8).reshape(16, 16)
    made = Dataset()
    made.SOPClassUID = uid.CTImageStorage
    made.SOPInstanceUID, made.StudyInstanceUID, made.SeriesInstanceUID = (generate_uid() for _ in range(3))
    made.Modality, made.PatientID, made.ImageType = "CT", "4711", ["ORIGINAL", "PRIMARY", "AXIAL"]
    made.RescaleSlope, made.RescaleIntercept = 1, -1024
    put_pixels(made, pixels)
    for keyword, value in elements.items():
        if value is None:
            if keyword in made:
                delattr(made, keyword)
        else:
            setattr(made, keyword, value)
    return made


def put_pixels(made: Dataset, pixels: np.ndarray, frames: bool = False) -> None:
    """Store [H, W], [frames, H, W] or [H, W, 3] whole numbers."""
    color = pixels.ndim == 3 and not frames
    made.Rows, made.Columns = pixels.shape[1:3] if frames else pixels.shape[:2]
    made.SamplesPerPixel = 3 if color else 1
    made.PhotometricInterpretation = "RGB" if color else "MONOCHROME2"
    if color:
        made.PlanarConfiguration = 0
    if frames:
        made.NumberOfFrames = len(pixels)
    bits = pixels.dtype.itemsize * 8
    made.BitsAllocated = made.BitsStored = bits
    made.HighBit, made.PixelRepresentation = bits - 1, int(pixels.dtype.kind == "i")
    made.add_new("PixelData", "OW" if bits > 8 else "OB", pixels.tobytes() + b"\0" * (pixels.nbytes % 2))


def save(made: Dataset, path: Path, syntax: uid.UID = uid.ExplicitVRLittleEndian) -> Path:
    """Write a file with its meta information."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made.file_meta = FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.file_meta.TransferSyntaxUID = syntax
    made.save_as(path, enforce_file_format=True)
    return path


def lut(first: int, entries: list[int], bits: int) -> Dataset:
    """Return an item of a modality or VOI LUT sequence."""
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries), first, bits])
    item.add_new("LUTData", "US", entries)
    return item


def code(meaning: str) -> Sequence:
    """Return a code sequence of one item."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "1", "99TEST", meaning
    return Sequence([item])


def content(kind: str, name: str = "", value: str = "", relation: str = "CONTAINS", *children: Dataset) -> Dataset:
    """Return an item of a structured report."""
    item = Dataset()
    item.RelationshipType, item.ValueType = relation, kind
    if name:
        item.ConceptNameCodeSequence = code(name)
    if kind == "TEXT":
        item.TextValue = value
    if kind == "PNAME":
        item.PersonName = value
    if kind == "CODE":
        item.ConceptCodeSequence = code(value)
    if children:
        item.ContentSequence = Sequence(children)
    return item


def structured_report(study: str, *children: Dataset, **elements: Any) -> Dataset:
    """Return a basic text report of a study."""
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = uid.BasicTextSRStorage, generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID = study, generate_uid()
    made.Modality, made.PatientID, made.ValueType = "SR", "4711", "CONTAINER"
    made.ContentSequence = Sequence(children)
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made
