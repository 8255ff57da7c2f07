"""The tokenizers against the libraries whose rules they follow, word for word."""

import json
import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.stem.porter import PorterStemmer
from rouge_score.tokenize import tokenize as rouge_tokens
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from medvlm.evaluate.metrics import Options, Segments, score
from medvlm.evaluate.ngrams import Chunks, Corpus
from medvlm.evaluate.porter import stem
from medvlm.evaluate.tokenize import get, tokenize

THEIRS, NLTK = Tokenizer13a(), PorterStemmer()
marks = st.text(alphabet="abI1.,-\n\t &;'\"<>/é\u2003\u0130\u212aΣ()", max_size=30)
pieces = st.lists(st.sampled_from(["<skipped>", "-\n", "&amp;", "&lt;b&gt;", "&quot;", "3.5", "a,b", "-", " ", "x"]))
texts = st.text(max_size=30) | marks | pieces.map("".join)

ENDINGS = (
    "s es sses ies ied ed eed ing ational tional enci anci izer bli abli alli entli eli ousli ization ation ator alism "
    "iveness fulness ousness aliti iviti biliti fulli logi icate ative alize iciti ical ful ness al ance ence er ic "
    "able ible ant ement ment ent ion ou ism ate iti ous ive ize y e ll at bl iz"
)


@settings(deadline=None)
@given(texts)
def test_13a_equals_sacrebleu(text):
    assert get("13a", "mixed")(text) == THEIRS(text.rstrip()).split()
    assert get("13a")(text) == THEIRS(text.lower().rstrip()).split()


@settings(deadline=None)
@given(texts)
def test_rouge_equals_rouge_score(text):
    assert get("rouge")(text) == rouge_tokens(text, None)
    assert get("rouge-stem")(text) == rouge_tokens(text, NLTK)


def test_stems_of_made_words_equal_nltk():
    generator = random.Random(5)
    endings = ENDINGS.split()
    for _ in range(20_000):
        start = "".join(generator.choices("abeiostlyyzwcd", k=generator.randint(0, 5)))
        word = start + "".join(generator.choices(endings, k=generator.randint(0, 3)))
        assert stem(word) == NLTK.stem(word), word


@pytest.mark.parametrize("word", ["skies", "dying", "news", "innings", "outing", "howe", "proceed", "is", "Effusions"])
def test_stems_of_exceptions_equal_nltk(word):
    assert stem(word) == NLTK.stem(word)


@pytest.mark.realdata
@pytest.mark.parametrize("source", ["coco", "vqa_rad", "captions", "radeval"])
def test_all_words_of_the_shared_texts(shared_texts, source):
    chosen = shared_texts[source]
    words = {word for text in chosen for word in re.findall("[a-z0-9]+", text.lower())}
    assert [word for word in words if stem(word) != NLTK.stem(word)] == []
    some = chosen[:3000]
    assert tokenize(some, "13a", "mixed") == [THEIRS(text).split() for text in some]


@settings(deadline=None)
@given(st.lists(texts, min_size=1, max_size=6), st.sampled_from(["ptb", "13a", "none", "rouge"]))
def test_a_corpus_holds_the_words_of_its_texts(some, name):
    tokenizer = get(name)
    corpus = Corpus.from_chunks(Chunks.of(some, tokenizer.split), [len(some) - 1], tokenizer)
    words = [corpus.vocabulary[number] for number in corpus.tokens]
    found = [words[start : start + size] for start, size in zip(corpus.start, corpus.length, strict=True)]
    assert found == list(map(tokenizer, some))


def test_a_period_at_a_text_s_end_does_not_read_the_next_text():
    corpus = Segments(["grade D.", "no."], [["The D. The", "5 no. 5"], ["no. 5", ""]]).corpus("ptb")
    words = [corpus.vocabulary[number] for number in corpus.tokens]
    assert " ".join(words) == "grade d. the d the 5 no. 5 no no. 5"


@pytest.mark.realdata
def test_sacrebleu_vectors(realdata):
    path = realdata / "metrics" / "sacrebleu_vectors" / "vectors.json"
    for one in json.loads(path.read_text(encoding="utf-8"))["corpus"]:
        name = one["kwargs"].get("tokenize", "13a")
        if name not in ("13a", "none"):
            continue
        references = [list(own) for own in zip(*one["refs_per_stream"], strict=True)]
        found = score(["bleu"], one["hyps"], references, options=Options(name, "mixed")).values
        np.testing.assert_allclose(found["bleu_4"], one["got_2.6.0"] / 100, rtol=0, atol=1e-8)
