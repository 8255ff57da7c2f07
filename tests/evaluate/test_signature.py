import pytest

import medvlm
from medvlm.evaluate.bleu import Bleu
from medvlm.evaluate.cider import Cider
from medvlm.evaluate.metrics import score
from medvlm.evaluate.ngrams import Corpus
from medvlm.evaluate.rouge import Rouge


def corpora(references):
    corpus = Corpus.from_tokens([["a"] for _ in references], references)
    return {"ptb": corpus, "whitespace": corpus, "rouge": corpus}


def test_bleu_and_cider_read_as_documented():
    some = corpora([[["a"]] * 5, [["a"]] * 4])
    version = medvlm.__version__
    assert Bleu().signature(some) == f"bleu:4|tok:ptb|case:lower|refs:max5|smooth:none|medvlm:{version}"
    expected = f"cider-d|n:4|sigma:6|idf:references(n=2)|tok:ptb|case:lower|refs:max5|medvlm:{version}"
    assert Cider().signature(some) == expected


@pytest.mark.parametrize("metric", [Bleu, Rouge, Cider])
def test_other_settings_give_another_signature(metric):
    one, five = corpora([[["a"]]] * 2), corpora([[["a"]] * 5] * 2)
    signatures = [metric(tokenizer=name).signature(some) for name in ("ptb", "whitespace") for some in (one, five)]
    assert len(set(signatures)) == 4


def test_more_settings_give_another_signature():
    some = corpora([[["a"]]])
    assert Bleu(order=2).signature(some) != Bleu().signature(some)
    assert Cider(sigma=2).signature(some) != Cider().signature(some)


def test_the_corpus_of_the_document_frequencies_is_part_of_cider():
    one, two = (score(["cider"], ["a"] * n, [["a"]] * n).signatures["cider"] for n in (1, 2))
    assert one != two
