"""Corpus BLEU-1 to BLEU-4 (Papineni et al. 2002) as coco-caption computes it: pycocoevalcap 1.2 to 1e-9.

The reference length is the closest one, the shorter on a tie. There is no smoothing but coco-caption's two constants,
which keep an order without a match from being zero: published COCO-style scores contain them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from medvlm.evaluate.ngrams import Corpus, Floats, Ints, group_maximum
from medvlm.evaluate.signature import references_per_segment, signature
from medvlm.evaluate.tokenize import CASE

_SMALL = 1e-9
_TINY = 1e-15


class Bleu:
    """BLEU of orders 1 to `order` over the tokens of `tokenizer`."""

    name = "bleu"

    def __init__(self, tokenizer: str = "ptb", order: int = 4) -> None:
        self.order = order
        self.tokenizers = (tokenizer,)
        self.keys = tuple(f"bleu_{n}" for n in range(1, order + 1))

    def signature(self, corpora: Mapping[str, Corpus]) -> str:
        """Return the settings as one string."""
        (tokenizer,) = self.tokenizers
        refs = references_per_segment(corpora[tokenizer].references())
        return signature(f"bleu:{self.order}", tok=tokenizer, case=CASE[tokenizer], refs=refs, smooth="none")

    def statistics(self, corpora: Mapping[str, Corpus]) -> Floats:
        """Return [n, 2 + 2 * order]: hypothesis length, closest reference length, n-grams guessed, n-grams right."""
        corpus = corpora[self.tokenizers[0]]
        lengths = corpus.length[corpus.hypothesis]
        guessed = [np.maximum(lengths - n + 1, 0) for n in range(1, self.order + 1)]
        correct = [_matches(corpus, n) for n in range(1, self.order + 1)]
        columns = [lengths, _closest_reference(corpus), *guessed, *correct]
        return np.stack(columns, axis=1).astype(np.float64)

    def aggregate(self, statistics: Floats, indices: Ints | None = None) -> dict[str, float]:
        """Return corpus BLEU over the rows of `statistics`, or over those that `indices` draws."""
        rows = statistics if indices is None else statistics[indices]
        return dict(zip(self.keys, self._bleu(rows.sum(axis=0, keepdims=True))[0].tolist(), strict=True))

    def segments(self, statistics: Floats) -> dict[str, Floats]:
        """Return the BLEU [n] of each segment alone (with the same constants, as coco-caption's per-image scores)."""
        return dict(zip(self.keys, self._bleu(statistics).T, strict=True))

    def _bleu(self, rows: Floats) -> Floats:
        """Return [N, order] from summed statistics [N, 2 + 2 * order]."""
        guessed, correct = rows[:, 2 : 2 + self.order], rows[:, 2 + self.order :]
        products = np.cumprod((correct + _TINY) / (guessed + _SMALL), axis=1)
        means = products ** (1.0 / np.arange(1, self.order + 1))
        ratio = (rows[:, 0] + _TINY) / (rows[:, 1] + _SMALL)
        penalty = np.exp(np.minimum(0.0, 1.0 - 1.0 / ratio))
        scores: Floats = means * penalty[:, None]
        return scores


def _matches(corpus: Corpus, order: int) -> Ints:
    """Return [n] how many of each hypothesis's n-grams are in a reference, each at most as often as in one of them."""
    counts = corpus.ngrams(order)
    guessed = corpus.is_hypothesis()[counts.document]
    best = group_maximum(np.where(guessed, 0, counts.count), counts.group_start)
    starts = counts.group_start
    own = np.where(guessed[starts], counts.count[starts], 0)
    where = corpus.segment[counts.document[starts]]
    return np.bincount(where, np.minimum(own, best), corpus.segments).astype(np.int64)


def _closest_reference(corpus: Corpus) -> Ints:
    """Return [n] the reference length closest to the hypothesis's; of two as close, the shorter."""
    if not corpus.segments:
        return corpus.length
    base = int(corpus.length.max()) + 1
    distance = np.abs(corpus.length - corpus.length[corpus.hypothesis][corpus.segment])
    ranks = distance * base + corpus.length
    ranks[corpus.hypothesis] = np.iinfo(np.int64).max
    closest: Ints = np.minimum.reduceat(ranks, corpus.hypothesis) % base
    return closest
