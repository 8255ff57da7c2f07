import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from metric_peers import AS_IT_IS, coco_cider, plain_cider, segments
from metric_peers import scored as as_segments

from medvlm.errors import InputError
from medvlm.evaluate.cider import Cider, save_idf
from medvlm.evaluate.metrics import Options, aggregate, by_segment, score

CIDER = Cider(AS_IT_IS)


def scored(some):
    statistics = CIDER.statistics(as_segments(some))
    return aggregate(CIDER, statistics)["cider"], by_segment(CIDER, statistics)["cider"]


@settings(deadline=None)
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


@settings(deadline=None)
@given(segments)
def test_unclipped_equals_the_definition_written_out(some):
    found = by_segment(CIDER, CIDER.statistics(as_segments(some)))["cider_unclipped"]
    np.testing.assert_allclose(found, plain_cider(some), rtol=0, atol=1e-9)


def test_clipping_and_length_count_only_for_cider_d():
    some = [(["clear"] * 4, [["clear"]]), (["no"], [["no", "effusion"]])]
    found = aggregate(CIDER, CIDER.statistics(as_segments(some)))
    assert found["cider_unclipped"] > found["cider"]


def options(path=None, others=None, **more):
    return Options("whitespace", "mixed", idf=path, idf_references=others, **more)


def both(segments, chosen):
    return by_segment(Cider(chosen), Cider(chosen).statistics(segments))


@settings(deadline=None, max_examples=40)
@given(segments, segments)
def test_frequencies_of_other_references_give_what_the_definition_gives(some, others):
    found = both(as_segments(some), options(others=as_segments(others).references))
    np.testing.assert_allclose(found["cider_unclipped"], plain_cider(some, others), rtol=0, atol=1e-9)


SOME = [(["no", "effusion"], [["no", "pleural", "effusion"]]), (["clear"], [["lungs", "clear"], ["clear"]])]


def test_a_few_rows_of_a_corpus_score_as_they_do_within_it(tmp_path):
    every = as_segments([*SOME, (["x"], [["no", "lungs"]]), ([], [["y"]])])
    few = as_segments(SOME)
    save_idf(tmp_path / "idf.json", every.references, "whitespace", "mixed")
    within = both(every, options())
    for chosen in (options(others=every.references), options(tmp_path / "idf.json")):
        for key, values in both(few, chosen).items():
            np.testing.assert_allclose(values, within[key][: len(SOME)], rtol=0, atol=1e-12)
    assert both(few, options())["cider"][0] != pytest.approx(within["cider"][0])


def test_a_file_of_frequencies_is_what_it_says(tmp_path):
    save_idf(tmp_path / "idf.json", [["No effusion.", "no effusion"], ["No nodule"]])
    content = json.loads((tmp_path / "idf.json").read_text())
    assert content["frequencies"] == {"effusion": 1, "no": 2, "no effusion": 1, "no nodule": 1, "nodule": 1}
    assert (content["n"], content["tokenizer"], content["case"]) == (2, "ptb", "lower")


def test_another_file_has_another_signature(tmp_path):
    signatures = []
    for name, references in (("a", [["no"]]), ("b", [["no"], ["yes"]]), ("again", [["no"]])):
        save_idf(tmp_path / name, references)
        signatures.append(score(["cider"], ["a"], [["b"]], options=Options(idf=tmp_path / name)).signatures["cider"])
    assert signatures[0] == signatures[2] != signatures[1]
    assert "idf:file(n=1,hash=" in signatures[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2, but this medvlm reads version 1"),
        ({"tokenizer": "13a"}, "--tokenizer 13a"),
        ({"case": "mixed"}, "--case mixed"),
        ({"format": "other"}, "not a file of document frequencies"),
        ({"n": 0}, "damaged"),
        ({"frequencies": {"a": 9}}, "damaged"),
        ({"frequencies": None}, "damaged"),
        ({"frequencies": {"a": "1"}}, 'json: "frequencies" damaged'),
        ({"n": True}, 'json: "n" damaged'),
        ({"n": "1"}, 'json: "n" damaged'),
        ({"tokenizer": None}, '"tokenizer" damaged or left out'),
        ({"tokenizer": None, "case": ["lower"]}, '"tokenizer", "case" damaged or left out'),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path, change, message):
    path = tmp_path / "idf.json"
    save_idf(path, [["no effusion"]])
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message):
        Cider(Options(idf=path))


@pytest.mark.parametrize("key", ["format", "version", "tokenizer", "case", "n", "frequencies"])
def test_a_file_that_lacks_a_key(tmp_path, key):
    path = tmp_path / "idf.json"
    save_idf(path, [["no effusion"]])
    path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != key}))
    with pytest.raises(InputError, match=r"idf\.json: "):
        Cider(Options(idf=path))


def test_no_file_and_no_json(tmp_path):
    with pytest.raises(InputError, match="cannot be read as JSON"):
        Cider(Options(idf=tmp_path / "none.json"))
    with pytest.raises(InputError, match="no references"):
        save_idf(tmp_path / "idf.json", [])
