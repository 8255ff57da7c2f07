from pathlib import Path

import numpy as np
import pytest

import medvlm
from medvlm.errors import InputError, UsageError
from medvlm.evaluate.metrics import METRICS, Options, metric_path, parse_metrics, score

KEYS = ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_1", "rouge_2", "rouge_l", "rouge_l_f1"]
KEYS += ["cider", "cider_unclipped"]
TEXT = ["bleu", "rouge", "cider"]
PREDICTIONS = ["No pleural effusion.", "", "A heart\nof normal size"]
REFERENCES = [["No effusion.", "No pleural effusion"], ["Clear lungs."], ["The heart is of normal size."]]


def test_keys_come_in_one_order_whatever_was_asked_first():
    found = score(["cider", "rouge", "bleu"], PREDICTIONS, REFERENCES)
    assert list(found.values) == list(found.per_segment) == KEYS
    assert list(found.signatures) == ["bleu", "rouge", "cider"]
    assert list(score(["cider"], PREDICTIONS, REFERENCES).values) == ["cider", "cider_unclipped"]


def test_counts_and_shapes():
    found = score(TEXT, PREDICTIONS, REFERENCES)
    assert (found.n, found.empty) == (3, 1)
    assert all(values.shape == (3,) for values in found.per_segment.values())
    assert found.values["rouge_l"] == pytest.approx(found.per_segment["rouge_l"].mean())
    assert found.values["cider"] == pytest.approx(found.per_segment["cider"].mean())


def test_an_answer_equal_to_its_reference_scores_one():
    texts = ["no acute cardiopulmonary process", "small left pleural effusion", "the heart is enlarged today"]
    found = score(["bleu", "rouge"], texts, [[text] for text in texts]).values
    np.testing.assert_allclose(list(found.values()), 1.0, atol=1e-8)


def test_a_line_break_is_a_blank_and_case_and_punctuation_do_not_count():
    broken = score(TEXT, ["NO\npleural\r\neffusion .", "b"], [["No pleural effusion"], ["b"]])
    plain = score(TEXT, ["no pleural effusion", "b"], [["no pleural effusion"], ["b"]])
    assert broken.values == plain.values


def test_only_empty_predictions():
    found = score(TEXT, ["", " \n"], [["a b"], ["c"]])
    assert found.empty == 2
    assert set(found.values.values()) == {0.0}


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        (["a"], [], "1 predictions but 0 lists"),
        ([], [], "no prediction"),
        (["a", "b"], [["a"], []], "prediction 1 has no list"),
        (["a"], ["a"], "prediction 0 has no list"),
    ],
)
def test_input_that_cannot_be_scored(predictions, references, message):
    with pytest.raises(InputError, match=message):
        score(["bleu"], predictions, references)


def test_names_are_parsed_once_each():
    assert parse_metrics("bleu,rouge,cider") == ["bleu", "rouge", "cider"]
    assert parse_metrics(" CIDEr , bleu,cider,") == ["cider", "bleu"]


def test_an_unknown_name_gets_a_suggestion():
    for ask in (
        lambda: parse_metrics("bleu,ruge"),
        lambda: score(["ruge"], ["a"], [["a"]]),
        lambda: metric_path("ruge"),
    ):
        with pytest.raises(UsageError, match=r'unknown metric "ruge" \(did you mean "rouge"\?\)'):
            ask()


@pytest.mark.parametrize("text", ["", " , ,"])
def test_no_name_at_all(text):
    with pytest.raises(UsageError, match="bleu, rouge, cider"):
        parse_metrics(text)


@pytest.mark.parametrize("name", METRICS.names())
def test_each_metric_has_its_folder(name):
    assert Path(medvlm.metric_path(name), f"{name}.py").is_file()


def test_case_counts_where_it_is_asked_for():
    for tokenizer in ("ptb", "13a", "whitespace"):
        lower, mixed = (
            score(["bleu"], ["No"], [["no"]], options=Options(tokenizer, case)) for case in ("lower", "mixed")
        )
        assert lower.values["bleu_1"] > 0.99 > mixed.values["bleu_1"]


@pytest.mark.parametrize(("options", "message"), [(Options("ptp"), "ptb"), (Options(case="upper"), "lower, mixed")])
def test_options_that_are_not_known(options, message):
    for name in ("bleu", "vqa"):
        with pytest.raises(UsageError, match=message):
            score([name], ["a"], [["a"]], options=options)
