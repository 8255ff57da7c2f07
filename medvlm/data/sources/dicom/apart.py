"""GDCM in a process of its own: at some damaged frames its code ends the process it runs in, which must not be ours.

It decodes what no other decoder does: lossless JPEG, and JPEG with 12 bits. The process is kept for the next frame.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import Any

import numpy as np
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder

from medvlm.data.look import PictureError
from medvlm.data.sources.dicom import jpeg12

SECONDS = 120.0
"""A frame that takes longer is given up."""

_pool: ProcessPoolExecutor | None = None


def decode(frame: bytes, options: dict[str, Any]) -> np.ndarray:
    """Return one compressed frame as stored values, [H, W] or [H, W, 3].

    Args:
        frame: without the items it lies in.
        options: as pydicom's decoders take them, `transfer_syntax_uid` among them.

    Raises:
        PictureError: the process ended, or took too long.
        Exception: whatever the decoder answers.
    """
    global _pool
    if _pool is None:
        _pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin)
        atexit.register(_end)
    try:
        return _pool.submit(_decode, frame, options).result(timeout=SECONDS)
    except BrokenProcessPool:
        _end()
        raise PictureError("pixel data cannot be read", "the decoder crashed") from None
    except TimeoutError:
        _end()
        raise PictureError("pixel data cannot be read", f"the decoder took more than {SECONDS:g} s") from None


def _end() -> None:
    """Stop the process, whatever it does."""
    global _pool
    pool, _pool = _pool, None
    if pool is not None:
        for process in list((pool._processes or {}).values()):
            process.kill()
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """Ready the process: end when the parent does, and keep GDCM's remarks from the terminal."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        sentinel = parent.sentinel

        def follow() -> None:
            connection.wait([sentinel])
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _decode(frame: bytes, options: dict[str, Any]) -> np.ndarray:
    if jpeg12.applies(options):
        return jpeg12.decode(frame, options)
    decoder = get_decoder(options["transfer_syntax_uid"])
    whole = {**options, "number_of_frames": 1}
    return decoder.as_array(encapsulate([frame]), index=0, decoding_plugin="gdcm", **whole)[0]
