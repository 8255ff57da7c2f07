import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from metric_peers import coco_rouge_l, corpus, rouge_f1, segments

from medvlm.evaluate.rouge import Rouge
from medvlm.evaluate.tokenize import tokenize

ROUGE = Rouge(tokenizer="whitespace")
raw = st.text(alphabet="ab C1,.'-\n é", max_size=30)


def scored(predictions, references):
    corpora = {
        name: corpus(
            [(tokenize([p], name)[0], tokenize(r, name)) for p, r in zip(predictions, references, strict=True)]
        )
        for name in ("whitespace", "rouge")
    }
    return ROUGE.statistics(corpora)


@given(segments)
def test_rouge_l_equals_pycocoevalcap_on_random_tokens(some):
    found = scored([" ".join(p) for p, _ in some], [[" ".join(r) for r in own] for _, own in some])
    expected, by_segment = coco_rouge_l(some)
    np.testing.assert_allclose(found[:, 2], by_segment, rtol=0, atol=1e-9)
    assert ROUGE.aggregate(found)["rouge_l"] == pytest.approx(expected, abs=1e-9)


@given(st.lists(st.tuples(raw, st.lists(raw, min_size=1, max_size=3)), min_size=1, max_size=5))
def test_f1_equals_rouge_score_on_random_text(some):
    found = scored([p for p, _ in some], [r for _, r in some])
    expected = np.array([rouge_f1(p, r) for p, r in some])
    np.testing.assert_allclose(found[:, [0, 1, 3]], expected, rtol=0, atol=1e-12)


def test_coco_takes_precision_and_recall_from_different_references():
    # Precision 1 from the first reference, recall 1 from the second: coco-caption scores 1 where no reference agrees.
    found = scored(["a b"], [["a b c d", "a"]])
    assert found[0, 2] == pytest.approx(1.0)
    assert found[0, 3] == pytest.approx(2 / 3)


def test_two_empty_texts_agree_for_coco_and_not_for_rouge_score():
    assert scored([""], [[""]]).tolist() == [[0.0, 0.0, 1.0, 0.0]]
    assert coco_rouge_l([([], [[]])])[0] == 1.0


def test_long_texts_beyond_one_machine_word():
    generator = np.random.default_rng(3)
    words = [f"w{i}" for i in range(40)]
    some = [(list(generator.choice(words, 150)), [list(generator.choice(words, 170))]) for _ in range(5)]
    found = scored([" ".join(p) for p, _ in some], [[" ".join(r[0])] for _, r in some])
    np.testing.assert_allclose(found[:, 2], coco_rouge_l(some)[1], rtol=0, atol=1e-12)
