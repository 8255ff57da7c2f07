"""The steps that every sample of an article goes through after reading."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from medvlm.data.figures import facts, modality, panels, pixels, questions
from medvlm.data.look import PictureError, look_of
from medvlm.data.sample import Credit, Reject, Sample
from medvlm.io import sha256_bytes

if TYPE_CHECKING:
    from medvlm.data.sources.pmc.options import PmcOptions


def apply(
    items: Iterable[Sample | Reject | Credit], options: PmcOptions, keywords: Sequence[str] = ()
) -> Iterator[Sample | Reject | Credit]:
    """Yield what the steps that `options` ask for make of one article's items: size, panels, modality, task.

    Args:
        items: what the reader found; rejects and credits pass through.
        options: of the default ones only the modality and the organ are filled in.
        keywords: the article's keywords, title and subject.
    """
    for item in items:
        if isinstance(item, Sample):
            yield from _of_figure(item, options, keywords)
        else:
            yield item


def _of_figure(sample: Sample, options: PmcOptions, keywords: Sequence[str]) -> Iterator[Sample | Reject]:
    if options.panels == "drop" and sample.compound:
        yield _reject(sample, "compound figure")
        return
    try:
        pieces = panels.split(sample) if options.panels == "split" else [sample]
    except PictureError as error:
        yield _reject(sample, error.reason, error.detail)
        return
    for piece in pieces:
        yield from _of_picture(piece, options, keywords)


def _of_picture(sample: Sample, options: PmcOptions, keywords: Sequence[str]) -> Iterator[Sample | Reject]:
    """Yield what is made of one picture: the rejects' reasons stand in the order of the checks."""
    try:
        look = look_of(sample.image)
        if min(look.width, look.height) < options.min_side:
            yield _reject(sample, "image too small", f"{look.width}x{look.height} pixels")
            return
        named = _with_modality(sample, keywords)
        if options.modalities and named.modality not in options.modalities:
            yield _reject(sample, "modality not asked for", named.modality or "unknown")
            return
        if options.max_side:
            named = _shrunk(named, options.max_side)
    except PictureError as error:
        yield _reject(sample, error.reason, error.detail)
        return
    if options.task != "vqa":
        yield named
        return
    asked = questions.make(named)
    if not asked:
        yield _reject(sample, "no question from caption")
    yield from asked


def _with_modality(sample: Sample, keywords: Sequence[str]) -> Sample:
    """Return the sample with modality, evidence and organ; what is there already stays."""
    text = panels.own_text(sample)
    if sample.modality is None:
        name, evidence = modality.detect(text, sample.mentions, keywords, look_of(sample.image))
        sample = dataclasses.replace(sample, modality=name, modality_evidence=evidence)
    if sample.organ is None and sample.modality in modality.GROUPS["clinical"]:
        sample = dataclasses.replace(sample, organ=facts.organ_of(text))
    return sample


def _shrunk(sample: Sample, max_side: int) -> Sample:
    image = pixels.shrink(sample.image, max_side)
    if image is sample.image:
        return sample
    return dataclasses.replace(sample, image=image, sha256=sha256_bytes(image.data))


def _reject(sample: Sample, reason: str, detail: str = "") -> Reject:
    return Reject(sample.source, sample.id, reason, detail)
