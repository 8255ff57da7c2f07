import numpy as np
import pytest
from hypothesis import assume, given
from metric_peers import coco_cider, corpus, segments

from medvlm.evaluate.cider import Cider

CIDER = Cider(tokenizer="whitespace")


def scored(some):
    statistics = CIDER.statistics({"whitespace": corpus(some)})
    return CIDER.aggregate(statistics)["cider"], CIDER.segments(statistics)["cider"]


@given(segments)
def test_equals_pycocoevalcap_on_random_tokens(some):
    # With nothing but empty references the peer fails on its own assertion.
    assume(any(reference for _, references in some for reference in references))
    expected, by_segment = coco_cider(some)
    found, ours = scored(some)
    assert found == pytest.approx(expected, abs=1e-9)
    np.testing.assert_allclose(ours, by_segment, rtol=0, atol=1e-9)


def test_only_empty_references_score_zero_where_the_peer_fails():
    some = [(["a"], [[]]), ([], [[], []])]
    with pytest.raises(ValueError, match="empty"):
        coco_cider(some)
    assert scored(some)[0] == 0.0


def test_one_segment_scores_zero_and_a_perfect_answer_ten():
    perfect = (["a", "b", "c", "d"], [["a", "b", "c", "d"]])
    other = (["w", "x", "y", "z"], [["w", "x", "y", "z"]])
    assert scored([perfect])[0] == 0.0
    assert scored([perfect, other])[0] == pytest.approx(10.0)


def test_duplicated_text_and_long_hypotheses():
    same = ["no", "effusion"] * 3
    some = [(same, [same, same]), (same * 4, [same]), (["clear"], [same, ["clear", "lungs"]])]
    assert scored(some)[0] == pytest.approx(coco_cider(some)[0], abs=1e-9)
