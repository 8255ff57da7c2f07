"""GDCM in a process of its own: at some damaged frames its code ends the process it runs in, which must not be ours.

It decodes what no other decoder does: lossless JPEG, and JPEG with 12 bits. The process is kept for the next frame.
"""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder

from medvlm.data.look import PictureError
from medvlm.data.sources.dicom import jpeg12

SECONDS = 120.0
"""A frame that takes longer is given up."""

_child: tuple[BaseProcess, Connection] | None = None


def decode(frame: bytes, options: dict[str, Any]) -> np.ndarray:
    """Return one compressed frame as stored values, [H, W] or [H, W, 3].

    Args:
        frame: without the items it lies in.
        options: as pydicom's decoders take them, `transfer_syntax_uid` among them.

    Raises:
        PictureError: the decoder refused the frame, crashed or took too long.
    """
    global _child
    if _child is None:
        _child = _start()
    connection = _child[1]
    try:
        connection.send((frame, options))
        if not connection.poll(SECONDS):
            _end()
            raise PictureError("pixel data cannot be read", f"the decoder took more than {SECONDS:g} s")
        answer: np.ndarray | str = connection.recv()
    except (EOFError, OSError):
        _end()
        raise PictureError("pixel data cannot be read", "the decoder crashed") from None
    if isinstance(answer, str):
        raise PictureError("pixel data cannot be read", answer)
    return answer


def _start() -> tuple[BaseProcess, Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    # With one end here only, either side learns that the other is gone.
    theirs.close()
    return process, ours


def _end() -> None:
    """Stop the process, whatever it does."""
    global _child
    if _child is not None:
        process, connection = _child
        _child = None
        process.kill()
        process.join()
        connection.close()


def _serve(connection: Connection) -> None:
    """Decode what is sent until nobody is there any more; GDCM's remarks are kept from the terminal."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    while True:
        try:
            frame, options = connection.recv()
        except (EOFError, OSError):
            return
        try:
            connection.send(_decode(frame, options))
        except Exception as error:
            # The text of another error may quote a header.
            connection.send(type(error).__name__)


def _decode(frame: bytes, options: dict[str, Any]) -> np.ndarray:
    if jpeg12.applies(options):
        return jpeg12.decode(frame, options)
    decoder = get_decoder(options["transfer_syntax_uid"])
    whole = {**options, "number_of_frames": 1}
    return decoder.as_array(encapsulate([frame]), index=0, decoding_plugin="gdcm", **whole)[0]
