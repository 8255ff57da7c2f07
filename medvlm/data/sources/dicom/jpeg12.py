"""JPEG with 12 bits a sample (JPEG Extended), which pydicom leaves undecoded though GDCM reads it.

pydicom's plug-in for GDCM refuses it, and Pillow's JPEG has 8 bits only; GDCM's own result is that of other toolkits
(python-gdcm issue 35), after a line on stderr that it first tried 16 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydicom.uid import JPEGExtended12Bit


def applies(options: Mapping[str, Any]) -> bool:
    """Whether frames are of this kind, in gray; `options` are those that pydicom's decoders take."""
    gray = options["samples_per_pixel"] == 1 and options["bits_allocated"] == 16
    return bool(options["transfer_syntax_uid"] == JPEGExtended12Bit and gray and 8 < options["bits_stored"] <= 12)


def decode(frame: bytes, options: Mapping[str, Any]) -> np.ndarray:
    """Return one compressed frame as uint16 [H, W].

    Raises:
        ValueError: GDCM gives no whole picture.
    """
    import gdcm  # type: ignore[import-untyped]

    rows, columns, bits = options["rows"], options["columns"], options["bits_stored"]
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
