"""Compound figures made into single ones: each panel with its own text, where caption and picture agree."""

from __future__ import annotations

import dataclasses
import io
import itertools
from pathlib import PurePosixPath

from PIL import Image as PILImage

from medvlm.data.figures.captions import Panels, split_panels
from medvlm.data.figures.gutters import Box, find_grid, find_panels
from medvlm.data.figures.pixels import upright
from medvlm.data.images import to_rgb
from medvlm.data.look import examine
from medvlm.data.sample import Image, Sample
from medvlm.io import sha256_bytes

_LOSSLESS_MODES = ("L", "RGB", "I;16")
_IN_ROW = {"left": 0, "middle": 1, "center": 1, "centre": 1, "right": 2}
_IN_COLUMN = {"top": 0, "upper": 0, "middle": 1, "bottom": 2, "lower": 2}


def split(sample: Sample) -> list[Sample]:
    """Return a caption sample's panels as samples of their own, or the sample as it was where they cannot be told.

    A panel is cut out of the picture and stored as PNG without loss; its `target` is the text that all panels share
    followed by its own, its `original_text` the whole caption. A picture that is a panel already (the article has
    several graphics) gets the text of its label. A figure that stays whole is marked compound where either its caption
    or its picture shows panels.
    """
    parts = split_panels(sample.target)
    if sample.panel is not None:
        return [_with_own_text(sample, parts)]
    if parts is None and not sample.compound:
        return [sample]
    picture = upright(sample.image.data)
    matched = match(parts, find_panels(picture))
    if matched is None and parts is not None:
        matched = match(parts, find_grid(picture, len(parts.labels())))
    if parts is None or matched is None:
        return [dataclasses.replace(sample, compound=True)]
    return [_panel(sample, picture, parts, label, box) for label, box in matched]


def match(parts: Panels | None, boxes: list[Box]) -> list[tuple[str, Box]] | None:
    """Pair the labels of a caption with boxes in reading order; None unless there are as many, lying as they say.

    Letters are read row by row, as figures of radiology are lettered. Where boxes have more rows than columns, and more
    than one column, letters run down the columns as often: None. A grid lettered down its columns all the same is
    matched wrongly; nothing but the letters in the picture could tell.
    """
    labels = parts.labels() if parts is not None else []
    if len(labels) < 2 or len(labels) != len(boxes):
        return None
    for places, low, high in ((_IN_ROW, 0, 2), (_IN_COLUMN, 1, 3)):
        if all(label in places for label in labels):
            ordered = sorted(boxes, key=lambda box: box[low])
            apart = all(a[high] <= b[low] for a, b in itertools.pairwise(ordered))
            return list(zip(sorted(labels, key=places.__getitem__), ordered, strict=True)) if apart else None
    return None if _tall(boxes) else list(zip(labels, boxes, strict=True))


def _tall(boxes: list[Box]) -> bool:
    """Tell whether boxes lie in more rows than columns, and more than one column; the first is at the top left."""
    left, top, right, bottom = boxes[0]
    columns = sum(box[1] < bottom and top < box[3] for box in boxes)
    rows = sum(box[0] < right and left < box[2] for box in boxes)
    return rows > columns > 1


def own_text(sample: Sample) -> str:
    """Return the text about a sample's picture: of a panel its part of the caption, else the whole."""
    parts = split_panels(sample.target) if sample.panel else None
    return _text(sample, parts) or sample.target


def _text(sample: Sample, parts: Panels | None) -> str | None:
    label = (sample.panel or "").lower()
    return parts.text_of(label) if parts is not None and label in parts.labels() else None


def _with_own_text(sample: Sample, parts: Panels | None) -> Sample:
    text = _text(sample, parts)
    if text is None:
        return sample
    return dataclasses.replace(sample, target=text, original_text=sample.target, compound=False)


def _panel(sample: Sample, picture: PILImage.Image, parts: Panels, label: str, box: Box) -> Sample:
    group, figure, _, task, ordinal = sample.id.split("/")
    cropped = picture.crop(box)
    data = png_bytes(cropped)
    image = Image(data, f"{PurePosixPath(sample.image.name).stem}.panel-{label}.png", examine(data))
    return dataclasses.replace(
        sample,
        id=f"{group}/{figure}/{label}/{task}/{ordinal}",
        image=image,
        target=parts.text_of(label),
        original_text=sample.target,
        panel=label,
        compound=False,
        sha256=sha256_bytes(data),
    )


def png_bytes(picture: PILImage.Image) -> bytes:
    """Return a picture as PNG without metadata: as it is where it is gray (8 or 16 bits) or RGB, else in RGB."""
    plain = picture if picture.mode in _LOSSLESS_MODES and "transparency" not in picture.info else to_rgb(picture)
    buffer = io.BytesIO()
    plain.info = {}
    plain.save(buffer, "PNG")
    return buffer.getvalue()
