"""ROUGE (Lin 2004) in the two ways in use, side by side because they differ.

`rouge_l` is coco-caption's: beta 1.2, the largest precision and the largest recall over the references even where two
references give them. `rouge_1`, `rouge_2`, `rouge_l_f1` are rouge_score's F1 on its own tokens, Porter-stemmed only
where asked; of several references the one with the best F1 counts. All are means over the segments.
"""

from __future__ import annotations

import numpy as np

from medvlm.evaluate.metrics import Options, Segments, means
from medvlm.evaluate.ngrams import Corpus, Floats
from medvlm.evaluate.signature import references_per_segment, signature
from medvlm.evaluate.subsequence import common_subsequences
from medvlm.evaluate.tokenize import signed

_BETA = 1.2


class Rouge:
    """ROUGE-L over the tokens of `tokenizer`; ROUGE-1, -2 and -L F1 over rouge_score's tokens."""

    name = "rouge"
    keys = ("rouge_1", "rouge_2", "rouge_l", "rouge_l_f1")

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or Options()
        self._plain = "rouge-stem" if self.options.stem else "rouge"

    def signature(self, segments: Segments) -> str:
        """Return the settings as one string."""
        options = self.options
        return signature(
            "rouge",
            l=f"tok={signed(options.tokenizer)},case={options.case},beta={_BETA},refs=max-precision-and-recall",
            f1=f"1+2+l,tok=rouge,case=lower,stem={'porter' if options.stem else 'no'},refs=best",
            refs=references_per_segment(map(len, segments.references)),
        )

    def statistics(self, segments: Segments) -> Floats:
        """Return [n, 5]: rouge_1, rouge_2, rouge_l, rouge_l_f1 of each segment, and 1."""
        words, plain = segments.corpus(self.options.tokenizer), segments.corpus(self._plain, keep=False)
        columns = [
            _best_f1(plain, _shared_ngrams(plain, 1), 1),
            _best_f1(plain, _shared_ngrams(plain, 2), 2),
            _coco_rouge_l(words),
            _best_f1(plain, common_subsequences(plain), 1),
            np.ones(words.segments),
        ]
        return np.stack(columns, axis=1)

    def of_sums(self, sums: Floats) -> Floats:
        """Return the means [R, 4]; NaN of none."""
        return means(sums)


def _shared_ngrams(corpus: Corpus, order: int) -> Floats:
    """Return [D] how many n-grams each reference shares with its hypothesis, with multiplicity (hypotheses: 0)."""
    counts = corpus.ngrams(order)
    references, own = counts.shared
    shared = np.minimum(counts.count[own], counts.count[references])
    return np.bincount(counts.document[references], shared, len(corpus.length)).astype(np.float64)


def _best_f1(corpus: Corpus, shared: Floats, order: int) -> Floats:
    """Return [n] the best F1 over the references, from what each reference [D] shares with its hypothesis."""
    size = np.maximum(corpus.length - order + 1, 0)
    total = size + size[corpus.own_hypothesis]
    # 2 P R / (P + R) with P = shared / hypothesis and R = shared / reference.
    f1 = np.divide(2.0 * shared, total, out=np.zeros(len(total)), where=total > 0)
    return _segment_maximum(corpus, f1)


def _coco_rouge_l(corpus: Corpus) -> Floats:
    """Return [n] coco-caption's ROUGE-L; like it, take an empty text for one empty word (two empty texts agree)."""
    empty = corpus.length == 0
    both_empty = empty & empty[corpus.own_hypothesis]
    both_empty[corpus.hypothesis] = False
    shared = common_subsequences(corpus) + both_empty
    length = np.maximum(corpus.length, 1)
    precision = _segment_maximum(corpus, shared / length[corpus.own_hypothesis])
    recall = _segment_maximum(corpus, shared / length)
    weighted = recall + _BETA**2 * precision
    score: Floats = np.divide(
        (1 + _BETA**2) * precision * recall, weighted, out=np.zeros(len(weighted)), where=weighted > 0
    )
    return score


def _segment_maximum(corpus: Corpus, values: Floats) -> Floats:
    """Return [n] the largest of the non-negative `values` [D] over each segment's references (hypotheses hold 0)."""
    if not corpus.segments:
        return values
    largest: Floats = np.maximum.reduceat(values, corpus.hypothesis)
    return largest
