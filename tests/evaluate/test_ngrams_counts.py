"""The counts against dictionaries."""

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medvlm.evaluate.metrics import Segments

words = st.lists(st.sampled_from("abcd"), max_size=7)
segments = st.lists(st.tuples(words, st.lists(words, min_size=1, max_size=3)), min_size=1, max_size=5)


def corpus_of(some):
    texts = [" ".join(own) for own, _ in some]
    return Segments(texts, [[" ".join(one) for one in others] for _, others in some], case="mixed").corpus("whitespace")


def grams(tokens, order):
    return Counter(" ".join(tokens[start : start + order]) for start in range(len(tokens) - order + 1))


@pytest.mark.parametrize("bits", [64, 1])
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some=segments)
def test_counts_equal_those_of_dictionaries(bits, some, monkeypatch):
    # With one bit for keys, they are sorted the slower way that long corpora need.
    monkeypatch.setattr("medvlm.evaluate.ngrams._KEY_BITS", bits)
    corpus = corpus_of(some)
    documents = [document for own, others in some for document in (own, *others)]
    for order in (1, 2, 3, 4):
        counts, texts = corpus.ngrams(order), list(corpus.texts(order))
        found = [Counter() for _ in documents]
        for gram, document, times in zip(counts.gram, counts.document, counts.count, strict=True):
            found[document][texts[gram]] += int(times)
        assert found == [grams(document, order) for document in documents]
        shared = {(texts[counts.gram[theirs]], counts.document[theirs]) for theirs in counts.shared[0]}
        assert shared == {
            (gram, document)
            for document, tokens in enumerate(documents)
            if not corpus.is_hypothesis[document]
            for gram in grams(tokens, order).keys() & grams(documents[corpus.own_hypothesis[document]], order).keys()
        }


def test_orders_may_be_asked_for_in_any_order():
    corpora = [corpus_of([("abcab", ["cabab"])]) for _ in range(2)]
    upwards = [corpora[0].ngrams(order) for order in (1, 2, 3)]
    downwards = [corpora[1].ngrams(order) for order in (3, 2, 1)][::-1]
    for one, other in zip(upwards, downwards, strict=True):
        assert one.count.tolist() == other.count.tolist()
        assert one.gram.tolist() == other.gram.tolist()
