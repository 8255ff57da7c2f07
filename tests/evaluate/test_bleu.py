import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_peers import AS_IT_IS, coco_bleu, sacre_bleu, segments
from metric_peers import scored as as_segments

from medvlm.evaluate.bleu import Bleu
from medvlm.evaluate.metrics import Options, aggregate, by_segment, score

BLEU = Bleu(AS_IT_IS)


def scored(some):
    statistics = BLEU.statistics(as_segments(some))
    return statistics, list(aggregate(BLEU, statistics).values())


@settings(deadline=None)
@given(segments)
def test_equals_pycocoevalcap_on_random_tokens(some):
    expected, of_each = coco_bleu(some)
    statistics, found = scored(some)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(list(by_segment(BLEU, statistics).values()), of_each, rtol=0, atol=1e-9)


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
    assert list(aggregate(BLEU, statistics, drawn).values()) == scored([some[i] for i in drawn])[1]


texts = st.text(alphabet="aB1.,-\n &;'é\u2003", max_size=25) | st.sampled_from(
    ["The heart is normal.", "No pleural effusion, no 1.5-cm nodule", "&lt;B&gt; is 3-4 cm.\nClear-\ner", "ΑΣ. β"]
)


@pytest.mark.parametrize(("tokenizer", "theirs"), [("13a", "13a"), ("whitespace", "none"), ("none", "none")])
@pytest.mark.parametrize("case", ["lower", "mixed"])
@settings(deadline=None)
@given(some=st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=3)), min_size=1, max_size=5))
def test_equals_sacrebleu_where_no_order_is_zero(tokenizer, theirs, case, some):
    predictions, references = [p for p, _ in some], [own for _, own in some]
    found = list(score(["bleu"], predictions, references, options=Options(tokenizer, case)).values.values())
    for ours, expected in zip(found, sacre_bleu(predictions, references, theirs, case == "lower"), strict=True):
        # Of an order without a match, coco-caption's small constants leave more than nothing.
        assert expected == 0 or ours == pytest.approx(expected, abs=1e-8)
