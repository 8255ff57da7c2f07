"""From a decoded picture to pixel values: bit for bit those of a checkpoint's image processor, in a part of its time.

Processors resize to 8 bits and then scale and normalize number by number, so the second step is a table of 256 numbers
a channel. The first is Pillow's own resizing; a picture whose channels are equal, as radiographs and slices are, is
resized once instead of three times: Pillow computes each channel by itself. What a processor does otherwise is left to
it, and `of` trusts no settings but compares with the processor.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medvlm.errors import InputError

if TYPE_CHECKING:
    import torch

_STEPS = ("_preprocess", "process_image", "convert_to_rgb", "resize", "center_crop", "rescale", "normalize")


class Pixels:
    """An image processor's work in two steps: to 8 bits, then to numbers.

    Args:
        processor: the checkpoint's image processor, which resizes and crops to one size.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.plan = _plan(processor)
        every = np.broadcast_to(np.arange(256, dtype=np.uint8).reshape(1, 16, 16), (3, 16, 16))
        made = processor(
            images=[np.ascontiguousarray(every)],
            do_resize=False,
            do_center_crop=False,
            do_convert_rgb=False,
            input_data_format="channels_first",
            return_tensors="np",
        )["pixel_values"][0]
        self.table = np.asarray(made, dtype=np.float32).reshape(3, 256)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_pairs"}

    def bytes_of(self, image: Any) -> np.ndarray:
        """Return a picture [3, S, S] in 8 bits; channels that are equal may share their memory.

        Raises:
            InputError: this processor does more than resizing to 8 bits, scaling and normalizing.
        """
        if self.plan is not None and getattr(image, "mode", None) == "RGB":
            return _resized(image, *self.plan)
        made = self.processor(images=[image], do_rescale=False, do_normalize=False, return_tensors="np")
        values = np.asarray(made["pixel_values"][0])
        if values.dtype != np.uint8:
            name = type(self.processor).__name__
            raise InputError(f"data.cache_pixels: {name} gives no 8-bit pictures; expected false")
        return values

    def fill(self, record: np.ndarray, out: np.ndarray) -> None:
        """Write the pixel values of a record [3, S, S] into `out` [3, S, S], float32 and contiguous."""
        shared = record.strides[0] == 0 and bool((self.table == self.table[0]).all())
        for channel in range(3):
            if shared and channel:
                out[channel] = out[0]
            elif record[channel].size % 2:
                np.take(self.table[channel], record[channel], out=out[channel], mode="clip")
            else:
                two = np.ascontiguousarray(record[channel]).reshape(-1).view(np.uint16)
                np.take(self._pairs[channel], two, out=out[channel].reshape(-1).view(np.uint64), mode="clip")

    def batch(self, records: Sequence[np.ndarray]) -> np.ndarray:
        """Return the pixel values [B, 3, S, S] of records [3, S, S]."""
        # numpy asks for huge pages where torch does not, and a batch is made of some ten thousand small ones else.
        out = np.empty((len(records), *records[0].shape), np.float32)
        for record, own in zip(records, out, strict=True):
            self.fill(record, own)
        return out

    def values(self, record: np.ndarray) -> torch.Tensor:
        """Return pixel values [3, S, S], bit for bit those of the processor."""
        import torch

        return torch.from_numpy(self.batch([record])[0])

    def afresh(self, image: Any) -> torch.Tensor:
        """Return the processor's pixel values."""
        values: torch.Tensor = self.processor(images=[image], return_tensors="pt")["pixel_values"][0]
        return values

    @functools.cached_property
    def _pairs(self) -> list[np.ndarray]:
        """For each channel and any two neighboring bytes both their numbers, so that one look gives two."""
        both = np.arange(1 << 16, dtype=np.uint16).view(np.uint8).reshape(-1, 2)
        made = [np.ascontiguousarray(row[both]).view(np.uint64).reshape(-1) for row in self.table]
        same = (self.table == self.table[0]).all()
        return [made[0]] * 3 if same else made


def is_gray(record: np.ndarray) -> bool:
    """Return True where all channels of a record are equal."""
    return record.strides[0] == 0 or all(np.array_equal(record[0], other) for other in record[1:])


def _plan(processor: Any) -> tuple[int, int, int] | None:
    """Return width, height and Pillow's filter where a processor resizes to one size and no more, else None."""
    from transformers.image_processing_backends import PilBackend

    kind = type(processor)
    if not issubclass(kind, PilBackend) or any(getattr(kind, name) is not getattr(PilBackend, name) for name in _STEPS):
        return None
    size, crop = (_side(getattr(processor, name, None)) for name in ("size", "crop_size"))
    if size is None or not processor.do_resize or getattr(processor, "do_pad", None):
        return None
    if getattr(processor, "do_center_crop", None) and crop != size:
        return None
    return (size[1], size[0], int(processor.resample)) if processor.resample is not None else None


def _side(size: Any) -> tuple[int, int] | None:
    """Return height and width where a processor's size gives these two and nothing else."""
    given = {key: value for key, value in dict(size or {}).items() if value is not None}
    return (given["height"], given["width"]) if given.keys() == {"height", "width"} else None


def _resized(image: Any, width: int, height: int, resample: int) -> np.ndarray:
    red, *others = image.split()
    first = red.tobytes()
    if all(first == other.tobytes() for other in others):
        one = np.asarray(red.resize((width, height), resample))
        return np.broadcast_to(one, (3, *one.shape))
    return np.ascontiguousarray(np.moveaxis(np.asarray(image.resize((width, height), resample)), -1, 0))


_KNOWN: weakref.WeakKeyDictionary[Any, tuple[str, Pixels | None]] = weakref.WeakKeyDictionary()


def of(processor: Any) -> Pixels | None:
    """Return a processor's work in two steps; None where they do not give what it gives.

    Compared bit for bit on two pictures, in color and gray, of sides that are made larger and smaller.
    """
    settings = repr(sorted(vars(processor).items(), key=lambda item: item[0]))
    known = _KNOWN.get(processor)
    if known is None or known[0] != settings:
        known = _KNOWN[processor] = (settings, _proven(processor))
    return known[1]


def _proven(processor: Any) -> Pixels | None:
    import torch
    from PIL import Image

    try:
        found = Pixels(processor)
        values = np.arange(97 * 61 * 3, dtype=np.uint32) * 2654435761 >> 24
        color = Image.fromarray(values.astype(np.uint8).reshape(97, 61, 3))
        for image in (color, color.convert("L").convert("RGB"), color.resize((1031, 519))):
            own, made = found.values(found.bytes_of(image)), found.afresh(image)
            # In 8 bits a processor's own values would pass for what a worker sends.
            if own.dtype != made.dtype or own.shape != made.shape or not torch.equal(own, made):
                return None
    except (InputError, TypeError, ValueError, LookupError, AttributeError, RuntimeError, ImportError):
        # What another kind of processor lacks, refuses, or needs installed.
        return None
    return found
