"""Bootstrap intervals that respect clusters: whole patients, articles or images are drawn, never single segments.

Segments of one group resemble each other, so intervals that draw segments come out too narrow (Cameron, Gelbach and
Miller 2008). Everything works on scores per segment that exist already; no text is read again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from medvlm.errors import InputError
from medvlm.evaluate.ngrams import Floats, Ints

# Draws are made in blocks of about this many numbers, to bound memory.
_BLOCK = 4_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean (or a difference of means) with its percentile bootstrap interval."""

    estimate: float
    low: float
    high: float

    @property
    def difference(self) -> float:
        """The estimate, where it is a difference."""
        return self.estimate


def paired_bootstrap(
    a: Floats,
    b: Floats,
    groups: Sequence[str],
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Return mean(a) - mean(b) with its interval; both systems are seen on the same draws.

    Args:
        a: [n] scores of one system by segment.
        b: [n] scores of the other on the same segments.
        groups: [n] the cluster of each segment.
        resamples: how many times the groups are drawn with replacement.
        seed: the same seed gives the same interval.
        confidence: between 0 and 1.

    Raises:
        InputError: lengths differ, or nothing to compare.
    """
    if len(a) != len(b):
        raise InputError(f"cannot compare {len(a)} scores with {len(b)}; both systems need the same segments")
    return bootstrap_mean(np.asarray(a, dtype=np.float64) - b, groups, resamples, seed, confidence)


def bootstrap_mean(
    values: Floats,
    groups: Sequence[str],
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Return the mean of `values` [n] with its interval, drawing whole `groups` [n].

    A draw holds as many groups as there are; its mean is over the segments in it, so large groups weigh more, as they
    do in the mean itself.

    Raises:
        InputError: lengths differ, nothing to average, or a confidence that is not between 0 and 1.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) != len(groups):
        raise InputError(f"{len(values)} scores but {len(groups)} groups; give one group for each score")
    if not len(values):
        raise InputError("no score to average")
    if not 0 < confidence < 1:
        raise InputError(f"confidence {confidence} is not between 0 and 1")
    cluster = cluster_numbers(groups)
    sums = np.bincount(cluster, values)
    sizes = np.bincount(cluster).astype(np.float64)
    means = np.concatenate([draw @ sums / (draw @ sizes) for draw in draws(len(sums), resamples, seed)])
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(values.mean()), float(low), float(high))


def cluster_numbers(groups: Sequence[str]) -> Ints:
    """Return [n] the number of each segment's group, in order of first appearance."""
    numbers: dict[str, int] = {}
    return np.fromiter((numbers.setdefault(group, len(numbers)) for group in groups), np.int64, len(groups))


def draws(clusters: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield blocks [r, clusters] of how often each cluster was drawn; all blocks together have `resamples` rows."""
    generator = np.random.default_rng(seed)
    rows = max(1, _BLOCK // clusters)
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        picks = generator.integers(clusters, size=(size, clusters))
        picks += np.arange(size)[:, None] * clusters
        counts = np.bincount(picks.ravel(), minlength=size * clusters).reshape(size, clusters)
        yield counts.astype(np.float64)
