"""How sure a score is: intervals that respect clusters, and tests of one system against another.

Segments of one patient, article or image resemble each other, so whole groups are drawn or swapped, never single
segments (Cameron, Gelbach and Miller 2008): intervals over segments come out too narrow. Everything works on the
statistics that each metric has of each segment; no text is read again. CIDEr's document frequencies stay those of the
whole set, as they are part of the score's definition.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvlm.errors import InputError
from medvlm.evaluate.metrics import Metric
from medvlm.evaluate.ngrams import Floats, Ints

RESAMPLES = 1000
TRIALS = 5000

# Work is done in blocks of about this many numbers, to bound memory; draws of so many are kept for the next metric.
_BLOCK = 4_000_000
_KEPT = 64_000_000
# Rounding must not tell equal differences apart.
_TIE = 1e-12


@dataclass(frozen=True, slots=True)
class Interval:
    """A score, or a difference of two, with its percentile bootstrap interval."""

    estimate: float
    low: float
    high: float

    def as_list(self) -> list[float]:
        """Return [low, high]."""
        return [self.low, self.high]


class Bootstrap:
    """Draws of whole groups with replacement, the same for every metric and system: differences are paired.

    A draw holds as many groups as there are; large groups weigh more, as they do in the score itself.

    Args:
        groups: [n] the cluster of each segment.
        resamples: how many draws, at least 1.
        seed: the same seed gives the same intervals.
        confidence: between 0 and 1.

    Raises:
        InputError: no segment, no draw, or a confidence that is not between 0 and 1.
    """

    def __init__(
        self, groups: Sequence[str], resamples: int = RESAMPLES, seed: int = 0, confidence: float = 0.95
    ) -> None:
        if not len(groups):
            raise InputError("no segment to draw from")
        if resamples < 1:
            raise InputError(f"{resamples} bootstrap resamples; at least 1 is needed, or none at all")
        if not 0 < confidence < 1:
            raise InputError(f"confidence {confidence} is not between 0 and 1")
        self.cluster = cluster_numbers(groups)
        self.clusters = int(self.cluster.max()) + 1
        self.resamples, self.seed, self.confidence = resamples, seed, confidence
        self._kept: list[NDArray[Any]] = []

    def intervals(self, metric: Metric, statistics: Floats) -> dict[str, Interval]:
        """Return each key's score with its interval; keys that the segments say nothing about are left out.

        Args:
            metric: whose statistics these are.
            statistics: [n, k].
        """
        estimate = metric.of_sums(statistics.sum(axis=0, keepdims=True))[0]
        return self._interval(metric.keys, estimate, metric.of_sums(self._drawn(statistics)))

    def differences(self, metric: Metric, a: Floats, b: Floats) -> dict[str, Interval]:
        """Return each key's score of system `a` minus that of `b`, both on the same draws.

        Args:
            metric: whose statistics these are.
            a: [n, k] of one system.
            b: [n, k] of the other on the same segments.

        Raises:
            InputError: the two are not of the same segments.
        """
        _same_segments(a, b)
        estimate = metric.of_sums(a.sum(axis=0, keepdims=True)) - metric.of_sums(b.sum(axis=0, keepdims=True))
        drawn = metric.of_sums(self._drawn(a)) - metric.of_sums(self._drawn(b))
        return self._interval(metric.keys, estimate[0], drawn)

    def _drawn(self, statistics: Floats) -> Floats:
        """Return [resamples, k] the sums of the statistics [n, k] over each draw."""
        if len(statistics) != len(self.cluster):
            raise InputError(f"{len(statistics)} scores but {len(self.cluster)} groups; give one group for each score")
        sums = cluster_sums(statistics, self.cluster)
        return np.concatenate([block.astype(np.float64) @ sums for block in self.blocks()])

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yield blocks [r, clusters] of how often each cluster is drawn; `resamples` rows in all, always the same."""
        if self._kept:
            yield from self._kept
            return
        kept = []
        for block in draws(self.clusters, self.resamples, self.seed):
            kept.append(block)
            yield block
        if self.clusters * self.resamples <= _KEPT:
            self._kept = kept

    def _interval(self, keys: Sequence[str], estimate: Floats, drawn: Floats) -> dict[str, Interval]:
        tail = (1 - self.confidence) / 2
        found = {}
        for column, key in enumerate(keys):
            # A draw may hold no closed question, say.
            values = drawn[:, column][np.isfinite(drawn[:, column])]
            if np.isfinite(estimate[column]) and len(values):
                low, high = np.quantile(values, [tail, 1 - tail])
                found[key] = Interval(float(estimate[column]), float(low), float(high))
        return found


def groups_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the cluster [n] of each row of predictions: its group, or its own id where none is stated."""
    return [str(row["id"] if row.get("group") is None else row["group"]) for row in rows]


def cluster_numbers(groups: Sequence[str]) -> Ints:
    """Return [n] the number of each segment's group, in order of first appearance."""
    numbers: dict[str, int] = {}
    return np.fromiter((numbers.setdefault(group, len(numbers)) for group in groups), np.int64, len(groups))


def cluster_sums(statistics: Floats, cluster: Ints) -> Floats:
    """Return [clusters, k] the statistics [n, k] summed by cluster [n]."""
    size = int(cluster.max()) + 1
    return np.stack([np.bincount(cluster, column, size) for column in statistics.T], axis=1)


def draws(clusters: int, resamples: int, seed: int) -> Iterator[NDArray[Any]]:
    """Yield blocks [r, clusters] of how often each cluster was drawn; all blocks together have `resamples` rows."""
    generator = np.random.default_rng(seed)
    rows = max(1, _BLOCK // clusters)
    # No cluster is drawn more often than there are draws; among many, 256 times never happens.
    kind = np.uint8 if clusters < 256 else np.uint16
    for start in range(0, resamples, rows):
        picks = generator.integers(clusters, size=(min(rows, resamples - start), clusters), dtype=np.int32)
        yield np.stack([np.bincount(row, minlength=clusters).astype(kind) for row in picks])


def randomization(
    metric: Metric, a: Floats, b: Floats, groups: Sequence[str], trials: int = TRIALS, seed: int = 0
) -> dict[str, float]:
    """Return two-sided p-values of a difference between systems, by paired approximate randomization.

    In each trial the two systems' outputs are swapped in a random half of the groups; p is the share of trials with a
    difference at least as large as the one seen, the one seen among them: (c + 1) / (trials + 1), so never 0 (Riezler
    and Maxwell 2005; Noreen 1989).

    Args:
        metric: whose statistics these are.
        a: [n, k] of one system.
        b: [n, k] of the other on the same segments.
        groups: [n] the cluster of each segment.
        trials: at least 1.
        seed: the same seed gives the same p.

    Raises:
        InputError: the two are not of the same segments, or no trial.
    """
    _same_segments(a, b)
    if len(a) != len(groups):
        raise InputError(f"{len(a)} scores but {len(groups)} groups; give one group for each score")
    if trials < 1:
        raise InputError(f"{trials} trials; at least 1 is needed")
    cluster = cluster_numbers(groups)
    swing = cluster_sums(b - a, cluster)
    total_a, total_b = a.sum(axis=0), b.sum(axis=0)
    seen = np.abs(metric.of_sums(total_a[None]) - metric.of_sums(total_b[None]))[0]
    beyond = np.zeros(len(metric.keys), dtype=np.int64)
    for swapped in _coins(len(swing), trials, seed):
        moved = swapped @ swing
        found = np.abs(metric.of_sums(total_a + moved) - metric.of_sums(total_b - moved))
        # A trial that leaves a side with nothing to score counts against the difference.
        beyond += (np.isnan(found) | (found >= seen - _TIE)).sum(axis=0)
    p = (beyond + 1) / (trials + 1)
    return {key: float(value) for key, value, at in zip(metric.keys, p, seen, strict=True) if np.isfinite(at)}


def _coins(clusters: int, trials: int, seed: int) -> Iterator[Floats]:
    """Yield blocks [t, clusters] of 0.0 and 1.0; all blocks together have `trials` rows."""
    generator = np.random.default_rng(seed)
    rows = max(1, _BLOCK // clusters)
    # Whole 32-bit words a row, so that blocks of any size toss the same coins.
    width = 4 * -(-clusters // 32)
    for start in range(0, trials, rows):
        size = min(rows, trials - start)
        packed = np.frombuffer(generator.bytes(size * width), dtype=np.uint8).reshape(size, width)
        yield np.unpackbits(packed, axis=1, count=clusters).astype(np.float64)


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values corrected for how many there are, in their order (Holm 1979): none above 1, order kept."""
    found = [0.0] * len(p)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda place: p[place])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[place]))
        found[place] = largest
    return found


def _same_segments(a: Floats, b: Floats) -> None:
    if a.shape != b.shape:
        raise InputError(f"cannot compare {len(a)} scores with {len(b)}; both systems need the same segments")
