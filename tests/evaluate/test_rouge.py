import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_peers import AS_IT_IS, coco_rouge_l, rouge_f1, segments

from medvlm.evaluate.metrics import Options, Segments, aggregate
from medvlm.evaluate.rouge import Rouge

ROUGE = Rouge(AS_IT_IS)
STEMMED = Rouge(Options(stem=True))
raw = st.text(alphabet="ab C1,.'-\n é<>", max_size=30) | st.lists(
    st.sampled_from(["effusions", "Effusion", "enlarged", "enlarging", "is", "was", "<b x>", "skies", "opacity"]),
    max_size=6,
).map(" ".join)


def scored(predictions, references, rouge=ROUGE):
    return rouge.statistics(Segments(predictions, references, case="mixed"))


@settings(deadline=None)
@given(segments)
def test_rouge_l_equals_pycocoevalcap_on_random_tokens(some):
    found = scored([" ".join(p) for p, _ in some], [[" ".join(r) for r in own] for _, own in some])
    expected, by_segment = coco_rouge_l(some)
    np.testing.assert_allclose(found[:, 2], by_segment, rtol=0, atol=1e-9)
    assert aggregate(ROUGE, found)["rouge_l"] == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(st.lists(st.tuples(raw, st.lists(raw, min_size=1, max_size=3)), min_size=1, max_size=5))
def test_f1_equals_rouge_score_on_random_text(some):
    for rouge, stem in ((ROUGE, False), (STEMMED, True)):
        found = scored([p for p, _ in some], [r for _, r in some], rouge)
        expected = np.array([rouge_f1(p, r, stem) for p, r in some])
        np.testing.assert_allclose(found[:, [0, 1, 3]], expected, rtol=0, atol=1e-12)


def test_coco_takes_precision_and_recall_from_different_references():
    # Precision 1 from the first reference, recall 1 from the second: coco-caption scores 1 where no reference agrees.
    found = scored(["a b"], [["a b c d", "a"]])
    assert found[0, 2] == pytest.approx(1.0)
    assert found[0, 3] == pytest.approx(2 / 3)


def test_two_empty_texts_agree_for_coco_and_not_for_rouge_score():
    assert scored([""], [[""]]).tolist() == [[0.0, 0.0, 1.0, 0.0, 1.0]]
    assert coco_rouge_l([([], [[]])])[0] == 1.0


@pytest.mark.parametrize("block", [4_000_000, 500])
def test_texts_of_any_length_at_once(block, monkeypatch):
    monkeypatch.setattr("medvlm.evaluate.subsequence._BLOCK", block)
    generator = np.random.default_rng(3)
    words = [f"w{i}" for i in range(12)]
    some = [
        (list(generator.choice(words, own)), [list(generator.choice(words, one)) for one in others])
        for own, others in [
            (0, [3]), (1, [64, 0]), (63, [70]), (64, [64]), (65, [64, 65]), (150, [170, 3]), (128, [129]), (129, [9]),
            (1025, [30, 1100, 2])
        ]
    ]  # fmt: skip
    found = scored([" ".join(p) for p, _ in some], [[" ".join(one) for one in r] for _, r in some])
    np.testing.assert_allclose(found[:, 2], coco_rouge_l(some)[1], rtol=0, atol=1e-12)


def test_more_words_than_16_bits_hold_change_nothing():
    # So many other words that n-grams are sorted another way.
    much = [" ".join(f"w{60 * row + place}" for place in range(60)) for row in range(1100)]
    some = ["no pleural effusion w1 w2 no no", "", "w1 w2 the heart"]
    references = [["no effusion no w2 w1", "no pleural"], ["w1"], ["w1 w2"]]
    alone = scored(some, references)
    found = scored([*some, *much], [*references, *([text] for text in much)])
    np.testing.assert_array_equal(found[:3], alone)
    np.testing.assert_array_equal(found[3:], 1.0)
