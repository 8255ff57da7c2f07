"""The public implementations that our metrics must equal, called on tokens we choose, and random segments."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU as SacreBleu

from medvlm.evaluate.metrics import Options
from medvlm.evaluate.metrics import Segments as Scored

Tokens = list[str]
Segments = list[tuple[Tokens, list[Tokens]]]
# Tokens are words between blanks, in the case they stand in.
AS_IT_IS = Options(tokenizer="whitespace", case="mixed")

_words = st.sampled_from(["the", "a", "cat", "lung", "is", "clear", "no", "effusion", "é", "中文", "5", "-lrb-"])
_texts = st.lists(_words, max_size=9)
segments = st.lists(st.tuples(_texts, st.lists(_texts, min_size=1, max_size=4)), min_size=1, max_size=8)


def scored(some: Segments) -> Scored:
    """Segments of tokens as our metrics take them."""
    predictions = [" ".join(hypothesis) for hypothesis, _ in some]
    return Scored(predictions, [[" ".join(one) for one in own] for _, own in some], case="mixed")


def _coco(some: Segments) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    references = {index: [" ".join(one) for one in own] for index, (_, own) in enumerate(some)}
    return references, {index: [" ".join(hypothesis)] for index, (hypothesis, _) in enumerate(some)}


def coco_bleu(some: Segments) -> tuple[list[float], np.ndarray]:
    """Corpus BLEU-1..4 and per-segment scores [4, n] of pycocoevalcap."""
    score, by_segment = Bleu(4).compute_score(*_coco(some), verbose=0)
    return score, np.array(by_segment)


def coco_rouge_l(some: Segments) -> tuple[float, np.ndarray]:
    return Rouge().compute_score(*_coco(some))


def coco_cider(some: Segments) -> tuple[float, np.ndarray]:
    return Cider().compute_score(*_coco(some))


_scorers = {stem: RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=stem) for stem in (False, True)}


def rouge_f1(prediction: str, references: list[str], stem: bool = False) -> list[float]:
    """F1 of ROUGE-1, -2, -L of rouge_score over the raw texts."""
    found = _scorers[stem].score_multi(references, prediction)
    return [found[name].fmeasure for name in ("rouge1", "rouge2", "rougeL")]


def sacre_bleu(predictions: list[str], references: list[list[str]], tokenizer: str, lowercase: bool) -> list[float]:
    """BLEU-1..4 of sacrebleu, 0 to 1, unsmoothed; texts may have different numbers of references."""
    most = max(map(len, references))
    streams = [[own[place] if place < len(own) else None for own in references] for place in range(most)]
    settings = {"tokenize": tokenizer, "lowercase": lowercase, "smooth_method": "none"}
    scorers = [SacreBleu(max_ngram_order=order, **settings) for order in (1, 2, 3, 4)]
    return [scorer.corpus_score(predictions, streams).score / 100 for scorer in scorers]


def plain_cider(some: Segments, documents: Segments | None = None) -> list[float]:
    """CIDEr as first defined, written out with dictionaries: mean cosine of tf-idf vectors, orders 1 to 4, times 10."""
    documents = some if documents is None else documents

    def grams(tokens: Tokens, order: int) -> Counter[tuple[str, ...]]:
        return Counter(zip(*(tokens[place:] for place in range(order)), strict=False))

    scores = []
    for hypothesis, references in some:
        total = 0.0
        for order in (1, 2, 3, 4):
            sets = [set().union(*(grams(one, order) for one in own)) for _, own in documents]

            def vector(tokens: Tokens, order: int = order, sets: list[set[tuple[str, ...]]] = sets) -> dict:
                return {
                    gram: times * (math.log(len(sets)) - math.log(max(1, sum(gram in one for one in sets))))
                    for gram, times in grams(tokens, order).items()
                }

            ours = vector(hypothesis)
            for reference in references:
                theirs = vector(reference)
                norms = math.hypot(*ours.values()) * math.hypot(*theirs.values())
                dot = sum(weight * theirs.get(gram, 0.0) for gram, weight in ours.items())
                total += dot / norms / len(references) if norms else 0.0
        scores.append(total / 4 * 10)
    return scores
