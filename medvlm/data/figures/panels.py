"""Compound figures made into single ones: each panel with its own text, where caption and picture agree."""

from __future__ import annotations

import dataclasses
import io
import itertools
import re
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

_WHERE = r"(?:upper|lower|top|bottom|left|right)(?:[ -](?:left|right))?(?: (?:panel|corner|image|row|column)s?)?"
_LABEL_AND_PLACE = re.compile(rf"\(\s*[a-z][,;:]?\s+({_WHERE})\s*\)", re.IGNORECASE)
_PLACE = re.compile(rf"\(\s*(?:the )?{_WHERE}\s*\)", re.IGNORECASE)
_COLUMN = re.compile(r"\b(?:left|right|first|second|each|middle)(?:[- ]hand)? columns?\b", re.IGNORECASE)


def split(sample: Sample) -> list[Sample]:
    """Return a caption sample's panels as samples of their own, or the sample as it was where they cannot be told.

    A panel is cut out of the picture and stored as PNG without loss; its `target` is the text that all panels share
    followed by its own, its `original_text` the whole caption. A picture that is a panel already (the article has
    several graphics) gets the text of its label. A figure that stays whole is marked compound where its caption marks
    panels; where it marks none, the reader's own mark stays: the picture alone is not searched.
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
    if parts is None or matched is None or _contradicted(sample.target, parts, matched):
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


def _contradicted(caption: str, parts: Panels, matched: list[tuple[str, Box]]) -> bool:
    """Tell whether a caption says of a panel that it lies elsewhere than its box, or letters its panels by columns."""
    left, top = (min(box[side] for _, box in matched) for side in (0, 1))
    right, bottom = (max(box[side] for _, box in matched) for side in (2, 3))
    for label, box in matched:
        words = " ".join(
            found[1] for found in _LABEL_AND_PLACE.finditer(caption) if found[0][1:].lstrip()[0].lower() == label
        )
        words += " ".join(found[0] for found in _PLACE.finditer(parts.text_of(label).removeprefix(parts.lead)))
        across, down = box[0] + box[2] - left - right, box[1] + box[3] - top - bottom
        places = {*words.lower().replace("(", " ").replace(")", " ").split()}
        if (across > 0 and "left" in places) or (across < 0 and "right" in places):
            return True
        if (down > 0 and places & {"top", "upper"}) or (down < 0 and places & {"bottom", "lower"}):
            return True
    columns = _COLUMN.search(caption) is not None
    return columns and len({box[1] for _, box in matched}) > 1 and len({box[0] for _, box in matched}) > 1


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
