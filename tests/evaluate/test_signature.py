import pytest

import medvlm
from medvlm.evaluate.bleu import Bleu
from medvlm.evaluate.cider import Cider
from medvlm.evaluate.metrics import Options, Segments, score
from medvlm.evaluate.rouge import Rouge


def segments(references):
    return Segments(["a"] * len(references), references)


def test_all_read_as_documented():
    some = segments([["a"] * 5, ["a"] * 4])
    version = medvlm.__version__
    assert Bleu().signature(some) == f"bleu:4|tok:ptb|case:lower|refs:max5|smooth:none|medvlm:{version}"
    expected = (
        "cider-d|n:4|sigma:6|unclipped:cosine,sigma=none|idf:references(n=2)|tok:ptb|case:lower|refs:max5"
        f"|medvlm:{version}"
    )
    assert Cider().signature(some) == expected
    expected = (
        "rouge|l:tok=ptb,case=lower,beta=1.2,refs=max-precision-and-recall"
        f"|f1:1+2+l,tok=rouge,case=lower,stem=porter,refs=best|refs:max5|medvlm:{version}"
    )
    assert Rouge(Options(stem=True)).signature(some) == expected


@pytest.mark.parametrize("metric", [Bleu, Rouge, Cider])
def test_other_settings_give_another_signature(metric):
    one, five = segments([["a"]] * 2), segments([["a"] * 5] * 2)
    settings = [Options(name, case) for name in ("ptb", "13a", "whitespace") for case in ("lower", "mixed")]
    signatures = [metric(chosen).signature(some) for chosen in settings for some in (one, five)]
    assert len(set(signatures)) == 12


@pytest.mark.parametrize("metric", [Bleu, Rouge, Cider])
def test_none_is_signed_as_what_it_counts(metric):
    assert metric(Options("none")).signature(segments([["a"]])) == metric(Options("whitespace")).signature(
        segments([["a"]])
    )


def test_more_settings_give_another_signature():
    some = segments([["a"]])
    assert Bleu(order=2).signature(some) != Bleu().signature(some)
    assert Cider(sigma=2).signature(some) != Cider().signature(some)
    assert Rouge(Options(stem=True)).signature(some) != Rouge().signature(some)


def test_the_corpus_of_the_document_frequencies_is_part_of_cider():
    one, two = (score(["cider"], ["a"] * n, [["a"]] * n).signatures["cider"] for n in (1, 2))
    others = score(["cider"], ["a"], [["a"]], options=Options(idf_references=[["a"], ["b"]])).signatures["cider"]
    assert one != two == others
