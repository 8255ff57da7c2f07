"""Runs against each other: the same samples, some of them, none; the numbers are those of the comparison itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fabricated_run import make_baseline, make_run, write_predictions

from medvlm.evaluate.cider import save_idf
from medvlm.evaluate.compare import compare
from medvlm.evaluate.metrics import Options
from medvlm.report import pairs
from medvlm.report.context import RunContext, read
from medvlm.report.document import Block, Table, Text


def two(tmp_path: Path, n: int = 40) -> list[RunContext]:
    return [read(make_run(tmp_path, name, n, seed, 2, same_samples=True)) for name, seed in (("one", 0), ("two", 7))]


def rows(run: RunContext) -> list[dict[str, Any]]:
    file = run.path / "eval" / "test" / "predictions.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


def blocks(runs: list[RunContext]) -> list[Block]:
    return pairs.section(pairs.compared(runs)).blocks


def table(found: list[Block], caption: str) -> list[dict[str, str]]:
    (block,) = (block for block in found if isinstance(block, Table) and block.caption == caption)
    return [dict(zip(block.header, row, strict=True)) for row in block.rows]


def words(found: list[Block]) -> str:
    return "\n".join(block.text for block in found if isinstance(block, Text))


def test_the_numbers_are_those_of_the_comparison(tmp_path: Path) -> None:
    runs = two(tmp_path)
    truth = compare({run.name: rows(run) for run in runs}, ["bleu", "rouge", "cider"])
    found = blocks(runs)
    cell = truth["pairs"][0]["keys"]["cider"]
    (row,) = (row for row in table(found, "Paired differences: test") if row["metric"] == "CIDEr")
    assert row["first minus second"].startswith(f"{cell['difference']:+.3f} [{cell['low']:+.2f}, ")
    assert (row["p"], row["p, Holm"]) == (f"{cell['p']:.3g}", f"{cell['p_holm']:.3g}")
    assert row["in words"] == "one is better"
    scores = {row["metric"]: row for row in table(found, "Scores on the samples in common")}
    assert scores["BLEU-4"]["two"].startswith(f"{truth['rows']['two']['bleu_4']:.3f} [")
    assert "Split test: 40 samples of 40 patients, articles or images that all these runs answered." in words(found)


def test_only_the_samples_in_common_are_compared(tmp_path: Path) -> None:
    one, other = two(tmp_path)
    write_predictions(other.path, rows(other)[:30])
    found = words(blocks([one, read(other.path)]))
    assert "30 samples of 30 patients" in found
    assert "10 samples of one left out, which others lack" in found


def test_why_runs_are_not_compared_is_said(tmp_path: Path) -> None:
    one, other = two(tmp_path)
    write_predictions(other.path, [row | {"id": f"other-{row['id']}"} for row in rows(other)])
    assert "test: not compared pair by pair: one, two: no sample in common" in words(blocks([one, read(other.path)]))
    write_predictions(other.path, [row | {"references": ["else"]} for row in rows(one)])
    assert "has other references" in words(blocks([one, read(other.path)]))
    write_predictions(other.path, [])
    assert "no predictions with references were kept of two" in words(blocks([one, read(other.path)]))


def test_runs_of_other_splits_are_not_compared(tmp_path: Path) -> None:
    one, other = two(tmp_path)
    (other.path / "eval" / "test").rename(other.path / "eval" / "validation")
    assert words(blocks([one, read(other.path)])) == "Fewer than two of these runs are evaluated yet."


def test_several_tasks_are_compared_each_by_itself(tmp_path: Path) -> None:
    runs = two(tmp_path)
    for run in runs:
        write_predictions(run.path, [row | {"task": ("caption", "vqa")[i % 2]} for i, row in enumerate(rows(run))])
    truth = compare({run.name: rows(run) for run in runs}, ["bleu", "rouge", "cider"])["by_task"]
    found = blocks([read(run.path) for run in runs])
    for task in ("caption", "vqa"):
        cell = truth[task]["pairs"][0]["keys"]["cider"]
        listed = table(found, f"Paired differences: test, only task {task}")
        (row,) = (row for row in listed if row["metric"] == "CIDEr")
        assert row["first minus second"].startswith(f"{cell['difference']:+.3f} [")
        scores = table(found, f"Scores on the samples in common, only task {task}, n = 20")
        assert any(line["metric"] == "CIDEr" for line in scores)
    assert not any(isinstance(one, Table) and one.caption == "Paired differences: test" for one in found)


def test_settings_that_all_share_are_kept(tmp_path: Path) -> None:
    runs = two(tmp_path)
    for run in runs:
        file = run.path / "eval" / "test" / "scores.json"
        told = json.loads(file.read_text()) | {"signatures": {"bleu": "bleu:4|tok:whitespace|case:mixed"}}
        file.write_text(json.dumps(told))
    (found,) = pairs.compared([read(run.path) for run in runs]).values()
    assert isinstance(found, dict)
    assert list(found["signatures"]) == ["bleu"]
    assert "tok:whitespace|case:mixed" in found["signatures"]["bleu"]


def test_damaged_rows_are_survived(tmp_path: Path) -> None:
    one, other = two(tmp_path, 3)
    for run in (one, other):
        damaged = [row | {"group": {"a": [1]}, "choices": 7, "answer_type": [None], "task": {}} for row in rows(run)]
        write_predictions(run.path, damaged)
    assert "Split test: 3 samples of 1 patients" in words(blocks([read(one.path), read(other.path)]))


def test_runs_whose_folders_have_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [read(make_run(tmp_path / place, "same", 4, seed)) for place, seed in (("a", 0), ("b", 0))]
    (found,) = pairs.compared(runs).values()
    assert isinstance(found, dict)
    assert found["runs"] == [str(run.path) for run in runs]


def test_a_baseline_stands_among_runs(tmp_path: Path) -> None:
    runs = [*two(tmp_path), read(make_baseline(tmp_path, n=40))]
    found = table(blocks(runs), "Paired differences: test")
    assert {row["second run"] for row in found} == {"two", "20260103-120000-published"}
    assert sorted(row["metric"] for row in found) == sorted(3 * ["BLEU-4", "CIDEr", "ROUGE-L", "finding acc."])


def test_stems_and_document_frequencies_are_those_of_the_scores(tmp_path: Path) -> None:
    runs = two(tmp_path)
    idf = tmp_path / "idf.json"
    save_idf(idf, [row["references"] for row in rows(runs[0])], "13a", "mixed")

    def asked(run: RunContext, **settings: Any) -> None:
        file = run.path / "eval" / "test" / "scores.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"settings": settings}))

    for run in runs:
        asked(run, tokenizer="13a", case="mixed", stem=True, idf=str(idf))
    again = [read(run.path) for run in runs]
    (found,) = pairs.compared(again).values()
    assert isinstance(found, dict)
    truth = compare(
        {run.name: rows(run) for run in runs}, ["bleu", "rouge", "cider"], Options("13a", "mixed", True, idf)
    )
    assert (found["rows"], found["signatures"]) == (truth["rows"], truth["signatures"])
    assert found["settings_differ"] == []
    asked(runs[1], tokenizer="13a", case="mixed", stem=False, idf=None)
    said = words(blocks([read(run.path) for run in runs]))
    assert "not all scored alike" in said
    assert f"stem (yes, no; here no), idf ({idf}, none; here none)." in said
