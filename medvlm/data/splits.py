"""Train, validation, test: decided by a hash of the group, so that a group is never on two sides.

Groups that share an image, also nearly, or a DOI are joined first: the same picture or article is never on two sides.
By image, only pictures that are the same, or nearly, stay together, and a group may be on two sides. The official split
is taken as published, with all that its sides share.
"""

from __future__ import annotations

import array
import hashlib

import numpy as np

from medvlm.errors import UsageError
from medvlm.registry import nearest

SPLITS = ("train", "validation", "test")
DEFAULT_RATIOS = (0.8, 0.1, 0.1)
WAYS = ("official", "by-image", "by-group")
"""How a data set can be split: as published, by the hash of the picture, by the hash of the group."""
OF_PARTS = ("parts", "parts-move", "parts-refuse")
"""How merged sets are split: as their parts are. What two sides share (a group, a DOI, a picture, also nearly) is left
out of the side before, moved to the side after (train, validation, test), or refused."""

Ratios = tuple[float, float, float]


def parse_ratios(text: str) -> Ratios:
    """Return three fractions that sum to 1 from `8/1/1`, `0.8,0.1,0.1` or `80:10:10`.

    Raises:
        UsageError: not three numbers, one is negative, or all are zero.
    """
    parts = text.replace("/", ",").replace(":", ",").split(",")
    try:
        values = [float(part) for part in parts]
    except ValueError:
        values = []
    if len(values) != 3 or not all(0 <= value < float("inf") for value in values) or not sum(values):
        raise UsageError(
            f'--split-ratio "{text}" is not three numbers for train, validation and test; write it as 0.8,0.1,0.1'
        )
    total = sum(values)
    return values[0] / total, values[1] / total, values[2] / total


def check_way(text: str) -> str:
    """Return `text` if it is one of `WAYS`.

    Raises:
        UsageError: it is not.
    """
    if text not in WAYS:
        raise UsageError(f'unknown --split "{text}"{nearest(text, WAYS)}; known: {", ".join(WAYS)}')
    return text


def fraction(group: str, seed: int) -> float:
    """Return a number in [0, 1) that depends on `group` and `seed` alone."""
    digest = hashlib.sha256(f"{seed}:{group}".encode()).hexdigest()
    return int(digest[:16], 16) / 16**16


def split_of(group: str, seed: int = 0, ratios: Ratios = DEFAULT_RATIOS) -> str:
    """Return the split of a group; `ratios` are the shares of train, validation and test."""
    position = fraction(group, seed)
    if position < ratios[0]:
        return SPLITS[0]
    if position < ratios[0] + ratios[1]:
        return SPLITS[1]
    # Rounding may leave the sum of the first two a hair below 1 where the third share is 0.
    return SPLITS[2] if ratios[2] else SPLITS[1] if ratios[1] else SPLITS[0]


class Clusters:
    """The numbers below `count` joined into clusters (union-find): 8 bytes a number."""

    def __init__(self, count: int) -> None:
        self._parent = array.array("q", range(count))

    def root(self, number: int) -> int:
        """Return the smallest number in the cluster of `number`."""
        parent = self._parent
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    def join(self, one: int, other: int) -> None:
        """Put both into one cluster."""
        low, high = sorted((self.root(one), self.root(other)))
        self._parent[high] = low

    def join_all(self, ones: np.ndarray, others: np.ndarray) -> None:
        """Join the two numbers at each position of two int64 arrays."""
        apart = ones != others
        for one, other in zip(ones[apart].tolist(), others[apart].tolist(), strict=True):
            self.join(one, other)

    def roots(self) -> np.ndarray:
        """Return int64 [count]: the root of every number."""
        parent = np.array(self._parent, np.int64)
        while (parent[parent] != parent).any():
            parent = parent[parent]
        return parent
