"""The metric `findings` against a slow reading of its definition."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_findings import labelled

from medvlm.cli import run
from medvlm.errors import UsageError
from medvlm.evaluate.findings import FIVE, OBSERVATIONS, Findings, labels
from medvlm.evaluate.findings.labels import reading
from medvlm.evaluate.metrics import Options, Segments, aggregate, by_segment, score

REPORTS = st.lists(st.sampled_from([row.sentence for row in labelled()]), max_size=4).map(" ".join)
STATED = ("positive", "uncertain")
PAIRS = st.lists(st.tuples(REPORTS, REPORTS), min_size=1, max_size=6)


def values(predictions: list[str], references: list[list[str]]) -> dict[str, float]:
    return score(["findings"], predictions, references).values


def f1_of(pairs: list[tuple[bool, bool]]) -> float:
    """Return F1 of (said, true), NaN where neither ever is."""
    right = sum(said and true for said, true in pairs)
    wrong = sum(said != true for said, true in pairs)
    return 2 * right / (2 * right + wrong) if right or wrong else math.nan


def slowly(pairs: list[tuple[str, str]]) -> dict[str, float]:
    """Return the five scores straight from their definition."""
    found = {}
    for key, names in [("findings_micro_f1", OBSERVATIONS), ("findings_five_f1", FIVE)]:
        marks = {
            name: [tuple(labels(text).get(name) in ("positive", "uncertain") for text in pair) for pair in pairs]
            for name in names
        }
        found[key] = f1_of([pair for listed in marks.values() for pair in listed])
        each = [value for listed in marks.values() if not math.isnan(value := f1_of(listed))]
        found[key.replace("micro", "macro").replace("five_f1", "five_macro_f1")] = sum(each) / len(each or [1])
        if not each:
            found[key.replace("micro", "macro").replace("five_f1", "five_macro_f1")] = math.nan
    sides = [(reading(said).sides, reading(true).sides) for said, true in pairs]
    stated = [one[name] == other[name] for one, other in sides for name in one if name in other]
    found["findings_sides"] = sum(stated) / len(stated) if stated else math.nan
    return {key: value for key, value in found.items() if not math.isnan(value)}


@given(PAIRS)
@settings(deadline=None, max_examples=60)
def test_equals_its_definition(pairs: list[tuple[str, str]]) -> None:
    found = values([said for said, _ in pairs], [[true] for _, true in pairs])
    assert found == pytest.approx(slowly(pairs), abs=1e-12)


@given(PAIRS)
@settings(deadline=None, max_examples=30)
def test_a_report_equal_to_its_reference_is_right(pairs: list[tuple[str, str]]) -> None:
    texts = [text for text, _ in pairs]
    assert all(value == 1.0 for value in values(texts, [[text] for text in texts]).values())


def test_a_negation_flip_and_a_side_flip_cost() -> None:
    assert values(["Pleural effusion."], [["No pleural effusion."]])["findings_micro_f1"] == 0.0
    assert values(["Left effusion."], [["Right effusion."]]) == {
        "findings_micro_f1": 1.0,
        "findings_macro_f1": 1.0,
        "findings_five_f1": 1.0,
        "findings_five_macro_f1": 1.0,
        "findings_sides": 0.0,
    }


def test_an_uncertain_observation_counts_as_a_positive_one() -> None:
    assert values(["Possible pneumonia."], [["Pneumonia."]])["findings_micro_f1"] == 1.0


def test_of_several_references_the_nearest_counts() -> None:
    references = [["Left effusion and cardiomegaly.", "Effusion.", "Clear lungs."]]
    assert values(["There is an effusion."], references)["findings_micro_f1"] == 1.0


def test_keys_that_nothing_is_about_are_left_out() -> None:
    assert values(["A knee."], [["Another knee."]]) == {}
    segments = Segments(["A knee."], [["Another knee."]])
    metric = Findings(Options())
    assert np.isnan(metric.of_sums(metric.statistics(segments).sum(axis=0, keepdims=True))).all()


def test_a_segment_alone_scores_as_in_a_set_of_one() -> None:
    segments = Segments(["Left effusion.", "Clear lungs."], [["Left effusion. Edema."], ["Pneumonia."]])
    metric = Findings()
    statistics = metric.statistics(segments)
    alone = by_segment(metric, statistics)
    for index in range(2):
        expected = aggregate(metric, statistics[index : index + 1])
        assert {key: found[index] for key, found in alone.items() if not np.isnan(found[index])} == expected


def test_signature_says_that_it_is_a_proxy_and_by_which_engine() -> None:
    segments = Segments(["a", "b"], [["a"], ["b", "c"]])
    for negation in ("rules", "negspacy"):
        found = Findings(Options(negation=negation)).signature(segments)
        assert "rule-based proxy" in found
        assert f"negation:{negation}" in found
        assert "uncertain:positive" in found
        assert "refs:max2,best" in found


def test_the_options_choose_the_engine_of_negation(tmp_path: Path) -> None:
    texts = ["No pneumothorax, left effusion."], [["Left effusion."]]
    found = score(["findings"], *texts, options=Options(negation="negspacy"))
    assert found.values["findings_micro_f1"] < values(*texts)["findings_micro_f1"] == 1.0
    file = tmp_path / "p.jsonl"
    file.write_text(json.dumps({"id": "a", "prediction": texts[0][0], "references": texts[1][0]}), encoding="utf-8")
    asked = ["eval", "--predictions", str(file), "--metrics", "findings", "--negation", "negspacy", "--bootstrap", "0"]
    assert run([*asked, "--json", str(tmp_path / "s.json")]) == 0
    assert json.loads((tmp_path / "s.json").read_text("utf-8"))["rows"]["model"] == found.values


def test_unknown_engine_of_negation() -> None:
    with pytest.raises(UsageError, match="unknown negation engine"):
        Findings(Options(negation="negex"))


@pytest.mark.realdata
def test_five_classes_agree_as_often_as_by_chexbert(realdata: Path) -> None:
    # RadEval's published run of CheXbert: the share of the five classes that are alike, for eight pairs of reports.
    run = json.loads((realdata / "metrics/radeval_fixtures/trl_rewards_260429.json").read_text("utf-8"))
    assert len(run["divergence"]) == 8
    for pair in run["divergence"]:
        known, guess = (labels(pair[key]) for key in ("ref", "hyp"))
        alike = [(known.get(name) in STATED) == (guess.get(name) in STATED) for name in FIVE]
        assert sum(alike) / 5 == pytest.approx(pair["scores"]["f1chexbert"]), pair["id"]
