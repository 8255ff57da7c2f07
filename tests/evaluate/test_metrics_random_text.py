"""All scores of random raw text against the peers: coco-caption on our PTB tokens, rouge_score on the text itself."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from metric_peers import coco_bleu, coco_cider, coco_rouge_l, rouge_f1

from medvlm.evaluate.metrics import Options, score
from medvlm.evaluate.tokenize import tokenize

sentences = st.lists(
    st.sampled_from(
        [
            "No",
            "pleural",
            "effusion.",
            "effusion",
            "\n",
            "the",
            "T2-weighted",
            "(see",
            "below)",
            "3.5",
            "cm,",
            "médiastin",
        ]
    ),
    max_size=9,
).map(" ".join)
texts = sentences | st.text(max_size=12) | st.just("")
rows = st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=3)), min_size=1, max_size=5)


@pytest.mark.parametrize(("tokenizer", "case"), [("ptb", "lower"), ("ptb", "mixed"), ("13a", "lower")])
@settings(deadline=None, max_examples=50)
@given(some=rows)
def test_equals_the_peers(tokenizer, case, some):
    predictions, references = [prediction for prediction, _ in some], [own for _, own in some]
    words = [tokenize([prediction], tokenizer, case)[0] for prediction in predictions]
    tokens = list(zip(words, [tokenize(own, tokenizer, case) for own in references], strict=True))
    # With nothing but empty references the peer fails on its own assertion.
    assume(any(reference for _, own in tokens for reference in own))
    found = score(["bleu", "rouge", "cider"], predictions, references, options=Options(tokenizer, case)).values
    assert [found[f"bleu_{n}"] for n in (1, 2, 3, 4)] == pytest.approx(coco_bleu(tokens)[0], abs=1e-9)
    assert found["rouge_l"] == pytest.approx(coco_rouge_l(tokens)[0], abs=1e-9)
    assert found["cider"] == pytest.approx(coco_cider(tokens)[0], abs=1e-9)
    f1 = np.mean([rouge_f1(prediction, own) for prediction, own in some], axis=0)
    ours = [found[key] for key in ("rouge_1", "rouge_2", "rouge_l_f1")]
    np.testing.assert_allclose(ours, f1, rtol=0, atol=1e-12)
