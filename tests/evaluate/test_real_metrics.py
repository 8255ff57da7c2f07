"""Scores of shared/data/metrics against its expected values and against the peer libraries."""

import json
from collections import defaultdict
from itertools import product

import numpy as np
import pytest
from metric_peers import coco_bleu, coco_cider, coco_rouge_l, rouge_f1, sacre_bleu

from medvlm.evaluate.metrics import Options, score
from medvlm.evaluate.tokenize import tokenize

pytestmark = pytest.mark.realdata
TEXT = ["bleu", "rouge", "cider"]


def load(realdata, name):
    return json.loads((realdata / "metrics" / name).read_text(encoding="utf-8"))


def same_as_peers(predictions, references):
    """Compare all scores with the peers: coco-caption on our PTB tokens, rouge_score on the raw text."""
    found = score(TEXT, predictions, references)
    some = list(zip(tokenize(predictions), [tokenize(own) for own in references], strict=True))
    f1 = np.array([rouge_f1(p, r) for p, r in zip(predictions, references, strict=True)]).mean(axis=0)
    expected = [*coco_bleu(some)[0], f1[0], f1[1], coco_rouge_l(some)[0], f1[2], coco_cider(some)[0]]
    values = without_unclipped(found.values)
    np.testing.assert_allclose(list(values.values()), expected, rtol=0, atol=1e-9)
    return values


def without_unclipped(values):
    return {key: value for key, value in values.items() if key != "cider_unclipped"}


def same_as_other_peers(predictions, references):
    """Compare BLEU with sacrebleu in both tokenizations and cases, and stemmed ROUGE with rouge_score."""
    for (ours, theirs), case in product([("13a", "13a"), ("none", "none")], ["lower", "mixed"]):
        found = score(["bleu"], predictions, references, options=Options(ours, case)).values
        expected = sacre_bleu(predictions, references, theirs, case == "lower")
        assert min(expected) > 0
        np.testing.assert_allclose(list(found.values()), expected, rtol=0, atol=1e-8)
    found = score(["rouge"], predictions, references, options=Options(stem=True)).per_segment
    f1 = np.array([rouge_f1(p, r, stem=True) for p, r in zip(predictions, references, strict=True)])
    for key, expected in zip(("rouge_1", "rouge_2", "rouge_l_f1"), f1.T, strict=True):
        np.testing.assert_allclose(found[key], expected, rtol=0, atol=1e-12)


def published(table, tokenizer="ptb"):
    bleu = table[f"pycocoevalcap {tokenizer} BLEU"]
    rouge = table["rouge_score score_multi stem=False"]
    return {
        **{f"bleu_{n}": bleu[f"B{n}"] for n in (1, 2, 3, 4)},
        "rouge_1": rouge["rouge1"],
        "rouge_2": rouge["rouge2"],
        "rouge_l": table[f"pycocoevalcap {tokenizer} ROUGE_L"]["RL"],
        "rouge_l_f1": rouge["rougeL"],
        "cider": table[f"pycocoevalcap {tokenizer} CIDEr(=D)"]["CIDEr"],
    }


@pytest.fixture(scope="module")
def degenerate(realdata):
    """Nonsense captions of images of COCO, and the captions that people gave these."""
    images = defaultdict(list)
    for annotation in load(realdata, "coco_val2017_fakecap/captions_val2017.json")["annotations"]:
        images[annotation["image_id"]].append(annotation["caption"])
    results = load(realdata, "coco_val2017_fakecap/captions_val2017_fakecap_results.json")
    return [row["caption"] for row in results], [images[row["image_id"]] for row in results]


def test_coco_human_captions_leave_one_out(realdata, coco_captions):
    values = without_unclipped(
        score(TEXT, [own[0] for own in coco_captions], [own[1:] for own in coco_captions]).values
    )
    table = published(load(realdata, "coco_val2017_fakecap/sidebyside_cocohuman.json"))
    assert values == pytest.approx(table, abs=2e-5)


def test_coco_degenerate_captions(realdata, degenerate):
    table = published(load(realdata, "coco_val2017_fakecap/sidebyside_coco.json"))
    assert without_unclipped(score(TEXT, *degenerate).values) == pytest.approx(table, abs=1e-6)


@pytest.mark.parametrize("every", [10, pytest.param(1, marks=pytest.mark.slow)])
def test_coco_captions_equal_the_peers(coco_captions, degenerate, every):
    some = coco_captions[::every]
    same_as_peers([own[0] for own in some], [own[1:] for own in some])
    same_as_peers(*(part[::every] for part in degenerate))


def test_unclipped_cider_of_coco_human_captions(coco_captions):
    # Of the Java tokens; what is left is the residue of the tokenizer.
    found = score(["cider"], [own[0] for own in coco_captions], [own[1:] for own in coco_captions]).values
    assert found["cider_unclipped"] == pytest.approx(0.981715, abs=2e-5)


def test_coco_and_reports_equal_sacrebleu_and_stemmed_rouge_score(realdata, coco_captions):
    same_as_other_peers([own[0] for own in coco_captions[:300]], [own[1:] for own in coco_captions[:300]])
    pairs = load(realdata, "radeval_fixtures/speed_workload.json")
    same_as_other_peers([pair["hyp"] for pair in pairs], [[pair["ref"]] for pair in pairs])


def test_nlg_eval_example(realdata):
    folder = realdata / "metrics" / "nlg_eval_example"
    hypotheses, *streams = (
        (folder / name).read_text(encoding="utf-8").splitlines() for name in ("hyp.txt", "ref1.txt", "ref2.txt")
    )
    values = same_as_peers(hypotheses, [list(own) for own in zip(*streams, strict=True)])
    expected = load(realdata, "nlg_eval_example/expected.json")["reproduced_here"]
    assert [values[f"bleu_{n}"] for n in (1, 2, 3, 4)] == pytest.approx([expected[f"Bleu_{n}"] for n in (1, 2, 3, 4)])
    assert values["rouge_l"] == pytest.approx(expected["ROUGE_L"], abs=1e-12)
    assert values["cider"] == pytest.approx(expected["CIDEr"], abs=1e-9)


def test_rouge_score_vectors(realdata):
    pairs = load(realdata, "rouge_score_vectors/vectors.json")["pairs"]
    found = score(["rouge"], [pair["prediction"] for pair in pairs], [[pair["target"]] for pair in pairs]).per_segment
    for key, name in {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l_f1": "rougeL"}.items():
        np.testing.assert_allclose(found[key], [pair["nostem"][name][2] for pair in pairs], rtol=0, atol=1e-12)
    same = Options(stem=True)
    found = score(["rouge"], [pair["prediction"] for pair in pairs], [[pair["target"]] for pair in pairs], options=same)
    for key, name in {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l_f1": "rougeL"}.items():
        expected = [pair["stem"][name][2] for pair in pairs]
        np.testing.assert_allclose(found.per_segment[key], expected, rtol=0, atol=1e-12)


def test_radeval_reports(realdata):
    pairs = load(realdata, "radeval_fixtures/speed_workload.json") + load(
        realdata, "radeval_fixtures/divergence_examples.json"
    )
    same_as_peers([pair["hyp"] for pair in pairs], [[pair["ref"]] for pair in pairs])
    same_as_peers(["", *(pair["hyp"] for pair in pairs)], [["No finding."], *([pair["ref"]] for pair in pairs)])
