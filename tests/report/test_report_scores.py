"""What a report says of scores.json, schema 2: intervals, differences, controls, slices, leakage, in short and full."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from fabricated_run import HOSTILE, make_baseline, make_run, scores_of_two
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medvlm.report import by_slice, honesty, overview, reproduce, results
from medvlm.report.build import SYNTHETIC, build
from medvlm.report.context import Evaluation, RunContext, read
from medvlm.report.document import Block, Caution, Chart, Document, Facts, Table, Text
from medvlm.report.html import render as html
from medvlm.report.markdown import render as markdown
from medvlm.report.scored import Scored, Value

FINITE = st.floats(-100, 100)
WORDS = st.sampled_from(["", "model", "cider", "n", "rows", "0.5", HOSTILE])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)
FEW = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def tables(blocks: list[Block]) -> dict[str, list[dict[str, str]]]:
    """Return caption -> rows, each a map from header to cell."""
    return {
        block.caption: [dict(zip(block.header, row, strict=True)) for row in block.rows]
        for block in blocks
        if isinstance(block, Table)
    }


def everything(document: Document) -> list[Block]:
    return [block for section in document.sections for block in section.blocks]


def said(blocks: list[Block]) -> str:
    return "\n".join(block.text for block in blocks if isinstance(block, Text | Caution))


def run_of_two(tmp_path: Path, **changes: Any) -> RunContext:
    """Return a run whose scores.json, schema 2, has these keys changed; None takes one away."""
    path = make_run(tmp_path, n=12, schema=2)
    file = path / "eval" / "test" / "scores.json"
    told = {key: value for key, value in (scores_of_two(60) | changes).items() if value is not None}
    file.write_text(json.dumps(told))
    return read(path)


def test_scores_have_intervals_and_stand_between_rights_and_licenses(tmp_path: Path) -> None:
    run = run_of_two(tmp_path)
    found = tables(list(results.score_blocks(run, run.evaluations[0])))
    model, _, constant = found["Scores and licenses"]
    assert list(model) == [
        *("row", "commercial use", "may share", "CIDEr", "BLEU-4", "ROUGE-L", "findings F1, micro"),
        *("code", "weights", "data license"),
    ]
    assert (model["BLEU-4"], model["commercial use"]) == ("0.580 [0.54, 0.63]", "yes")
    assert constant["CIDEr"] == "1.650 [1.61, 1.70]"
    every = {row["metric"]: row["this model"] for row in found["Every score"]}
    assert len(every) == 15
    assert every["CIDEr, unclipped"] == "2.600 [2.56, 2.65]"
    (difference,) = (
        row
        for row in found["Paired differences, 95 % intervals from a bootstrap over groups"]
        if (row["difference"], row["metric"]) == ("model minus best constant answer", "CIDEr")
    )
    assert (difference["estimate"], difference["p"], difference["p, Holm"]) == (
        "+1.000 [+0.94, +1.07]",
        "0.0001",
        "0.0002",
    )


@given(FINITE, st.floats(0, 1), st.floats(0, 1))
def test_a_value_reads_back(value: float, below: float, above: float) -> None:
    shown = str(Value(value, value - below, value + above))
    number, low, high = (float(part.strip(",[]")) for part in shown.split())
    assert number == pytest.approx(value, abs=0.00051)
    assert low == pytest.approx(value - below, abs=0.0051)
    assert high == pytest.approx(value + above, abs=0.0051)
    if below + above < 0.049:
        assert low == pytest.approx(value - below, abs=0.00051)


def test_values_by_hand() -> None:
    assert str(Value(None, 0.1, 0.2)) == "-"
    assert str(Value(0.1824, 0.169, 0.194)) == "0.182 [0.169, 0.194]"
    assert str(Value(0.412, 0.38, 0.44)) == "0.412 [0.38, 0.44]"
    assert str(Value(0.5)) == "0.5000"
    assert Value(0.5).signed() == "+0.5000"
    assert str(Value(1e300)) == "1e+300"
    assert Value(-0.0001, -0.04, 0.03).signed() == "+0.000 [-0.04, +0.03]"


def test_in_short_answers_the_first_questions(tmp_path: Path) -> None:
    answers = dict(overview.questions(run_of_two(tmp_path)))
    assert answers["how well it does"].startswith("CIDEr 2.650 [2.61, 2.70], BLEU-4 0.580 [0.54, 0.63]")
    assert "On 60 samples of the test split from 30 patients, articles or images." in answers["how well it does"]
    assert answers["better than one fixed answer"] == (
        "Yes: the CIDEr difference is +1.000 [+0.94, +1.07], p = 0.0001 (0.0002 corrected)."
    )
    assert answers["looks at the image"].startswith(
        "Yes: with its own picture instead of another sample's, the CIDEr changes by +1.800"
    )
    assert "84 % of its answers change when the picture is blank" in answers["looks at the image"]
    assert "keeps 50 % of its CIDEr" in answers["looks at the image"]
    assert answers["test samples seen in training"] == (
        "4 of 60 test samples also lie in the training data: 1 by the same picture, 2 by nearly the same picture, "
        "3 by the same text, as like cases often have."
    )
    assert (answers["commercial use"], answers["may be shared"][:3]) == ("yes", "yes")


@pytest.mark.parametrize(
    ("low", "high", "constant", "image"),
    [(0.1, 0.3, "Yes", "Yes"), (-0.1, 0.3, "Not shown", "Not shown"), (-0.3, -0.1, "No, it is worse", "No, another")],
)
def test_in_short_says_no_where_it_is_no(tmp_path: Path, low: float, high: float, constant: str, image: str) -> None:
    cell = {"difference": (low + high) / 2, "low": low, "high": high}
    controls = scores_of_two(60)["controls"] | {"visual_reliance": {"cider": cell}}
    run = run_of_two(tmp_path, comparisons={"constant": {"cider": cell}}, controls=controls)
    answers = dict(overview.questions(run))
    assert answers["better than one fixed answer"].startswith(f"{constant}:")
    assert answers["looks at the image"].startswith(image)


def test_controls_each_say_what_they_mean(tmp_path: Path) -> None:
    blocks = list(honesty.control_blocks(run_of_two(tmp_path).evaluations[0].scored))
    rows = {row["metric"]: row for row in tables(blocks)["Scores by the picture shown"]}
    assert list(rows) == ["BLEU-4", "ROUGE-L", "CIDEr", "findings F1, micro"]
    assert rows["CIDEr"] == {
        "metric": "CIDEr",
        "its own picture": "2.6000",
        "a blank picture": "1.1000",
        "another's picture": "0.8000",
        "visual reliance": "+1.800 [+0.06, +2.10]",
        "its own picture is": "better",
        "kept without image": "50 %",
    }
    (facts,) = (block for block in blocks if isinstance(block, Facts))
    assert dict(facts.rows)["answers that change, another's picture"] == "91 %"
    outputs = {row["row"]: row for row in tables(blocks)["Outputs"]}
    assert (outputs["this model"]["distinct / n"], outputs["references"]["mean words"]) == ("52 %", "7.3")
    assert said(blocks).count("arXiv:2603.03437") == 3
    assert "arXiv:1411.5726" in said(blocks)


def test_without_controls_that_is_said(tmp_path: Path) -> None:
    run = run_of_two(tmp_path, controls=None, leakage=None)
    page = markdown(build([run]))
    assert "The model was not tried without its images" in page
    assert "Nobody looked whether test samples also lie in the training data." in page
    answers = dict(overview.questions(run))
    assert answers["looks at the image"] == "Not measured."
    assert answers["test samples seen in training"] == "Not looked for."


def test_slices_have_a_table_and_a_chart_each(tmp_path: Path) -> None:
    blocks = list(by_slice.slice_blocks(run_of_two(tmp_path).evaluations[0].scored))
    found = tables(blocks)
    assert [row["modality"] for row in found["By modality"]] == ["xray", "ct"]
    assert found["By modality"][1]["CIDEr"] == "2.630 [1.60, 2.70]"
    assert found["By modality"][1]["CIDEr, best constant answer"] == "1.630 [0.60, 1.70]"
    charts = [block for block in blocks if isinstance(block, Chart)]
    assert len(charts) == 2
    assert charts[0].words.startswith("CIDEr of the model by modality, with 95 % intervals: xray (n = 30) 2.650")
    assert "Too few samples or groups to score by themselves (n): normal or not: normal (12)." in said(blocks)


def test_leakage_is_counted_and_told(tmp_path: Path) -> None:
    run = run_of_two(tmp_path, with_leaked={"n": 64, "rows": {"model": {"cider": 2.9, "bleu_1": 0.7}}})
    blocks = list(honesty.leakage_blocks(run.evaluations[0].scored))
    assert "4 of 60 test samples also lie in the training data" in said(blocks)
    counted = [row["samples"] for row in tables(blocks)["Leakage"]]
    assert counted == ["1", "2", "3", "0"]
    (row,) = tables(blocks)["Scores with and without what leaked"]
    assert (row["all samples, n = 64"], row["without what leaked"]) == ("2.9000", "2.650 [2.61, 2.70]")
    assert "The scores leave out what was found." in said(blocks)
    assert "--exclude-leaked" not in said(blocks)
    assert not [block for block in blocks if isinstance(block, Caution)]
    one = Scored({"leakage": {"n": 60, "leaked": 1, "images_same": 1}})
    assert honesty.leaked_in_words(one) == (
        "1 of 60 test samples also lies in the training data: 1 by the same picture."
    )
    clean = Scored({"leakage": {"n": 60, "images_same": 0, "leaked": {}}})
    assert "None of 60 test samples was found" in said(list(honesty.leakage_blocks(clean)))
    nothing = Scored({"leakage": {"n": 60, "leaked": 0, "train_rows": 0, "missing": ["data/x has no rows"]}})
    assert honesty.leaked_in_words(nothing) == "There was no row of training data to compare the test samples with."
    listed = Scored({"leakage": {"n": 60, "leaked": {"a": ["image"], "b": ["text"]}}})
    assert honesty.leaked_count(listed) == 2
    parts = [{"path": place, "rows": 9, "images_same": 1} for place in ("data/a", "data/b")]
    told = Scored({"leakage": {"n": 9, "leaked": 3, "texts_same": 3, "parts": parts, "missing": ["data/c is gone"]}})
    blocks = list(honesty.leakage_blocks(told))
    assert [block.text for block in blocks if isinstance(block, Caution)] == ["data/c is gone"], "texts alone"
    assert [row["same picture"] for row in tables(blocks)["Leakage by data set"]] == ["1", "1"]


def test_the_evaluations_own_warnings_are_told(tmp_path: Path) -> None:
    run = run_of_two(tmp_path, warnings=["60 samples are few", "Is it so?"])
    page = markdown(build([run]))
    assert "**Warning:** 60 samples are few." in page
    assert "**Warning:** Is it so?\n" in page
    # Of schema 2 nothing is judged a second time.
    assert results.warnings(run.evaluations[0].scored) == ["60 samples are few.", "Is it so?"]


def test_a_vqa_run_is_led_by_its_accuracy(tmp_path: Path) -> None:
    run = read(make_run(tmp_path, n=30, schema=2, task="vqa"))
    answers = dict(overview.questions(run))
    assert answers["how well it does"].startswith("accuracy 0.610 [0.57, 0.66], accuracy, closed questions 0.600")
    assert "+0.200 [+0.14, +0.27]" in answers["better than one fixed answer"]
    assert "accuracy of the model by modality" in markdown(build([run]))


def test_multiple_choice_is_among_the_main_scores_and_a_zero_of_short_answers_is_not() -> None:
    rows = {"model": {"accuracy": 0.5, "choice_accuracy": 0.6, "bleu_4": 2e-5, "rouge_l": 0.5}}
    assert Scored({"tasks": ["vqa"], "rows": rows}).main == ["accuracy", "choice_accuracy", "rouge_l"]
    # Of captions a BLEU-4 of nothing says something.
    assert "bleu_4" in Scored({"tasks": ["caption", "vqa"], "rows": rows}).main
    assert "bleu_4" in Scored({"tasks": ["vqa"], "rows": {**rows, "constant": {"bleu_4": 0.01}}}).main


def test_a_baseline_has_no_training(tmp_path: Path) -> None:
    run = read(make_baseline(tmp_path, n=6))
    assert run.problems == []
    assert (run.licenses, run.data_licenses) == ({}, {})
    page = markdown(build([run]))
    assert "google/paligemma-3b-pt-224 as it was published, with no training here; scored on 6 of test." in page
    assert "Nothing was trained: the model is as it was published." in page
    assert "· **baseline** ·" in page
    assert "fine-tuned" not in page.split("# Baselines")[0]
    told = json.loads((run.path / "run.json").read_text())
    told["license"] = {"commercial_use": "no", "may_share": "unknown", "license": "none yet", "reasons": ["data"]}
    told["data"][0]["licenses"] = {"CC-BY-NC-4.0": 5}
    (run.path / "run.json").write_text(json.dumps(told))
    again = read(run.path)
    # What it answers about says nothing about its own license.
    assert (again.verdict().commercial_use, again.verdict().may_share) == ("conditional", "conditional")
    assert results.rights_cells(again, "constant")[0] == "no"
    # It has the duties of the model that it is, and the rights that `medvlm licenses check` tells.
    assert any("prohibited use policy" in line for line in again.verdict().obligations)
    for id, rights in (
        ("HuggingFaceM4/idefics-9b", ["no", "no"]),
        ("microsoft/maira-2", ["no", "unknown"]),
        ("no/such", ["unknown", "unknown"]),
    ):
        told["model"] = {"id": id, "parts": {"model": id}}
        (run.path / "run.json").write_text(json.dumps(told))
        assert [results.rights_cells(read(run.path), row) for row in ("model", "base")] == [rights, rights]
    told["model"] = {"id": "google/paligemma-3b-pt-224"}
    (run.path / "run.json").write_text(json.dumps(told))
    assert "data: Phantom articles" not in markdown(build([again]))


def test_the_command_holds_what_differs_from_the_usual(tmp_path: Path) -> None:
    signatures = {"bleu": "bleu:4|tok:13a|case:mixed", "cider": "cider-d|tok:13a|case:mixed"}
    run = run_of_two(tmp_path, signatures=signatures, limit=50, engine="vllm", bootstrap={"resamples": 10})
    (line,) = (line for line in reproduce.commands(run) if line.startswith("medvlm eval"))
    assert line.endswith(
        "--split test --metrics bleu,cider --tokenizer 13a --case mixed --limit 50 --bootstrap 10 --controls all "
        "--engine vllm"
    )


def test_the_command_is_the_one_that_was_asked_for(tmp_path: Path) -> None:
    asked = {
        "tokenizer": "ptb", "case": "lower", "stem": True, "negation": "x", "idf": "my df.json", "groups": "patient",
        "bootstrap": 0, "seed": 4, "batch_size": 3, "controls": 0, "exclude_leaked": True, "base": False,
        "engine": "transformers",
    }  # fmt: skip
    run = run_of_two(tmp_path, signatures={"bleu": "bleu:4"}, settings=asked)
    (line,) = (line for line in reproduce.commands(run) if line.startswith("medvlm eval"))
    assert line.endswith(
        "--split test --metrics bleu --stem --negation x --idf 'my df.json' --bootstrap 0 --groups patient --seed 4 "
        "--controls none --exclude-leaked --no-base --batch-size 3"
    )


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_or_one_row_still_gives_a_report(tmp_path: Path, n: int) -> None:
    run = read(make_run(tmp_path, n=n, schema=2))
    page = html(build([run]))
    assert "Not for clinical use" in page
    assert f"n = {n}" in page


def test_numbers_that_are_none_are_left_out(tmp_path: Path) -> None:
    nan = {"cider": math.nan, "bleu_4": math.inf, "rouge_l": 0.3}
    run = run_of_two(
        tmp_path,
        rows={"model": nan, "constant": nan},
        intervals={"model": {"rouge_l": [math.nan, 0.4]}},
        comparisons={"constant": {"rouge_l": {"difference": math.nan, "low": 0, "high": 1}}},
        slices=[{"column": "a", "value": "b", "n": 3, "rows": {"model": {"rouge_l": [math.nan, None, None]}}}],
    )
    blocks = everything(build([run]))
    assert [row["ROUGE-L"] for row in tables(blocks)["Scores and licenses"]] == ["0.3000", "0.3000"]
    assert "nan" not in markdown(build([run])).lower().replace("finance", "")


@FEW
@given(st.dictionaries(st.sampled_from(sorted(scores_of_two(4))), JSON, max_size=6))
def test_damaged_scores_never_raise(changes: dict[str, Any]) -> None:
    raw = scores_of_two(4) | changes
    run = RunContext(Path("runs/x"), {}, "", [], {}, [Evaluation("test", raw, [])], [])
    page = html(build([run]))
    assert "Not for clinical use" in page


@FEW
@given(JSON)
def test_damaged_parts_never_raise(part: Any) -> None:
    raw = scores_of_two(4)
    for key in ("controls", "rows", "comparisons", "leakage", "outputs", "by_task"):
        for inner in raw[key] if isinstance(raw[key], dict) else ():
            raw[key][inner] = part
    raw["slices"] = [part, {"column": part, "value": part, "rows": {"model": part}}]
    run = RunContext(Path("runs/x"), {}, "", [], {}, [Evaluation("test", raw, [])], [])
    assert markdown(build([run]))


def test_hostile_names_in_scores_stay_text(tmp_path: Path) -> None:
    raw = json.loads(json.dumps(scores_of_two(6)).replace('"xray"', json.dumps(HOSTILE)))
    raw["slices"][0] |= {"column": HOSTILE}
    raw["controls"]["image_sensitivity"] = {HOSTILE: 0.5}
    raw["leakage"][HOSTILE] = HOSTILE
    raw["warnings"] = [HOSTILE]
    raw["rows"]["model"][HOSTILE] = 0.5
    run = RunContext(tmp_path, {}, "", [], {}, [Evaluation(HOSTILE, raw, [])], [])
    page, text = html(build([run])), markdown(build([run]))
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    outside = re.sub(r"^(`{3,}).*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert "\n# no heading" not in outside
    assert not re.search(r"(?<!\\)[<\[]", outside)
    assert "\x00" not in page + text


def test_a_task_that_the_model_loses_is_not_hidden_by_the_others(tmp_path: Path) -> None:
    def cells(key: str, low: float, high: float) -> dict[str, Any]:
        cell = {"difference": (low + high) / 2, "low": low, "high": high, "p": 0.001, "p_holm": 0.001}
        return {"constant": {key: cell}}

    def part(key: str, value: float, low: float, high: float) -> dict[str, Any]:
        intervals = {"model": {key: [value - 0.1, value + 0.1]}}
        return {"n": 30, "rows": {"model": {key: value}}, "intervals": intervals, "comparisons": cells(key, low, high)}

    by_task = {"caption": part("cider", 2.0, 0.2, 0.4), "vqa": part("accuracy", 0.3, -0.3, -0.1)}
    run = run_of_two(tmp_path, by_task=by_task, comparisons=cells("cider", 0.4, 0.6))
    answers = dict(overview.questions(run))
    assert answers["better than one fixed answer"] == (
        "in caption, yes: the CIDEr difference is +0.300 [+0.20, +0.40], p = 0.001 (0.001 corrected); "
        "in vqa, no, it is worse: the accuracy difference is -0.200 [-0.30, -0.10], p = 0.001 (0.001 corrected)."
    )
    assert answers["how well it does"].startswith("caption: CIDEr 2.000 [1.90, 2.10]; vqa: accuracy 0.300 [0.20, 0.40]")
    found = tables(list(results.score_blocks(run, run.evaluations[0])))
    assert found["Only task vqa, n = 30"] == [{"metric": "accuracy", "this model": "0.300 [0.20, 0.40]"}]
    for task in by_task.values():
        del task["comparisons"]
    answers = dict(
        overview.questions(run_of_two(tmp_path / "old", by_task=by_task, comparisons=cells("cider", 0.4, 0.6)))
    )
    assert answers["better than one fixed answer"].startswith("Yes: the CIDEr difference is +0.500")


def test_one_point_is_told_once_and_not_drawn(tmp_path: Path) -> None:
    path = make_run(tmp_path, n=3)
    (path / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 2.5, "eval_loss": 2.25}) + "\n")
    (section,) = (one for one in build([read(path)]).sections if one.title == "Training")
    assert not [block for block in section.blocks if isinstance(block, Chart)]
    assert "Loss by step: training 2.5 at 1; validation 2.25 at 1." in said(section.blocks)


def test_a_comparison_of_synthetic_runs_says_so_first(tmp_path: Path) -> None:
    runs = [read(make_run(tmp_path, name, 3)) for name in ("one", "two")]
    assert all(run.synthetic for run in runs)
    assert SYNTHETIC in build(runs).lead
    runs[1].data = []
    assert SYNTHETIC not in build(runs).lead
