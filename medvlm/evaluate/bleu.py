"""Corpus BLEU-1 to BLEU-4 (Papineni et al. 2002) as coco-caption computes it: pycocoevalcap 1.2 to 1e-9.

The reference length is the closest one, the shorter on a tie. There is no smoothing but coco-caption's two constants,
which keep an order without a match from being zero: published COCO-style scores contain them.
"""

from __future__ import annotations

import numpy as np

from medvlm.evaluate.metrics import Options, Segments
from medvlm.evaluate.ngrams import Corpus, Floats, Ints, changes
from medvlm.evaluate.signature import references_per_segment, signature
from medvlm.evaluate.tokenize import signed

_SMALL = 1e-9
_TINY = 1e-15


class Bleu:
    """BLEU of orders 1 to `order` over the tokens of `tokenizer`."""

    name = "bleu"

    def __init__(self, options: Options | None = None, order: int = 4) -> None:
        self.options, self.order = options or Options(), order
        self.keys = tuple(f"bleu_{n}" for n in range(1, order + 1))

    def signature(self, segments: Segments) -> str:
        """Return the settings as one string."""
        options = self.options
        refs = references_per_segment(map(len, segments.references))
        return signature(
            f"bleu:{self.order}", tok=signed(options.tokenizer), case=options.case, refs=refs, smooth="none"
        )

    def statistics(self, segments: Segments) -> Floats:
        """Return [n, 2 + 2 * order]: hypothesis length, closest reference length, n-grams guessed, n-grams right."""
        corpus = segments.corpus(self.options.tokenizer)
        lengths = corpus.length[corpus.hypothesis]
        guessed = [np.maximum(lengths - n + 1, 0) for n in range(1, self.order + 1)]
        correct = [_matches(corpus, n) for n in range(1, self.order + 1)]
        columns = [lengths, _closest_reference(corpus), *guessed, *correct]
        return np.stack(columns, axis=1).astype(np.float64)

    def of_sums(self, sums: Floats) -> Floats:
        """Return BLEU [R, order] from summed statistics [R, 2 + 2 * order].

        Of single segments these are coco-caption's per-image scores, with the same constants.
        """
        guessed, correct = sums[:, 2 : 2 + self.order], sums[:, 2 + self.order :]
        products = np.cumprod((correct + _TINY) / (guessed + _SMALL), axis=1)
        means = products ** (1.0 / np.arange(1, self.order + 1))
        ratio = (sums[:, 0] + _TINY) / (sums[:, 1] + _SMALL)
        penalty = np.exp(np.minimum(0.0, 1.0 - 1.0 / ratio))
        scores: Floats = means * penalty[:, None]
        return scores


def _matches(corpus: Corpus, order: int) -> Ints:
    """Return [n] how many of each hypothesis's n-grams are in a reference, each at most as often as in one of them."""
    counts = corpus.ngrams(order)
    references, own = counts.shared
    starts = np.flatnonzero(changes(own))
    if not len(starts):
        return np.zeros(corpus.segments, dtype=np.int64)
    best = np.maximum.reduceat(counts.count[references], starts)
    own = own[starts]
    matched = np.minimum(counts.count[own], best)
    return np.bincount(corpus.segment[counts.document[own]], matched, corpus.segments).astype(np.int64)


def _closest_reference(corpus: Corpus) -> Ints:
    """Return [n] the reference length closest to the hypothesis's; of two as close, the shorter."""
    if not corpus.segments:
        return corpus.length
    base = int(corpus.length.max()) + 1
    distance = np.abs(corpus.length - corpus.length[corpus.own_hypothesis])
    ranks = distance * base + corpus.length
    ranks[corpus.hypothesis] = np.iinfo(np.int64).max
    closest: Ints = np.minimum.reduceat(ranks, corpus.hypothesis) % base
    return closest
