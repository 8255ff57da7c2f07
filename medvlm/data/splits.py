"""Train, validation, test: decided by a hash of the group, so that a group is never on two sides.

Groups that share an image or a DOI are joined first: the same picture or article is never on two sides either.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from medvlm.errors import UsageError

SPLITS = ("train", "validation", "test")
DEFAULT_RATIOS = (0.8, 0.1, 0.1)

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
    """Groups joined by the images or the DOI they share (union-find; the smallest name stands for all)."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def add(self, group: str) -> None:
        """Make `group` known, alone at first."""
        self._parent.setdefault(group, group)

    def root(self, group: str) -> str:
        """Return the name that stands for the cluster of `group`."""
        parent = self._parent
        while parent[group] != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    def join(self, one: str, other: str) -> None:
        """Put both groups into one cluster."""
        low, high = sorted((self.root(one), self.root(other)))
        self._parent[high] = low

    def groups(self) -> Iterable[str]:
        """Return all groups in the order in which they were added."""
        return self._parent.keys()
