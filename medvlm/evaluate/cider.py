"""CIDEr-D (Vedantam et al. 2015) as coco-caption computes it and everybody reports as "CIDEr": pycocoevalcap to 1e-9.

n-grams of orders 1 to 4, weighted by their inverse document frequency over the segments' references; counts clipped to
the reference's; a Gaussian penalty on the difference in length; times 10. The corpus is part of the score: a single
segment scores 0 whatever it says, because the logarithm of one document is 0.
"""

from __future__ import annotations

import numpy as np

from medvlm.evaluate.metrics import Options, Segments, means
from medvlm.evaluate.ngrams import Corpus, Floats
from medvlm.evaluate.signature import references_per_segment, signature

_ORDERS = 4
_SCALE = 10.0


class Cider:
    """CIDEr-D over the tokens of `tokenizer`; document frequencies come from the references themselves."""

    name = "cider"
    keys = ("cider",)

    def __init__(self, options: Options | None = None, sigma: float = 6.0) -> None:
        self.options, self.sigma = options or Options(), sigma

    def signature(self, segments: Segments) -> str:
        """Return the settings as one string, the corpus of the document frequencies among them."""
        options = self.options
        corpus = segments.corpus(options.tokenizer)
        return signature(
            "cider-d",
            n=_ORDERS,
            sigma=f"{self.sigma:g}",
            idf=f"references(n={corpus.segments})",
            tok=options.tokenizer,
            case=options.case,
            refs=references_per_segment(corpus.references()),
        )

    def statistics(self, segments: Segments) -> Floats:
        """Return [n, 2]: the CIDEr-D of each segment, and 1."""
        corpus = segments.corpus(self.options.tokenizer)
        similarity = sum((_similarity(corpus, n) for n in range(1, _ORDERS + 1)), np.zeros(len(corpus.length)))
        # coco-caption measures length in bigrams.
        bigrams = np.maximum(corpus.length - 1, 0)
        delta = bigrams[corpus.hypothesis][corpus.segment] - bigrams
        similarity *= np.exp(-(delta**2) / (2 * self.sigma**2))
        total = np.bincount(corpus.segment, similarity, corpus.segments)
        scores: Floats = total / _ORDERS / np.maximum(corpus.references(), 1) * _SCALE
        return np.stack([scores, np.ones(len(scores))], axis=1)

    def of_sums(self, sums: Floats) -> Floats:
        """Return the means [R, 1]; NaN of none."""
        return means(sums)


def _similarity(corpus: Corpus, order: int) -> Floats:
    """Return [D] each reference's clipped cosine with its hypothesis over n-grams of one order (hypotheses: 0)."""
    counts = corpus.ngrams(order)
    starts = counts.group_start
    guessed = corpus.is_hypothesis()[counts.document]
    sizes = np.diff(starts, append=len(guessed))
    # A segment counts once for a gram that any of its references holds: all groups but a hypothesis's entry alone.
    referenced = ~guessed[starts] | (sizes > 1)
    frequency = np.bincount(counts.gram[starts], referenced, counts.grams)
    idf = np.log(max(corpus.segments, 1)) - np.log(np.maximum(frequency, 1.0))
    weight = counts.count * idf[counts.gram]
    own = np.repeat(np.where(guessed[starts], weight[starts], 0.0), sizes)
    overlap = np.where(guessed, 0.0, np.minimum(own, weight) * weight)
    documents = len(corpus.length)
    norm = np.sqrt(np.bincount(counts.document, weight**2, documents))
    scale = norm[corpus.hypothesis][corpus.segment] * norm
    dots = np.bincount(counts.document, overlap, documents)
    cosine: Floats = np.divide(dots, scale, out=np.zeros(documents), where=scale > 0)
    return cosine
