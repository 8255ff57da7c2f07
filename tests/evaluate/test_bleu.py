import numpy as np
import pytest
from hypothesis import given
from metric_peers import coco_bleu, corpus, segments

from medvlm.evaluate.bleu import Bleu

BLEU = Bleu(tokenizer="whitespace")


def scored(some):
    statistics = BLEU.statistics({"whitespace": corpus(some)})
    return statistics, list(BLEU.aggregate(statistics).values())


@given(segments)
def test_equals_pycocoevalcap_on_random_tokens(some):
    expected, by_segment = coco_bleu(some)
    statistics, found = scored(some)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(list(BLEU.segments(statistics).values()), by_segment, rtol=0, atol=1e-9)


def test_by_hand():
    # 3 of 4 words, 2 of 3 pairs; the closer reference has 5 words: penalty exp(1 - 5 / 4).
    some = [(["a", "b", "c", "x"], [["a", "b", "c", "d", "e"], ["z", "z", "z", "z", "z", "z", "z"]])]
    _, found = scored(some)
    penalty = np.exp(-0.25)
    assert found[0] == pytest.approx(0.75 * penalty, abs=1e-8)
    assert found[1] == pytest.approx((0.75 * 2 / 3) ** 0.5 * penalty, abs=1e-8)


def test_a_tie_in_reference_length_takes_the_shorter():
    statistics, _ = scored([(["a", "b", "c"], [["a", "b"], ["a", "b", "c", "d"]])])
    assert statistics[0, :2].tolist() == [3, 2]


def test_a_word_counts_at_most_as_often_as_in_one_reference():
    statistics, _ = scored([(["the", "the", "the", "the"], [["the", "cat"], ["the", "the"]])])
    assert statistics[0, 6:].tolist() == [2, 1, 0, 0]


@pytest.mark.parametrize(
    "some", [[([], [["a"]])], [([], [[]])], [(["a"], [[]])], [(["a"], [["a"]]), ([], [["b", "c"]])]]
)
def test_empty_texts_score_as_the_peer_scores_them(some):
    _, found = scored(some)
    assert found == pytest.approx(coco_bleu(some)[0], abs=1e-12)


def test_aggregate_over_drawn_rows_equals_scoring_the_drawn_segments():
    some = [(["a", "b"], [["a", "b", "c"]]), (["x"], [["y"], ["x"]]), (["a"], [["a", "a"]])]
    statistics, _ = scored(some)
    drawn = np.array([2, 0, 0])
    assert list(BLEU.aggregate(statistics, drawn).values()) == scored([some[i] for i in drawn])[1]
