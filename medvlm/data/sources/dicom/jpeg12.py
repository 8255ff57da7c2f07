"""JPEG with 12 bits a sample (JPEG Extended), which pydicom leaves undecoded though GDCM reads it.

pydicom's plug-in for GDCM refuses it, and Pillow's JPEG has 8 bits only; GDCM's own result is that of other toolkits
(python-gdcm issue 35), after a line on stderr that it first tried 16 bits.
"""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID, JPEGExtended12Bit


def applies(header: Dataset, syntax: UID) -> bool:
    """Whether a frame is of this kind, in gray."""
    gray = header.get("SamplesPerPixel") == 1 and header.get("BitsAllocated") == 16
    deep = 8 < int(header.get("BitsStored") or 0) <= 12
    return bool(syntax == JPEGExtended12Bit and gray and deep)


def decode(frame: bytes, header: Dataset) -> np.ndarray:
    """Return one compressed frame as uint16 [H, W].

    Raises:
        ImportError: GDCM is not installed.
        ValueError: GDCM gives no whole picture.
    """
    import gdcm  # type: ignore[import-untyped]

    rows, columns, bits = int(header.Rows), int(header.Columns), int(header.BitsStored)
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((columns, rows, 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2")
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str.__str__(JPEGExtended12Bit))))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, bits, bits - 1, 0))
    # GDCM hands over bytes as text.
    pixels = np.frombuffer(image.GetBuffer().encode("utf-8", "surrogateescape"), np.dtype("<u2"))
    if pixels.size != rows * columns:
        raise ValueError("not as many pixels as the header tells")
    return pixels.reshape(rows, columns)
