"""What the sides of a split share: pictures, exactly or nearly, texts, whole samples, groups."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medvlm.data.splits import SPLITS, Clusters

Array = np.ndarray[Any, Any]

NO_SIDE = 255
"""The side of a row that is left out, or of which no split is stated."""

PAIRS = (("train", "test"), ("train", "validation"), ("validation", "test"))


@dataclasses.dataclass(frozen=True, slots=True)
class Keys:
    """By what rows are told apart; numbers that are equal mean things that are equal."""

    places: Array
    """int64 [pictures]: the row of each picture; a row has one or more."""
    main: Array
    """bool [pictures]: the row's first."""
    pictures: Array
    """int64 [pictures]: the picture as bytes, -1 of rows that are left out."""
    near: Sequence[tuple[int, int]]
    """Values of `pictures` that nearly look the same."""
    texts: Array
    """int64 [rows]: question and answer, or caption or report, regardless of case and blanks."""
    groups: Array
    """int64 [rows]."""


def shared(side: Array, keys: Keys) -> dict[str, dict[str, int]]:
    """Return "train/test", "train/validation" and "validation/test" -> what both hold; pairs with an empty side not.

    `images` of the second side's `of_images` different pictures are on the first too, `near_images` more look nearly
    like one there; of its `of_samples` samples `texts` have a text of the first, `repeats` both picture and text;
    `groups` are on both.

    Args:
        side: uint8 [rows]: position in `SPLITS`, or `NO_SIDE`.
        keys: of the same rows.
    """
    of_picture = np.where(keys.pictures >= 0, side[keys.places], NO_SIDE)
    look = _looks(keys)
    sample = np.full(len(side), -1, np.int64)
    sample[keys.places[keys.main]] = keys.pictures[keys.main]
    found = {}
    for one, other in PAIRS:
        a, b = SPLITS.index(one), SPLITS.index(other)
        first, second = np.flatnonzero(side == a), np.flatnonzero(side == b)
        if not len(first) or not len(second):
            continue
        mine, others = (np.unique(keys.pictures[of_picture == number]) for number in (a, b))
        same = np.isin(others, mine)
        alike = np.isin(look[others], look[mine])
        whole = [np.stack([sample[rows], keys.texts[rows]], axis=1) for rows in (first, second)]
        found[f"{one}/{other}"] = {
            "images": int(same.sum()),
            "near_images": int((alike & ~same).sum()),
            "of_images": len(others),
            "texts": int(np.isin(keys.texts[second], keys.texts[first]).sum()),
            "repeats": _of(*whole),
            "of_samples": len(second),
            "groups": len(np.intersect1d(keys.groups[first], keys.groups[second])),
        }
    return found


def _looks(keys: Keys) -> Array:
    """Return int64 [pictures]: a number for each picture that those which nearly look the same share."""
    clusters = Clusters(len(keys.pictures))
    for one, other in keys.near:
        clusters.join(one, other)
    return clusters.roots()


def _of(first: Array, second: Array) -> int:
    """Return how many rows of `second` int64 [n, 2] are among those of `first` int64 [m, 2]."""
    _, number = np.unique(np.concatenate([first, second]), axis=0, return_inverse=True)
    number = number.reshape(-1)
    return int(np.isin(number[len(first) :], number[: len(first)]).sum())


def sentences(leakage: Mapping[str, Mapping[str, int]], texts: bool = True) -> list[str]:
    """Return one sentence for each pair of sides that share something.

    Args:
        leakage: as `shared` returns it.
        texts: whether a text that both have counts too; no way of splitting keeps equal texts on one side.
    """
    told = []
    for pair, counts in leakage.items():
        one, other = pair.split("/")
        parts = []
        if counts["images"]:
            parts.append(f"{counts['images']:,} of {counts['of_images']:,} {other} images are also in {one}")
        if counts["near_images"]:
            parts.append(f"{counts['near_images']:,} more look nearly like one there")
        if counts["texts"] and texts:
            parts.append(f"{counts['texts']:,} of {counts['of_samples']:,} {other} samples have a text of {one}")
        if counts["repeats"]:
            parts.append(f"{counts['repeats']:,} of {counts['of_samples']:,} {other} samples repeat there whole")
        if counts["groups"]:
            parts.append(f"{counts['groups']:,} groups are in both")
        if parts:
            told.append(f"{one} and {other}: " + ", ".join(parts))
    return told


def verdicts(leakage: Mapping[str, Mapping[str, int]]) -> list[tuple[str, bool]]:
    """Return each sentence, and whether it tells of more than texts."""
    pairs = ({pair: counts} for pair, counts in leakage.items())
    return [(line, bool(sentences(pair, texts=False))) for pair in pairs for line in sentences(pair)]
