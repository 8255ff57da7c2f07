"""The public implementations that our metrics must equal, called on tokens we choose, and random segments."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from rouge_score.rouge_scorer import RougeScorer

from medvlm.evaluate.ngrams import Corpus

Tokens = list[str]
Segments = list[tuple[Tokens, list[Tokens]]]

_words = st.sampled_from(["the", "a", "cat", "lung", "is", "clear", "no", "effusion", "é", "中文", "5", "-lrb-"])
_texts = st.lists(_words, max_size=9)
segments = st.lists(st.tuples(_texts, st.lists(_texts, min_size=1, max_size=4)), min_size=1, max_size=8)


def corpus(some: Segments) -> Corpus:
    return Corpus.from_tokens([hypothesis for hypothesis, _ in some], [references for _, references in some])


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


_scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)


def rouge_f1(prediction: str, references: list[str]) -> list[float]:
    """F1 of ROUGE-1, -2, -L of rouge_score over the raw texts."""
    found = _scorer.score_multi(references, prediction)
    return [found[name].fmeasure for name in ("rouge1", "rouge2", "rougeL")]
