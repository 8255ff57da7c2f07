"""What a model's card takes from a report, as Markdown and as the Hub's own results."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from fabricated_run import HOSTILE, make_run, scores_of_two
from huggingface_hub import ModelCardData
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

from medvlm.report import sections
from medvlm.report.context import Evaluation, RunContext, read


def test_every_split_has_a_part(tmp_path: Path) -> None:
    path = make_run(tmp_path, n=6, schema=2)
    (path / "eval" / "validation").mkdir()
    (path / "eval" / "validation" / "scores.json").write_text(json.dumps(scores_of_two(20, "vqa")))
    text = sections.scores(read(path))
    assert [line for line in text.split("\n") if line.startswith("#")] == ["### Split test", "### Split validation"]
    assert "| accuracy | 0.610 \\[0.57, 0.66\\] |" in text.split("### Split validation")[1]
    assert "<svg" not in text
    assert "with 95 % intervals: minus" not in text, "a chart's words repeat the table"


def test_a_run_that_is_not_evaluated_says_so(tmp_path: Path) -> None:
    path = make_run(tmp_path, n=3)
    (path / "eval" / "test" / "scores.json").unlink()
    assert sections.scores(read(path)) == sections.NOT_EVALUATED
    assert sections.in_short(read(path)) == ""


def test_hostile_scores_make_no_heading_on_a_card(tmp_path: Path) -> None:
    raw = scores_of_two(6)
    raw["warnings"], raw["signatures"] = [HOSTILE], {HOSTILE: HOSTILE}
    run = RunContext(tmp_path, {}, "", [], {}, [Evaluation(HOSTILE, raw, [])], [])
    text = sections.scores(run)
    assert sum(line.startswith("#") for line in text.split("\n")) == 1
    assert "<script>" not in text.replace("\\<script\\>", "")


def test_results_survive_the_hubs_own_round_trip(tmp_path: Path) -> None:
    run = read(make_run(tmp_path, n=6, schema=2))
    found = sections.eval_results(run, "me/data")
    assert {(one.dataset_type, one.dataset_name) for one in found} == {("me/data", "Phantom articles")}
    _, again = model_index_to_eval_results(eval_results_to_model_index("tiny", found))
    values = {one.metric_type: one.metric_value for one in again}
    assert values == pytest.approx(scores_of_two(6)["rows"]["model"])
    assert ModelCardData(model_name="tiny", eval_results=found).to_dict()["model-index"][0]["name"] == "tiny"


def test_results_hold_no_numbers_that_are_none(tmp_path: Path) -> None:
    raw = {"rows": {"model": {"cider": math.nan, "bleu_4": 0.25}}}
    run = RunContext(tmp_path, {}, "", [], {}, [Evaluation("test", raw, [])], [])
    assert [(one.metric_type, one.metric_value) for one in sections.eval_results(run)] == [("bleu_4", 0.25)]
